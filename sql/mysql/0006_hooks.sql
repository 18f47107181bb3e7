-- Hooks: messages that are posted to a web server unless their recipients have received them. The text of a message
-- stays in Message.
--
-- The table Hook is not used. It stays because servers of version 1.0.0 want it to be there.

CREATE TABLE IF NOT EXISTS HookQueue (
    id     BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    sender INT NOT NULL,
    conv   BIGINT NOT NULL,
    seq    BIGINT NOT NULL,
    time   BIGINT NOT NULL,                    -- of the message
    member INT NOT NULL,                       -- members of the group up to this one are done
    KEY sender (sender, id)                    -- senders take turns
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT IGNORE INTO SchemaMigration (version) VALUES (6);
