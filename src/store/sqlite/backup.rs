//! Copies of the store's file: [`back_up`] makes one while a server runs, [`restore`] puts one in
//! the place of the database of a stopped server.
//!
//! A copy is complete or not there: it is written under another name, verified, brought to the disk,
//! and only then gets its name.

use std::error::Error;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::guard::Guard;
use super::open::STORE;
use super::paths::{beside, sqlite_path};
use super::refusal::SqliteOpenError;

/// What a copy contains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content {
    /// The length of its file.
    pub bytes: u64,
    /// Its users.
    pub users: u64,
    /// The messages of its conversations, and those that wait for users of level 1.
    pub messages: u64,
}

/// Why there is no copy, or why it was not restored. `Display` is one line for the operator.
#[derive(Debug)]
pub enum BackupError {
    /// The target exists.
    Exists(PathBuf),
    /// There is no database here.
    Missing(PathBuf),
    /// The file is not a whole database of this server, for this reason.
    Unfit(PathBuf, String),
    /// The database is in use, or cannot be opened.
    Open(SqliteOpenError),
    /// The system refused a step.
    System(PathBuf, io::Error),
    /// SQLite refused a step.
    Sqlite(PathBuf, rusqlite::Error),
}

/// Copies `raybox.db` of this folder to `target`, as of one moment, and verifies the copy. A server
/// may use the folder. It is not slowed down but by the disk, and its log grows until the copy is
/// complete.
///
/// # Errors
///
/// [`BackupError`]; there is no target then.
pub fn back_up(data_dir: &Path, target: &Path) -> Result<Content, BackupError> {
    let source = data_dir.join(STORE.name);
    if !source.exists() {
        return Err(BackupError::Missing(source));
    }
    if target.exists() {
        return Err(BackupError::Exists(target.to_owned()));
    }
    let failed = |cause| BackupError::Sqlite(source.clone(), cause);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(sqlite_path(&source), flags).map_err(failed)?;
    db.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    let place = |part: &Path| match target.exists() {
        true => Err(BackupError::Exists(target.to_owned())),
        false => fs::rename(part, target).map_err(|cause| BackupError::System(target.to_owned(), cause)),
    };
    copy(&db, target, place).map(|(content, ())| content)
}

