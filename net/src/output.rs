//! [`Output`]: what waits to be written to one connection, frame by frame, and what was written and may not have arrived.
//!
//! ```text
//!   bytes   ░░░░░░░░▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓
//!   marks           │ for 7 │ reply │ for 3 │ reply │ for 7 │      one mark a frame, its bytes adding up to the buffer's
//!           forgotten ↑ kept          ↑ written: the socket has taken these
//! ```
//!
//! Frames keep their borders until the peer's kernel has acknowledged them, so that those which a dying connection did not
//! bring to its client can be given back to whoever sent them. What is never given back is forgotten as soon as it is
//! written, unless it stands behind a frame that may be. A connection with nothing to write and nothing to be acknowledged
//! holds no buffer: buffers come from and return to a [`BufferPool`](crate::buffer_pool::BufferPool) of the thread that writes.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::{Duration, Instant};

mod pace;

pub use pace::{JOINED_BYTES_MAX, JOINED_MAX, Pace};

/// What becomes of a frame that the connection does not bring to its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is worthless without this connection: a reply.
    Drop,
    /// It is given back under this label, see [`Link::take_back`](crate::Link::take_back) and
    /// [`Handler::on_unsent`](crate::Handler::on_unsent).
    Return(u32),
    /// It is dropped; but when the peer's kernel has acknowledged it all, [`Handler::on_sent`](crate::Handler::on_sent)
    /// hears this label.
    Report(u32),
}

/// Which frames are given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Back {
    /// Those that were not begun: the connection lives, and brings the others to its client.
    Unwritten,
    /// Those that the peer's kernel has not acknowledged: the connection brings nothing to anybody any more.
    Unacknowledged,
}

/// How much one call writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writing {
    /// Everything, in as few writes as possible: the client reads lines.
    Together,
    /// Everything, each frame in a write of its own.
    OneByOne,
    /// The first frame.
    First,
}

/// Bytes and the borders in them.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    /// Where the first mark's frame begins.
    kept: usize,
    /// Up to where the socket has taken the bytes.
    written: usize,
    marks: VecDeque<Mark>,
    /// How many marks, at the front, are wholly written.
    sent: usize,
    /// How many of those report when they are acknowledged.
    sent_reports: usize,
    /// How many bytes of the first mark that is not wholly written were written.
    written_of_first: usize,
    /// Bytes of the frames that can be given back and are not wholly written, as if nothing of the first were written.
    returnable: usize,
    /// All bytes that the socket took of this output, and how many of them were acknowledged when the kernel was
    /// last asked: negative while the kernel still holds bytes from before this output existed.
    written_total: i64,
    acknowledged_total: i64,
    /// Since when the peer's kernel owes an acknowledgement and has given none.
    waits_since: Option<Instant>,
    /// The kernel is not asked (SIOCOUTQ) while fewer written bytes than this are kept.
    ask_at: usize,
    /// When the next look after it is due: the link's.
    pub(crate) errand: Option<Instant>,
    /// How long the link waits between two looks for an acknowledgement that is to be reported.
    pub(crate) report_pause: Duration,
    /// Until when nothing more is written, if writes are paced.
    pub(crate) pause: Option<Instant>,
    /// Since when the first reply waits, if writes are paced.
    reply_since: Option<Instant>,
}

#[derive(Debug)]
struct Mark {
    len: u32,
    line: bool,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Frame(Fate),
    /// Several frames that are given back, joined into one to be written: their labels, and the frames as they were.
    Joined(Box<[(u32, Box<[u8]>)]>),
}

impl Mark {
    fn new(len: usize, line: bool, content: Content) -> Mark {
        Mark { len: u32::try_from(len).expect("frames are shorter than 4 GiB"), line, content }
    }

    fn len(&self) -> usize {
        self.len as usize
    }

