//! [`Output`]: the frames that wait to be written to one connection, and those that were written
//! and may not have arrived.
//!
//! ```text
//!   bytes   ░░░░░░░░▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓
//!   marks           │ for 7 │ reply │ for 3 │ reply │ for 7 │      one mark a frame, its bytes adding up to the buffer's
//!           forgotten ↑ kept          ↑ written: the socket has taken these
//! ```
//!
//! Frame boundaries are remembered until the peer's kernel has acknowledged the frames, so that
//! frames that a dying connection did not bring to its client can be returned to their senders.
//! Frames that are never returned are dropped as soon as they are written, unless they follow a
//! frame that may be returned. A connection with nothing to write and nothing unacknowledged holds
//! no buffer. Buffers come from and return to a [`BufferPool`](crate::buffer_pool::BufferPool) of
//! the writing thread.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::framing::{FrameWriter, Wrapping};
use crate::label::Label;

mod pace;

pub use pace::{JOINED_BYTES_MAX, JOINED_MAX, Pace};

/// The fate of a frame that the connection does not bring to its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The frame is dropped, because it is useless without this connection: a reply.
    Drop,
    /// The frame is returned with this label, see [`Link::take_back`](crate::Link::take_back) and
    /// [`Handler::on_unsent`](crate::Handler::on_unsent).
    Return(Label),
    /// The frame is dropped; but when the peer's kernel has acknowledged all of it,
    /// [`Handler::on_sent`](crate::Handler::on_sent) is called with this label.
    Report(u32),
}

/// The frames that are returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Back {
    /// Frames whose writing has not begun: the connection lives, and brings the others to its
    /// client.
    Unwritten,
    /// Frames that the peer's kernel has not acknowledged: the connection brings nothing to its
    /// client any more.
    Unacknowledged,
}

/// The limit of one call that writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writing {
    /// Everything, in as few writes as possible: the client reads lines.
    Together,
    /// Everything, each frame in a write of its own.
    OneByOne,
    /// The first frame only.
    First,
}

/// Bytes and the frame boundaries in them.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    /// The position of the first mark's frame.
    kept: usize,
    /// The position up to which the socket has taken the bytes.
    written: usize,
    marks: VecDeque<Mark>,
    /// The number of marks at the front that are completely written.
    sent: usize,
    /// The number of these marks whose acknowledgement is to be reported.
    sent_reports: usize,
    /// The written bytes of the first mark that is not completely written.
    written_of_first: usize,
    /// The bytes of the returnable frames that are not completely written; the first counts in
    /// full.
    returnable: usize,
    /// All bytes that the socket took of this output, and how many of them were acknowledged at the
    /// last query: negative while the kernel still holds bytes from before this output existed.
    written_total: i64,
    acknowledged_total: i64,
    /// The time since which the peer's kernel has owed an acknowledgement and given none.
    waits_since: Option<Instant>,
    /// The kernel is not asked (SIOCOUTQ) while fewer written bytes than this are kept.
    ask_at: usize,
    /// The time of the link's next errand.
    pub(crate) errand: Option<Instant>,
    /// The pause between two queries for an acknowledgement that is to be reported.
    pub(crate) report_pause: Duration,
    /// The time until which nothing more is written, if writes are paced.
    pub(crate) pause: Option<Instant>,
    /// The time at which the first pending reply began to wait, if writes are paced.
    reply_since: Option<Instant>,
}

#[derive(Debug)]
struct Mark {
    /// The length of the frame in the buffer, head and tail included.
    len: u32,
    /// The bytes around the frame itself.
    wrapping: Wrapping,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Frame(Fate),
    /// Several returnable frames, joined into one to be written.
    Joined(Box<Joined>),
}

/// The original frames of a joined one.
#[derive(Debug)]
struct Joined {
    frames: Vec<(Label, Box<[u8]>)>,
}

// Thousands of marks may be kept for one client.
const _: () = assert!(size_of::<Mark>() == 24);

impl Mark {
    fn new(len: usize, wrapping: Wrapping, content: Content) -> Mark {
        Mark { len: u32::try_from(len).expect("frames are shorter than 4 GiB"), wrapping, content }
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

    /// The frame as it was sent to the link, from its bytes in the buffer.
    fn payload<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[usize::from(self.wrapping.head)..bytes.len() - usize::from(self.wrapping.tail)]
    }

    fn is_bare(&self) -> bool {
        self.wrapping == Wrapping::default()
    }

    fn is_worthless(&self) -> bool {
        matches!(self.content, Content::Frame(Fate::Drop))
    }

    fn has(&self, wanted: &impl Fn(&Label) -> bool) -> bool {
        match &self.content {
            Content::Frame(Fate::Return(label)) => wanted(label),
            Content::Frame(Fate::Drop | Fate::Report(_)) => false,
            Content::Joined(joined) => joined.frames.iter().any(|(label, _)| wanted(label)),
        }
    }
}

