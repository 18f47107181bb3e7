//! [`Late`]: a database that is opened once its disk has room.
//!
//! On a full disk no database can be opened for writing, but everything in it can be read. A server
//! that starts then reads through one connection with exclusive access: the index of the log is in
//! memory, where SQLite would otherwise create a file. It stores nothing, and a thread named
//! `store-open` tries again and again to open the database, [`Live`]. Reads wait during an attempt,
//! because the reading connection must be closed for it. So the thread first writes a small file
//! beside the database, and makes an attempt only if the disk accepts that. If the database still
//! cannot be opened, the pause before the next attempt doubles.

use std::error::Error as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use rusqlite::Connection;
use rustix::fs::OFlags;

use super::condition::Condition;
use super::failure::store_error;
use super::guard::DatabaseLocks;
use super::ids::Ids;
use super::live::Live;
use super::open::{self, STORE};
use super::refusal::SqliteOpenError;
use crate::store::StoreError;
use crate::store::outages::RepeatedTrouble;

/// See the [module](self). Dropping it closes the database properly.
pub(super) struct Late {
    shared: Arc<LateCore>,
    /// Present only if the database could not be opened immediately. Dropping the sender ends the
    /// thread.
    opener: Option<(Sender<()>, JoinHandle<()>)>,
}

struct LateCore {
    data_dir: PathBuf,
    busy_timeout: Duration,
    condition: Arc<Condition>,
    live: OnceLock<(Live, Arc<Ids>)>,
    /// Locked by reads that cannot use `live` yet, and during attempts to open it.
    waiting: Mutex<Unopened>,
}

/// A database that cannot be opened for writing yet.
#[derive(Default)]
struct Unopened {
    /// The readable database; `None` if it cannot even be read.
    frozen: Option<Frozen>,
    /// The device and inode of that file.
    inode: Option<(u64, u64)>,
    /// The reason why nothing can be written.
    why: String,
}

/// A database that is only read, by one connection with exclusive access.
struct Frozen {
    // Dropped in this order, like those of `Live`.
    db: Connection,
    _guard: DatabaseLocks,
}

impl Late {
    /// Opens the store in the folder `data_dir`, or only reads it for now if its disk accepts no
    /// writes.
    ///
    /// # Errors
    ///
    /// As for [`SqliteStore::open`](super::SqliteStore::open); a full disk is one only if nothing
    /// can be read either.
    pub(super) fn open(
        data_dir: &Path,
        busy_timeout: Duration,
        condition: Arc<Condition>,
    ) -> Result<Late, SqliteOpenError> {
        let (data_dir, live, waiting) = (data_dir.to_owned(), OnceLock::new(), Mutex::default());
        let shared = Arc::new(LateCore { data_dir, busy_timeout, condition, live, waiting });
        let Err(error) = shared.try_to_open() else { return Ok(Late { shared, opener: None }) };
        if !error.may_pass() || shared.waiting.lock().frozen.is_none() {
            return Err(error);
        }
        let why = shared.waiting.lock().why.clone();
        log::error!("{why}: stored data can be read, but nothing can be stored until the disk has room");
        let failed = |cause: io::Error| SqliteOpenError::Failed { file: shared.file(), cause: Box::new(cause) };
        let (stop, stopped) = bounded(0);
        let opener = shared.clone();
        let thread = thread::Builder::new().name("store-open".to_owned()).spawn(move || opener.run(&stopped));
        let thread = thread.map_err(failed)?;
        Ok(Late { shared, opener: Some((stop, thread)) })
    }

    /// Opens the store in the folder `data_dir` for reading only, while no server uses it. Its
    /// files stay as they are, and a killed server's log is read with the database.
    ///
    /// # Errors
    ///
    /// The database is in use, is missing or cannot be read, or its tables are of an earlier
    /// version.
    pub(super) fn open_to_read(
        data_dir: &Path,
        busy_timeout: Duration,
        condition: Arc<Condition>,
    ) -> Result<Late, SqliteOpenError> {
        let (db, guard) = open::open_to_read(&data_dir.join(STORE.name), busy_timeout, true)?;
        let why = "the database was opened for reading only".to_owned();
        let waiting = Mutex::new(Unopened { frozen: Some(Frozen { db, _guard: guard }), inode: None, why });
        let (data_dir, live) = (data_dir.to_owned(), OnceLock::new());
        Ok(Late { shared: Arc::new(LateCore { data_dir, busy_timeout, condition, live, waiting }), opener: None })
    }

    /// The database in use, with its ids.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] while it cannot be opened for writing.
    pub(super) fn live(&self) -> Result<&(Live, Arc<Ids>), StoreError> {
        self.shared.live.get().ok_or_else(|| self.shared.unavailable())
    }

