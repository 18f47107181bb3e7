//! The tables as raw rows, for copying them from one database to another, and for comparing the
//! copies.
//!
//! The server itself never uses its data in this form; it uses [`Store`](super::Store).

use std::fmt;

use blake2::Blake2s256;
use blake2::digest::Digest as _;

/// One of the tables of the chat server, without data that is not copied: `User.state` and computed
/// columns.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns, first the numeric ones of the primary key.
    pub columns: &'static [&'static str],
    /// The number of columns of the primary key: one or two.
    pub key_columns: usize,
    /// Whether the database assigns the key, so that the last one ever used matters.
    pub numbers_itself: bool,
}

/// Stored messages, in the order of their arrival.
pub const MESSAGES: Table = Table {
    name: "OfflineMessage",
    columns: &["id", "userid", "message", "conv", "seq"],
    key_columns: 1,
    numbers_itself: true,
};

/// The members of each group.
pub const MEMBERS: Table = Table {
    name: "GroupUser",
    columns: &["groupid", "userid", "grouprole", "since"],
    key_columns: 2,
    numbers_itself: false,
};

/// The friends of each user.
pub const FRIENDS: Table =
    Table { name: "Friend", columns: &["userid", "friendid"], key_columns: 2, numbers_itself: false };

/// Groups.
pub const GROUPS: Table =
    Table { name: "AllGroup", columns: &["id", "groupname", "groupdesc"], key_columns: 1, numbers_itself: true };

/// Accounts.
pub const USERS: Table = Table {
    name: "User",
    columns: &["id", "name", "password", "level2", "level1_seen", "receipts"],
    key_columns: 1,
    numbers_itself: true,
};

/// Conversations.
pub const CONVERSATIONS: Table =
    table("Conversation", &["id", "head", "head_tag", "count", "recalled", "floor", "floor_nth", "touched"], 1);

/// The messages of conversations.
pub const HISTORY: Table = table(
    "Message",
    &["conv", "seq", "nth", "sender", "time", "kind", "ref", "edited", "recalled", "cid", "hash", "text"],
    2,
);

/// Edits: each with the message that it changes.
pub const EDITS: Table = table("Edit", &["conv", "seq", "target"], 2);

/// Recalled messages, as bits.
pub const RECALLED: Table = table("Recalled", &["conv", "block", "count", "bits"], 2);

/// The marks of members: the numbers that they have read and received.
pub const MARKS: Table = table(
    "Member",
    // A reserved word of MySQL.
    &["conv", "user", "joined", "joined_nth", "`read`", "read_nth", "own", "recv", "marked"],
    2,
);

/// Devices, with the keys of their tokens.
pub const DEVICES: Table =
    Table { numbers_itself: true, ..table("Device", &["id", "user", "device", "login", "secret", "seen"], 1) };

/// The cursors that each device has reported.
pub const CURSORS: Table = table("DeviceCursor", &["device", "conv", "seq"], 2);

/// The users whom a user has blocked.
pub const BLOCKED: Table = table("Blocked", &["user", "blocked"], 2);

/// The users who may not join a group.
pub const BANNED: Table = table("Banned", &["groupid", "userid"], 2);

/// The open friend requests.
pub const ASKED: Table = table("Asked", &["userid", "friendid"], 2);

/// Messages that may have to be posted to the hook.
pub const HOOKS: Table = table("HookQueue", &["id", "sender", "conv", "seq", "time", "member"], 1);

/// Facts that all servers of a database share.
pub const META: Table = table("Meta", &["id", "value"], 1);

/// All tables.
pub const TABLES: [&Table; 17] = [
    &MESSAGES,
    &MEMBERS,
    &FRIENDS,
    &GROUPS,
    &CONVERSATIONS,
    &HISTORY,
    &EDITS,
    &RECALLED,
    &MARKS,
    &DEVICES,
    &CURSORS,
    &BLOCKED,
    &BANNED,
    &ASKED,
    &HOOKS,
    &META,
    &USERS,
];

const fn table(name: &'static str, columns: &'static [&'static str], key_columns: usize) -> Table {
    Table { name, columns, key_columns, numbers_itself: false }
}

/// One value of a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Field {
    /// A number.
    Number(i64),
    /// A text in UTF-8, or other bytes.
    Text(Vec<u8>),
}

