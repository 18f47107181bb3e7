//! [`Delivery`]: one message on its way to one recipient who is not on this node, and the lanes for
//! it. [`Posted`] is the event that comes back to a session.
//!
//! A node that is not alone first offers the message to the others (`routing/outbox.rs`). If none
//! takes it, it goes into a lane to the store (`routing/backlog.rs`). The folders above (bus,
//! routing, operation, server) use these types.

mod owed;
mod posted;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use pool::Standing;
use rustc_hash::FxHashMap;

pub use self::owed::{Acknowledgement, Owed};
pub(crate) use self::posted::SoFar;
pub use self::posted::{ClientLink, Fan, FanShare, Posted, Provenance, Spread};
use crate::admission::berths::Berth;
use crate::admission::{Holder, Payer, Source};
use crate::base::conversation::ConversationId;
use crate::base::ending::DeliveryResult;
use crate::base::ids::FrameId;
use crate::base::trace::{Hop, Step};
use crate::protocol::{StoredFrame, UserId};
use crate::session::Settled;
use crate::store::NewMessage;
use crate::store::spool::SpoolId;

/// One message for one recipient.
#[derive(Debug)]
pub struct Delivery {
    /// The recipient.
    pub to: UserId,
    /// The frame's JSON text, shared by all recipients.
    pub text: Arc<str>,
    /// The connection that waits for the delivery's fate.
    pub origin: DeliveryOrigin,
    /// Whether a node refused it because the recipient was not there.
    pub(crate) was_refused: bool,
}

/// The owner of a delivery, who is notified of its fate.
#[derive(Debug)]
pub enum DeliveryOrigin {
    /// The sender of a frame for one recipient, and the frame's room in the lanes.
    Sender(Owed, Berth),
    /// The sender of a frame for many.
    Group(FanShare),
    /// No sender: a connection did not take the message and returned it. It was accepted, so it
    /// must be stored.
    Returned(FrameId, Comeback),
    /// The sender of a message that is in a conversation already. The answer waits until the last
    /// delivery is settled.
    Recorded(Arc<Acknowledgement>),
    /// No sender any more: the message is in the spool, and stays there until it is in the
    /// database. The conversation is the one that contains it already.
    Spooled(SpoolId, Option<ConversationId>),
}

/// The order between a message that a connection has returned and others for its user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comeback {
    /// Everything on its way to other nodes was sent before the user came here, so the message is
    /// stored after it.
    InOrder,
    /// As for `InOrder`, but the user has since logged in at another node. That node may deliver
    /// the message if it has delivered nothing newer. Otherwise it is stored.
    Elsewhere,
    /// The user had left that connection earlier, so others may have sent newer messages since. The
    /// message is stored at once.
    Late,
}

/// An item of a lane. All kinds share one order, so a fetch finds the messages that were sent
/// before it.
pub enum LaneItem {
    /// A message to deliver or store.
    Delivery(Delivery),
    /// Work on a user's stored messages.
    Work(UserId, Work),
    /// An answer to another node, to be sent when all messages that came back for the user before
    /// are stored.
    Answer(UserId, Box<dyn FnOnce() + Send>),
}

/// Work on a user's stored messages. Its argument says whether all of them are in the store.
pub type Work = Box<dyn FnOnce(MailboxState) + Send>;

/// Whether all of a user's stored messages are in the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MailboxState {
    /// All of them are in the store.
    Whole,
    /// Some wait on this node, and the store does not accept them now.
    InParts,
}

impl LaneItem {
    /// The user whose lane it goes into.
    pub fn user(&self) -> UserId {
        match self {
            LaneItem::Delivery(delivery) => delivery.to,
            LaneItem::Work(user, _) | LaneItem::Answer(user, _) => *user,
        }
    }

    /// The item's position in its lane: the payers of messages take turns. A message without a
    /// sender keeps its place: after all items queued before it, before all later ones. Work on a
    /// mailbox finds all messages that were queued before it.
    pub fn standing(&self) -> Standing {
        let of_sender = match self {
            LaneItem::Delivery(delivery) => delivery.holder(),
            LaneItem::Work(..) | LaneItem::Answer(..) => None,
        };
        match of_sender {
            Some(holder) => Standing::of(holder.payer.share()),
            None => Standing::fence(Payer::Account(self.user()).share()),
        }
    }
}

/// The messages as the store takes them.
pub fn messages(deliveries: &[Delivery]) -> Vec<NewMessage> {
    deliveries.iter().map(Delivery::message).collect()
}

impl Delivery {
    /// A message that no node has refused.
    pub fn new(to: UserId, text: Arc<str>, origin: DeliveryOrigin) -> Delivery {
        Delivery { to, text, origin, was_refused: false }
    }

    /// The forwarded frame, for the log; the deliveries of a frame for a group share its id.
    pub fn frame(&self) -> FrameId {
        match &self.origin {
            DeliveryOrigin::Sender(owed, _) => owed.frame(),
            DeliveryOrigin::Group(share) => share.frame(),
            DeliveryOrigin::Returned(id, _) => *id,
            DeliveryOrigin::Recorded(_) | DeliveryOrigin::Spooled(..) => FrameId::UNNAMED,
        }
    }

    /// The owner of its share in the lanes; `None` if it has no sender any more.
    pub fn holder(&self) -> Option<Holder> {
        match &self.origin {
            DeliveryOrigin::Group(share) => Some(share.holder()),
            _ => self.payer_of_mailbox(),
        }
    }

