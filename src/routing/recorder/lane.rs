//! [`RecorderLane`]: one batch after the other is committed, and then handed on.

use std::sync::Arc;

use net::Turn;
use pool::Again;

use super::announcer::Announcer;
use super::failed_sends::FailedSends;
use super::forwarded_sends::{ForwardedSend, ForwardedSends};
use super::parts::RecorderParts;
use super::posts::{Posts, committed};
use super::recording::{RecordOwner, RecordedFor, RecorderItem, Recording};
use super::refusals::{AWAY, BROKEN, refusal_of};
use crate::admission::berths::Berth;
use crate::base::ending::Undelivered;
use crate::delivery::{Acknowledgement, ClientLink, Owed, Posted};
use crate::history::pump::SendAnswer;
use crate::metrics::{BatchStage, RecordedEvent};
use crate::routing::router::Keeps;
use crate::session::Recipients;
use crate::store::StoreError;
use crate::store::history::{Committed, EntryRefusal, NewEntry};

/// One lane.
#[derive(Default)]
pub(super) struct RecorderLane {
    failed: FailedSends,
    forwarded: ForwardedSends,
    turn: Option<Turn<Posted>>,
}

/// A recording without its entry.
struct Pending {
    to: RecordedFor,
    forward: Option<Arc<str>>,
    owner: RecordOwner,
    berth: Berth,
}

impl RecorderLane {
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
        let (entries, pending) = self.accept(batch, &mut posts, parts);
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