/// One row of a [`Table`], with a field for each of its columns.
pub type RowFields = Vec<Field>;

/// The position of a row in its table; for a key of one column the second number is 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RowKey(pub i64, pub i64);

impl RowKey {
    /// Before every row.
    pub const FIRST: RowKey = RowKey(i64::MIN, i64::MIN);
    /// After every row.
    pub const LAST: RowKey = RowKey(i64::MAX, i64::MAX);
}

impl Table {
    /// The columns as in a `SELECT`.
    pub fn column_list(&self) -> String {
        self.columns.join(", ")
    }

    /// The columns of the key, as in an `ORDER BY`.
    pub fn key_list(&self) -> String {
        self.columns[..self.key_columns].join(", ")
    }

    /// The position of this row.
    pub fn key_of(&self, row: &[Field]) -> RowKey {
        let number = |at: usize| match row.get(at) {
            Some(Field::Number(number)) if at < self.key_columns => *number,
            _ => 0,
        };
        RowKey(number(0), number(1))
    }
}

/// The row count and checksum of rows: equal for equal rows in the same order, and different
/// otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sum {
    /// The number of rows.
    pub rows: u64,
    /// Their checksum.
    pub checksum: TableChecksum,
    /// The position of the last row.
    pub last: RowKey,
}

/// The first 64 bits of a BLAKE2s hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableChecksum([u8; 8]);

impl fmt::Display for TableChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Computes the sum of rows, which come in the order of their keys.
pub struct Summing<'t> {
    table: &'t Table,
    hash: Blake2s256,
    rows: u64,
    last: RowKey,
}

impl Summing<'_> {
    /// The sum before the first row.
    pub fn new(table: &Table) -> Summing<'_> {
        Summing { table, hash: Blake2s256::new(), rows: 0, last: RowKey::FIRST }
    }

    /// Adds one row.
    pub fn add(&mut self, row: &[Field]) {
        for field in row {
            match field {
                Field::Number(number) => self.hash.update(number.to_le_bytes()),
                Field::Text(text) => {
                    // Hashed with its length, so that a byte cannot move from one text to the next
                    // unnoticed.
                    self.hash.update((text.len() as u64).to_le_bytes());
                    self.hash.update(text);
                }
            }
        }
        self.rows += 1;
        self.last = self.table.key_of(row);
    }

    /// The sum of all added rows.
    pub fn finish(self) -> Sum {
        let mut checksum = [0; 8];
        checksum.copy_from_slice(&self.hash.finalize()[..8]);
        Sum { rows: self.rows, checksum: TableChecksum(checksum), last: self.last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(rows: &[(i64, &str, &str)]) -> Sum {
        let mut sum = Summing::new(&GROUPS);
        for (id, name, description) in rows {
            sum.add(&[
                Field::Number(*id),
                Field::Text(name.as_bytes().into()),
                Field::Text(description.as_bytes().into()),
            ]);
        }
        sum.finish()
    }

    #[test]
    fn only_equal_rows_have_equal_sums() {
        let rows = [(1, "a", "bc"), (3, "d", "")];
        let expected = sum(&rows);
        assert_eq!(expected, sum(&rows));
        assert_eq!((expected.rows, expected.last), (2, RowKey(3, 0)));
        for other in [
            [(1, "a", "bc"), (4, "d", "")],
            [(1, "ab", "c"), (3, "d", "")],
            [(1, "a", "bc"), (3, "", "d")],
            [(3, "d", ""), (1, "a", "bc")],
        ] {
            assert_ne!(sum(&other).checksum, expected.checksum, "{other:?}");
        }
        assert_ne!(sum(&rows[..1]).checksum, expected.checksum);
    }

    #[test]
    fn keys_have_one_number_or_two() {
        let row = [Field::Number(5), Field::Number(7), Field::Text(Vec::new())];
        assert_eq!((MESSAGES.key_of(&row), MEMBERS.key_of(&row)), (RowKey(5, 0), RowKey(5, 7)));
        assert_eq!((MESSAGES.key_list(), MEMBERS.key_list()), ("id".into(), "groupid, userid".into()));
    }
}