    /// The owner of its share in the recipient's mailbox, if any: its sender or its group.
    pub fn payer_of_mailbox(&self) -> Option<Holder> {
        match &self.origin {
            DeliveryOrigin::Sender(_, berth) => Some(berth.holder()),
            DeliveryOrigin::Group(share) => {
                Some(Holder { payer: Payer::Group(share.group()), source: Source::of(ALL_GROUPS) })
            }
            DeliveryOrigin::Recorded(acknowledgement) => Some(acknowledgement.holder()),
            DeliveryOrigin::Returned(..) | DeliveryOrigin::Spooled(..) => None,
        }
    }

    /// Whether it was sent to a group.
    pub fn is_of_group(&self) -> bool {
        matches!(self.origin, DeliveryOrigin::Group(_))
    }

    /// Whether a dead connection has returned it, so that the user's connection to another node may
    /// get it.
    pub fn follows_its_user(&self) -> bool {
        matches!(self.origin, DeliveryOrigin::Returned(_, Comeback::Elsewhere))
    }

    /// The message as the store takes it.
    pub fn message(&self) -> NewMessage {
        NewMessage { to: self.to, text: self.text.clone(), recorded: self.recorded() }
    }

    /// The step of this message at this hop.
    pub fn step(&self, hop: Hop) -> Step {
        let (conv, seq) = match &self.origin {
            DeliveryOrigin::Recorded(acknowledgement) => (acknowledgement.conv(), acknowledgement.seq()),
            _ => (self.recorded(), 0),
        };
        let from = match self.holder() {
            Some(Holder { payer: Payer::Account(user), .. }) => user.0,
            _ => 0,
        };
        let conv = conv.map_or(0, ConversationId::column);
        Step { frame: self.frame().into(), conv, seq, from, to: self.to.0, ..Step::of(hop) }
    }

    /// Whether it is in its conversation already.
    pub fn is_recorded(&self) -> bool {
        match &self.origin {
            DeliveryOrigin::Recorded(acknowledgement) => acknowledgement.conv().is_some(),
            DeliveryOrigin::Returned(id, _) => *id == FrameId::RECORDED,
            DeliveryOrigin::Spooled(_, recorded) => recorded.is_some(),
            DeliveryOrigin::Sender(..) | DeliveryOrigin::Group(_) => false,
        }
    }

    /// The conversation that contains it already.
    fn recorded(&self) -> Option<ConversationId> {
        match &self.origin {
            DeliveryOrigin::Recorded(acknowledgement) => acknowledgement.conv(),
            DeliveryOrigin::Returned(FrameId::RECORDED, _) => {
                StoredFrame::read(&self.text).map(|frame| frame.conv(self.to))
            }
            DeliveryOrigin::Sender(..) | DeliveryOrigin::Group(_) | DeliveryOrigin::Returned(..) => None,
            DeliveryOrigin::Spooled(_, recorded) => *recorded,
        }
    }
}

/// Notifies the senders of these messages, which all end alike. See [`settle`].
pub fn settle_all(deliveries: Vec<Delivery>, ending: DeliveryResult) {
    settle(deliveries.into_iter().map(|delivery| (delivery, ending)));
}

/// Notifies the senders of the fate of their frames: one event per sender, one wake-up per loop.
pub fn settle(deliveries: impl Iterator<Item = (Delivery, DeliveryResult)>) {
    // Senders are notified in the order of their first delivery, so the result does not depend on
    // the links' addresses in memory.
    let mut totals: Vec<(Arc<ClientLink>, Settled, Option<Berth>)> = Vec::new();
    let mut by_sender: FxHashMap<*const ClientLink, usize> = FxHashMap::default();
    for (delivery, ending) in deliveries {
        let id = delivery.frame();
        let (sender, settled, berth) = match delivery.origin {
            DeliveryOrigin::Sender(owed, berth) => {
                let Some((sender, settled)) = owed.settle(ending) else { continue };
                (sender, settled, Some(berth))
            }
            DeliveryOrigin::Group(share) => match share.settle(ending) {
                Some((sender, settled)) => (sender, settled, None),
                None => continue,
            },
            // Its conversation has it. Dropped, it may be the last that the sender waits for.
            DeliveryOrigin::Recorded(acknowledgement) => {
                if ending.is_err() {
                    acknowledgement.fail();
                }
                continue;
            }
            DeliveryOrigin::Spooled(..) => continue,
            DeliveryOrigin::Returned(..) => {
                if ending.is_err() {
                    log::error!("a message for user {} ({id}) cannot be stored and is lost", delivery.to);
                }
                continue;
            }
        };
        let at = *by_sender.entry(Arc::as_ptr(&sender)).or_insert(totals.len());
        if at == totals.len() {
            totals.push((sender, Settled::default(), None));
        }
        let (_, total, room) = &mut totals[at];
        // All of a sender's room is released together.
        match (room, berth) {
            (Some(room), Some(berth)) => room.join(berth),
            (room, berth) => *room = room.take().or(berth),
        }
        total.append(settled);
    }
    // The room is released before the sender is notified, so that the sender can use it.
    let posts = totals.into_iter().map(|(sender, settled, room)| {
        drop(room);
        (sender, Posted::Settled(settled))
    });
    ClientLink::post_all(posts.collect());
}

/// Groups count as one address, which no client has: so all groups together leave room in a mailbox
/// for others.
const ALL_GROUPS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
