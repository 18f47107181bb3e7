//! Opening a file: is it there, is it ours, is it whole, is it ours alone; then bringing it up to date.
//!
//! What is checked is checked before anything is changed. The whole file is not read (`PRAGMA quick_check`): the start
//! would grow with the data, by seconds per gigabyte, and SQLite reports a damaged page when it meets it.

use std::error::Error;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

/// One of the databases that this server writes.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// The mark of its files (`PRAGMA application_id`).
    application_id: i64,
    /// The versions of its schema in order; `PRAGMA user_version` counts those applied.
    migrations: &'static [&'static str],
    /// Gives the disk back what is deleted.
    shrinks: bool,
    /// What is put right whenever it is opened.
    at_start: &'static str,
}

/// The embedded store.
pub(super) const STORE: Kind = Kind {
    name: "raybox.db",
    // "RyBx".
    application_id: 0x5279_4278,
    migrations: &[include_str!("../../../sql/sqlite/0001_init.sql")],
    shrinks: false,
    at_start: "UPDATE User SET state = 'offline' WHERE state <> 'offline'",
};

/// The spool of a store elsewhere.
pub(super) const SPOOL: Kind = Kind {
    name: "spool.db",
    // "RyBs".
    application_id: 0x5279_4273,
    migrations: &[include_str!("../../../sql/spool/0001_init.sql")],
    shrinks: true,
    // The database may have been put right meanwhile.
    at_start: "UPDATE Spooled SET aside = 0 WHERE aside <> 0",
};

impl Kind {
    fn newest(&self) -> i64 {
        self.migrations.len() as i64
    }
}

/// A database that is ours, up to date and locked against other servers.
pub(super) struct Opened {
    pub(super) file: PathBuf,
    /// Ready for the writer.
    pub(super) connection: Connection,
    /// Holds the lock while it is open.
    pub(super) lock: File,
}

pub(super) fn open(data_dir: &Path, kind: &Kind, busy_timeout: Duration) -> Result<Opened, OpenError> {
    fs::create_dir_all(data_dir)
        .map_err(|cause| OpenError::Unwritable { path: data_dir.to_owned(), cause: Box::new(cause) })?;
    let file = data_dir.join(kind.name);
    let lock = lock(&file)?;
    let refuse = |error| refused(&file, error);
    create(&file);
    let mut connection = connect(&file).map_err(refuse)?;
    connection.busy_timeout(busy_timeout).map_err(refuse)?;
    check_identity(&connection, kind, &file)?;
    check_writable(&connection, &file)?;
    if kind.shrinks {
        // Counts while there is no table, and not once a page is written.
        connection.pragma_update(None, "auto_vacuum", "full").map_err(refuse)?;
    }
    configure(&connection).map_err(refuse)?;
    bring_up_to_date(&mut connection, kind).map_err(refuse)?;
    Ok(Opened { file, connection, lock })
}

/// Opens the database for one who only reads it, at one moment, while no server uses it.
pub(super) fn open_to_read(file: &Path, busy_timeout: Duration) -> Result<(Connection, File), OpenError> {
    let lock = lock(file)?;
    let refuse = |error| refused(file, error);
    // Not read-only, for a server that was killed left a log that must be worked in first.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(sqlite_path(file), flags).map_err(refuse)?;
    connection.busy_timeout(busy_timeout).map_err(refuse)?;
    check_identity(&connection, &STORE, file)?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(refuse)?;
    if version < STORE.newest() {
        let newest = STORE.newest();
        let cause = format!("its tables are of version {version}, not {newest}: start this server on it once");
        return Err(OpenError::Failed { file: file.to_owned(), cause: cause.into() });
    }
    connection.execute_batch("BEGIN").map_err(refuse)?;
    Ok((connection, lock))
}

/// The path in a form that SQLite takes for a path: one that begins with `file:` would be read as a URI.
pub(super) fn sqlite_path(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

/// Takes the lock beside the database. The kernel frees it with the process, however that ends; the number in the file is
/// for the message only. The file stays: deleting it would let two servers hold locks on two files of one name.
fn lock(database: &Path) -> Result<File, OpenError> {
    let path = database.with_extension("db.lock");
    let unwritable = |cause: io::Error| OpenError::Unwritable { path: path.clone(), cause: Box::new(cause) };
    let mut lock =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(unwritable)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(OpenError::InUse { file: database.to_owned(), pid });
        }
        Err(TryLockError::Error(cause)) => {
            return Err(OpenError::Failed { file: path, cause: Box::new(cause) });
        }
    }
    lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(unwritable)?;
    Ok(lock)
}

/// Makes the file for its owner alone, since it holds what people write to each other; SQLite gives the files beside it the
/// same rights. If it is there already, its owner has decided; if it cannot be made, SQLite says why.
fn create(file: &Path) {
    let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(sqlite_path(file), flags)
}

