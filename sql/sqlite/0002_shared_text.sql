-- A text for many users, such as a message to a group, is stored once. Their rows have its id, and an empty message.

CREATE TABLE MessageText (
    id      INTEGER PRIMARY KEY,
    message TEXT NOT NULL
) STRICT;

ALTER TABLE OfflineMessage ADD COLUMN textid INTEGER;

-- Says whether a text is still wanted.
CREATE INDEX OfflineMessage_text ON OfflineMessage (textid) WHERE textid IS NOT NULL;
