//! [`RecorderLane`]: commits one batch after the other, and then hands on its messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use net::Turn;
use pool::Again;

use super::announcer::Announcer;
use super::failed_sends::FailedSends;
use super::forwarded_sends::{ForwardedSend, ForwardedSends};
use super::parts::RecorderParts;
use super::posts::{Posts, committed};
use super::recording::{OperatorOwed, RecordOwner, RecordedFor, RecorderItem, Recording};
use super::refusals::{AWAY, BROKEN, NOT_KEPT, refusal_of};
use super::traced;
use crate::admission::berths::Berth;
use crate::base::conversation::{ConversationId, Seq, Tag};
use crate::base::ending::Undelivered;
use crate::delivery::{Acknowledgement, ClientLink, Owed, Posted};
use crate::history::pump::SendAnswer;
use crate::metrics::{BatchStage, RecordedEvent};
use crate::routing::router::Keeps;
use crate::session::Recipients;
use crate::store::StoreError;
use crate::store::history::{CommitOutcome, EntryPlace, EntryRefusal, NewEntry};

/// One lane.
#[derive(Default)]
pub(super) struct RecorderLane {
    failed: FailedSends,
    forwarded: ForwardedSends,
    turn: Option<Turn<Posted>>,
}

/// A recording without its entry.
struct PendingEntry {
    to: RecordedFor,
    forward: Option<Arc<str>>,
    owner: RecordOwner,
    berth: Berth,
}

impl RecorderLane {
    /// The lane goes on after a batch that has panicked.
    pub(super) fn after_panic(mut self) -> RecorderLane {
        self.failed.note_panic();
        self
    }

    pub(super) fn handle(
        &mut self,
        batch: Vec<RecorderItem>,
        parts: &RecorderParts,
        announcer: Option<&Announcer>,
    ) -> Option<Again> {
        let now = parts.clock.now();
        let mut turn = self.turn.take().unwrap_or_else(|| Turn::at(now));
        turn.begin(now);
        turn.run_errands();
        let mut posts = Posts::default();
        let (mut entries, pending) = self.accept(batch, &mut posts, parts);
        parts.note_hooked(&mut entries, pending.iter().map(|pending| &pending.to));
        if !entries.is_empty() {
            match commit(&entries, &pending, parts) {
                Ok(outcomes) => {
                    parts.learn_who_uses_level1(&entries, pending.iter().map(|pending| &pending.to));
                    for ((entry, pending), outcome) in entries.iter().zip(pending).zip(outcomes) {
                        self.conclude(entry, pending, outcome, &mut turn, &mut posts, parts);
                    }
                }
                Err(error) => self.fail(entries, pending, &error, &mut turn, &mut posts, parts),
            }
        }
        turn.flush();
        posts.send(announcer);
        let next = turn.next_errand().map(|due| Again::UnlessClosing(due.saturating_duration_since(parts.clock.now())));
        self.turn = Some(turn);
        next
    }

    /// Refuses sends behind one that has failed.
    fn accept(
        &mut self,
        batch: Vec<RecorderItem>,
        posts: &mut Posts,
        parts: &RecorderParts,
    ) -> (Vec<NewEntry>, Vec<PendingEntry>) {
        let is_open = |recording: &Recording| matches!(recording.to, RecordedFor::Conversation);
        parts.read_members(batch.iter().filter(|item| is_open(&item.0)).filter_map(|item| item.0.entry.conv.group()));
        let (mut entries, mut accepted) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for item in batch {
            let Recording { entry, to, forward, owner, berth } = *item.0;
            let owner = match owner {
                RecordOwner::Member(owed) if !self.failed.lets_pass(&owed) => {
                    traced::failed(&parts.tracer, &entry, AWAY.errno);
                    posts.news.extend(owed.settle(SendAnswer::Refused(AWAY)));
                    continue;
                }
                owner => owner,
            };
            // The recipients are read before the commit, because a committed message must reach
            // everybody.
            let to = match (to, entry.conv.group(), owner) {
                (RecordedFor::Conversation, Some(group), owner) => match parts.members(group) {
                    Ok(members) => (RecordedFor::Known(Recipients::Group(group, members)), owner),
                    Err(_) => {
                        traced::failed(&parts.tracer, &entry, AWAY.errno);
                        if let RecordOwner::Member(owed) = owner {
                            self.failed.note(&owed);
                            posts.news.extend(owed.settle(SendAnswer::Refused(AWAY)));
                        }
                        continue;
                    }
                },
                (to, _, owner) => (to, owner),
            };
            let (to, owner) = to;
            entries.push(entry);
            accepted.push(PendingEntry { to, forward, owner, berth });
        }
        (entries, accepted)
    }

