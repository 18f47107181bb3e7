//! [`Pump`]: decides which messages of its user's conversations one connection of level 2 is shown.
//!
//! ```text
//!   Opening ── heads are read ──▶ Overview ── the last 43 is written ──▶ Live
//!   pushes are only remembered    pushes are only remembered             pushes are written
//! ```
//! A push is only a hint. It is written if it is the next number of its conversation and the client
//! takes its output; otherwise the conversation is *behind*, and its pages are read from the store
//! until it is not. So a push that is lost, doubled or late costs a read and never a message. A
//! message that is committed before the heads are read is in them; a later one finds the connection
//! attached. Hence the caller attaches the connection before it reads the heads.
//!
//! # Order
//! In each conversation, the numbers of 42s and of own 41s ascend without a hole. Only a 44 moves
//! the place: a run for a returning client, a floor that has risen above the place, or a lost
//! history (`reset`). A live message waits for the run of its conversation. The 41 of a new message
//! stands for the message. A message of this user that may be one whose answer is still to come
//! waits for that answer, and so does its conversation.
//!
//! # Bounds
//! - 24 bytes for each conversation, and 8 more while it is behind.
//! - During a synchronisation 72 bytes for each run. [`SYNCS_MAX`] of them wait at a time.
//! - `inflight` sends, see [`super::sends`].
//! - Output: nothing is read while more than `output_high` bytes wait, and one page is read at a
//!   time. So at most `output_high`, one page or 43 (512 KiB each) and the 41s wait.
//!
//! Of one connection's tasks, runs and conversations that are behind take turns, page by page. The
//! caller gives connections turns in the same way.
//!
//! `progress.rs` knows how far each conversation is, `transcript.rs` writes the frames of
//! conversations in their order, and the pump decides what comes next.

mod event;
mod progress;
mod transcript;

use std::sync::Arc;

pub use self::event::{Command, Commands, FoundCursor, Heads, PumpEvent, PumpLimits, Row, RowPage};
use self::progress::{PageRead, PumpStage};
use self::transcript::{PageWritten, Transcript};
use crate::base::conversation::{ConversationId, ConversationName, SEQ_END, Seq, Tag};
use crate::history::places::PlaceMark;
use crate::history::sends::RowOrigin;
pub use crate::history::sends::{SendAnswer, SendId, Submission};
pub use crate::history::syncs::SYNCS_MAX;
use crate::history::syncs::{Run, SyncStep};
use crate::protocol::UserId;
use crate::protocol::level2::Rid;
use crate::protocol::level2::frames::{self, Committed, Refusal};
use crate::protocol::level2::replies::{self, Reason};

/// One connection. See the [module](self).
#[derive(Debug)]
pub struct Pump {
    limits: PumpLimits,
    script: Transcript,
    /// Memberships that began or ended before the last 43.
    postponed: Vec<PumpEvent>,
    /// Whether a read has failed; the caller says when to continue.
    is_pausing: bool,
    takes_requests: bool,
    is_closed: bool,
}

impl Pump {
    /// The pump of a connection that `user` is logging in on. Its heads come next; requests are not
    /// read before [`Command::TakeRequests`].
    pub fn new(user: UserId, limits: PumpLimits) -> Pump {
        Pump {
            limits,
            script: Transcript::new(user),
            postponed: Vec::new(),
            is_pausing: false,
            takes_requests: false,
            is_closed: false,
        }
    }

    /// Handles one event.
    pub fn on(&mut self, event: PumpEvent, out: &mut Commands) {
        if self.is_closed {
            return;
        }
        match event {
            PumpEvent::Heads(heads) => self.script.progress.on_heads(heads),
            PumpEvent::HeadsFailed { rid, refusal } => self.on_heads_failed(rid, refusal, out),
            PumpEvent::Overview { frame, more } => self.on_overview(frame, more, out),
            PumpEvent::Push { conv, row, before } => self.on_push(conv, row, before, out),
            PumpEvent::Hint { conv, head } => self.script.progress.raise(conv, head),
            PumpEvent::Last { conv, at } if self.contradicts(conv, at, None) => {
                self.script.progress.set_behind(conv);
            }
            PumpEvent::Last { conv, at } => self.script.progress.raise(conv, at.seq),
            PumpEvent::Doubt { conv, shown } => self.on_doubt(conv, shown),
            PumpEvent::Page(page) => self.on_page(page, out),
            PumpEvent::PageDenied(refusal) => self.on_denied(refusal, out),
            PumpEvent::PageFailed => self.on_failed(out),
            PumpEvent::Retry => self.is_pausing = false,
            PumpEvent::Output(waiting) => self.script.waiting = waiting,
            PumpEvent::Answered { conv, id, answer } => self.on_answered(conv, id, answer, out),
            event @ (PumpEvent::Joined { .. } | PumpEvent::Left { .. })
                if self.script.progress.stage != PumpStage::Live =>
            {
                self.postpone(event, out);
            }
            PumpEvent::Joined { conv, from } => self.script.on_joined(conv, from, out),
            PumpEvent::Left { conv, seen } => self.script.on_left(conv, seen, out),
        }
        self.work(out);
    }

