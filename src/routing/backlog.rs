//! [`Backlog`]: one lane to the store, with its behaviour while the store fails.
//!
//! The lane takes all waiting messages as one batch, stores them in one transaction, and then
//! notifies the senders, with one event per loop. While the database of a cluster is unavailable,
//! the messages go into the spool instead:
//!
//! ```text
//!            the store is not available                 the lane's part of the spool is empty
//!   storing ────────────────────────────▶ spooling ─────────────────────────────────────────▶ storing
//!                                          │    ▲ tries again after a while: oldest first, piece by piece
//!                                          └────┘
//! ```
//! While a lane is spooling, all new messages go into the spool behind the others, so that none
//! overtakes. Before work on a user's stored messages, that user's part of the spool is drained.
//!
//! A message leaves the spool only after it is in the store. A node that dies in between stores it
//! again, so a message may arrive twice after a crash.
//!
//! A state machine that one lane runs: it has no threads, and gets the time as an argument.

use std::time::{Duration, Instant};

use pool::Again;

use crate::base::ids::FrameId;
use crate::bus::Neighbours;
use crate::delivery::{Delivery, LaneItem, MailboxState, Origin, messages, settle, settle_full};
use crate::metrics::{BatchStage, Hit, SpoolMove};
use crate::protocol::UserId;
use crate::routing::quotas::{Admitted, Size};
use crate::routing::services::StoreLaneParts;
use crate::store::spool::{Addition, Part, Spool, SpoolId};
use crate::store::{AppendOutcome, StoreError};

/// See the [module](self).
#[derive(Debug)]
pub struct Backlog {
    /// The number of this lane, and the number of lanes.
    lane: (u64, u64),
    /// Messages without a sender that would repeat them, which neither the store nor the spool
    /// accepted. Their number is limited by what connections held when they ended. They are newer
    /// than those in the spool.
    returned: Vec<Delivery>,
    /// The number of them that the metrics count.
    counted: usize,
    spooling: Option<Spooling>,
    /// Messages that are stored and could not be removed from the spool yet.
    moved: Vec<SpoolId>,
}

/// The state of a lane whose part of the spool is not empty, as far as is known.
#[derive(Debug)]
struct Spooling {
    due: Due,
    /// The pause after the next failure.
    pause: Duration,
    /// Everything up to this message is drained.
    after: SpoolId,
    /// The number of times in a row that the store has refused everything it was given.
    refusals: u32,
}

/// When to try the store again.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// Immediately.
    Now,
    /// At this time.
    At(Instant),
    /// This long after the batch in which it has failed.
    In(Duration),
}

/// The store accepts no more of the spool now.
struct Stuck;

/// The result of draining a piece of the spool.
#[derive(Default)]
struct Moved {
    /// Messages that are stored, or whose recipient does not exist.
    gone: Vec<SpoolId>,
    /// Messages that the store has refused individually, although it works.
    refused: Vec<SpoolId>,
}

impl Backlog {
    /// The nth of `lanes` lanes. Messages that an earlier run has left in the spool come first.
    pub fn new(nth: usize, lanes: usize, spool: &dyn Spool) -> Backlog {
        let spooling = (spool.load().messages > 0).then(|| Spooling::after(SpoolId(i64::MIN), Due::Now));
        Backlog { lane: (nth as u64, lanes as u64), returned: Vec::new(), counted: 0, spooling, moved: Vec::new() }
    }

    /// The lane's next state after a panic, which may have left this one half changed. Messages
    /// that no sender would send again are kept, and the spool is read again.
    pub fn begin_again(self, spool: &dyn Spool) -> Backlog {
        let Backlog { lane, returned, counted, moved, .. } = self;
        Backlog { lane, returned, counted, moved, ..Backlog::new(0, 1, spool) }
    }

    /// When to call it first if no batch comes.
    pub fn begins(&self) -> Option<Again> {
        // After a panic, what connections have returned may be left of the state before.
        let returned = (!self.returned.is_empty()).then_some(Again::After(Duration::ZERO));
        returned.or(self.spooling.as_ref().map(|_| Again::UnlessClosing(Duration::ZERO)))
    }

    /// Handles one batch. Returns when to call it again if no other batch comes.
    pub fn handle(&mut self, batch: Vec<LaneItem>, now: Instant, parts: &StoreLaneParts) -> Option<Again> {
        if let Some(Spooling { due, .. }) = &mut self.spooling
            && let Due::In(pause) = *due
        {
            // With an empty batch, the pause is over. Otherwise it counts from now, because the
            // attempt itself may have taken long.
            *due = if batch.is_empty() { Due::Now } else { Due::At(now + pause) };
        }
        if parts.spool.owes() {
            parts.spool.tidy();
        }
        // Drain more than this batch adds, or the spool would never empty.
        self.drain_when_due(2 * batch.len(), now, parts);
        // The oldest go first, so that a user's messages keep their order.
        let (mut deliveries, mut works) = (std::mem::take(&mut self.returned), Vec::new());
        for item in batch {
            match item {
                LaneItem::Delivery(delivery) => deliveries.push(delivery),
                // Done after the whole batch is stored: separate transactions would delay the
                // messages of others.
                LaneItem::Work(user, work) => works.push((user, work)),
                LaneItem::Answer(_, answer) => {
                    self.place(std::mem::take(&mut deliveries), parts);
                    deliveries = std::mem::take(&mut self.returned);
                    answer();
                }
            }
        }
        self.place(deliveries, parts);
        for (user, work) in works {
            work(self.mailbox(user, parts));
        }
        parts.metrics.unstored(self.returned.len(), self.counted);
        self.counted = self.returned.len();
        self.again(now, parts)
    }

