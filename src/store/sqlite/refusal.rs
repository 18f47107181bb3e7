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

    /// What the error is about: the database, or what else of its folder is in the way.
    fn file(&self) -> &Path {
        match self {
            OpenError::Unwritable { path: file, .. }
            | OpenError::Link { path: file }
            | OpenError::InUse { file, .. }
            | OpenError::Full { file, .. }
            | OpenError::NotLocal { file, .. }
            | OpenError::ForeignLog { file }
            | OpenError::Rescued { file, .. }
            | OpenError::OrphanedLog { file }
            | OpenError::NotOurs { file }
            | OpenError::Newer { file, .. }
            | OpenError::Damaged { file, .. }
            | OpenError::Failed { file, .. } => file,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file().display();
        match self {
            OpenError::Unwritable { cause, .. } => write!(
                f,
                "cannot write {file}: {cause}; let this user write the file and its folder, or choose another data folder"
            ),
            OpenError::InUse { pid: Some(pid), .. } => write!(
                f,
                "{file} is in use by another server, process {pid}; stop that one, or choose another data folder"
            ),
            OpenError::InUse { pid: None, .. } => {
                write!(f, "{file} is in use by another program; close that one, or choose another data folder")
            }
            OpenError::Link { .. } => write!(
                f,
                "{file} is a symbolic link, which this server does not follow; put the file itself there, or choose the \
                 data folder that the link leads to"
            ),
            OpenError::Full { cause, .. } => {
                write!(f, "no space is left on the disk of {file}: {cause}; make room on it and start again")
            }
            OpenError::NotLocal { cause, .. } => write!(
                f,
                "the file system of {file} does not let processes share memory through a file: {cause}; use a local disk \
                 for the data folder"
            ),
            OpenError::ForeignLog { .. } => write!(
                f,
                "{file}-wal holds the last changes of another state of {file}, which was probably restored from a backup; \
                 to use {file} as it is, delete {file}-wal and {file}-shm; \
                 to keep those changes, put the database back that they belong to"
            ),
            OpenError::Rescued { rescued, .. } => write!(
                f,
                "{} holds what the last server had stored when {file} was moved, replaced or deleted under it; move it to \
                 {file} and delete {file}-wal and {file}-shm, or, if it is not wanted, move it away",
                rescued.display()
            ),
            OpenError::OrphanedLog { .. } => write!(
                f,
                "{file} is missing or empty, and {file}-wal holds changes that belong to it; put the database back; \
                 or, to start without those changes, delete {file}-wal and {file}-shm"
            ),
            OpenError::NotOurs { .. } => {
                write!(f, "{file} is a database of another program; move it away, or choose another data folder")
            }
            OpenError::Newer { version, known, .. } => write!(
                f,
                "{file} was written by a later version of this server (schema {version}, this one knows {known}); \
                 run that version, or restore an older backup"
            ),
            OpenError::Damaged { cause, .. } => write!(
                f,
                "{file} is damaged or no database: {cause}; restore a backup, or move it away \
                 together with the files beside it that begin with its name, to start empty"
            ),
            OpenError::Failed { cause, .. } => write!(f, "cannot open {file}: {cause}; put that right and start again"),
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
