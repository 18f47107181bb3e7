//! [`Delivery`]: one message on its way to one recipient who is not on this node, and the lanes it travels in.
//!
//! A node that is not alone offers it to the others first (`outbox.rs`). What none of them takes comes to the lanes to the
//! store (`backlog.rs`), which keep it.

pub mod spread;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use net::Link;
use pool::Standing;
use rustc_hash::FxHashMap;

use crate::admission::berths::Berth;
use crate::admission::{Guest, Holder, Payer, Source};
use crate::delivery::spread::Spread;
use crate::protocol::{GroupId, UserId};
use crate::session::{Outcome, Settled};
use crate::store::Message;
use crate::store::spool::SpoolId;

/// What other threads post to a session.
#[derive(Debug)]
pub enum Posted {
    /// Its job is done.
    Outcome(Outcome),
    /// What became of frames it forwarded.
    Settled(Settled),
    /// A frame that it forwards to a large group goes on to more of the members.
    Spread(Box<Spread>),
    /// Another connection of one of its users waits for the mailbox.
    MailboxWanted,
    /// Another connection has logged this user out.
    LoggedOut(UserId),
    /// Others need its descriptor: it is closed unless it has logged in meanwhile.
    MakeRoom,
    /// The account of this user was changed or deleted, and the user is taken from the connection.
    AccountChanged(UserId),
}

/// A connection of this server.
pub type ClientLink = Link<Posted>;

impl Guest for ClientLink {
    fn make_room(&self) {
        self.post(Posted::MakeRoom);
    }
}

/// One message for one recipient.
#[derive(Debug)]
pub struct Delivery {
    /// Whom it is for.
    pub to: UserId,
    /// The frame's JSON text, shared by all recipients.
    pub text: Arc<str>,
    /// The connection that waits to hear what becomes of it.
    pub origin: Origin,
    /// A node that should have had the recipient had not.
    pub was_refused: bool,
}

/// What waits to hear what becomes of a delivery.
#[derive(Debug)]
pub enum Origin {
    /// The sender of a frame for one recipient, and the room that it takes up.
    Sender(Arc<ClientLink>, Berth),
    /// The sender of a frame for many.
    Group(Arc<Fan>),
    /// Nobody: it was sent to a connection that did not take it. It was accepted, so it must be kept.
    Returned {
        /// The user had left that connection before, so that what others have sent since may be newer. Otherwise all that is on
        /// its way to other nodes from here was sent before the user came.
        late: bool,
        /// The user has come to another node since, and that may hand it on if it has nothing newer. Otherwise it is stored.
        elsewhere: bool,
    },
    /// Nobody any more: it has waited in the spool, and is there until it is where it belongs.
    Spooled(SpoolId),
}

/// A frame for many recipients, settled when all its deliveries are.
///
/// A recipient whose mailbox has no room is left out, and the frame has not failed as long as it reaches anybody: otherwise one
/// member who never comes back would have every message to a busy group refused.
#[derive(Debug)]
pub struct Fan {
    sender: Arc<ClientLink>,
    group: GroupId,
    bytes: usize,
    /// Room for the text, once, and for all deliveries.
    berth: Berth,
    /// Deliveries on their way, and one for whoever is still adding some.
    left: AtomicUsize,
    failed: AtomicBool,
    /// A mailbox had no room.
    full: AtomicBool,
    /// It was delivered to somebody, or stored.
    reached: AtomicBool,
}

/// What passes through a lane: both kinds in one order, so that a fetch finds what was sent before it.
pub enum LaneItem {
    /// A message to deliver or keep.
    Delivery(Delivery),
    /// Work on a user's kept messages.
    Work(UserId, Work),
    /// What is to be said to another node when all that came back for the user before is kept.
    Answer(UserId, Box<dyn FnOnce() + Send>),
}

/// Work on a user's kept messages, which is told whether they are all in the store.
pub type Work = Box<dyn FnOnce(Mailbox) + Send>;

/// Where the messages kept for a user are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mailbox {
    /// All that this node was given is in the store.
    Whole,
    /// The oldest or the newest wait on this node, and the store cannot take them now.
    InParts,
}

impl LaneItem {
    /// The user in whose lane it travels.
    pub fn user(&self) -> UserId {
        match self {
            LaneItem::Delivery(delivery) => delivery.to,
            LaneItem::Work(user, _) | LaneItem::Answer(user, _) => *user,
        }
    }

    /// Where it stands in its lane: the payers of messages take turns. What has no sender any more is as old as what was
    /// queued before it and older than what comes later, and work on a mailbox finds all messages that were queued before it.
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

impl Fan {
    /// A frame of so many bytes, with one delivery more to come than is known.
    pub fn new(sender: Arc<ClientLink>, group: GroupId, bytes: usize, berth: Berth) -> Arc<Fan> {
        let (left, [failed, full, reached]) = (AtomicUsize::new(1), [const { AtomicBool::new(false) }; 3]);
        Arc::new(Fan { sender, group, bytes, berth, left, failed, full, reached })
    }

    /// One more delivery is on its way, and takes up so many bytes; false if there is no room for it.
    pub fn add(&self, bytes: usize) -> bool {
        let is_added = self.berth.widen(bytes);
        if is_added {
            self.left.fetch_add(1, Ordering::Relaxed);
        }
        is_added
    }