    fn returnable(&self) -> usize {
        match self.content {
            Content::Frame(Fate::Return(_)) | Content::Joined(_) => self.len(),
            Content::Frame(Fate::Drop | Fate::Report(_)) => 0,
        }
    }

    fn is_worthless(&self) -> bool {
        matches!(self.content, Content::Frame(Fate::Drop))
    }

    fn has(&self, wanted: &impl Fn(u32) -> bool) -> bool {
        match &self.content {
            Content::Frame(Fate::Return(label)) => wanted(*label),
            Content::Frame(Fate::Drop | Fate::Report(_)) => false,
            Content::Joined(frames) => frames.iter().any(|(label, _)| wanted(*label)),
        }
    }
}

/// What a write came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Written {
    /// Everything that was to be written was taken.
    All,
    /// The socket takes no more at present.
    Blocked,
    /// The connection is dead.
    Broken,
}

impl Output {
    /// Nothing waits to be written, and nothing that was written is of interest any more.
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

    /// Whether something was written that may not have arrived.
    pub(crate) fn has_sent(&self) -> bool {
        self.sent > 0
    }

    /// Whether the acknowledgement of something that was written is to be reported.
    pub(crate) fn awaits_report(&self) -> bool {
        self.sent_reports > 0
    }

    /// Whether so much was written since the kernel was asked that it is to be asked again.
    pub(crate) fn is_much_sent(&self) -> bool {
        self.written - self.kept > self.ask_at.max(SENT_BYTES_STEP)
    }

