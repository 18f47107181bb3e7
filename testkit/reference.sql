-- The tables of the reference server. They have neither an order nor a key for offline messages.
CREATE TABLE User (
    id INT AUTO_INCREMENT PRIMARY KEY,
    name VARCHAR(50) NOT NULL UNIQUE,
    password VARCHAR(56) NOT NULL,
    state ENUM('online', 'offline') DEFAULT 'offline'
) DEFAULT CHARSET = utf8mb4;

CREATE TABLE Friend (
    userid INT NOT NULL,
    friendid INT NOT NULL,
    PRIMARY KEY (userid, friendid)
) DEFAULT CHARSET = utf8mb4;

CREATE TABLE AllGroup (
    id INT AUTO_INCREMENT PRIMARY KEY,
    groupname VARCHAR(50) NOT NULL,
    groupdesc VARCHAR(200) DEFAULT ''
) DEFAULT CHARSET = utf8mb4;

CREATE TABLE GroupUser (
    groupid INT NOT NULL,
    userid INT NOT NULL,
    grouprole ENUM('creator', 'normal'),
    PRIMARY KEY (groupid, userid)
) DEFAULT CHARSET = utf8mb4;

CREATE TABLE OfflineMessage (
    userid INT NOT NULL,
    message VARCHAR(500) NOT NULL
) DEFAULT CHARSET = utf8mb4;
