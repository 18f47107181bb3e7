//! [`Decoder`]: finds JSON objects in a stream of bytes.
//!
//! A frame is one JSON object; frames stand back to back, and blanks and NUL bytes between them are
//! ignored:
//!
//! ```text
//!   {"msgType":1,…}{"msgType":4,…}\r\n  keep this socket alive{"msgType":4,"TOID":7,…
//!   └─── frame ───┘└─── frame ───┘└skip┘└────── garbage ──────┘└─ the beginning of one
//! ```
//!
//! A connection may begin with another protocol, see [`Foreign`]; that is shown once, and nothing
//! after it.
//!
//! The decoder finds the end of an object by counting braces outside of strings; it does not
//! validate the content. Most objects are flat and short: their closing brace is recognized from
//! what precedes it, without looking at each byte. Bytes that are not an object are garbage.
//! Garbage ends before a `{` that is not part of an array or a string, with a newline, or where the
//! received data ends. A started object that can no longer become JSON is garbage too, up to the
//! next newline or the end of the received data.
//!
//! To find out that an object has no end, all received bytes are scanned, and again for the next
//! object. A client that opens object after object and closes none could make few bytes cost much
//! scanning, so wasted scanning is limited to a multiple of the bytes consumed. Beyond that, all
//! received bytes are one piece of garbage.
//!
//! The decoder stores no bytes. It scans the received, unconsumed ones, reports the item at their
//! front, and remembers how far it has scanned. So each byte of a frame is scanned once, however
//! the input is segmented.

use super::flat::{FLAT_BYTES_MAX, flat_object};
use super::foreign::{self, DetectedProtocol, Foreign};
use super::json_prefix::JsonPrefix;

/// The item at the front of the received bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item {
    /// One complete JSON object at the front. `line`: a newline follows it.
    Frame {
        /// Its length in bytes, braces included.
        len: usize,
        /// Whether it ends a line: the client reads and writes lines.
        line: bool,
    },
    /// Bytes that are not a frame.
    Garbage {
        /// The number of bytes to skip; 0 if they have been skipped already.
        len: usize,
        /// Whether they end a line.
        line: bool,
    },
    /// A frame longer than allowed; the bytes after it cannot be parsed.
    Oversize,
    /// The line ending of a frame that was taken before it arrived.
    LineEnd {
        /// The number of bytes to skip.
        len: usize,
    },
    /// Bytes without a meaning; look again after them.
    Blank {
        /// The number of bytes to skip.
        len: usize,
    },
    /// The connection begins with HTTP, whose bytes are at the front.
    Http,
    /// The connection begins with another protocol. The bytes after that are not processed.
    Foreign(Foreign),
    /// No complete item before more bytes arrive.
    Incomplete,
}

/// Finds the frames of one connection.
#[derive(Debug)]
pub struct Decoder {
    state: ScanState,
    pub(super) frame_bytes_max: usize,
    /// Whether an item was taken whose line has not ended yet.
    line_open: bool,
    /// Whether the client ends its frames with newlines. The flag belongs to the reader, and is
    /// stored here because there is room for it.
    pub(super) lines: Lines,
    /// The number of bytes that may be scanned in vain before more bytes are taken.
    credit: usize,
}

/// Whether a received frame or garbage has ended a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lines {
    None,
    /// A line has ended, and the writer does not know it yet.
    New,
    Known,
}

#[derive(Debug)]
enum ScanState {
    /// At the beginning of a connection whose protocol is not known. If no more bytes come, those
    /// at the front are garbage.
    Beginning { begun: bool },
    /// Before a frame.
    Between,
    /// Inside a frame that has not ended in the scanned bytes.
    Inside(Scan),
    /// In garbage whose bytes so far were skipped, and which was not reported yet.
    Garbage(Rubbish),
    /// This item was shown and not taken yet.
    Shown(Item),
}

/// The progress of the scan of a started object.
#[derive(Debug)]
struct Scan {
    looked_at: usize,
    depth: usize,
    place: ScanPlace,
    /// Created when the received data ends inside the object.
    prefix: Option<Box<JsonPrefix>>,
}

/// The progress of the scan of garbage.
#[derive(Clone, Copy, Debug)]
struct Rubbish {
    /// Whether the first byte was scanned, so that the kind of garbage is known.
    begun: bool,
    /// The number of open arrays, if the garbage began with one.
    arrays: usize,
    place: ScanPlace,
}

