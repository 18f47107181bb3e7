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

mod drain;

use std::time::{Duration, Instant};

use pool::Again;

use self::drain::{REFUSED_MAX, SpoolDrain, Stuck};
use crate::base::ending::{DeliveryResult, Undelivered};
use crate::base::trace::Hop;
use crate::bus::Neighbours;
use crate::delivery::{Delivery, DeliveryOrigin, LaneItem, MailboxState, messages, settle, settle_all};
use crate::metrics::{BatchStage, Hit, SpoolMove};
use crate::protocol::UserId;
use crate::routing::quotas::{QuotaOutcome, Size};
use crate::routing::services::StoreLaneParts;
use crate::routing::traced;
use crate::store::spool::{Addition, Spool};
use crate::store::{AppendOutcome, StoreError};

/// See the [module](self).
#[derive(Debug)]
pub struct Backlog {
    /// Messages that neither the store nor the spool accepted, without a sender that would send
    /// them again. Their number is limited by what connections held when they ended. They are newer
    /// than those in the spool.
    returned: Vec<Delivery>,
    /// The number of these that the metrics count.
    counted: usize,
    /// The lane's part of the spool.
    drain: SpoolDrain,
}

impl Backlog {
    /// The nth of `lanes` lanes. Messages that an earlier run has left in the spool come first.
    pub fn new(nth: usize, lanes: usize, spool: &dyn Spool) -> Backlog {
        let drain = SpoolDrain::new((nth as u64, lanes as u64), spool);
        Backlog { returned: Vec::new(), counted: 0, drain }
    }

    /// The lane's next state after a panic, which may have left this one half changed. Messages
    /// that no sender would send again are kept, and the spool is read again.
    pub fn begin_again(self, spool: &dyn Spool) -> Backlog {
        Backlog { drain: self.drain.begin_again(spool), ..self }
    }

    /// The time of the first call if no batch comes.
    pub fn begins(&self) -> Option<Again> {
        // After a panic, returned messages may be left of the previous state.
        let returned = (!self.returned.is_empty()).then_some(Again::After(Duration::ZERO));
        returned.or(self.drain.is_spooling().then_some(Again::UnlessClosing(Duration::ZERO)))
    }