    fn again(&self, now: Instant, parts: &StoreLaneParts) -> Option<Again> {
        let retry = self.spooling.as_ref().map(|spooling| match spooling.due {
            Due::In(pause) => Again::UnlessClosing(pause),
            Due::At(at) if at > now => Again::UnlessClosing(at - now),
            // The store accepts it: it is drained completely.
            Due::At(_) | Due::Now => Again::After(Duration::ZERO),
        });
        let returned = (!self.returned.is_empty()).then_some(Again::After(RETRY_AFTER));
        let owed = || parts.spool.owes().then_some(Again::UnlessClosing(TIDY_EVERY));
        returned.or(retry).or_else(owed)
    }

    /// Offers messages to nodes of the reference server, and stores the rest.
    fn place(&mut self, deliveries: Vec<Delivery>, parts: &StoreLaneParts) {
        if deliveries.is_empty() {
            return;
        }
        if self.spooling.is_some() {
            return self.spool(within_quotas(deliveries, false, parts), parts);
        }
        let untaken = offer_to_neighbours(deliveries, parts, |taken| {
            parts.metrics.confirmed(taken.len());
            settle(taken.into_iter().map(|delivery| (delivery, false)));
        });
        self.keep(within_quotas(untaken, true, parts), parts);
    }

    /// Stores messages, otherwise spools them. If neither accepts them, the senders get an error,
    /// and messages without a sender wait.
    fn keep(&mut self, mut deliveries: Vec<Delivery>, parts: &StoreLaneParts) {
        if parts.database.is_lost() {
            // A lost store still saves messages without a sender beside its file, with everything
            // else that it has.
            let (returned, sent) = deliveries.into_iter().partition(is_returned);
            self.refuse(sent, parts);
            deliveries = returned;
        }
        if deliveries.is_empty() {
            return;
        }
        parts.metrics.batch(BatchStage::Store, deliveries.len());
        let kept = parts.append(&messages(&deliveries));
        self.settle_kept(deliveries, kept, 0, parts);
    }

    /// `refused` is the number of messages of the same batch that the database has refused
    /// individually. Returns the new number.
    fn settle_kept(
        &mut self,
        mut deliveries: Vec<Delivery>,
        kept: Result<Vec<AppendOutcome>, StoreError>,
        refused: usize,
        parts: &StoreLaneParts,
    ) -> usize {
        match kept {
            Ok(kept) => {
                let count = |what| kept.iter().filter(|kept| **kept == what).count();
                parts.metrics.stored(count(AppendOutcome::Stored));
                parts.metrics.unknown_recipients(count(AppendOutcome::NoSuchUser));
                parts.metrics.failed(count(AppendOutcome::TooLong));
                let failed = kept.iter().map(|kept| *kept == AppendOutcome::TooLong);
                settle(deliveries.into_iter().zip(failed));
                refused
            }
            // A message that the database refuses must not affect the others. If it refuses
            // several, the cause is not the messages.
            Err(StoreError::Failed(_)) if deliveries.len() > 1 && refused < REFUSED_MAX => {
                let second = deliveries.split_off(deliveries.len() / 2);
                let kept = append(&deliveries, parts);
                let refused = self.settle_kept(deliveries, kept, refused, parts);
                if self.spooling.is_some() {
                    // The first half is spooled, and the second must not overtake it.
                    self.spool(second, parts);
                    return refused;
                }
                let kept = append(&second, parts);
                self.settle_kept(second, kept, refused, parts)
            }
            // The cause is this message: the database works, and would refuse it every time.
            Err(StoreError::Failed(cause)) if deliveries.len() == 1 && parts.database.check().is_ok() => {
                log::debug!("a message was refused: {cause}");
                if deliveries.iter().all(is_returned) && parts.spool.is_there() {
                    // It has no sender that would repeat it, so it is retried and not given up.
                    self.spool(deliveries, parts);
                    return refused + 1;
                }
                parts.metrics.failed(1);
                settle(deliveries.into_iter().map(|delivery| (delivery, true)));
                refused + 1
            }
            Err(error) => {
                let count = deliveries.len();
                match error {
                    StoreError::Unavailable(_) => self.spool(deliveries, parts),
                    StoreError::Failed(_) | StoreError::NameTaken => self.refuse(deliveries, parts),
                }
                refused + count
            }
        }
    }

    /// Spools messages behind the others. Refuses those that the spool cannot take, and immediately
    /// also those that the store would not accept later.
    fn spool(&mut self, deliveries: Vec<Delivery>, parts: &StoreLaneParts) {
        let (deliveries, too_long): (Vec<_>, Vec<_>) =
            deliveries.into_iter().partition(|delivery| parts.messages.fits(&delivery.text));
        parts.metrics.failed(too_long.len());
        settle(too_long.into_iter().map(|delivery| (delivery, true)));
        let addition = |delivery: &Delivery| Addition {
            message: delivery.message(),
            must: is_returned(delivery),
            holder: delivery.holder(),
        };
        let kept = parts.spool.add(deliveries.iter().map(addition).collect());
        parts.outages.note("writing to the spool", kept.as_ref().err());
        let kept = kept.unwrap_or_else(|_| vec![false; deliveries.len()]);
        let (kept, refused): (Vec<_>, Vec<_>) = deliveries.into_iter().zip(kept).partition(|(_, kept)| *kept);
        if !kept.is_empty() {
            self.spooling.get_or_insert_with(|| Spooling::after(SpoolId(i64::MIN), Due::In(FIRST_PAUSE)));
            parts.metrics.spool(SpoolMove::Spooled, kept.len());
            settle(kept.into_iter().map(|(delivery, _)| (delivery, false)));
        }
        self.refuse(refused.into_iter().map(|(delivery, _)| delivery).collect(), parts);
    }

    /// Notifies the senders that their messages cannot be stored; messages without a sender wait.
    fn refuse(&mut self, deliveries: Vec<Delivery>, parts: &StoreLaneParts) {
        let (returned, sent): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(is_returned);
        self.returned.extend(returned);
        parts.metrics.failed(sent.len());
        settle(sent.into_iter().map(|delivery| (delivery, true)));
    }

