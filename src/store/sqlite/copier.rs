//! [`LogCopier`]: the thread that copies the write-ahead log into the database, so that the writer
//! does not wait for the copying.
//!
//! ```text
//!   writer       commit │ commit │ commit │ … │ the rest │ commit (the log begins anew)
//!                   └── the log is long ──▶         ▲
//!   copier               copies what is there ──────┘ done
//! ```
//! SQLite begins the log anew only when all of it is copied, and a busy writer adds to it
//! meanwhile. So the writer copies what has come since, which is little.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use rusqlite::Connection;

/// The thread. Dropping it waits for a copy that has begun.
pub(super) struct LogCopier {
    requests: Sender<CopyRequest>,
    thread: Option<JoinHandle<()>>,
}

enum CopyRequest {
    Copy,
    Stop,
}

/// The writer's side.
pub(super) struct LogTender {
    requests: Sender<CopyRequest>,
    /// The number of pages in the log after the last commit.
    pages: Arc<AtomicI64>,
    /// Whether the thread has copied what was there.
    is_copied: Arc<AtomicBool>,
}

/// Starts the thread called `name`, with its own connection to `file`, for the log that `writer`
/// writes.
pub(super) fn start(
    name: &str,
    file: &Path,
    writer: &mut Connection,
    connect: impl Fn(&Path) -> rusqlite::Result<Connection>,
) -> io::Result<(LogCopier, LogTender)> {
    let (requests, taken) = bounded(1);
    let (pages, is_copied) = (Arc::<AtomicI64>::default(), Arc::<AtomicBool>::default());
    let (noted, done) = (pages.clone(), is_copied.clone());
    let hook = move |_: &mut rusqlite::hooks::Wal, pages: i32| {
        noted.store(pages.into(), Relaxed);
        Ok(())
    };
    writer.wal_hook(Some(hook)).map_err(io::Error::other)?;
    let connection = connect(file).map_err(io::Error::other)?;
    let run = move || serve(&connection, &taken, &done);
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
    let copier = LogCopier { requests: requests.clone(), thread: Some(thread) };
    Ok((copier, LogTender { requests, pages, is_copied }))
}

fn serve(connection: &Connection, requests: &Receiver<CopyRequest>, is_copied: &AtomicBool) {
    while let Ok(CopyRequest::Copy) = requests.recv() {
        // After a failure the writer asks again, and finally copies itself.
        if copy(connection).is_ok() {
            is_copied.store(true, Release);
        }
    }
}

/// Copies the pages whose old state no reader needs, without waiting.
fn copy(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

impl LogTender {
    /// Called after each commit of the writer.
    pub(super) fn tend(&self, writer: &Connection) {
        let pages = self.pages.load(Relaxed);
        if pages < LOG_PAGES {
            return;
        }
        if self.is_copied.swap(false, Acquire) || pages >= LOG_PAGES_MAX {
            // A failure does no harm: the log grows, and the next commit tries again.
            let _ = copy(writer);
            self.pages.store(0, Relaxed);
        } else {
            // If the thread is busy, it has not finished the last request.
            let _ = self.requests.try_send(CopyRequest::Copy);
        }
    }
}

impl Drop for LogCopier {
    fn drop(&mut self) {
        let _ = self.requests.send(CopyRequest::Stop);
        if let Some(thread) = self.thread.take() {
            // The thread's panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// The pages in the log before they are copied into the database: 64 MB. With SQLite's default of
/// 1000, a busy server would copy the same index pages after nearly every commit.
const LOG_PAGES: i64 = 16 * 1024;
/// The number of pages at which the writer no longer relies on the thread: 512 MB.
const LOG_PAGES_MAX: i64 = 8 * LOG_PAGES;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::tests::Dir;
    use super::*;

    fn open(file: &Path) -> rusqlite::Result<Connection> {
        let connection = Connection::open(file)?;
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "off")?;
        Ok(connection)
    }

    #[test]
    fn a_long_log_is_copied_and_begins_anew() {
        let folder = Dir::new();
        let file = folder.0.join("raybox.db");
        let mut writer = open(&file).unwrap();
        writer.execute_batch("CREATE TABLE T (id INTEGER PRIMARY KEY, data BLOB)").unwrap();
        let (copier, tender) = start("store-log", &file, &mut writer, open).unwrap();
        let by = Instant::now() + Duration::from_secs(60);
        let mut longest = 0;
        loop {
            writer.execute("INSERT INTO T (data) VALUES (zeroblob(4000000))", []).unwrap();
            let pages = tender.pages.load(Relaxed);
            if pages < longest {
                break;
            }
            longest = pages;
            assert!(longest < LOG_PAGES_MAX && Instant::now() < by, "{longest} pages");
            tender.tend(&writer);
        }
        assert!(longest >= LOG_PAGES, "{longest} pages");
        drop(copier);
        let rows: i64 = writer.query_row("SELECT count(*) FROM T", [], |row| row.get(0)).unwrap();
        assert!(rows > 16, "{rows}");
    }

    #[test]
    fn without_the_thread_the_writer_copies_a_log_that_is_too_long() {
        let folder = Dir::new();
        let file = folder.0.join("raybox.db");
        let mut writer = open(&file).unwrap();
        writer.execute_batch("CREATE TABLE T (id INTEGER PRIMARY KEY, data BLOB)").unwrap();
        let (copier, tender) = start("store-log", &file, &mut writer, open).unwrap();
        drop(copier);
        writer.execute("INSERT INTO T (data) VALUES (zeroblob(10000000))", []).unwrap();
        let log = || std::fs::metadata(folder.0.join("raybox.db-wal")).unwrap().len();
        let before = log();
        tender.pages.store(LOG_PAGES_MAX, Relaxed);
        tender.tend(&writer);
        writer.execute("INSERT INTO T (data) VALUES ('x')", []).unwrap();
        assert!(tender.pages.load(Relaxed) < 100, "the log begins anew");
        assert_eq!(log(), before, "in the same file");
    }
}
