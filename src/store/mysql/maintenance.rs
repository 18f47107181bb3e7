//! [`Maintenance`]: work on the tables themselves, by one program at a time: bringing them up to
//! date, and filling them from another database (`target.rs`).
//!
//! It has one connection, whose statements may take any time. Two such programs on one database
//! would disturb each other. So the second waits for the first, by a lock that the database keeps
//! for the connection. If a program is killed while the database changes a table, the database
//! completes the change, and keeps the lock until then.

use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, Row, params};

use super::error;
use super::open::{self, DatabaseAddress, MysqlOpenError};
use super::rows::column;
use super::schema::{Misfit, Schema};
use super::shapes;
use crate::config::MysqlSettings;
use crate::protocol::UserId;
use crate::store::UserState;
use crate::store::tables::TABLES;

/// A database on which no other maintenance runs.
pub struct Maintenance {
    pub(super) connection: Conn,
    at: DatabaseAddress,
    name: String,
}

/// One step from the reference server's tables to ours: a file of `sql/mysql/`, which may be
/// repeated.
#[derive(Debug)]
pub struct Migration {
    /// Its number. Migrations are applied in order.
    pub version: u32,
    /// Its file's name.
    pub file: &'static str,
    /// Its text.
    pub sql: &'static str,
    /// The tables it changes.
    pub tables: &'static [&'static str],
}

/// Rows with `NULL` in a column that needs a value.
#[derive(Debug)]
pub struct Nulls {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// The number of rows.
    pub rows: u64,
    /// The first of them, separated by commas; empty if they have no ids.
    pub ids: String,
}

/// The work that the tables need.
#[derive(Debug)]
pub enum TablesState {
    /// There are no tables, or their creation was interrupted: create them.
    Empty,
    /// Apply these migrations, in order.
    Behind(Vec<&'static Migration>),
    /// No work.
    UpToDate,
    /// A later version of this server, with this migration, has changed them.
    Newer(u32),
    /// They do not belong to a chat server, because these are missing.
    Foreign(Vec<String>),
}

impl Migration {
    /// A description: the first sentence of the file.
    pub fn title(&self) -> String {
        let comment = self.sql.lines().map_while(|line| line.strip_prefix("-- ")).collect::<Vec<_>>().join(" ");
        comment.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned()
    }
}

impl Maintenance {
    /// Connects, and waits until no other maintenance runs. Calls `waits` first if it has to wait.
    ///
    /// # Errors
    /// A [`MysqlOpenError`] that names the problem that the operator must fix.
    pub fn begin(settings: &MysqlSettings, waits: impl FnOnce()) -> Result<Maintenance, MysqlOpenError> {
        let (mut connection, at, name) = open::connect_for_maintenance(settings, LOCK_WAIT)?;
        let failed = |error| at.explain(&error);
        if !lock(&mut connection, Duration::ZERO).map_err(failed)? {
            waits();
            while !lock(&mut connection, Duration::from_secs(10)).map_err(failed)? {}
        }
        Ok(Maintenance { connection, at, name })
    }

    /// The product, address and database.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Inspects the tables.
    ///
    /// # Errors
    /// The database does not answer, or refuses this user.
    pub fn state(&mut self) -> Result<TablesState, MysqlOpenError> {
        let state = self.look().map_err(|error| self.explain(&error))?;
        state.map_err(|misfit| self.at.error(misfit.into()))
    }

