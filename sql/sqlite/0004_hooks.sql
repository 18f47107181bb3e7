-- Hooks: messages that are posted to a web server unless their recipients have received them.
--
-- The text of a message stays in Message: a row takes about 60 bytes. Nothing has ever written to the table Hook.

DROP TABLE Hook;

CREATE TABLE HookQueue (
    id     INTEGER PRIMARY KEY,
    sender INTEGER NOT NULL,
    conv   INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    time   INTEGER NOT NULL,                   -- of the message
    member INTEGER NOT NULL                    -- members of the group up to this one are done
) STRICT;
-- Senders take turns.
CREATE INDEX HookQueue_sender ON HookQueue (sender, id);
