//! [`SpoolDrain`]: one lane's part of the spool, and its way into the store.
//!
//! The part is tried again after pauses that grow with each failure: oldest first, piece by piece.
//! A message leaves the spool only after it is in the store.

use std::time::{Duration, Instant};

use pool::Again;

use crate::bus::Neighbours;
use crate::delivery::{Delivery, DeliveryOrigin, messages};
use crate::metrics::{BatchStage, SpoolMove};
use crate::protocol::UserId;
use crate::routing::services::StoreLaneParts;
use crate::routing::traced;
use crate::store::spool::{Part, Spool, SpoolId, Spooled};
use crate::store::{AppendOutcome, StoreError};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct SpoolDrain {
    /// The number of this lane, and the number of lanes.
    lane: (u64, u64),
    /// `None` while the part is empty.
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
    /// The number of consecutive attempts in which the store has refused everything.
    refusals: u32,
}

/// The time of the next attempt.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// Immediately.
    Now,
    /// At this time.
    At(Instant),
    /// This long after the batch in which the attempt has failed.
    In(Duration),
}

/// The store accepts no more of the spool now.
pub(super) struct Stuck;

/// The result of draining a piece of the spool.
#[derive(Default)]
struct Moved {
    /// Messages that are stored, or whose recipient does not exist.
    gone: Vec<SpoolId>,
    /// Messages that the store has refused individually, although it works.
    refused: Vec<SpoolId>,
}

impl SpoolDrain {
    /// The part of lane `lane.0` of `lane.1` lanes. Messages that an earlier run has left in the
    /// spool are moved at once.
    pub(super) fn new(lane: (u64, u64), spool: &dyn Spool) -> SpoolDrain {
        SpoolDrain { lane, spooling: left_by_earlier_run(spool), moved: Vec::new() }
    }

    /// The next state after a panic: the spool is read again.
    pub(super) fn begin_again(self, spool: &dyn Spool) -> SpoolDrain {
        SpoolDrain { spooling: left_by_earlier_run(spool), ..self }
    }

    /// Whether there may be messages of this lane in the spool. Later ones must not overtake them.
    pub(super) fn is_spooling(&self) -> bool {
        self.spooling.is_some()
    }

    /// Messages of this lane were spooled.
    pub(super) fn spooled(&mut self) {
        self.spooling.get_or_insert_with(|| Spooling::after(SpoolId(i64::MIN), Due::In(FIRST_PAUSE)));
    }

    /// Notes that a batch comes. An empty one ends the pause. Otherwise the pause counts from now,
    /// because the attempt itself may have taken long.
    pub(super) fn on_batch(&mut self, is_empty: bool, now: Instant) {
        if let Some(Spooling { due, .. }) = &mut self.spooling
            && let Due::In(pause) = *due
        {
            *due = if is_empty { Due::Now } else { Due::At(now + pause) };
        }
    }

    /// The time of the next attempt if no batch comes.
    pub(super) fn again(&self, now: Instant) -> Option<Again> {
        self.spooling.as_ref().map(|spooling| match spooling.due {
            Due::In(pause) => Again::UnlessClosing(pause),
            Due::At(at) if at > now => Again::UnlessClosing(at - now),
            // The store accepts it, so the part is drained completely.
            Due::At(_) | Due::Now => Again::After(Duration::ZERO),
        })
    }

    /// Moves all messages of this user to the store.
    pub(super) fn move_user(&mut self, user: UserId, parts: &StoreLaneParts) -> Result<(), Stuck> {
        while self.is_spooling() && self.move_piece(Part::User(user), parts)?.is_some() {}
        Ok(())
    }

    /// If an attempt is due, moves the lane's part of the spool to the store: all of it, or at
    /// least this number of messages.
    pub(super) fn move_when_due(&mut self, at_least: usize, now: Instant, parts: &StoreLaneParts) {
        let mut drained = 0;
        while let Some(spooling) = self.spooling.as_ref().filter(|spooling| spooling.is_due(now)) {
            let (nth, of) = self.lane;
            match self.move_piece(Part::Lane { nth, of, after: spooling.after }, parts) {
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
    fn move_piece(&mut self, part: Part, parts: &StoreLaneParts) -> Result<Option<(SpoolId, usize)>, Stuck> {
        self.remove_moved(parts)?;
        let piece = parts.spool.oldest(part);
        parts.outages.note("reading from the spool", piece.as_ref().err());
        let piece = piece.map_err(|_| Stuck)?;
        let Some(last) = piece.last().map(|spooled| spooled.id) else { return Ok(None) };
        let count = piece.len();
        let deliveries: Vec<Delivery> = piece
            .into_iter()
            .map(|Spooled { id, message }| {
                Delivery::new(message.to, message.text, DeliveryOrigin::Spooled(id, message.recorded))
            })
            .collect();
        let Neighbours { taken, untaken } = parts.offer_to_neighbours(deliveries);
        parts.metrics.spool(SpoolMove::Drained, taken.len());
        self.moved.extend(taken.iter().filter_map(spool_id));
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

    /// Sets refused messages aside, so that they do not block later ones. If the store has refused
    /// everything, the cause may not be the messages, so it is tried several times first.
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
                traced::appended(&parts.tracer, deliveries, &kept);
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

fn left_by_earlier_run(spool: &dyn Spool) -> Option<Spooling> {
    (spool.load().messages > 0).then(|| Spooling::after(SpoolId(i64::MIN), Due::Now))
}

fn spool_id(delivery: &Delivery) -> Option<SpoolId> {
    if let DeliveryOrigin::Spooled(id, _) = delivery.origin { Some(id) } else { None }
}

/// If the database refuses this many messages individually, it is assumed to refuse all.
pub(super) const REFUSED_MAX: usize = 3;
/// After this many consecutive attempts in which the database refuses everything (about ten
/// seconds), the messages are set aside.
pub(super) const REFUSALS_MAX: u32 = 12;
/// The pauses after the first failure of the store, and after it has failed for a while.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(1);
