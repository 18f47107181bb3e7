//! [`LogWriter`]: writes lines to a file for each day, to stdout, or to both. Lines for a file go
//! to stderr while no file can be written.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::civil::Date;
use log::Level;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::form::{Form, LogLine};
use super::retention::{LogRetention, file_name, name_for_full};

/// Writes lines to all destinations. Owned by the writer thread.
pub(super) struct LogWriter {
    form: Form,
    files: Option<LogFiles>,
    stdout: Option<LogStream>,
    /// Gets errors, unless stdout has them, and all lines while no file can be written.
    stderr: LogStream,
}

/// A stream for lines, in addition to files.
pub(super) struct LogStream {
    pub(super) stream: Box<dyn Write + Send>,
    /// Whether the systemd journal reads it.
    pub(super) is_journal: bool,
}

/// The files, one for each local date, and the lines for them.
pub(super) struct LogFiles {
    dir: PathBuf,
    retention: LogRetention,
    output: LogOutput,
    /// The day of the lines in `lines` and of the open file.
    date: Date,
    /// The lines of one batch and day.
    lines: Vec<u8>,
    /// The lines that also go to stderr, in its form.
    errors: Vec<u8>,
    /// The number of files that were deleted because of the limits, and not reported yet.
    deleted: usize,
}

enum LogOutput {
    /// Nothing has been written on this day.
    Unopened,
    /// The file of the day.
    File(LogFile),
    /// The file could not be written, and the operator was notified. The next attempt is not before
    /// `retry_at`.
    Stderr { retry_at: Instant },
}

impl LogWriter {
    /// Writes to `files` and `stdout`, to either or to both.
    pub(super) fn new(form: Form, files: Option<LogFiles>, stdout: Option<LogStream>, stderr: LogStream) -> LogWriter {
        LogWriter { form, files, stdout, stderr }
    }

    /// Reopens the file before the next line, without a pause if it could not be written before.
    pub(super) fn reopen(&mut self, now: Instant) {
        if let Some(files) = &mut self.files {
            files.turn_to(files.date, now);
        }
    }

    /// The number of files that were deleted since the last call.
    pub(super) fn take_deleted(&mut self) -> usize {
        self.files.as_mut().map_or(0, |files| mem::take(&mut files.deleted))
    }

    /// A line from the log module itself.
    pub(super) fn report(&self, text: fmt::Arguments<'_>) -> LogLine {
        LogLine { at: Timestamp::now(), level: Level::Warn, body: self.form.report(text) }
    }

    /// Waits, for a bounded time, until stdout and stderr have taken their lines.
    pub(super) fn flush(&mut self) {
        for sink in self.stdout.iter_mut().chain([&mut self.stderr]) {
            let _ = sink.stream.flush();
        }
    }

    /// Writes all the lines. `now` decides whether a file that could not be written is retried.
    pub(super) fn write(&mut self, lines: &[LogLine], now: Instant) {
        let LogWriter { form, files, stdout, stderr } = self;
        if let Some(stdout) = stdout {
            let mut bytes = Vec::new();
            lines.iter().for_each(|line| stdout.append(form, line, &mut bytes));
            // An operator who has closed stdout does not want an error about it.
            let _ = stdout.stream.write_all(&bytes);
        }
        let Some(files) = files else { return };
        for line in lines {
            let date = form.date(line);
            if date != files.date {
                files.put_out(stderr, now);
                files.turn_to(date, now);
            }
            form.append(line, &mut files.lines);
            if stdout.is_none() && line.level == Level::Error {
                stderr.append(form, line, &mut files.errors);
            }
        }
        files.put_out(stderr, now);
    }
}

impl LogStream {
    fn append(&self, form: &Form, line: &LogLine, to: &mut Vec<u8>) {
        match self.is_journal {
            true => form.append_for_journal(line, to),
            false => form.append(line, to),
        }
    }
}

impl LogFiles {
    /// The files in this folder, which need not exist.
    pub(super) fn new(dir: &Path, retention: LogRetention) -> LogFiles {
        let (lines, errors) = (Vec::new(), Vec::new());
        LogFiles {
            dir: dir.to_owned(),
            retention,
            output: LogOutput::Unopened,
            date: Date::ZERO,
            lines,
            errors,
            deleted: 0,
        }
    }

