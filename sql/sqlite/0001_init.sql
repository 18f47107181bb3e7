-- The tables of the reference server, with what it lacks: names that are unique without regard to case and accents, and
-- messages that keep their order. Ids are never used again.

CREATE TABLE User (
    id       INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id <= 2147483647),
    name     TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE, -- the name as it is compared, see src/collation.rs
    password TEXT NOT NULL,        -- a PHC string
    state    TEXT NOT NULL DEFAULT 'offline' CHECK (state IN ('online', 'offline'))
) STRICT;
CREATE INDEX User_online ON User (id) WHERE state = 'online';

CREATE TABLE Friend (
    userid   INTEGER NOT NULL,
    friendid INTEGER NOT NULL,
    PRIMARY KEY (userid, friendid)
) STRICT, WITHOUT ROWID;

CREATE TABLE AllGroup (
    id        INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id <= 2147483647),
    groupname TEXT NOT NULL,
    name_key  TEXT NOT NULL,
    groupdesc TEXT NOT NULL
) STRICT;

CREATE TABLE GroupUser (
    groupid   INTEGER NOT NULL,
    userid    INTEGER NOT NULL,
    grouprole TEXT NOT NULL CHECK (grouprole IN ('creator', 'normal')),
    PRIMARY KEY (groupid, userid)
) STRICT, WITHOUT ROWID;
CREATE INDEX GroupUser_user ON GroupUser (userid, groupid);

CREATE TABLE OfflineMessage (
    id      INTEGER PRIMARY KEY AUTOINCREMENT, -- the order of arrival
    userid  INTEGER NOT NULL,
    message TEXT NOT NULL
) STRICT;
CREATE INDEX OfflineMessage_user ON OfflineMessage (userid, id);
