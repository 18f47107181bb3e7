//! Files that return deleted space to the disk.
//!
//! A file can do that only if it was created so. One that an earlier version created has to be
//! rebuilt once (`VACUUM`), for which SQLite needs room for twice its size, and time in proportion.
//! A small file is rebuilt when it is opened; for a large one the operator chooses the time:
//! `server compact`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::BUSY_TIMEOUT;
use super::open::{self, STORE};
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

/// Makes a file return space, if it does not yet and that is quick. `db` has the setting for new
/// files. A file that stays as it is does no harm.
pub(super) fn enable_if_cheap(db: &Connection, file: &Path) {
    let mode = db.query_row("PRAGMA auto_vacuum", [], |row| row.get::<_, i64>(0));
    if mode.unwrap_or(1) != 0 {
        return;
    }
    let size = fs::metadata(file).map_or(u64::MAX, |found| found.len());
    let room = rustix::fs::statvfs(file).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    if size > SMALL_BYTES || room / 4 < size {
        log::warn!(
            "{} was made by an earlier version and never becomes shorter, whatever is deleted; to change that, stop the server \
             and run: server compact {0}",
            file.display()
        );
        return;
    }
    match db.execute_batch("VACUUM") {
        Ok(()) => log::info!("{} gives the disk back from now on what is deleted", file.display()),
        Err(error) => log::warn!("{} does not become shorter, whatever is deleted: {error}", file.display()),
    }
}

/// Rebuilt in a fraction of a second.
const SMALL_BYTES: u64 = 32 << 20;
