//! JSON objects back to back: the default framing. [`Decoder`] describes its input.
//!
//! Sent frames end with a newline as soon as the client has ended a frame or garbage with one: such
//! a client reads lines.

use super::codec::{Decoder, Item, Lines};
use super::found::{FoundItem, Notice, Piece, Wrapping};

#[derive(Debug)]
pub(crate) struct JsonReader {
    decoder: Decoder,
}

#[derive(Debug, Default)]
pub(crate) struct JsonWriter {
    /// Whether frames end with a newline and may share a write.
    line: bool,
    /// Whether something was sent without a newline.
    bare_sent: bool,
}

impl JsonReader {
    pub(super) fn new(frame_bytes_max: usize) -> JsonReader {
        JsonReader { decoder: Decoder::of_connection(frame_bytes_max) }
    }

    pub(super) fn frame_bytes_max(&self) -> usize {
        self.decoder.frame_bytes_max
    }

    #[inline]
    pub(super) fn find(&mut self, bytes: &[u8], ended: bool) -> FoundItem {
        // The usual case, and so fast that nothing is remembered until the frame is taken.
        if let Some((len, line)) = self.decoder.flat_frame(bytes) {
            self.note_line(line);
            return FoundItem::Frame(Piece { head: 0, len, tail: usize::from(line) });
        }
        match self.decoder.look(bytes, ended) {
            Item::Frame { len, line } => {
                self.note_line(line);
                // The end of the line belongs to the frame, unless blanks precede it.
                let tail = match &bytes[len..] {
                    [b'\n', ..] if line => 1,
                    [b'\r', b'\n', ..] if line => 2,
                    _ => 0,
                };
                FoundItem::Frame(Piece { head: 0, len, tail })
            }
            Item::Garbage { len, line } => {
                self.note_line(line);
                FoundItem::Garbage { len }
            }
            Item::LineEnd { len } => {
                self.decoder.taken();
                self.note_line(true);
                FoundItem::Skip { len }
            }
            Item::Blank { len } => FoundItem::Skip { len },
            Item::Oversize => FoundItem::Oversize,
            Item::Http => FoundItem::BeginsHttp,
            Item::Foreign(foreign) => FoundItem::Foreign(foreign),
            Item::Incomplete => FoundItem::Incomplete,
        }
    }

    fn note_line(&mut self, line: bool) {
        if line && self.decoder.lines == Lines::None {
            self.decoder.lines = Lines::New;
        }
    }

    #[inline]
    pub(super) fn notice(&mut self) -> Option<Notice> {
        if self.decoder.lines != Lines::New {
            return None;
        }
        self.decoder.lines = Lines::Known;
        Some(Notice::Lines)
    }

    #[inline]
    pub(super) fn taken(&mut self, frame: Option<Piece>) {
        match frame {
            Some(frame) if !self.decoder.has_shown() => self.decoder.note_taken(frame.len, frame.tail > 0),
            Some(_) | None => self.decoder.taken(),
        }
    }

    #[inline]
    pub(super) fn has_shown(&self) -> bool {
        self.decoder.has_shown()
    }

    #[inline]
    pub(super) fn awaits_bytes(&self) -> bool {
        self.decoder.is_between()
    }

    #[inline]
    pub(super) fn is_inside(&self) -> bool {
        self.decoder.is_inside()
    }

    pub(super) fn give_up(&mut self) {
        self.decoder.give_up();
    }

    pub(super) fn forget(&mut self) {
        self.decoder.restart();
    }
}

impl JsonWriter {
    #[inline]
    pub(super) fn wrap(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Wrapping {
        out.extend_from_slice(frame);
        if self.line {
            out.push(b'\n');
        } else {
            self.bare_sent = true;
        }
        Wrapping { head: 0, tail: u8::from(self.line) }
    }

    #[inline]
    pub(super) fn is_bare(&self) -> bool {
        !self.line
    }

    /// Ends every frame with a newline from now on. Returns whether frames were sent without; then
    /// one newline terminates them now.
    pub(super) fn use_lines(&mut self) -> bool {
        !std::mem::replace(&mut self.line, true) && self.bare_sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_goes_with_the_end_of_its_line() {
        for (bytes, tail, notice) in [
            ("{}", 0, None),
            ("{}{}", 0, None),
            ("{}\n{}", 1, Some(Notice::Lines)),
            ("{}\r\n", 2, Some(Notice::Lines)),
            ("{} \n", 0, Some(Notice::Lines)),
            ("{}\r", 0, None),
        ] {
            let mut reader = JsonReader::new(100);
            let found = reader.find(bytes.as_bytes(), false);
            assert_eq!(found, FoundItem::Frame(Piece { head: 0, len: 2, tail }), "{bytes:?}");
            assert_eq!(reader.notice(), notice, "{bytes:?}");
            assert_eq!(reader.notice(), None, "it is said once");
        }
    }

    #[test]
    fn a_line_that_ends_late_changes_what_is_written_once() {
        let mut reader = JsonReader::new(100);
        let frame = Piece { head: 0, len: 2, tail: 0 };
        assert_eq!(reader.find(b"{}", false), FoundItem::Frame(frame));
        reader.taken(Some(frame));
        assert_eq!(reader.find(b" \n{}", false), FoundItem::Skip { len: 2 });
        assert_eq!(reader.notice(), Some(Notice::Lines));
        assert_eq!(reader.find(b"{}\n", false), FoundItem::Frame(Piece { head: 0, len: 2, tail: 1 }));
        assert_eq!(reader.notice(), None);
    }

    #[test]
    fn frames_sent_before_the_first_line_are_ended_by_a_newline() {
        let (mut writer, mut out) = (JsonWriter::default(), Vec::new());
        assert_eq!(writer.wrap(b"{}", &mut out), Wrapping { head: 0, tail: 0 });
        assert!(writer.is_bare() && writer.use_lines() && !writer.use_lines() && !writer.is_bare());
        assert_eq!(writer.wrap(b"", &mut out), Wrapping { head: 0, tail: 1 });
        assert_eq!(writer.wrap(b"{}", &mut out), Wrapping { head: 0, tail: 1 });
        assert_eq!(out, b"{}\n{}\n");
        assert!(!JsonWriter::default().use_lines(), "nothing was sent");
    }
}