    /// Handles one batch. Returns the time of the next call if no other batch comes.
    pub fn handle(&mut self, batch: Vec<LaneItem>, now: Instant, parts: &StoreLaneParts) -> Option<Again> {
        self.drain.on_batch(batch.is_empty(), now);
        if parts.spool.owes() {
            parts.spool.tidy();
        }
        // Drain more than this batch adds, or the spool would never empty.
        self.drain.move_when_due(2 * batch.len(), now, parts);
        // The oldest go first, so that a user's messages keep their order.
        let (mut deliveries, mut works) = (std::mem::take(&mut self.returned), Vec::new());
        for item in batch {
            match item {
                LaneItem::Delivery(delivery) => deliveries.push(delivery),
                // Work is done after the whole batch is stored: separate transactions would delay
                // other users' messages.
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
        let returned = (!self.returned.is_empty()).then_some(Again::After(RETRY_AFTER));
        let owed = || parts.spool.owes().then_some(Again::UnlessClosing(TIDY_EVERY));
        returned.or(self.drain.again(now)).or_else(owed)
    }

    /// Offers messages to nodes of the reference server, and stores the rest.
    fn place(&mut self, deliveries: Vec<Delivery>, parts: &StoreLaneParts) {
        if deliveries.is_empty() {
            return;
        }
        if self.drain.is_spooling() {
            return self.spool(within_quotas(deliveries, false, parts), parts);
        }
        let Neighbours { taken, untaken } = parts.offer_to_neighbours(deliveries);
        parts.metrics.confirmed(taken.len());
        settle_all(taken, Ok(()));
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
                traced::appended(&parts.tracer, &deliveries, &kept);
                settle(deliveries.into_iter().zip(kept.into_iter().map(ending_of)));
                refused
            }
            // A message that the database refuses must not affect the others. If it refuses
            // several, the cause is not the messages.
            Err(StoreError::Failed(_)) if deliveries.len() > 1 && refused < REFUSED_MAX => {
                let second = deliveries.split_off(deliveries.len() / 2);
                let kept = append(&deliveries, parts);
                let refused = self.settle_kept(deliveries, kept, refused, parts);
                if self.drain.is_spooling() {
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
                    // No sender would send it again, so it is retried and not given up.
                    self.spool(deliveries, parts);
                    return refused + 1;
                }
                parts.metrics.failed(1);
                traced::deliveries(&parts.tracer, Hop::Refused, 503, &deliveries);
                settle_all(deliveries, UNSTORED);
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
        settle_all(too_long, UNSTORED);
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
            self.drain.spooled();
            parts.metrics.spool(SpoolMove::Spooled, kept.len());
            traced::deliveries(&parts.tracer, Hop::Spooled, 0, kept.iter().map(|(delivery, _)| delivery));
            settle(kept.into_iter().map(|(delivery, _)| (delivery, Ok(()))));
        }
        self.refuse(refused.into_iter().map(|(delivery, _)| delivery).collect(), parts);
    }

    /// Notifies the senders that their messages cannot be stored; messages without a sender wait.
    fn refuse(&mut self, deliveries: Vec<Delivery>, parts: &StoreLaneParts) {
        let (returned, sent): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(is_returned);
        self.returned.extend(returned);
        parts.metrics.failed(sent.len());
        traced::deliveries(&parts.tracer, Hop::Refused, 503, &sent);
        settle_all(sent, UNSTORED);
    }

    /// Drains this user's messages, if the store accepts them. Returns whether all are stored.
    fn mailbox(&mut self, user: UserId, parts: &StoreLaneParts) -> MailboxState {
        if let Err(Stuck) = self.drain.move_user(user, parts) {
            return MailboxState::InParts;
        }
        // Returned messages that could not be stored are newer, so they go behind everything in the
        // spool.
        let waits = self.returned.iter().any(|delivery| delivery.to == user);
        if waits { MailboxState::InParts } else { MailboxState::Whole }
    }
}

/// Stores deliveries, one of which was refused before; that refusal is not counted again.
fn append(deliveries: &[Delivery], parts: &StoreLaneParts) -> Result<Vec<AppendOutcome>, StoreError> {
    parts.messages.get()?.append(&messages(deliveries))
}

/// Refuses messages for which a mailbox has no room; returns the others. `may_ask`: whether the
/// store is reachable.
fn within_quotas(deliveries: Vec<Delivery>, may_ask: bool, parts: &StoreLaneParts) -> Vec<Delivery> {
    let size = |user| parts.messages.get().ok()?.mailbox_bytes(user).ok();
    let size = may_ask.then_some(&size as Size<'_>);
    let QuotaOutcome { fits, full, filled } = parts.quotas.admit(deliveries, &parts.clock, size);
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
        traced::deliveries(&parts.tracer, Hop::Refused, 503, &full);
        settle_all(full, Err(Undelivered::MailboxFull));
    }
    fits
}

/// The ending of a message for which the store has this outcome.
fn ending_of(outcome: AppendOutcome) -> DeliveryResult {
    match outcome {
        AppendOutcome::Stored | AppendOutcome::NoSuchUser => Ok(()),
        AppendOutcome::TooLong => UNSTORED,
    }
}

fn is_returned(delivery: &Delivery) -> bool {
    matches!(delivery.origin, DeliveryOrigin::Returned(..))
}

const UNSTORED: DeliveryResult = Err(Undelivered::Unstored);
/// The pause before returned messages that could not be stored are tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// The interval at which an idle lane completes deletions that its spool still owes to the disk.
const TIDY_EVERY: Duration = Duration::from_secs(1);
#[cfg(test)]
mod tests;
