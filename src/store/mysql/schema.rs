//! [`Schema`]: the existing tables. The server works on its own, on the reference server's, and on
//! mixtures of both.

use mysql::prelude::Queryable;
use mysql::{Conn, Row};

use super::dial::Traits;
use super::probe::{Probe, ProbedRow};
use super::rows::column;

/// The capabilities of a database's tables, as found when it was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Schema {
    /// Whether `OfflineMessage` has ids.
    pub(super) has_message_ids: bool,
    /// The longest message.
    message_max: Width,
    /// Characters that fit into a stored password.
    pub(super) password_chars_max: usize,
    /// Whether `AllGroup` has folded names.
    pub(super) has_name_keys: bool,
    /// Whether all tables and columns of level 2 exist.
    pub(super) has_history: bool,
    /// Whether there is a queue for the hook.
    pub(super) has_hooks: bool,
    /// Whether the column of messages holds only characters of up to three bytes.
    is_three_bytes: bool,
    /// Columns that cannot hold every text, with their character sets.
    narrow: Vec<(String, String)>,
    /// Tables without transactions, with their engines.
    unsafe_tables: Vec<(String, String)>,
    /// Whether the database logs its changes as statements.
    logs_statements: bool,
    /// Whether a user's trigger sees new messages.
    has_triggers: bool,
    /// Whether this user is shown all triggers.
    knows_triggers: bool,
}

/// The reason why the tables of a database cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Misfit {
    /// These tables, or columns of existing ones, are missing.
    Missing(Vec<String>),
    /// The names of tables differ only in case from the needed ones, which come second.
    Names(Vec<(String, &'static str)>),
}

/// The length of text that a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Width {
    /// At most this number of characters.
    Chars(usize),
    /// At most this number of bytes.
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
    /// Inspects the tables of the selected database. `Ok(Err(..))` is the reason why they
    /// cannot be used.
    pub(super) fn detect(connection: &mut Conn) -> mysql::Result<Result<Schema, Misfit>> {
        let (columns, server) = (columns(connection)?, DatabaseFacts::look(connection)?);
        let same = |found: &str, needed: &str| {
            if server.tells_case { found == needed } else { found.eq_ignore_ascii_case(needed) }
        };
        let find = |table: &str, column: &str| {
            columns.iter().find(|c| same(&c.table, table) && c.name.eq_ignore_ascii_case(column))
        };
        let has_table = |table: &str| columns.iter().any(|column| same(&column.table, table));
        let mut names = Vec::new();
        for (table, _) in NEEDED.iter().filter(|(table, _)| !has_table(table)) {
            let alike = columns.iter().find(|column| column.table.eq_ignore_ascii_case(table));
            names.extend(alike.map(|column| (column.table.clone(), *table)));
        }
        if !names.is_empty() {
            return Ok(Err(Misfit::Names(names)));
        }
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
            return Ok(Err(Misfit::Missing(missing)));
        };
        let narrow = TEXTS.iter().filter_map(|(table, column)| {
            let charset =
                find(table, column)?.charset.as_deref().filter(|charset| !charset.eq_ignore_ascii_case("utf8mb4"))?;
            Some((format!("{table}.{column}"), charset.to_owned()))
        });
        let unsafe_tables = NEEDED.iter().filter_map(|(table, _)| {
            let (_, engine) = server.engines.iter().find(|(name, _)| same(name, table))?;
            let is_safe = ["MyISAM", "Aria", "MEMORY", "CSV"].iter().all(|name| !engine.eq_ignore_ascii_case(name));
            (!is_safe).then(|| ((*table).to_owned(), engine.clone()))
        });
        Ok(Ok(Schema {
            has_message_ids: find("OfflineMessage", "id").is_some(),
            message_max: message.width(),
            password_chars_max: match password.width() {
                Width::Chars(max) | Width::Bytes(max) => max,
            },
            has_name_keys: find("AllGroup", "name_key").is_some(),
            has_history: HISTORY.iter().all(|(table, column)| find(table, column).is_some()),
            has_hooks: find("HookQueue", "member").is_some(),
            is_three_bytes: message.charset.as_deref().is_some_and(|charset| charset == "utf8" || charset == "utf8mb3"),
            narrow: narrow.collect(),
            unsafe_tables: unsafe_tables.collect(),
            logs_statements: server.logs_statements,
            knows_triggers: server.knows_triggers,
            has_triggers: server.triggered.iter().any(|table| same(table, "OfflineMessage")),
        }))
    }

    /// Whether a message fits its column.
    pub(super) fn fits(&self, text: &str) -> bool {
        // MySQL's utf8 holds characters of up to three bytes.
        self.message_max.fits(text) && !(self.is_three_bytes && text.bytes().any(|byte| byte >= 0xF0))
    }

    /// The probe that checks whether messages can be stored.
    pub(super) fn probe(&self) -> Probe {
        let can_undo = self.unsafe_tables.iter().all(|(table, _)| table != "OfflineMessage");
        let row = match (self.has_message_ids, can_undo) {
            _ if self.has_triggers => ProbedRow::Nothing,
            (true, _) if self.knows_triggers => ProbedRow::Committed,
            (_, true) => ProbedRow::Undone,
            (_, false) => ProbedRow::Nothing,
        };
        Probe { row, has_history: self.has_history }
    }

    /// Whether a hashed password fits.
    pub(super) fn fits_hashes(&self) -> bool {
        self.password_chars_max >= HASH_CHARS_MAX
    }

    /// A description for the operator.
    pub(super) fn describe(&self) -> &'static str {
        match (self.has_message_ids, self.has_name_keys, self.fits_hashes()) {
            (true, true, true) => "tables of this server",
            (false, false, false) => "tables of the reference server",
            _ => "tables of the reference server, partly migrated",
        }
    }

    /// Warnings for the operator, one line each.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Width::Chars(max) = self.message_max {
            warnings.push(format!("messages over {max} characters cannot be stored, their senders get an error"));
        }
        if !self.has_message_ids {
            warnings.push("kept messages have no ids, so every fetch and delete reads the whole table".to_owned());
        }
        if !self.has_history {
            warnings.push(
                "the tables of level 2 are missing: a login at level 2 is refused (501); add them by server migrate"
                    .to_owned(),
            );
        }
        if !self.fits_hashes() {
            let chars = self.password_chars_max;
            warnings.push(format!(
                "the column User.password holds {chars} characters, too few for a hash: passwords are stored as plain text"
            ));
        }
        if !self.narrow.is_empty() {
            let columns = self.narrow.iter().map(|(column, charset)| format!("{column} ({charset})"));
            warnings.push(format!(
                "these columns do not take every text: {}; what does not fit is refused, and its sender gets an error; \
                 convert their tables by ALTER TABLE ... CONVERT TO CHARACTER SET utf8mb4",
                columns.collect::<Vec<_>>().join(", ")
            ));
        }
        if !self.unsafe_tables.is_empty() {
            let tables = self.unsafe_tables.iter().map(|(table, engine)| format!("{table} ({engine})"));
            warnings.push(format!(
                "these tables know no transactions: {}; a crash of the database may damage them, and stored messages may \
                 come twice or in another order; convert them by ALTER TABLE ... ENGINE = InnoDB",
                tables.collect::<Vec<_>>().join(", ")
            ));
        }
        if self.logs_statements {
            warnings.push(
                "binlog_format=STATEMENT: the database locks more rows than needed, and its replicas may number messages \
                 differently; set binlog_format to ROW or MIXED"
                    .to_owned(),
            );
        }
        warnings
    }
}