/// The result of a write.
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
    /// Whether nothing waits to be written, and nothing written is still needed.
    pub(crate) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// The number of bytes that were not written.
    pub(crate) fn pending(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// The unwritten bytes that others have sent to this client: too many make it a slow consumer.
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

    /// Whether nothing new need be planned: the written bytes await only an acknowledgement, no
    /// report is due, and an errand is planned already. That errand is a second ahead at most,
    /// because this output has no pauses.
    pub(crate) fn only_awaits_errand(&self, now: Instant) -> bool {
        self.sent > 0
            && self.sent_reports == 0
            && self.pause.is_none()
            && self.errand.is_some_and(|errand| errand > now)
    }

    /// Whether enough was written since the last query to ask the kernel again.
    pub(crate) fn is_much_sent(&self) -> bool {
        self.written - self.kept > self.ask_at.max(SENT_BYTES_STEP)
    }

    /// The time since which the peer's kernel owes an acknowledgement, as of the last query.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        self.waits_since
    }

    pub(crate) fn push(&mut self, frame: &[u8], writer: &mut FrameWriter, fate: Fate) {
        let before = self.bytes.len();
        let wrapping = writer.wrap(frame, &mut self.bytes);
        let mark = Mark::new(self.bytes.len() - before, wrapping, Content::Frame(fate));
        debug_assert_eq!(mark.payload(&self.bytes[before..]), frame, "it can be given back");
        self.returnable += mark.returnable();
        self.marks.push_back(mark);
    }

    /// Queues these bytes to be written as they are.
    pub(crate) fn push_raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.marks.push_back(Mark::new(bytes.len(), Wrapping::default(), Content::Frame(Fate::Drop)));
    }

    /// Writes as much as `how` says, or until the socket would block.
    pub(crate) fn write_to(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>, how: Writing) -> Written {
        let stop_at = if how == Writing::First { self.sent + 1 } else { usize::MAX };
        let written = loop {
            let Some(first) = self.marks.get(self.sent).filter(|_| self.sent < stop_at) else { break Written::All };
            let end = match how {
                Writing::Together => self.bytes.len(),
                Writing::OneByOne | Writing::First => self.written + first.len() - self.written_of_first,
            };
            match write(&self.bytes[self.written..end]) {
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

    /// Notes that the peer's kernel has acknowledged all written bytes except the last
    /// `unacknowledged`. `reports` gets the labels of the frames that asked for a report.
    pub(crate) fn acknowledge(&mut self, unacknowledged: usize, reports: &mut Vec<u32>) {
        let acknowledged = self.written.saturating_sub(unacknowledged);
        while self.sent > 0
            && let Some(first) = self.marks.front()
            && self.kept + first.len() <= acknowledged
        {
            if let Content::Frame(Fate::Report(label)) = first.content {
                self.sent_reports -= 1;
                reports.push(label);
            }
            self.forget_first();
        }
        self.forget_worthless();
        self.ask_at = self.written - self.kept + SENT_BYTES_STEP;
    }

    /// Notes the time since which the peer's kernel has owed an acknowledgement; the time is known
    /// only from one query to the next. Returns whether something was acknowledged since the last
    /// query.
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

    /// Drops the first mark, which is written and no longer needed.
    #[inline]
    fn forget_first(&mut self) {
        if let Some(first) = self.marks.pop_front() {
            self.sent -= 1;
            self.kept += first.len();
        }
    }

    /// Drops the written frames that precede everything that may be returned or reported. Removes
    /// their bytes once they are most of the buffer, so that a slow reader's buffer does not
    /// contain bytes written long ago.
    #[inline]
    fn forget_worthless(&mut self) {
        // Most often the first mark is needed, and its frame is near the front of the buffer.
        let is_needed = self.marks.front().is_some_and(|first| self.sent == 0 || !first.is_worthless());
        if !is_needed || self.is_mostly_kept() {
            self.forget_front();
        }
        self.check_invariants();
    }

    /// Whether most of the buffer is bytes that are no longer needed.
    fn is_mostly_kept(&self) -> bool {
        self.kept > self.bytes.len() / 2
    }

    #[inline(never)]
    fn forget_front(&mut self) {
        while self.sent > 0 && self.marks[0].is_worthless() {
            self.forget_first();
        }
        if self.marks.is_empty() {
            self.bytes.clear();
            (self.kept, self.written) = (0, 0);
        } else if self.is_mostly_kept() {
            self.bytes.drain(..self.kept);
            self.written -= self.kept;
            self.kept = 0;
        }
    }

    /// Removes the frames with fate [`Fate::Return`] and a wanted label, in order, as they were
    /// sent to the link. A frame whose writing has begun stays in the output as long as anything is
    /// written, because otherwise the stream would be garbled.
    pub(crate) fn take_back(&mut self, wanted: impl Fn(&Label) -> bool, back: Back) -> Vec<(Label, Box<[u8]>)> {
        // A connection may have many users, most of whom have nothing here.
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
                        taken.push((label, mark.payload(frame).into()));
                        mark.content = Content::Frame(Fate::Drop);
                    }
                    Content::Frame(Fate::Drop | Fate::Report(_)) => unreachable!("nobody wants it"),
                    Content::Joined(mut joined) => {
                        taken.extend(joined.frames.extract_if(.., |(label, _)| wanted(label)));
                        mark.content = match joined.frames.is_empty() {
                            true => Content::Frame(Fate::Drop),
                            false => Content::Joined(joined),
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

    /// Changes the labels of all returnable frames.
    pub(crate) fn relabel(&mut self, mut change: impl FnMut(&mut Label)) {
        for mark in &mut self.marks {
            match &mut mark.content {
                Content::Frame(Fate::Return(label)) => change(label),
                Content::Frame(Fate::Drop | Fate::Report(_)) => {}
                Content::Joined(joined) => joined.frames.iter_mut().for_each(|(label, _)| change(label)),
            }
        }
    }

    /// Resets the output, but keeps its memory. Nothing may be pending or awaited.
    pub(crate) fn clear(&mut self) {
        let Output { bytes, marks, .. } = std::mem::take(self);
        *self = Output { bytes, marks, ..Output::default() };
    }

    /// The bytes of memory that the output holds.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    /// Visits all marks; if there are many, it runs only now and then.
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

/// The number of written bytes after which the kernel is asked again: rarely enough to cost
/// nothing, often enough to keep the copies small.
const SENT_BYTES_STEP: usize = 8 * 1024;

#[cfg(test)]
mod tests;
