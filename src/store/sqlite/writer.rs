//! [`Writer`]: the one thread that writes, and its group commit.
//!
//! ```text
//!   callers ─▶ │ op op op op │ ─▶ BEGIN, op, op, op, op, COMMIT ─▶ every caller hears its result
//! ```
//! A commit waits for the disk, however much it holds. So whatever waits is written as one transaction, and nobody hears
//! of success before that is on the disk.

use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use rusqlite::Connection;

use super::store_error;
use crate::store::StoreError;

/// Hands operations to the writing thread.
#[derive(Debug)]
pub(super) struct Writer {
    operations: Option<Sender<Box<dyn Operation>>>,
    thread: Option<JoinHandle<()>>,
}

/// One caller's part of a transaction.
trait Operation: Send {
    /// Does it, inside the transaction.
    fn run(&mut self, db: &Connection);

    /// Tells the caller: its result if the transaction was committed, else why not.
    fn finish(self: Box<Self>, committed: Result<(), &str>);
}

struct Call<T, F> {
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    answer: Sender<Result<T, StoreError>>,
}

impl Writer {
    /// Starts the thread, named `store-writer`.
    pub(super) fn start(db: Connection) -> io::Result<Writer> {
        let (operations, queue) = bounded(QUEUE_MAX);
        let thread = thread::Builder::new().name("store-writer".into()).spawn(move || run(db, &queue))?;
        Ok(Writer { operations: Some(operations), thread: Some(thread) })
    }

    /// Has `work` done and committed, together with what others want written. All it writes, or nothing.
    pub(super) fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, result) = bounded(1);
        let work = move |db: &Connection| all_or_nothing(db, work).map_err(store_error);
        let call = Call { work: Some(work), result: None, answer };
        let gone = || StoreError::Unavailable("the writing thread has ended".into());
        let operations = self.operations.as_ref().ok_or_else(gone)?;
        operations.send(Box::new(call)).map_err(|_| gone())?;
        result.recv().map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.operations = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the writing thread has panicked");
        }
    }
}

impl<T: Send, F: FnOnce(&Connection) -> Result<T, StoreError> + Send> Operation for Call<T, F> {
    fn run(&mut self, db: &Connection) {
        self.result = self.work.take().map(|work| work(db));
    }

    fn finish(self: Box<Self>, committed: Result<(), &str>) {
        let Call { result, answer, .. } = *self;
        let result = match (committed, result) {
            (Ok(()), Some(result)) | (Err(_), Some(result @ Err(_))) => result,
            (Err(cause), _) => Err(StoreError::Unavailable(cause.into())),
            (Ok(()), None) => Err(StoreError::Unavailable("it was not run".into())),
        };
        // A caller that no longer waits has ended with the server.
        let _ = answer.send(result);
    }
}

fn run(db: Connection, queue: &Receiver<Box<dyn Operation>>) {
    while let Ok(first) = queue.recv() {
        let mut batch: Vec<_> = std::iter::once(first).chain(queue.try_iter().take(BATCH_MAX - 1)).collect();
        let committed = transact(&db, &mut batch).map_err(|error| error.to_string());
        for operation in batch {
            operation.finish(match &committed {
                Ok(()) => Ok(()),
                Err(cause) => Err(cause),
            });
        }
    }
    if let Err(error) = db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        log::warn!("the write-ahead log stays beside the database: {error}");
    }
}

fn transact(db: &Connection, batch: &mut [Box<dyn Operation>]) -> rusqlite::Result<()> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    for operation in batch {
        operation.run(db);
        if db.is_autocommit() {
            // A full disk, for one, makes SQLite roll everything back by itself (sqlite.org/lang_transaction.html).
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL),
                Some("the transaction was rolled back, the disk may be full".into()),
            ));
        }
    }
    db.execute_batch("COMMIT").inspect_err(|_| {
        if let Err(error) = db.execute_batch("ROLLBACK") {
            log::debug!("nothing to roll back: {error}");
        }
    })
}

/// An operation that fails half-way leaves nothing behind, and the others of its transaction alone.
fn all_or_nothing<T>(db: &Connection, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    db.prepare_cached("SAVEPOINT operation")?.execute([])?;
    let result = work(db);
    if result.is_err() && !db.is_autocommit() {
        db.prepare_cached("ROLLBACK TO operation")?.execute([])?;
    }
    if !db.is_autocommit() {
        db.prepare_cached("RELEASE operation")?.execute([])?;
    }
    result
}

/// Operations that may wait; callers block beyond that.
const QUEUE_MAX: usize = 4096;
/// Operations of one transaction.
const BATCH_MAX: usize = 1024;
