//! The log: any thread may log at any time and never waits for the disk.
//!
//! The thread that logs a record formats it and puts it into a bounded queue; the thread `log`
//! takes what is there and writes it in one call. If the disk does not keep up, lines below error
//! level are dropped and counted. Errors have room of their own in the queue. If even that is full,
//! they are dropped and counted too, because a line is not worth a client's wait. Lines for stderr
//! go through a thread of their own (`log-stderr`), since stderr may be a pipe that is not read;
//! those for stdout likewise (`log-stdout`). The number of lines from one place in the program is
//! limited: [`limiter`]. The audit trail has bounds of its own (`admission/audit.rs`).

mod console;
mod form;
mod levels;
mod limiter;
mod names;
mod retention;
mod writer;

use std::env;
use std::error::Error;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use log::{Level, Log, Metadata, Record, SetLoggerError};
use parking_lot::RwLock;

use crate::admission::audit;
use crate::config::{Config, LogLevels};
use console::Console;
use form::{Form, LogLine};
use levels::Levels;
use limiter::{Limiter, REPORT_EVERY};
use retention::LogRetention;
use writer::{LogFiles, LogStream, LogWriter};

/// Makes the `log` macros write to the destinations in the settings. Call it once per process.
///
/// A folder that is not writable is not an error: the lines go to stderr until it is.
///
/// # Errors
///
/// The process has a logger already, or a thread could not be started; logging is not possible
/// then.
pub fn init(config: &Config) -> Result<LogGuard, LogError> {
    let dropped = Arc::new(AtomicU64::new(0));
    let limiter = Arc::new(Limiter::default());
    let writer = writer(config, &dropped).map_err(LogError::Thread)?;
    let (queue, guard) = start(writer, dropped, limiter.clone()).map_err(LogError::Thread)?;
    let format = config.log.format;
    let (_, formatter) = fern::Dispatch::new()
        .format(move |out, _, record| {
            let thread = thread::current();
            out.finish(format_args!("{}", form::body(format, thread.name().unwrap_or("-"), record)));
        })
        .chain(Box::new(queue) as Box<dyn Log>)
        .into_log();
    let front = Front { levels: guard.levels.clone(), limiter, formatter };
    log::set_boxed_logger(Box::new(front)).map_err(LogError::AlreadySet)?;
    guard.control().set_levels(&config.log.level);
    Ok(guard)
}

/// Opens the destinations of the log that the settings name.
fn writer(config: &Config, dropped: &Arc<AtomicU64>) -> io::Result<LogWriter> {
    let form = Form::new(config.log.format, TimeZone::system(), &node_name(config), process::id());
    let retention = LogRetention { days: config.log.days.0, bytes_max: config.log_bytes_max() };
    let files = config.log.to.has_files().then(|| LogFiles::new(&config.log_dir(), retention));
    let sink = |thread, stream: Box<dyn Write + Send>, is_journal| {
        Console::start(thread, stream, dropped.clone())
            .map(|console| LogStream { stream: Box::new(console), is_journal })
    };
    let stdout = match config.log.to.has_stdout() {
        true => Some(sink("log-stdout", Box::new(io::stdout()), is_journal(io::stdout()))?),
        false => None,
    };
    let stderr = sink("log-stderr", Box::new(io::stderr()), is_journal(io::stderr()))?;
    Ok(LogWriter::new(form, files, stdout, stderr))
}

