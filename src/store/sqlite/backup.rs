//! Copies of the store's file: [`back_up`] makes one while a server runs, [`restore`] puts one in
//! the place of the database of a stopped server.
//!
//! A copy is complete or does not exist: it is written under another name, verified and synced, and
//! only then gets its name.

use std::error::Error;
use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::guard::{self, DatabaseLocks};
use super::open::{STORE, check_log};
use super::paths::{beside, sqlite_path};
use super::refusal::SqliteOpenError;
use super::rescue;

/// The content of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackupContent {
    /// The length of its file.
    pub bytes: u64,
    /// Its users.
    pub users: u64,
    /// The messages of its conversations, and those that wait for users of level 1.
    pub messages: u64,
}

/// The reason why there is no copy, or it was not restored. `Display` is one line for the
/// operator.
#[derive(Debug)]
pub enum BackupError {
    /// The target exists.
    Exists(PathBuf),
    /// There is no such file.
    Missing(PathBuf),
    /// The file is not a complete database of this server, for this reason.
    Unfit(PathBuf, String),
    /// The database cannot or must not be opened.
    Open(SqliteOpenError),
    /// Another program keeps exclusive access to the database.
    Busy(PathBuf),
    /// The system refused a step.
    System(PathBuf, io::Error),
    /// SQLite refused a step.
    Sqlite(PathBuf, rusqlite::Error),
    /// The copy is in its place, but may not survive a power cut.
    Unsure(PathBuf, io::Error),
}

/// Copies `raybox.db` of this folder to `target`, as of one moment, and verifies the copy. A server
/// may use the folder. Only the disk slows it down, and its log grows until the copy is complete.
///
/// # Errors
///
/// [`BackupError`]. There is no target then, except with [`BackupError::Unsure`].
pub fn back_up(data_dir: &Path, target: &Path) -> Result<BackupContent, BackupError> {
    let source = data_dir.join(STORE.name);
    if target.exists() {
        return Err(BackupError::Exists(target.to_owned()));
    }
    match guard::look(&source) {
        Ok(None) => return Err(BackupError::Missing(source)),
        // Nobody has checked the log of a server that was killed.
        Ok(Some(_)) => check_log(&source).map_err(BackupError::Open)?,
        Err(SqliteOpenError::InUse { .. }) => {}
        Err(error) => return Err(BackupError::Open(error)),
    }
    let part = UnnamedCopy::create(target)?;
    let content = part.fill(&source)?;
    part.name_new(target)?;
    sync_folder(target).map_err(|cause| BackupError::Unsure(target.to_owned(), cause))?;
    Ok(content)
}

/// Puts a copy in the place of `raybox.db` of this folder, which no server may use. Returns its
/// content, and the new name of the previous database.
///
/// ```text
///   copy beside the database ─▶ second names for the database and its log ─▶ copy gets the name ─▶ old log loses its own
/// ```
/// After a crash in between, the folder has either the old database with its log, or the new one
/// beside a log that the next start recognises as foreign.
///
/// # Errors
///
/// [`BackupError`]. The database is unchanged then, except with [`BackupError::Unsure`].
pub fn restore(backup: &Path, data_dir: &Path) -> Result<(BackupContent, Option<PathBuf>), BackupError> {
    let database = data_dir.join(STORE.name);
    let rescued = rescue::place(&database);
    if rescued.exists() {
        return Err(BackupError::Open(SqliteOpenError::Rescued { file: database, rescued }));
    }
    let system = |cause| BackupError::System(database.clone(), cause);
    verify(backup)?;
    // The server runs as the owner of the database or of the folder.
    let owned = fs::metadata(&database).or_else(|_| fs::metadata(data_dir)).map_err(system)?;
    let was_there = database.exists();
    // The locks are held until the copy is in its place.
    let guard = DatabaseLocks::take(&database, true).map_err(BackupError::Open)?;
    let placed = || {
        let part = UnnamedCopy::create(&database)?;
        let content = part.fill(backup)?;
        part.give_to(&owned)?;
        give_to(&beside(&database, ".lock"), &owned).map_err(system)?;
        let old = set_aside(&database, was_there).map_err(system)?;
        part.replace(&database)?;
        Ok((content, old))
    };
    let placed = placed();
    if placed.is_err() && !was_there {
        // The locks have created this file.
        let _ = fs::remove_file(&database);
    }
    let (content, old) = placed?;
    let unsure = |cause| BackupError::Unsure(database.clone(), cause);
    for suffix in LOGS {
        remove_if_there(&beside(&database, suffix)).map_err(unsure)?;
    }
    sync_folder(&database).map_err(unsure)?;
    drop(guard);
    Ok((content, old))
}

/// A copy under a temporary name, which is removed unless the copy gets its final name.
struct UnnamedCopy {
    path: PathBuf,
    file: File,
}

impl UnnamedCopy {
    /// An empty file beside `target`. Only its owner may read it, since it will contain messages.
    fn create(target: &Path) -> Result<UnnamedCopy, BackupError> {
        let path = beside(target, &format!(".part-{}", process::id()));
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = opened.map_err(|cause| BackupError::System(path.clone(), cause))?;
        Ok(UnnamedCopy { path, file })
    }

