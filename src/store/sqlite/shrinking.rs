//! Rebuilds a file at the time that the operator chooses: `server compact`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::open::{self, BUSY_TIMEOUT, STORE};
use super::refusal::{SqliteOpenError, refused};

/// The sizes of a file, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compacted {
    /// Its size before.
    pub before: u64,
    /// Its size now.
    pub after: u64,
}

/// Rebuilds the store's file without deleted data, so that it returns space from now on. `path` is
/// the file or its folder; no server may use it.
///
/// # Errors
///
/// As for [`SqliteStore::open`](super::SqliteStore::open), but a missing file is not created.
pub fn compact(path: &Path) -> Result<(PathBuf, Compacted), SqliteOpenError> {
    let file = if path.is_dir() { path.join(STORE.name) } else { path.to_owned() };
    let failed = |cause: io::Error| SqliteOpenError::Failed { file: file.clone(), cause: Box::new(cause) };
    let before = fs::metadata(&file).map_err(failed)?.len();
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if file.file_name().is_none_or(|name| name != STORE.name) {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, format!("its name is not {}", STORE.name))));
    }
    // This error names the holder of the locks.
    let opened = open::open(folder, &STORE, BUSY_TIMEOUT)?;
    make_anew(&opened.connection).map_err(|error| refused(&file, error))?;
    let after = fs::metadata(&file).map_err(failed)?.len();
    Ok((file.clone(), Compacted { before, after }))
}

fn make_anew(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "auto_vacuum", STORE.auto_vacuum)?;
    db.execute_batch("VACUUM")?;
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}