    /// Refuses the sends behind one that has failed.
    fn accept(
        &mut self,
        batch: Vec<RecorderItem>,
        posts: &mut Posts,
        parts: &RecorderParts,
    ) -> (Vec<NewEntry>, Vec<Pending>) {
        let is_open = |recording: &Recording| matches!(recording.to, RecordedFor::Conversation);
        parts.read_members(batch.iter().filter(|item| is_open(&item.0)).filter_map(|item| item.0.entry.conv.group()));
        let (mut entries, mut accepted) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for item in batch {
            let Recording { entry, to, forward, owner, berth } = *item.0;
            let owner = match owner {
                RecordOwner::Member(owed) if !self.failed.lets_pass(&owed) => {
                    posts.news.extend(owed.settle(SendAnswer::Refused(AWAY)));
                    continue;
                }
                owner => owner,
            };
            // Read before the commit: what is committed must reach everybody.
            let to = match (to, entry.conv.group(), owner) {
                (RecordedFor::Conversation, Some(group), owner) => match parts.members(group) {
                    Ok(members) => (RecordedFor::Known(Recipients::Group(group, members)), owner),
                    Err(_) => {
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
            accepted.push(Pending { to, forward, owner, berth });
        }
        (entries, accepted)
    }

    fn fail(
        &mut self,
        entries: Vec<NewEntry>,
        pending: Vec<Pending>,
        error: &StoreError,
        turn: &mut Turn<Posted>,
        posts: &mut Posts,
        parts: &RecorderParts,
    ) {
        let refusal = if matches!(error, StoreError::Unavailable(_)) { AWAY } else { BROKEN };
        for (entry, pending) in entries.into_iter().zip(pending) {
            let Pending { to, forward, owner, berth } = pending;
            match owner {
                RecordOwner::Member(owed) => {
                    if refusal.retry_after.is_some() {
                        self.failed.note(&owed);
                    }
                    posts.news.extend(owed.settle(SendAnswer::Refused(refusal)));
                }
                RecordOwner::Session(owed) => {
                    unrecorded(&entry, (to, forward), (owed, berth), turn, posts, parts);
                }
            }
        }
    }

    /// Hands a committed message to everybody, and answers its sender.
    fn conclude(
        &mut self,
        entry: &NewEntry,
        pending: Pending,
        outcome: Committed,
        turn: &mut Turn<Posted>,
        posts: &mut Posts,
        parts: &RecorderParts,
    ) {
        let Pending { to, forward, owner, berth } = pending;
        let (answer, place) = match outcome {
            Committed::New(place, before) => (SendAnswer::New(committed(place), before), Some((place, before))),
            Committed::Again(place) => (SendAnswer::Again(committed(place)), Some((place, None))),
            Committed::Refused(refusal) => (SendAnswer::Refused(refusal_of(refusal)), None),
        };
        let is_member = matches!(owner, RecordOwner::Member(_));
        let (origin, told) = match owner {
            RecordOwner::Member(owed) => (owed.link.clone(), owed.settle(answer)),
            RecordOwner::Session(owed) => (None, settled(owed, outcome)),
        };
        let Some((link, told)) = told else { return };
        let Some(place) = place else { return posts.news.push((link, told)) };
        let recipients = parts.recipients(&to, entry);
        // Of a repeat, the first word may have been lost with its answer. Who has it passes it over.
        posts.push(entry, place, &parts.shown_to(entry, &recipients), origin.as_ref(), parts);
        // Nobody repeats the id of a message of level 1, so a repeat is the one whose answer was lost.
        let is_repeat = is_member && matches!(outcome, Committed::Again(_));
        match if is_repeat { self.forwarded.find(entry) } else { ForwardedSend::Unknown } {
            ForwardedSend::UnderWay(first) => return first.follow(link, told),
            ForwardedSend::Settled => return posts.news.push((link, told)),
            ForwardedSend::Unknown => {}
        }
        let answer = Acknowledgement::new(link, told, Some(entry.conv), berth);
        let mut promises = false;
        for (text, user) in forward.iter().flat_map(|text| recipients.iter().map(move |user| (text, *user))) {
            let keeps = parts.keeps(user);
            // Of a repeat, what nobody has promised is not sent twice.
            if (entry.conv.group().is_some() && user == entry.sender) || (is_repeat && keeps == Keeps::No) {
                continue;
            }
            promises |= keeps == Keeps::Yes;
            parts.router.forward(turn, user, text, keeps, &answer);
            turn.relieve();
        }
        if promises && is_member {
            self.forwarded.note(entry, &answer);
        }
        posts.news.extend(answer.take());
    }
}

/// Commits a batch. An answer that was lost is settled by the same batch again; clients of level 1
/// cannot do that themselves.
fn commit(entries: &[NewEntry], pending: &[Pending], parts: &RecorderParts) -> Result<Vec<Committed>, StoreError> {
    let window = i64::try_from(parts.edit_window.as_millis()).unwrap_or(i64::MAX);
    let once = || match parts.history.get()? {
        Some(history) => history.commit(entries, window),
        None => Err(StoreError::Unavailable("the tables have no conversations".into())),
    };
    let is_of_session = |pending: &Pending| matches!(pending.owner, RecordOwner::Session(_));
    let committed = match once() {
        Err(StoreError::Unavailable(_)) if pending.iter().any(is_of_session) => once(),
        committed => committed,
    };
    parts.outages.note("recording messages", committed.as_ref().err());
    if let Ok(committed) = &committed {
        parts.metrics.batch(BatchStage::Record, committed.len());
        let is_new = |committed: &&Committed| matches!(committed, Committed::New(..));
        parts.metrics.recorded(RecordedEvent::Committed, committed.iter().filter(is_new).count());
    }
    committed
}

/// A message of level 1 that could not be recorded.
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

/// What a sender of level 1 is told. A recipient who does not exist is no failure there.
fn settled(owed: Owed, outcome: Committed) -> Option<(Arc<ClientLink>, Posted)> {
    match outcome {
        Committed::New(..) | Committed::Again(_) => owed.done(),
        Committed::Refused(EntryRefusal::NoSuchUser | EntryRefusal::NoSuchGroup) => owed.done(),
        Committed::Refused(_) => {
            owed.settle(Err(Undelivered::Unstored)).map(|(link, settled)| (link, Posted::Settled(settled)))
        }
    }
}
