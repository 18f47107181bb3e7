//! [`Delivery`]: one message on its way to one recipient who is not on this node, and the lanes it travels in.
//!
//! A node that is not alone offers it to the others first (`outbox.rs`). What none of them takes comes to the lanes of
//! this file: each takes what waits as one batch, has the store keep it in one transaction, and then tells the senders,
//! one message to a loop for all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use net::Link;
use rustc_hash::FxHashMap;

use crate::bus::Neighbours;
use crate::jobs::Services;
use crate::metrics::Stage;
use crate::protocol::UserId;
use crate::session::{Outcome, Settled};
use crate::store::{Kept, Message, StoreError};

/// What other threads post to a session.
#[derive(Debug)]
pub enum Posted {
    /// Its job is done.
    Outcome(Outcome),
    /// What became of frames it forwarded.
    Settled(Settled),
    /// Another connection of one of its users waits for the mailbox.
    MailboxWanted,
}

/// A connection of this server.
pub type ClientLink = Link<Posted>;

/// One message for one recipient.
#[derive(Debug)]
pub struct Delivery {
    /// Whom it is for.
    pub to: UserId,
    /// The frame's JSON text, shared by all recipients.
    pub text: Arc<str>,
    /// Who waits to hear what becomes of it.
    pub origin: Origin,
    /// A node that should have had the recipient had not.
    pub was_refused: bool,
}

/// Who waits to hear what becomes of a delivery.
#[derive(Debug)]
pub enum Origin {
    /// The sender of a frame for one recipient.
    Sender(Arc<ClientLink>),
    /// The sender of a frame for many.
    Group(Arc<Fan>),
    /// Nobody: it was sent to a connection that did not take it. It was accepted, so it must be kept.
    Returned,
    /// Nobody: a test.
    #[cfg(test)]
    Tested,
}

/// A frame for many recipients, settled when all its deliveries are.
#[derive(Debug)]
pub struct Fan {
    sender: Arc<ClientLink>,
    bytes: usize,
    /// Deliveries on their way, and one for whoever is still adding some.
    left: AtomicUsize,
    failed: AtomicBool,
}

/// What passes through a lane: both kinds in one order, so that a fetch finds what was sent before it.
pub enum LaneItem {
    /// A message to deliver or keep.
    Delivery(Delivery),
    /// Work on a user's kept messages.
    Work(UserId, Box<dyn FnOnce() + Send>),
    /// What is to be said to another node when all that came back for the user before is kept.
    Answer(UserId, Box<dyn FnOnce() + Send>),
}

impl LaneItem {
    /// Whose lane it travels in.
    pub fn user(&self) -> UserId {
        match self {
            LaneItem::Delivery(delivery) => delivery.to,
            LaneItem::Work(user, _) | LaneItem::Answer(user, _) => *user,
        }
    }
}

impl Fan {
    /// A frame of so many bytes, with one delivery more to come than is known.
    pub fn new(sender: Arc<ClientLink>, bytes: usize) -> Arc<Fan> {
        Arc::new(Fan { sender, bytes, left: AtomicUsize::new(1), failed: AtomicBool::new(false) })
    }