/// The scan's place in the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ScanPlace {
    Outside,
    InString,
    AfterBackslash,
    /// In text without structure, up to the end of the line.
    Broken,
}

impl Decoder {
    /// A decoder at the beginning of a connection, which may speak another protocol. Otherwise like
    /// [`Decoder::new`].
    pub(crate) fn of_connection(frame_bytes_max: usize) -> Decoder {
        let state = ScanState::Beginning { begun: false };
        Decoder { state, ..Decoder::new(frame_bytes_max) }
    }

    /// A decoder at the beginning of a stream that accepts frames of at most `frame_bytes_max`
    /// bytes.
    pub fn new(frame_bytes_max: usize) -> Decoder {
        Decoder {
            state: ScanState::Between,
            frame_bytes_max,
            line_open: false,
            lines: Lines::None,
            credit: credit_max(frame_bytes_max),
        }
    }

    /// Resets the decoder to the beginning of a stream.
    pub(crate) fn restart(&mut self) {
        *self = Decoder::new(self.frame_bytes_max);
    }

    /// Returns the item at the front of `bytes`, which are all received and unconsumed bytes.
    /// `ended`: no more can be read at this moment. The same item is returned until
    /// [`Decoder::taken`] is called.
    ///
    /// ```
    /// use net::{Decoder, Item};
    ///
    /// let mut decoder = Decoder::new(1024);
    /// assert_eq!(decoder.look(b"{\"a\":1", false), Item::Incomplete);
    /// let received = b"{\"a\":1}\n{\"b\":2}";
    /// assert_eq!(decoder.look(received, true), Item::Frame { len: 7, line: true });
    /// decoder.taken();
    /// // The caller has removed the 7 bytes of the frame; its newline is only skipped.
    /// assert_eq!(decoder.look(&received[7..], true), Item::Blank { len: 1 });
    /// ```
    pub fn look(&mut self, bytes: &[u8], ended: bool) -> Item {
        let item = match &mut self.state {
            ScanState::Shown(item) => return *item,
            ScanState::Beginning { .. } => match self.begin(bytes) {
                Some(item) => item,
                None => return self.look(bytes, ended),
            },
            ScanState::Between => self.between(bytes, ended),
            ScanState::Garbage(rubbish) => {
                let rubbish = *rubbish;
                self.garbage(rubbish, bytes, 0, ended)
            }
            ScanState::Inside(_) => self.inside(bytes, ended),
        };
        if !matches!(item, Item::Incomplete | Item::Blank { .. }) {
            self.state = ScanState::Shown(item);
        }
        item
    }

    /// The length of the flat object at the front of `bytes`, if its end is certain: a newline, the
    /// end of the received data or another frame follows. Also says whether the object ends a line.
    /// [`Decoder::look`] would say the same and remember the item; finding it again is as fast.
    /// When the object was taken, call [`Decoder::note_taken`].
    #[inline]
    pub(super) fn flat_frame(&self, bytes: &[u8]) -> Option<(usize, bool)> {
        let (ScanState::Between, [b'{', ..]) = (&self.state, bytes) else { return None };
        let len = flat_object(&bytes[..bytes.len().min(self.frame_bytes_max).min(FLAT_BYTES_MAX)])?;
        match &bytes[len..] {
            [] | [b'{', ..] => Some((len, false)),
            [b'\n', ..] => Some((len, true)),
            _ => None,
        }
    }

    /// Notes that a frame or garbage of this length was taken. At the next call its bytes and the
    /// end of its line are gone from the front.
    #[inline]
    pub(super) fn note_taken(&mut self, len: usize, line: bool) {
        self.line_open = !line;
        self.credit = credit_max(self.frame_bytes_max).min(self.credit + len * CREDIT_PER_BYTE);
    }

    /// Notes that the shown item was taken. Its bytes must be gone from the front at the next call.
    #[inline]
    pub fn taken(&mut self) {
        match self.state {
            ScanState::Shown(Item::Frame { line, len } | Item::Garbage { line, len }) => self.note_taken(len, line),
            ScanState::Shown(Item::LineEnd { .. }) => self.line_open = false,
            ScanState::Shown(
                Item::Oversize | Item::Http | Item::Foreign(_) | Item::Blank { .. } | Item::Incomplete,
            )
            | ScanState::Beginning { .. }
            | ScanState::Between
            | ScanState::Inside(_)
            | ScanState::Garbage(_) => {}
        }
        self.state = ScanState::Between;
    }

