-- Messages get ids, numbered in the order of arrival, so that a fetch can delete exactly what it
-- returned; and room for 16 MB instead of 500 characters. Rewrites the table and locks it
-- meanwhile.

CREATE TABLE IF NOT EXISTS SchemaMigration (
    version INT NOT NULL PRIMARY KEY,
    applied TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

SET @ddl = IF(
    EXISTS (SELECT 1 FROM information_schema.columns
            WHERE table_schema = DATABASE() AND table_name = 'OfflineMessage' AND column_name = 'id'),
    'DO 0',
    'ALTER TABLE OfflineMessage
        MODIFY message MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        ADD COLUMN id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */,
        ADD KEY userid_id (userid, id)'
);
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;

INSERT IGNORE INTO SchemaMigration (version) VALUES (1);
