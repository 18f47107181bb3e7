//! [`PumpProgress`]: the position of a connection in each conversation, and the next reads. It
//! writes nothing.

use std::collections::{HashMap, VecDeque};

use super::event::{Command, FoundCursor, Heads};
use crate::base::conversation::{ConversationId, Seq, Tag};
use crate::history::cursor::{self, Extent, HeldCursor};
use crate::history::places::{PlaceMark, ShownPlace, ShownPlaces};
use crate::history::syncs::{Run, Syncs};
use crate::protocol::level2::frames::{Committed, RunHead};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct PumpProgress {
    pub(super) stage: PumpStage,
    pub(super) places: ShownPlaces,
    pub(super) syncs: Syncs,
    /// Conversations that are behind, in the order in which they are read.
    behind: VecDeque<ConversationId>,
    /// Memberships that have ended and whose last message is not written.
    ending: Vec<(ConversationId, Option<Seq>)>,
    /// Memberships that begin with this number once the previous one has ended.
    rejoining: Vec<(ConversationId, Seq)>,
    reading: Option<PageRead>,
    /// Whether the last page was for a run.
    run_was_last: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PumpStage {
    Opening,
    Overview { asked: bool },
    Live,
}

/// A page that was requested.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageRead {
    pub(super) conv: ConversationId,
    /// The first requested number. The messages before it were there.
    pub(super) from: Seq,
    /// Whether the page is for the current run.
    pub(super) is_run: bool,
    /// A message that was written, which must still be there.
    pub(super) held: Option<(Seq, Tag)>,
}

impl PumpProgress {
    /// The progress of a connection whose login is under way.
    pub(super) fn new() -> PumpProgress {
        PumpProgress {
            stage: PumpStage::Opening,
            places: ShownPlaces::default(),
            syncs: Syncs::of_login(),
            behind: VecDeque::new(),
            ending: Vec::new(),
            rejoining: Vec::new(),
            reading: None,
            run_was_last: false,
        }
    }

    /// Sets from the heads where every conversation continues, and which runs come first.
    pub(super) fn on_heads(&mut self, heads: Heads) {
        self.syncs.heads_came();
        self.places.fill(heads.convs.iter().map(|(conv, extent, last)| ShownPlace::of_head(*conv, extent.head, *last)));
        let is_login = self.stage == PumpStage::Opening;
        if is_login {
            self.stage = PumpStage::Overview { asked: false };
            self.place_early(&heads.convs.iter().map(|(conv, extent, last)| (*conv, (extent.head, *last))).collect());
        }
        let extents: HashMap<_, _> = heads.convs.iter().map(|(conv, extent, last)| (*conv, (*extent, *last))).collect();
        let (mut refused, mut runs) = (VecDeque::new(), VecDeque::new());
        for found in heads.cursors {
            match found {
                FoundCursor::Refused(name, refusal) => refused.push_back((name, refusal)),
                FoundCursor::Own(conv, mut held) => {
                    let (mut extent, last) =
                        extents.get(&conv).copied().unwrap_or((Extent { head: 0, floor: 0 }, None));
                    let is_reset = cursor::plan(held, extent, heads.resume).is_some_and(|head| head.reset);
                    if !is_login && !is_reset {
                        // The run includes messages that were written since the heads were read.
                        extent.head = extent.head.max(self.sent(conv));
                    }
                    let Some(mut head) = cursor::plan(held, extent, heads.resume) else { continue };
                    if !head.reset && self.has_dropped_below(conv, held.seq) {
                        // The cursor names a message that the client has dropped since it asked.
                        held = HeldCursor { seq: self.sent(conv), tag: None, stored: None };
                        head = cursor::plan(held, extent, heads.resume).unwrap_or(head);
                    }
                    let place = self.places.entry(conv);
                    let tells_loss = !is_login && head.reset && place.may_be_lost(extent.head, last);
                    place.put(PlaceMark::Run, true);
                    let known = held.stored.filter(|_| !head.reset).map(|tag| (held.seq, tag));
                    let run = Run::new(conv, head, known);
                    runs.push_back(if tells_loss { run.after_loss() } else { run });
                }
            }
        }
        self.syncs.add(heads.rid, refused, runs);
    }

    /// The head of the current run, which begins now. If the client was told since the heads were
    /// read to drop its messages, the run includes those that were written since.
    pub(super) fn head_to_begin(&mut self, Run { conv, mut head, .. }: Run) -> RunHead {
        let shown = self.places.get(conv).filter(|place| place.has(PlaceMark::Reset) && place.sent() > head.to);
        if let Some(place) = shown {
            head.to = place.sent();
            self.syncs.set_head(head);
        }
        head
    }

