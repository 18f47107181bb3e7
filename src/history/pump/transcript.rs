//! [`Transcript`]: the frames of conversations that are written to one connection, in order.
//!
//! It knows which 41, 42 or 44 may come next in a conversation. The [`Pump`](super::Pump) decides
//! when to write, and what to read for it.

use std::sync::Arc;

use super::event::{Command, Commands, Row};
use super::progress::{PumpProgress, PumpStage};
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
    pub(super) progress: PumpProgress,
    pub(super) sends: Sends,
    /// Bytes that the client's kernel has not acknowledged.
    pub(super) waiting: usize,
}

/// The part of a page that was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PageWritten {
    /// All of it.
    All,
    /// The page up to a message whose origin is unknown.
    Held,
    /// The page up to the last message of a membership.
    Ended,
    /// The page up to a missing number, or nothing although there are messages. The store promises
    /// that this cannot happen. The page is read again after a pause.
    Hole,
    /// The page up to a message in whose place another one was written meanwhile. The page is read
    /// again.
    Contradicted,
}

impl Transcript {
    /// The transcript of a connection of `user` to which nothing was written.
    pub(super) fn new(user: UserId) -> Transcript {
        Transcript { user, progress: PumpProgress::new(), sends: Sends::default(), waiting: 0 }
    }

    /// The user.
    pub(super) fn user(&self) -> UserId {
        self.user
    }

    /// The user's name for this conversation.
    pub(super) fn name(&self, conv: ConversationId) -> ConversationName {
        conv.name_for(self.user)
    }

    /// Writes a frame.
    pub(super) fn write(&mut self, frame: impl Into<Arc<str>>, out: &mut Commands) {
        let frame = frame.into();
        self.waiting += frame.len();
        out.push(Command::Write(frame));
    }

