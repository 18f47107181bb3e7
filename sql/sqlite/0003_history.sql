-- Level 2: conversations with numbered messages, what their members have read, and devices.
--
-- No column is NULL: 0 and an empty text say "none". Numbers of messages begin with 1. Times are milliseconds since 1970.

ALTER TABLE User ADD COLUMN level2 INTEGER NOT NULL DEFAULT 0;       -- first login at level 2
ALTER TABLE User ADD COLUMN level1_seen INTEGER NOT NULL DEFAULT 0;  -- last login at level 1
ALTER TABLE User ADD COLUMN receipts INTEGER NOT NULL DEFAULT 1;     -- 0: shows and is shown no marks of others

ALTER TABLE GroupUser ADD COLUMN since INTEGER NOT NULL DEFAULT 0;   -- when the user joined; 0: before all others

-- A row of a message that is in a conversation as well: its place there. It is not imported.
ALTER TABLE OfflineMessage ADD COLUMN conv INTEGER NOT NULL DEFAULT 0;
ALTER TABLE OfflineMessage ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;

-- A device that has stored much reports many conversations at once.
CREATE INDEX OfflineMessage_marked ON OfflineMessage (userid, conv, seq) WHERE seq > 0;

-- The id is computed: that of the group, or lower user << 32 | higher user.
CREATE TABLE Conversation (
    id        INTEGER PRIMARY KEY,
    head      INTEGER NOT NULL,                -- the last number
    head_tag  INTEGER NOT NULL,
    count     INTEGER NOT NULL,                -- of the messages that count as unread
    recalled  INTEGER NOT NULL DEFAULT 0,      -- of these, those in Recalled
    floor     INTEGER NOT NULL DEFAULT 0,      -- numbers up to this are gone
    floor_nth INTEGER NOT NULL DEFAULT 0,
    touched   INTEGER NOT NULL                 -- when the last message was committed
) STRICT;

-- The id is the place in the file: rows are only appended, so that a commit touches few pages.
CREATE TABLE Message (
    id       INTEGER PRIMARY KEY,
    conv     INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    nth      INTEGER NOT NULL,                 -- how many up to this one count as unread
    sender   INTEGER NOT NULL,
    time     INTEGER NOT NULL,
    kind     INTEGER NOT NULL,                 -- 0 message, 1 edit, 2 recall, 3 other; 4 and 7: imported 0 and 3
    ref      INTEGER NOT NULL,                 -- of an edit or a recall: its target
    edited   INTEGER NOT NULL,                 -- the newest edit of this one
    recalled INTEGER NOT NULL,                 -- the recall of this one; its text is empty
    cid      BLOB NOT NULL,                    -- the sender's id of it: a UUID as 0 and 16 bytes, or its text
    hash     BLOB NOT NULL,                    -- of the frame's bytes
    text     TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX Message_conv ON Message (conv, seq);
-- Ids of clients begin with the time: new ones share a page, whoever has sent them.
CREATE UNIQUE INDEX Message_cid ON Message (cid, sender);

-- The edits of each message, which a recall empties.
CREATE TABLE Edit (
    conv   INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    target INTEGER NOT NULL,
    PRIMARY KEY (conv, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX Edit_target ON Edit (conv, target);

-- Which messages that count as unread are recalled: 1,024 numbers a row, as bits.
CREATE TABLE Recalled (
    conv  INTEGER NOT NULL,
    block INTEGER NOT NULL,                    -- number / 1024
    count INTEGER NOT NULL,                    -- of the bits
    bits  BLOB NOT NULL,                       -- 128 bytes, the lowest number first
    PRIMARY KEY (conv, block)
) STRICT, WITHOUT ROWID;

-- Marks. Who is a member of a group is in GroupUser.
CREATE TABLE Member (
    conv       INTEGER NOT NULL,
    user       INTEGER NOT NULL,
    joined     INTEGER NOT NULL DEFAULT 0,     -- the first number that this member sees
    joined_nth INTEGER NOT NULL DEFAULT 0,     -- how many before it count as unread
    read       INTEGER NOT NULL DEFAULT 0,
    read_nth   INTEGER NOT NULL DEFAULT 0,     -- how many up to read count as unread
    own        INTEGER NOT NULL DEFAULT 0,     -- of those behind read, the member's own; only an import makes some
    recv       INTEGER NOT NULL DEFAULT 0,     -- the furthest device's
    marked     INTEGER NOT NULL DEFAULT 0,     -- when a device last raised read or recv
    PRIMARY KEY (conv, user)
) STRICT, WITHOUT ROWID;
CREATE INDEX Member_user ON Member (user);

-- AUTOINCREMENT: a token of a forgotten device never fits another one.
CREATE TABLE Device (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    user   INTEGER NOT NULL,
    device TEXT NOT NULL,
    login  INTEGER NOT NULL,                   -- a random number of the login that was written last
    secret BLOB NOT NULL,                      -- what the device's tokens are made with
    seen   INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX Device_user ON Device (user, device);

CREATE TABLE DeviceCursor (
    device INTEGER NOT NULL,
    conv   INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    PRIMARY KEY (device, conv)
) STRICT, WITHOUT ROWID;

CREATE TABLE Blocked (
    user    INTEGER NOT NULL,
    blocked INTEGER NOT NULL,
    PRIMARY KEY (user, blocked)
) STRICT, WITHOUT ROWID;
CREATE INDEX Blocked_blocked ON Blocked (blocked);

-- Users who were removed from a group and may not join it again.
CREATE TABLE Banned (
    groupid INTEGER NOT NULL,
    userid  INTEGER NOT NULL,
    PRIMARY KEY (groupid, userid)
) STRICT, WITHOUT ROWID;

-- Open requests to be friends: sender and recipient.
CREATE TABLE Asked (
    userid   INTEGER NOT NULL,
    friendid INTEGER NOT NULL,
    PRIMARY KEY (userid, friendid)
) STRICT, WITHOUT ROWID;
CREATE INDEX Asked_friend ON Asked (friendid);

CREATE TABLE Hook (
    id    INTEGER PRIMARY KEY,
    due   INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    body  TEXT NOT NULL
) STRICT;
CREATE INDEX Hook_due ON Hook (due);

CREATE TABLE Meta (
    id    INTEGER PRIMARY KEY,                 -- 1: the key of all tokens
    value BLOB NOT NULL
) STRICT;
