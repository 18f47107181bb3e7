//! [`Schema`]: which tables there are. The server runs on its own, on the reference server's, and on what is in between.

use mysql::prelude::Queryable;
use mysql::{Conn, Row};

use super::column;

/// What the tables of a database can hold, as found when it was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Schema {
    /// `OfflineMessage` has ids.
    pub(super) has_message_ids: bool,
    /// What fits into one message.
    pub(super) message_max: Width,
    /// Characters that fit into a stored password.
    pub(super) password_chars_max: usize,
    /// `AllGroup` has folded names.
    pub(super) has_name_keys: bool,
}

/// How much text a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Width {
    /// So many characters.
    Chars(usize),
    /// So many bytes.
    Bytes(usize),
}

impl Width {
    pub(super) fn fits(self, text: &str) -> bool {
        match self {
            // A text has at most as many characters as bytes, so most need not be counted.
            Width::Chars(max) => text.len() <= max || text.chars().count() <= max,
            Width::Bytes(max) => text.len() <= max,
        }
    }
}

impl Schema {
    /// Looks at the tables of the selected database. `Ok(Err(..))` names what is missing.
    pub(super) fn detect(connection: &mut Conn) -> mysql::Result<Result<Schema, Vec<String>>> {
        let columns = columns(connection)?;
        let find = |table: &str, column: &str| {
            columns.iter().find(|c| c.table.eq_ignore_ascii_case(table) && c.name.eq_ignore_ascii_case(column))
        };
        let has_table = |table: &str| columns.iter().any(|column| column.table.eq_ignore_ascii_case(table));
        let mut missing = Vec::new();
        for (table, needed) in NEEDED {
            if !has_table(table) {
                missing.push((*table).to_owned());
            } else {
                let without = needed.iter().filter(|column| find(table, column).is_none());
                missing.extend(without.map(|column| format!("{table}.{column}")));
            }
        }
        let (Some(message), Some(password), true) =
            (find("OfflineMessage", "message"), find("User", "password"), missing.is_empty())
        else {
            return Ok(Err(missing));
        };
        Ok(Ok(Schema {
            has_message_ids: find("OfflineMessage", "id").is_some(),
            message_max: message.width(),
            password_chars_max: match password.width() {
                Width::Chars(max) | Width::Bytes(max) => max,
            },
            has_name_keys: find("AllGroup", "name_key").is_some(),
        }))
    }

    /// Whether a hashed password fits.
    pub(super) fn fits_hashes(&self) -> bool {
        self.password_chars_max >= HASH_CHARS_MAX
    }

    /// In words, for the operator.
    pub(super) fn describe(&self) -> &'static str {
        match (self.has_message_ids, self.has_name_keys, self.fits_hashes()) {
            (true, true, true) => "tables of this server",
            (false, false, false) => "tables of the reference server",
            _ => "tables of the reference server, partly migrated",
        }
    }

    /// What the operator should know, one line each.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Width::Chars(max) = self.message_max {
            warnings.push(format!("messages over {max} characters cannot be kept, their senders get an error"));
        }
        if !self.has_message_ids {
            warnings.push("kept messages have no ids, so every fetch and delete reads the whole table".to_owned());
        }
        if !self.fits_hashes() {
            let chars = self.password_chars_max;
            warnings.push(format!(
                "the column User.password holds {chars} characters, too few for a hash: passwords are stored as plain text"
            ));
        }
        warnings
    }
}

struct Column {
    table: String,
    name: String,
    kind: String,
    chars: u64,
    bytes: u64,
}

impl Column {
    fn width(&self) -> Width {
        let bounded = |n| usize::try_from(n).unwrap_or(usize::MAX);
        match self.kind.as_str() {
            "varchar" | "char" => Width::Chars(bounded(self.chars)),
            _ => Width::Bytes(bounded(self.bytes)),
        }
    }
}

fn columns(connection: &mut Conn) -> mysql::Result<Vec<Column>> {
    let rows: Vec<Row> = connection.exec(
        "SELECT table_name AS table_name, column_name AS column_name, data_type AS data_type,
            COALESCE(character_maximum_length, 0) AS chars, COALESCE(character_octet_length, 0) AS bytes
         FROM information_schema.columns WHERE table_schema = DATABASE()",
        (),
    )?;
    let read = |mut row: Row| {
        Ok(Column {
            table: column(&mut row, "table_name")?,
            name: column(&mut row, "column_name")?,
            kind: column::<String>(&mut row, "data_type")?.to_ascii_lowercase(),
            chars: column(&mut row, "chars")?,
            bytes: column(&mut row, "bytes")?,
        })
    };
    rows.into_iter().map(read).collect()
}

/// The tables and columns without which nothing works.
pub(super) const NEEDED: &[(&str, &[&str])] = &[
    ("User", &["id", "name", "password", "state"]),
    ("Friend", &["userid", "friendid"]),
    ("AllGroup", &["id", "groupname", "groupdesc"]),
    ("GroupUser", &["groupid", "userid", "grouprole"]),
    ("OfflineMessage", &["userid", "message"]),
];

/// The longest PHC string of the highest cost that can be configured, with room for a longer salt.
const HASH_CHARS_MAX: usize = 128;