    /// Since when the peer's kernel owes an acknowledgement and has given none, when it was last asked.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        self.waits_since
    }

    pub(crate) fn push(&mut self, frame: &[u8], line: bool, fate: Fate) {
        self.bytes.extend_from_slice(frame);
        if line {
            self.bytes.push(b'\n');
        }
        let mark = Mark::new(frame.len() + usize::from(line), line, Content::Frame(fate));
        self.returnable += mark.returnable();
        self.marks.push_back(mark);
    }

    /// Writes as much as it is told to, or until the socket would block.
    pub(crate) fn write_to(&mut self, mut socket: impl Write, how: Writing) -> Written {
        let stop_at = if how == Writing::First { self.sent + 1 } else { usize::MAX };
        let written = loop {
            let Some(first) = self.marks.get(self.sent).filter(|_| self.sent < stop_at) else { break Written::All };
            let end = match how {
                Writing::Together => self.bytes.len(),
                Writing::OneByOne | Writing::First => self.written + first.len() - self.written_of_first,
            };
            match socket.write(&self.bytes[self.written..end]) {
                Ok(count) => self.advance(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Written::Blocked,
                Err(_) => break Written::Broken,
            }
        };
        self.forget_worthless();
        written
    }

    fn advance(&mut self, count: usize) {
        self.written += count;
        self.written_of_first += count;
        self.written_total += count as i64;
        while let Some(first) = self.marks.get(self.sent).filter(|first| first.len() <= self.written_of_first) {
            self.written_of_first -= first.len();
            self.returnable -= first.returnable();
            self.sent_reports += usize::from(matches!(first.content, Content::Frame(Fate::Report(_))));
            self.sent += 1;
        }
    }

    /// Hears that the peer's kernel has acknowledged all that was written but the last `unacknowledged` bytes. `reports`
    /// receives the labels of the frames that asked for it.
    pub(crate) fn acknowledge(&mut self, unacknowledged: usize, reports: &mut Vec<u32>) {
        let acknowledged = self.written.saturating_sub(unacknowledged);
        while self.sent > 0 && self.kept + self.marks[0].len() <= acknowledged {
            if let Some(Mark { content: Content::Frame(Fate::Report(label)), .. }) = self.forget_first() {
                self.sent_reports -= 1;
                reports.push(label);
            }
        }
        self.forget_worthless();
        self.ask_at = self.written - self.kept + SENT_BYTES_STEP;
    }

    /// Notes since when the peer's kernel owes an acknowledgement, which is known only from one look to the next. Whether
    /// it has acknowledged something since the last look.
    pub(crate) fn note_progress(&mut self, unacknowledged: usize, now: Instant) -> bool {
        let total = self.written_total.saturating_sub(i64::try_from(unacknowledged).unwrap_or(i64::MAX));
        let has_progressed = total > self.acknowledged_total;
        if unacknowledged == 0 {
            self.waits_since = None;
        } else if self.waits_since.is_none() || has_progressed {
            self.waits_since = Some(now);
        }
        self.acknowledged_total = total;
        has_progressed
    }

    /// Nobody asks what became of the first mark, which is written.
    fn forget_first(&mut self) -> Option<Mark> {
        let first = self.marks.pop_front()?;
        self.sent -= 1;
        self.kept += first.len();
        Some(first)
    }

    /// Drops what is written and in front of everything that may be given back or reported; and its bytes once they are
    /// most of the buffer, so that a slow reader's buffer does not grow by what was written long ago.
    fn forget_worthless(&mut self) {
        while self.sent > 0 && self.marks[0].is_worthless() {
            self.forget_first();
        }
        if self.marks.is_empty() {
            self.bytes.clear();
            (self.kept, self.written) = (0, 0);
        } else if self.kept > self.bytes.len() / 2 {
            self.bytes.drain(..self.kept);
            self.written -= self.kept;
            self.kept = 0;
        }
        self.check_invariants();
    }

    /// Removes the frames with fate [`Fate::Return`] of these labels, in order, without their line ending. What was begun
    /// goes on being written all the same, if anything is: the stream would be garbled.
    pub(crate) fn take_back(&mut self, wanted: impl Fn(u32) -> bool, back: Back) -> Vec<(u32, Box<[u8]>)> {
        // A connection may be many users, most of whom have nothing here.
        if !self.marks.iter().any(|mark| mark.has(&wanted)) {
            return Vec::new();
        }
        let mut taken = Vec::new();
        let mut start = self.kept;
        let (mut bytes, mut returnable) = (self.bytes[..self.kept].to_vec(), 0);
        let begun = self.sent + usize::from(self.written_of_first > 0);
        let old = std::mem::take(&mut self.marks);
        for (nth, mut mark) in old.into_iter().enumerate() {
            let frame = &self.bytes[start..start + mark.len()];
            start += mark.len();
            let is_begun = nth < begun || matches!(mark.content, Content::Joined(_));
            if mark.has(&wanted) && (back == Back::Unacknowledged || !is_begun) {
                match mark.content {
                    Content::Frame(Fate::Return(label)) => {
                        taken.push((label, frame[..mark.len() - usize::from(mark.line)].into()));
                        mark.content = Content::Frame(Fate::Drop);
                    }
                    Content::Frame(Fate::Drop | Fate::Report(_)) => unreachable!("nobody wants it"),
                    Content::Joined(frames) => {
                        let (mine, others): (Vec<_>, Vec<_>) =
                            frames.into_iter().partition(|(label, _)| wanted(*label));
                        taken.extend(mine);
                        mark.content = match others.is_empty() {
                            true => Content::Frame(Fate::Drop),
                            false => Content::Joined(others.into()),
                        };
                    }
                }
                if !is_begun {
                    continue;
                }
            }
            bytes.extend_from_slice(frame);
            returnable += if nth < self.sent { 0 } else { mark.returnable() };
            self.marks.push_back(mark);
        }
        (self.bytes, self.returnable) = (bytes, returnable);
        self.forget_worthless();
        taken
    }

    /// What is to be given back under one label is to be given back under another.
    pub(crate) fn relabel(&mut self, from: u32, to: u32) {
        let relabel = |label: &mut u32| *label = if *label == from { to } else { *label };
        for mark in &mut self.marks {
            match &mut mark.content {
                Content::Frame(Fate::Return(label)) => relabel(label),
                Content::Frame(Fate::Drop | Fate::Report(_)) => {}
                Content::Joined(frames) => frames.iter_mut().for_each(|(label, _)| relabel(label)),
            }
        }
    }

    /// Makes it like a new one, but for its memory. Nothing is pending in it, and nothing is awaited.
    pub(crate) fn clear(&mut self) {
        let Output { bytes, marks, .. } = std::mem::take(self);
        *self = Output { bytes, marks, ..Output::default() };
    }

    /// Bytes of memory that it holds.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    /// It visits all marks; when they are many, only now and then.
    fn check_invariants(&self) {
        if cfg!(debug_assertions) && (self.marks.len() < 64 || self.written_total % 64 == 0) {
            assert!(self.kept <= self.written && self.written <= self.bytes.len());
            let marked: usize = self.marks.iter().map(Mark::len).sum();
            assert_eq!(marked, self.bytes.len() - self.kept, "marks and bytes tell the same length");
            let sent: usize = self.marks.range(..self.sent).map(Mark::len).sum();
            assert_eq!(self.kept + sent + self.written_of_first, self.written, "what is sent is written");
            let first = self.marks.get(self.sent).map_or(1, Mark::len);
            assert!(self.written_of_first < first, "a written frame counts as sent");
            let returnable: usize = self.marks.range(self.sent..).map(Mark::returnable).sum();
            assert_eq!(returnable, self.returnable, "what can be given back is counted");
        }
    }
}

