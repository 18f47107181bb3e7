//! The writer: one thread that owns the only connection that changes the database.
//!
//! Callers queue an operation and wait. The thread takes all queued operations, runs them in one
//! transaction, commits once and only then answers: many callers share the cost of one sync (group
//! commit), and the busier the server, the more.
//!
//! ```text
//! callers ──▶ queue ──▶ BEGIN │ op │ op │ op │ COMMIT ──▶ an answer to each
//! ```
//!
//! If an operation fails, the transaction is rolled back and the batch runs again without it. That
//! is slower than a savepoint around each, but operations are not expected to fail (a taken name is
//! an outcome, not a failure), and a savepoint would copy every page that changes. If the database
//! itself has a problem (busy, full, a failing commit), the whole batch is rolled back, all its
//! callers get [`StoreError::Unavailable`], and the next batch starts afresh.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rusqlite::{Connection, Statement};

use super::condition::Condition;
use super::copier::LogTender;
use super::failure::is_environmental;
use super::open::touch_page_one;
use super::rescue;
use crate::store::StoreError;

mod answer;

use answer::{AnswerPlace, answer_place};

/// The queue of the writer thread. Dropping it lets the thread finish the queue, and waits for
/// that.
pub(super) struct Writer {
    /// `None` only while dropping.
    queue: Option<Arc<Sender<WriterJob>>>,
    /// The number of operations that are queued or running and that [`Writer::settle`] waits for.
    unsettled: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread called `name`, which closes `connection`, the one to `file`, when it ends.
    pub(super) fn start(
        name: &str,
        (connection, log): (Connection, LogTender),
        file: PathBuf,
        condition: Arc<Condition>,
    ) -> io::Result<Writer> {
        let (queue, jobs) = bounded(BATCH_MAX);
        let unsettled = Arc::new(AtomicUsize::new(0));
        let count = unsettled.clone();
        let run = move || pool::vital(|| serve(connection, &log, &file, &condition, (&jobs, &count)));
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Writer { queue: Some(Arc::new(queue)), unsettled, thread: Some(thread) })
    }

    /// Runs `operation` on the writer thread and returns once its changes are durable. It may use
    /// several statements, which take effect together or not at all. It may run more than once,
    /// after an earlier run was rolled back.
    pub(super) fn write<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.call(operation, Settling::AwaitedAnswer)
    }

    /// The same for an operation that [`Writer::settle`] need not wait for.
    pub(super) fn write_apart<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.call(operation, Settling::Apart)
    }

    fn call<T, F>(&self, operation: F, settling: Settling) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = answer_place();
        if settling == Settling::AwaitedAnswer {
            self.unsettled.fetch_add(1, AcqRel);
        }
        self.submit(WriterJob::Write(Box::new(WriterCall { operation, outcome: None, reply, settling })))?;
        answer.wait().ok_or_else(stopped)?
    }

    /// Returns when everything queued before this call has been committed or has failed, except
    /// what is written apart.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        // Usually nothing is queued, and the thread can stay asleep.
        if self.unsettled.load(Acquire) == 0 {
            return Ok(());
        }
        let (reply, answer) = bounded(1);
        self.submit(WriterJob::Settle(reply))?;
        answer.recv().map_err(|_| stopped())
    }

    /// Queues these statements like a caller's, without waiting. The [`Condition`] is notified of
    /// the result; if the queue is full, of the result of the queued operations.
    pub(super) fn probe(&self, statements: &'static str) {
        let _ = self.queue().try_send(WriterJob::Write(Box::new(ProbeWrite(statements))));
    }

    /// Makes the thread check the [`Condition`] immediately. Does not prevent the writer from being
    /// dropped.
    pub(super) fn nudger(&self) -> impl Fn() + Send + use<> {
        let queue = Arc::downgrade(self.queue());
        move || {
            let (reply, _) = bounded(1);
            // If the queue is full, the thread has work, and checks after each batch.
            let _ = queue.upgrade().map(|queue| queue.try_send(WriterJob::Settle(reply)));
        }
    }

    fn submit(&self, job: WriterJob) -> Result<(), StoreError> {
        self.queue().send(job).map_err(|_| stopped())
    }

    fn queue(&self) -> &Arc<Sender<WriterJob>> {
        self.queue.as_ref().expect("the queue stays open until the writer is dropped")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // The thread's panic was reported when it happened; nothing is left to do here.
            let _ = thread.join();
        }
    }
}

/// The most operations in one transaction, and in the queue; further callers wait for room. They
/// wait for their answers anyway, so the number of callers is the real bound.
const BATCH_MAX: usize = 256;

