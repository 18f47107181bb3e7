//! [`Transcript`]: the frames of conversations that are written to one connection, in their order.
//!
//! It knows which 41, 42 or 44 may come next in a conversation. When there is something to write, and
//! what is read for it, the [`Pump`](super::Pump) decides.

use std::sync::Arc;

use super::event::{Command, Commands, Row};
use super::progress::{Progress, PumpStage};
use crate::base::conversation::{ConversationId, ConversationName, Seq};
use crate::history::cursor::{self, Extent};
use crate::history::places::PlaceMark;
use crate::history::sends::{RowOrigin, Sends};
use crate::protocol::UserId;
use crate::protocol::level2::frames::{self, Committed, RunHead};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Transcript {
    user: UserId,
    pub(super) progress: Progress,
    pub(super) sends: Sends,
    /// Bytes that the client's kernel has not acknowledged.
    pub(super) waiting: usize,
}

/// How far a page was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shown {
    /// All of it.
    All,
    /// Up to a message whose origin is unknown.
    Held,
    /// Up to the last message of a membership.
    Ended,
    /// Up to a number that is missing, or nothing though there is something: the store promises
    /// that this cannot be. It is asked again after a pause.
    Hole,
    /// Up to a message in whose place another one was written meanwhile. It is read again.
    Contradicted,
}

impl Transcript {
    /// Of a connection of `user` to which nothing was written.
    pub(super) fn new(user: UserId) -> Transcript {
        Transcript { user, progress: Progress::new(), sends: Sends::default(), waiting: 0 }
    }

    /// The user.
    pub(super) fn user(&self) -> UserId {
        self.user
    }

    /// What the user calls this conversation.
    pub(super) fn name(&self, conv: ConversationId) -> ConversationName {
        conv.name_for(self.user)
    }

    /// Writes a frame.
    pub(super) fn write(&mut self, frame: impl Into<Arc<str>>, out: &mut Commands) {
        let frame = frame.into();
        self.waiting += frame.len();
        out.push(Command::Write(frame));
    }

    /// Where this message comes from.
    pub(super) fn origin(&self, conv: ConversationId, row: &Row) -> RowOrigin {
        if row.from == self.user { self.sends.origin(conv, row.at) } else { RowOrigin::Elsewhere }
    }

    /// Writes the next message of a conversation.
    pub(super) fn show(&mut self, conv: ConversationId, row: Row, out: &mut Commands) {
        let place = self.progress.places.entry(conv);
        debug_assert_eq!(row.at.seq, place.sent() + 1);
        place.advance(row.at);
        self.write(row.frame, out);
        self.progress.end_if_last(conv);
    }

    /// Writes the messages of a page that were not written yet.
    pub(super) fn show_rows(
        &mut self,
        conv: ConversationId,
        rows: Vec<Row>,
        extent: Extent,
        out: &mut Commands,
    ) -> Shown {
        let before = self.progress.sent(conv);
        for row in rows {
            let (sent, seq) = (self.progress.sent(conv), row.at.seq);
            if self.progress.places.entry(conv).contradicts(row.at, None) {
                return Shown::Contradicted;
            }
            if seq <= sent {
                continue;
            }
            if seq > sent + 1 {
                return Shown::Hole;
            }
            self.acknowledge_replaced(conv, row.at, out);
            match self.origin(conv, &row) {
                RowOrigin::Elsewhere => self.show(conv, row, out),
                RowOrigin::Next(at) => self.acknowledge(conv, at, false, out),
                RowOrigin::Unknown => {
                    self.sends.hold(conv, seq, extent.head.max(seq));
                    return Shown::Held;
                }
            }
            if self.progress.places.get(conv).is_none() {
                return Shown::Ended;
            }
        }
        let sent = self.progress.sent(conv);
        if sent == before && sent < extent.head { Shown::Hole } else { Shown::All }
    }