    /// Whether a frame is incomplete, or the protocol of the connection is not known yet.
    #[inline]
    pub fn is_inside(&self) -> bool {
        matches!(self.state, ScanState::Inside(_) | ScanState::Beginning { begun: true })
    }

    /// Whether the decoder is before a frame of which it has scanned nothing.
    #[inline]
    pub(super) fn is_between(&self) -> bool {
        matches!(self.state, ScanState::Between)
    }

    /// Whether an item was shown and not taken.
    #[inline]
    pub fn has_shown(&self) -> bool {
        matches!(self.state, ScanState::Shown(_))
    }

    /// Gives up on a started frame: the caller drops its bytes, and the next item is garbage.
    pub fn give_up(&mut self) {
        self.state = ScanState::Shown(Item::Garbage { len: 0, line: false });
    }

    /// Checks whether the connection begins with frames; `None` if it does.
    fn begin(&mut self, bytes: &[u8]) -> Option<Item> {
        let blanks = bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0));
        match blanks {
            Some(0) => {}
            blanks => return Some(blank(blanks.unwrap_or(bytes.len()))),
        }
        match foreign::look(bytes) {
            DetectedProtocol::Frames => {
                self.state = ScanState::Between;
                None
            }
            DetectedProtocol::Undecided => {
                self.state = ScanState::Beginning { begun: true };
                Some(Item::Incomplete)
            }
            DetectedProtocol::Http => Some(Item::Http),
            DetectedProtocol::Foreign(foreign) => Some(Item::Foreign(foreign)),
        }
    }

    fn between(&mut self, bytes: &[u8], ended: bool) -> Item {
        for (at, &byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if self.line_open => return Item::LineEnd { len: at + 1 },
                b' ' | b'\t' | b'\r' | b'\n' | 0 => {}
                b'{' if at > 0 => return Item::Blank { len: at },
                b'{' => {
                    let near = &bytes[..bytes.len().min(self.frame_bytes_max).min(FLAT_BYTES_MAX)];
                    if let Some(len) = flat_object(near) {
                        let line = match &bytes[len..] {
                            [] | [b'{', ..] => false,
                            [b'\n', ..] => true,
                            rest => line_follows(rest),
                        };
                        return Item::Frame { len, line };
                    }
                    let scan = Scan { looked_at: 0, depth: 0, place: ScanPlace::Outside, prefix: None };
                    self.state = ScanState::Inside(scan);
                    return self.inside(bytes, ended);
                }
                _ => {
                    return self.garbage(
                        Rubbish { begun: false, arrays: 0, place: ScanPlace::Outside },
                        bytes,
                        at,
                        ended,
                    );
                }
            }
        }
        blank(bytes.len())
    }

    fn garbage(&mut self, mut rubbish: Rubbish, bytes: &[u8], from: usize, ended: bool) -> Item {
        match rubbish.find_end(&bytes[from..]) {
            Some((len, line)) => Item::Garbage { len: from + len, line },
            None if ended => Item::Garbage { len: bytes.len(), line: false },
            None => {
                self.state = ScanState::Garbage(rubbish);
                blank(bytes.len())
            }
        }
    }

    fn inside(&mut self, bytes: &[u8], ended: bool) -> Item {
        let ScanState::Inside(scan) = &mut self.state else { unreachable!("called in this state only") };
        let end = scan.find_end(bytes);
        let fits = end.unwrap_or(bytes.len()) <= self.frame_bytes_max;
        if let (Some(len), true) = (end, fits) {
            return Item::Frame { len, line: line_follows(&bytes[len..]) };
        }
        if fits && !ended {
            return Item::Incomplete;
        }
        // An object without an end, or with one too far away, may be broken before that; then it
        // ends with its line. Bytes after the first one beyond the limit may not have been received
        // yet, so they must not matter.
        let looked_at = end.map_or(bytes.len(), |end| end - 1).min(self.frame_bytes_max + 1);
        match scan.broken_at(&bytes[..looked_at]) {
            Some(at) => {
                let left = self.credit.checked_sub(end.unwrap_or(bytes.len()));
                self.credit = left.unwrap_or(0);
                let from = if left.is_some() { at } else { bytes.len() };
                self.garbage(Rubbish { begun: true, arrays: 0, place: ScanPlace::Broken }, bytes, from, ended)
            }
            None if fits => Item::Incomplete,
            None => Item::Oversize,
        }
    }
}

