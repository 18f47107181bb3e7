-- Room for hashed passwords. From then on this server stores passwords as hashes, also those of
-- users who log in, and the reference server cannot check them any more: it must be gone.

ALTER TABLE User MODIFY password VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL;

INSERT IGNORE INTO SchemaMigration (version) VALUES (2);