    /// The origin of this message.
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
    ) -> PageWritten {
        let before = self.progress.sent(conv);
        for row in rows {
            let (sent, seq) = (self.progress.sent(conv), row.at.seq);
            if self.progress.places.entry(conv).contradicts(row.at, None) {
                return PageWritten::Contradicted;
            }
            if seq <= sent {
                continue;
            }
            if seq > sent + 1 {
                return PageWritten::Hole;
            }
            self.acknowledge_replaced(conv, row.at, out);
            match self.origin(conv, &row) {
                RowOrigin::Elsewhere => self.show(conv, row, out),
                RowOrigin::Next(at) => self.acknowledge(conv, at, false, out),
                RowOrigin::Unknown => {
                    self.sends.hold(conv, seq, extent.head.max(seq));
                    return PageWritten::Held;
                }
            }
            if self.progress.places.get(conv).is_none() {
                return PageWritten::Ended;
            }
        }
        let sent = self.progress.sent(conv);
        if sent == before && sent < extent.head { PageWritten::Hole } else { PageWritten::All }
    }

    /// Writes the 41s whose turn has come.
    pub(super) fn settle(&mut self, conv: ConversationId, out: &mut Commands) {
        loop {
            self.write_ready(conv, out);
            let Some((at, before)) = self.sends.next_placed(conv) else { break };
            let place = *self.progress.places.entry(conv);
            // A 44 has moved the place beyond this message: a repeat does not move it.
            let again = at.seq <= place.sent();
            let is_of_another = !again && place.contradicts(at, before);
            if is_of_another {
                // The message that was written is lost, or this one. A page says which.
                self.progress.set_behind(conv);
            }
            let is_unproven = !again && place.is_unproven();
            if is_unproven && !place.has(PlaceMark::Run) {
                self.progress.set_behind(conv);
            }
            let has_run = place.has(PlaceMark::Run) && !again;
            let must_wait = has_run || at.seq > place.sent() + 1 || is_of_another || is_unproven;
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

    /// Acknowledges all committed sends, at any number.
    fn acknowledge_all(&mut self, conv: ConversationId, out: &mut Commands) {
        self.write_ready(conv, out);
        while let Some((at, _)) = self.sends.next_placed(conv) {
            self.acknowledge(conv, at, true, out);
            self.write_ready(conv, out);
        }
    }

    /// Acknowledges a send that was committed and is lost, because another message has its number.
    fn acknowledge_replaced(&mut self, conv: ConversationId, row: Committed, out: &mut Commands) {
        while let Some((at, _)) = self.sends.next_placed(conv)
            && at.seq == row.seq
            && at.tag != row.tag
        {
            self.acknowledge(conv, at, true, out);
            self.write_ready(conv, out);
        }
    }

    /// Acknowledges sends that were committed and are lost, as a page shows that was requested
    /// since: the conversation ends before them, or continues from another message.
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

    /// Writes a 44. The messages after it are read as usual.
    pub(super) fn begin_run(&mut self, conv: ConversationId, head: &RunHead, out: &mut Commands) {
        // The 41s of own messages that the run leaves out come before it.
        while let Some((at, _)) = self.sends.next_placed(conv)
            && at.seq < head.from
        {
            let is_next = at.seq == self.progress.sent(conv) + 1;
            self.acknowledge(conv, at, !is_next, out);
            self.write_ready(conv, out);
        }
        self.write(frames::run(self.name(conv), head), out);
        let place = self.progress.places.entry(conv);
        if place.sent() > head.to && (!head.reset || place.has(PlaceMark::Run)) {
            // Live messages above the run were written before it. They are written again after it,
            // unless the store has lost them.
            place.put(PlaceMark::Dirty, true);
        }
        place.move_to(head.from - 1);
        if head.reset {
            place.put(PlaceMark::Reset, true);
        }
    }

    /// Begins a conversation anew, with an unrequested 44. `is_run`: whether the current run, which
    /// is of this conversation, begins anew as well.
    fn begin_anew(&mut self, conv: ConversationId, head: RunHead, is_run: bool, out: &mut Commands) {
        self.begin_run(conv, &head, out);
        if is_run {
            self.progress.syncs.set_head(head);
        }
    }

    /// Moves the place to the floor, which has risen above it. The client is not told unless it
    /// knows another beginning.
    pub(super) fn jump(&mut self, conv: ConversationId, extent: Extent, is_run: bool, out: &mut Commands) {
        let place = self.progress.places.entry(conv);
        if place.has(PlaceMark::Fresh) {
            place.set_sent(extent.floor);
            return;
        }
        self.progress.forget_rejoining(conv);
        self.begin_anew(conv, cursor::run_after(extent.floor, extent, Seq::MAX, false), is_run, out);
    }

    /// Has the client drop its messages, because the store has lost some that were written.
    pub(super) fn lose(&mut self, conv: ConversationId, extent: Extent, is_run: bool, out: &mut Commands) {
        out.push(Command::Lost(conv));
        // News of a membership in the lost history do not apply to this one.
        self.progress.set_lasting(conv);
        self.progress.forget_rejoining(conv);
        // Other messages may get the numbers of the lost ones.
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

    /// Handles a new membership of a group, whose messages the user sees from this number on.
    pub(super) fn on_joined(&mut self, conv: ConversationId, from: Seq, out: &mut Commands) {
        self.progress.set_lasting(conv);
        // The client waits for a 44 about an earlier membership.
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
            // The end of the previous membership is not written yet. The page that is read shows
            // its number.
            self.progress.set_rejoining(conv, from);
        }
    }

    /// Handles the end of a membership. `seen`: its first and last number.
    pub(super) fn on_left(&mut self, conv: ConversationId, seen: Option<(Seq, Seq)>, out: &mut Commands) {
        // Nothing is written of a membership that this connection does not know.
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

    /// Moves to the membership that begins with `from`. A run for an earlier one is over.
    fn move_to(&mut self, conv: ConversationId, from: Seq, to: Seq, out: &mut Commands) {
        self.progress.syncs.drop_runs(conv);
        self.progress.places.entry(conv).put(PlaceMark::Run, false);
        self.begin_run(conv, &RunHead { from, to, gap: None, reset: false }, out);
        self.progress.set_behind(conv);
    }

    /// Ends the first run if it is of this conversation and completely written. Returns whether it
    /// has ended.
    pub(super) fn end_run_if_written(&mut self, conv: ConversationId, out: &mut Commands) -> bool {
        let has_ended = self.progress.end_run_if_written(conv);
        if has_ended {
            self.settle(conv, out);
        }
        has_ended
    }

    /// Writes nothing more of this conversation.
    pub(super) fn forget(&mut self, conv: ConversationId, out: &mut Commands) {
        self.progress.drop_conversation(conv);
        // Sends that were committed earlier are still acknowledged.
        self.acknowledge_all(conv, out);
    }
}

/// The most messages that follow a reset on an open connection.
const RESUMED_AFTER_LOSS: Seq = 100;
