//! The embedded store: one SQLite file, `raybox.db`, that belongs to one server at a time.
//!
//! Changes go to one writer thread, which commits everything that is queued in one transaction
//! (`writer.rs`). Queries use connections of their own and never wait for the disk's writes
//! (`readers.rs`). `open.rs` decides whether a file is ours and valid.
//!
//! A write is in the write-ahead log and synced before its call returns, so a killed process or a
//! power cut loses nothing that was acknowledged.

mod accounts;
mod backup;
mod condition;
mod contacts;
mod conversations;
mod copier;
mod failure;
mod guard;
mod hook_queue;
mod ids;
mod late;
mod live;
mod messages;
mod open;
mod paths;
mod readers;
mod refusal;
mod rescue;
mod rows;
mod shrinking;
mod society;
mod source;
mod space;
mod spool;
mod states;
#[cfg(test)]
mod tests;
mod wal;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use self::backup::{BackupContent, BackupError, back_up, restore};
use self::condition::Condition;
use self::late::Late;
use self::open::BUSY_TIMEOUT;
pub use self::refusal::SqliteOpenError;
pub use self::shrinking::{Compacted, compact};
pub use self::source::CopySource;
pub use self::spool::SpoolFile;
use super::community::Community;
use super::history::History;
use super::hooks::HookQueue;
use super::{Database, StoreCallback, StoreError};

/// All roles of a [`Store`](super::Store) in a SQLite file. Dropping it finishes the queue and
/// leaves a single file without a log.
pub struct SqliteStore {
    file: PathBuf,
    /// Whether there was no such file before.
    is_new: bool,
    condition: Arc<Condition>,
    live: Late,
}

/// Inspects the database in this folder without changing it. Returns its size in bytes, `None` if
/// there is none.
///
/// # Errors
///
/// It is in use, cannot be read, or has a log beside it that a start would refuse.
pub fn look(data_dir: &Path) -> Result<Option<u64>, SqliteOpenError> {
    let file = data_dir.join(open::STORE.name);
    let rescued = rescue::place(&file);
    if rescued.exists() {
        return Err(SqliteOpenError::Rescued { file, rescued });
    }
    let found = guard::look(&file)?;
    open::check_log(&file)?;
    Ok(found)
}

impl SqliteStore {
    /// Opens `raybox.db` in the folder `data_dir`, creating and migrating what is missing, and
    /// marks every user offline. On a full disk it only reads existing data, and does the rest when
    /// there is room.
    ///
    /// # Errors
    ///
    /// A problem that the operator has to fix; see [`SqliteOpenError`]. A refused file is not
    /// changed.
    pub fn open(data_dir: &Path) -> Result<SqliteStore, SqliteOpenError> {
        SqliteStore::open_with(data_dir, BUSY_TIMEOUT)
    }

    /// Opens `raybox.db` in the folder `data_dir` for reading only, while no server uses it.
    /// Neither the database nor its log is changed.
    ///
    /// # Errors
    ///
    /// As for [`SqliteStore::open`], but a missing file is not created, and one of an earlier
    /// version is not upgraded.
    pub fn open_to_read(data_dir: &Path) -> Result<SqliteStore, SqliteOpenError> {
        look(data_dir)?;
        let file = data_dir.join(open::STORE.name);
        let condition = Arc::new(Condition::new(file.display().to_string()));
        let live = Late::open_to_read(data_dir, BUSY_TIMEOUT, condition.clone())?;
        Ok(SqliteStore { file, is_new: false, condition, live })
    }

    /// Like [`SqliteStore::open`], but waits no longer than `busy_timeout` for another program that
    /// holds the file.
    fn open_with(data_dir: &Path, busy_timeout: Duration) -> Result<SqliteStore, SqliteOpenError> {
        let file = data_dir.join(open::STORE.name);
        let is_new = !file.exists();
        let condition = Arc::new(Condition::new(file.display().to_string()));
        let live = Late::open(data_dir, busy_timeout, condition.clone())?;
        Ok(SqliteStore { file, is_new, condition, live })
    }
}

impl Database for SqliteStore {
    fn describe(&self) -> String {
        // An operator who has named the wrong folder should notice at once.
        let new = if self.is_new { " (new, empty)" } else { "" };
        format!("SQLite {}{new}", self.file.display())
    }

    fn history(self: Arc<Self>) -> Option<Arc<dyn History>> {
        Some(self)
    }

    fn community(self: Arc<Self>) -> Option<Arc<dyn Community>> {
        Some(self)
    }

    fn hooks(self: Arc<Self>) -> Option<Arc<dyn HookQueue>> {
        Some(self)
    }

    fn check(&self) -> Result<(), StoreError> {
        self.live.check()
    }

    fn is_lost(&self) -> bool {
        self.condition.is_lost()
    }

    fn on_lost(&self, stop: StoreCallback) {
        self.condition.on_lost(stop);
    }

    fn on_trouble(&self, look: StoreCallback) {
        self.condition.on_trouble(look);
    }
}