    /// One more delivery is on its way.
    pub fn add(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// One delivery is settled, or all are under way. What became of the frame, if this was the last.
    pub fn one_less(&self, failed: bool) -> Option<Settled> {
        if failed {
            self.failed.store(true, Ordering::Relaxed);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        let failed = usize::from(self.failed.load(Ordering::Relaxed));
        Some(Settled { frames: 1, bytes: self.bytes, failed })
    }
}

/// What one lane keeps between its batches: messages that nobody would send again and that the store could not take.
/// They are bounded by what connections may have had waiting when they ended.
#[derive(Debug, Default)]
pub struct Backlog {
    returned: Vec<Delivery>,
}

impl Backlog {
    /// Handles one batch; when this is to be tried again if nothing else comes.
    pub fn handle(&mut self, batch: Vec<LaneItem>, services: &Services) -> Option<Duration> {
        // The oldest go first, so that what waits for a user keeps its order.
        let mut deliveries = std::mem::take(&mut self.returned);
        for item in batch {
            match item {
                LaneItem::Delivery(delivery) => deliveries.push(delivery),
                LaneItem::Work(_, work) | LaneItem::Answer(_, work) => {
                    self.place(std::mem::take(&mut deliveries), services);
                    deliveries = std::mem::take(&mut self.returned);
                    work();
                }
            }
        }
        self.place(deliveries, services);
        (!self.returned.is_empty()).then_some(RETRY_AFTER)
    }

    /// Offers messages to nodes of the reference server, and has the store keep the rest.
    fn place(&mut self, deliveries: Vec<Delivery>, services: &Services) {
        if deliveries.is_empty() {
            return;
        }
        let online = |users: &[UserId]| services.store.online(users).unwrap_or_default();
        let Neighbours { taken, untaken } = services.bus.publish_to_neighbours(deliveries, &online);
        services.metrics.published(taken.len());
        services.metrics.confirmed(taken.len());
        settle(taken.into_iter().map(|delivery| (delivery, false)));
        self.keep(untaken, services);
    }

    /// Has the store keep messages. When it cannot, the senders hear of it, and what has no sender waits.
    fn keep(&mut self, deliveries: Vec<Delivery>, services: &Services) {
        if deliveries.is_empty() {
            return;
        }
        services.metrics.batch(Stage::Store, deliveries.len());
        let kept = services.appended(&messages(&deliveries));
        self.settle_kept(deliveries, kept, 0, services);
    }

    /// `refused` is how many of the same batch the database has refused one by one. Returns how many it is then.
    fn settle_kept(
        &mut self,
        mut deliveries: Vec<Delivery>,
        kept: Result<Vec<Kept>, StoreError>,
        refused: usize,
        services: &Services,
    ) -> usize {
        match kept {
            Ok(kept) => {
                let count = |what| kept.iter().filter(|kept| **kept == what).count();
                services.metrics.stored(count(Kept::Stored));
                services.metrics.unknown_recipients(count(Kept::NoSuchUser));
                services.metrics.failed(count(Kept::TooLong));
                let failed = kept.iter().map(|kept| *kept == Kept::TooLong);
                settle(deliveries.into_iter().zip(failed));
                refused
            }
            // One message that the database refuses must not take the others with it. When it refuses several, it is not
            // about them.
            Err(StoreError::Failed(_)) if deliveries.len() > 1 && refused < REFUSED_MAX => {
                let second = deliveries.split_off(deliveries.len() / 2);
                let kept = services.store.append(&messages(&deliveries));
                let refused = self.settle_kept(deliveries, kept, refused, services);
                let kept = services.store.append(&messages(&second));
                self.settle_kept(second, kept, refused, services)
            }
            // It is about this message: the database is well, and would refuse it for ever.
            Err(StoreError::Failed(cause)) if deliveries.len() == 1 && services.store.check().is_ok() => {
                log::debug!("a message was refused: {cause}");
                services.metrics.failed(1);
                settle(deliveries.into_iter().map(|delivery| (delivery, true)));
                refused + 1
            }
            Err(_) => {
                let count = deliveries.len();
                let is_returned = |delivery: &Delivery| matches!(delivery.origin, Origin::Returned);
                let (returned, sent): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(is_returned);
                self.returned.extend(returned);
                services.metrics.failed(sent.len());
                settle(sent.into_iter().map(|delivery| (delivery, true)));
                refused + count
            }
        }
    }
}

fn messages(deliveries: &[Delivery]) -> Vec<Message> {
    deliveries.iter().map(|delivery| Message { to: delivery.to, text: delivery.text.clone() }).collect()
}

/// Tells the senders what became of their frames, and whether that failed: one message a sender, one wake a loop.
pub fn settle(deliveries: impl Iterator<Item = (Delivery, bool)>) {
    // Told in the order in which they come up here: the same happens in the same order wherever the links lie in memory.
    let mut totals: Vec<(Arc<ClientLink>, Settled)> = Vec::new();
    let mut by_sender: FxHashMap<*const ClientLink, usize> = FxHashMap::default();
    for (delivery, failed) in deliveries {
        let (sender, settled) = match delivery.origin {
            Origin::Sender(sender) => {
                (sender, Settled { frames: 1, bytes: delivery.text.len(), failed: usize::from(failed) })
            }
            Origin::Group(fan) => match fan.one_less(failed) {
                Some(settled) => (fan.sender.clone(), settled),
                None => continue,
            },
            #[cfg(test)]
            Origin::Tested => continue,
            Origin::Returned => {
                if failed {
                    log::error!("a message for user {} cannot be kept and is lost", delivery.to);
                }
                continue;
            }
        };
        let at = *by_sender.entry(Arc::as_ptr(&sender)).or_insert(totals.len());
        if at == totals.len() {
            totals.push((sender, Settled::default()));
        }
        let (_, total) = &mut totals[at];
        total.frames += settled.frames;
        total.bytes += settled.bytes;
        total.failed += settled.failed;
    }
    let posts = totals.into_iter().map(|(sender, settled)| (sender, Posted::Settled(settled)));
    ClientLink::post_all(posts.collect());
}

/// Messages that the database refuses one by one before it is believed to refuse them all.
const REFUSED_MAX: usize = 3;
const RETRY_AFTER: Duration = Duration::from_millis(200);
