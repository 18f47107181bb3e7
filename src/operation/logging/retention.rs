//! [`LogRetention`]: the log files that are deleted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::ToSpan;
use jiff::civil::Date;

/// How long log files are kept, and how many bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct LogRetention {
    /// The number of days after which files are deleted.
    pub(super) days: Option<u32>,
    /// The total size beyond which the oldest files are deleted.
    pub(super) bytes_max: Option<u64>,
}

/// The day of a log file, and its number if another file was begun later that day.
type FileKey = (Date, u32);

impl LogRetention {
    /// The size at which the file of a day is renamed and a new one is begun, so that there are
    /// files to delete.
    pub(super) fn file_bytes_max(&self) -> u64 {
        self.bytes_max.map_or(u64::MAX, |bytes| bytes / FILES_MIN)
    }

    /// Deletes files beyond the limits, but never the file of `today` that is being written.
    /// Another process may do the same in the same folder. Returns the number of deleted files. A
    /// file that cannot be deleted is skipped.
    pub(super) fn apply(&self, dir: &Path, today: Date) -> io::Result<usize> {
        if self.days.is_none() && self.bytes_max.is_none() {
            return Ok(0);
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Some(key) = entry.file_name().to_str().and_then(key_of) else { continue };
            if let Ok(metadata) = fs::symlink_metadata(entry.path())
                && metadata.is_file()
            {
                files.push((key, metadata.len(), entry.path()));
            }
        }
        // Newest first. The file without a number is the newest of its day.
        files.sort_unstable_by(|(a, ..), (b, ..)| b.cmp(a));
        let oldest = self.days.and_then(|days| today.checked_sub(i64::from(days).days()).ok());
        // The file in use grows after this.
        let bytes_max = self.bytes_max.map(|bytes| bytes - self.file_bytes_max());
        let (mut total, mut deleted) = (0_u64, 0);
        for (key, bytes, path) in files {
            if key == (today, NEWEST) {
                continue;
            }
            total = total.saturating_add(bytes);
            let is_too_old = oldest.is_some_and(|oldest| key.0 < oldest);
            let is_too_much = bytes_max.is_some_and(|max| total > max);
            if (is_too_old || is_too_much) && fs::remove_file(path).is_ok() {
                total -= bytes;
                deleted += 1;
            }
        }
        Ok(deleted)
    }
}

/// The file of a day.
pub(super) fn file_name(date: Date) -> String {
    format!("{:04}-{:02}-{:02}{ENDING}", date.year(), date.month(), date.day())
}

/// The name of a full file, which is newer than all full files of its day.
pub(super) fn name_for_full(dir: &Path, date: Date) -> io::Result<PathBuf> {
    let mut last = 0;
    for entry in fs::read_dir(dir)? {
        if let Some((_, number)) = entry?.file_name().to_str().and_then(key_of).filter(|(day, _)| *day == date)
            && number != NEWEST
        {
            last = last.max(number);
        }
    }
    let stem = file_name(date);
    let stem = stem.strip_suffix(ENDING).unwrap_or(&stem);
    Ok(dir.join(format!("{stem}.{}{ENDING}", last.saturating_add(1))))
}

/// The day and the number in the name of a log file; `None` for any other file.
fn key_of(name: &str) -> Option<FileKey> {
    let stem = name.strip_suffix(ENDING)?;
    let (date, number) = stem.split_once('.').map_or((stem, None), |(date, number)| (date, Some(number)));
    let is_plain = |text: &str, len| text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit());
    let [year, month, day] = date.split('-').collect::<Vec<_>>().try_into().ok()?;
    if !(is_plain(year, 4) && is_plain(month, 2) && is_plain(day, 2)) {
        return None;
    }
    let date = Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()?;
    let number = match number {
        None => NEWEST,
        Some(digits) if is_plain(digits, digits.len()) => digits.parse().ok().filter(|number| *number < NEWEST)?,
        Some(_) => return None,
    };
    Some((date, number))
}

const ENDING: &str = "-log.txt";
/// Stands for the number of the file that is being written.
const NEWEST: u32 = u32::MAX;
/// A file is full when it has this part of the total size.
const FILES_MIN: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::folder::Folder;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_log_files_are_recognised() {
        let day = "2026-07-09".parse().unwrap();
        assert_eq!(key_of("2026-07-09-log.txt"), Some((day, NEWEST)));
        assert_eq!(key_of("2026-07-09.12-log.txt"), Some((day, 12)));
        for other in [
            "2026-07-09-log.txt.gz",
            "2026-13-09-log.txt",
            "2026-7-9-log.txt",
            "x-log.txt",
            "-log.txt",
            "2026-07-09.-log.txt",
            "2026-07-09.x-log.txt",
            "2026-07-09.4294967295-log.txt",
            "2026-07-09-10-log.txt",
            "+026-07-09-log.txt",
        ] {
            assert_eq!(key_of(other), None, "{other}");
        }
    }

    #[test]
    fn old_files_go_and_others_stay() {
        let folder = Folder::new("days");
        for name in ["2026-07-01-log.txt", "2026-07-02-log.txt", "2026-07-09-log.txt", "notes.txt", "raybox.db"] {
            fs::write(folder.0.join(name), "x").unwrap();
        }
        let retention = LogRetention { days: Some(7), bytes_max: None };
        retention.apply(&folder.0, "2026-07-09".parse().unwrap()).unwrap();
        assert_eq!(names(&folder.0), ["2026-07-02-log.txt", "2026-07-09-log.txt", "notes.txt", "raybox.db"]);
    }

    #[test]
    fn the_oldest_go_until_the_rest_has_room_but_never_the_one_in_use() {
        let folder = Folder::new("bytes");
        for (name, len) in [
            ("2026-07-08-log.txt", 30),
            ("2026-07-09.1-log.txt", 30),
            ("2026-07-09.2-log.txt", 30),
            ("2026-07-09-log.txt", 30),
            ("other.txt", 1000),
        ] {
            fs::write(folder.0.join(name), vec![b'x'; len]).unwrap();
        }
        let today = "2026-07-09".parse().unwrap();
        // A quarter of it is for the file in use.
        assert_eq!(LogRetention { days: None, bytes_max: Some(80) }.apply(&folder.0, today).unwrap(), 1);
        assert_eq!(
            names(&folder.0),
            ["2026-07-09-log.txt", "2026-07-09.1-log.txt", "2026-07-09.2-log.txt", "other.txt"]
        );
        assert_eq!(LogRetention { days: None, bytes_max: Some(1) }.apply(&folder.0, today).unwrap(), 2);
        assert_eq!(names(&folder.0), ["2026-07-09-log.txt", "other.txt"]);
    }

    #[test]
    fn a_full_file_gets_a_number_above_all_others_of_its_day() {
        let folder = Folder::new("full-name");
        let day = "2026-07-09".parse().unwrap();
        assert_eq!(name_for_full(&folder.0, day).unwrap(), folder.0.join("2026-07-09.1-log.txt"));
        // The first has been deleted, and the new one is not older than the second.
        fs::write(folder.0.join("2026-07-09.2-log.txt"), "x").unwrap();
        fs::write(folder.0.join("2026-07-08.7-log.txt"), "x").unwrap();
        assert_eq!(name_for_full(&folder.0, day).unwrap(), folder.0.join("2026-07-09.3-log.txt"));
    }
}
