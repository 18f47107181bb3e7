-- A column for searching groups by name, which the server fills, and an index of the groups of a
-- user.

SET @ddl = IF(
    EXISTS (SELECT 1 FROM information_schema.columns
            WHERE table_schema = DATABASE() AND table_name = 'AllGroup' AND column_name = 'name_key'),
    'DO 0',
    'ALTER TABLE AllGroup
        ADD COLUMN name_key VARCHAR(1000) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL
            /*!80023 INVISIBLE */ /*M!100300 INVISIBLE */,
        ADD KEY name_key (name_key(8))'
);
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;

SET @ddl = IF(
    EXISTS (SELECT 1 FROM information_schema.statistics
            WHERE table_schema = DATABASE() AND table_name = 'GroupUser' AND column_name = 'userid' AND seq_in_index = 1),
    'DO 0',
    'ALTER TABLE GroupUser ADD KEY userid (userid)'
);
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;

INSERT IGNORE INTO SchemaMigration (version) VALUES (3);