    /// One delivery could not be made.
    pub fn one_failed(&self) {
        // More are to come, or this one would not be known.
        let settled = self.settle(End::Failed);
        debug_assert!(settled.is_none(), "not all are under way");
    }

    /// All deliveries are under way; `reached`: some have reached connections of this node. What became of the frame, if all
    /// are settled.
    pub fn all_under_way(&self, failed: bool, reached: bool) -> Option<Settled> {
        self.failed.fetch_or(failed, Ordering::Relaxed);
        self.reached.fetch_or(reached, Ordering::Relaxed);
        self.one_less()
    }

    fn settle(&self, end: End) -> Option<Settled> {
        let flag = match end {
            End::Done => &self.reached,
            End::Failed => &self.failed,
            End::Full => &self.full,
        };
        flag.store(true, Ordering::Relaxed);
        self.one_less()
    }

    fn one_less(&self) -> Option<Settled> {
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        let [failed, full, reached] =
            [&self.failed, &self.full, &self.reached].map(|flag| flag.load(Ordering::Relaxed));
        let full = full && !failed && !reached;
        Some(Settled { frames: 1, bytes: self.bytes, failed: u32::from(failed || full), full: u32::from(full) })
    }
}

/// What the store is given.
pub fn messages(deliveries: &[Delivery]) -> Vec<Message> {
    deliveries.iter().map(Delivery::message).collect()
}

impl Delivery {
    /// Its sender, and the owner of the share that it takes up on its way; nobody if it has no sender any more.
    pub fn holder(&self) -> Option<Holder> {
        match &self.origin {
            Origin::Group(fan) => Some(fan.berth.holder()),
            _ => self.payer_of_mailbox(),
        }
    }

    /// The owner of the share of its recipient's mailbox that it takes up, if anybody: its sender or its group.
    pub fn payer_of_mailbox(&self) -> Option<Holder> {
        match &self.origin {
            Origin::Sender(_, berth) => Some(berth.holder()),
            Origin::Group(fan) => Some(Holder { payer: Payer::Group(fan.group), source: Source::of(ALL_GROUPS) }),
            Origin::Returned { .. } | Origin::Spooled(_) => None,
        }
    }

    /// Whether it was sent to a group.
    pub fn is_of_group(&self) -> bool {
        matches!(self.origin, Origin::Group(_))
    }

    /// Whether a dead connection has returned it, and the user's connection to another node may get it.
    pub fn follows_its_user(&self) -> bool {
        matches!(self.origin, Origin::Returned { elsewhere: true, .. })
    }

    /// What the store is given of it.
    pub fn message(&self) -> Message {
        Message { to: self.to, text: self.text.clone() }
    }
}

/// Tells the senders what became of their frames, and whether that failed: one message a sender, one wake a loop.
pub fn settle(deliveries: impl Iterator<Item = (Delivery, bool)>) {
    tell(deliveries.map(|(delivery, failed)| (delivery, if failed { End::Failed } else { End::Done })));
}

/// The same for messages whose recipients have no room for more.
pub fn settle_full(deliveries: Vec<Delivery>) {
    tell(deliveries.into_iter().map(|delivery| (delivery, End::Full)));
}

/// What became of a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Done,
    Failed,
    /// The recipient's mailbox has no room for more of this sender.
    Full,
}

fn tell(deliveries: impl Iterator<Item = (Delivery, End)>) {
    // Told in the order in which they come up here: the same happens in the same order wherever the links lie in memory.
    let mut totals: Vec<(Arc<ClientLink>, Settled, Option<Berth>)> = Vec::new();
    let mut by_sender: FxHashMap<*const ClientLink, usize> = FxHashMap::default();
    for (delivery, end) in deliveries {
        let failed = end != End::Done;
        let (sender, settled, berth) = match delivery.origin {
            Origin::Sender(sender, berth) => {
                let (failed, full) = (u32::from(failed), u32::from(end == End::Full));
                (sender, Settled { frames: 1, bytes: delivery.text.len(), failed, full }, Some(berth))
            }
            Origin::Group(fan) => match fan.settle(end) {
                Some(settled) => (fan.sender.clone(), settled, None),
                None => continue,
            },
            Origin::Spooled(_) => continue,
            Origin::Returned { .. } => {
                if failed {
                    log::error!("a message for user {} cannot be stored and is lost", delivery.to);
                }
                continue;
            }
        };
        let at = *by_sender.entry(Arc::as_ptr(&sender)).or_insert(totals.len());
        if at == totals.len() {
            totals.push((sender, Settled::default(), None));
        }
        let (_, total, room) = &mut totals[at];
        // A sender's room is given back at once for all.
        match (room, berth) {
            (Some(room), Some(berth)) => room.join(berth),
            (room, berth) => *room = room.take().or(berth),
        }
        total.frames += settled.frames;
        total.bytes += settled.bytes;
        total.failed += settled.failed;
        total.full += settled.full;
    }
    // The room first: a sender that hears of it finds it.
    let posts = totals.into_iter().map(|(sender, settled, room)| {
        drop(room);
        (sender, Posted::Settled(settled))
    });
    ClientLink::post_all(posts.collect());
}

/// Groups count as one address, which no client has: together they leave room in a mailbox for others.
const ALL_GROUPS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