    /// Drains this user's messages, if the store accepts them.
    fn mailbox(&mut self, user: UserId, parts: &StoreLaneParts) -> MailboxState {
        if self.spooling.is_some() {
            loop {
                match self.drain_piece(Part::User(user), parts) {
                    Ok(None) => break,
                    Ok(Some(_)) => {}
                    Err(Stuck) => return MailboxState::InParts,
                }
            }
        }
        // Returned messages that could not be stored are newer, so they go behind everything in the
        // spool.
        let waits = self.returned.iter().any(|delivery| delivery.to == user);
        if waits { MailboxState::InParts } else { MailboxState::Whole }
    }

    /// If it is due, drains the lane's part of the spool: all of it, or at least this number of
    /// messages.
    fn drain_when_due(&mut self, at_least: usize, now: Instant, parts: &StoreLaneParts) {
        let mut drained = 0;
        while let Some(spooling) = self.spooling.as_ref().filter(|spooling| spooling.is_due(now)) {
            let (nth, of) = self.lane;
            match self.drain_piece(Part::Lane { nth, of, after: spooling.after }, parts) {
                Ok(None) => self.spooling = None,
                Ok(Some((last, messages))) => {
                    self.spooling = Some(Spooling::after(last, Due::Now));
                    drained += messages;
                    if drained > at_least {
                        return;
                    }
                }
                Err(Stuck) => self.spooling.iter_mut().for_each(|spooling| spooling.back_off()),
            }
        }
    }

    /// Moves the oldest messages of a part to the store. Returns the last of them and their number,
    /// `None` if there are none.
    fn drain_piece(&mut self, part: Part, parts: &StoreLaneParts) -> Result<Option<(SpoolId, usize)>, Stuck> {
        self.remove_moved(parts)?;
        let piece = parts.spool.oldest(part);
        parts.outages.note("reading from the spool", piece.as_ref().err());
        let piece = piece.map_err(|_| Stuck)?;
        let Some(last) = piece.last().map(|spooled| spooled.id) else { return Ok(None) };
        let count = piece.len();
        let deliveries: Vec<Delivery> = piece
            .into_iter()
            .map(|spooled| Delivery {
                id: FrameId::UNNAMED,
                to: spooled.message.to,
                text: spooled.message.text,
                origin: Origin::Spooled(spooled.id),
                was_refused: false,
            })
            .collect();
        let untaken = offer_to_neighbours(deliveries, parts, |taken| {
            parts.metrics.spool(SpoolMove::Drained, taken.len());
            self.moved.extend(taken.iter().filter_map(spool_id));
        });
        let mut moved = Moved::default();
        let outcome = moved.store(&untaken, parts);
        let nothing_accepted = moved.gone.is_empty();
        self.moved.append(&mut moved.gone);
        self.remove_moved(parts)?;
        if !moved.refused.is_empty() {
            if let Part::User(_) = part {
                // The lane's pause decides when the message is set aside, not the number of
                // fetches.
                return Err(Stuck);
            }
            self.set_aside(&moved.refused, nothing_accepted, parts)?;
        }
        outcome.map(|()| Some((last, count)))
    }

    /// Sets refused messages aside, so that later ones are not blocked. If the store has refused
    /// everything it was given, the cause may not be the messages, so it is asked several times
    /// first.
    fn set_aside(&mut self, refused: &[SpoolId], nothing_accepted: bool, parts: &StoreLaneParts) -> Result<(), Stuck> {
        if nothing_accepted && let Some(spooling) = &mut self.spooling {
            spooling.refusals += 1;
            if spooling.refusals < REFUSALS_MAX {
                return Err(Stuck);
            }
            spooling.refusals = 0;
        }
        parts.spool.set_aside(refused).map_err(|_| Stuck)?;
        parts.metrics.spool(SpoolMove::SetAside, refused.len());
        let count = refused.len();
        log::error!("the database refuses {count} messages of the spool: they stay there until the next start");
        Ok(())
    }

    /// Removes stored messages from the spool. Until that succeeds, nothing else is drained;
    /// otherwise it would be stored again and again.
    fn remove_moved(&mut self, parts: &StoreLaneParts) -> Result<(), Stuck> {
        if self.moved.is_empty() {
            return Ok(());
        }
        let removed = parts.spool.remove(&self.moved);
        parts.outages.note("deleting from the spool", removed.as_ref().err());
        removed.map_err(|_| Stuck)?;
        self.moved.clear();
        Ok(())
    }
}

impl Spooling {
    fn after(after: SpoolId, due: Due) -> Spooling {
        Spooling { due, pause: FIRST_PAUSE, after, refusals: 0 }
    }

    fn is_due(&self, now: Instant) -> bool {
        match self.due {
            Due::Now => true,
            Due::At(at) => at <= now,
            Due::In(_) => false,
        }
    }

