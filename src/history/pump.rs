//! [`Pump`]: what one connection of level 2 is shown of its user's conversations.
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
//! the place: a run for a client that comes back, a floor that has risen beyond the place, or a
//! history that was lost (`reset`). A live message waits for the run of its conversation. The 41 of
//! a new message stands for the message. As long as an own message may be one whose answer is still
//! to come, it waits for that answer, and the conversation with it.
//!
//! # Bounds
//! - 16 bytes for each conversation, and 8 more while it is behind.
//! - During a synchronisation 48 bytes for each run. [`SYNCS_MAX`] of them wait at a time.
//! - `inflight` sends, see [`super::sends`].
//! - Output: nothing is read while more than `output_high` bytes wait, and one page is read at a
//!   time. So at most `output_high`, one page or 43 (512 KiB each) and the 41s wait.
//!
//! Of one connection's tasks, runs and conversations that are behind take turns, page by page. The
//! caller gives connections turns in the same way.

mod event;

use std::collections::VecDeque;
use std::sync::Arc;

pub use self::event::{Command, Commands, FoundCursor, Heads, PumpEvent, PumpLimits, Row, RowPage};
use crate::base::conversation::{ConversationId, ConversationName, Seq};
use crate::history::cursor::{self, Extent};
use crate::history::places::{PlaceMark, ShownPlace, ShownPlaces};
use crate::history::sends::{RowOrigin, Sends};
pub use crate::history::sends::{SendAnswer, SendId, Submission};
pub use crate::history::syncs::SYNCS_MAX;
use crate::history::syncs::{Run, SyncStep, Syncs};
use crate::protocol::UserId;
use crate::protocol::level2::Rid;
use crate::protocol::level2::frames::{self, Refusal, RunHead};
use crate::protocol::level2::replies::{self, Reason};

/// One connection. See the [module](self).
#[derive(Debug)]
pub struct Pump {
    user: UserId,
    limits: PumpLimits,
    stage: PumpStage,
    places: ShownPlaces,
    /// Conversations that are behind, in the order in which they are read.
    behind: VecDeque<ConversationId>,
    /// Ends of memberships whose last message is not written.
    ending: Vec<(ConversationId, Option<Seq>)>,
    /// Beginnings and ends of memberships that came before the last 43.
    postponed: Vec<PumpEvent>,
    syncs: Syncs,
    sends: Sends,
    reading: Option<Reading>,
    /// A read failed; the caller says when to go on.
    is_pausing: bool,
    /// Whether the last page was for a run.
    run_was_last: bool,
    /// Bytes that the client's kernel has not acknowledged.
    waiting: usize,
    takes_requests: bool,
    is_closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PumpStage {
    Opening,
    Overview { asked: bool },
    Live,
}

/// How far a page was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shown {
    /// All of it.
    All,
    /// Up to a message whose origin is unknown.
    Held,
    /// Up to the last message of a membership.
    Ended,
    /// Up to a number that is missing, or nothing though there is something: the store promises
    /// that this cannot be. It is asked again after a pause.
    Hole,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    conv: ConversationId,
    /// The first number that was asked for. Those before it were there.
    from: Seq,
    is_run: bool,
}

impl Pump {
    /// A connection that is being logged in as `user`. Its heads come next; requests are not read
    /// before [`Command::TakeRequests`].
    pub fn new(user: UserId, limits: PumpLimits) -> Pump {
        Pump {
            user,
            limits,
            stage: PumpStage::Opening,
            places: ShownPlaces::default(),
            behind: VecDeque::new(),
            ending: Vec::new(),
            postponed: Vec::new(),
            syncs: Syncs::of_login(),
            sends: Sends::default(),
            reading: None,
            is_pausing: false,
            run_was_last: false,
            waiting: 0,
            takes_requests: false,
            is_closed: false,
        }
    }

