//! [`Pace`]: writing to clients that take the bytes of one read for one frame, and are busy after
//! each frame.
//!
//! ```text
//!   written   14 of 12      reply   14 of 5    4          one frame a segment, and so one a read
//!             ├── 12 × each ─┼─ each ┼ 5 × each ┼ each     half of `each` more after every frame
//! ```
//! Frames that become due during a pause wait, and leave joined: those that may be joined become
//! one frame, as long as they fit into a segment. Replies go ahead of frames from others, because
//! such a client takes the next bytes for the reply that it waits for. No reply waits longer than
//! [`REPLY_HELD_MAX`].

use std::io;
use std::time::{Duration, Instant};

use super::{Content, Fate, Joined, Mark, Output, Writing, Written};
use crate::framing::{FrameWriter, Wrapping};

/// The pauses for a client that takes the bytes of one read for one frame. See the module
/// `output/pace.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long such a client is busy with each message that a frame shows.
    pub each: Duration,
    /// Whether all clients that do not read lines are paced. If not, only those are for which
    /// [`Link::use_pace`] was called.
    ///
    /// [`Link::use_pace`]: crate::Link::use_pace
    pub everybody: bool,
    /// The number of messages that a frame shows.
    pub shows: fn(&[u8]) -> usize,
    /// The length of this frame inside a joined frame; `None` if it may not be joined.
    pub joins: fn(&[u8]) -> Option<usize>,
    /// Makes one frame, without a newline, of several.
    pub join: fn(&[&[u8]]) -> Vec<u8>,
}

/// The most bytes of a joined frame. A frame that is one segment is read in one piece. With packets
/// of 1500 bytes this length is one segment for IPv6 with timestamps and through a tunnel.
pub const JOINED_BYTES_MAX: usize = 1300;
/// The most messages of a joined frame, so that no other frame has to wait long for it.
pub const JOINED_MAX: usize = 12;
/// The time for which a reply is held. The client waits for a second.
const REPLY_HELD_MAX: Duration = Duration::from_millis(500);

impl Output {
    /// [`Output::push`] for a paced client: replies go ahead of frames from others that were not
    /// begun.
    pub(crate) fn push_paced(&mut self, frame: &[u8], writer: &mut FrameWriter, fate: Fate, now: Instant) {
        if matches!(fate, Fate::Return(_)) {
            self.push(frame, writer, fate);
            return;
        }
        let begun = usize::from(self.written_of_first > 0);
        let ahead = self.marks.range(self.sent..).enumerate();
        let ahead = ahead.take_while(|(nth, mark)| *nth < begun || mark.returnable() == 0).map(|(_, mark)| mark.len());
        let (count, len) = ahead.fold((0, 0), |(count, all), len| (count + 1, all + len));
        let at = self.written - self.written_of_first + len;
        let before = self.bytes.len();
        let wrapping = writer.wrap(frame, &mut self.bytes);
        let len = self.bytes.len() - before;
        self.bytes[at..].rotate_right(len);
        self.marks.insert(self.sent + count, Mark::new(len, wrapping, Content::Frame(fate)));
        self.reply_since.get_or_insert(now);
        self.check_invariants();
    }

    /// Writes the output that is due at this pace. If `hurry_bytes` of replies or more wait, they
    /// are not held: a client with so many replies is not of the paced kind.
    pub(crate) fn write_paced(
        &mut self,
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
        pace: &Pace,
        now: Instant,
        hurry_bytes: usize,
    ) -> Written {
        while self.pending() > 0 && (self.held_until(now).is_none() || self.pending_replies() >= hurry_bytes) {
            self.join_first(pace);
            let shown = self.first_shows(pace);
            let written = self.write_to(&mut write, Writing::First);
            if written != Written::All {
                return written;
            }
            self.pause = Some(now + pace.each * shown + pace.each / 2);
            let next = self.marks.get(self.sent);
            self.reply_since = next.filter(|next| next.returnable() == 0).map(|_| now);
        }
        Written::All
    }

    /// The time until which nothing is written, if that is later than `now`.
    pub(crate) fn held_until(&self, now: Instant) -> Option<Instant> {
        let pause = self.pause?;
        let reply = self.reply_since.map(|since| since + REPLY_HELD_MAX);
        Some(reply.map_or(pause, |reply| reply.min(pause))).filter(|until| *until > now)
    }

