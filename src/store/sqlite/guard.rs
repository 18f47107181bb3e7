//! [`DatabaseLocks`]: gives this process exclusive use of a database file while it is open, and
//! notices when the file is removed.
//!
//! There are two locks, because operators remove lock files that look stale: one on the file beside
//! the database, which contains the PID of its holder, and one on the database itself. Both are
//! flock(2) locks, which the kernel releases when the process ends in any way. SQLite's own locks
//! are of another kind (fcntl(2)), and do not conflict with these on a local disk.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;

use super::paths::beside;
use super::refusal::{SqliteOpenError, refused_by_system};

/// The locks of one database. Drop it after the last connection: closing a file releases SQLite's
/// locks on it.
pub(super) struct DatabaseLocks {
    /// The database: the same file that SQLite has open.
    database: File,
    _lock: File,
    /// The files that must stay in their places, as they were when they were opened.
    files: Vec<(PathBuf, FileIdentity)>,
}

/// Identifies a file independent of its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    fn of(found: &Metadata) -> FileIdentity {
        FileIdentity { device: found.dev(), inode: found.ino() }
    }
}

impl DatabaseLocks {
    /// Takes the locks of `database`, and creates it if `create` is set and it does not exist.
    ///
    /// # Errors
    ///
    /// It is in use, does not exist, is not accessible for this user, or is a symbolic link.
    pub(super) fn take(database: &Path, create: bool) -> Result<DatabaseLocks, SqliteOpenError> {
        let lock = take_lock_file(database)?;
        let file = open_database(database, create)?;
        lock_itself(&file, database)?;
        Ok(DatabaseLocks { database: file, _lock: lock, files: Vec::new() })
    }

    /// Records which files are open, now that SQLite has created those beside the database.
    pub(super) fn remember_files(&mut self, database: &Path) -> io::Result<()> {
        self.files = vec![(database.to_owned(), FileIdentity::of(&self.database.metadata()?))];
        for suffix in ["-wal", "-shm"] {
            let path = beside(database, suffix);
            let identity = FileIdentity::of(&fs::metadata(&path)?);
            self.files.push((path, identity));
        }
        Ok(())
    }

    /// Describes which of the files is no longer in its place, if any.
    pub(super) fn loss(&self) -> Option<String> {
        self.files.iter().find_map(|(path, identity)| {
            let what = match fs::metadata(path) {
                Ok(found) if FileIdentity::of(&found) == *identity => return None,
                Ok(_) => "was replaced by another file",
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    "was moved or deleted"
                }
                // An error of the disk proves nothing about the file.
                Err(_) => return None,
            };
            Some(format!("{} {what}{}", path.display(), self.elsewhere()))
        })
    }

    /// The current path of the database, if the system knows it (proc(5)).
    #[cfg(target_os = "linux")]
    fn elsewhere(&self) -> String {
        let link = format!("/proc/self/fd/{}", self.database.as_raw_fd());
        fs::read_link(link).map(|path| format!(" (the database is now {})", path.display())).unwrap_or_default()
    }

    #[cfg(not(target_os = "linux"))]
    fn elsewhere(&self) -> String {
        String::new()
    }
}

/// Inspects a database without changing it. Returns its size in bytes, `None` if there is none.
///
/// # Errors
///
/// It is in use, or cannot be read.
pub(super) fn look(database: &Path) -> Result<Option<u64>, SqliteOpenError> {
    let bytes = match fs::metadata(database) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(refused_by_system(database, cause)),
    };
    // Read-only, which is enough for flock(2). A missing lock file is not created.
    if let Ok(mut lock) = File::open(beside(database, ".lock"))
        && let Err(TryLockError::WouldBlock) = lock.try_lock()
    {
        let mut text = String::new();
        let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
        return Err(SqliteOpenError::InUse { file: database.to_owned(), pid });
    }
    Ok(Some(bytes))
}

/// Takes the lock beside the database. The PID in it is only for the error message. The file is
/// never deleted: otherwise two servers could hold locks on two files of one name.
fn take_lock_file(database: &Path) -> Result<File, SqliteOpenError> {
    let path = beside(database, ".lock");
    let failed = |cause: io::Error| refused_by_system(&path, cause);
    // A user with write access to the folder could link to any file of this user, which would be
    // truncated below.
    let mut lock = options().create(true).truncate(false).open(&path).map_err(failed)?;
    let mut tries = LOCK_TRIES;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            // Another program that checks the lock holds it for a moment.
            Err(TryLockError::WouldBlock) if tries > 1 => {
                tries -= 1;
                thread::sleep(LOCK_PAUSE);
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(SqliteOpenError::InUse { file: database.to_owned(), pid });
            }
            Err(TryLockError::Error(cause)) => {
                return Err(SqliteOpenError::Failed { file: path, cause: Box::new(cause) });
            }
        }
    }
    // The lock works without the PID, for which a full disk may have no room.
    let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    Ok(lock)
}

/// A new file is readable only by its owner, since it contains messages; SQLite gives the files
/// beside it the same mode. An existing file keeps its mode.
fn open_database(path: &Path, create: bool) -> Result<File, SqliteOpenError> {
    options().create(create).truncate(false).open(path).map_err(|cause| refused_by_system(path, cause))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

fn lock_itself(file: &File, path: &Path) -> Result<(), SqliteOpenError> {
    // On a network file system both kinds of locks may be the same, and SQLite would wait for us
    // for ever.
    if !cfg!(target_os = "linux") || is_remote(file) {
        return Ok(());
    }
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(SqliteOpenError::InUse { file: path.to_owned(), pid: None }),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

/// Whether the file is on another machine, as far as is known.
#[cfg(target_os = "linux")]
fn is_remote(file: &File) -> bool {
    // NFS, SMB in three versions, 9P: statfs(2).
    const REMOTE: [u32; 5] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997];
    rustix::fs::fstatfs(file).is_ok_and(|found| REMOTE.contains(&(found.f_type as u32)))
}

#[cfg(not(target_os = "linux"))]
fn is_remote(_: &File) -> bool {
    false
}

/// The number of attempts to lock a database at the start, and the pause between them.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
