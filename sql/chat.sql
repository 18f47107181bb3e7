-- The tables of the chat server, for a new installation on MySQL 8.0 or later, or MariaDB 10.11 or later.
--
-- Loads into the selected database, which must not contain them yet:
--
--     mysql -e 'CREATE DATABASE chat'
--     mysql chat < sql/chat.sql
--
-- The files in mysql/ bring a database of the reference server to this state.
--
-- The reference server's statements work on these tables as on its own. So columns that it does not know are
-- INVISIBLE if the database supports that (a `SELECT *` does not return them, an `INSERT` without a list of
-- columns does not need them), and have a default.
--
-- Comments with a version are code for one database only: /*! for MySQL, /*M! for MariaDB. Names are compared
-- without regard to case and accents, but blanks count, also at the end. Both databases have such a
-- collation, but under different names. No foreign keys: the reference server stores rows about users and
-- groups that do not exist.

CREATE TABLE User (
    id       INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name     VARCHAR(50) NOT NULL COLLATE /*!80000 utf8mb4_0900_ai_ci */ /*M!101000 utf8mb4_uca1400_nopad_ai_ci */,
    -- A PHC string, or the plain text of the reference server.
    password VARCHAR(255) NOT NULL COLLATE utf8mb4_bin,
    state    ENUM('online', 'offline') NOT NULL DEFAULT 'offline',
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
    -- The name without case and accents, as the server computes it for searches: up to 18 characters for one
    -- of the name. NULL where the reference server made the group; the next search computes it.
    name_key  VARCHAR(1000) NULL COLLATE utf8mb4_bin /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */,
    KEY name_key (name_key(8))
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE GroupUser (
    groupid   INT NOT NULL,
    userid    INT NOT NULL,
    grouprole ENUM('creator', 'normal') NOT NULL DEFAULT 'normal',
    PRIMARY KEY (groupid, userid),
    KEY userid (userid)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The id ascends in the order of arrival and is never used again: both servers keep the counter across
-- restarts.
CREATE TABLE OfflineMessage (
    userid  INT NOT NULL,
    message MEDIUMTEXT NOT NULL,
    id      BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */,
    KEY userid_id (userid, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The files of mysql/ that have been applied.
CREATE TABLE SchemaMigration (
    version INT NOT NULL PRIMARY KEY,
    applied TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT INTO SchemaMigration (version) VALUES (1), (2), (3), (4);
