//! Opening a file: checks that it exists, is ours, is valid and is not in use; then upgrades it.
//!
//! All checks come before any change. The whole file is not read (`PRAGMA quick_check`), because
//! the start would take seconds more per gigabyte, and SQLite reports a damaged page when it reads
//! it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::guard::DatabaseLocks;
use super::paths::{beside, sqlite_path};
use super::refusal::{SqliteOpenError, refused};
use super::rescue;
use super::space;
use super::wal::{self, Log};

/// One kind of database of this server.
pub(super) struct FileKind {
    pub(super) name: &'static str,
    /// The name of its writer thread.
    pub(super) writer: &'static str,
    /// The name of the thread that copies the log.
    pub(super) log: &'static str,
    pub(super) watch: &'static str,
    /// The mark of its files (`PRAGMA application_id`).
    pub(super) application_id: i64,
    /// The versions of its schema in order; `PRAGMA user_version` counts those applied.
    migrations: &'static [&'static str],
    /// The way in which a new file returns deleted space to the disk: immediately, or in small
    /// steps while the writer is idle (`writer.rs`).
    pub(super) auto_vacuum: &'static str,
    /// Repairs at every start.
    at_start: &'static str,
    /// Writes a row of the most important kind for an impossible user, and deletes it.
    pub(super) probe: &'static str,
}

/// The embedded store.
pub(super) const STORE: FileKind = FileKind {
    name: "raybox.db",
    writer: "store-writer",
    log: "store-log",
    watch: "store-watch",
    // "RyBx".
    application_id: 0x5279_4278,
    migrations: &[
        include_str!("../../../sql/sqlite/0001_init.sql"),
        include_str!("../../../sql/sqlite/0002_shared_text.sql"),
        include_str!("../../../sql/sqlite/0003_history.sql"),
        include_str!("../../../sql/sqlite/0004_hooks.sql"),
    ],
    auto_vacuum: "incremental",
    at_start: "UPDATE User SET state = 'offline' WHERE state <> 'offline'",
    probe: "INSERT INTO OfflineMessage (userid, message) VALUES (0, '');
            DELETE FROM OfflineMessage WHERE id = last_insert_rowid()",
};

/// The spool of an external store.
pub(super) const SPOOL: FileKind = FileKind {
    name: "spool.db",
    writer: "spool-writer",
    log: "spool-log",
    watch: "spool-watch",
    // "RyBs".
    application_id: 0x5279_4273,
    migrations: &[
        include_str!("../../../sql/spool/0001_init.sql"),
        include_str!("../../../sql/spool/0002_recorded.sql"),
    ],
    auto_vacuum: "full",
    // The operator may have fixed the database meanwhile.
    at_start: "UPDATE Spooled SET aside = 0 WHERE aside <> 0",
    probe: "INSERT INTO Spooled (userid, message) VALUES (0, '');
            DELETE FROM Spooled WHERE id = last_insert_rowid()",
};

impl FileKind {
    pub(super) fn newest(&self) -> i64 {
        self.migrations.len() as i64
    }
}

/// A database that is ours, up to date and locked against other servers.
pub(super) struct OpenedFile {
    pub(super) file: PathBuf,
    /// Ready for the writer.
    pub(super) connection: Connection,
    /// Holds the locks.
    pub(super) guard: DatabaseLocks,
}

pub(super) fn open(data_dir: &Path, kind: &FileKind, busy_timeout: Duration) -> Result<OpenedFile, SqliteOpenError> {
    fs::create_dir_all(data_dir)
        .map_err(|cause| SqliteOpenError::Unwritable { path: data_dir.to_owned(), cause: Box::new(cause) })?;
    let file = data_dir.join(kind.name);
    let rescued = rescue::place(&file);
    if rescued.exists() {
        return Err(SqliteOpenError::Rescued { file, rescued });
    }
    let mut guard = DatabaseLocks::take(&file, true)?;
    check_log(&file)?;
    prepare(&file, kind, busy_timeout)?;
    // SQLite increments the change counter of a database once for each time that it has read page
    // 1. A second opening makes it write another number into the log than the database had before
    // this start (`wal.rs`).
    let refuse = |error| refused(&file, error);
    let connection = connect(&file, busy_timeout).map_err(refuse)?;
    configure(&connection).map_err(refuse)?;
    touch_page_one(&connection).map_err(refuse)?;
    guard
        .remember_files(&file)
        .map_err(|cause| SqliteOpenError::Failed { file: file.clone(), cause: Box::new(cause) })?;
    Ok(OpenedFile { file, connection, guard })
}

/// Checks the database, upgrades it, and leaves all changes in the file itself.
fn prepare(file: &Path, kind: &FileKind, busy_timeout: Duration) -> Result<(), SqliteOpenError> {
    let refuse = |error| refused(file, error);
    let mut connection = connect(file, busy_timeout).map_err(refuse)?;
    check_identity(&connection, kind, file)?;
    check_writable(&connection, file)?;
    // This works only while there is no table, and before a page is written.
    connection.pragma_update(None, "auto_vacuum", kind.auto_vacuum).map_err(refuse)?;
    configure(&connection).map_err(refuse)?;
    bring_up_to_date(&mut connection, kind).map_err(refuse)?;
    space::enable_if_cheap(&connection, file);
    // A program that is reading prevents the log from being emptied, which does no harm.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(refuse)
}

