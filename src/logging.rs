//! The log: any thread may log at any time and never waits for the disk.
//!
//! A record is formatted by the thread that logs it and put into a bounded queue; the thread `log` takes what is there
//! and writes it in one go. When the disk does not keep up, lines below error level are dropped and counted. Errors
//! have room of their own in the queue, and when even that is full they go straight to stderr.
//!
//! ```text
//! 2026-07-09 18:04:05.123 INFO  loop-0 raybox::server: message
//! local time              level thread target
//! ```

mod writer;

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::iter;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use log::{Level, Log, Metadata, Record, SetLoggerError};

use crate::config::LogLevels;
use writer::{Line, Writer};

/// Makes the `log` macros write to files in `dir`, and errors to stderr as well. Once per process.
///
/// A folder that cannot be written is no error: the lines go to stderr until it can.
///
/// # Errors
/// The process has a logger already, or no thread could be started; it cannot log then.
pub fn init(dir: &Path, levels: &LogLevels) -> Result<LogGuard, LogError> {
    let writer = Writer::new(dir, TimeZone::system(), Box::new(io::stderr()));
    let (queue, guard) = start(writer).map_err(LogError::Thread)?;
    let by_level = fern::Dispatch::new().level(levels.everything);
    let by_level =
        levels.parts.iter().fold(by_level, |dispatch, (part, level)| dispatch.level_for(part.clone(), *level));
    by_level
        .format(|out, message, record| {
            let thread = thread::current();
            let (level, thread, target) = (record.level(), thread.name().unwrap_or("-"), record.target());
            out.finish(format_args!("{level:<5} {thread} {target}: {message}"));
        })
        .chain(Box::new(queue) as Box<dyn Log>)
        .apply()
        .map_err(LogError::AlreadySet)?;
    Ok(guard)
}

/// Held by `main`: when it is dropped, everything logged before is written and the writer thread has ended.
/// Errors that are logged later go to stderr; other lines are lost.
#[must_use]
pub struct LogGuard {
    messages: Sender<Message>,
    dropped: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl LogGuard {
    /// Tells how many lines were dropped so far, from any thread.
    pub fn dropped_lines(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let dropped = self.dropped.clone();
        move || dropped.load(Ordering::Relaxed)
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        // Either fails only when the writer has panicked, and then there is nobody left to tell.
        let _ = self.messages.send(Message::Stop);
        let _ = self.writer.take().map(JoinHandle::join);
    }
}

/// Why there is no log.
#[derive(Debug)]
pub enum LogError {
    /// The process has a logger already.
    AlreadySet(SetLoggerError),
    /// The writer thread could not be started.
    Thread(io::Error),
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::AlreadySet(_) => f.write_str("the process has a logger already"),
            LogError::Thread(cause) => write!(f, "cannot start the thread that writes the log: {cause}"),
        }
    }
}

impl Error for LogError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            LogError::AlreadySet(cause) => Some(cause),
            LogError::Thread(cause) => Some(cause),
        }
    }
}

/// What waits for the writer.
enum Message {
    Line(Line),
    /// Dropped by the writer when everything before it is written, which the other end of the channel notices.
    Flush {
        _done: Sender<()>,
    },
    Stop,
}

