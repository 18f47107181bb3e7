//! [`Router`]: finds a recipient and sends a message there.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use net::{Label, Turn};

use crate::admission::Holder;
use crate::admission::berths::Berth;
use crate::base::ending::Undelivered;
use crate::base::ids::FrameId;
use crate::base::trace::{Hop, Incident, hash};
use crate::bus::news::CommittedFrame;
use crate::delivery::{Acknowledgement, Comeback, Delivery, DeliveryOrigin, LaneItem, Owed, Posted, Provenance, Work};
use crate::devices::typing::ShownTyping;
use crate::metrics::{Hit, Metrics};
use crate::protocol::UserId;
use crate::routing::attendance::Attendance;
use crate::routing::label::{Returned, or_back, user_of};
use crate::routing::routed::{Parked, Routed};
use crate::routing::services::RouterParts;
use crate::routing::states::StateWriter;
use crate::routing::traced;
use crate::routing::ways::{DELIVERY_BYTES, Ways};

/// Knows which users are online, and forwards messages: to a connection of this node, or into the
/// recipient's lane.
pub struct Router {
    pub(super) parts: RouterParts,
    pub(super) attendance: Attendance,
    /// The 51s that were shown here.
    pub(super) shown_typing: ShownTyping,
    /// Takes messages that other nodes have committed in groups.
    pub(super) group_messages: OnceLock<GroupMessages>,
    /// Called when messages of other nodes may have been missed.
    pub(super) missed: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Called when another node has logged a user out of everything.
    pub(super) logged_out: OnceLock<Box<dyn Fn(UserId) + Send + Sync>>,
}

/// A function that takes messages of groups and never blocks.
type GroupMessages = Box<dyn Fn(Vec<CommittedFrame>) + Send + Sync>;

impl Router {
    /// A router for a node without users yet.
    pub fn new(parts: RouterParts, ways: Ways, states: StateWriter) -> Router {
        let (bus, metrics) = (parts.bus.clone(), parts.metrics.clone());
        let attendance = Attendance::new(bus, metrics, parts.tracer.clone(), ways, states);
        Router {
            parts,
            attendance,
            shown_typing: ShownTyping::default(),
            group_messages: OnceLock::new(),
            missed: OnceLock::new(),
            logged_out: OnceLock::new(),
        }
    }

    /// Whether this 51 is shown to `to` now.
    pub fn shows_typing(&self, to: UserId, frame: &str, now: Instant) -> bool {
        self.shown_typing.is_due(to, frame, now)
    }

    /// The users who are on this node.
    pub fn attendance(&self) -> &Attendance {
        &self.attendance
    }

    /// Forwards a frame to one user. Its room in the lanes counts towards the holder's share.
    pub fn deliver(&self, turn: &mut Turn<Posted>, to: UserId, text: &str, provenance: Provenance<'_>) -> Routed {
        let Provenance { id, holder, .. } = provenance;
        if to.0 <= 0 {
            self.parts.metrics.unknown_recipients(1);
            return Routed::DONE;
        }
        let parked = self.route(turn, (to, id), text.as_bytes(), || {
            let berth = self.parts.berths.take(holder, text.len() + DELIVERY_BYTES)?;
            let origin = DeliveryOrigin::Sender(Owed::to(&provenance, text.len()), berth);
            Some(Delivery::new(to, text.into(), origin))
        });
        if self.parts.tracer.is_on() {
            traced::frame(&self.parts.tracer, to, text.len(), provenance, traced::hop_of(&parked));
        }
        match parked {
            Parked::No => {
                self.parts.metrics.delivered_locally(1);
                Routed::DONE
            }
            Parked::Yes => Routed::OnItsWay,
            Parked::Refused(delivery) => {
                self.parts.metrics.failed(1);
                // The caller notifies the sender.
                if let DeliveryOrigin::Sender(owed, _) = delivery.origin {
                    let _ = owed.settle(Err(Undelivered::Unstored));
                }
                Routed::FAILED
            }
            Parked::NoRoom => {
                self.no_room(1, holder);
                Routed::FAILED
            }
        }
    }

    /// Counts a frame that is refused for this number of recipients, because the holder has used up
    /// its share of the lanes.
    pub(super) fn no_room(&self, recipients: usize, holder: Holder) {
        let metrics = &self.parts.metrics;
        metrics.failed(recipients);
        metrics.refused(Hit::LaneMax);
        log::debug!("{} has used up its share of the lanes: a message is refused", holder.payer);
    }

    /// The number that stands for this node in the steps of other nodes.
    pub fn own_hash(&self) -> u64 {
        hash(self.parts.bus.own_name().as_bytes())
    }

    /// Whether there can be no other node.
    pub fn is_alone(&self) -> bool {
        !self.attendance.ways.lead_to_nodes()
    }

    /// Registers the lanes and the number of users with the metrics.
    pub fn watched_by(&self, metrics: &Metrics) {
        let presence = self.attendance.presence.clone();
        metrics.watch_users(move || presence.users());
        self.attendance.ways.watched_by(metrics);
    }

    /// Has messages that other nodes have committed in groups handed to `take`, which never blocks.
    pub fn give_group_messages_to(&self, take: impl Fn(Vec<CommittedFrame>) + Send + Sync + 'static) {
        let _ = self.group_messages.set(Box::new(take));
    }