    /// Writes the 41s whose turn it is.
    pub(super) fn settle(&mut self, conv: ConversationId, out: &mut Commands) {
        loop {
            self.write_ready(conv, out);
            let Some((at, before)) = self.sends.next_placed(conv) else { break };
            let place = *self.progress.places.entry(conv);
            // A 44 has moved the place beyond this message: as a repeat it moves nothing.
            let again = at.seq <= place.sent();
            let is_of_another = !again && place.contradicts(at, before);
            if is_of_another {
                // What was written, or this message, is lost. A page says which.
                self.progress.set_behind(conv);
            }
            let must_wait = place.has(PlaceMark::Run) && !again || at.seq > place.sent() + 1 || is_of_another;
            if self.progress.stage != PumpStage::Live || must_wait {
                break;
            }
            self.acknowledge(conv, at, again, out);
        }
        if let Some(last) = self.sends.release(conv) {
            self.progress.raise(conv, last);
        }
        self.sends.tidy(conv);
    }

    /// Writes the 41s that wait for no message.
    fn write_ready(&mut self, conv: ConversationId, out: &mut Commands) {
        while let Some(text) = self.sends.next_ready(conv) {
            self.write(text, out);
        }
    }

    /// Acknowledges all that is committed, wherever it stands.
    fn acknowledge_all(&mut self, conv: ConversationId, out: &mut Commands) {
        self.write_ready(conv, out);
        while let Some((at, _)) = self.sends.next_placed(conv) {
            self.acknowledge(conv, at, true, out);
            self.write_ready(conv, out);
        }
    }

    /// Acknowledges what was committed and is lost, because another message has its number.
    fn acknowledge_replaced(&mut self, conv: ConversationId, row: Committed, out: &mut Commands) {
        while let Some((at, _)) = self.sends.next_placed(conv)
            && at.seq == row.seq
            && at.tag != row.tag
        {
            self.acknowledge(conv, at, true, out);
            self.write_ready(conv, out);
        }
    }

    /// Acknowledges what was committed and is lost, as a page shows that was asked for since: the
    /// conversation ends before it, or goes on from another message.
    pub(super) fn acknowledge_lost(&mut self, conv: ConversationId, head: Seq, out: &mut Commands) {
        while let Some((at, before)) = self.sends.next_placed(conv)
            && (at.seq > head || self.progress.places.entry(conv).contradicts(at, before))
        {
            self.acknowledge(conv, at, true, out);
            self.write_ready(conv, out);
        }
    }

    fn acknowledge(&mut self, conv: ConversationId, at: frames::Committed, again: bool, out: &mut Commands) {
        let text = self.sends.acknowledge(conv, self.name(conv), at, again);
        self.write(text, out);
        if !again {
            self.progress.places.entry(conv).advance(at);
            self.progress.end_if_last(conv);
        }
    }

    /// Writes a 44. What follows it is read as usual.
    pub(super) fn begin_run(&mut self, conv: ConversationId, head: &RunHead, out: &mut Commands) {
        // Own messages that the run leaves out: their 41s come before it.
        while let Some((at, _)) = self.sends.next_placed(conv)
            && at.seq < head.from
        {
            let is_next = at.seq == self.progress.sent(conv) + 1;
            self.acknowledge(conv, at, !is_next, out);
            self.write_ready(conv, out);
        }
        self.write(frames::run(self.name(conv), head), out);
        let place = self.progress.places.entry(conv);
        if place.sent() > head.to && !head.reset {
            // Live messages beyond the run were written before it. They come again behind it.
            place.put(PlaceMark::Dirty, true);
        }
        place.move_to(head.from - 1);
    }

    /// Begins a conversation anew, with a 44 that nobody asked for. `is_run`: also the run that has
    /// its turn, which is the conversation's.
    fn begin_anew(&mut self, conv: ConversationId, head: RunHead, is_run: bool, out: &mut Commands) {
        self.begin_run(conv, &head, out);
        if is_run {
            self.progress.syncs.set_head(head);
        }
    }

