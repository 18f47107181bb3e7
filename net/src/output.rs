//! [`Output`]: what waits to be written to one connection, frame by frame.
//!
//! ```text
//!   bytes   ░░░░░░░░░░░░▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓
//!   marks   │ reply  │ returnable 7 │ receipt 3  │      one mark a frame, its bytes adding up to the buffer's
//!           0           ↑ written                         the socket has taken these
//! ```
//!
//! Frames keep their borders until they are written, so that those which a dying connection did not take can be
//! given back to whoever sent them. A connection with nothing to write holds no buffer: buffers come from and return
//! to a [`BufferPool`] of the thread that writes.

use std::collections::VecDeque;
use std::io::{self, Write};

/// What becomes of a frame that the connection does not take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is worthless without this connection: a reply.
    Drop,
    /// It is given back under this label, see [`Link::take_back`](crate::Link::take_back) and
    /// [`Handler::on_unsent`](crate::Handler::on_unsent).
    Return(u32),
    /// It is dropped; but when the socket has taken it all, [`Handler::on_sent`](crate::Handler::on_sent) hears this label.
    Report(u32),
}

/// Bytes and the borders in them.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    written: usize,
    marks: VecDeque<Mark>,
    /// How many bytes of the first mark were written.
    written_of_first: usize,
    /// Bytes of the frames that can be given back, those of the first one as if nothing of it were written.
    returnable: usize,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    len: usize,
    line: bool,
    fate: Fate,
}

impl Mark {
    fn returnable(&self) -> usize {
        match self.fate {
            Fate::Return(_) => self.len,
            Fate::Drop | Fate::Report(_) => 0,
        }
    }
}

/// What a write came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Written {
    /// Everything was taken.
    All,
    /// The socket takes no more at present.
    Blocked,
    /// The connection is dead.
    Broken,
}

impl Output {
    pub(crate) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Bytes that were not written.
    pub(crate) fn pending(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Bytes that others have sent to this client and that were not written: what makes a slow consumer.
    pub(crate) fn returnable(&self) -> usize {
        self.returnable
    }

    pub(crate) fn push(&mut self, frame: &[u8], line: bool, fate: Fate) {
        self.bytes.extend_from_slice(frame);
        if line {
            self.bytes.push(b'\n');
        }
        let mark = Mark { len: frame.len() + usize::from(line), line, fate };
        self.returnable += mark.returnable();
        self.marks.push_back(mark);
    }

    /// Writes until all is written or the socket would block: everything at once when the client reads lines, else each
    /// frame by itself. `reports` receives the labels of the frames that asked for it and are out.
    pub(crate) fn write_to(&mut self, mut socket: impl Write, coalesce: bool, reports: &mut Vec<u32>) -> Written {
        while let Some(first) = self.marks.front() {
            let end = if coalesce { self.bytes.len() } else { self.written + first.len - self.written_of_first };
            match socket.write(&self.bytes[self.written..end]) {
                Ok(count) => self.advance(count, reports),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.forget_written();
                    return Written::Blocked;
                }
                Err(_) => return Written::Broken,
            }
        }
        self.bytes.clear();
        self.written = 0;
        self.check_invariants();
        Written::All
    }

    fn advance(&mut self, count: usize, reports: &mut Vec<u32>) {
        self.written += count;
        self.written_of_first += count;
        while let Some(first) = self.marks.front().filter(|first| first.len <= self.written_of_first) {
            self.written_of_first -= first.len;
            if let Fate::Report(label) = first.fate {
                reports.push(label);
            }
            self.returnable -= first.returnable();
            self.marks.pop_front();
        }
    }

    /// Drops the bytes of whole written frames once they are most of the buffer, so that a slow reader's buffer does
    /// not grow by what was written long ago.
    fn forget_written(&mut self) {
        let whole = self.written - self.written_of_first;
        if whole > self.bytes.len() / 2 {
            self.bytes.drain(..whole);
            self.written -= whole;
        }
        self.check_invariants();
    }