    fn look(&mut self) -> mysql::Result<Result<TablesState, Misfit>> {
        let db = &mut self.connection;
        let tables: Vec<String> =
            db.exec("SELECT table_name AS name FROM information_schema.tables WHERE table_schema = DATABASE()", ())?;
        let is = |known: &'static str| move |table: &String| table.eq_ignore_ascii_case(known);
        let applied: Option<Vec<u32>> = match tables.iter().any(is(RECORD)) {
            true => Some(db.query(format!("SELECT version FROM {RECORD}"))?),
            false => None,
        };
        if let Err(misfit) = Schema::detect(db)? {
            let missing = match misfit {
                Misfit::Missing(missing) => missing,
                names @ Misfit::Names(_) => return Ok(Err(names)),
            };
            let is_ours = |table: &String| {
                is(RECORD)(table) || is(UNUSED)(table) || TABLES.iter().any(|known| is(known.name)(table))
            };
            // The table of migrations is created first and filled last.
            let is_begun = applied.is_some_and(|applied| applied.is_empty()) && tables.iter().all(is_ours);
            return Ok(Ok(if tables.is_empty() || is_begun {
                TablesState::Empty
            } else {
                TablesState::Foreign(missing)
            }));
        }
        let applied = applied.unwrap_or_default();
        if let Some(newer) = applied.iter().copied().filter(|version| *version > NEWEST).max() {
            return Ok(Ok(TablesState::Newer(newer)));
        }
        let missing: Vec<_> = MIGRATIONS.iter().filter(|migration| !applied.contains(&migration.version)).collect();
        Ok(Ok(if missing.is_empty() { TablesState::UpToDate } else { TablesState::Behind(missing) }))
    }

