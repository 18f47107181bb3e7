-- The reference server's tables, as an existing installation has them.

CREATE TABLE User (
    id INT AUTO_INCREMENT PRIMARY KEY,
    name VARCHAR(50) NOT NULL UNIQUE,
    password VARCHAR(56) NOT NULL,
    state ENUM('online', 'offline') DEFAULT 'offline'
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

CREATE TABLE Friend (
    userid INT NOT NULL,
    friendid INT NOT NULL,
    PRIMARY KEY (userid, friendid)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

CREATE TABLE AllGroup (
    id INT AUTO_INCREMENT PRIMARY KEY,
    groupname VARCHAR(50) NOT NULL,
    groupdesc VARCHAR(200) DEFAULT ''
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

CREATE TABLE GroupUser (
    groupid INT NOT NULL,
    userid INT NOT NULL,
    grouprole ENUM('creator', 'normal') DEFAULT 'normal',
    PRIMARY KEY (groupid, userid)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

CREATE TABLE OfflineMessage (
    userid INT NOT NULL,
    message VARCHAR(500) NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
