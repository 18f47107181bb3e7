-- The first schema. Tables and columns are named as in the reference server's MySQL schema; what is new is said here.
--
-- No foreign keys: the reference server keeps rows about users and groups that do not exist, and in compatibility mode
-- this server must be able to do the same.
--
-- AUTOINCREMENT: an id is never used twice, so a late answer or a late delete cannot hit a newer row.

CREATE TABLE User (
    id       INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 2147483647),
    name     TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,             -- the name without case and accents; computed by the server
    password TEXT NOT NULL,                    -- a PHC string, or the plain text of the reference server
    state    TEXT NOT NULL DEFAULT 'offline' CHECK (state IN ('online', 'offline'))
) STRICT;

CREATE TABLE Friend (
    userid   INTEGER NOT NULL,
    friendid INTEGER NOT NULL,
    PRIMARY KEY (userid, friendid)
) STRICT, WITHOUT ROWID;

CREATE TABLE AllGroup (
    id        INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 2147483647),
    groupname TEXT NOT NULL,
    name_key  TEXT NOT NULL,                   -- as in User, for the search; group names need not be unique
    groupdesc TEXT NOT NULL
) STRICT;

CREATE TABLE GroupUser (
    groupid   INTEGER NOT NULL,
    userid    INTEGER NOT NULL,
    grouprole TEXT NOT NULL CHECK (grouprole IN ('creator', 'normal')),
    PRIMARY KEY (groupid, userid)
) STRICT, WITHOUT ROWID;

CREATE INDEX GroupUser_user ON GroupUser (userid);

CREATE TABLE OfflineMessage (
    id      INTEGER PRIMARY KEY AUTOINCREMENT, -- ascends in the order of arrival
    userid  INTEGER NOT NULL,
    message TEXT NOT NULL
) STRICT;

-- Every entry ends in the row's id, so this is the order (userid, id): one user's messages, oldest first.
CREATE INDEX OfflineMessage_user ON OfflineMessage (userid);
