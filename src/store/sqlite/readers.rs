//! The connections for queries, so that no query waits for the writer's syncs.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, OpenFlags};

use super::condition::Condition;
use super::failure::store_error;
use super::guard::DatabaseLocks;
use super::open::keep_statements;
use super::paths;
use crate::store::StoreError;

/// Read-only connections, one for each running query. A query sees everything committed before it
/// began.
///
/// Some are opened at the start, because later the clients may have used up all descriptors of the
/// process. Then a query waits for another one's connection.
pub(super) struct Readers {
    file: PathBuf,
    busy_timeout: Duration,
    condition: Arc<Condition>,
    guard: Arc<DatabaseLocks>,
    /// A leaf lock, held to take or put back one connection.
    pool: Mutex<Pool>,
    put_back: Condvar,
}

#[derive(Default)]
struct Pool {
    /// Idle connections.
    idle: Vec<Connection>,
    /// The number of connections.
    open: usize,
}

impl Readers {
    pub(super) fn new(
        file: PathBuf,
        busy_timeout: Duration,
        condition: Arc<Condition>,
        guard: Arc<DatabaseLocks>,
    ) -> Readers {
        let (pool, put_back) = (Mutex::default(), Condvar::new());
        let readers = Readers { file, busy_timeout, condition, guard, pool, put_back };
        // A connection that cannot be opened now may be opened later.
        let ready: Vec<Connection> = (0..READY).map_while(|_| readers.connect().ok()).collect();
        *readers.pool.lock() = Pool { open: ready.len(), idle: ready };
        readers
    }

    /// Runs `query` on a connection of its own. Waits for another query only if no connection can
    /// be opened: the number of connections is bounded by the calling threads.
    pub(super) fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let connection = Lease { readers: self, connection: Some(self.take()?) };
        query(&connection).map_err(|error| {
            self.condition.examine(&error);
            store_error(error)
        })
    }

    fn take(&self) -> Result<Connection, StoreError> {
        if let Some(idle) = self.pool.lock().idle.pop() {
            return Ok(idle);
        }
        let error = match self.connect() {
            Ok(connection) => {
                self.pool.lock().open += 1;
                return Ok(connection);
            }
            Err(error) => error,
        };
        let until = Instant::now() + self.busy_timeout;
        let mut pool = self.pool.lock();
        while pool.open > 0 && !self.condition.is_lost() {
            if let Some(idle) = pool.idle.pop() {
                return Ok(idle);
            }
            if self.put_back.wait_until(&mut pool, until).timed_out() {
                break;
            }
        }
        Err(error)
    }

    fn put_back(&self, connection: Connection) {
        let mut pool = self.pool.lock();
        if pool.idle.len() < IDLE_MAX {
            pool.idle.push(connection);
            self.put_back.notify_one();
        } else {
            pool.open -= 1;
        }
    }

    fn connect(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(paths::sqlite_path(&self.file), flags);
        // The file with this name may now be another database.
        if let Some(how) = self.guard.loss() {
            self.condition.lose(&how);
        }
        self.condition.refuse_if_lost()?;
        let connection = opened.map_err(store_error)?;
        connection.busy_timeout(self.busy_timeout).map_err(store_error)?;
        keep_statements(&connection).map_err(store_error)?;
        // Opens the log, which needs another descriptor.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(store_error)?;
        Ok(connection)
    }
}

/// A connection in use, which is returned on a panic too.
struct Lease<'a> {
    readers: &'a Readers,
    /// The connection; `None` only while dropping.
    connection: Option<Connection>,
}

impl Deref for Lease<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.readers.put_back(connection);
        }
    }
}

/// The connections opened at the start.
pub(super) const READY: usize = 4;

/// The idle connections that stay open. Each has a page cache of up to 2 MB.
const IDLE_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::super::SqliteStore;
    use super::super::tests::Dir;

    #[test]
    fn a_statement_is_not_prepared_again_for_other_values() {
        let dir = Dir::new();
        let store = SqliteStore::open(&dir.0).unwrap();
        let again = store.live.read(|db| {
            let mut query = db.prepare(
                "SELECT seq FROM Message WHERE conv = ?1 AND seq BETWEEN ?2 AND ?3 AND seq > coalesce(
                     (SELECT floor FROM Conversation WHERE id = ?1), 0) ORDER BY seq",
            )?;
            for conv in 0..10 {
                query.exists([conv, conv, conv + 5])?;
            }
            Ok(query.get_status(StatementStatus::RePrepare))
        });
        assert_eq!(again.unwrap(), 0);
    }
}
