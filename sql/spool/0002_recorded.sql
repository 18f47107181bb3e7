-- Messages that are in a conversation of level 2 already: the row that each of them becomes gets a mark.

ALTER TABLE Spooled ADD COLUMN conv INTEGER NOT NULL DEFAULT 0;        -- 0: in none
