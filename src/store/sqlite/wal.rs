//! Whether a write-ahead log belongs to the database beside it.
//!
//! SQLite applies a log to any database that it finds beside it. After a crash, an operator who
//! restores a backup of `raybox.db` and leaves `raybox.db-wal` would get a mixture of both: a
//! damaged database.
//!
//! Page 1 distinguishes them. Its header contains a change counter, which each start of this server
//! raises in the database itself (`open.rs`), and a schema cookie, which a copy made by SQLite
//! changes. The log contains the later versions of page 1:
//!
//! ```text
//!   database: counter n          log: page 1 with counters n or n + 1, … up to m; the same cookie
//! ```
//! SQLite increments the counter by one each time, so if a database's counter is not in this range,
//! the log was written for another database. The layouts are those of
//! <https://sqlite.org/fileformat2.html>.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

use super::paths::beside;

/// The relation of a log to the database beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Log {
    /// There is none, or it is empty, or it belongs to the database.
    Good,
    /// It is the log of another database.
    Foreign,
    /// It has changes, and their database is missing.
    Orphaned,
}

/// Inspects the log of `database`. Call it before SQLite has the file open in this process: closing
/// a file releases SQLite's locks on it (fcntl(2)).
///
/// # Errors
/// One of the files cannot be read.
pub(super) fn look(database: &Path) -> io::Result<Log> {
    let Some(images) = Images::read(&beside(database, "-wal"))? else { return Ok(Log::Good) };
    let mut header = [0; HEADER_BYTES];
    match File::open(database).and_then(|mut file| file.read_exact(&mut header)) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => {
            return Ok(Log::Orphaned);
        }
        Err(error) => return Err(error),
    }
    let database = PageOne::of(&header);
    Ok(if images.may_follow(database) { Log::Good } else { Log::Foreign })
}

/// The version numbers in the header of a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct PageOne {
    changes: u32,
    cookie: u32,
    /// The version of our tables.
    schema: u32,
}

impl PageOne {
    fn of(page: &[u8]) -> PageOne {
        PageOne { changes: number(page, 24), cookie: number(page, 40), schema: number(page, 60) }
    }
}

/// The first and the last committed image of page 1 in a log with content.
#[derive(Debug)]
struct Images {
    ends: Option<(PageOne, PageOne)>,
}

impl Images {
    /// `None` if the log has no committed change.
    fn read(log: &Path) -> io::Result<Option<Images>> {
        let mut log = match File::open(log) {
            Ok(file) => BufReader::with_capacity(1 << 20, file),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut header = [0; LOG_HEADER_BYTES];
        if !fill(&mut log, &mut header)? {
            return Ok(None);
        }
        let page_bytes = number(&header, 8) as usize;
        let magic = number(&header, 0);
        if magic & !1 != MAGIC || !page_bytes.is_power_of_two() || !(512..=65536).contains(&page_bytes) {
            return Ok(None);
        }
        let mut sum = WalChecksum { is_big_endian: magic & 1 == 1, value: (0, 0) };
        sum.add(&header[..24]);
        if sum.value != (number(&header, 24), number(&header, 28)) {
            return Ok(None);
        }
        // SQLite uses everything up to the last commit with correct checksums, and so does this
        // code.
        let (mut ends, mut uncommitted, mut is_empty) = (None, None, true);
        let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
        while fill(&mut log, &mut frame)? {
            let (head, page) = frame.split_at(FRAME_HEADER_BYTES);
            sum.add(&head[..8]);
            sum.add(page);
            if head[8..16] != header[16..24] || sum.value != (number(head, 16), number(head, 20)) {
                break;
            }
            if number(head, 0) == 1 {
                uncommitted = Some(PageOne::of(page));
            }
            let is_commit = number(head, 4) != 0;
            if is_commit {
                is_empty = false;
                if let Some(image) = uncommitted.take() {
                    ends = Some((ends.map_or(image, |(first, _)| first), image));
                }
            }
        }
        Ok((!is_empty).then_some(Images { ends }))
    }

    /// Whether the log may have been begun on this database, perhaps with some of it already
    /// applied.
    fn may_follow(&self, database: PageOne) -> bool {
        // A log without page 1 proves nothing. The writer makes sure that such a log is rare.
        let Some((first, last)) = self.ends else { return true };
        let is_of_its_time = (first.changes.wrapping_sub(1)..=last.changes).contains(&database.changes);
        // A change of the tables in the log raises the cookie: VACUUM, ANALYZE or an index of an
        // operator by one, and a migration by more. A copy has a higher one (VACUUM INTO), or one
        // that starts again (.backup).
        let may_have_raised = (first.cookie.wrapping_sub(1)..=last.cookie).contains(&database.cookie);
        is_of_its_time && (may_have_raised || database.schema != last.schema)
    }
}

/// The checksum that runs through a log.
struct WalChecksum {
    is_big_endian: bool,
    value: (u32, u32),
}

impl WalChecksum {
    fn add(&mut self, bytes: &[u8]) {
        let word = |bytes: &[u8]| {
            let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
            if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        let (mut a, mut b) = self.value;
        for pair in bytes.chunks_exact(8) {
            a = a.wrapping_add(word(&pair[..4])).wrapping_add(b);
            b = b.wrapping_add(word(&pair[4..])).wrapping_add(a);
        }
        self.value = (a, b);
    }
}

/// Fills the buffer; false if the file is too short.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

const MAGIC: u32 = 0x377f_0682;
const HEADER_BYTES: usize = 100;
const LOG_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