/// Refuses a file that another program or a later version wrote. An empty database is ours to fill.
fn check_identity(db: &Connection, kind: &Kind, file: &Path) -> Result<(), OpenError> {
    let number = |query| db.query_row(query, [], |row| row.get::<_, i64>(0)).map_err(|error| refused(file, error));
    // Reading the schema first is what notices a file that is not a database, or is shorter than its header says.
    let objects = number("SELECT count(*) FROM sqlite_schema")?;
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let is_empty = application == 0 && version == 0 && objects == 0;
    if application != kind.application_id && !is_empty {
        return Err(OpenError::NotOurs { file: file.to_owned() });
    }
    if version > kind.newest() {
        return Err(OpenError::Newer { file: file.to_owned(), version, known: kind.newest() });
    }
    Ok(())
}

/// SQLite opens a file that it may not write for reading, without a word.
fn check_writable(db: &Connection, file: &Path) -> Result<(), OpenError> {
    if db.is_readonly("main").map_err(|error| refused(file, error))? {
        let cause = io::Error::from(io::ErrorKind::PermissionDenied);
        return Err(OpenError::Unwritable { path: file.to_owned(), cause: Box::new(cause) });
    }
    Ok(())
}

/// A synced write-ahead log, and statements and pages enough in memory for the writer.
fn configure(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update_and_check(None, "journal_mode", "wal", |row| {
        let mode: String = row.get(0)?;
        if mode == "wal" { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
    })?;
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    db.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    db.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(())
}

/// Applies the migrations that are missing and puts right what a server that was killed has left, in one transaction.
fn bring_up_to_date(db: &mut Connection, kind: &Kind) -> rusqlite::Result<()> {
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

const CACHE_KIB: i64 = 16 * 1024;
/// Pages in the log before they are copied into the database: 64 MB. With SQLite's own 1000, a busy server would copy the
/// same index pages after nearly every commit.
const LOG_PAGES: i64 = 16 * 1024;
const LOG_BYTES_KEPT: i64 = 64 * 1024 * 1024;
const STATEMENTS_KEPT: usize = 32;

fn refused(file: &Path, error: rusqlite::Error) -> OpenError {
    let (file, code) = (file.to_owned(), error.sqlite_error_code());
    let cause = Box::new(error);
    match code {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Damaged { file, cause },
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            OpenError::Unwritable { path: file, cause }
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { file, pid: None },
        _ => OpenError::Failed { file, cause },
    }
}

/// Why the database was not opened. The text names the file and says what to do.
#[derive(Debug)]
pub enum OpenError {
    /// The folder, the database or the lock beside it cannot be created or written.
    Unwritable {
        /// Which of them.
        path: PathBuf,
        /// What the system said.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// Another server, or for too long another program, holds the database.
    InUse {
        /// The database.
        file: PathBuf,
        /// The process, if it is a server and has said so.
        pid: Option<u32>,
    },
    /// Another program's database.
    NotOurs {
        /// The database.
        file: PathBuf,
    },
    /// A later version of this server wrote it.
    Newer {
        /// The database.
        file: PathBuf,
        /// The version of its schema.
        version: i64,
        /// The newest that this server knows.
        known: i64,
    },
    /// Not a SQLite file, or not all of one.
    Damaged {
        /// The database.
        file: PathBuf,
        /// What SQLite said.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// Anything else.
    Failed {
        /// The file in question.
        file: PathBuf,
        /// What went wrong with it.
        cause: Box<dyn Error + Send + Sync>,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Unwritable { path, cause } => write!(
                f,
                "cannot write {}: {cause}; let this user write the file and its folder, or choose another data folder",
                path.display()
            ),
            OpenError::InUse { file, pid: Some(pid) } => write!(
                f,
                "{} is in use by another server, process {pid}; stop that one, or choose another data folder",
                file.display()
            ),
            OpenError::InUse { file, pid: None } => write!(
                f,
                "{} is in use by another program; close that one, or choose another data folder",
                file.display()
            ),
            OpenError::NotOurs { file } => write!(
                f,
                "{} is a database of another program; move it away, or choose another data folder",
                file.display()
            ),
            OpenError::Newer { file, version, known } => write!(
                f,
                "{} was written by a later version of this server (schema {version}, this one knows {known}); \
                 run that version, or restore an older backup",
                file.display()
            ),
            OpenError::Damaged { file, cause } => write!(
                f,
                "{} is damaged or no database: {cause}; restore a backup, or move it away \
                 together with the files beside it that begin with its name, to start empty",
                file.display()
            ),
            OpenError::Failed { file, cause } => {
                write!(f, "cannot open {}: {cause}; put that right and start again", file.display())
            }
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            OpenError::Unwritable { cause, .. }
            | OpenError::Damaged { cause, .. }
            | OpenError::Failed { cause, .. } => Some(&**cause),
            OpenError::InUse { .. } | OpenError::NotOurs { .. } | OpenError::Newer { .. } => None,
        }
    }
}
