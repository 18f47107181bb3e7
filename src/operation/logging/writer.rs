//! Writes lines to a file for each day, or to stderr if no file can be written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use log::Level;

/// One record, formatted except for its time.
pub(super) struct LogLine {
    pub(super) at: Timestamp,
    pub(super) level: Level,
    /// Without a newline.
    pub(super) text: String,
}

/// Writes lines to the file of their day, which is named by local date. Owned by the writer thread.
pub(super) struct LogWriter {
    dir: PathBuf,
    zone: TimeZone,
    stderr: Box<dyn Write + Send>,
    output: Output,
    /// The day of the lines in `lines` and of the open file.
    date: Date,
    /// The lines of one batch and day, as written to the file.
    lines: Vec<u8>,
    /// Those of them that are also written to stderr.
    errors: Vec<u8>,
}

enum Output {
    /// Nothing was written on this day yet.
    Unopened,
    /// The file of the day.
    File(LogFile),
    /// The file could not be written, and the operator was notified. The next attempt is not before
    /// `retry_at`.
    Stderr { retry_at: Instant },
}

impl LogWriter {
    pub(super) fn new(dir: &Path, zone: TimeZone, stderr: Box<dyn Write + Send>) -> LogWriter {
        let (lines, errors) = (Vec::new(), Vec::new());
        LogWriter { dir: dir.to_owned(), zone, stderr, output: Output::Unopened, date: Date::ZERO, lines, errors }
    }

    /// Reopens the file before the next line, without a pause if it could not be written before.
    pub(super) fn reopen(&mut self, now: Instant) {
        self.turn_to(self.date, now);
    }

    /// Waits, for a bounded time, until stderr has taken its lines.
    pub(super) fn flush(&mut self) {
        let _ = self.stderr.flush();
    }

    /// Writes all the lines. `now` decides whether a file that could not be written is tried again.
    pub(super) fn write(&mut self, lines: &[LogLine], now: Instant) {
        for line in lines {
            let local = self.zone.to_datetime(line.at);
            if local.date() != self.date {
                self.put_out(now);
                self.turn_to(local.date(), now);
            }
            let from = self.lines.len();
            let time = local.strftime("%Y-%m-%d %H:%M:%S.%3f");
            writeln!(self.lines, "{time} {}", line.text).expect("memory takes every write");
            if line.level == Level::Error {
                self.errors.extend_from_slice(&self.lines[from..]);
            }
        }
        self.put_out(now);
    }

    fn turn_to(&mut self, date: Date, now: Instant) {
        self.date = date;
        self.output = match self.output {
            Output::Unopened | Output::File(_) => Output::Unopened,
            Output::Stderr { .. } => Output::Stderr { retry_at: now },
        };
    }

    fn put_out(&mut self, now: Instant) {
        if self.lines.is_empty() {
            return;
        }
        let waiting = matches!(self.output, Output::Stderr { retry_at } if now < retry_at);
        let in_file = !waiting && self.append(now);
        // An operator who closed stderr does not want an error about it.
        let _ = self.stderr.write_all(if in_file { &self.errors } else { &self.lines });
        self.lines.clear();
        self.errors.clear();
    }

    /// Writes the lines to the file, opening it if necessary. If that fails, reports it once and
    /// returns false.
    fn append(&mut self, now: Instant) -> bool {
        let path = self.dir.join(file_name(self.date));
        let failed_before = matches!(self.output, Output::Stderr { .. });
        match self.try_append(&path) {
            Ok(()) => {
                if failed_before {
                    let _ = writeln!(self.stderr, "the log is written to {} again", path.display());
                }
                true
            }
            Err(cause) => {
                if !failed_before {
                    let path = path.display();
                    let _ = writeln!(
                        self.stderr,
                        "cannot write the log to {path}: {cause}; its lines go to stderr meanwhile"
                    );
                }
                self.output = Output::Stderr { retry_at: now + RETRY_AFTER };
                false
            }
        }
    }

    fn try_append(&mut self, path: &Path) -> io::Result<()> {
        let mut log = match mem::replace(&mut self.output, Output::Unopened) {
            Output::File(log) if log.is_still_at(path) => log,
            Output::Unopened | Output::File(_) | Output::Stderr { .. } => LogFile::open(path)?,
        };
        // Lines that were partly written before the failure are written to stderr again, in full.
        log.file.write_all(&self.lines)?;
        self.output = Output::File(log);
        Ok(())
    }
}

struct LogFile {
    file: File,
    /// Device and inode, which tell one file from another (stat(2)).
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

    /// Writing to a file that was deleted or moved succeeds, so this has to be checked.
    fn is_still_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.id)
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

fn file_name(date: Date) -> String {
    format!("{:04}-{:02}-{:02}-log.txt", date.year(), date.month(), date.day())
}