    fn fail(
        &mut self,
        entries: Vec<NewEntry>,
        pending: Vec<PendingEntry>,
        error: &StoreError,
        turn: &mut Turn<Posted>,
        posts: &mut Posts,
        parts: &RecorderParts,
    ) {
        let refusal = if matches!(error, StoreError::Unavailable(_)) { AWAY } else { BROKEN };
        for (entry, pending) in entries.into_iter().zip(pending) {
            let PendingEntry { to, forward, owner, berth } = pending;
            traced::failed(&parts.tracer, &entry, refusal.errno);
            match owner {
                RecordOwner::Member(owed) => {
                    if refusal.retry_after.is_some() {
                        self.failed.note(&owed);
                    }
                    posts.news.extend(owed.settle(SendAnswer::Refused(refusal)));
                }
                RecordOwner::Operator(owed) => owed.settle(SendAnswer::Refused(refusal)),
                RecordOwner::Session(owed) => {
                    unrecorded(&entry, (to, forward), (owed, berth), turn, posts, parts);
                }
            }
        }
    }

    /// Hands a committed message to everybody, and acknowledges it to its sender.
    fn conclude(
        &mut self,
        entry: &NewEntry,
        pending: PendingEntry,
        outcome: CommitOutcome,
        turn: &mut Turn<Posted>,
        posts: &mut Posts,
        parts: &RecorderParts,
    ) {
        let PendingEntry { to, forward, owner, berth } = pending;
        let owner = match owner {
            RecordOwner::Session(owed) if is_beside_records(outcome, &to, entry, parts) => {
                return unrecorded(entry, (to, forward), (owed, berth), turn, posts, parts);
            }
            owner => owner,
        };
        let (answer, place) = answer_to(outcome);
        let errno = if let SendAnswer::Refused(refusal) = answer { refusal.errno } else { 200 };
        traced::concluded(&parts.tracer, entry, outcome, errno);
        let may_repeat = !matches!(owner, RecordOwner::Session(_));
        let (origin, told, operator) = match owner {
            RecordOwner::Member(owed) => (owed.link.clone(), owed.settle(answer), None),
            RecordOwner::Session(owed) => (None, settled(owed, outcome), None),
            RecordOwner::Operator(owed) => (None, None, Some((owed, answer))),
        };
        let Some(place) = place else {
            operator.into_iter().for_each(|(owed, answer)| owed.settle(answer));
            return posts.news.extend(told);
        };
        let recipients = parts.recipients(&to, entry);
        // The post of the first attempt may have been lost with its answer. A device that has the
        // message ignores the repeat.
        posts.push((entry, berth.holder()), place, &parts.shown_to(entry, &recipients), origin.as_ref(), parts);
        // No client retries a message of level 1 with its id, so here a repeat is the batch whose
        // answer was lost.
        let is_repeat = may_repeat && matches!(outcome, CommitOutcome::Again(_));
        match if is_repeat { self.forwarded.find(entry) } else { ForwardedSend::Unknown } {
            ForwardedSend::UnderWay(first) => {
                // The operator repeats it until the first one is stored.
                operator.into_iter().for_each(|(owed, _)| owed.settle(SendAnswer::Refused(AWAY)));
                return told.into_iter().for_each(|(link, told)| first.follow(link, told));
            }
            ForwardedSend::Settled => {
                operator.into_iter().for_each(|(owed, answer)| owed.settle(answer));
                return posts.news.extend(told);
            }
            ForwardedSend::Unknown => {}
        }
        let at = (entry.conv, place.0.seq);
        let is_lost = operator.as_ref().map(|_| Arc::new(AtomicBool::new(false)));
        let operator = operator.zip(is_lost.clone());
        let answer = acknowledged(told, operator, at, berth);
        let mut promises = false;
        for (text, user) in forward.iter().flat_map(|text| recipients.iter().map(move |user| (text, *user))) {
            let keeps = parts.keeps(user);
            // The sender of a group message gets no copy. Of a repeat, only what must be kept is
            // sent again.
            if (entry.conv.group().is_some() && user == entry.sender) || (is_repeat && keeps == Keeps::No) {
                continue;
            }
            promises |= keeps == Keeps::Yes;
            parts.router.forward(turn, user, text, keeps, &answer);
            turn.relieve();
        }
        if promises && may_repeat {
            self.forwarded.note(entry, &answer, is_lost);
        }
        posts.news.extend(answer.take());
    }
}

