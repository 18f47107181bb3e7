-- The tables of the chat server, for a new installation on MySQL 8.0 or later, or MariaDB 10.11 or
-- later.
--
-- Loads into the selected database, which must not contain them yet:
--
--     mysql -e 'CREATE DATABASE chat'
--     mysql chat < sql/chat.sql
--
-- The files in mysql/ bring a database of the reference server to this state.
--
-- The reference server's statements work on these tables as on its own. So columns that it does not
-- know are INVISIBLE if the database supports that (a `SELECT *` does not return them, an `INSERT`
-- without a list of columns does not need them), and have a default.
--
-- Comments with a version are code for one database only: /*! for MySQL, /*M! for MariaDB. Names
-- are compared without regard to case and accents, but blanks count, also at the end. Both
-- databases have such a collation, but under different names. No foreign keys: the reference server
-- stores rows about users and groups that do not exist.

CREATE TABLE User (
    id       INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name     VARCHAR(50) NOT NULL COLLATE /*!80000 utf8mb4_0900_ai_ci */ /*M!101000 utf8mb4_uca1400_nopad_ai_ci */,
    -- A PHC string, or the plain text of the reference server.
    password VARCHAR(255) NOT NULL COLLATE utf8mb4_bin,
    state    ENUM('online', 'offline') NOT NULL DEFAULT 'offline',
    -- When the user first logged in at level 2, and last at level 1; 0 in receipts: shows and is
    -- shown no marks of others.
    level2      BIGINT NOT NULL DEFAULT 0 /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */,
    level1_seen BIGINT NOT NULL DEFAULT 0 /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */,
    receipts    BIGINT NOT NULL DEFAULT 1 /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */,
    UNIQUE KEY name (name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE Friend (
    userid   INT NOT NULL,
    friendid INT NOT NULL,
    PRIMARY KEY (userid, friendid)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE AllGroup (
    id        INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    groupname VARCHAR(50) NOT NULL COLLATE /*!80000 utf8mb4_0900_ai_ci */ /*M!101000 utf8mb4_uca1400_nopad_ai_ci */,
    groupdesc VARCHAR(200) NOT NULL DEFAULT '',
    -- The name without case and accents, as the server computes it for searches: up to 18
    -- characters for one of the name. NULL where the reference server made the group; the next
    -- search computes it.
    name_key  VARCHAR(1000) NULL COLLATE utf8mb4_bin /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */,
    KEY name_key (name_key(8))
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE GroupUser (
    groupid   INT NOT NULL,
    userid    INT NOT NULL,
    grouprole ENUM('creator', 'normal') NOT NULL DEFAULT 'normal',
    -- When the user joined, ms since 1970; 0: before all others.
    since     BIGINT NOT NULL DEFAULT (FLOOR(UNIX_TIMESTAMP(NOW(3)) * 1000)) /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */,
    PRIMARY KEY (groupid, userid),
    KEY userid (userid)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The id ascends in the order of arrival and is never used again: both servers keep the counter
-- across restarts.
CREATE TABLE OfflineMessage (
    userid  INT NOT NULL,
    message MEDIUMTEXT NOT NULL,
    id      BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */,
    -- The place of the same message in a conversation, if it is in one.
    conv    BIGINT NOT NULL DEFAULT 0 /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */,
    seq     BIGINT NOT NULL DEFAULT 0 /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */,
    KEY userid_id (userid, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Level 2. No column is NULL: 0 and an empty text say "none". Numbers of messages begin with 1.
-- Times are milliseconds since 1970.

-- The id is computed: that of the group, or lower user << 32 | higher user.
CREATE TABLE Conversation (
    id        BIGINT NOT NULL PRIMARY KEY,
    head      BIGINT NOT NULL,
    head_tag  BIGINT NOT NULL,
    -- Of the messages that count as unread, and of these, those in Recalled.
    count     BIGINT NOT NULL,
    recalled  BIGINT NOT NULL DEFAULT 0,
    -- Numbers up to this are gone.
    floor     BIGINT NOT NULL DEFAULT 0,
    floor_nth BIGINT NOT NULL DEFAULT 0,
    -- When the last message was committed.
    touched   BIGINT NOT NULL,
    KEY touched (touched)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Kinds: 0 message, 1 edit, 2 recall, 3 other, 4 and 7 imported 0 and 3. An edit or a recall has
-- its target in ref. A message that is recalled has an empty text. cid is the sender's id of it,
-- hash that of the frame's bytes.
CREATE TABLE Message (
    conv     BIGINT NOT NULL,
    seq      BIGINT NOT NULL,
    nth      BIGINT NOT NULL,
    sender   INT NOT NULL,
    time     BIGINT NOT NULL,
    kind     TINYINT NOT NULL,
    ref      BIGINT NOT NULL,
    edited   BIGINT NOT NULL,
    recalled BIGINT NOT NULL,
    cid      VARBINARY(64) NOT NULL,
    hash     VARBINARY(16) NOT NULL,
    text     MEDIUMTEXT NOT NULL,
    PRIMARY KEY (conv, seq),
    UNIQUE KEY cid (sender, cid)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The edits of each message, which a recall empties.
CREATE TABLE Edit (
    conv   BIGINT NOT NULL,
    seq    BIGINT NOT NULL,
    target BIGINT NOT NULL,
    PRIMARY KEY (conv, seq),
    KEY target (conv, target)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The recalled messages among those that count as unread: 1,024 numbers a row, as bits, the lowest
-- number first.
CREATE TABLE Recalled (
    conv  BIGINT NOT NULL,
    block BIGINT NOT NULL,
    count BIGINT NOT NULL,
    bits  VARBINARY(128) NOT NULL,
    PRIMARY KEY (conv, block)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Marks. The members of a group are in GroupUser. joined is the first number that a member sees,
-- own counts the member's own messages behind `read`, and marked is when a device last raised
-- `read` or recv.
CREATE TABLE Member (
    conv       BIGINT NOT NULL,
    user       INT NOT NULL,
    joined     BIGINT NOT NULL DEFAULT 0,
    joined_nth BIGINT NOT NULL DEFAULT 0,
    `read`     BIGINT NOT NULL DEFAULT 0,
    read_nth   BIGINT NOT NULL DEFAULT 0,
    own        BIGINT NOT NULL DEFAULT 0,
    recv       BIGINT NOT NULL DEFAULT 0,
    marked     BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (conv, user),
    KEY user (user),
    KEY marked (marked)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- login is a random number of the login that was written last, secret what the device's tokens are
-- made with.
CREATE TABLE Device (
    id     BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    user   INT NOT NULL,
    device VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    login  BIGINT NOT NULL,
    secret VARBINARY(16) NOT NULL,
    seen   BIGINT NOT NULL,
    UNIQUE KEY user (user, device)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE DeviceCursor (
    device BIGINT NOT NULL,
    conv   BIGINT NOT NULL,
    seq    BIGINT NOT NULL,
    PRIMARY KEY (device, conv)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE Blocked (
    user    INT NOT NULL,
    blocked INT NOT NULL,
    PRIMARY KEY (user, blocked),
    KEY blocked (blocked)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Users who were removed from a group and may not join it again.
CREATE TABLE Banned (
    groupid INT NOT NULL,
    userid  INT NOT NULL,
    PRIMARY KEY (groupid, userid)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Open requests to be friends: sender and recipient.
CREATE TABLE Asked (
    userid   INT NOT NULL,
    friendid INT NOT NULL,
    PRIMARY KEY (userid, friendid),
    KEY friendid (friendid)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE Hook (
    id    BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    due   BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    body  MEDIUMTEXT NOT NULL,
    KEY due (due)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Messages that are posted to a web server unless their recipients have received them.
CREATE TABLE HookQueue (
    id     BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    sender INT NOT NULL,
    conv   BIGINT NOT NULL,
    seq    BIGINT NOT NULL,
    time   BIGINT NOT NULL,
    member INT NOT NULL,
    KEY sender (sender, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- 1: the key of all tokens.
CREATE TABLE Meta (
    id    BIGINT NOT NULL PRIMARY KEY,
    value VARBINARY(255) NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The files of mysql/ that have been applied.
CREATE TABLE SchemaMigration (
    version INT NOT NULL PRIMARY KEY,
    applied TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT INTO SchemaMigration (version) VALUES (1), (2), (3), (4), (5), (6);