/// Puts a copy in the place of `raybox.db` of this folder, which no server may use. Returns what it
/// contains, and the name that the file before it has now.
///
/// # Errors
///
/// [`BackupError`]; the database is as it was then.
pub fn restore(backup: &Path, data_dir: &Path) -> Result<(Content, Option<PathBuf>), BackupError> {
    verify(backup)?;
    let database = data_dir.join(STORE.name);
    let was_there = database.exists();
    // The locks are held until the copy is in its place.
    let guard = Guard::take(&database, true).map_err(BackupError::Open)?;
    let system = |cause| BackupError::System(database.clone(), cause);
    let place = |part: &Path| {
        let old = if was_there { Some(set_aside(&database).map_err(system)?) } else { None };
        fs::rename(part, &database).map_err(system)?;
        Ok(old)
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(sqlite_path(backup), flags);
    let opened = opened.map_err(|cause| BackupError::Sqlite(backup.to_owned(), cause));
    let restored = opened.and_then(|db| copy(&db, &database, place));
    if restored.is_err() && !was_there {
        // The lock needed a file.
        let _ = fs::remove_file(&database);
    }
    drop(guard);
    restored
}

/// Copies a database to a file beside `target` and verifies it; `place` gives that file its name.
fn copy<T>(
    db: &Connection,
    target: &Path,
    place: impl FnOnce(&Path) -> Result<T, BackupError>,
) -> Result<(Content, T), BackupError> {
    let part = beside(target, ".part");
    let system = |cause| BackupError::System(part.clone(), cause);
    // What a copy that was killed has left is of no use.
    let _ = fs::remove_file(&part);
    // The owner alone reads it, since it contains messages.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(system)?;
    let copied = || {
        copy_pages(db, &part).map_err(|cause| BackupError::Sqlite(part.clone(), cause))?;
        let content = verify(&part)?;
        file.sync_all().map_err(system)?;
        let placed = place(&part)?;
        sync_folder(target).map_err(system)?;
        Ok((content, placed))
    };
    let copied = copied();
    // It is not there any more if it was placed.
    let _ = fs::remove_file(&part);
    copied
}

/// Copies all pages in one read transaction: another one that writes cannot make it begin again.
fn copy_pages(db: &Connection, to: &Path) -> rusqlite::Result<()> {
    let mut copy = Connection::open(sqlite_path(to))?;
    {
        let backup = Backup::new(db, &mut copy)?;
        match backup.step(-1)? {
            StepResult::Done => {}
            _ => return Err(rusqlite::Error::InvalidQuery),
        }
    }
    // Without a log of its own it is one file.
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
}

/// Checks that a file is a whole database of this server, and counts what is in it.
fn verify(path: &Path) -> Result<Content, BackupError> {
    let bytes = fs::metadata(path).map_err(|cause| BackupError::System(path.to_owned(), cause))?.len();
    let unfit = |why: &dyn fmt::Display| BackupError::Unfit(path.to_owned(), why.to_string());
    let look = || -> rusqlite::Result<Result<Content, String>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(sqlite_path(path), flags)?;
        let number = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0));
        if number("PRAGMA application_id")? != STORE.application_id {
            return Ok(Err("it is not a database of this server".to_owned()));
        }
        let version = number("PRAGMA user_version")?;
        if !(1..=STORE.newest()).contains(&version) {
            return Ok(Err(format!("its tables are of version {version}, and this server knows {}", STORE.newest())));
        }
        let health: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if health != "ok" {
            return Ok(Err(format!("it is damaged: {health}")));
        }
        let count = |table: &str| -> rusqlite::Result<u64> {
            let has = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?1";
            match db.query_row(has, [table], |row| row.get::<_, i64>(0))? {
                0 => Ok(0),
                _ => number(&format!("SELECT count(*) FROM {table}")).map(i64::unsigned_abs),
            }
        };
        let messages = count("OfflineMessage")? + count("Message")?;
        Ok(Ok(Content { bytes, users: count("User")?, messages }))
    };
    look().map_err(|error| unfit(&error))?.map_err(|why| unfit(&why))
}

/// Gives the database a second name, and takes its log away. The file keeps its first name until
/// the copy replaces it, so a crash in between leaves a database there.
fn set_aside(database: &Path) -> io::Result<PathBuf> {
    // The log's content belongs to the file. A damaged file may not take it.
    if let Ok(db) = Connection::open(sqlite_path(database)) {
        let _ = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }
    let mut number = 1;
    let aside = loop {
        let aside = beside(database, &format!(".before-restore-{number}"));
        match fs::hard_link(database, &aside) {
            Ok(()) => break aside,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    };
    for suffix in ["-wal", "-shm"] {
        match fs::rename(beside(database, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// Brings the names in the folder of a file to the disk.
fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::Exists(path) => write!(f, "{} exists; name a file that does not", path.display()),
            BackupError::Missing(path) => {
                write!(f, "there is no {}; name its folder with --data DIR", path.display())
            }
            BackupError::Unfit(path, why) => write!(f, "{} is no backup: {why}", path.display()),
            BackupError::Open(error) => error.fmt(f),
            BackupError::System(path, cause) => write!(f, "{}: {cause}", path.display()),
            BackupError::Sqlite(path, cause) => write!(f, "{}: {cause}", path.display()),
        }
    }
}

impl Error for BackupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            BackupError::Exists(_) | BackupError::Missing(_) | BackupError::Unfit(..) => None,
            BackupError::Open(error) => Some(error),
            BackupError::System(_, cause) => Some(cause),
            BackupError::Sqlite(_, cause) => Some(cause),
        }
    }
}

/// How long to wait for a server that has the file to itself, as it does while it starts.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