enum WriterJob {
    Write(Box<dyn Operation>),
    /// Answered after the batch with which it was taken, whatever the result. Alone it costs no
    /// transaction.
    Settle(Sender<()>),
}

/// One caller's change, from the queue to the answer.
trait Operation: Send {
    /// Runs the statements and stores the outcome.
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()>;

    /// Answers the caller with the outcome of the last run, whose changes are durable now.
    fn succeed(self: Box<Self>);

    /// Answers the caller that nothing was changed.
    fn fail(self: Box<Self>, error: StoreError);

    /// Whether the operation counts as unsettled.
    fn is_awaited(&self) -> bool {
        false
    }
}

struct WriterCall<T, F> {
    operation: F,
    outcome: Option<T>,
    reply: AnswerPlace<Result<T, StoreError>>,
    settling: Settling,
}

/// Whether [`Writer::settle`] waits for an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Settling {
    AwaitedAnswer,
    /// The operation changes nothing that a caller of it reads.
    Apart,
}

impl<T, F> Operation for WriterCall<T, F>
where
    T: Send,
    F: Fn(&Connection) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        self.outcome = Some((self.operation)(db)?);
        Ok(())
    }

    fn succeed(self: Box<Self>) {
        let outcome = self.outcome.expect("a batch is committed only after all of it ran");
        self.reply.put(Ok(outcome));
    }

    fn fail(self: Box<Self>, error: StoreError) {
        self.reply.put(Err(error));
    }

    fn is_awaited(&self) -> bool {
        self.settling == Settling::AwaitedAnswer
    }
}

/// Writes page 1, so that a log shows which database it belongs to (`wal.rs`).
struct Touch;

impl Operation for Touch {
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        touch_page_one(db)
    }

    fn succeed(self: Box<Self>) {}

    fn fail(self: Box<Self>, _: StoreError) {}
}

/// Statements for which no caller waits.
struct ProbeWrite(&'static str);

impl Operation for ProbeWrite {
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        db.execute_batch(self.0)
    }

    fn succeed(self: Box<Self>) {}

    fn fail(self: Box<Self>, _: StoreError) {}
}

/// The number of batches between two [`Touch`]es. A touch adds a page to the log.
const TOUCH_EVERY: u32 = 64;

