//! [`Ways`]: the lanes out of this node, to other nodes and to the store.

use std::sync::Arc;
use std::time::Instant;

use net::Link;
use pool::{LaneHold, Lanes, LanesClosed, Standing};

use super::label::Returned;
use super::outbox::OutItem;
use crate::bus::Place;
use crate::delivery::{Comeback, Delivery, DeliveryOrigin, LaneItem, Posted};
use crate::metrics::Metrics;
use crate::protocol::UserId;
use crate::store::spool::lane_key;

/// See the [module](self).
pub struct Ways {
    /// The lane to other nodes, if there can be any. Messages that no node takes go on to
    /// `keepers`.
    outbox: Option<Arc<Lanes<OutItem>>>,
    /// The lanes to the store.
    keepers: Arc<Lanes<LaneItem>>,
}

impl Ways {
    /// `outbox` leads to other nodes, if there can be any, and `keepers` to the store.
    pub fn new(outbox: Option<Arc<Lanes<OutItem>>>, keepers: Arc<Lanes<LaneItem>>) -> Ways {
        Ways { outbox, keepers }
    }

    /// Whether there can be other nodes.
    pub fn lead_to_nodes(&self) -> bool {
        self.outbox.is_some()
    }

    /// Registers the lanes with the metrics.
    pub fn watched_by(&self, metrics: &Metrics) {
        metrics.watch_lanes("lane", self.keepers.watch());
        if let Some(outbox) = &self.outbox {
            metrics.watch_lanes("lane-out", outbox.watch());
        }
    }

    /// Holds the lane to other nodes, so that the messages submitted meanwhile for each of them
    /// share one publication.
    pub fn hold(&self) -> Option<LaneHold<'_, OutItem>> {
        self.outbox.as_deref().map(Lanes::hold)
    }

    /// Puts an item into its user's lane. Returns the item if the lanes are shut down.
    pub fn submit(&self, item: LaneItem) -> Result<(), LaneItem> {
        let (key, bytes) = weight(&item);
        let Some(outbox) = &self.outbox else {
            return self.keepers.submit(key, item.standing(), item, bytes).map_err(|closed| closed.0);
        };
        outbox.submit(key, item.standing(), OutItem::Lane(item), bytes).map_err(|closed| match closed.0 {
            OutItem::Lane(item) => item,
            OutItem::Confirmed(..) | OutItem::Refused(..) => unreachable!("it comes back as it was"),
        })
    }

    /// The same for an item that was accepted before the shutdown. Returns the item if the lanes
    /// have ended.
    pub fn submit_late(&self, item: LaneItem) -> Result<(), LaneItem> {
        let (key, bytes) = weight(&item);
        let item = match &self.outbox {
            None => item,
            Some(outbox) => match outbox.submit_late(key, item.standing(), OutItem::Lane(item), bytes) {
                Ok(()) => return Ok(()),
                Err(LanesClosed(OutItem::Lane(item))) => item,
                Err(_) => unreachable!("it comes back as it was"),
            },
        };
        store(&self.keepers, item)
    }

    /// The same for an item that must not be lost: if it is, the log says so.
    pub fn submit_anyway(&self, item: LaneItem) {
        if let Err(LaneItem::Delivery(delivery)) = self.submit_late(item) {
            let (id, to) = (delivery.frame(), delivery.to);
            log::error!("a message for user {to} ({id}) came back after everything was stored, and is lost");
        }
    }

    /// Has the outbox publish the user's earlier messages before anything that follows. The user's
    /// shard is held.
    pub(super) fn part_before_and_after(&self, user: UserId) {
        if self.lead_to_nodes() {
            // If the lanes have ended, nothing follows.
            let _ = self.submit_late(LaneItem::Answer(user, Box::new(|| ())));
        }
    }

    /// Stores frames that a connection has returned, in order. The user's shard is held.
    pub(super) fn keep(&self, user: UserId, frames: Vec<Returned>, comeback: Comeback) {
        for Returned { id, frame } in frames {
            let Ok(text) = String::from_utf8(frame.into_vec()) else { unreachable!("it was text when it was sent") };
            let origin = DeliveryOrigin::Returned(id, comeback);
            self.submit_anyway(LaneItem::Delivery(Delivery::new(user, text.into(), origin)));
        }
    }

    /// Notes that other nodes have confirmed these envelopes.
    pub fn confirmed(&self, place: Option<Place>, sequences: Vec<u64>) {
        self.hear(OutItem::Confirmed(place, sequences));
    }

    /// Notes that another node has delivered this number of messages of the envelope, and refused
    /// the others.
    pub fn refused(&self, sequence: u64, delivered: usize) {
        self.hear(OutItem::Refused(sequence, delivered));
    }

    fn hear(&self, item: OutItem) {
        if let Some(outbox) = &self.outbox {
            // The outbox looks at answers first, because the envelopes that wait for them have a
            // deadline. One is refused only after the shutdown of the lanes, when nothing is in
            // flight.
            let _ = outbox.submit_late(0, Standing::urgent(), item, 0);
        }
    }

    /// Finishes the messages on their way to other nodes, until `by` at most. Returns how many are
    /// left.
    pub fn close_to_nodes(&self, by: Instant) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.close(by))
    }

    /// The same for the messages on their way to the store.
    pub fn close_to_store(&self, by: Instant) -> usize {
        self.keepers.close(by)
    }
}

/// Puts an item that already has its room into its lane to the store. Returns the item if the lanes
/// have ended.
pub fn store(keepers: &Lanes<LaneItem>, item: LaneItem) -> Result<(), LaneItem> {
    let (key, bytes) = weight(&item);
    keepers.submit_late(key, item.standing(), item, bytes).map_err(|closed| closed.0)
}

/// The key of an item's lane, and its weight there.
fn weight(item: &LaneItem) -> (u64, usize) {
    match item {
        LaneItem::Delivery(delivery) => (lane_key(delivery.to), delivery.text.len() + DELIVERY_BYTES),
        LaneItem::Work(user, _) | LaneItem::Answer(user, _) => (lane_key(*user), WORK_BYTES),
    }
}

/// The weight of a delivery without its text, and of other work.
pub const DELIVERY_BYTES: usize = size_of::<LaneItem>() + size_of::<Link<Posted>>();
const WORK_BYTES: usize = 256;