    /// Removes the frames with fate [`Fate::Return`] of these labels, in order, without their line ending. A frame of
    /// which a part was written stays, because the stream would be garbled, unless `even_started`.
    pub(crate) fn take_back(&mut self, wanted: impl Fn(u32) -> bool, even_started: bool) -> Vec<(u32, Box<[u8]>)> {
        let is_wanted = |mark: &Mark| matches!(mark.fate, Fate::Return(label) if wanted(label));
        // A connection may be many users, most of whom have nothing here.
        if !self.marks.iter().any(is_wanted) {
            return Vec::new();
        }
        let mut taken = Vec::new();
        let mut kept = Output::default();
        let mut start = self.written - self.written_of_first;
        for (nth, mark) in self.marks.drain(..).enumerate() {
            let bytes = &self.bytes[start..start + mark.len];
            start += mark.len;
            let started = nth == 0 && self.written_of_first > 0;
            match mark.fate {
                Fate::Return(label) if wanted(label) && (even_started || !started) => {
                    taken.push((label, bytes[..mark.len - usize::from(mark.line)].into()));
                }
                Fate::Return(_) | Fate::Drop | Fate::Report(_) => {
                    kept.bytes.extend_from_slice(bytes);
                    kept.returnable += mark.returnable();
                    kept.marks.push_back(mark);
                    if started {
                        (kept.written, kept.written_of_first) = (self.written_of_first, self.written_of_first);
                    }
                }
            }
        }
        kept.check_invariants();
        *self = kept;
        taken
    }

    /// Called once a write, not once a frame: it visits all marks.
    fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            let marked: usize = self.marks.iter().map(|mark| mark.len).sum();
            assert_eq!(marked - self.written_of_first, self.pending(), "marks and bytes tell the same length");
            let first = self.marks.front().map_or(1, |mark| mark.len);
            assert!(self.written_of_first < first, "a written frame has no mark");
            let returnable: usize = self.marks.iter().map(Mark::returnable).sum();
            assert_eq!(returnable, self.returnable, "what can be given back is counted");
        }
    }
}

/// Empty outputs that still have their memory, for one thread.
///
/// They are boxed because a link has room for a pointer only: most links have nothing to write.
#[derive(Debug, Default)]
#[expect(clippy::vec_box)]
pub(crate) struct BufferPool {
    spare: Vec<Box<Output>>,
}

impl BufferPool {
    const OUTPUTS_MAX: usize = 256;
    const BYTES_MAX: usize = 64 * 1024;

    pub(crate) fn get(&mut self) -> Box<Output> {
        self.spare.pop().unwrap_or_default()
    }

    pub(crate) fn put(&mut self, output: Box<Output>) {
        debug_assert!(output.is_empty());
        if self.spare.len() < Self::OUTPUTS_MAX && output.bytes.capacity() <= Self::BYTES_MAX {
            self.spare.push(output);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes in all, and at most `step` at once.
    struct Socket {
        room: usize,
        step: usize,
        writes: Vec<Vec<u8>>,
    }

    impl Write for Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.step).min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= count;
            self.writes.push(bytes[..count].to_vec());
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn socket(room: usize, step: usize) -> Socket {
        Socket { room, step, writes: Vec::new() }
    }

    #[test]
    fn bare_frames_are_written_one_by_one_and_lines_together() {
        for (coalesce, writes) in [(false, vec![b"ab".to_vec(), b"cde".to_vec()]), (true, vec![b"abcde".to_vec()])] {
            let mut output = Output::default();
            output.push(b"ab", false, Fate::Drop);
            output.push(b"cde", false, Fate::Drop);
            let mut socket = socket(100, 100);
            assert_eq!(output.write_to(&mut socket, coalesce, &mut Vec::new()), Written::All);
            assert_eq!(socket.writes, writes);
        }
    }

    #[test]
    fn a_report_comes_when_the_last_byte_is_out() {
        let mut output = Output::default();
        output.push(b"abc", true, Fate::Report(5));
        let mut reports = Vec::new();
        assert_eq!(output.write_to(&mut socket(3, 1), true, &mut reports), Written::Blocked);
        assert_eq!((reports.len(), output.pending()), (0, 1));
        assert_eq!(output.write_to(&mut socket(1, 1), true, &mut reports), Written::All);
        assert_eq!(reports, [5]);
    }

    #[test]
    fn what_was_not_written_comes_back_in_order_without_line_ends() {
        let mut output = Output::default();
        for (frame, fate) in [("one", 1), ("two", 2), ("three", 1), ("four", 1)] {
            output.push(frame.as_bytes(), true, Fate::Return(fate));
        }
        output.write_to(&mut socket(1, 1), true, &mut Vec::new());
        let back = output.take_back(|label| label == 1, false);
        assert_eq!(back, [(1, (*b"three").into()), (1, (*b"four").into())]);
        assert_eq!(output.pending(), 7, "what was started and what is for others stays");
        let back = output.take_back(|_| true, true);
        assert_eq!(back, [(1, (*b"one").into()), (2, (*b"two").into())]);
        assert!(output.is_empty());
    }

    #[test]
    fn a_slow_reader_does_not_make_the_buffer_grow() {
        let mut output = Output::default();
        for _ in 0..1000 {
            output.push(&[7; 100], false, Fate::Drop);
            output.write_to(&mut socket(99, 99), false, &mut Vec::new());
        }
        assert!(output.bytes.len() < 4 * output.pending() + 1000);
    }
}