    /// The floor has risen above the place. Where the client does not know of another beginning,
    /// nothing need be said.
    pub(super) fn jump(&mut self, conv: ConversationId, extent: Extent, is_run: bool, out: &mut Commands) {
        let place = self.progress.places.entry(conv);
        if place.has(PlaceMark::Fresh) {
            place.set_sent(extent.floor);
            return;
        }
        self.progress.forget_rejoining(conv);
        self.begin_anew(conv, cursor::run_after(extent.floor, extent, Seq::MAX, false), is_run, out);
    }

    /// The store has lost what was written: the client drops what it holds.
    pub(super) fn lose(&mut self, conv: ConversationId, extent: Extent, is_run: bool, out: &mut Commands) {
        out.push(Command::Lost(conv));
        // Other messages may get the numbers of those that are lost.
        self.acknowledge_all(conv, out);
        let run = cursor::run_after(extent.floor, extent, RESUMED_AFTER_LOSS, true);
        self.begin_anew(conv, run, is_run, out);
        if is_run {
            self.end_run_if_written(conv, out);
        } else {
            // More may have been pushed while the page was read.
            self.progress.page_is_written(conv, run.to);
        }
        self.settle(conv, out);
    }

    /// The user is a member of a group, and sees its messages from this number on.
    pub(super) fn on_joined(&mut self, conv: ConversationId, from: Seq, out: &mut Commands) {
        self.progress.set_lasting(conv);
        // The client waits for a 44, about a membership before this one.
        let name = self.name(conv).to_string();
        let refusals = self.progress.syncs.take_refusals(&name);
        for refusal in &refusals {
            self.write(frames::run_refused(&name, *refusal), out);
        }
        if !refusals.is_empty() {
            self.forget(conv, out);
        }
        let place = self.progress.places.entry(conv);
        if place.has(PlaceMark::Fresh) && place.sent() < from {
            self.progress.begin(conv, from);
        } else if place.sent() >= from - 1 {
            // The heads were read after it.
        } else {
            // The end of the membership before is not written yet. The page that is read says where it is.
            self.progress.set_rejoining(conv, from);
        }
    }

    /// The user is not a member any more. `seen`: the first and the last number of the membership.
    pub(super) fn on_left(&mut self, conv: ConversationId, seen: Option<(Seq, Seq)>, out: &mut Commands) {
        // Of a membership that this connection knows nothing of, nothing is to be written.
        let Some(place) = self.progress.places.get(conv).filter(|place| !place.has(PlaceMark::Fresh)) else { return };
        let Some((first, last)) = seen else {
            self.progress.set_ending(conv, None);
            return self.progress.set_behind(conv);
        };
        if place.sent() > last || place.sent() == last && place.has(PlaceMark::Moved) {
            // The user is back, and the heads were read after that.
            return;
        }
        self.progress.set_ending(conv, Some(last));
        if place.sent() + 1 < first {
            // The user may not see messages from between two memberships.
            self.move_to(conv, first, last, out);
        }
        self.progress.raise(conv, last);
        self.progress.end_if_last(conv);
    }

    /// The membership that is shown begins with `from`. A run for an earlier one is over.
    fn move_to(&mut self, conv: ConversationId, from: Seq, to: Seq, out: &mut Commands) {
        self.progress.syncs.drop_runs(conv);
        self.progress.places.entry(conv).put(PlaceMark::Run, false);
        self.begin_run(conv, &RunHead { from, to, gap: None, reset: false }, out);
        self.progress.set_behind(conv);
    }

    /// Ends the first run if it is this conversation's and all of it is written. Returns whether it
    /// has ended.
    pub(super) fn end_run_if_written(&mut self, conv: ConversationId, out: &mut Commands) -> bool {
        let has_ended = self.progress.end_run_if_written(conv);
        if has_ended {
            self.settle(conv, out);
        }
        has_ended
    }

    /// Nothing of this conversation is written any more.
    pub(super) fn forget(&mut self, conv: ConversationId, out: &mut Commands) {
        self.progress.drop_conversation(conv);
        // Sends that were committed earlier are still acknowledged.
        self.acknowledge_all(conv, out);
    }
}

/// The newest messages that follow a reset on a connection that is open.
const RESUMED_AFTER_LOSS: Seq = 100;