impl Scan {
    /// Scans the new bytes; returns the object's length if its closing brace is among them.
    fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let Scan { looked_at: mut at, mut depth, mut place, .. } = *self;
        while let Some(&byte) = bytes.get(at) {
            match (place, byte) {
                (ScanPlace::InString, _) => {
                    // Most of a frame is text, so this only searches for the end of the text.
                    let Some(next) = memchr::memchr2(b'"', b'\\', &bytes[at..]) else { break };
                    at += next;
                    place = if bytes[at] == b'"' { ScanPlace::Outside } else { ScanPlace::AfterBackslash };
                }
                (ScanPlace::AfterBackslash, _) => place = ScanPlace::InString,
                (ScanPlace::Outside, b'"') => place = ScanPlace::InString,
                (ScanPlace::Outside, b'{') => depth += 1,
                (ScanPlace::Outside, b'}') if depth == 1 => return Some(at + 1),
                (ScanPlace::Outside, b'}') => depth -= 1,
                (ScanPlace::Outside | ScanPlace::Broken, _) => {}
            }
            at += 1;
        }
        *self = Scan { looked_at: bytes.len(), depth, place, prefix: self.prefix.take() };
        None
    }

    fn broken_at(&mut self, bytes: &[u8]) -> Option<usize> {
        self.prefix.get_or_insert_with(|| Box::new(JsonPrefix::new())).read(bytes).err()
    }
}

/// Whether the braces of these bytes enclose one object and nothing else.
pub(super) fn is_one_object(bytes: &[u8]) -> bool {
    if bytes.first() != Some(&b'{') {
        return false;
    }
    match flat_object(&bytes[..bytes.len().min(FLAT_BYTES_MAX)]) {
        Some(len) => len == bytes.len(),
        None => {
            let mut scan = Scan { looked_at: 0, depth: 0, place: ScanPlace::Outside, prefix: None };
            scan.find_end(bytes) == Some(bytes.len())
        }
    }
}

/// The credit at the beginning: enough for a handful of broken objects in the most bytes that are
/// ever received together.
fn credit_max(frame_bytes_max: usize) -> usize {
    frame_bytes_max.saturating_mul(16).max(1024 * 1024)
}

/// The number of times that each byte may be scanned in vain, in addition.
const CREDIT_PER_BYTE: usize = 16;

fn blank(len: usize) -> Item {
    if len == 0 { Item::Incomplete } else { Item::Blank { len } }
}

impl Rubbish {
    /// Scans more of the garbage. Returns its length if its end is found, and whether it ends a
    /// line.
    fn find_end(&mut self, bytes: &[u8]) -> Option<(usize, bool)> {
        let mut at = 0;
        loop {
            if self.begun && self.arrays == 0 && self.place == ScanPlace::Outside {
                // No other byte has a meaning here.
                at += memchr::memchr2(b'\n', b'{', &bytes[at..])?;
            }
            let byte = *bytes.get(at)?;
            let may_nest = !std::mem::replace(&mut self.begun, true) || self.arrays > 0;
            match (self.place, byte) {
                (_, b'\n') => return Some((at + 1, true)),
                (ScanPlace::InString, b'"') => self.place = ScanPlace::Outside,
                (ScanPlace::InString, b'\\') => self.place = ScanPlace::AfterBackslash,
                (ScanPlace::AfterBackslash, _) => self.place = ScanPlace::InString,
                (ScanPlace::Outside, b'"') if may_nest => self.place = ScanPlace::InString,
                (ScanPlace::Outside, b'[') if may_nest => self.arrays += 1,
                (ScanPlace::Outside, b']') if self.arrays > 0 => {
                    self.arrays -= 1;
                    if self.arrays == 0 {
                        return Some((at + 1, line_follows(&bytes[at + 1..])));
                    }
                }
                (ScanPlace::Outside, b'{') if self.arrays == 0 => return Some((at, false)),
                (ScanPlace::InString | ScanPlace::Outside | ScanPlace::Broken, _) => {}
            }
            at += 1;
        }
    }
}

/// Whether only blanks separate a frame from the next newline.
fn line_follows(rest: &[u8]) -> bool {
    let after = rest.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
    after == Some(&b'\n')
}

#[cfg(test)]
mod tests;
