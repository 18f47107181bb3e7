//! [`OpenError`]: why a database is not opened, in a line that says what to do.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};

/// What an error of SQLite means at the start.
pub(super) fn refused(file: &Path, error: rusqlite::Error) -> OpenError {
    let file = file.to_owned();
    let (code, extended) = (error.sqlite_error_code(), error.sqlite_error().map(|cause| cause.extended_code));
    let is_other_mode = matches!(error, rusqlite::Error::InvalidQuery);
    let cause = Box::new(error);
    // The log's index is memory that processes share through a file.
    if is_other_mode || matches!(extended, Some(ffi::SQLITE_IOERR_SHMMAP | ffi::SQLITE_IOERR_SHMLOCK)) {
        return OpenError::NotLocal { file, cause };
    }
    match code {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Damaged { file, cause },
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            OpenError::Unwritable { path: file, cause }
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { file, pid: None },
        Some(ErrorCode::DiskFull) => OpenError::Full { file, cause },
        _ if extended == Some(ffi::SQLITE_IOERR_SHMSIZE) => OpenError::Full { file, cause },
        _ => OpenError::Failed { file, cause },
    }
}

/// What an error of the system means at the start.
pub(super) fn refused_by_system(path: &Path, cause: io::Error) -> OpenError {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return OpenError::Link { path: path.to_owned() };
    }
    if cause.kind() == ErrorKind::StorageFull {
        return OpenError::Full { file: path.to_owned(), cause: Box::new(cause) };
    }
    OpenError::Unwritable { path: path.to_owned(), cause: Box::new(cause) }
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
    /// A symbolic link is in the place of a file of ours.
    Link {
        /// The link.
        path: PathBuf,
    },
    /// The disk has no room.
    Full {
        /// What needs some.
        file: PathBuf,
        /// What the system said.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The file system lacks what a database needs that several threads use.
    NotLocal {
        /// The database.
        file: PathBuf,
        /// What SQLite said.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The log beside the database is the one of another database.
    ForeignLog {
        /// The database.
        file: PathBuf,
    },
    /// A server has saved a database that was taken away from it, and nobody has said what counts.
    Rescued {
        /// The database.
        file: PathBuf,
        /// What was saved.
        rescued: PathBuf,
    },
    /// The database is gone, and its log is there.
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

impl OpenError {
    /// The disk takes nothing now, and what is in the database may be read nevertheless.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            OpenError::Full { .. } => true,
            // A quota or a limit of the size of files, where the disk itself has room.
            OpenError::Failed { cause, .. } => cause.downcast_ref::<rusqlite::Error>().is_some_and(|error| {
                error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_WRITE)
            }),
            _ => false,
        }
    }
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
            OpenError::Link { path } => write!(
                f,
                "{} is a symbolic link, which this server does not follow; put the file itself there, or choose the data \
                 folder that the link leads to",
                path.display()
            ),
            OpenError::Full { file, cause } => write!(
                f,
                "no space is left on the disk of {}: {cause}; make room on it and start again",
                file.display()
            ),
            OpenError::NotLocal { file, cause } => write!(
                f,
                "the file system of {} does not let processes share memory through a file: {cause}; use a local disk for \
                 the data folder",
                file.display()
            ),
            OpenError::ForeignLog { file } => write!(
                f,
                "{0}-wal holds the last changes of another state of {0}, which was probably restored from a backup; \
                 to use {0} as it is, delete {0}-wal and {0}-shm; \
                 to keep those changes, put the database back that they belong to",
                file.display()
            ),
            OpenError::Rescued { file, rescued } => write!(
                f,
                "{1} holds what the last server had stored when {0} was moved, replaced or deleted under it; move it to \
                 {0} and delete {0}-wal and {0}-shm, or, if it is not wanted, move it away",
                file.display(),
                rescued.display()
            ),
            OpenError::OrphanedLog { file } => write!(
                f,
                "{0} is missing or empty, and {0}-wal holds changes that belong to it; put the database back; \
                 or, to start without those changes, delete {0}-wal and {0}-shm",
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
            | OpenError::Full { cause, .. }
            | OpenError::NotLocal { cause, .. }
            | OpenError::Damaged { cause, .. }
            | OpenError::Failed { cause, .. } => Some(&**cause),
            OpenError::InUse { .. }
            | OpenError::Link { .. }
            | OpenError::ForeignLog { .. }
            | OpenError::Rescued { .. }
            | OpenError::OrphanedLog { .. }
            | OpenError::NotOurs { .. }
            | OpenError::Newer { .. } => None,
        }
    }
}
