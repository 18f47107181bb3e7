//! Files that return deleted space to the disk.
//!
//! Only a file that was created for it can do so. A file of an earlier version has to be rebuilt
//! once (`VACUUM`): SQLite needs room for twice its size, and time in proportion. A small file is
//! rebuilt when it is opened; for a large one the operator chooses the time (`shrinking.rs`).

use std::fs;
use std::path::Path;

use rusqlite::Connection;

/// Makes a file return space, if it does not yet and the rebuild is quick. `db` has the setting for
/// new files. An unchanged file does no harm.
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
        Ok(()) => log::info!("{} returns deleted space to the disk from now on", file.display()),
        Err(error) => log::warn!("{} cannot return the space of deleted rows to the disk: {error}", file.display()),
    }
}

/// The size up to which a file is rebuilt in a fraction of a second.
const SMALL_BYTES: u64 = 32 << 20;