/// The end of the queue that all threads share.
struct Queue {
    messages: Sender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    fn push(&self, line: Line) {
        if line.level == Level::Error {
            if let Err(refused) = self.messages.try_send(Message::Line(line))
                && let Message::Line(line) = refused.into_inner()
            {
                let _ = writeln!(io::stderr(), "{}", line.text);
            }
        // Between the look and the send other threads may send too; they take little of the room for errors.
        } else if self.messages.len() >= LINES_MAX || self.messages.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Log for Queue {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.push(Line { at: Timestamp::now(), level: record.level(), text: one_line(record.args().to_string()) });
    }

    /// Waits until everything logged before is written, but no longer than [`FLUSH_TIMEOUT`]. For a process that is
    /// about to die; no thread that has work to do calls it.
    fn flush(&self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let (done, written) = crossbeam_channel::bounded(0);
        if self.messages.send_deadline(Message::Flush { _done: done }, deadline).is_ok() {
            let _ = written.recv_deadline(deadline);
        }
    }
}

fn start(writer: Writer) -> io::Result<(Queue, LogGuard)> {
    let (messages, inbox) = crossbeam_channel::bounded(LINES_MAX + ERRORS_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let queue = Queue { messages: messages.clone(), dropped: dropped.clone() };
    let seen = dropped.clone();
    let thread = thread::Builder::new().name(THREAD.to_owned()).spawn(move || run(writer, &inbox, &seen))?;
    Ok((queue, LogGuard { messages, dropped, writer: Some(thread) }))
}

/// The life of the writer thread: wait for a message, take what else is there, write it all, start over.
fn run(mut writer: Writer, inbox: &Receiver<Message>, dropped: &AtomicU64) {
    let mut lines = Vec::with_capacity(BATCH_MAX);
    let mut flushes = Vec::new();
    let (mut stopping, mut reported) = (false, 0);
    while !stopping && let Ok(first) = inbox.recv() {
        for message in iter::once(first).chain(inbox.try_iter()).take(BATCH_MAX) {
            match message {
                Message::Line(line) => lines.push(line),
                Message::Flush { .. } => flushes.push(message),
                Message::Stop => stopping = true,
            }
        }
        // Lines are only dropped while others wait, so another batch follows every drop and reports it.
        let drops = dropped.load(Ordering::Relaxed);
        if drops > reported {
            lines.push(drop_report(drops - reported));
            reported = drops;
        }
        writer.write(&lines, Instant::now());
        lines.clear();
        flushes.clear();
    }
}

fn drop_report(drops: u64) -> Line {
    let (level, target) = (Level::Warn, module_path!());
    let text = format!("{level:<5} {THREAD} {target}: {drops} log lines dropped, the disk does not keep up");
    Line { at: Timestamp::now(), level, text }
}

/// Escapes newlines and other control characters, so that one record stays one line and does nothing to a terminal.
fn one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_control() { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    escaped
}

const THREAD: &str = "log";

/// Waiting lines at which those below error level are dropped.
const LINES_MAX: usize = 8192;
/// Room for errors beyond that.
const ERRORS_MAX: usize = 1024;
/// Most messages that one write takes.
const BATCH_MAX: usize = 1024;
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::writer::tests::{Folder, Shared};
    use log::LevelFilter;

    use super::*;

    use std::fs;

    /// A stderr that takes nothing until the test lets it.
    struct HeldUp {
        reached: Sender<()>,
        released: Receiver<()>,
    }

    impl Write for HeldUp {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.reached.send(());
            // The test lets go of all writes at once by dropping the other end.
            let _ = self.released.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(level: Level, text: &str) -> Line {
        Line { at: Timestamp::now(), level, text: text.to_owned() }
    }

    fn written(folder: &Folder) -> Vec<String> {
        let mut paths: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        // Two if midnight passes during the test.
        paths.sort();
        paths
            .iter()
            .flat_map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn a_full_queue_drops_and_counts_lines_but_keeps_errors() {
        let folder = Folder::new("full");
        let (reached, entered) = crossbeam_channel::unbounded();
        let (release, released) = crossbeam_channel::bounded(0);
        let writer = Writer::new(&folder.0, TimeZone::UTC, Box::new(HeldUp { reached, released }));
        let (queue, guard) = start(writer).unwrap();

        queue.push(line(Level::Error, "first"));
        entered.recv_timeout(Duration::from_secs(10)).expect("the writer is held up");
        for n in 0..LINES_MAX + 10 {
            queue.push(line(Level::Info, &format!("line {n}")));
        }
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 10);
        for n in 0..ERRORS_MAX {
            queue.push(line(Level::Error, &format!("error {n}")));
        }
        assert_eq!(queue.messages.len(), LINES_MAX + ERRORS_MAX);
        queue.push(line(Level::Error, "this line of a test belongs on stderr"));
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 10, "no error is dropped");
        let dropped_lines = guard.dropped_lines();
        drop(release);
        drop(guard);
        assert_eq!(dropped_lines(), 10, "the count goes on after the report");

        let lines = written(&folder);
        assert_eq!(lines.len(), 1 + LINES_MAX + ERRORS_MAX + 1);
        let mut kept = lines.iter().filter(|line| line.contains(" line "));
        assert!((0..LINES_MAX).all(|n| kept.next().unwrap().ends_with(&format!(" line {n}"))));
        assert_eq!(lines.iter().filter(|line| line.contains(" error ")).count(), ERRORS_MAX);
        let reports: Vec<_> = lines.iter().filter(|line| line.contains("dropped")).collect();
        assert_eq!(reports.len(), 1);
        assert!(reports[0].ends_with("WARN  log raybox::logging: 10 log lines dropped, the disk does not keep up"));
    }

    #[test]
    fn a_flush_waits_until_the_lines_are_in_the_file() {
        let folder = Folder::new("flush");
        let (queue, _guard) = start(Writer::new(&folder.0, TimeZone::UTC, Box::new(Shared::default()))).unwrap();
        for n in 0..100 {
            queue.push(line(Level::Debug, &format!("{n}")));
            queue.flush();
            assert_eq!(written(&folder).len(), n + 1);
        }
    }

    #[test]
    fn after_the_end_neither_a_line_nor_a_flush_waits() {
        let folder = Folder::new("ended");
        let (queue, guard) = start(Writer::new(&folder.0, TimeZone::UTC, Box::new(Shared::default()))).unwrap();
        queue.push(line(Level::Info, "last"));
        drop(guard);
        queue.push(line(Level::Info, "lost"));
        queue.flush();
        assert_eq!(written(&folder).len(), 1);
    }

    #[test]
    fn the_macros_reach_the_file() {
        // The only test that sets the logger of the process.
        let folder = Folder::new("macros");
        let levels = LogLevels { everything: LevelFilter::Info, parts: Vec::new() };
        let guard = init(&folder.0, &levels).unwrap();
        let log = || {
            log::debug!(target: "there", "too fine");
            log::warn!(target: "there", "two\nlines \u{1b}[31m and ünïcode");
        };
        thread::Builder::new().name("loop-7".to_owned()).spawn(log).unwrap().join().unwrap();
        assert!(matches!(init(&folder.0, &levels), Err(LogError::AlreadySet(_))));
        drop(guard);

        let lines: Vec<_> = written(&folder).into_iter().filter(|line| line.contains("there")).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let (time, rest) = lines[0].split_at("2026-07-09 18:04:05.123".len());
        assert_eq!(rest, " WARN  loop-7 there: two\\nlines \\u{1b}[31m and ünïcode");
        assert!(time.parse::<jiff::civil::DateTime>().is_ok(), "{time}");
    }
}
