//! The connections that queries run on, so that none of them waits for the writer's syncs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};

use super::condition::Condition;
use super::guard::Guard;
use super::store_error;
use crate::store::StoreError;

/// Read-only connections, one per query under way. A query sees everything that was committed before it began.
pub(super) struct Readers {
    file: PathBuf,
    busy_timeout: Duration,
    condition: Arc<Condition>,
    guard: Arc<Guard>,
    /// A leaf lock, held to take or put back one connection: those that nobody uses.
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(file: PathBuf, busy_timeout: Duration, condition: Arc<Condition>, guard: Arc<Guard>) -> Readers {
        Readers { file, busy_timeout, condition, guard, idle: Mutex::default() }
    }

    /// Runs `query` on a connection of its own. Never waits for another query: the calling threads bound their number.
    pub(super) fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let idle = self.idle.lock().pop();
        let connection = idle.map_or_else(|| self.connect(), Ok)?;
        let found = query(&connection).map_err(|error| {
            self.condition.examine(&error);
            store_error(error)
        })?;
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        Ok(found)
    }

    fn connect(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(super::open::sqlite_path(&self.file), flags);
        // What has the name now may be another database.
        if let Some(how) = self.guard.loss() {
            self.condition.lose(&how);
        }
        self.condition.refuse_if_lost()?;
        let connection = opened.map_err(store_error)?;
        connection.busy_timeout(self.busy_timeout).map_err(store_error)?;
        Ok(connection)
    }
}

/// Connections kept for the next query. Each has a page cache of up to 2 MB.
const IDLE_MAX: usize = 8;