/// Opens the store's database for reading only, as of one moment, while no server uses it. `alone`:
/// no other program can read it meanwhile, and nothing needs room on its disk, because the index of
/// the log is in memory.
pub(super) fn open_to_read(
    file: &Path,
    busy_timeout: Duration,
    alone: bool,
) -> Result<(Connection, DatabaseLocks), SqliteOpenError> {
    let guard = DatabaseLocks::take(file, false)?;
    check_log(file)?;
    let refuse = |error| refused(file, error);
    // Not read-only, because a killed server may have left a log that must be applied first.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(sqlite_path(file), flags).map_err(refuse)?;
    connection.busy_timeout(busy_timeout).map_err(refuse)?;
    if alone {
        // Closing the connection would copy the log into the database, which takes time, and which
        // a full disk may do only in part. A log that was not there is empty, and is removed.
        let has_log = fs::metadata(beside(file, "-wal")).is_ok_and(|log| log.len() > 0);
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log).map_err(refuse)?;
        connection.pragma_update(None, "locking_mode", "exclusive").map_err(refuse)?;
        connection.pragma_update(None, "query_only", true).map_err(refuse)?;
    }
    check_identity(&connection, &STORE, file)?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(refuse)?;
    if version < STORE.newest() {
        let newest = STORE.newest();
        let cause = format!("its tables are of version {version}, not {newest}: start this server on it once");
        return Err(SqliteOpenError::Failed { file: file.to_owned(), cause: cause.into() });
    }
    connection.execute_batch("BEGIN").map_err(refuse)?;
    Ok((connection, guard))
}

/// Checks the log: SQLite would apply an existing log to a database that was put there later.
pub(super) fn check_log(file: &Path) -> Result<(), SqliteOpenError> {
    match wal::look(file) {
        Ok(Log::Good) => Ok(()),
        Ok(Log::Foreign) => Err(SqliteOpenError::ForeignLog { file: file.to_owned() }),
        Ok(Log::Orphaned) => Err(SqliteOpenError::OrphanedLog { file: file.to_owned() }),
        Err(cause) => Err(SqliteOpenError::Failed { file: file.to_owned(), cause: Box::new(cause) }),
    }
}

fn connect(file: &Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(sqlite_path(file), flags)?;
    connection.busy_timeout(busy_timeout)?;
    Ok(connection)
}

/// A second connection with write access, which writes only what is already in the log.
pub(super) fn connect_copier(file: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(file, Duration::ZERO)?;
    configure(&connection)?;
    Ok(connection)
}

/// Rewrites page 1 without changing anything.
pub(super) fn touch_page_one(db: &Connection) -> rusqlite::Result<()> {
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    db.pragma_update(None, "user_version", version)
}

/// Refuses a file of another program or of a later version. An empty database may be filled.
fn check_identity(db: &Connection, kind: &FileKind, file: &Path) -> Result<(), SqliteOpenError> {
    let number = |query| db.query_row(query, [], |row| row.get::<_, i64>(0)).map_err(|error| refused(file, error));
    // Reading the schema first detects a file that is not a database, or is shorter than its header
    // says.
    let objects = number("SELECT count(*) FROM sqlite_schema")?;
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let is_empty = application == 0 && version == 0 && objects == 0;
    if application != kind.application_id && !is_empty {
        return Err(SqliteOpenError::NotOurs { file: file.to_owned() });
    }
    if version > kind.newest() {
        return Err(SqliteOpenError::Newer { file: file.to_owned(), version, known: kind.newest() });
    }
    Ok(())
}

/// Checks that the file is writable, because SQLite silently opens a read-only file for reading.
fn check_writable(db: &Connection, file: &Path) -> Result<(), SqliteOpenError> {
    if db.is_readonly("main").map_err(|error| refused(file, error))? {
        let cause = io::Error::from(io::ErrorKind::PermissionDenied);
        return Err(SqliteOpenError::Unwritable { path: file.to_owned(), cause: Box::new(cause) });
    }
    Ok(())
}

/// Configures a synced write-ahead log, and enough cached statements and pages for the writer.
fn configure(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update_and_check(None, "journal_mode", "wal", |row| {
        let mode: String = row.get(0)?;
        if mode == "wal" { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
    })?;
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // `copier.rs` makes the checkpoints.
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    db.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    keep_statements(db)
}

/// Prepares statements once, whatever values are bound: SQLite would otherwise prepare some of them
/// again for each value that might change their plan.
pub(super) fn keep_statements(db: &Connection) -> rusqlite::Result<()> {
    db.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// Applies the missing migrations and repairs the traces of a killed server, in one transaction.
fn bring_up_to_date(db: &mut Connection, kind: &FileKind) -> rusqlite::Result<()> {
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let applied: u32 = change.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    for migration in kind.migrations.iter().skip(applied as usize) {
        change.execute_batch(migration)?;
    }
    change.pragma_update(None, "application_id", kind.application_id)?;
    change.pragma_update(None, "user_version", kind.newest())?;
    change.execute(kind.at_start, [])?;
    change.commit()
}

/// How long a call waits for another program that holds the database, such as a backup.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const CACHE_KIB: i64 = 16 * 1024;
const LOG_BYTES_KEPT: i64 = 64 * 1024 * 1024;
const STATEMENTS_KEPT: usize = 64;