    /// Copies a database into it, verifies and syncs the copy.
    fn fill(&self, source: &Path) -> Result<BackupContent, BackupError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let copied = || -> rusqlite::Result<StepResult> {
            let db = Connection::open_with_flags(sqlite_path(source), flags)?;
            db.busy_timeout(BUSY_TIMEOUT)?;
            copy_pages(&db, &self.path)
        };
        match copied() {
            Ok(StepResult::Done) => {}
            Ok(_) => return Err(BackupError::Busy(source.to_owned())),
            Err(cause) => return Err(BackupError::Sqlite(self.path.clone(), cause)),
        }
        let content = verify(&self.path)?;
        self.file.sync_all().map_err(|cause| BackupError::System(self.path.clone(), cause))?;
        Ok(content)
    }

    /// Gives it this owner and these rights, unless it has them already.
    fn give_to(&self, owner: &Metadata) -> Result<(), BackupError> {
        let system = |cause| BackupError::System(self.path.clone(), cause);
        give_to(&self.path, owner).map_err(system)?;
        let mode = if owner.is_file() { owner.mode() & 0o777 } else { 0o600 };
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(system)
    }

    /// Gives it a name that no file has.
    fn name_new(self, target: &Path) -> Result<(), BackupError> {
        let named = match fs::hard_link(&self.path, target) {
            // Some file systems have no second names.
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => {
                if target.exists() { Err(ErrorKind::AlreadyExists.into()) } else { fs::rename(&self.path, target) }
            }
            named => named,
        };
        named.map_err(|cause| match cause.kind() {
            ErrorKind::AlreadyExists => BackupError::Exists(target.to_owned()),
            _ => BackupError::System(target.to_owned(), cause),
        })
    }

    /// Gives it the name of another file, which is replaced.
    fn replace(self, target: &Path) -> Result<(), BackupError> {
        fs::rename(&self.path, target).map_err(|cause| BackupError::System(target.to_owned(), cause))
    }
}

impl Drop for UnnamedCopy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Copies all pages in one read transaction, so that another program's writes cannot make it start
/// again.
fn copy_pages(db: &Connection, to: &Path) -> rusqlite::Result<StepResult> {
    let mut copy = Connection::open(sqlite_path(to))?;
    let result = Backup::new(db, &mut copy)?.step(-1)?;
    if result == StepResult::Done {
        // Without a log, the copy is a single file.
        copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    }
    Ok(result)
}

/// Checks that a file is a complete database of this server, and counts its content.
fn verify(path: &Path) -> Result<BackupContent, BackupError> {
    let bytes = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(BackupError::Missing(path.to_owned())),
        Err(cause) => return Err(BackupError::System(path.to_owned(), cause)),
    };
    // SQLite would apply the log of another database.
    check_log(path).map_err(BackupError::Open)?;
    let unfit = |why: &dyn fmt::Display| BackupError::Unfit(path.to_owned(), why.to_string());
    let look = || -> rusqlite::Result<Result<BackupContent, String>> {
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
            let lines: Vec<&str> = health.lines().collect();
            return Ok(Err(format!("it is damaged: {}", lines.join("; "))));
        }
        let count = |table: &str| -> rusqlite::Result<u64> {
            let has = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?1";
            match db.query_row(has, [table], |row| row.get::<_, i64>(0))? {
                0 => Ok(0),
                _ => number(&format!("SELECT count(*) FROM {table}")).map(i64::unsigned_abs),
            }
        };
        let messages = count("OfflineMessage")? + count("Message")?;
        Ok(Ok(BackupContent { bytes, users: count("User")?, messages }))
    };
    look().map_err(|error| unfit(&error))?.map_err(|why| unfit(&why))
}

/// Gives the database and its log second names, without opening them: the log may be foreign, and
/// the database damaged. They keep their first names.
fn set_aside(database: &Path, was_there: bool) -> io::Result<Option<PathBuf>> {
    let names = |number: u32| beside(database, &format!(".before-restore-{number}"));
    let is_free = |aside: &Path| !aside.exists() && LOGS.iter().all(|suffix| !beside(aside, suffix).exists());
    let aside = (1..).map(names).find(|aside| is_free(aside)).expect("there are more numbers than files");
    if was_there {
        fs::hard_link(database, &aside)?;
    }
    let mut is_kept = was_there;
    for suffix in LOGS {
        // Each start creates the index of the log anew.
        if suffix == "-shm" {
            continue;
        }
        match fs::hard_link(beside(database, suffix), beside(&aside, suffix)) {
            Ok(()) => is_kept = true,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    sync_folder(database)?;
    Ok(is_kept.then_some(aside))
}

/// Gives a file the owner of another file, unless it has that owner already.
fn give_to(path: &Path, owner: &Metadata) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    match (found.uid(), found.gid()) == (owner.uid(), owner.gid()) {
        true => Ok(()),
        false => lchown(path, Some(owner.uid()), Some(owner.gid())),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Syncs the folder of a file.
fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::Exists(path) => write!(f, "{} exists; name a file that does not", path.display()),
            BackupError::Missing(path) => write!(f, "there is no {}; is the path right?", path.display()),
            BackupError::Busy(path) => write!(
                f,
                "another program has {} to itself for over {} s; try again",
                path.display(),
                BUSY_TIMEOUT.as_secs()
            ),
            BackupError::Unsure(path, cause) => {
                write!(f, "{} is complete, but may not survive a power cut: {cause}", path.display())
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
            BackupError::Exists(_) | BackupError::Missing(_) | BackupError::Busy(_) | BackupError::Unfit(..) => None,
            BackupError::Open(error) => Some(error),
            BackupError::System(_, cause) | BackupError::Unsure(_, cause) => Some(cause),
            BackupError::Sqlite(_, cause) => Some(cause),
        }
    }
}

/// How long to wait for a server with exclusive access, as it has during its start.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// The files that SQLite has beside a database.
const LOGS: [&str; 3] = ["-wal", "-shm", "-journal"];