    /// Like [`Live::write`].
    pub(super) fn write<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.live()?.0.write(operation)
    }

    /// Like [`Live::change`].
    pub(super) fn change<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.live()?.0.change(operation)
    }

    /// Like [`Live::change_apart`].
    pub(super) fn change_apart<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.live()?.0.change_apart(operation)
    }

    /// Like [`Live::write_apart`].
    pub(super) fn write_apart<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.live()?.0.write_apart(operation)
    }

    /// Like [`Live::read`], but one query at a time while the database cannot be opened for
    /// writing.
    pub(super) fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        if let Some((live, _)) = self.shared.live.get() {
            return live.read(query);
        }
        let waiting = self.shared.waiting.lock();
        // The database may have been opened while this waited for the lock.
        if let Some((live, _)) = self.shared.live.get() {
            drop(waiting);
            return live.read(query);
        }
        match &waiting.frozen {
            Some(frozen) => query(&frozen.db).map_err(store_error),
            None => Err(StoreError::Unavailable(waiting.why.clone().into())),
        }
    }

    /// Like [`Live::settle`].
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        // Before the database is open, the queue is empty.
        self.shared.live.get().map_or(Ok(()), |(live, _)| live.settle())
    }

    /// Like [`Live::check`].
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.live()?.0.check()
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        let Some((stop, thread)) = self.opener.take() else { return };
        drop(stop);
        // A frozen disk may block it.
        pool::join_until(thread, Instant::now() + RETRY_AFTER);
    }
}

impl LateCore {
    fn file(&self) -> PathBuf {
        self.data_dir.join(STORE.name)
    }

    fn unavailable(&self) -> StoreError {
        StoreError::Unavailable(self.waiting.lock().why.clone().into())
    }

    fn run(&self, stopped: &Receiver<()>) {
        let mut trouble = RepeatedTrouble::logged(self.waiting.lock().why.clone());
        let (mut pause, mut next) = (RETRY_AFTER, Instant::now());
        // Nothing is ever sent: the other end exists or was dropped.
        while stopped.recv_timeout(RETRY_AFTER) == Err(RecvTimeoutError::Timeout) {
            let is_lost = self.is_taken_away();
            if !is_lost && is_full(&self.data_dir) {
                // The first attempt after that is made as soon as there is room.
                (pause, next) = (RETRY_AFTER, Instant::now());
                continue;
            }
            if !is_lost && Instant::now() < next {
                continue;
            }
            if self.try_to_open().is_ok() {
                log::warn!("{} is open: its disk accepts writes again", self.file().display());
                return;
            }
            next = Instant::now() + pause;
            pause = (2 * pause).min(PAUSE_MAX);
            trouble.note(self.waiting.lock().why.clone());
            if is_lost {
                return;
            }
        }
    }

    /// Whether the database that was read is no longer in its place.
    fn is_taken_away(&self) -> bool {
        let known = self.waiting.lock().inode;
        known.is_some() && known != inode(&self.file())
    }

    /// Opens the database. If that fails, the database can still be read, unless that fails too.
    fn try_to_open(&self) -> Result<(), SqliteOpenError> {
        let mut waiting = self.waiting.lock();
        // Another attempt must not create a new database in the place of the one being read.
        if let Some(known) = waiting.inode
            && inode(&self.file()) != Some(known)
        {
            let how = format!("{} was moved, replaced or deleted", self.file().display());
            self.condition.lose(&how);
            waiting.why = how.clone();
            return Err(SqliteOpenError::Failed { file: self.file(), cause: how.into() });
        }
        // Its locks would conflict.
        waiting.frozen = None;
        let ids = |db: &Connection| Ids::open(&self.data_dir, db);
        match Live::open(&self.data_dir, &STORE, self.busy_timeout, self.condition.clone(), ids) {
            Ok((live, ids)) => {
                // Only this thread sets it.
                let _ = self.live.set((live, Arc::new(ids)));
                Ok(())
            }
            Err(error) => {
                waiting.why = match error.source() {
                    Some(cause) if error.may_pass() => {
                        format!("the disk of {} takes nothing: {cause}", self.file().display())
                    }
                    _ => error.to_string(),
                };
                let frozen = open::open_to_read(&self.file(), self.busy_timeout, true);
                waiting.frozen = frozen.ok().map(|(db, guard)| Frozen { db, _guard: guard });
                if waiting.inode.is_none() && waiting.frozen.is_some() {
                    waiting.inode = inode(&self.file());
                }
                Err(error)
            }
        }
    }
}

/// Whether the disk refuses a small file beside the database. The file is deleted again.
fn is_full(data_dir: &Path) -> bool {
    let path = data_dir.join(ROOM);
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let mut file = options.open(&path)?;
        file.write_all(&[0; ROOM_BYTES])?;
        // Some file systems check for room only now.
        file.sync_data()
    };
    let written = write();
    let _ = fs::remove_file(&path);
    written.is_err()
}

/// The device and inode of the file with this name.
fn inode(file: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(file).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The interval between checks for room on the disk.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// The longest pause between two attempts on a disk that has room. An attempt reads the log, which
/// may have 64 MB.
const PAUSE_MAX: Duration = Duration::from_secs(32);
/// The least room that a start needs: the index of the log, and some pages in the log.
const ROOM_BYTES: usize = 64 * 1024;
const ROOM: &str = "raybox.db.room";