/// The answer, the place and the tag before it.
fn answer_to(outcome: CommitOutcome) -> (SendAnswer, Option<(EntryPlace, Option<Tag>)>) {
    match outcome {
        CommitOutcome::New(place, before) => (SendAnswer::New(committed(place), before), Some((place, before))),
        CommitOutcome::Again(place) => (SendAnswer::Again(committed(place)), Some((place, None))),
        CommitOutcome::Refused(refusal) => (SendAnswer::Refused(refusal_of(refusal)), None),
    }
}

/// Tells the sender when the last delivery is settled.
fn acknowledged(
    told: Option<(Arc<ClientLink>, Posted)>,
    operator: Option<((OperatorOwed, SendAnswer), Arc<AtomicBool>)>,
    at: (ConversationId, Seq),
    berth: Berth,
) -> Arc<Acknowledgement> {
    if let Some((link, told)) = told {
        return Acknowledgement::new(link, told, Some(at), berth);
    }
    let Some(((owed, answer), is_lost)) = operator else { return Acknowledgement::silent(at.0, berth) };
    let tell = move |is_kept: bool| {
        // Before the operator is notified, because the operator may repeat the message at once.
        is_lost.store(!is_kept, Ordering::Release);
        owed.settle(if is_kept { answer } else { SendAnswer::Refused(NOT_KEPT) });
    };
    Acknowledgement::of_operator(tell, at, berth)
}

/// Commits a batch. An answer that was lost is settled by the same batch again; clients of level 1
/// cannot do that themselves.
fn commit(
    entries: &[NewEntry],
    pending: &[PendingEntry],
    parts: &RecorderParts,
) -> Result<Vec<CommitOutcome>, StoreError> {
    let once = || match parts.history.get()? {
        Some(history) => history.commit(entries, parts.rules),
        None => Err(StoreError::Unavailable("the tables have no conversations".into())),
    };
    let is_of_session = |pending: &PendingEntry| matches!(pending.owner, RecordOwner::Session(_));
    let committed = match once() {
        Err(StoreError::Unavailable(_)) if pending.iter().any(is_of_session) => once(),
        committed => committed,
    };
    parts.outages.note("recording messages", committed.as_ref().err());
    if let Ok(committed) = &committed {
        parts.metrics.batch(BatchStage::Record, committed.len());
        let is_new = |committed: &&CommitOutcome| matches!(committed, CommitOutcome::New(..));
        parts.metrics.recorded(RecordedEvent::Committed, committed.iter().filter(is_new).count());
    }
    committed
}

/// Whether a message of level 1 goes on without a record: there is no room for its conversation,
/// and no recipient uses level 2, so the record is an extra.
fn is_beside_records(outcome: CommitOutcome, to: &RecordedFor, entry: &NewEntry, parts: &RecorderParts) -> bool {
    outcome == CommitOutcome::Refused(EntryRefusal::NoRoom)
        && parts.recipients(to, entry).iter().all(|user| !parts.audience.has(*user))
}

/// Handles a message of level 1 that could not be recorded.
fn unrecorded(
    entry: &NewEntry,
    (to, forward): (RecordedFor, Option<Arc<str>>),
    (owed, berth): (Owed, Berth),
    turn: &mut Turn<Posted>,
    posts: &mut Posts,
    parts: &RecorderParts,
) {
    parts.metrics.recorded(RecordedEvent::Unrecorded, 1);
    let Some((link, told)) = owed.done() else { return };
    let answer = Acknowledgement::new(link, told, None, berth);
    let text = forward.unwrap_or_else(|| entry.text.clone());
    for user in
        parts.recipients(&to, entry).iter().filter(|user| entry.conv.group().is_none() || **user != entry.sender)
    {
        parts.router.forward(turn, *user, &text, Keeps::Yes, &answer);
        turn.relieve();
    }
    posts.news.extend(answer.take());
}

/// The outcome for a sender of level 1, for whom a recipient who does not exist is not a failure.
fn settled(owed: Owed, outcome: CommitOutcome) -> Option<(Arc<ClientLink>, Posted)> {
    match outcome {
        CommitOutcome::New(..) | CommitOutcome::Again(_) => owed.done(),
        CommitOutcome::Refused(EntryRefusal::NoSuchUser | EntryRefusal::NoSuchGroup) => owed.done(),
        CommitOutcome::Refused(_) => {
            owed.settle(Err(Undelivered::Unstored)).map(|(link, settled)| (link, Posted::Settled(settled)))
        }
    }
}