    fn turn_to(&mut self, date: Date, now: Instant) {
        self.date = date;
        self.output = match self.output {
            LogOutput::Unopened | LogOutput::File(_) => LogOutput::Unopened,
            LogOutput::Stderr { .. } => LogOutput::Stderr { retry_at: now },
        };
    }

    fn put_out(&mut self, stderr: &mut LogStream, now: Instant) {
        if self.lines.is_empty() {
            return;
        }
        let waiting = matches!(self.output, LogOutput::Stderr { retry_at } if now < retry_at);
        let in_file = !waiting && self.append(stderr, now);
        // An operator who has closed stderr does not want an error about it.
        let _ = stderr.stream.write_all(if in_file { &self.errors } else { &self.lines });
        self.lines.clear();
        self.errors.clear();
    }

    /// Writes the lines to the file, opening it if necessary. If that fails, reports it once and
    /// returns false.
    fn append(&mut self, stderr: &mut LogStream, now: Instant) -> bool {
        let path = self.dir.join(file_name(self.date));
        let failed_before = matches!(self.output, LogOutput::Stderr { .. });
        let path_shown = path.display();
        match self.try_append(&path) {
            Ok(()) => {
                if failed_before {
                    let _ = writeln!(stderr.stream, "the log is written to {path_shown} again");
                }
                true
            }
            Err(cause) => {
                if !failed_before {
                    let _ = writeln!(
                        stderr.stream,
                        "cannot write the log to {path_shown}: {cause}; its lines go to stderr meanwhile"
                    );
                }
                self.output = LogOutput::Stderr { retry_at: now + RETRY_AFTER };
                false
            }
        }
    }

    fn try_append(&mut self, path: &Path) -> io::Result<()> {
        let open = match mem::replace(&mut self.output, LogOutput::Unopened) {
            LogOutput::File(log) => log.bytes_at(path).map(|bytes| (log, bytes)),
            LogOutput::Unopened | LogOutput::Stderr { .. } => None,
        };
        let mut log = match open {
            Some((log, bytes)) if bytes < self.retention.file_bytes_max() => log,
            Some(_) => {
                self.rename_full(path)?;
                self.open(path)?
            }
            None => self.open(path)?,
        };
        // Lines that were partly written before the failure are written to stderr again in full.
        log.file.write_all(&self.lines)?;
        self.output = LogOutput::File(log);
        Ok(())
    }

    /// Gives a full file a number. Another process may do the same in the same folder: its number
    /// is not used, and a file that it has renamed is gone.
    fn rename_full(&self, path: &Path) -> io::Result<()> {
        loop {
            let full = name_for_full(&self.dir, self.date)?;
            match renameat_with(CWD, path, CWD, &full, RenameFlags::NOREPLACE) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::EXIST) => {}
                // Not every file system knows the flag.
                Err(Errno::INVAL) => return fs::rename(path, full),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Opens the file of the day, and deletes files beyond the limits, which may be exceeded
    /// whenever a file begins.
    fn open(&mut self, path: &Path) -> io::Result<LogFile> {
        let log = LogFile::open(path)?;
        // The server logs even if the folder cannot be read.
        self.deleted += self.retention.apply(&self.dir, self.date).unwrap_or_default();
        Ok(log)
    }
}

struct LogFile {
    file: File,
    /// The device and inode, which identify a file (stat(2)).
    id: (u64, u64),
}

impl LogFile {
    fn open(path: &Path) -> io::Result<LogFile> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        // Following a link at a predictable name would let an attacker choose the file that the
        // server writes to.
        let mut options = OpenOptions::new();
        options.create(true).append(true).read(true).mode(LOG_MODE).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(path).map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => io::Error::other("it is a symbolic link, which the server does not follow"),
            _ => error,
        })?;
        if ends_within_a_line(&mut file)? {
            file.write_all(b"\n")?;
        }
        let metadata = file.metadata()?;
        Ok(LogFile { file, id: (metadata.dev(), metadata.ino()) })
    }

    /// The length of the file if it still exists there. This must be checked, because writing to a
    /// file that was deleted or moved succeeds.
    fn bytes_at(&self, path: &Path) -> Option<u64> {
        let metadata = fs::symlink_metadata(path).ok()?;
        ((metadata.dev(), metadata.ino()) == self.id).then_some(metadata.len())
    }
}