    fn back_off(&mut self) {
        self.due = Due::In(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

impl Moved {
    /// Stores messages of the spool, and separates those that the store refuses individually.
    fn store(&mut self, deliveries: &[Delivery], parts: &StoreLaneParts) -> Result<(), Stuck> {
        if deliveries.is_empty() {
            return Ok(());
        }
        parts.metrics.batch(BatchStage::Store, deliveries.len());
        match parts.append(&messages(deliveries)) {
            Ok(kept) => {
                let count = |what| kept.iter().filter(|kept| **kept == what).count();
                parts.metrics.spool(SpoolMove::Drained, count(AppendOutcome::Stored));
                parts.metrics.spool(SpoolMove::Dropped, count(AppendOutcome::NoSuchUser));
                parts.metrics.unknown_recipients(count(AppendOutcome::NoSuchUser));
                for (delivery, kept) in deliveries.iter().zip(kept) {
                    let list = if kept == AppendOutcome::TooLong { &mut self.refused } else { &mut self.gone };
                    list.extend(spool_id(delivery));
                }
                Ok(())
            }
            Err(StoreError::Failed(_)) if deliveries.len() > 1 && self.refused.len() < REFUSED_MAX => {
                let (first, second) = deliveries.split_at(deliveries.len() / 2);
                self.store(first, parts)?;
                self.store(second, parts)
            }
            Err(StoreError::Failed(_)) if deliveries.len() == 1 && parts.database.check().is_ok() => {
                self.refused.extend(spool_id(&deliveries[0]));
                Ok(())
            }
            Err(_) => Err(Stuck),
        }
    }
}

/// Stores deliveries, one of which was refused before; that refusal is not counted again.
fn append(deliveries: &[Delivery], parts: &StoreLaneParts) -> Result<Vec<AppendOutcome>, StoreError> {
    parts.messages.get()?.append(&messages(deliveries))
}

/// Refuses messages for which a mailbox has no room; returns the rest. `may_ask`: the store is
/// reachable.
fn within_quotas(deliveries: Vec<Delivery>, may_ask: bool, parts: &StoreLaneParts) -> Vec<Delivery> {
    let size = |user| parts.messages.get().ok()?.mailbox_bytes(user).ok();
    let size = may_ask.then_some(&size as Size<'_>);
    let Admitted { fits, full, filled } = parts.quotas.admit(deliveries, &parts.clock, size);
    if let Some(first) = filled.first() {
        let more = if filled.len() > 1 { format!(" and {} more", filled.len() - 1) } else { String::new() };
        log::warn!(
            "the mailbox of user {first}{more} has no room for more messages of a sender (mailbox_max): \
             messages to them are refused, and messages to groups leave them out"
        );
    }
    if !full.is_empty() {
        let left_out = full.iter().filter(|delivery| delivery.is_of_group()).count();
        parts.metrics.left_out(left_out);
        parts.metrics.failed(full.len() - left_out);
        parts.metrics.refused(Hit::MailboxMax);
        settle_full(full);
    }
    fits
}

/// Returns the messages that nodes of the reference server do not take; `taken` settles the others.
fn offer_to_neighbours(
    deliveries: Vec<Delivery>,
    parts: &StoreLaneParts,
    settle: impl FnOnce(Vec<Delivery>),
) -> Vec<Delivery> {
    // While the store is unreachable, no user is known to be online there.
    let online = |users: &[UserId]| parts.states.get().and_then(|store| store.online(users)).unwrap_or_default();
    let Neighbours { taken, untaken } = parts.reference_nodes.publish_to_neighbours(deliveries, &online);
    parts.metrics.published(taken.len());
    settle(taken);
    untaken
}

fn is_returned(delivery: &Delivery) -> bool {
    matches!(delivery.origin, Origin::Returned { .. })
}

fn spool_id(delivery: &Delivery) -> Option<SpoolId> {
    if let Origin::Spooled(id) = delivery.origin { Some(id) } else { None }
}

/// If the database refuses this many messages individually, it is assumed to refuse all.
const REFUSED_MAX: usize = 3;
/// After it has refused everything it was given this many times in a row (for about ten seconds),
/// the messages are set aside.
const REFUSALS_MAX: u32 = 12;
/// The pause before returned messages that could not be stored are tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How often an idle lane checks for deletions that its spool still owes to the disk.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// The pauses of the store after its first failure, and after it has failed for a while.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::{env, fs, process};

    use parking_lot::Mutex;

    use super::*;
    use crate::admission::berths::Berths;
    use crate::admission::{Holder, Payer, Source};
    use crate::base::clock::Clock;
    use crate::bus::local::LocalBus;
    use crate::delivery::{Fan, Owed, Provenance};
    use crate::metrics::Metrics;
    use crate::protocol::GroupId;
    use crate::routing::quotas::Quotas;
    use crate::session::FailedFrame;
    use crate::store::spool::{MESSAGE_BYTES, PIECE_MAX, SpoolLoad, Spooled};
    use crate::store::sqlite::SpoolFile;
    use crate::store::{Database, KeptMessage, MessageId, Messages, NewMessage, Role, States, UserState};

    /// A store that can be unreachable or refuse, and records what it was given.
    #[derive(Default)]
    struct Script {
        /// The errors of the next appends; after them all succeed, or none if it is unreachable.
        failures: Mutex<VecDeque<Option<StoreError>>>,
        is_away: Mutex<bool>,
        kept: Mutex<Vec<(i32, String)>>,
        /// How often it was given something.
        appends: AtomicU32,
    }

    impl Script {
        /// Makes the append after this number of appends fail.
        fn fail_after(&self, appends: usize) {
            self.failures.lock().extend((0..appends).map(|_| None).chain([Some(away())]));
        }
    }

    fn away() -> StoreError {
        StoreError::Unavailable("it is away".into())
    }

    impl Messages for Script {
        fn append(&self, messages: &[NewMessage]) -> Result<Vec<AppendOutcome>, StoreError> {
            self.appends.fetch_add(1, Ordering::Relaxed);
            match self.failures.lock().pop_front() {
                Some(Some(error)) => return Err(error),
                Some(None) => {}
                None if *self.is_away.lock() => return Err(away()),
                None => {}
            }
            if messages.iter().any(|message| message.text.starts_with("poison")) {
                return Err(StoreError::Failed("it does not like one".into()));
            }
            let keep = |message: &NewMessage| {
                if message.to == NOBODY {
                    return AppendOutcome::NoSuchUser;
                }
                if message.text.starts_with("long") {
                    return AppendOutcome::TooLong;
                }
                self.kept.lock().push((message.to.0, message.text.to_string()));
                AppendOutcome::Stored
            };
            Ok(messages.iter().map(keep).collect())
        }
        fn fits(&self, text: &str) -> bool {
            text.len() <= LONGEST
        }
        fn fetch(&self, _: UserId, _: usize) -> Result<Vec<KeptMessage>, StoreError> {
            unreachable!("lanes do not ask")
        }
        fn delete(&self, _: UserId, _: &[MessageId]) -> Result<(), StoreError> {
            unreachable!("lanes do not ask")
        }
    }

    impl States for Script {
        fn online(&self, _: &[UserId]) -> Result<Vec<UserId>, StoreError> {
            self.check().map(|()| Vec::new())
        }
        fn online_after(&self, _: UserId, _: usize) -> Result<Vec<UserId>, StoreError> {
            unreachable!("lanes do not ask")
        }
        fn set_states(&self, _: &[(UserId, UserState)]) -> Result<(), StoreError> {
            unreachable!("lanes do not ask")
        }
        fn set_all_offline(&self) -> Result<(), StoreError> {
            unreachable!("lanes do not ask")
        }
    }

    impl Database for Script {
        fn describe(&self) -> String {
            "a script".into()
        }
        fn check(&self) -> Result<(), StoreError> {
            if *self.is_away.lock() { Err(away()) } else { Ok(()) }
        }
    }

    /// A spool whose disk can fail.
    struct Disk {
        file: SpoolFile,
        is_broken: Mutex<bool>,
    }

    impl Disk {
        fn try_out(&self) -> Result<(), StoreError> {
            if *self.is_broken.lock() { Err(StoreError::Unavailable("no space left".into())) } else { Ok(()) }
        }
    }

    impl Spool for Disk {
        fn add(&self, messages: Vec<Addition>) -> Result<Vec<bool>, StoreError> {
            self.try_out()?;
            self.file.add(messages)
        }
        fn oldest(&self, part: Part) -> Result<Vec<Spooled>, StoreError> {
            self.file.oldest(part)
        }
        fn remove(&self, ids: &[SpoolId]) -> Result<(), StoreError> {
            self.try_out()?;
            self.file.remove(ids)
        }
        fn set_aside(&self, ids: &[SpoolId]) -> Result<(), StoreError> {
            self.try_out()?;
            self.file.set_aside(ids)
        }
        fn load(&self) -> SpoolLoad {
            self.file.load()
        }
    }

    /// A folder that is removed with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let nth = COUNT.fetch_add(1, Ordering::Relaxed);
            let folder = env::temp_dir().join(format!("raybox-backlog-{}-{nth}", process::id()));
            let _ = fs::remove_dir_all(&folder);
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// One run of a node, with this number of lanes and a clock of its own.
    struct Node {
        lanes: Vec<Backlog>,
        parts: StoreLaneParts,
        store: Arc<Script>,
        disk: Arc<Disk>,
        now: Instant,
    }

    impl Node {
        fn start(folder: &Folder, store: &Arc<Script>, lanes: usize, bytes_max: usize) -> Node {
            let file = SpoolFile::open(&folder.0, bytes_max).unwrap();
            let disk = Arc::new(Disk { file, is_broken: Mutex::new(false) });
            let parts = StoreLaneParts {
                messages: Role::of(store.clone()),
                states: Role::of(store.clone()),
                database: store.clone(),
                spool: disk.clone(),
                reference_nodes: Arc::new(LocalBus),
                clock: Clock::default(),
                quotas: Arc::new(Quotas::new(1 << 20)),
                metrics: Arc::new(Metrics::new(1)),
                outages: Arc::default(),
            };
            let lanes = (0..lanes).map(|nth| Backlog::new(nth, lanes, &*disk)).collect();
            Node { lanes, parts, store: store.clone(), disk, now: Instant::now() }
        }

        /// Gives each item to its lane, one batch for each lane.
        fn handle(&mut self, items: Vec<LaneItem>) {
            let mut batches: Vec<Vec<LaneItem>> = self.lanes.iter().map(|_| Vec::new()).collect();
            for item in items {
                let lane = crate::store::spool::lane_of(item.user(), self.lanes.len() as u64);
                batches[usize::try_from(lane).unwrap()].push(item);
            }
            for (lane, batch) in self.lanes.iter_mut().zip(batches) {
                if !batch.is_empty() {
                    lane.handle(batch, self.now, &self.parts);
                }
            }
        }

        /// Lets every lane work until none asks to be called again, or until this time is over.
        fn work_for(&mut self, time: Duration) {
            let end = self.now + time;
            let mut again: Vec<Option<Again>> = self.lanes.iter().map(Backlog::begins).collect();
            while again.iter().any(Option::is_some) && self.now <= end {
                let mut next = LONGEST_PAUSE;
                for (lane, again) in self.lanes.iter_mut().zip(&mut again) {
                    *again = lane.handle(Vec::new(), self.now, &self.parts);
                    if let Some(Again::After(time) | Again::UnlessClosing(time)) = again {
                        next = next.min(*time);
                    }
                }
                self.now += next;
            }
        }

        fn send(&mut self, messages: &[(i32, &str)]) {
            self.handle(messages.iter().map(|(to, text)| message(*to, text)).collect());
        }

        /// The result of a fetch of this user.
        fn fetch(&mut self, user: i32) -> MailboxState {
            let told = Arc::new(Mutex::new(None));
            let tell = told.clone();
            self.handle(vec![LaneItem::Work(UserId(user), Box::new(move |mailbox| *tell.lock() = Some(mailbox)))]);
            told.lock().take().expect("the work was done")
        }

        fn kept_for(&self, user: i32) -> Vec<String> {
            let kept = self.store.kept.lock();
            kept.iter().filter(|(to, _)| *to == user).map(|(_, text)| text.clone()).collect()
        }

        fn spooled(&self) -> usize {
            self.disk.load().messages
        }

        fn count(&self, series: &str) -> u64 {
            let shown = self.parts.metrics.render();
            let value = shown.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            value.unwrap_or_else(|| panic!("no {series} in {shown}")).parse().unwrap()
        }

        fn failed(&self) -> u64 {
            self.count(r#"raybox_deliveries_total{path="failed"}"#)
        }
    }

    fn message(to: i32, text: &str) -> LaneItem {
        from(Origin::Spooled(SpoolId(1)), to, text)
    }

    fn from(origin: Origin, to: i32, text: &str) -> LaneItem {
        LaneItem::Delivery(Delivery {
            id: FrameId::UNNAMED,
            to: UserId(to),
            text: text.into(),
            origin,
            was_refused: false,
        })
    }

    const NOBODY: UserId = UserId(404);
    const LONGEST: usize = 50;
    const LONG: Duration = Duration::from_secs(60);
    const ROOM: usize = 1 << 20;

    #[test]
    fn messages_of_an_outage_are_stored_in_order_after_it() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 2, ROOM);
        node.send(&[(1, "a"), (2, "b")]);
        *store.is_away.lock() = true;
        node.send(&[(1, "c"), (2, "d"), (1, "e")]);
        node.send(&[(1, "f")]);
        assert_eq!((node.spooled(), node.failed()), (4, 0));
        node.work_for(LONG);
        assert_eq!(node.kept_for(1), ["a"], "the store is still away");
        *store.is_away.lock() = false;
        // It is not asked again yet: new messages must not overtake waiting ones.
        node.send(&[(1, "g")]);
        assert_eq!(node.kept_for(1), ["a"]);
        node.work_for(LONG);
        assert_eq!((node.kept_for(1), node.kept_for(2)), (strings("acefg"), strings("bd")));
        assert_eq!((node.spooled(), node.failed()), (0, 0));
        node.send(&[(1, "h")]);
        assert_eq!(node.kept_for(1), strings("acefgh"), "past the spool");
        assert_eq!(node.count(r#"raybox_spool_total{what="spooled"}"#), 5);
        assert_eq!(node.count(r#"raybox_spool_total{what="drained"}"#), 5);
    }

    #[test]
    fn a_store_that_fails_in_the_middle_goes_on_where_it_was() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, 10 * ROOM);
        *store.is_away.lock() = true;
        let texts: Vec<String> = (0..3 * PIECE_MAX).map(|n| n.to_string()).collect();
        node.send(&texts.iter().map(|text| (1, text.as_str())).collect::<Vec<_>>());
        *store.is_away.lock() = false;
        store.fail_after(1);
        node.work_for(Duration::ZERO);
        assert_eq!((node.kept_for(1).len(), node.spooled()), (PIECE_MAX, 2 * PIECE_MAX));
        node.send(&[(1, "last")]);
        node.work_for(LONG);
        let expected: Vec<String> = texts.into_iter().chain(["last".to_owned()]).collect();
        assert_eq!(node.kept_for(1), expected);
    }

    #[test]
    fn a_steady_stream_does_not_keep_the_spool_from_draining() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, 100 * ROOM);
        *store.is_away.lock() = true;
        let batch: Vec<(i32, &str)> = vec![(1, "x"); 2 * PIECE_MAX];
        (0..10).for_each(|_| node.send(&batch));
        *store.is_away.lock() = false;
        node.now += LONG;
        let mut batches = 0;
        while node.spooled() > 0 {
            node.send(&batch);
            node.now += FIRST_PAUSE;
            batches += 1;
            assert!(batches < 10, "more is drained than comes in");
        }
    }

    #[test]
    fn a_restart_with_other_lanes_drains_without_traffic() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 4, ROOM);
        *store.is_away.lock() = true;
        for text in ["a", "b", "c"] {
            node.send(&[(1, text), (2, text), (3, text), (6, text), (-5, text)]);
        }
        drop(node);
        let mut node = Node::start(&folder, &store, 3, ROOM);
        assert_eq!(node.spooled(), 15);
        node.send(&[(6, "d")]);
        node.work_for(LONG);
        assert_eq!(node.spooled(), 16);
        *store.is_away.lock() = false;
        node.work_for(LONG);
        assert_eq!((node.spooled(), node.kept_for(6)), (0, strings("abcd")));
        for user in [1, 2, 3, -5] {
            assert_eq!(node.kept_for(user), strings("abc"), "{user}");
        }
    }