    /// Has `sweep` called when messages of other nodes may have been missed. It must not block.
    pub fn when_missed(&self, sweep: impl Fn() + Send + Sync + 'static) {
        let _ = self.missed.set(Box::new(sweep));
    }

    /// Has `log_out` called when another node has logged a user out of everything. It must not
    /// block.
    pub fn when_logged_out(&self, log_out: impl Fn(UserId) + Send + Sync + 'static) {
        let _ = self.logged_out.set(Box::new(log_out));
    }

    /// Room in the lanes for a message to be recorded; `None` if the holder has used up its share.
    pub fn take_berth(&self, holder: Holder, bytes: usize) -> Option<Berth> {
        let berth = self.parts.berths.take(holder, bytes);
        if berth.is_none() {
            self.no_room(1, holder);
        }
        berth
    }

    /// Hands a message that is in its conversation to the user's connection of level 1, or puts it
    /// into the user's lane if `keeps` says so.
    pub fn forward(
        &self,
        turn: &mut Turn<Posted>,
        to: UserId,
        text: &Arc<str>,
        keeps: Keeps,
        answer: &Arc<Acknowledgement>,
    ) {
        let id = answer.frame();
        if keeps == Keeps::No {
            let is_here = self.deliver_here(turn, (to, id), text.as_bytes());
            if is_here && self.parts.tracer.is_on() {
                traced::forwarded(&self.parts.tracer, to, answer, Hop::Written);
            }
            return;
        }
        let parked = self.route(turn, (to, id), text.as_bytes(), || {
            let origin = DeliveryOrigin::Recorded(answer.clone());
            answer.widen(DELIVERY_BYTES).then(|| Delivery::new(to, text.clone(), origin))
        });
        if self.parts.tracer.is_on() {
            traced::forwarded(&self.parts.tracer, to, answer, traced::hop_of(&parked));
        }
        match parked {
            Parked::No => self.parts.metrics.delivered_locally(1),
            Parked::Yes => {}
            Parked::Refused(_) | Parked::NoRoom => {
                answer.fail();
                self.parts.metrics.failed(1);
            }
        }
    }

    /// Stores a message that a connection which has ended did not deliver, and does not hand it to
    /// the user's current connection, which may have received newer ones.
    pub fn give_back(&self, label: Label, frame: Box<[u8]>) {
        let to = user_of(&label);
        self.parts.metrics.returned(1);
        let returned = Returned::of((label, frame));
        traced::returned(&self.parts.tracer, Hop::Returned, to, &returned);
        self.parts.tracer.happened(to, Incident::Returned(1));
        let _shard = self.attendance.presence.write(to);
        self.attendance.ways.keep(to, vec![returned], Comeback::Late);
    }

    /// Submits work on a user's stored messages, to be done after everything on its way to them.
    /// The caller must limit the amount of such work.
    pub fn submit(&self, user: UserId, work: Work) {
        self.attendance.ways.submit_anyway(LaneItem::Work(user, work));
    }

    /// Finishes the messages on their way to other nodes and to the store, until `by` at most.
    /// Returns how many are left.
    pub fn close(&self, by: Instant) -> usize {
        let bus = &self.parts.bus;
        // The bus runs until the last envelope is confirmed, so that no message that has arrived is
        // stored. Messages that the bus delivers until it hushes are stored or answered, so it may
        // be stopped only after the lanes.
        let left = self.attendance.ways.close_to_nodes(by);
        bus.hush();
        let left = left + self.attendance.ways.close_to_store(by);
        bus.stop(by);
        self.attendance.states.close(by);
        left
    }

    /// Hands a message to the user's connection, or puts it into the user's lane if there is none.
    pub(super) fn route(
        &self,
        turn: &mut Turn<Posted>,
        (to, id): (UserId, FrameId),
        frame: &[u8],
        park: impl FnOnce() -> Option<Delivery>,
    ) -> Parked {
        loop {
            let shard = self.attendance.presence.read(to);
            let Some(link) = shard.newest(to) else {
                // Still under the lock: a later login finds the message in the lane before its
                // fetch.
                let Some(delivery) = park() else { return Parked::NoRoom };
                return match self.attendance.ways.submit(LaneItem::Delivery(delivery)) {
                    Ok(()) => Parked::Yes,
                    Err(LaneItem::Delivery(delivery)) => Parked::Refused(delivery),
                    Err(LaneItem::Work(..) | LaneItem::Answer(..)) => unreachable!("it comes back as it was"),
                };
            };
            if link.send(turn, frame, or_back(to, id)).is_ok() {
                return Parked::No;
            }
            let link = link.clone();
            drop(shard);
            self.attendance.give_up(turn, to, &link);
        }
    }

    /// Hands a message to the user's connection; false if there is none.
    pub fn deliver_here(&self, turn: &mut Turn<Posted>, (to, id): (UserId, FrameId), frame: &[u8]) -> bool {
        loop {
            let shard = self.attendance.presence.read(to);
            let Some(link) = shard.newest(to) else { return false };
            if link.send(turn, frame, or_back(to, id)).is_ok() {
                return true;
            }
            let link = link.clone();
            drop(shard);
            self.attendance.give_up(turn, to, &link);
        }
    }
}

/// Whether a recorded message is kept for a user who is on no connection of level 1 here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeps {
    /// It is offered to other nodes, and stored if none takes it.
    Yes,
    /// The user has it in the conversation.
    No,
}

#[cfg(test)]
mod tests;