    /// Takes one event.
    pub fn on(&mut self, event: PumpEvent, out: &mut Commands) {
        if self.is_closed {
            return;
        }
        match event {
            PumpEvent::Heads(heads) => self.on_heads(heads),
            PumpEvent::HeadsFailed { rid, refusal } => self.on_heads_failed(rid, refusal, out),
            PumpEvent::Overview { frame, more } => self.on_overview(frame, more, out),
            PumpEvent::Push { conv, row } => self.on_push(conv, row, out),
            PumpEvent::Hint { conv, head } => self.on_hint(conv, head),
            PumpEvent::Page(page) => self.on_page(page, out),
            PumpEvent::PageDenied(refusal) => self.on_denied(refusal, out),
            PumpEvent::PageFailed => self.on_failed(out),
            PumpEvent::Retry => self.is_pausing = false,
            PumpEvent::Output(waiting) => self.waiting = waiting,
            PumpEvent::Answered { conv, id, answer } => self.on_answered(conv, id, answer, out),
            event @ (PumpEvent::Joined { .. } | PumpEvent::Left { .. }) if self.stage != PumpStage::Live => {
                self.postpone(event, out);
            }
            PumpEvent::Joined { conv, from } => self.on_joined(conv, from, out),
            PumpEvent::Left { conv, seen } => self.on_left(conv, seen, out),
        }
        self.work(out);
    }

    /// A send was read. `Some`: commit it and report [`PumpEvent::Answered`]. `None`: it is refused,
    /// because an earlier one failed.
    pub fn on_send(&mut self, conv: ConversationId, cid: &str, out: &mut Commands) -> Option<Submission> {
        let submission = self.sends.open(conv, cid);
        self.settle(conv, out);
        self.look_at_requests(out);
        submission
    }

    /// A send was read that is refused at once: its 41 has its place among those of the
    /// conversation.
    pub fn on_bad_send(&mut self, conv: ConversationId, cid: Option<&str>, refusal: Refusal, out: &mut Commands) {
        self.sends.refuse(conv, cid, refusal);
        self.settle(conv, out);
        self.look_at_requests(out);
    }

    /// A 46 was read; its heads come with [`PumpEvent::Heads`].
    pub fn on_sync(&mut self, out: &mut Commands) {
        self.syncs.ask();
        self.look_at_requests(out);
    }

    /// How many sends have no 41 yet.
    pub fn open_sends(&self) -> usize {
        self.sends.count()
    }

    fn name(&self, conv: ConversationId) -> ConversationName {
        conv.name_for(self.user)
    }

    fn has_room(&self) -> bool {
        self.waiting <= self.limits.output_high
    }

    fn write(&mut self, frame: impl Into<Arc<str>>, out: &mut Commands) {
        let frame = frame.into();
        self.waiting += frame.len();
        out.push(Command::Write(frame));
    }

    fn close(&mut self, reason: Reason, out: &mut Commands) {
        self.is_closed = true;
        out.push(Command::Close(reason));
    }

    /// The heads say where every conversation goes on, and which runs come first.
    fn on_heads(&mut self, heads: Heads) {
        self.syncs.heads_came();
        self.places.fill(heads.convs.iter().map(|(conv, extent)| ShownPlace::new(*conv, extent.head)));
        if self.stage == PumpStage::Opening {
            self.stage = PumpStage::Overview { asked: false };
            self.place_early(&heads.convs);
        }
        let extents: std::collections::HashMap<_, _> = heads.convs.into_iter().collect();
        let (mut refused, mut runs) = (VecDeque::new(), Vec::new());
        for found in heads.cursors {
            match found {
                FoundCursor::Refused(name, refusal) => refused.push_back((name, refusal)),
                FoundCursor::Own(conv, held) => {
                    let extent = extents.get(&conv).copied().unwrap_or(Extent { head: 0, floor: 0 });
                    if let Some(head) = cursor::plan(held, extent, heads.resume) {
                        self.places.entry(conv).put(PlaceMark::Run, true);
                        runs.push((conv, head));
                    }
                }
            }
        }
        self.syncs.add(heads.rid, refused, runs);
    }

