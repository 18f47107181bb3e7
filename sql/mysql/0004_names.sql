-- Names are told apart as on every other installation: case and accents do not count, blanks do,
-- also at the end. Fails with "Duplicate entry" and changes nothing where two users have names that
-- are the same then: rename one of them.

ALTER TABLE User MODIFY name VARCHAR(50) CHARACTER SET utf8mb4
    COLLATE /*!80000 utf8mb4_0900_ai_ci */ /*M!101000 utf8mb4_uca1400_nopad_ai_ci */ NOT NULL;

ALTER TABLE AllGroup MODIFY groupname VARCHAR(50) CHARACTER SET utf8mb4
    COLLATE /*!80000 utf8mb4_0900_ai_ci */ /*M!101000 utf8mb4_uca1400_nopad_ai_ci */ NOT NULL;

INSERT IGNORE INTO SchemaMigration (version) VALUES (4);
