//! [`SqliteOpenError`]: the reason why a database is not opened, as one line with advice.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};

/// The meaning of an error of SQLite at the start.
pub(super) fn refused(file: &Path, error: rusqlite::Error) -> SqliteOpenError {
    let file = file.to_owned();
    let (code, extended) = (error.sqlite_error_code(), error.sqlite_error().map(|cause| cause.extended_code));
    let is_other_mode = matches!(error, rusqlite::Error::InvalidQuery);
    let cause = Box::new(error);
    // The log's index is shared memory, mapped from a file.
    if is_other_mode || matches!(extended, Some(ffi::SQLITE_IOERR_SHMMAP | ffi::SQLITE_IOERR_SHMLOCK)) {
        return SqliteOpenError::NotLocal { file, cause };
    }
    match code {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => SqliteOpenError::Damaged { file, cause },
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            SqliteOpenError::Unwritable { path: file, cause }
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => SqliteOpenError::InUse { file, pid: None },
        Some(ErrorCode::DiskFull) => SqliteOpenError::Full { file, cause },
        _ if extended == Some(ffi::SQLITE_IOERR_SHMSIZE) => SqliteOpenError::Full { file, cause },
        _ => SqliteOpenError::Failed { file, cause },
    }
}

/// The meaning of an error of the system at the start.
pub(super) fn refused_by_system(path: &Path, cause: io::Error) -> SqliteOpenError {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return SqliteOpenError::Link { path: path.to_owned() };
    }
    if cause.kind() == ErrorKind::StorageFull {
        return SqliteOpenError::Full { file: path.to_owned(), cause: Box::new(cause) };
    }
    SqliteOpenError::Unwritable { path: path.to_owned(), cause: Box::new(cause) }
}

/// The reason why the database was not opened. The text names the file and gives advice.
#[derive(Debug)]
pub enum SqliteOpenError {
    /// The folder, the database or the lock beside it cannot be created or written.
    Unwritable {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// A server holds the database, or another program has held it for too long.
    InUse {
        /// The database.
        file: PathBuf,
        /// The PID, if a server holds it and has written the PID.
        pid: Option<u32>,
    },
    /// A symbolic link is in the place of one of our files.
    Link {
        /// The link.
        path: PathBuf,
    },
    /// The disk has no room.
    Full {
        /// The file that needs room.
        file: PathBuf,
        /// The system's error.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The file system lacks what a database for several threads needs.
    NotLocal {
        /// The database.
        file: PathBuf,
        /// SQLite's error.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The log beside the database belongs to another database.
    ForeignLog {
        /// The database.
        file: PathBuf,
    },
    /// A server has rescued a database that was removed, and the operator has not decided which
    /// file is valid.
    Rescued {
        /// The database.
        file: PathBuf,
        /// The rescued file.
        rescued: PathBuf,
    },
    /// The database is missing, and its log exists.
    OrphanedLog {
        /// The database.
        file: PathBuf,
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
    /// Not a SQLite file, or an incomplete one.
    Damaged {
        /// The database.
        file: PathBuf,
        /// SQLite's error.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// Any other problem.
    Failed {
        /// The affected file.
        file: PathBuf,
        /// The cause.
        cause: Box<dyn Error + Send + Sync>,
    },
}

impl SqliteOpenError {
    /// Whether the disk just accepts no writes now, so that the database may be readable.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            SqliteOpenError::Full { .. } => true,
            // A quota or a limit on file sizes, although the disk itself has room.
            SqliteOpenError::Failed { cause, .. } => cause.downcast_ref::<rusqlite::Error>().is_some_and(|error| {
                error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_WRITE)
            }),
            _ => false,
        }
    }

    /// The subject of the error: the database, or another file of its folder.
    fn file(&self) -> &Path {
        match self {
            SqliteOpenError::Unwritable { path: file, .. }
            | SqliteOpenError::Link { path: file }
            | SqliteOpenError::InUse { file, .. }
            | SqliteOpenError::Full { file, .. }
            | SqliteOpenError::NotLocal { file, .. }
            | SqliteOpenError::ForeignLog { file }
            | SqliteOpenError::Rescued { file, .. }
            | SqliteOpenError::OrphanedLog { file }
            | SqliteOpenError::NotOurs { file }
            | SqliteOpenError::Newer { file, .. }
            | SqliteOpenError::Damaged { file, .. }
            | SqliteOpenError::Failed { file, .. } => file,
        }
    }
}

impl fmt::Display for SqliteOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file().display();
        match self {
            SqliteOpenError::Unwritable { cause, .. } => write!(
                f,
                "cannot write {file}: {cause}; let this user write the file and its folder, or choose another data folder"
            ),
            SqliteOpenError::InUse { pid, .. } => {
                let user = pid.map_or("program".to_owned(), |pid| format!("server, process {pid}"));
                write!(f, "{file} is in use by another {user}; stop that one, or choose another data folder")
            }
            SqliteOpenError::Link { .. } => write!(
                f,
                "{file} is a symbolic link, which this server does not follow; put the file itself there, or choose the \
                 data folder that the link leads to"
            ),
            SqliteOpenError::Full { cause, .. } => {
                write!(f, "no space is left on the disk of {file}: {cause}; make room on it and start again")
            }
            SqliteOpenError::NotLocal { cause, .. } => write!(
                f,
                "the file system of {file} does not let processes share memory through a file: {cause}; use a local disk \
                 for the data folder"
            ),
            SqliteOpenError::ForeignLog { .. } => write!(
                f,
                "{file}-wal holds the last changes of another state of {file}, which was probably restored from a backup; \
                 to use {file} as it is, delete {file}-wal and {file}-shm; \
                 to keep those changes, put the database back that they belong to"
            ),
            SqliteOpenError::Rescued { rescued, .. } => write!(
                f,
                "{} holds what the last server had stored when {file} was moved, replaced or deleted under it; move it to \
                 {file} and delete {file}-wal and {file}-shm, or, if you do not need it, move it away",
                rescued.display()
            ),
            SqliteOpenError::OrphanedLog { .. } => write!(
                f,
                "{file} is missing or empty, and {file}-wal holds changes that belong to it; put the database back; \
                 or, to start without those changes, delete {file}-wal and {file}-shm"
            ),
            SqliteOpenError::NotOurs { .. } => {
                write!(f, "{file} is a database of another program; move it away, or choose another data folder")
            }
            SqliteOpenError::Newer { version, known, .. } => write!(
                f,
                "{file} was written by a later version of this server (schema {version}, this one knows {known}); \
                 run that version, or restore an older backup"
            ),
            SqliteOpenError::Damaged { cause, .. } => write!(
                f,
                "{file} is damaged or no database: {cause}; restore a backup, or move it away \
                 together with the files beside it that begin with its name, to start empty"
            ),
            SqliteOpenError::Failed { cause, .. } => {
                write!(f, "cannot open {file}: {cause}; put that right and start again")
            }
        }
    }
}

impl Error for SqliteOpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SqliteOpenError::Unwritable { cause, .. }
            | SqliteOpenError::Full { cause, .. }
            | SqliteOpenError::NotLocal { cause, .. }
            | SqliteOpenError::Damaged { cause, .. }
            | SqliteOpenError::Failed { cause, .. } => Some(&**cause),
            SqliteOpenError::InUse { .. }
            | SqliteOpenError::Link { .. }
            | SqliteOpenError::ForeignLog { .. }
            | SqliteOpenError::Rescued { .. }
            | SqliteOpenError::OrphanedLog { .. }
            | SqliteOpenError::NotOurs { .. }
            | SqliteOpenError::Newer { .. } => None,
        }
    }
}