    /// Pushes that came before the heads: a conversation whose head is lower is behind.
    fn place_early(&mut self, heads: &[(ConversationId, Extent)]) {
        let early: Vec<ShownPlace> = self.places.iter().filter(|place| place.has(PlaceMark::Early)).collect();
        let heads: std::collections::HashMap<_, _> = heads.iter().copied().collect();
        for place in early {
            let known = heads.get(&place.conv);
            let entry = self.places.entry(place.conv);
            entry.put(PlaceMark::Early, false);
            entry.put(PlaceMark::Fresh, known.is_none());
            entry.set_sent(known.map_or(0, |extent| extent.head));
            self.raise(place.conv, place.sent());
        }
    }

    fn on_heads_failed(&mut self, rid: Option<Rid>, refusal: Refusal, out: &mut Commands) {
        self.syncs.heads_came();
        match self.stage {
            PumpStage::Opening => self.close(Reason::Overload, out),
            PumpStage::Overview { .. } | PumpStage::Live => {
                self.write(replies::refused(46, refusal, rid.as_ref()), out)
            }
        }
    }

    fn on_overview(&mut self, frame: Arc<str>, more: bool, out: &mut Commands) {
        self.write(frame, out);
        if more {
            self.stage = PumpStage::Overview { asked: false };
            return;
        }
        self.stage = PumpStage::Live;
        for event in std::mem::take(&mut self.postponed) {
            match event {
                PumpEvent::Joined { conv, from } => self.on_joined(conv, from, out),
                PumpEvent::Left { conv, seen } => self.on_left(conv, seen, out),
                _ => {}
            }
        }
        // 41s of new messages have waited for this.
        for conv in self.sends.convs() {
            self.settle(conv, out);
        }
    }

    fn on_push(&mut self, conv: ConversationId, row: Row, out: &mut Commands) {
        let place = *self.places.entry(conv);
        let is_next = row.seq == place.sent() + 1 && self.stage == PumpStage::Live && !place.has(PlaceMark::Run);
        if is_next && self.has_room() && self.origin(conv, &row) == RowOrigin::Elsewhere {
            self.show(conv, row, out);
            self.settle(conv, out);
        } else if row.from == self.user && self.origin(conv, &row) == RowOrigin::Unknown && row.seq > place.sent() {
            // Its answer comes, and takes its place without a read.
            self.sends.hold(conv, row.seq, row.seq);
        } else {
            self.raise(conv, row.seq);
        }
    }

    fn on_hint(&mut self, conv: ConversationId, head: Seq) {
        self.raise(conv, head);
    }

    /// A conversation has messages up to `seq`.
    fn raise(&mut self, conv: ConversationId, seq: Seq) {
        let is_opening = self.stage == PumpStage::Opening;
        let place = self.places.entry(conv);
        if is_opening {
            place.put(PlaceMark::Early, true);
            place.set_sent(place.sent().max(seq));
        } else if seq > place.sent() || place.has(PlaceMark::Run) {
            self.set_behind(conv);
        }
    }

    /// There is something to be read in this conversation.
    fn set_behind(&mut self, conv: ConversationId) {
        let is_reading = self.reading.is_some_and(|reading| reading.conv == conv);
        let place = self.places.entry(conv);
        if place.has(PlaceMark::Run) || is_reading {
            place.put(PlaceMark::Dirty, true);
        } else if !place.has(PlaceMark::Behind) {
            place.put(PlaceMark::Behind, true);
            self.behind.push_back(conv);
        }
    }

    fn origin(&self, conv: ConversationId, row: &Row) -> RowOrigin {
        if row.from == self.user { self.sends.origin(conv, row.seq) } else { RowOrigin::Elsewhere }
    }

    /// Writes the next message of a conversation.
    fn show(&mut self, conv: ConversationId, row: Row, out: &mut Commands) {
        let place = self.places.entry(conv);
        debug_assert_eq!(row.seq, place.sent() + 1);
        place.advance(row.seq);
        self.write(row.frame, out);
        self.end_if_last(conv);
    }

