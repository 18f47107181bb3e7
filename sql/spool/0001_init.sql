-- The first schema of spool.db: messages that wait on a node's disk until the database of the cluster is back.
--
-- AUTOINCREMENT: an id is never used twice, so the order of the ids is the order of arrival, across restarts too.

CREATE TABLE Spooled (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    userid  INTEGER NOT NULL,
    message TEXT NOT NULL,
    aside   INTEGER NOT NULL DEFAULT 0         -- 1: the database refused this one by itself; tried again at the next start
) STRICT;

-- Every entry ends in the row's id, so this is the order (userid, id): one user's messages, oldest first.
CREATE INDEX Spooled_user ON Spooled (userid);