    /// The unwritten bytes of replies.
    pub(crate) fn pending_replies(&self) -> usize {
        self.pending().saturating_sub(self.returnable)
    }

    /// The number of messages that the first unwritten frame shows.
    fn first_shows(&self, pace: &Pace) -> u32 {
        let Some(first) = self.marks.get(self.sent) else { return 0 };
        let shown = match &first.content {
            Content::Joined(joined) => joined.frames.len(),
            Content::Frame(Fate::Return(_)) => 1,
            Content::Frame(Fate::Drop | Fate::Report(_)) => {
                let begin = self.written - self.written_of_first;
                (pace.shows)(&self.bytes[begin..begin + first.len()])
            }
        };
        u32::try_from(shown).unwrap_or(u32::MAX).max(1)
    }

    /// Joins the next frames into one, as long as they are returnable and may be joined. A single
    /// frame stays as it is.
    fn join_first(&mut self, Pace { joins, join, .. }: &Pace) {
        if self.written_of_first > 0 {
            return;
        }
        let (mut frames, mut end, mut room) = (Vec::new(), self.written, JOINED_BYTES_MAX - join(&[]).len());
        for mark in self.marks.range(self.sent..).take(JOINED_MAX) {
            let frame = &self.bytes[end..end + mark.len()];
            let Content::Frame(Fate::Return(label)) = mark.content else { break };
            let Some(left) = joins(frame).filter(|_| mark.is_bare()).and_then(|bytes| room.checked_sub(bytes)) else {
                break;
            };
            frames.push((label, frame));
            (room, end) = (left, end + mark.len());
        }
        if frames.len() < 2 {
            return;
        }
        let count = frames.len();
        let joined = join(&frames.iter().map(|(_, frame)| *frame).collect::<Vec<_>>());
        let frames = frames.into_iter().map(|(label, frame)| (label, frame.into())).collect();
        let mark = Mark::new(joined.len(), Wrapping::default(), Content::Joined(Box::new(Joined { frames })));
        self.returnable = self.returnable - (end - self.written) + mark.returnable();
        self.bytes.splice(self.written..end, joined);
        self.marks.drain(self.sent..self.sent + count);
        self.marks.insert(self.sent, mark);
        self.check_invariants();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Back, tests::*};
    use super::*;
    use crate::label::Label;

    const EACH: Duration = Duration::from_millis(40);

    fn pace() -> Pace {
        Pace {
            each: EACH,
            everybody: true,
            shows: |frame| frame.iter().filter(|byte| **byte == b'+').count() + 1,
            joins: |frame| frame.starts_with(b"m").then_some(frame.len() + 1),
            join: |frames| [b"<", &*frames.join(&b'+'), b">"].concat(),
        }
    }

    /// The bytes written at each of these times, in milliseconds.
    fn written(output: &mut Output, start: Instant, times: &[u64]) -> Vec<(u64, String)> {
        let mut all = Vec::new();
        for millis in times {
            let mut socket = socket(1 << 20, 1 << 20);
            let now = start + Duration::from_millis(*millis);
            assert_eq!(output.write_paced(socket.taking(), &pace(), now, 1000), Written::All);
            all.extend(socket.writes.into_iter().map(|bytes| (*millis, String::from_utf8(bytes).unwrap())));
        }
        all
    }

    #[test]
    fn joined_frames_are_one_write_and_come_back_as_they_were() {
        let (mut output, start) = (Output::default(), Instant::now());
        for frame in ["m1", "m2", "m3", "x4", "m5"] {
            output.push_paced(frame.as_bytes(), &mut FrameWriter::json(), Fate::Return(Label::of(7)), start);
        }
        let times: Vec<u64> = (0..300).collect();
        let expected = [(0, "<m1+m2+m3>"), (140, "x4"), (200, "m5")].map(|(at, text)| (at, text.to_owned()));
        assert_eq!(written(&mut output, start, &times), expected, "40 ms for each message, and 20 for each frame");
        acknowledge(&mut output, 5);
        let back = output.take_back(|_| true, Back::Unacknowledged);
        let expected: Vec<_> = ["m1", "m2", "m3", "x4", "m5"].map(|text| (7, text)).to_vec();
        assert_eq!(texts(&back), expected);
    }