    fn on_answered(&mut self, conv: ConversationId, id: SendId, answer: SendAnswer, out: &mut Commands) {
        self.sends.answer(conv, self.name(conv), id, answer);
        if let SendAnswer::New(at) | SendAnswer::Again(at) = answer
            && self.places.entry(conv).sent() + 1 < at.seq
        {
            self.raise(conv, at.seq);
        }
        if self.sends.is_overfull() {
            self.close(Reason::Overload, out);
            return;
        }
        self.settle(conv, out);
        self.look_at_requests(out);
    }

    /// Writes the 41s whose turn it is.
    fn settle(&mut self, conv: ConversationId, out: &mut Commands) {
        loop {
            self.write_ready(conv, out);
            let Some(at) = self.sends.next_placed(conv) else { break };
            let place = *self.places.entry(conv);
            // A 44 has moved the place beyond this message: as a repeat it moves nothing.
            let again = at.seq <= place.sent();
            let must_wait = place.has(PlaceMark::Run) && !again || at.seq > place.sent() + 1;
            if self.stage != PumpStage::Live || must_wait {
                break;
            }
            self.acknowledge(conv, at, again, out);
        }
        if let Some(last) = self.sends.release(conv) {
            self.raise(conv, last);
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
        while let Some(at) = self.sends.next_placed(conv) {
            self.acknowledge(conv, at, true, out);
            self.write_ready(conv, out);
        }
    }

    fn acknowledge(&mut self, conv: ConversationId, at: frames::Committed, again: bool, out: &mut Commands) {
        let text = self.sends.acknowledge(conv, self.name(conv), at, again);
        self.write(text, out);
        if !again {
            self.places.entry(conv).advance(at.seq);
            self.end_if_last(conv);
        }
    }

    fn on_page(&mut self, page: RowPage, out: &mut Commands) {
        let Some(reading @ Reading { conv, from, is_run }) = self.take_reading() else { return };
        let Some(place) = self.places.get(conv) else { return };
        let RowPage { extent, rows } = page;
        if extent.head < from - 1 && !place.has(PlaceMark::Fresh) {
            self.lose(conv, extent, is_run, out);
            return;
        }
        if extent.floor > place.sent() {
            self.jump(conv, extent, is_run, out);
        }
        // The user is a member all the same.
        self.ending.retain(|(ending, last)| *ending != conv || last.is_some());
        match self.show_rows(conv, rows, extent, out) {
            Shown::All => self.page_is_written(conv, is_run, extent, out),
            // The answer that it waits for raises it again.
            Shown::Held => self.places.entry(conv).put(PlaceMark::Dirty, false),
            Shown::Ended => {}
            Shown::Hole => {
                self.reading = Some(reading);
                self.on_failed(out);
            }
        }
        self.settle(conv, out);
    }

    /// The read that has come back. Its run may be over: the membership that it was for has ended.
    fn take_reading(&mut self) -> Option<Reading> {
        let reading = self.reading.take()?;
        let is_run = reading.is_run && self.syncs.run().is_some_and(|run| run.conv == reading.conv);
        Some(Reading { is_run, ..reading })
    }

    /// Writes the messages of a page that were not written yet.
    fn show_rows(&mut self, conv: ConversationId, rows: Vec<Row>, extent: Extent, out: &mut Commands) -> Shown {
        let before = self.places.entry(conv).sent();
        for row in rows {
            let sent = self.places.entry(conv).sent();
            if row.seq <= sent {
                continue;
            }
            if row.seq > sent + 1 {
                return Shown::Hole;
            }
            match self.origin(conv, &row) {
                RowOrigin::Elsewhere => self.show(conv, row, out),
                RowOrigin::Next(at) => self.acknowledge(conv, at, false, out),
                RowOrigin::Unknown => {
                    self.sends.hold(conv, row.seq, extent.head.max(row.seq));
                    return Shown::Held;
                }
            }
            if self.places.get(conv).is_none() {
                return Shown::Ended;
            }
        }
        let sent = self.places.entry(conv).sent();
        if sent == before && sent < extent.head { Shown::Hole } else { Shown::All }
    }

    fn page_is_written(&mut self, conv: ConversationId, is_run: bool, extent: Extent, out: &mut Commands) {
        if is_run {
            self.end_run_if_written(conv, out);
            return;
        }
        let place = self.places.entry(conv);
        let has_more = place.sent() < extent.head || place.has(PlaceMark::Dirty);
        place.put(PlaceMark::Dirty, false);
        if has_more {
            self.set_behind(conv);
        }
    }

    fn on_failed(&mut self, out: &mut Commands) {
        let Some(Reading { conv, is_run, .. }) = self.take_reading() else { return };
        self.is_pausing = true;
        out.push(Command::Pause);
        if !is_run && self.places.get(conv).is_some() {
            self.set_behind(conv);
        }
    }

    fn on_denied(&mut self, refusal: Refusal, out: &mut Commands) {
        let Some(Reading { conv, .. }) = self.reading.take() else { return };
        // The client knows nothing of one whose first message was never written.
        if self.places.get(conv).is_some_and(|place| !place.has(PlaceMark::Fresh)) {
            self.write(frames::run_refused(&self.name(conv).to_string(), refusal), out);
        }
        self.forget(conv, out);
    }

    /// The floor has risen above the place. Where the client does not know of another beginning,
    /// nothing need be said.
    fn jump(&mut self, conv: ConversationId, extent: Extent, is_run: bool, out: &mut Commands) {
        if self.places.entry(conv).has(PlaceMark::Fresh) {
            self.places.entry(conv).set_sent(extent.floor);
            return;
        }
        self.begin_anew(conv, cursor::run_after(extent.floor, extent, Seq::MAX, false), is_run, out);
    }

    /// The store has lost what was written: the client drops what it holds.
    fn lose(&mut self, conv: ConversationId, extent: Extent, is_run: bool, out: &mut Commands) {
        // Other messages may get the numbers of those that are lost.
        self.acknowledge_all(conv, out);
        let run = cursor::run_after(extent.floor, extent, RESUMED_AFTER_LOSS, true);
        self.begin_anew(conv, run, is_run, out);
        if is_run {
            self.end_run_if_written(conv, out);
        } else if run.from <= run.to {
            self.set_behind(conv);
        }
        self.settle(conv, out);
    }

    /// Writes a 44 that nobody asked for. What follows it is read as usual.
    fn begin_anew(&mut self, conv: ConversationId, head: RunHead, is_run: bool, out: &mut Commands) {
        self.write_run_head(conv, &head, out);
        if is_run {
            self.syncs.set_head(head);
        }
    }

    fn write_run_head(&mut self, conv: ConversationId, head: &RunHead, out: &mut Commands) {
        // Own messages that the run leaves out: their 41s come before it.
        while let Some(at) = self.sends.next_placed(conv)
            && at.seq < head.from
        {
            let is_next = at.seq == self.places.entry(conv).sent() + 1;
            self.acknowledge(conv, at, !is_next, out);
            self.write_ready(conv, out);
        }
        self.write(frames::run(self.name(conv), head), out);
        let place = self.places.entry(conv);
        if place.sent() > head.to && !head.reset {
            // Live messages beyond the run were written before it. They come again behind it.
            place.put(PlaceMark::Dirty, true);
        }
        place.advance(head.from - 1);
        place.put(PlaceMark::Moved, true);
    }

    /// Before the last 43 nothing can be said of a membership.
    fn postpone(&mut self, event: PumpEvent, out: &mut Commands) {
        self.postponed.push(event);
        if self.postponed.len() > POSTPONED_MAX {
            self.close(Reason::Overload, out);
        }
    }

    fn on_joined(&mut self, conv: ConversationId, from: Seq, out: &mut Commands) {
        self.ending.retain(|(ending, _)| *ending != conv);
        let was_refused = self.syncs.take_refusals(&self.name(conv).to_string());
        let place = self.places.entry(conv);
        if was_refused {
            // The client waits for a 44.
            self.move_to(conv, from, from, out);
        } else if place.sent() >= from - 1 {
            // The heads were read after it.
        } else if place.has(PlaceMark::Fresh) {
            place.advance(from - 1);
            place.put(PlaceMark::Moved, true);
            // The 57 that says so, whose push may have come before this.
            self.raise(conv, from);
        } else {
            // The end of the membership before was not written, and cannot be any more.
            self.move_to(conv, from, from, out);
        }
    }

    fn on_left(&mut self, conv: ConversationId, seen: Option<(Seq, Seq)>, out: &mut Commands) {
        // Of a membership that this connection knows nothing of, nothing is to be written.
        let Some(place) = self.places.get(conv).filter(|place| !place.has(PlaceMark::Fresh)) else { return };
        let Some((first, last)) = seen else {
            self.ending.retain(|(ending, _)| *ending != conv);
            self.ending.push((conv, None));
            return self.set_behind(conv);
        };
        if place.sent() > last || place.sent() == last && place.has(PlaceMark::Moved) {
            // The user is back, and the heads were read after that.
            return;
        }
        self.ending.retain(|(ending, _)| *ending != conv);
        self.ending.push((conv, Some(last)));
        if place.sent() + 1 < first {
            // The user may not see messages from between two memberships.
            self.move_to(conv, first, last, out);
        }
        self.raise(conv, last);
        self.end_if_last(conv);
    }

    /// The membership that is shown begins with `from`. A run for an earlier one is over.
    fn move_to(&mut self, conv: ConversationId, from: Seq, to: Seq, out: &mut Commands) {
        self.syncs.drop_runs(conv);
        self.places.entry(conv).put(PlaceMark::Run, false);
        self.write_run_head(conv, &RunHead { from, to, gap: None, reset: false }, out);
        self.set_behind(conv);
    }

    /// Forgets a conversation whose last message is written. If later ones are, the user is back.
    fn end_if_last(&mut self, conv: ConversationId) {
        let Some((_, Some(last))) = self.ending.iter().find(|(ending, _)| *ending == conv) else { return };
        let Some(place) = self.places.get(conv) else { return };
        let (last, sent) = (*last, place.sent());
        if sent == last && !place.has(PlaceMark::Moved) {
            self.drop_conversation(conv);
        } else if sent >= last {
            self.ending.retain(|(ending, _)| *ending != conv);
        }
    }

    fn drop_conversation(&mut self, conv: ConversationId) {
        self.ending.retain(|(ending, _)| *ending != conv);
        self.syncs.drop_runs(conv);
        self.places.remove(conv);
    }

    /// Nothing of this conversation is written any more.
    fn forget(&mut self, conv: ConversationId, out: &mut Commands) {
        self.drop_conversation(conv);
        // Sends that were committed earlier are still acknowledged.
        self.acknowledge_all(conv, out);
    }

    /// Does what is next, if there is room for it.
    fn work(&mut self, out: &mut Commands) {
        while !self.is_closed && self.reading.is_none() && !self.is_pausing && self.has_room() {
            let goes_on = match self.stage {
                PumpStage::Opening | PumpStage::Overview { asked: true } => false,
                PumpStage::Overview { asked: false } => {
                    self.stage = PumpStage::Overview { asked: true };
                    out.push(Command::Overview);
                    false
                }
                PumpStage::Live if self.run_was_last => self.read_behind(out) || self.sync(out),
                PumpStage::Live => self.sync(out) || self.read_behind(out),
            };
            if !goes_on {
                break;
            }
        }
        self.look_at_requests(out);
    }

    /// The next step of the first synchronisation; false if there is none now.
    fn sync(&mut self, out: &mut Commands) -> bool {
        match self.syncs.step() {
            None => false,
            Some(SyncStep::Refuse(name, refusal)) => {
                self.write(frames::run_refused(&name, refusal), out);
                // Nothing of it follows.
                if let Some(name) = ConversationName::parse(&name) {
                    self.forget(name.for_user(self.user), out);
                }
                true
            }
            Some(SyncStep::Begin(Run { conv, head, .. })) => {
                // The conversation may have ended meanwhile, or come back.
                self.places.entry(conv).put(PlaceMark::Run, true);
                self.write_run_head(conv, &head, out);
                self.end_run_if_written(conv, out) || self.read_run(out)
            }
            Some(SyncStep::GoOn) => self.read_run(out),
            Some(SyncStep::End(rid)) => {
                self.write(frames::synced(rid.as_ref()), out);
                true
            }
        }
    }

    fn read_run(&mut self, out: &mut Commands) -> bool {
        let Some(run) = self.syncs.run() else { return false };
        let (conv, to) = (run.conv, run.head.to);
        let from = self.places.entry(conv).sent() + 1;
        if self.sends.is_held(conv, from) {
            return false;
        }
        self.read(conv, from, Some(to), true, out)
    }

    /// Ends the first run if all of it is written.
    fn end_run_if_written(&mut self, conv: ConversationId, out: &mut Commands) -> bool {
        let Some(run) = self.syncs.run() else { return false };
        if run.conv != conv || self.places.entry(conv).sent() < run.head.to {
            return false;
        }
        self.syncs.end_run();
        let has_another = self.syncs.has_run(conv);
        let place = self.places.entry(conv);
        place.put(PlaceMark::Run, has_another);
        if place.has(PlaceMark::Dirty) && !has_another {
            place.put(PlaceMark::Dirty, false);
            self.set_behind(conv);
        }
        self.end_if_last(conv);
        self.settle(conv, out);
        true
    }

    /// Reads the conversation that has been behind for longest; false if there is none.
    fn read_behind(&mut self, out: &mut Commands) -> bool {
        while let Some(conv) = self.behind.pop_front() {
            let Some(place) = self.places.get_mut(conv).filter(|place| place.has(PlaceMark::Behind)) else { continue };
            place.put(PlaceMark::Behind, false);
            let (from, has_run) = (place.sent() + 1, place.has(PlaceMark::Run));
            if has_run {
                place.put(PlaceMark::Dirty, true);
                continue;
            }
            if self.sends.is_held(conv, from) {
                // The answer that it waits for raises it again.
                continue;
            }
            // A later membership is shown already.
            self.ending.retain(|(ending, last)| *ending != conv || last.is_none_or(|last| last >= from));
            let to = self.ending.iter().find(|(ending, _)| *ending == conv).and_then(|(_, last)| *last);
            return self.read(conv, from, to, false, out);
        }
        self.behind = VecDeque::new();
        false
    }

    fn read(&mut self, conv: ConversationId, from: Seq, to: Option<Seq>, is_run: bool, out: &mut Commands) -> bool {
        self.reading = Some(Reading { conv, from, is_run });
        self.run_was_last = is_run;
        out.push(Command::Read { conv, from, to });
        true
    }

    /// Stops or goes on reading requests.
    fn look_at_requests(&mut self, out: &mut Commands) {
        let takes =
            self.stage != PumpStage::Opening && self.sends.count() < self.limits.inflight && self.syncs.has_room();
        if !self.is_closed && takes != self.takes_requests {
            self.takes_requests = takes;
            out.push(if takes { Command::TakeRequests } else { Command::StopRequests });
        }
    }
}

/// The most changes of memberships that are remembered until the last 43. A connection with more is
/// closed.
const POSTPONED_MAX: usize = 256;
/// The newest messages that follow a reset on a connection that is open.
const RESUMED_AFTER_LOSS: Seq = 100;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