    /// Handles a send. `Some`: commit it and report [`PumpEvent::Answered`]. `None`: it is refused,
    /// because an earlier one failed.
    pub fn on_send(&mut self, conv: ConversationId, cid: &str, out: &mut Commands) -> Option<Submission> {
        let submission = self.script.sends.open(conv, cid);
        self.script.settle(conv, out);
        self.look_at_requests(out);
        submission
    }

    /// Handles a send that is refused at once. Its 41 has its place among those of the
    /// conversation.
    pub fn on_bad_send(&mut self, conv: ConversationId, cid: Option<&str>, refusal: Refusal, out: &mut Commands) {
        self.script.sends.refuse(conv, cid, refusal);
        self.script.settle(conv, out);
        self.look_at_requests(out);
    }

    /// Handles a 46; its heads come with [`PumpEvent::Heads`].
    pub fn on_sync(&mut self, out: &mut Commands) {
        self.script.progress.syncs.ask();
        self.look_at_requests(out);
    }

    /// The last number of this conversation that was written; 0 if none was.
    pub fn shown(&self, conv: ConversationId) -> Seq {
        let place = self.script.progress.places.get(conv);
        place.filter(|place| !place.has(PlaceMark::Fresh)).map_or(0, |place| place.sent())
    }

    /// Whether messages of a run of this conversation are still to be written.
    pub fn has_run(&self, conv: ConversationId) -> bool {
        self.script.progress.syncs.has_run(conv)
    }

    /// The number of sends without a 41.
    pub fn open_sends(&self) -> usize {
        self.script.sends.count()
    }

    fn has_room(&self) -> bool {
        self.script.waiting <= self.limits.output_high
    }

    fn close(&mut self, reason: Reason, out: &mut Commands) {
        self.is_closed = true;
        out.push(Command::Close(reason));
    }

    fn on_heads_failed(&mut self, rid: Option<Rid>, refusal: Refusal, out: &mut Commands) {
        self.script.progress.syncs.heads_came();
        match self.script.progress.stage {
            PumpStage::Opening => self.close(Reason::Overload, out),
            PumpStage::Overview { .. } | PumpStage::Live => {
                self.script.write(replies::refused(46, refusal, rid.as_ref()), out)
            }
        }
    }

    fn on_overview(&mut self, frame: Arc<str>, more: bool, out: &mut Commands) {
        self.script.write(frame, out);
        if more {
            self.script.progress.stage = PumpStage::Overview { asked: false };
            return;
        }
        self.script.progress.stage = PumpStage::Live;
        for event in std::mem::take(&mut self.postponed) {
            match event {
                PumpEvent::Joined { conv, from } => self.script.on_joined(conv, from, out),
                PumpEvent::Left { conv, seen } => self.script.on_left(conv, seen, out),
                _ => {}
            }
        }
        // The 41s of new messages have waited for this.
        for conv in self.script.sends.convs() {
            self.script.settle(conv, out);
        }
    }

    /// Whether this message belongs to another history than the messages written in its
    /// conversation.
    fn contradicts(&self, conv: ConversationId, at: Committed, before: Option<Tag>) -> bool {
        self.script.progress.places.get(conv).is_some_and(|place| place.contradicts(at, before))
    }

    /// Handles the news that the conversation ends before `shown` in the store, which was asked
    /// after `shown` was written.
    fn on_doubt(&mut self, conv: ConversationId, shown: Seq) {
        let place = self.script.progress.places.get(conv);
        if place.is_some_and(|place| !place.has(PlaceMark::Fresh) && place.sent() >= shown) {
            self.script.progress.set_behind(conv);
        }
    }