/// How much more may be written until the kernel is asked what has arrived: rarely enough that it costs nothing, often
/// enough that the copies stay small.
const SENT_BYTES_STEP: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes so many bytes in all, and at most `step` at once.
    pub(super) struct Socket {
        room: usize,
        step: usize,
        pub(super) writes: Vec<Vec<u8>>,
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

    pub(super) fn socket(room: usize, step: usize) -> Socket {
        Socket { room, step, writes: Vec::new() }
    }

    fn write(output: &mut Output, room: usize) -> Written {
        output.write_to(&mut socket(room, usize::MAX), Writing::Together)
    }

    pub(super) fn acknowledge(output: &mut Output, unacknowledged: usize) -> Vec<u32> {
        let mut reports = Vec::new();
        output.acknowledge(unacknowledged, &mut reports);
        reports
    }

    pub(super) fn texts(back: &[(u32, Box<[u8]>)]) -> Vec<(u32, &str)> {
        back.iter().map(|(label, frame)| (*label, str::from_utf8(frame).unwrap())).collect()
    }

    #[test]
    fn bare_frames_are_written_one_by_one_and_lines_together() {
        for (how, writes) in [
            (Writing::OneByOne, vec![b"ab".to_vec(), b"cde".to_vec()]),
            (Writing::Together, vec![b"abcde".to_vec()]),
            (Writing::First, vec![b"ab".to_vec()]),
        ] {
            let mut output = Output::default();
            output.push(b"ab", false, Fate::Drop);
            output.push(b"cde", false, Fate::Drop);
            let mut socket = socket(100, 100);
            assert_eq!(output.write_to(&mut socket, how), Written::All);
            assert_eq!(socket.writes, writes);
            assert_eq!(output.is_empty(), how != Writing::First, "replies are not kept");
        }
    }

    #[test]
    fn a_report_comes_when_the_last_byte_is_acknowledged() {
        let mut output = Output::default();
        output.push(b"abc", true, Fate::Report(5));
        assert_eq!(write(&mut output, 3), Written::Blocked);
        assert_eq!((acknowledge(&mut output, 0), output.pending(), output.awaits_report()), (vec![], 1, false));
        assert_eq!(write(&mut output, 1), Written::All);
        assert!(output.awaits_report());
        assert_eq!(acknowledge(&mut output, 1), [], "the last byte is not there");
        assert_eq!(acknowledge(&mut output, 0), [5]);
        assert!(output.is_empty());
    }

    #[test]
    fn what_was_not_begun_comes_back_from_a_living_connection_in_order_without_line_ends() {
        let mut output = Output::default();
        for (frame, label) in [("zero", 1), ("one", 1), ("two", 2), ("three", 1), ("four", 1)] {
            output.push(frame.as_bytes(), true, Fate::Return(label));
        }
        write(&mut output, 6);
        let back = output.take_back(|label| label == 1, Back::Unwritten);
        assert_eq!(texts(&back), [(1, "three"), (1, "four")]);
        assert_eq!(output.pending(), 7, "what was begun and what is for others stays");
        let back = output.take_back(|_| true, Back::Unacknowledged);
        assert_eq!(texts(&back), [(1, "zero"), (1, "one"), (2, "two")]);
        assert_eq!(output.take_back(|_| true, Back::Unacknowledged), [], "they come back once");
    }

    #[test]
    fn what_the_peer_has_not_acknowledged_comes_back_rounded_to_whole_frames() {
        for (unacknowledged, expected) in [
            (0, &["late"][..]),
            (1, &["c-33", "late"]),
            (5, &["c-33", "late"]),
            (6, &["c-33", "late"]),
            (7, &["b-2", "c-33", "late"]),
            (8, &["b-2", "c-33", "late"]),
            (13, &["a-1", "b-2", "c-33", "late"]),
            (usize::MAX, &["a-1", "b-2", "c-33", "late"]),
        ] {
            let mut output = Output::default();
            // Written: 3 bytes, 3 bytes, a reply of 2 that is worth nothing, 4 bytes. Then one that was never written.
            output.push(b"a-1", false, Fate::Return(1));
            output.push(b"b-2", false, Fate::Return(1));
            output.push(b"{}", false, Fate::Drop);
            output.push(b"c-33", false, Fate::Return(1));
            assert_eq!(write(&mut output, 100), Written::All);
            output.push(b"late", false, Fate::Return(1));
            acknowledge(&mut output, unacknowledged);
            let back = output.take_back(|_| true, Back::Unacknowledged);
            let texts: Vec<_> = texts(&back).into_iter().map(|(_, text)| text).collect();
            assert_eq!(texts, expected, "{unacknowledged} bytes are not acknowledged");
        }
    }

    #[test]
    fn what_was_begun_is_given_back_and_yet_written_to_its_end() {
        let mut output = Output::default();
        output.push(b"begun", false, Fate::Return(1));
        output.push(b"not begun", false, Fate::Return(1));
        output.push(b"{}", false, Fate::Drop);
        write(&mut output, 2);
        let back = output.take_back(|_| true, Back::Unacknowledged);
        assert_eq!(texts(&back), [(1, "begun"), (1, "not begun")]);
        let mut socket = socket(100, 100);
        assert_eq!(output.write_to(&mut socket, Writing::Together), Written::All);
        assert_eq!(socket.writes, [b"gun{}"]);
        assert!(output.is_empty());
    }

    #[test]
    fn a_peer_that_owes_an_acknowledgement_is_noticed_from_one_look_to_the_next() {
        let (mut output, start) = (Output::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        output.push(b"abc", false, Fate::Return(1));
        write(&mut output, 100);
        assert_eq!(output.waits_since(), None);
        output.note_progress(3, later(1));
        output.note_progress(3, later(2));
        assert_eq!(output.waits_since(), Some(later(1)));
        output.note_progress(2, later(3));
        assert_eq!(output.waits_since(), Some(later(3)), "it has acknowledged something");
        output.note_progress(0, later(4));
        assert_eq!(output.waits_since(), None);
    }

    #[test]
    fn a_peer_that_acknowledges_what_was_written_before_makes_progress() {
        let (mut output, start) = (Output::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        output.push(b"abc", false, Fate::Return(1));
        write(&mut output, 100);
        // The kernel still has much of a reply of which nothing is kept here.
        output.note_progress(1_000_003, later(1));
        output.note_progress(600_003, later(2));
        assert_eq!(output.waits_since(), Some(later(2)));
        output.note_progress(600_003, later(3));
        assert_eq!(output.waits_since(), Some(later(2)));
    }

    #[test]
    fn a_slow_reader_does_not_make_the_buffer_grow() {
        for fate in [Fate::Drop, Fate::Return(1)] {
            let mut output = Output::default();
            for _ in 0..1000 {
                output.push(&[7; 100], false, fate);
                output.write_to(&mut socket(99, 99), Writing::OneByOne);
                if output.is_much_sent() {
                    acknowledge(&mut output, 500);
                }
            }
            let kept = output.pending() + SENT_BYTES_STEP + 500;
            assert!(output.bytes.len() < 2 * kept + 1000, "{fate:?}: {}", output.bytes.len());
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize, u32),
        Write(usize),
        Acknowledge(usize),
        TakeBack(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..40usize, 0..4u32).prop_map(|(len, label)| Step::Push(len, label)),
            (0..100usize).prop_map(Step::Write),
            (0..60usize).prop_map(Step::Acknowledge),
            (1..4u32).prop_map(Step::TakeBack),
        ]
    }

    proptest! {
        /// Whatever happens, each frame is wholly acknowledged, or comes back in the end, in order; and twice only if it was
        /// written and not acknowledged when it came back.
        #[test]
        fn nothing_is_lost_between_the_writer_and_the_peer(steps in prop::collection::vec(step(), 0..60)) {
            let mut output = Output::default();
            // What the peer's kernel has got, and the order of what was pushed and has to come to one of its ends.
            let (mut wire, mut pushed, mut got_back) = (Vec::new(), Vec::new(), Vec::new());
            let mut unacknowledged = 0;
            for (nth, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(len, label) => {
                        let frame = format!("[{nth}:{label}:{}]", "x".repeat(len));
                        let fate = if label == 0 { Fate::Drop } else { Fate::Return(label) };
                        output.push(frame.as_bytes(), false, fate);
                        if label > 0 {
                            pushed.push((label, frame));
                        }
                    }
                    Step::Write(room) => {
                        let mut socket = socket(room, 7);
                        output.write_to(&mut socket, Writing::OneByOne);
                        let bytes = socket.writes.concat();
                        unacknowledged += bytes.len();
                        wire.extend(bytes);
                    }
                    Step::Acknowledge(left) => {
                        unacknowledged = unacknowledged.min(left);
                        output.acknowledge(unacknowledged, &mut Vec::new());
                    }
                    Step::TakeBack(label) => {
                        let back = output.take_back(|other| other == label, Back::Unwritten);
                        got_back.extend(texts(&back).into_iter().map(|(label, text)| (label, text.to_owned())));
                    }
                }
            }
            let back = output.take_back(|_| true, Back::Unacknowledged);
            let unsure: Vec<_> = texts(&back).into_iter().map(|(label, text)| (label, text.to_owned())).collect();
            let arrived = String::from_utf8(wire[..wire.len() - unacknowledged].to_vec()).unwrap();
            for frame in &pushed {
                let ends = (
                    arrived.contains(&frame.1),
                    got_back.contains(frame),
                    unsure.contains(frame),
                );
                prop_assert!(
                    matches!(ends, (true, false, false) | (false, true, false) | (false, false, true)),
                    "{frame:?}: arrived, came back early, came back in the end: {ends:?}"
                );
            }
            for list in [&got_back, &unsure] {
                for label in 1..4 {
                    let of_label: Vec<_> = list.iter().filter(|(other, _)| *other == label).collect();
                    let in_order: Vec<_> = pushed.iter().filter(|frame| of_label.contains(frame)).collect();
                    prop_assert_eq!(of_label, in_order);
                }
            }
        }
    }
}