/// Whether the last write was cut short, by a full disk or the exit of the process.
fn ends_within_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// Lines contain addresses and users: the owner reads and writes, the group reads.
const LOG_MODE: u32 = 0o640;
const RETRY_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    use jiff::tz::TimeZone;

    use super::super::form::Form;
    use crate::base::folder::Folder;
    use crate::config::LogFormat;
    use std::os::unix::fs::symlink;
    use std::sync::{Arc, Mutex};

    /// The lines for stderr, for the test to check.
    #[derive(Clone, Default)]
    pub(in super::super) struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Shared {
        fn take(&self) -> String {
            String::from_utf8(mem::take(&mut self.0.lock().unwrap())).unwrap()
        }
    }

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(at: &str, level: Level, text: &str) -> LogLine {
        LogLine { at: at.parse().unwrap(), level, body: text.to_owned() }
    }

    fn writer(dir: &Path) -> (LogWriter, Shared) {
        let stderr = Shared::default();
        (writer_to(dir, TimeZone::UTC, Box::new(stderr.clone())), stderr)
    }

    /// Writes to files without end in this folder, and to this instead of stderr.
    pub(in super::super) fn writer_to(dir: &Path, zone: TimeZone, stderr: Box<dyn Write + Send>) -> LogWriter {
        let files = LogFiles::new(dir, LogRetention::default());
        LogWriter::new(form(zone), Some(files), None, LogStream { stream: stderr, is_journal: false })
    }

    fn form(zone: TimeZone) -> Form {
        Form::new(LogFormat::Text, zone, "n", 1)
    }

    const DAY_1: &str = "2026-07-09-log.txt";
    const DAY_2: &str = "2026-07-10-log.txt";

    #[test]
    fn midnight_begins_a_new_file() {
        let folder = Folder::new("midnight");
        let (mut writer, stderr) = writer(&folder.0);
        let lines = [
            line("2026-07-09T23:59:59.9999Z", Level::Info, "late"),
            line("2026-07-10T00:00:00Z", Level::Error, "early"),
            line("2026-07-09T23:59:59Z", Level::Info, "overtaken"),
        ];
        writer.write(&lines, Instant::now());
        assert_eq!(
            folder.read(DAY_1),
            "2026-07-09 23:59:59.999+00:00 n[1] late\n2026-07-09 23:59:59.000+00:00 n[1] overtaken\n"
        );
        assert_eq!(folder.read(DAY_2), "2026-07-10 00:00:00.000+00:00 n[1] early\n");
        assert_eq!(stderr.take(), "2026-07-10 00:00:00.000+00:00 n[1] early\n", "errors are on stderr, too");
    }

    #[test]
    fn the_day_is_the_local_one() {
        let folder = Folder::new("local");
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let mut writer = writer_to(&folder.0, zone, Box::new(Shared::default()));
        writer.write(&[line("2026-07-09T22:30:00Z", Level::Info, "past midnight")], Instant::now());
        assert_eq!(folder.read(DAY_2), "2026-07-10 00:30:00.000+02:00 n[1] past midnight\n");
    }

    #[test]
    fn a_file_that_exists_is_continued_on_a_new_line() {
        let folder = Folder::new("continued");
        fs::write(folder.0.join(DAY_1), "whole\ncut sho").unwrap();
        for _ in 0..2 {
            let (mut writer, _) = writer(&folder.0);
            writer.write(&[line("2026-07-09T01:02:03Z", Level::Info, "on")], Instant::now());
        }
        let on = "2026-07-09 01:02:03.000+00:00 n[1] on\n";
        assert_eq!(folder.read(DAY_1), format!("whole\ncut sho\n{on}{on}"));
    }

    #[test]
    fn a_file_or_folder_that_was_removed_is_made_again() {
        let folder = Folder::new("removed");
        let dir = folder.0.join("a/b");
        let (mut writer, stderr) = writer(&dir);
        let mut write = || {
            writer.write(&[line("2026-07-09T01:02:03Z", Level::Info, "here")], Instant::now());
            assert_eq!(fs::read_to_string(dir.join(DAY_1)).unwrap(), "2026-07-09 01:02:03.000+00:00 n[1] here\n");
        };
        write();
        fs::remove_file(dir.join(DAY_1)).unwrap();
        write();
        fs::rename(dir.join(DAY_1), dir.join("kept.txt")).unwrap();
        write();
        fs::remove_dir_all(&dir).unwrap();
        write();
        assert_eq!(stderr.take(), "");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_reported_once_and_tried_again() {
        let folder = Folder::new("unmade");
        let dir = folder.0.join("logs");
        fs::write(&dir, "a file, not a folder").unwrap();
        let (mut writer, stderr) = writer(&dir);
        let start = Instant::now();
        let info = |text| [line("2026-07-09T01:02:03Z", Level::Info, text)];

        writer.write(&info("one"), start);
        let said = stderr.take();
        assert!(said.starts_with("cannot write the log to "), "{said}");
        assert!(said.ends_with("2026-07-09 01:02:03.000+00:00 n[1] one\n") && said.lines().count() == 2, "{said}");
        writer.write(&info("two"), start + RETRY_AFTER);
        assert_eq!(stderr.take(), "2026-07-09 01:02:03.000+00:00 n[1] two\n", "it is said once");

        fs::remove_file(&dir).unwrap();
        writer.write(&info("three"), start + RETRY_AFTER * 2 - Duration::from_millis(1));
        assert_eq!(stderr.take(), "2026-07-09 01:02:03.000+00:00 n[1] three\n", "not tried yet");
        writer.write(&info("four"), start + RETRY_AFTER * 2);
        assert!(stderr.take().ends_with("-log.txt again\n"));
        assert_eq!(fs::read_to_string(dir.join(DAY_1)).unwrap(), "2026-07-09 01:02:03.000+00:00 n[1] four\n");
    }

    #[test]
    fn a_new_day_is_a_new_try() {
        let folder = Folder::new("newday");
        let dir = folder.0.join("logs");
        fs::write(&dir, "").unwrap();
        let (mut writer, _) = writer(&dir);
        let now = Instant::now();
        writer.write(&[line("2026-07-09T01:02:03Z", Level::Info, "one")], now);
        fs::remove_file(&dir).unwrap();
        writer.write(&[line("2026-07-10T01:02:03Z", Level::Info, "two")], now);
        assert_eq!(fs::read_to_string(dir.join(DAY_2)).unwrap(), "2026-07-10 01:02:03.000+00:00 n[1] two\n");
    }

    #[test]
    fn lines_go_to_stderr_while_the_disk_is_full() {
        let folder = Folder::new("diskfull");
        let path = folder.0.join(DAY_1);
        fs::write(&path, "").unwrap();
        let there = fs::metadata(&path).unwrap();
        let (mut writer, stderr) = writer(&folder.0);
        // Every write to this device fails with ENOSPC (full(4)).
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let files = writer.files.as_mut().unwrap();
        files.output = LogOutput::File(LogFile { file, id: (there.dev(), there.ino()) });
        files.date = "2026-07-09".parse().unwrap();
        let now = Instant::now();
        let error = [line("2026-07-09T01:02:03Z", Level::Error, "kept")];
        writer.write(&error, now);
        let said = stderr.take();
        assert!(said.contains("No space left on device"), "{said}");
        assert!(said.ends_with("\n2026-07-09 01:02:03.000+00:00 n[1] kept\n") && said.lines().count() == 2, "{said}");

        writer.write(&error, now + RETRY_AFTER);
        assert_eq!(folder.read(DAY_1), "2026-07-09 01:02:03.000+00:00 n[1] kept\n");
    }

    #[test]
    fn a_link_is_not_followed_and_others_do_not_read_the_log() {
        let folder = Folder::new("link");
        let (mut writer, stderr) = writer(&folder.0);
        let (now, info) = (Instant::now(), [line("2026-07-09T01:02:03Z", Level::Info, "one")]);
        fs::write(folder.0.join("precious"), "as it was").unwrap();
        symlink(folder.0.join("precious"), folder.0.join(DAY_1)).unwrap();
        writer.write(&info, now);
        let said = stderr.take();
        assert!(said.contains("symbolic link") && said.ends_with("2026-07-09 01:02:03.000+00:00 n[1] one\n"), "{said}");
        assert_eq!(folder.read("precious"), "as it was");

        fs::remove_file(folder.0.join(DAY_1)).unwrap();
        writer.reopen(now);
        writer.write(&info, now);
        assert_eq!(folder.read(DAY_1), "2026-07-09 01:02:03.000+00:00 n[1] one\n");
        assert_eq!(fs::metadata(folder.0.join(DAY_1)).unwrap().mode() & 0o137, 0, "0640, or less by the umask");

        // A file that was open when a link replaced its name is left alone.
        fs::rename(folder.0.join(DAY_1), folder.0.join("moved")).unwrap();
        symlink(folder.0.join("moved"), folder.0.join(DAY_1)).unwrap();
        writer.write(&info, now);
        assert_eq!(folder.read("moved"), "2026-07-09 01:02:03.000+00:00 n[1] one\n");
    }

    #[test]
    fn a_full_file_is_renamed_and_the_oldest_are_deleted() {
        let folder = Folder::new("full-file");
        let files = LogFiles::new(&folder.0, LogRetention { days: None, bytes_max: Some(4000) });
        let stderr = Shared::default();
        let sink = LogStream { stream: Box::new(stderr.clone()), is_journal: false };
        let mut writer = LogWriter::new(form(TimeZone::UTC), Some(files), None, sink);
        for number in 0..100 {
            writer.write(&[line("2026-07-09T01:02:03Z", Level::Info, &format!("{number:0>200}"))], Instant::now());
        }
        let mut all: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        let bytes: u64 = all.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(bytes <= 4000 + 1000 + 300, "{bytes}");
        // The numbered ones in order, then the one in use: the last lines without a gap.
        all.sort_by_key(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            name.split('.').nth(1).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok()).unwrap_or(u32::MAX)
        });
        let text: String = all.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        let numbers: Vec<u32> = text
            .lines()
            .map(|line| line.rsplit(' ').next().unwrap().trim_start_matches('0').parse().unwrap_or(0))
            .collect();
        let count = numbers.len() as u32;
        assert!(count > 10 && count < 30, "{count}");
        assert_eq!(numbers, (100 - count..100).collect::<Vec<_>>());
        assert_eq!(stderr.take(), "");
    }

    #[test]
    fn a_file_that_is_copied_and_cut_goes_on_at_its_new_end() {
        let folder = Folder::new("copytruncate");
        let (mut writer, stderr) = writer(&folder.0);
        let mut write = |text| writer.write(&[line("2026-07-09T01:02:03Z", Level::Info, text)], Instant::now());
        write("before");
        fs::copy(folder.0.join(DAY_1), folder.0.join("copy")).unwrap();
        OpenOptions::new().write(true).open(folder.0.join(DAY_1)).unwrap().set_len(0).unwrap();
        write("after");
        assert_eq!(folder.read("copy"), "2026-07-09 01:02:03.000+00:00 n[1] before\n");
        assert_eq!(folder.read(DAY_1), "2026-07-09 01:02:03.000+00:00 n[1] after\n");
        assert_eq!(stderr.take(), "");
    }

    #[test]
    fn stdout_has_every_line_and_stderr_then_has_none() {
        let folder = Folder::new("stdout");
        let (stdout, stderr) = (Shared::default(), Shared::default());
        let sink = |shared: &Shared, is_journal| LogStream { stream: Box::new(shared.clone()), is_journal };
        let lines =
            [line("2026-07-09T01:02:03Z", Level::Info, "one"), line("2026-07-09T01:02:03Z", Level::Error, "two")];
        let mut writer = LogWriter::new(form(TimeZone::UTC), None, Some(sink(&stdout, true)), sink(&stderr, false));
        writer.write(&lines, Instant::now());
        assert_eq!((stdout.take(), stderr.take()), ("<6>one\n<3>two\n".to_owned(), String::new()));

        let files = LogFiles::new(&folder.0, LogRetention::default());
        let mut writer =
            LogWriter::new(form(TimeZone::UTC), Some(files), Some(sink(&stdout, false)), sink(&stderr, false));
        writer.write(&lines, Instant::now());
        assert_eq!((stdout.take(), stderr.take()), (folder.read(DAY_1), String::new()));
    }
}