    fn on_push(&mut self, conv: ConversationId, row: Row, before: Option<Tag>, out: &mut Commands) {
        if self.contradicts(conv, row.at, before) {
            // The database may have lost the messages that were written, or the push may belong to
            // the lost history.
            return self.script.progress.set_behind(conv);
        }
        let place = *self.script.progress.places.entry(conv);
        // A group begins with news of the membership. Without them, the message may be from a group
        // that the user has left.
        let has_begun = conv.group().is_none() || !place.has(PlaceMark::Fresh);
        // The sender of a repeat does not know the message before it. A page does.
        let is_linked = before.is_some() || place.known().is_none_or(|(sent, _)| sent == 0);
        let is_next = has_begun
            && is_linked
            && row.at.seq == place.sent() + 1
            && self.script.progress.stage == PumpStage::Live
            && !place.has(PlaceMark::Run)
            && !place.is_unproven();
        if is_next && self.has_room() && self.script.origin(conv, &row) == RowOrigin::Elsewhere {
            self.script.show(conv, row, out);
            self.script.settle(conv, out);
        } else if row.from == self.script.user()
            && self.script.origin(conv, &row) == RowOrigin::Unknown
            && row.at.seq > place.sent()
        {
            // The answer of the send comes, and takes the message's place without a read.
            self.script.sends.hold(conv, row.at.seq, row.at.seq);
        } else {
            self.script.progress.raise(conv, row.at.seq);
        }
    }

    fn on_answered(&mut self, conv: ConversationId, id: SendId, answer: SendAnswer, out: &mut Commands) {
        self.script.sends.answer(conv, self.script.name(conv), id, answer);
        let committed = match answer {
            SendAnswer::New(at, before) => Some((at, before)),
            SendAnswer::Again(at) => Some((at, None)),
            SendAnswer::Refused(_) => None,
        };
        if let Some((at, before)) = committed {
            if self.contradicts(conv, at, before) {
                self.script.progress.set_behind(conv);
            } else if self.script.progress.sent(conv) + 1 < at.seq {
                self.script.progress.raise(conv, at.seq);
            }
        }
        if self.script.sends.is_overfull() {
            self.close(Reason::Overload, out);
            return;
        }
        self.script.settle(conv, out);
        self.look_at_requests(out);
    }

    fn on_page(&mut self, page: RowPage, out: &mut Commands) {
        let Some(reading @ PageRead { conv, is_run, .. }) = self.script.progress.take_reading() else { return };
        let Some(place) = self.script.progress.places.get(conv) else { return };
        let RowPage { extent, rows, written } = page;
        if !is_run && place.has(PlaceMark::Run) {
            // A run was planned since, and begins before this page. The rest is read after it.
            self.script.progress.places.entry(conv).put(PlaceMark::Dirty, true);
            return;
        }
        if self.script.progress.is_lost(reading, extent, written) {
            self.script.lose(conv, extent, is_run, out);
            return;
        }
        if is_run {
            self.script.progress.syncs.set_held(None);
        }
        let was_told_more = place.has(PlaceMark::Dirty);
        if extent.floor > place.sent() {
            self.script.jump(conv, extent, is_run, out);
        }
        // The user is still a member.
        self.script.progress.was_read(conv);
        match self.script.show_rows(conv, rows, extent, out) {
            PageWritten::All if is_run => {
                self.script.end_run_if_written(conv, out);
            }
            PageWritten::All => {
                self.script.progress.page_is_written(conv, extent.head);
                if !was_told_more {
                    self.script.acknowledge_lost(conv, extent.head, out);
                }
            }
            // The answer that the message waits for raises the conversation again.
            PageWritten::Held => {
                let place = self.script.progress.places.entry(conv);
                let next = place.sent() + 1;
                if place.has(PlaceMark::Dirty) {
                    // Messages that were pushed since the page was read are above its head.
                    place.put(PlaceMark::Dirty, false);
                    self.script.sends.hold(conv, next, SEQ_END - 1);
                } else {
                    self.script.acknowledge_lost(conv, extent.head, out);
                }
            }
            PageWritten::Ended => {}
            PageWritten::Hole => self.pause(reading, out),
            PageWritten::Contradicted if is_run => {}
            PageWritten::Contradicted => self.script.progress.set_behind(conv),
        }
        self.script.settle(conv, out);
    }

    fn on_failed(&mut self, out: &mut Commands) {
        if let Some(reading) = self.script.progress.take_reading() {
            self.pause(reading, out);
        }
    }

    /// Reads the page again after a pause.
    fn pause(&mut self, PageRead { conv, is_run, .. }: PageRead, out: &mut Commands) {
        self.is_pausing = true;
        out.push(Command::Pause);
        if !is_run && self.script.progress.places.get(conv).is_some() {
            self.script.progress.set_behind(conv);
        }
    }