    #[test]
    fn a_fetch_is_preceded_by_what_is_spooled_for_its_user() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, ROOM);
        assert_eq!(node.fetch(1), MailboxState::Whole);
        *store.is_away.lock() = true;
        node.send(&[(1, "a"), (2, "b"), (1, "c")]);
        assert_eq!(node.fetch(1), MailboxState::InParts);
        *store.is_away.lock() = false;
        assert_eq!(node.fetch(1), MailboxState::Whole);
        assert_eq!((node.kept_for(1), node.kept_for(2)), (strings("ac"), vec![]), "the other's waits for its time");
        node.send(&[(1, "d"), (2, "e")]);
        node.work_for(LONG);
        assert_eq!((node.kept_for(1), node.kept_for(2)), (strings("acd"), strings("be")));
        store.fail_after(0);
        node.handle(vec![message(1, "e"), from(Origin::Returned { late: false, elsewhere: false }, 1, "f")]);
        *node.disk.is_broken.lock() = true;
        assert_eq!(node.fetch(1), MailboxState::InParts, "it may be stored, and stored again");
        *node.disk.is_broken.lock() = false;
        assert_eq!(node.fetch(1), MailboxState::Whole);
        assert_eq!(node.kept_for(1), strings("acdef"), "and is not");
    }

    #[test]
    fn a_full_spool_refuses_but_for_what_has_no_sender() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, 2 * (MESSAGE_BYTES + 1));
        *store.is_away.lock() = true;
        node.send(&[(1, "a"), (1, "b"), (1, "c")]);
        node.handle(vec![from(Origin::Returned { late: false, elsewhere: false }, 1, "d"), message(1, "e")]);
        assert_eq!((node.spooled(), node.failed()), (3, 2));
        *store.is_away.lock() = false;
        node.now += LONG;
        node.send(&[(1, "f")]);
        node.work_for(LONG);
        assert_eq!((node.kept_for(1), node.failed()), (strings("abdf"), 2));
    }

    #[test]
    fn without_room_or_disk_the_senders_hear_of_it_and_what_has_none_waits() {
        for bytes_max in [0, ROOM] {
            let (folder, store) = (Folder::new(), Arc::new(Script::default()));
            let mut node = Node::start(&folder, &store, 1, bytes_max);
            *node.disk.is_broken.lock() = bytes_max > 0;
            *store.is_away.lock() = true;
            node.handle(vec![message(1, "a"), from(Origin::Returned { late: false, elsewhere: false }, 1, "b")]);
            assert_eq!((node.failed(), node.spooled()), (1, 0));
            assert_eq!(node.count("raybox_unstored_messages"), 1);
            assert_eq!(node.fetch(1), MailboxState::InParts);
            *store.is_away.lock() = false;
            node.send(&[(1, "c")]);
            assert_eq!(node.kept_for(1), strings("bc"));
            assert_eq!(node.count("raybox_unstored_messages"), 0);
        }
    }

    #[test]
    fn the_store_is_left_alone_for_longer_and_longer() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, ROOM);
        *store.is_away.lock() = true;
        let mut pauses = Vec::new();
        let mut batch = vec![message(1, "a")];
        for _ in 0..7 {
            let again = node.lanes[0].handle(std::mem::take(&mut batch), node.now, &node.parts);
            let Some(Again::UnlessClosing(pause)) = again else { panic!("it is tried again, but not at the end") };
            pauses.push(pause.as_millis());
            node.now += pause;
        }
        assert_eq!(pauses, [50, 50, 100, 200, 400, 800, 1000]);
    }

    #[test]
    fn messages_that_the_store_would_not_take_are_refused_at_the_door() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, ROOM);
        *store.is_away.lock() = true;
        let long = "x".repeat(LONGEST + 1);
        node.send(&[(1, "a"), (1, &long), (1, "b")]);
        assert_eq!((node.failed(), node.spooled()), (1, 2));
    }

    #[test]
    fn a_message_that_is_refused_for_ever_is_set_aside_and_one_for_nobody_dropped() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, ROOM);
        *store.is_away.lock() = true;
        node.send(&[(1, "a"), (1, "poison"), (NOBODY.0, "b"), (1, "c")]);
        *store.is_away.lock() = false;
        node.work_for(LONG);
        assert_eq!(node.kept_for(1), strings("ac"));
        assert_eq!(node.disk.load(), SpoolLoad { messages: 1, bytes: MESSAGE_BYTES + 6, aside: 1 });
        assert_eq!(node.count(r#"raybox_spool_total{what="aside"}"#), 1);
        assert_eq!(node.count(r#"raybox_spool_total{what="dropped"}"#), 1);
        assert_eq!(node.count(r#"raybox_deliveries_total{path="unknown"}"#), 1);
        node.send(&[(1, "d")]);
        assert_eq!(node.kept_for(1), strings("acd"), "the lane is past the spool");
        assert_eq!(node.fetch(1), MailboxState::Whole);
        drop(node);
        let node = Node::start(&folder, &store, 1, ROOM);
        assert_eq!(node.disk.load().aside, 0, "the database may have been put right");
    }

    #[test]
    fn a_message_that_is_refused_alone_is_tried_for_a_while_and_blocks_nobody_for_ever() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, ROOM);
        *store.is_away.lock() = true;
        node.send(&[(1, "poison")]);
        *store.is_away.lock() = false;
        node.work_for(3 * LONGEST_PAUSE);
        assert_eq!(node.disk.load().aside, 0, "perhaps the database refuses everything");
        node.work_for(LONG);
        assert_eq!(node.disk.load().aside, 1);
        assert_eq!(node.fetch(1), MailboxState::Whole);
    }

    #[test]
    fn a_stored_message_that_cannot_be_removed_from_the_spool_is_not_stored_again() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, ROOM);
        *store.is_away.lock() = true;
        node.send(&[(1, "a"), (1, "b")]);
        *store.is_away.lock() = false;
        *node.disk.is_broken.lock() = true;
        node.work_for(LONG);
        assert_eq!((node.kept_for(1), node.spooled()), (strings("ab"), 2));
        *node.disk.is_broken.lock() = false;
        node.work_for(LONG);
        assert_eq!((node.kept_for(1), node.spooled()), (strings("ab"), 0));
    }

    #[test]
    fn the_second_half_of_a_batch_does_not_overtake_the_first() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, ROOM);
        store.failures.lock().push_back(Some(StoreError::Failed("for whatever reason".into())));
        store.fail_after(0);
        node.send(&[(1, "a"), (1, "b"), (1, "c"), (1, "d")]);
        assert_eq!(node.spooled(), 4);
        node.work_for(LONG);
        assert_eq!(node.kept_for(1), strings("abcd"));
    }

    fn strings(letters: &str) -> Vec<String> {
        letters.chars().map(String::from).collect()
    }

    #[test]
    fn a_single_message_of_an_earlier_run_is_stored_and_one_of_two_is_not_refused_with_the_other() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, ROOM);
        node.send(&[(1, "poison"), (1, "a")]);
        assert_eq!((node.kept_for(1), node.failed()), (strings("a"), 1));
        *store.is_away.lock() = true;
        node.send(&[(1, "b")]);
        drop(node);
        *store.is_away.lock() = false;
        let mut node = Node::start(&folder, &store, 1, ROOM);
        node.work_for(LONG);
        assert_eq!((node.kept_for(1), node.spooled()), (strings("ab"), 0));
    }

    /// Messages that a dead connection has returned.
    fn returned(text: &str) -> LaneItem {
        from(Origin::Returned { late: false, elsewhere: false }, 1, text)
    }

    fn holder() -> Holder {
        Holder { payer: Payer::Account(UserId(3)), source: Source::of([192, 0, 2, 1].into()) }
    }

    /// A frame for a group, with one delivery to this user on its way.
    fn group_frame(to: i32) -> (Arc<Fan>, LaneItem) {
        let link = net::simulation::link_to_nowhere().unwrap();
        let berth = Berths::new(1 << 20).take(holder(), 1).unwrap();
        let provenance = Provenance { sender: &link, id: FrameId::first_of(1), holder: holder() };
        let fan = Fan::new(&provenance, GroupId(1), 1, berth);
        let share = fan.add(1).unwrap();
        (fan, from(Origin::Group(share), to, "g"))
    }

    #[test]
    fn messages_without_a_place_before_an_answer_are_placed_before_those_after_it() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, ROOM);
        *node.disk.is_broken.lock() = true;
        store.fail_after(0);
        let answer = LaneItem::Answer(UserId(1), Box::new(|| ()));
        node.handle(vec![returned("a"), answer, message(1, "b")]);
        assert_eq!(node.kept_for(1), strings("ab"));
    }

    #[test]
    fn the_end_waits_for_what_can_be_stored_and_for_what_nobody_would_send_again() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, 10 * ROOM);
        *store.is_away.lock() = true;
        node.send(&vec![(1, "x"); 4 * PIECE_MAX]);
        *store.is_away.lock() = false;
        // From here on the time counts.
        node.send(&[(1, "x")]);
        node.now += LONG;
        let half: Vec<LaneItem> = (0..PIECE_MAX / 2).map(|_| message(1, "y")).collect();
        let again = node.lanes[0].handle(half, node.now, &node.parts);
        assert_eq!(again, Some(Again::After(Duration::ZERO)), "the store takes it");
        assert_eq!(node.spooled(), 2 * PIECE_MAX + 1 + PIECE_MAX / 2, "more than twice what has come");
        node.work_for(LONG);

        *node.disk.is_broken.lock() = true;
        *store.is_away.lock() = true;
        let again = node.lanes[0].handle(vec![returned("a")], node.now, &node.parts);
        assert_eq!(again, Some(Again::After(RETRY_AFTER)));
    }

    #[test]
    fn a_message_for_nobody_has_not_failed_and_one_that_is_too_long_has() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, ROOM);
        let (fan, item) = group_frame(NOBODY.0);
        node.handle(vec![item]);
        assert_eq!(fan.all_under_way(false, false).map(|settled| settled.failures), Some(vec![]));
        let (fan, item) = group_frame(1);
        let LaneItem::Delivery(delivery) = item else { unreachable!("it is one") };
        node.handle(vec![LaneItem::Delivery(Delivery { text: "long".into(), ..delivery })]);
        assert_eq!(
            fan.all_under_way(false, false).map(|settled| settled.failures),
            Some(vec![FailedFrame { id: FrameId::first_of(1), is_full: false }])
        );
        assert_eq!(node.failed(), 1);
    }

    #[test]
    fn a_spooled_message_that_has_become_too_long_is_set_aside() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, ROOM);
        *store.is_away.lock() = true;
        node.send(&[(1, "long"), (1, "a")]);
        *store.is_away.lock() = false;
        node.work_for(LONG);
        assert_eq!((node.kept_for(1), node.disk.load().aside), (strings("a"), 1));
    }

    #[test]
    fn a_database_that_refuses_everything_is_not_asked_about_each_message() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, ROOM);
        node.send(&[(1, "poison"); 64]);
        assert_eq!(node.failed(), 64);
        assert!(store.appends.load(Ordering::Relaxed) <= 20);
    }

    #[test]
    fn a_refusal_of_a_database_that_is_away_is_not_about_the_message() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, ROOM);
        *store.is_away.lock() = true;
        store.failures.lock().push_back(Some(StoreError::Failed("for whatever reason".into())));
        node.handle(vec![returned("a")]);
        assert_eq!((node.spooled(), node.count("raybox_unstored_messages")), (0, 1));
    }

    #[test]
    fn a_message_that_the_database_alone_refuses_is_spooled_only_if_nobody_would_send_it_again() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, ROOM);
        node.send(&[(1, "poison")]);
        assert_eq!((node.spooled(), node.failed()), (0, 1));
        node.handle(vec![returned("poison")]);
        assert_eq!((node.spooled(), node.failed()), (1, 1));
    }

    #[test]
    fn a_message_that_is_refused_alone_is_set_aside_after_so_many_tries() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, ROOM);
        *store.is_away.lock() = true;
        node.send(&[(1, "poison")]);
        *store.is_away.lock() = false;
        store.appends.store(0, Ordering::Relaxed);
        let try_until = |node: &mut Node, tries| {
            while store.appends.load(Ordering::Relaxed) < tries {
                assert_eq!(node.disk.load().aside, 0, "too early");
                node.now += 2 * LONGEST_PAUSE;
                node.lanes[0].handle(Vec::new(), node.now, &node.parts);
            }
        };
        *node.disk.is_broken.lock() = true;
        try_until(&mut node, REFUSALS_MAX);
        *node.disk.is_broken.lock() = false;
        try_until(&mut node, 2 * REFUSALS_MAX);
        assert_eq!(node.disk.load().aside, 1, "what could not be set aside is tried as often again");
    }

    #[test]
    fn members_with_full_mailboxes_are_not_counted_as_failed() {
        let (folder, store) = (Folder::new(), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, ROOM);
        node.parts.quotas = Arc::new(Quotas::new(0));
        let (_fan, of_group) = group_frame(1);
        let link = net::simulation::link_to_nowhere().unwrap();
        let provenance = Provenance { sender: &link, id: FrameId::first_of(2), holder: holder() };
        let berth = Berths::new(1 << 20).take(holder(), 1).unwrap();
        node.handle(vec![of_group, from(Origin::Sender(Owed::to(&provenance, 1), berth), 1, "a")]);
        assert_eq!((node.count(r#"raybox_deliveries_total{path="left_out"}"#), node.failed()), (1, 1));
    }
}
