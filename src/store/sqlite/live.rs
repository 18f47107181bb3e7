//! [`Live`]: an open database file: its writer, its readers, its locks, and the thread that watches
//! them.
//!
//! # A file that is removed
//!
//! Unix lets any process move, replace or delete a file that a server has open. The server would
//! then write to a file without a name. So once a second, and whenever a reader is opened, the
//! names are compared with the open files. If one differs, nothing more is accepted, the writer
//! copies all data of the database into a new file beside it, `raybox.db.rescued`, and the server
//! stops. No server starts while that file exists: a person must decide which of the two files is
//! valid.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, TryRecvError, bounded};
use rusqlite::Connection;

use super::condition::Condition;
use super::copier::{self, LogCopier};
use super::guard::DatabaseLocks;
use super::open::{self, FileKind};
use super::readers::Readers;
use super::refusal::SqliteOpenError;
use super::writer::Writer;
use crate::store::StoreError;

/// See the [module](self). Dropping it finishes the queue and leaves a single file without a log.
pub(super) struct Live {
    pub(super) condition: Arc<Condition>,
    kind: &'static FileKind,
    // Dropped in this order: the writer's connection closes last, which empties the log. Only then
    // may another server use the file.
    watch: FileWatch,
    readers: Readers,
    copier: LogCopier,
    pub(super) writer: Writer,
    guard: Arc<DatabaseLocks>,
}

impl Live {
    /// Opens the database of this kind in the folder `data_dir`, after passing it to `look`.
    pub(super) fn open<T>(
        data_dir: &Path,
        kind: &'static FileKind,
        busy_timeout: Duration,
        condition: Arc<Condition>,
        look: impl FnOnce(&Connection) -> Result<T, SqliteOpenError>,
    ) -> Result<(Live, T), SqliteOpenError> {
        let open::OpenedFile { file, mut connection, guard } = open::open(data_dir, kind, busy_timeout)?;
        let failed = |cause: io::Error| SqliteOpenError::Failed { file: file.clone(), cause: Box::new(cause) };
        let seen = match look(&connection) {
            Ok(seen) => seen,
            Err(error) => {
                // Dropped before the guard: closing the guard's file would release the locks under
                // which a connection must close.
                drop(connection);
                return Err(error);
            }
        };
        let guard = Arc::new(guard);
        let copier = copier::start(kind.log, &file, &mut connection, open::connect_copier);
        let (copier, tender) = copier.map_err(failed)?;
        let writer =
            Writer::start(kind.writer, (connection, tender), file.clone(), condition.clone()).map_err(failed)?;
        let readers = Readers::new(file.clone(), busy_timeout, condition.clone(), guard.clone());
        let watch = FileWatch::start(kind.watch, guard.clone(), condition.clone(), &writer).map_err(failed)?;
        Ok((Live { condition, kind, watch, readers, copier, writer, guard }, seen))
    }

    /// Closes everything, and returns the locks, which are held until they are dropped.
    pub(super) fn close(self) -> Arc<DatabaseLocks> {
        drop(self.watch);
        drop(self.readers);
        drop(self.copier);
        drop(self.writer);
        self.guard
    }

    /// Like [`Writer::write`].
    pub(super) fn write<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.writer.write(operation)
    }

    /// Like [`Live::write`], for a change that a client requests: it is refused once the file was
    /// removed.
    pub(super) fn change<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.condition.refuse_if_lost()?;
        self.writer.write(operation)
    }

    /// Like [`Live::change`], for a change of accounts or devices: reads of mailboxes, which
    /// [`Live::settle`] precedes, do not depend on it.
    pub(super) fn change_apart<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.condition.refuse_if_lost()?;
        self.writer.write_apart(operation)
    }

    /// Like [`Live::write`], and apart like [`Live::change_apart`].
    pub(super) fn write_apart<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.writer.write_apart(operation)
    }

    /// Like [`Readers::read`].
    pub(super) fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        self.readers.read(query)
    }

    /// Like [`Writer::settle`].
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        self.writer.settle()
    }

    /// Whether changes reach the disk, judged by the writes of the last second, or by inserting and
    /// deleting a row.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], within [`PROBE_PATIENCE`].
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.condition.check(PROBE_PATIENCE, || self.writer.probe(self.kind.probe))
    }
}

/// The thread that compares names with files.
struct FileWatch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FileWatch {
    fn start(
        name: &str,
        guard: Arc<DatabaseLocks>,
        condition: Arc<Condition>,
        writer: &Writer,
    ) -> io::Result<FileWatch> {
        let (stop, stopped) = bounded::<()>(0);
        let nudge = writer.nudger();
        let run = move || {
            // Nothing is ever sent: the other end exists or was dropped.
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                let loss = guard.loss();
                // The check may have taken long, and the files may have been closed and deleted
                // since.
                if stopped.try_recv() == Err(TryRecvError::Disconnected) {
                    return;
                }
                if let Some(how) = loss {
                    condition.lose(&how);
                    nudge();
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(FileWatch { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A frozen disk may block it.
            pool::join_until(thread, Instant::now() + LOOK_EVERY);
        }
    }
}

/// How long a disk may take for a probe.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_secs(1);