    #[test]
    fn a_joined_frame_fits_into_a_segment_and_is_not_shown_for_too_long() {
        let (mut output, start) = (Output::default(), Instant::now());
        let long = |n: usize| format!("m{n}{}", "x".repeat(400));
        for n in 0..8 {
            output.push_paced(long(n).as_bytes(), &mut FrameWriter::json(), Fate::Return(Label::of(7)), start);
        }
        (0..30).for_each(|n| {
            output.push_paced(format!("m{n}").as_bytes(), &mut FrameWriter::json(), Fate::Return(Label::of(7)), start)
        });
        output.push_paced("m".repeat(5000).as_bytes(), &mut FrameWriter::json(), Fate::Return(Label::of(7)), start);
        let times: Vec<u64> = (0..300).map(|n| n * 10).collect();
        let written = written(&mut output, start, &times);
        let counts: Vec<usize> = written.iter().map(|(_, text)| text.matches('+').count() + 1).collect();
        assert_eq!(counts, [3, 3, 12, 12, 8, 1]);
        assert!(written.iter().all(|(_, text)| text.len() <= JOINED_BYTES_MAX || !text.starts_with('<')));
    }

    #[test]
    fn replies_go_ahead_in_order_and_are_frames_of_their_own() {
        let (mut output, start) = (Output::default(), Instant::now());
        for frame in ["m1", "m2"] {
            output.push_paced(frame.as_bytes(), &mut FrameWriter::json(), Fate::Return(Label::of(7)), start);
        }
        assert_eq!(written(&mut output, start, &[0]).len(), 1);
        for frame in ["m3", "m4"] {
            output.push_paced(frame.as_bytes(), &mut FrameWriter::json(), Fate::Return(Label::of(7)), start);
        }
        output.push_paced(b"first+", &mut FrameWriter::json(), Fate::Drop, start);
        output.push_paced(b"second", &mut FrameWriter::json(), Fate::Report(1), start);
        let times: Vec<u64> = (1..400).collect();
        let expected = [(100, "first+"), (200, "second"), (260, "<m3+m4>")].map(|(at, text)| (at, text.to_owned()));
        assert_eq!(written(&mut output, start, &times), expected);
        assert_eq!(acknowledge(&mut output, 0), [1]);
        assert!(output.is_empty());
    }

    #[test]
    fn a_reply_waits_half_a_second_at_most_but_lets_a_begun_frame_end() {
        let (mut output, start) = (Output::default(), Instant::now());
        output.push_paced(format!("reply{}", "+".repeat(49)).as_bytes(), &mut FrameWriter::json(), Fate::Drop, start);
        assert_eq!(written(&mut output, start, &[0]).len(), 1);
        output.push_paced(b"m1", &mut FrameWriter::json(), Fate::Return(Label::of(7)), start);
        output.push_paced(b"reply", &mut FrameWriter::json(), Fate::Drop, start + Duration::from_millis(10));
        let times: Vec<u64> = (1..3000).collect();
        let expected = [(510, "reply"), (570, "m1")].map(|(at, text)| (at, text.to_owned()));
        assert_eq!(written(&mut output, start, &times), expected);

        let mut output = Output::default();
        output.push_paced(b"m1", &mut FrameWriter::json(), Fate::Return(Label::of(7)), start);
        assert_eq!(output.write_paced(socket(1, 1).taking(), &pace(), start, 1000), Written::Blocked);
        output.push_paced(b"reply", &mut FrameWriter::json(), Fate::Drop, start);
        let expected = [(0, "1"), (60, "reply")].map(|(at, text)| (at, text.to_owned()));
        assert_eq!(written(&mut output, start, &[0, 60]), expected);
    }

    #[test]
    fn many_replies_are_not_held() {
        let (mut output, start) = (Output::default(), Instant::now());
        (0..30).for_each(|_| output.push_paced(&[b'r'; 100], &mut FrameWriter::json(), Fate::Drop, start));
        assert_eq!(written(&mut output, start, &[0]).len(), 21, "until they are less than is too much");
    }
}