    fn on_denied(&mut self, refusal: Refusal, out: &mut Commands) {
        let Some(reading @ PageRead { conv, from, .. }) = self.script.progress.take_reading() else { return };
        let place = self.script.progress.places.entry(conv);
        let has_news = place.has(PlaceMark::Dirty) || place.sent() + 1 != from;
        if !reading.is_run && !place.has(PlaceMark::Fresh) && has_news {
            // News of the conversation came after the page was requested: perhaps the user is back.
            place.put(PlaceMark::Dirty, false);
            return self.script.progress.set_behind(conv);
        }
        // The client does not know a conversation whose first message was never written.
        if self.script.progress.places.get(conv).is_some_and(|place| !place.has(PlaceMark::Fresh)) {
            self.script.write(frames::run_refused(&self.script.name(conv).to_string(), refusal), out);
        }
        self.script.forget(conv, out);
    }

    /// Postpones news of a membership that come before the last 43.
    fn postpone(&mut self, event: PumpEvent, out: &mut Commands) {
        self.postponed.push(event);
        if self.postponed.len() > POSTPONED_MAX {
            self.close(Reason::Overload, out);
        }
    }

    /// Takes the next steps, if there is room for them.
    fn work(&mut self, out: &mut Commands) {
        while !self.is_closed && !self.script.progress.is_reading() && !self.is_pausing && self.has_room() {
            let goes_on = match self.script.progress.stage {
                PumpStage::Opening | PumpStage::Overview { asked: true } => false,
                PumpStage::Overview { asked: false } => {
                    self.script.progress.stage = PumpStage::Overview { asked: true };
                    out.push(Command::Overview);
                    false
                }
                PumpStage::Live if self.script.progress.run_was_last() => self.read_behind(out) || self.sync(out),
                PumpStage::Live => self.sync(out) || self.read_behind(out),
            };
            if !goes_on {
                break;
            }
        }
        self.look_at_requests(out);
    }

    /// Takes the next step of the first synchronisation; false if there is none now.
    fn sync(&mut self, out: &mut Commands) -> bool {
        match self.script.progress.syncs.step() {
            None => false,
            Some(SyncStep::Refuse(name, refusal)) => {
                self.script.write(frames::run_refused(&name, refusal), out);
                // The client gets no run of this conversation.
                if let Some(name) = ConversationName::parse(&name) {
                    self.script.forget(name.for_user(self.script.user()), out);
                }
                true
            }
            Some(SyncStep::Begin(run @ Run { conv, tells_loss, .. })) => {
                let head = self.script.progress.head_to_begin(run);
                // This must not come earlier: the client holds the lost messages until it reads the
                // 44.
                out.extend(tells_loss.then_some(Command::Lost(conv)));
                // The conversation may have ended meanwhile, or begun again.
                self.script.progress.places.entry(conv).put(PlaceMark::Run, true);
                self.script.progress.hold_run();
                self.script.begin_run(conv, &head, out);
                self.script.end_run_if_written(conv, out) || self.read_run(out)
            }
            Some(SyncStep::GoOn) => self.read_run(out),
            Some(SyncStep::End(rid)) => {
                self.script.write(frames::synced(rid.as_ref()), out);
                true
            }
        }
    }

    fn read_run(&mut self, out: &mut Commands) -> bool {
        let Transcript { progress, sends, .. } = &mut self.script;
        let read = progress.read_run(|conv, next| sends.is_held(conv, next));
        let is_read = read.is_some();
        out.extend(read);
        is_read
    }

    /// Reads the conversation that has been behind longest; false if there is none.
    fn read_behind(&mut self, out: &mut Commands) -> bool {
        let Transcript { progress, sends, .. } = &mut self.script;
        let read = progress.read_behind(|conv, next| {
            let is_held = sends.is_held(conv, next);
            if is_held {
                sends.hold(conv, next, SEQ_END - 1);
            }
            is_held
        });
        let is_read = read.is_some();
        out.extend(read);
        is_read
    }

    /// Stops or resumes reading requests.
    fn look_at_requests(&mut self, out: &mut Commands) {
        let takes = self.script.progress.stage != PumpStage::Opening
            && self.script.sends.count() < self.limits.inflight
            && self.script.progress.syncs.has_room();
        if !self.is_closed && takes != self.takes_requests {
            self.takes_requests = takes;
            out.push(if takes { Command::TakeRequests } else { Command::StopRequests });
        }
    }
}

/// The most membership changes that are remembered until the last 43. A connection with more is
/// closed.
const POSTPONED_MAX: usize = 256;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