/// Facts about the database, apart from its columns.
struct DatabaseFacts {
    /// Whether table names that differ only in case are different.
    tells_case: bool,
    logs_statements: bool,
    /// Table -> engine.
    engines: Vec<(String, String)>,
    /// Tables with triggers, as far as this user may know, and whether the user may know all of
    /// them.
    triggered: Vec<String>,
    knows_triggers: bool,
}

impl DatabaseFacts {
    fn look(connection: &mut Conn) -> mysql::Result<DatabaseFacts> {
        let lower_case: Option<u8> = connection.query_first("SELECT @@lower_case_table_names")?;
        let rows: Vec<Row> = connection.exec(
            "SELECT table_name AS name, COALESCE(engine, '') AS engine
             FROM information_schema.tables WHERE table_schema = DATABASE()",
            (),
        )?;
        let engine = |mut row: Row| Ok((column(&mut row, "name")?, column(&mut row, "engine")?));
        Ok(DatabaseFacts {
            tells_case: lower_case == Some(0),
            logs_statements: Traits::of(connection)?.logs_statements,
            engines: rows.into_iter().map(engine).collect::<mysql::Result<_>>()?,
            knows_triggers: connection.query_first(KNOWS_TRIGGERS)? == Some(1),
            triggered: connection.query(
                "SELECT event_object_table FROM information_schema.triggers WHERE event_object_schema = DATABASE()",
            )?,
        })
    }
}

/// Triggers are shown only to a user with the right to create some. A user who may read the tables
/// of rights is shown other users' rights too. Rights from a role are not found, which does no
/// harm.
const KNOWS_TRIGGERS: &str = "SELECT
    EXISTS(SELECT 1 FROM information_schema.user_privileges WHERE privilege_type = 'TRIGGER' AND grantee = me.name)
    OR EXISTS(SELECT 1 FROM information_schema.schema_privileges
              WHERE privilege_type = 'TRIGGER' AND grantee = me.name AND DATABASE() LIKE table_schema)
    OR EXISTS(SELECT 1 FROM information_schema.table_privileges
              WHERE privilege_type = 'TRIGGER' AND grantee = me.name
                  AND table_schema = DATABASE() AND LOWER(table_name) = 'offlinemessage')
    FROM (SELECT CONCAT('''', SUBSTRING_INDEX(CURRENT_USER(), '@', 1), '''@''',
                        SUBSTRING_INDEX(CURRENT_USER(), '@', -1), '''') AS name) AS me";

struct Column {
    table: String,
    name: String,
    kind: String,
    chars: u64,
    bytes: u64,
    /// The character set; `None` if the column holds no text.
    charset: Option<String>,
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
            COALESCE(character_maximum_length, 0) AS chars, COALESCE(character_octet_length, 0) AS bytes,
            character_set_name AS charset
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
            charset: column(&mut row, "charset")?,
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

/// A column of every table that level 2 needs, the one added last.
const HISTORY: &[(&str, &str)] = &[
    ("User", "receipts"),
    ("GroupUser", "since"),
    ("OfflineMessage", "seq"),
    ("Conversation", "touched"),
    ("Message", "hash"),
    ("Edit", "target"),
    ("Recalled", "bits"),
    ("Member", "marked"),
    ("Device", "secret"),
    ("DeviceCursor", "seq"),
    ("Blocked", "blocked"),
    ("Banned", "userid"),
    ("Asked", "friendid"),
    ("Meta", "value"),
];

/// The columns that hold what clients send.
const TEXTS: &[(&str, &str)] =
    &[("User", "name"), ("AllGroup", "groupname"), ("AllGroup", "groupdesc"), ("OfflineMessage", "message")];

/// The longest PHC string of the highest cost that can be configured, with room for a longer salt.
const HASH_CHARS_MAX: usize = 128;
