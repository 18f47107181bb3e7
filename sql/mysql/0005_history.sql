-- Level 2: conversations with numbered messages, what their members have read, and devices. Adds
-- columns to User, GroupUser and OfflineMessage, which MySQL 8 and MariaDB do without rewriting
-- them.
--
-- No column is NULL: 0 and an empty text say "none". Numbers of messages begin with 1. Times are
-- milliseconds since 1970.

-- When the user first logged in at level 2, and last at level 1; 0 in receipts: shows and is shown
-- no marks of others.
SET @ddl = IF(
    EXISTS (SELECT 1 FROM information_schema.columns
            WHERE table_schema = DATABASE() AND table_name = 'User' AND column_name = 'receipts'),
    'DO 0',
    'ALTER TABLE User
        ADD COLUMN level2 BIGINT NOT NULL DEFAULT 0 /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */,
        ADD COLUMN level1_seen BIGINT NOT NULL DEFAULT 0 /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */,
        ADD COLUMN receipts BIGINT NOT NULL DEFAULT 1 /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */'
);
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;

-- When the user joined; 0: before all others. The default, which a new column cannot have without a
-- rewrite, is for servers that do not know the column. (If their INSERT has no list of columns,
-- MySQL 9.7 stores 0, and MariaDB the default.)
SET @ddl = IF(
    EXISTS (SELECT 1 FROM information_schema.columns
            WHERE table_schema = DATABASE() AND table_name = 'GroupUser' AND column_name = 'since'),
    'DO 0',
    'ALTER TABLE GroupUser ADD COLUMN since BIGINT NOT NULL DEFAULT 0 /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */'
);
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;
ALTER TABLE GroupUser ALTER COLUMN since SET DEFAULT (FLOOR(UNIX_TIMESTAMP(NOW(3)) * 1000));

-- A row of a message that is in a conversation as well: its place there. It is not imported.
SET @ddl = IF(
    EXISTS (SELECT 1 FROM information_schema.columns
            WHERE table_schema = DATABASE() AND table_name = 'OfflineMessage' AND column_name = 'seq'),
    'DO 0',
    'ALTER TABLE OfflineMessage
        ADD COLUMN conv BIGINT NOT NULL DEFAULT 0 /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */,
        ADD COLUMN seq BIGINT NOT NULL DEFAULT 0 /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */'
);
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;

-- The id is computed: that of the group, or lower user << 32 | higher user.
CREATE TABLE IF NOT EXISTS Conversation (
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
CREATE TABLE IF NOT EXISTS Message (
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
CREATE TABLE IF NOT EXISTS Edit (
    conv   BIGINT NOT NULL,
    seq    BIGINT NOT NULL,
    target BIGINT NOT NULL,
    PRIMARY KEY (conv, seq),
    KEY target (conv, target)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The recalled messages among those that count as unread: 1,024 numbers a row, as bits, the lowest
-- number first.
CREATE TABLE IF NOT EXISTS Recalled (
    conv  BIGINT NOT NULL,
    block BIGINT NOT NULL,
    count BIGINT NOT NULL,
    bits  VARBINARY(128) NOT NULL,
    PRIMARY KEY (conv, block)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Marks. The members of a group are in GroupUser. joined is the first number that a member sees,
-- own counts the member's own messages behind `read`, and marked is when a device last raised
-- `read` or recv.
CREATE TABLE IF NOT EXISTS Member (
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
CREATE TABLE IF NOT EXISTS Device (
    id     BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    user   INT NOT NULL,
    device VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    login  BIGINT NOT NULL,
    secret VARBINARY(16) NOT NULL,
    seen   BIGINT NOT NULL,
    UNIQUE KEY user (user, device)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS DeviceCursor (
    device BIGINT NOT NULL,
    conv   BIGINT NOT NULL,
    seq    BIGINT NOT NULL,
    PRIMARY KEY (device, conv)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS Blocked (
    user    INT NOT NULL,
    blocked INT NOT NULL,
    PRIMARY KEY (user, blocked),
    KEY blocked (blocked)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Users who were removed from a group and may not join it again.
CREATE TABLE IF NOT EXISTS Banned (
    groupid INT NOT NULL,
    userid  INT NOT NULL,
    PRIMARY KEY (groupid, userid)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Open requests to be friends: sender and recipient.
CREATE TABLE IF NOT EXISTS Asked (
    userid   INT NOT NULL,
    friendid INT NOT NULL,
    PRIMARY KEY (userid, friendid),
    KEY friendid (friendid)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS Hook (
    id    BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    due   BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    body  MEDIUMTEXT NOT NULL,
    KEY due (due)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- 1: the key of all tokens.
CREATE TABLE IF NOT EXISTS Meta (
    id    BIGINT NOT NULL PRIMARY KEY,
    value VARBINARY(255) NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT IGNORE INTO SchemaMigration (version) VALUES (5);