    /// Creates the tables in a database without any. Tables that an interrupted attempt has created
    /// are kept.
    ///
    /// # Errors
    /// A statement fails. After its cause is fixed, this may be called again.
    pub fn create(&mut self) -> Result<(), MysqlOpenError> {
        let (record, others): (Vec<_>, Vec<_>) = statements(NEW_TABLES)
            .into_iter()
            .partition(|statement| statement.contains("CREATE TABLE SchemaMigration"));
        for statement in record.iter().chain(&others) {
            match self.connection.query_drop(statement) {
                Err(error) if error::code(&error) != Some(error::TABLE_EXISTS) => return Err(self.explain(&error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Applies one migration; the file itself records that.
    ///
    /// # Errors
    /// A statement fails. After its cause is fixed, this may be called again.
    pub fn apply(&mut self, migration: &Migration) -> Result<(), MysqlOpenError> {
        for statement in statements(migration.sql) {
            self.connection.query_drop(statement).map_err(|error| self.explain(&error))?;
        }
        Ok(())
    }

    /// The number of rows of a table.
    ///
    /// # Errors
    /// The database does not answer, or refuses this user.
    pub fn rows(&mut self, table: &str) -> Result<u64, MysqlOpenError> {
        let count = self.connection.query_first(format!("SELECT COUNT(*) FROM {table}"));
        Ok(count.map_err(|error| self.explain(&error))?.unwrap_or_default())
    }

    /// Groups of users whose names are equal by this server's comparison, at most 20 groups.
    ///
    /// # Errors
    /// The database does not answer, or refuses this user.
    pub fn same_names(&mut self) -> Result<Vec<String>, MysqlOpenError> {
        let same = self.connection.query(
            "SELECT GROUP_CONCAT(CONCAT(id, ' \"', name, '\"') ORDER BY id SEPARATOR ' and ') AS users FROM User
             GROUP BY CONVERT(name USING utf8mb4)
                 COLLATE /*!80000 utf8mb4_0900_ai_ci */ /*M!101000 utf8mb4_uca1400_nopad_ai_ci */
             HAVING COUNT(*) > 1 LIMIT 20",
        );
        same.map_err(|error| self.explain(&error))
    }

    /// At most `limit` users after `user` whose `User.state` says online, by ascending id.
    ///
    /// # Errors
    /// The database does not answer, or refuses this user.
    pub fn online_after(&mut self, user: UserId, limit: usize) -> Result<Vec<UserId>, MysqlOpenError> {
        let statement = "SELECT id FROM User WHERE id > :user AND state = 'online' ORDER BY id LIMIT :limit";
        let ids: mysql::Result<Vec<i32>> = self.connection.exec(statement, params! {"user" => user.0, limit});
        Ok(ids.map_err(|error| self.explain(&error))?.into_iter().map(UserId).collect())
    }

    /// Writes the `User.state` of these users.
    ///
    /// # Errors
    /// The database does not answer, or refuses this user.
    pub fn set_states(&mut self, users: &[UserId], state: UserState) -> Result<(), MysqlOpenError> {
        if users.is_empty() {
            return Ok(());
        }
        let state = match state {
            UserState::Online => "online",
            UserState::Offline => "offline",
        };
        let ids: Vec<i32> = users.iter().map(|user| user.0).collect();
        let statement = format!("UPDATE User SET state = '{state}' WHERE id IN {}", shapes::list(ids.len()));
        self.connection.exec_drop(statement, ids).map_err(|error| self.explain(&error))
    }

    /// Rows that have `NULL` in a column where this server's tables allow none: for each such
    /// column its table and name, the number of rows, and the ids of the first 20, if they have
    /// ids.
    ///
    /// # Errors
    /// The database does not answer, or refuses this user.
    pub fn nulls(&mut self) -> Result<Vec<Nulls>, MysqlOpenError> {
        let mut found = Vec::new();
        for (table, column, id) in NEVER_NULL {
            let ids = id.map_or("''".to_owned(), |id| {
                format!("SUBSTRING_INDEX(GROUP_CONCAT({id} ORDER BY {id} SEPARATOR ', '), ', ', 20)")
            });
            let row = self
                .connection
                .query_first(format!("SELECT COUNT(*), COALESCE({ids}, '') FROM {table} WHERE {column} IS NULL"));
            let row: Option<(u64, String)> = row.map_err(|error| self.explain(&error))?;
            let (rows, ids) = row.unwrap_or_default();
            if rows > 0 {
                found.push(Nulls { table, column, rows, ids });
            }
        }
        Ok(found)
    }

    /// The number of other connections to the database, as far as this user may know.
    ///
    /// # Errors
    /// The database does not answer.
    pub fn others(&mut self) -> Result<usize, MysqlOpenError> {
        self.count_others().map_err(|error| self.explain(&error))
    }

    fn count_others(&mut self) -> mysql::Result<usize> {
        let own = u64::from(self.connection.connection_id());
        let database: Option<String> = self.connection.query_first("SELECT DATABASE()")?;
        let rows: Vec<Row> = self.connection.query("SHOW PROCESSLIST")?;
        let mut others = 0;
        for mut row in rows {
            let is_here = column::<Option<String>>(&mut row, "db")? == database;
            others += usize::from(is_here && column::<u64>(&mut row, "Id")? != own);
        }
        Ok(others)
    }

    /// The error in the operator's terms.
    pub(super) fn explain(&self, error: &mysql::Error) -> MysqlOpenError {
        self.at.explain(error)
    }
}

/// Takes the lock, which is released when the connection ends.
fn lock(connection: &mut Conn, patience: Duration) -> mysql::Result<bool> {
    let seconds = patience.as_secs();
    // A name has at most 64 characters. MySQL 9 no longer has MD5 and SHA1.
    let statement = "SELECT GET_LOCK(CONCAT('raybox ', LEFT(SHA2(DATABASE(), 256), 32)), :seconds)";
    let taken: Option<Option<i64>> = connection.exec_first(statement, params! {seconds})?;
    Ok(taken.flatten() == Some(1))
}

/// The statements of one of our files. They end with a semicolon, which otherwise occurs only in
/// comments.
fn statements(sql: &str) -> Vec<String> {
    let without_comments: Vec<&str> = sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let statements = without_comments.join("\n");
    statements.split(';').map(str::trim).filter(|statement| !statement.is_empty()).map(str::to_owned).collect()
}

/// The steps from the reference server's tables to those of a new installation.
pub const MIGRATIONS: [Migration; 6] = [
    Migration {
        version: 1,
        file: "0001_message_ids.sql",
        sql: include_str!("../../../sql/mysql/0001_message_ids.sql"),
        tables: &["OfflineMessage"],
    },
    Migration {
        version: 2,
        file: "0002_hashed_passwords.sql",
        sql: include_str!("../../../sql/mysql/0002_hashed_passwords.sql"),
        tables: &["User"],
    },
    Migration {
        version: 3,
        file: "0003_group_search.sql",
        sql: include_str!("../../../sql/mysql/0003_group_search.sql"),
        tables: &["AllGroup", "GroupUser"],
    },
    Migration {
        version: 4,
        file: "0004_names.sql",
        sql: include_str!("../../../sql/mysql/0004_names.sql"),
        tables: &["User", "AllGroup"],
    },
    Migration {
        version: 5,
        file: "0005_history.sql",
        sql: include_str!("../../../sql/mysql/0005_history.sql"),
        tables: &["User", "GroupUser", "OfflineMessage"],
    },
    Migration {
        version: 6,
        file: "0006_hooks.sql",
        sql: include_str!("../../../sql/mysql/0006_hooks.sql"),
        tables: &[],
    },
];

/// The tables of a new installation.
pub const NEW_TABLES: &str = include_str!("../../../sql/chat.sql");

/// Columns that the reference server's tables allow to be `NULL` and ours do not, and the column
/// that names their rows.
const NEVER_NULL: [(&str, &str, Option<&str>); 4] = [
    ("User", "name", Some("id")),
    ("User", "password", Some("id")),
    ("AllGroup", "groupname", Some("id")),
    ("OfflineMessage", "message", None),
];

/// The migration that changes how names are compared.
pub const NAMES: u32 = 4;

const NEWEST: u32 = MIGRATIONS[MIGRATIONS.len() - 1].version;
const RECORD: &str = "SchemaMigration";
/// A table that nothing uses any more (`0006_hooks.sql`).
const UNUSED: &str = "Hook";

/// How long a change waits for a table that a transaction uses. Other users of the table wait
/// behind the change meanwhile.
const LOCK_WAIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;

    #[test]
    fn every_file_is_a_migration() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/mysql");
        let names = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        assert_eq!(names, MIGRATIONS.map(|migration| migration.file));
        for (number, migration) in (1..).zip(&MIGRATIONS) {
            assert_eq!(migration.version, number);
            assert!(migration.file.starts_with(&format!("{number:04}_")));
            assert!(migration.sql.ends_with(&format!("INSERT IGNORE INTO {RECORD} (version) VALUES ({number});\n")));
        }
        let last = format!("({NEWEST});\n");
        assert!(NEW_TABLES.ends_with(&last), "a new installation records all of them");
    }

    #[test]
    fn files_are_cut_into_statements() {
        const FIRST_WORDS: [&str; 8] =
            ["CREATE TABLE ", "ALTER TABLE ", "INSERT ", "SET @ddl ", "PREPARE ", "EXECUTE ", "DEALLOCATE ", "DO "];
        for sql in MIGRATIONS.iter().map(|migration| migration.sql).chain([NEW_TABLES]) {
            for statement in statements(sql) {
                assert!(FIRST_WORDS.iter().any(|word| statement.starts_with(word)), "{statement}");
                assert!(statement.matches('\'').count().is_multiple_of(2), "{statement}");
            }
        }
        assert_eq!(statements("-- a; b\nx (\n  -- c;\n  d\n);\n\ny;\n"), ["x (\n  d\n)", "y"]);
    }

    #[test]
    fn titles_are_one_sentence() {
        for migration in &MIGRATIONS {
            let title = migration.title();
            assert!(title.len() > 20 && !title.contains(['\n', '.']), "{title}");
        }
        assert_eq!(MIGRATIONS[1].title(), "Room for hashed passwords");
    }
}