    /// Whether the client was told to drop its messages of this conversation, and was not shown
    /// this number since.
    fn has_dropped_below(&self, conv: ConversationId, seq: Seq) -> bool {
        self.places.get(conv).is_some_and(|place| place.has(PlaceMark::Reset) && place.sent() < seq)
    }

    /// Applies pushes that came before the heads: a conversation whose head is lower is behind.
    fn place_early(&mut self, heads: &HashMap<ConversationId, (Seq, Option<Committed>)>) {
        let early: Vec<ShownPlace> = self.places.iter().filter(|place| place.has(PlaceMark::Early)).collect();
        for place in early {
            let known = heads.get(&place.conv);
            let entry = self.places.entry(place.conv);
            entry.put(PlaceMark::Early, false);
            entry.put(PlaceMark::Fresh, known.is_none());
            entry.set_sent(known.map_or(0, |(head, _)| *head));
            entry.learn(known.and_then(|(_, last)| *last));
            self.raise(place.conv, place.sent());
        }
    }

    /// The last number of this conversation that was written.
    pub(super) fn sent(&mut self, conv: ConversationId) -> Seq {
        self.places.entry(conv).sent()
    }

    /// Notes that a conversation has messages up to `seq`.
    pub(super) fn raise(&mut self, conv: ConversationId, seq: Seq) {
        let is_opening = self.stage == PumpStage::Opening;
        let place = self.places.entry(conv);
        if is_opening {
            place.put(PlaceMark::Early, true);
            place.set_sent(place.sent().max(seq));
        } else if seq > place.sent() || place.has(PlaceMark::Run) {
            self.set_behind(conv);
        }
    }

    /// Queues this conversation to be read.
    pub(super) fn set_behind(&mut self, conv: ConversationId) {
        let is_reading = self.reading.is_some_and(|reading| reading.conv == conv);
        let place = self.places.entry(conv);
        if place.has(PlaceMark::Run) || is_reading {
            place.put(PlaceMark::Dirty, true);
        } else if !place.has(PlaceMark::Behind) {
            place.put(PlaceMark::Behind, true);
            self.behind.push_back(conv);
        }
    }

    /// Notes that a page up to this head is written, unless more was pushed meanwhile.
    pub(super) fn page_is_written(&mut self, conv: ConversationId, head: Seq) {
        let place = self.places.entry(conv);
        let has_more = place.sent() < head || place.has(PlaceMark::Dirty);
        place.put(PlaceMark::Dirty, false);
        if has_more {
            self.set_behind(conv);
        }
    }

    /// Notes that the shown membership ends with `last`; `None` if that is not known.
    pub(super) fn set_ending(&mut self, conv: ConversationId, last: Option<Seq>) {
        self.set_lasting(conv);
        self.ending.push((conv, last));
    }

    /// Notes that the shown membership has not ended.
    pub(super) fn set_lasting(&mut self, conv: ConversationId) {
        self.ending.retain(|(ending, _)| *ending != conv);
    }

    /// Whether a page shows that the store has lost messages that were written: a written message
    /// is missing, another one is in its place, or a run ends earlier than when it was planned.
    pub(super) fn is_lost(&self, reading: PageRead, extent: Extent, written: Option<Tag>) -> bool {
        let PageRead { conv, from, is_run, held } = reading;
        let is_another = held.is_some_and(|(seq, tag)| match written {
            Some(written) => written != tag,
            // Messages at and below the floor may be deleted.
            None => seq > extent.floor,
        });
        let is_ending = self.ending.iter().any(|(ending, _)| *ending == conv);
        let ends_early = is_run && !is_ending && self.syncs.run().is_some_and(|run| run.head.to > extent.head);
        let is_fresh = self.places.get(conv).is_none_or(|place| place.has(PlaceMark::Fresh));
        is_another || ends_early || extent.head < from - 1 && !is_fresh
    }

    /// Notes that a page has come: the user is a member, unless the last number says otherwise.
    pub(super) fn was_read(&mut self, conv: ConversationId) {
        self.ending.retain(|(ending, last)| *ending != conv || last.is_some());
    }

    /// Forgets a conversation whose last message is written, unless later ones are too: then the
    /// user is back.
    pub(super) fn end_if_last(&mut self, conv: ConversationId) {
        let Some((_, Some(last))) = self.ending.iter().find(|(ending, _)| *ending == conv) else { return };
        let Some(place) = self.places.get(conv) else { return };
        let (last, sent) = (*last, place.sent());
        if sent == last && !place.has(PlaceMark::Moved) {
            let next = self.rejoining.iter().find(|(rejoining, from)| *rejoining == conv && *from > last).copied();
            self.drop_conversation(conv);
            if let Some((_, from)) = next {
                self.begin(conv, from);
            }
        } else if sent >= last {
            self.set_lasting(conv);
            if sent == last {
                // The message that ends the membership is deleted. A refused page reveals the end.
                self.set_behind(conv);
            }
        }
    }