/// The name of this node: that of the settings, otherwise that of the machine (uname(2)).
pub fn node_name(config: &Config) -> String {
    if !config.node_name.is_empty() {
        return config.node_name.clone();
    }
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = machine.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// Whether the systemd journal reads this stream (systemd.exec(5), `JOURNAL_STREAM`).
fn is_journal(stream: impl AsFd) -> bool {
    let journal = env::var("JOURNAL_STREAM").unwrap_or_default();
    rustix::fs::fstat(stream).is_ok_and(|stat| journal == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The logger that gets every record first, and passes on only those to be logged.
struct Front {
    levels: Arc<RwLock<Levels>>,
    limiter: Arc<Limiter>,
    formatter: Box<dyn Log>,
}

impl Log for Front {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.levels.read().allow(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let place = (record.file_static().unwrap_or("-"), record.line().unwrap_or_default());
        let is_allowed =
            || record.target() == audit::TARGET || self.limiter.allows(place, record.level(), Instant::now());
        if self.enabled(record.metadata()) && is_allowed() {
            self.formatter.log(record);
        }
    }

    fn flush(&self) {
        self.formatter.flush();
    }
}

/// Held by `main`: dropping it waits until everything logged before is written, for
/// [`STOP_TIMEOUT`] at most. Lines that are logged later are lost.
#[must_use]
pub struct LogGuard {
    messages: Sender<LogOrder>,
    levels: Arc<RwLock<Levels>>,
    dropped: Arc<AtomicU64>,
    /// Carries no messages: it is closed when the writer ends.
    ended: Receiver<()>,
}

/// Settings that any thread may change at run time.
#[derive(Clone)]
pub struct LogControl {
    messages: Sender<LogOrder>,
    levels: Arc<RwLock<Levels>>,
}

impl LogControl {
    /// Makes the writer reopen the file before the next line, as after a rotation. Never blocks.
    pub fn reopen(&self) {
        // If the queue is full, its lines are about to be written, and the writer checks before
        // each batch whether its file still exists.
        let _ = self.messages.try_send(LogOrder::Reopen);
    }

    /// Logs at these levels until the settings are reloaded. The audit level stays that of the
    /// settings.
    pub fn set_levels_for_now(&self, levels: &LogLevels) {
        let mut now = self.levels.write();
        *now = now.with(levels);
        log::set_max_level(now.most_verbose());
    }

    /// Logs at these levels, which come from the settings.
    pub fn set_levels(&self, levels: &LogLevels) {
        *self.levels.write() = Levels::new(levels);
        log::set_max_level(self.levels.read().most_verbose());
    }

    /// The current levels, as in the setting.
    pub fn levels(&self) -> String {
        self.levels.read().shown()
    }
}

impl LogGuard {
    /// Returns a function for the number of dropped lines, callable from any thread.
    pub fn dropped_lines(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let dropped = self.dropped.clone();
        move || dropped.load(Ordering::Relaxed)
    }

    /// Returns the settings that may be changed at run time.
    pub fn control(&self) -> LogControl {
        LogControl { messages: self.messages.clone(), levels: self.levels.clone() }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        // A frozen disk or stderr must not delay the exit of the process: lines not written by then
        // are lost.
        let deadline = Instant::now() + STOP_TIMEOUT;
        if self.messages.send_deadline(LogOrder::Stop, deadline).is_ok() {
            let _ = self.ended.recv_deadline(deadline);
        }
    }
}

/// The reason why logging is not possible.
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

/// An order to the writer: an item in its queue.
enum LogOrder {
    Line(LogLine),
    /// Dropped by the writer when everything before it is written; the other end of the channel
    /// notices that.
    Flush {
        _done: Sender<()>,
    },
    Reopen,
    Stop,
}

/// The sending end of the queue, shared by all threads.
struct LineQueue {
    messages: Sender<LogOrder>,
    dropped: Arc<AtomicU64>,
}

impl LineQueue {
    fn push(&self, line: LogLine) {
        // Other threads may send between the check and the send; they take little of the room for
        // errors.
        let is_full = line.level != Level::Error && self.messages.len() >= LINES_MAX;
        if is_full || self.messages.try_send(LogOrder::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Log for LineQueue {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.push(LogLine { at: Timestamp::now(), level: record.level(), body: record.args().to_string() });
    }

    /// Waits until everything logged before is written, for [`FLUSH_TIMEOUT`] at most. Only for a
    /// process that is about to exit; a working thread must not call it.
    fn flush(&self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let (done, written) = crossbeam_channel::bounded(0);
        if self.messages.send_deadline(LogOrder::Flush { _done: done }, deadline).is_ok() {
            let _ = written.recv_deadline(deadline);
        }
    }
}

fn start(writer: LogWriter, dropped: Arc<AtomicU64>, limiter: Arc<Limiter>) -> io::Result<(LineQueue, LogGuard)> {
    let (messages, inbox) = crossbeam_channel::bounded(LINES_MAX + ERRORS_MAX);
    let (ending, ended) = crossbeam_channel::bounded(0);
    let queue = LineQueue { messages: messages.clone(), dropped: dropped.clone() };
    let seen = dropped.clone();
    // Not joined, because its disk may be frozen; dropping `ending` notifies the waiter.
    thread::Builder::new().name(form::THREAD.to_owned()).spawn(move || {
        run(writer, &inbox, &seen, &limiter);
        drop::<Sender<()>>(ending);
    })?;
    Ok((queue, LogGuard { messages, levels: Arc::default(), dropped, ended }))
}

/// The loop of the writer thread: waits for a message, takes all other waiting ones, and writes
/// them.
fn run(mut writer: LogWriter, inbox: &Receiver<LogOrder>, dropped: &AtomicU64, limiter: &Limiter) {
    let mut lines = Vec::with_capacity(BATCH_MAX);
    let mut flushes = Vec::new();
    let (mut stopping, mut reported, mut report_at) = (false, 0, Instant::now() + REPORT_EVERY);
    while !stopping {
        let first = match inbox.recv_deadline(report_at) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        for message in first.into_iter().chain(inbox.try_iter()).take(BATCH_MAX) {
            match message {
                LogOrder::Line(line) => lines.push(line),
                LogOrder::Flush { .. } => flushes.push(message),
                LogOrder::Reopen => writer.reopen(Instant::now()),
                LogOrder::Stop => stopping = true,
            }
        }
        let drops = dropped.load(Ordering::Relaxed);
        if drops > reported {
            lines.push(
                writer.report(format_args!(
                    "{} log lines dropped, the disk or stderr does not keep up",
                    drops - reported
                )),
            );
            reported = drops;
        }
        let deleted = writer.take_deleted();
        if deleted > 0 {
            lines.push(writer.report(format_args!("{deleted} old log files were deleted: log_days or log_size")));
        }
        let now = Instant::now();
        if now >= report_at || stopping {
            report_at = now + REPORT_EVERY;
            lines.extend(limiter.take_left_out().into_iter().map(|((file, line), count)| {
                writer.report(format_args!("{count} more lines like those of {file}:{line} were left out"))
            }));
        }
        writer.write(&lines, now);
        if stopping || !flushes.is_empty() {
            writer.flush();
        }
        lines.clear();
        flushes.clear();
    }
}

/// The number of waiting lines from which lines below error level are dropped.
const LINES_MAX: usize = 8192;
/// Additional room for errors.
const ERRORS_MAX: usize = 1024;
/// The most messages in one write.
const BATCH_MAX: usize = 1024;
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the exit of the process waits for the last lines.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::writer::tests::{Shared, writer_to};
    use super::*;
    use crate::base::folder::Folder;
    use crate::config::LogDir;

    /// A stderr that takes nothing until the test releases it.
    struct HeldUp {
        reached: Sender<()>,
        released: Receiver<()>,
    }

    impl Write for HeldUp {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.reached.send(());
            // The test releases all writes together by dropping the other end.
            let _ = self.released.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(level: Level, text: &str) -> LogLine {
        LogLine { at: Timestamp::now(), level, body: text.to_owned() }
    }

    fn started(folder: &Folder, stderr: Box<dyn Write + Send>) -> (LineQueue, LogGuard) {
        start(writer_to(&folder.0, TimeZone::UTC, stderr), Arc::default(), Arc::default()).unwrap()
    }

    fn written(folder: &Folder) -> Vec<String> {
        let mut paths: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        // There are two if midnight passes during the test.
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
        let (queue, guard) = started(&folder, Box::new(HeldUp { reached, released }));

        queue.push(line(Level::Error, "first"));
        entered.recv_timeout(Duration::from_secs(30)).expect("the writer is held up");
        for n in 0..LINES_MAX + 10 {
            queue.push(line(Level::Info, &format!("line {n}")));
        }
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 10);
        for n in 0..ERRORS_MAX {
            queue.push(line(Level::Error, &format!("error {n}")));
        }
        assert_eq!(queue.messages.len(), LINES_MAX + ERRORS_MAX);
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 10, "errors have room of their own");
        queue.push(line(Level::Error, "one too many"));
        let dropped_lines = guard.dropped_lines();
        drop(release);
        drop(guard);
        assert_eq!(dropped_lines(), 11, "the count goes on after the report");

        let lines = written(&folder);
        assert_eq!(lines.len(), 1 + LINES_MAX + ERRORS_MAX + 1);
        let mut kept = lines.iter().filter(|line| line.contains(" line "));
        assert!((0..LINES_MAX).all(|n| kept.next().unwrap().ends_with(&format!(" line {n}"))));
        assert_eq!(lines.iter().filter(|line| line.contains(" error ")).count(), ERRORS_MAX);
        let reports: Vec<_> = lines.iter().filter(|line| line.contains("dropped")).collect();
        assert_eq!(reports.len(), 1);
        assert!(
            reports[0]
                .ends_with("WARN  log raybox::logging: 11 log lines dropped, the disk or stderr does not keep up")
        );
    }

    #[test]
    fn a_flush_waits_until_the_lines_are_in_the_file() {
        let folder = Folder::new("flush");
        let (queue, _guard) = started(&folder, Box::new(Shared::default()));
        for n in 0..100 {
            queue.push(line(Level::Debug, &format!("{n}")));
            queue.flush();
            assert_eq!(written(&folder).len(), n + 1);
        }
    }

    #[test]
    fn after_the_end_neither_a_line_nor_a_flush_waits() {
        let folder = Folder::new("ended");
        let (queue, guard) = started(&folder, Box::new(Shared::default()));
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
        let mut config = Config::with_defaults(([127, 0, 0, 1], 0).into());
        config.log.dir = LogDir(Some(folder.0.clone()));
        config.node_name = "node-1".to_owned();
        let guard = init(&config).unwrap();
        let log = || {
            log::debug!(target: "there", "too fine");
            log::warn!(target: "there", "two\nlines \u{1b}[31m and ünïcode");
        };
        thread::Builder::new().name("loop-7".to_owned()).spawn(log).unwrap().join().unwrap();
        assert!(matches!(init(&config), Err(LogError::AlreadySet(_))));
        drop(guard);

        let lines: Vec<_> = written(&folder).into_iter().filter(|line| line.contains("there")).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let (time, rest) = lines[0].split_at("2026-07-09 18:04:05.123+00:00".len());
        assert_eq!(
            rest,
            format!(" node-1[{}] WARN  loop-7 there: two\\nlines \\u{{1b}}[31m and ünïcode", process::id())
        );
        assert!(time.parse::<Timestamp>().is_ok(), "{time}");
    }
}