/// The thread: batch after batch until no caller is left.
fn serve(
    connection: Connection,
    log: &LogTender,
    file: &Path,
    condition: &Condition,
    (jobs, unsettled): (&Receiver<WriterJob>, &AtomicUsize),
) {
    let mut transactions = Transactions::on(&connection);
    let (mut batches, mut is_saved, mut is_stale): (u32, bool, bool) = (0, false, false);
    let mut look_after = Some(IDLE_AFTER);
    loop {
        let first = match look_after {
            Some(after) => jobs.recv_timeout(after),
            None => jobs.recv().map_err(Into::into),
        };
        let first = match first {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                look_after = if condition.is_lost() { None } else { shrink(&connection) };
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        look_after = Some(IDLE_AFTER);
        let (mut operations, waiting) = batch(first, jobs);
        let callers = operations.iter().filter(|operation| operation.is_awaited()).count();
        if !operations.is_empty() {
            if batches.is_multiple_of(TOUCH_EVERY) {
                operations.push(Box::new(Touch));
            }
            batches = batches.wrapping_add(1);
        }
        let is_idle = operations.is_empty();
        run_batch(&mut transactions, operations, condition);
        unsettled.fetch_sub(callers, AcqRel);
        log.tend(&connection);
        for reply in waiting {
            let _ = reply.send(());
        }
        if condition.is_lost() && !is_saved {
            // Done immediately, because the remaining time is unknown; and again at the end, with
            // the messages returned until then.
            rescue::save(&connection, file);
            is_saved = true;
        } else if is_saved {
            is_stale |= !is_idle;
        }
    }
    if condition.is_lost() && (!is_saved || is_stale) {
        rescue::save(&connection, file);
    }
    // Leaves one complete file behind. If another program is reading it, the log stays, and the
    // next start applies it.
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
}

/// The first job and the jobs queued after it: operations, and callers that wait for them.
fn batch(first: WriterJob, jobs: &Receiver<WriterJob>) -> (Vec<Box<dyn Operation>>, Vec<Sender<()>>) {
    let (mut operations, mut waiting) = (Vec::new(), Vec::new());
    for job in std::iter::once(first).chain(jobs.try_iter()).take(BATCH_MAX) {
        match job {
            WriterJob::Write(operation) => operations.push(operation),
            WriterJob::Settle(reply) => waiting.push(reply),
        }
    }
    (operations, waiting)
}

/// Returns some of the deleted space to the disk. If there is more, returns the pause before the
/// next step. A failure is not reported, because it does no harm: another program may hold a lock
/// just now, and there will be another attempt.
fn shrink(db: &Connection) -> Option<Duration> {
    let free = || db.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get::<_, i64>(0));
    // Each returned row means one page less.
    let step = || -> rusqlite::Result<()> {
        let mut statement = db.prepare(&format!("PRAGMA incremental_vacuum({PAGES_A_STEP})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    };
    let attempt = || -> rusqlite::Result<Option<Duration>> {
        let before = free()?;
        if before <= FREE_PAGES_MAX {
            return Ok(None);
        }
        step()?;
        let after = free()?;
        if after <= FREE_PAGES_MAX {
            // Only a checkpoint shortens the file.
            db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        }
        // A file created by an earlier version does not shrink.
        Ok((after < before && after > FREE_PAGES_MAX).then_some(PAUSE))
    };
    attempt().unwrap_or(Some(IDLE_AFTER))
}

/// How long the writer must be idle before the file is shortened, and the pause between two steps.
const IDLE_AFTER: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);
/// The pages of one step: 2 MB, a few milliseconds.
const PAGES_A_STEP: u32 = 512;
/// The free pages that stay for later writes: 4 MB.
const FREE_PAGES_MAX: i64 = 1024;

/// Commits the batch, without those of its operations that fail, and answers all callers.
fn run_batch(transactions: &mut Transactions<'_>, mut batch: Vec<Box<dyn Operation>>, condition: &Condition) {
    while !batch.is_empty() {
        match transactions.commit(&mut batch) {
            Ok(()) => {
                condition.wrote();
                return batch.into_iter().for_each(|call| call.succeed());
            }
            Err(BatchTrouble::Operation(index, error)) => {
                condition.examine(&error);
                batch.remove(index).fail(StoreError::Failed(Box::new(error)));
            }
            Err(BatchTrouble::Database(error)) => {
                condition.examine(&error);
                condition.failed(&error);
                let cause = Arc::new(error);
                return batch
                    .into_iter()
                    .for_each(|call| call.fail(StoreError::Unavailable(Box::new(Arc::clone(&cause)))));
            }
        }
    }
}

/// The reason why a batch was not committed.
enum BatchTrouble {
    /// The operation at this index of the batch failed; the others may run without it.
    Operation(usize, rusqlite::Error),
    /// The database failed, and not an operation.
    Database(rusqlite::Error),
}

/// Runs batches in transactions.
struct Transactions<'c> {
    connection: &'c Connection,
    begin: Reused<'c>,
    commit: Reused<'c>,
}

impl<'c> Transactions<'c> {
    fn on(connection: &'c Connection) -> Transactions<'c> {
        // Takes the write lock immediately: a transaction that began with a read could not wait for
        // it.
        let begin = Reused { text: "BEGIN IMMEDIATE", prepared: None };
        Transactions { connection, begin, commit: Reused { text: "COMMIT", prepared: None } }
    }

    /// Runs the batch in one transaction. On an error all of it is rolled back.
    fn commit(&mut self, batch: &mut [Box<dyn Operation>]) -> Result<(), BatchTrouble> {
        let Transactions { connection, begin, commit } = self;
        begin.run(connection).map_err(BatchTrouble::Database)?;
        let done = run_all(connection, batch).and_then(|()| commit.run(connection).map_err(BatchTrouble::Database));
        // After some errors, the database has rolled back already.
        if done.is_err() && !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
        done
    }
}

/// A statement that is prepared once. Parsing it costs as much as storing a short message, and
/// looking it up among the cached ones a hundredth of that.
struct Reused<'c> {
    text: &'static str,
    prepared: Option<Statement<'c>>,
}

impl<'c> Reused<'c> {
    fn run(&mut self, db: &'c Connection) -> rusqlite::Result<()> {
        let statement = match &mut self.prepared {
            Some(statement) => statement,
            unprepared => unprepared.insert(db.prepare(self.text)?),
        };
        statement.raw_execute().map(drop)
    }
}

fn run_all(connection: &Connection, batch: &mut [Box<dyn Operation>]) -> Result<(), BatchTrouble> {
    for (index, operation) in batch.iter_mut().enumerate() {
        operation.run(connection).map_err(|error| {
            if is_environmental(&error) { BatchTrouble::Database(error) } else { BatchTrouble::Operation(index, error) }
        })?;
    }
    Ok(())
}

fn stopped() -> StoreError {
    StoreError::Failed("the store's writer thread has stopped".into())
}

#[cfg(test)]
mod tests;