    /// Forgets a conversation, with its runs.
    pub(super) fn drop_conversation(&mut self, conv: ConversationId) {
        self.set_lasting(conv);
        self.forget_rejoining(conv);
        self.syncs.drop_runs(conv);
        self.places.remove(conv);
    }

    /// Begins a membership of which nothing was written.
    pub(super) fn begin(&mut self, conv: ConversationId, from: Seq) {
        self.places.entry(conv).move_to(from - 1);
        // The number of the 57 that begins it, whose push may have come earlier.
        self.raise(conv, from);
    }

    /// Notes that the user is back while an earlier membership is still shown.
    pub(super) fn set_rejoining(&mut self, conv: ConversationId, from: Seq) {
        self.forget_rejoining(conv);
        self.rejoining.push((conv, from));
        self.set_behind(conv);
    }

    /// Notes that the present membership is shown.
    pub(super) fn forget_rejoining(&mut self, conv: ConversationId) {
        self.rejoining.retain(|(rejoining, _)| *rejoining != conv);
    }

    /// Begins the current run. Messages of its conversation that were written before must still be
    /// there, even if the run begins at an earlier one.
    pub(super) fn hold_run(&mut self) {
        let Some(run) = self.syncs.run().filter(|run| !run.head.reset) else { return };
        let written = self.places.get(run.conv).and_then(|place| place.known());
        let held = [run.held, written].into_iter().flatten().max_by_key(|(seq, _)| *seq);
        self.syncs.set_held(held);
    }

    /// Ends the first run if it is this conversation's and all of it is written. Returns whether it
    /// has ended.
    pub(super) fn end_run_if_written(&mut self, conv: ConversationId) -> bool {
        let Some(run) = self.syncs.run() else { return false };
        if run.conv != conv || self.sent(conv) < run.head.to {
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
        true
    }

    /// Whether a page is being read.
    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Whether the last requested page was one of a run.
    pub(super) fn run_was_last(&self) -> bool {
        self.run_was_last
    }

    /// Requests the next page of the first run. `is_held`: whether this message waits for an
    /// answer.
    pub(super) fn read_run(&mut self, is_held: impl Fn(ConversationId, Seq) -> bool) -> Option<Command> {
        let run = self.syncs.run()?;
        let from = self.sent(run.conv) + 1;
        if is_held(run.conv, from) {
            return None;
        }
        let held = run.held.or_else(|| self.places.get(run.conv).and_then(|place| place.known()));
        Some(self.read(PageRead { conv: run.conv, from, is_run: true, held }, Some(run.head.to)))
    }

    /// Requests a page of the conversation that has been behind longest. `waits`: whether this
    /// message waits for an answer. That answer raises its conversation again, to the end that it
    /// has by then.
    pub(super) fn read_behind(&mut self, mut waits: impl FnMut(ConversationId, Seq) -> bool) -> Option<Command> {
        while let Some(conv) = self.behind.pop_front() {
            let Some(place) = self.places.get_mut(conv).filter(|place| place.has(PlaceMark::Behind)) else { continue };
            place.put(PlaceMark::Behind, false);
            let (from, held, has_run) = (place.sent() + 1, place.known(), place.has(PlaceMark::Run));
            if has_run {
                place.put(PlaceMark::Dirty, true);
                continue;
            }
            if waits(conv, from) {
                continue;
            }
            // A later membership is already shown.
            self.ending.retain(|(ending, last)| *ending != conv || last.is_none_or(|last| last >= from));
            let to = self.ending.iter().find(|(ending, _)| *ending == conv).and_then(|(_, last)| *last);
            return Some(self.read(PageRead { conv, from, is_run: false, held }, to));
        }
        self.behind = VecDeque::new();
        None
    }

    fn read(&mut self, reading: PageRead, to: Option<Seq>) -> Command {
        let PageRead { conv, from, is_run, held } = reading;
        let is_new = !is_run && self.places.get(conv).is_none_or(|place| place.has(PlaceMark::Fresh));
        self.reading = Some(reading);
        self.run_was_last = is_run;
        Command::Read { conv, from, to, is_new, written: held.map(|(seq, _)| seq) }
    }

    /// Takes the read that has come back. Its run may be over, if the membership that it was for
    /// has ended.
    pub(super) fn take_reading(&mut self) -> Option<PageRead> {
        let reading = self.reading.take()?;
        let is_run = reading.is_run && self.syncs.run().is_some_and(|run| run.conv == reading.conv);
        Some(PageRead { is_run, ..reading })
    }
}