/// Lines contain addresses and users: the owner reads and writes, the group reads.
const LOG_MODE: u32 = 0o640;
const RETRY_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    use std::env;
    use std::os::unix::fs::symlink;
    use std::process;
    use std::sync::{Arc, Mutex};

    /// A folder that is removed when the test is over.
    pub(in super::super) struct Folder(pub(in super::super) PathBuf);

    impl Folder {
        pub(in super::super) fn new(name: &str) -> Folder {
            let path = env::temp_dir().join(format!("raybox-logging-{}-{name}", process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

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
        LogLine { at: at.parse().unwrap(), level, text: text.to_owned() }
    }

    fn writer(dir: &Path) -> (LogWriter, Shared) {
        let stderr = Shared::default();
        (LogWriter::new(dir, TimeZone::UTC, Box::new(stderr.clone())), stderr)
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
        assert_eq!(folder.read(DAY_1), "2026-07-09 23:59:59.999 late\n2026-07-09 23:59:59.000 overtaken\n");
        assert_eq!(folder.read(DAY_2), "2026-07-10 00:00:00.000 early\n");
        assert_eq!(stderr.take(), "2026-07-10 00:00:00.000 early\n", "errors are on stderr, too");
    }

    #[test]
    fn the_day_is_the_local_one() {
        let folder = Folder::new("local");
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let mut writer = LogWriter::new(&folder.0, zone, Box::new(Shared::default()));
        writer.write(&[line("2026-07-09T22:30:00Z", Level::Info, "past midnight")], Instant::now());
        assert_eq!(folder.read(DAY_2), "2026-07-10 00:30:00.000 past midnight\n");
    }

    #[test]
    fn a_file_that_exists_is_continued_on_a_new_line() {
        let folder = Folder::new("continued");
        fs::write(folder.0.join(DAY_1), "whole\ncut sho").unwrap();
        for _ in 0..2 {
            let (mut writer, _) = writer(&folder.0);
            writer.write(&[line("2026-07-09T01:02:03Z", Level::Info, "on")], Instant::now());
        }
        let on = "2026-07-09 01:02:03.000 on\n";
        assert_eq!(folder.read(DAY_1), format!("whole\ncut sho\n{on}{on}"));
    }

    #[test]
    fn a_file_or_folder_that_was_removed_is_made_again() {
        let folder = Folder::new("removed");
        let dir = folder.0.join("a/b");
        let (mut writer, stderr) = writer(&dir);
        let mut write = || {
            writer.write(&[line("2026-07-09T01:02:03Z", Level::Info, "here")], Instant::now());
            assert_eq!(fs::read_to_string(dir.join(DAY_1)).unwrap(), "2026-07-09 01:02:03.000 here\n");
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
    fn a_folder_that_cannot_be_made_is_told_once_and_tried_again() {
        let folder = Folder::new("unmade");
        let dir = folder.0.join("logs");
        fs::write(&dir, "a file, not a folder").unwrap();
        let (mut writer, stderr) = writer(&dir);
        let start = Instant::now();
        let info = |text| [line("2026-07-09T01:02:03Z", Level::Info, text)];

        writer.write(&info("one"), start);
        let said = stderr.take();
        assert!(said.starts_with("cannot write the log to "), "{said}");
        assert!(said.ends_with("2026-07-09 01:02:03.000 one\n") && said.lines().count() == 2, "{said}");
        writer.write(&info("two"), start + RETRY_AFTER);
        assert_eq!(stderr.take(), "2026-07-09 01:02:03.000 two\n", "it is said once");

        fs::remove_file(&dir).unwrap();
        writer.write(&info("three"), start + RETRY_AFTER * 2 - Duration::from_millis(1));
        assert_eq!(stderr.take(), "2026-07-09 01:02:03.000 three\n", "not tried yet");
        writer.write(&info("four"), start + RETRY_AFTER * 2);
        assert!(stderr.take().ends_with("-log.txt again\n"));
        assert_eq!(fs::read_to_string(dir.join(DAY_1)).unwrap(), "2026-07-09 01:02:03.000 four\n");
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
        assert_eq!(fs::read_to_string(dir.join(DAY_2)).unwrap(), "2026-07-10 01:02:03.000 two\n");
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
        writer.output = Output::File(LogFile { file, id: (there.dev(), there.ino()) });
        writer.date = "2026-07-09".parse().unwrap();
        let now = Instant::now();
        let error = [line("2026-07-09T01:02:03Z", Level::Error, "kept")];
        writer.write(&error, now);
        let said = stderr.take();
        assert!(said.contains("No space left on device"), "{said}");
        assert!(said.ends_with("\n2026-07-09 01:02:03.000 kept\n") && said.lines().count() == 2, "{said}");

        writer.write(&error, now + RETRY_AFTER);
        assert_eq!(folder.read(DAY_1), "2026-07-09 01:02:03.000 kept\n");
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
        assert!(said.contains("symbolic link") && said.ends_with("2026-07-09 01:02:03.000 one\n"), "{said}");
        assert_eq!(folder.read("precious"), "as it was");

        fs::remove_file(folder.0.join(DAY_1)).unwrap();
        writer.reopen(now);
        writer.write(&info, now);
        assert_eq!(folder.read(DAY_1), "2026-07-09 01:02:03.000 one\n");
        assert_eq!(fs::metadata(folder.0.join(DAY_1)).unwrap().mode() & 0o137, 0, "0640, or less by the umask");

        // A file that was open when a link replaced its name is left alone.
        fs::rename(folder.0.join(DAY_1), folder.0.join("moved")).unwrap();
        symlink(folder.0.join("moved"), folder.0.join(DAY_1)).unwrap();
        writer.write(&info, now);
        assert_eq!(folder.read("moved"), "2026-07-09 01:02:03.000 one\n");
    }
}
