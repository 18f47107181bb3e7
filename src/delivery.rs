//! [`Delivery`]: one message on its way to one recipient who is not on this node, and the lanes for
//! it.
//!
//! A node that is not alone offers it to the others first (`outbox.rs`). If none takes it, it goes
//! into a lane to the store (`backlog.rs`). The folders above (bus, routing, operation, server) use
//! these types.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use net::Link;
use pool::Standing;
use rustc_hash::FxHashMap;

use crate::admission::berths::Berth;
use crate::admission::{Guest, Holder, Payer, Source};
use crate::base::ids::FrameId;
use crate::devices::entry::EntryNews;
use crate::devices::tasks::MemberNews;
use crate::protocol::{GroupId, UserId};
use crate::session::{FailedFrame, OptIn, Outcome, Settled};
use crate::store::NewMessage;
use crate::store::spool::SpoolId;

/// Events that other threads post to a session.
#[derive(Debug)]
pub enum Posted {
    /// Its job is done.
    Outcome(Outcome),
    /// The fate of frames that it has forwarded.
    Settled(Settled),
    /// A frame for a large group is to be delivered to more of the members.
    Spread(Box<Spread>),
    /// Another connection of one of its users waits for the mailbox.
    MailboxWanted,
    /// It opts in to level 2.
    OptIn(Box<OptIn>),
    /// A step of its login at level 2 is done.
    Entry(EntryNews),
    /// For its connection of level 2.
    Member(Box<MemberNews>),
    /// Another connection has logged this user out.
    LoggedOut(UserId),
    /// Its descriptor is needed: the connection is closed unless it has logged in meanwhile.
    MakeRoom,
    /// The account of this user was changed or deleted, so the user is logged out of the
    /// connection.
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
    /// The forwarded frame; the deliveries of a frame for a group share its id.
    pub id: FrameId,
    /// The recipient.
    pub to: UserId,
    /// The frame's JSON text, shared by all recipients.
    pub text: Arc<str>,
    /// The connection that waits for the delivery's fate.
    pub origin: Origin,
    /// Whether a node refused it because the recipient was not there.
    pub was_refused: bool,
}

/// Where a forwarded frame comes from.
#[derive(Clone, Copy, Debug)]
pub struct Provenance<'a> {
    /// Its sender, who is told its fate.
    pub sender: &'a Arc<ClientLink>,
    /// The frame.
    pub id: FrameId,
    /// The owner of the share of the lanes that it uses.
    pub holder: Holder,
}

/// The owner of a delivery, who is notified of its fate.
#[derive(Debug)]
pub enum Origin {
    /// The sender of a frame for one recipient, and the frame's room in the lanes.
    Sender(Owed, Berth),
    /// The sender of a frame for many.
    Group(FanShare),
    /// No sender: a connection did not take the message and returned it. It was accepted, so it
    /// must be stored.
    Returned {
        /// Whether the user had left that connection before, so that others may have sent newer
        /// messages since. Otherwise everything on its way to other nodes was sent before the user
        /// came here.
        late: bool,
        /// Whether the user has since logged in at another node, which may deliver it if it has
        /// nothing newer. Otherwise it is stored.
        elsewhere: bool,
    },
    /// The sender of a message that is in a conversation already. The answer waits until the last
    /// delivery is settled.
    Recorded(Arc<Acknowledgement>),
    /// No sender any more: it is in the spool, and stays there until the database has it.
    Spooled(SpoolId),
}

/// A frame that is delivered to the members of a large group in pieces.
///
/// Delivering a frame to thousands of members takes a loop far longer than any other frame. So a
/// loop delivers it to some of them, serves other connections, and continues in its next turn. The
/// sender's later frames wait meanwhile: they must not overtake it. Once begun, the frame is
/// delivered completely, even if its sender's connection has closed.
#[derive(Debug)]
pub struct Spread {
    /// The frame.
    pub id: FrameId,
    /// The group.
    pub group: GroupId,
    /// All of its members, ascending.
    pub members: Arc<[UserId]>,
    /// The sender, who does not get the frame.
    pub except: UserId,
    /// The frame's JSON text.
    pub text: Arc<str>,
    /// The sender's connection, whose share it uses.
    pub sender: Arc<ClientLink>,
    /// The owner of that share.
    pub holder: Holder,
    /// The number of members that are done.
    pub(crate) done: usize,
    pub(crate) so_far: SoFar,
}

/// The progress of a frame for many members.
#[derive(Debug, Default)]
pub(crate) struct SoFar {
    /// Set when the first member is not on this node: the data that the lanes share, or `None` in
    /// it if there is no room.
    pub(crate) shared: Option<Option<(Arc<Fan>, Arc<str>)>>,
    /// The number of members who got it on this node.
    pub(crate) delivered: usize,
    /// The number of members for whom there was no room in the lanes.
    pub(crate) refused: usize,
}

impl Spread {
    /// A spread that has not begun.
    pub fn new(
        (group, members): (GroupId, Arc<[UserId]>),
        except: UserId,
        text: &str,
        &Provenance { sender, id, holder }: &Provenance<'_>,
    ) -> Spread {
        let sender = sender.clone();
        Spread { id, group, members, except, text: text.into(), sender, holder, done: 0, so_far: SoFar::default() }
    }
}

/// The answer that the sender of a frame for one recipient is owed. If it is dropped unsettled, the
/// frame has failed and the sender is told so: no sender waits for ever for a frame that was lost
/// in a panic.
#[derive(Debug)]
pub struct Owed {
    /// The sender, until the frame is settled.
    sender: Option<Arc<ClientLink>>,
    id: FrameId,
    bytes: usize,
}

/// The answer to the sender of a recorded message. It is sent when the last delivery to a recipient
/// at level 1 lets go of it: then everything is kept that level 1 promises them.
#[derive(Debug)]
pub struct Acknowledgement {
    answer: Option<(Arc<ClientLink>, Posted)>,
    /// Room for the message, and for all deliveries.
    berth: Berth,
}

impl Acknowledgement {
    /// The answer, which is not sent yet.
    pub fn new(link: Arc<ClientLink>, answer: Posted, berth: Berth) -> Arc<Acknowledgement> {
        Arc::new(Acknowledgement { answer: Some((link, answer)), berth })
    }

    /// Returns the answer if nobody else waits to send it, so that many can be sent together.
    pub fn take(self: Arc<Acknowledgement>) -> Option<(Arc<ClientLink>, Posted)> {
        Arc::into_inner(self).and_then(|mut last| last.answer.take())
    }

    /// Takes room for a delivery; false if that would exceed the sender's share.
    pub fn widen(&self, bytes: usize) -> bool {
        self.berth.widen(bytes)
    }
}

impl Drop for Acknowledgement {
    fn drop(&mut self) {
        if let Some((link, answer)) = self.answer.take() {
            link.post(answer);
        }
    }
}

/// One delivery of a [`Fan`]. If it is dropped unsettled, it has failed.
#[derive(Debug)]
pub struct FanShare {
    /// The whole frame, until this delivery is settled.
    fan: Option<Arc<Fan>>,
}

/// A frame for many recipients, settled when all its deliveries are.
///
/// A recipient whose mailbox has no room is left out, and the frame has not failed as long as it
/// reaches any recipient: otherwise one member who never comes back would cause every message to a
/// busy group to be refused.
#[derive(Debug)]
pub struct Fan {
    sender: Arc<ClientLink>,
    id: FrameId,
    group: GroupId,
    bytes: usize,
    /// Room for the text, once, and for all deliveries.
    berth: Berth,
    /// Deliveries on their way, plus one while deliveries are still being added.
    left: AtomicUsize,
    failed: AtomicBool,
    /// Whether a mailbox had no room.
    full: AtomicBool,
    /// Whether it was delivered to a recipient, or stored.
    reached: AtomicBool,
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

/// Where a user's stored messages are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MailboxState {
    /// All of them are in the store.
    Whole,
    /// Some wait on this node, and the store does not accept them now.
    InParts,
}

impl LaneItem {
    /// The user who determines its lane.
    pub fn user(&self) -> UserId {
        match self {
            LaneItem::Delivery(delivery) => delivery.to,
            LaneItem::Work(user, _) | LaneItem::Answer(user, _) => *user,
        }
    }

    /// Where it stands in its lane: the payers of messages take turns. A message without a
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

impl Fan {
    /// A frame of this length, to which more deliveries will be added.
    pub fn new(
        &Provenance { sender, id, .. }: &Provenance<'_>,
        group: GroupId,
        bytes: usize,
        berth: Berth,
    ) -> Arc<Fan> {
        let sender = sender.clone();
        let (left, [failed, full, reached]) = (AtomicUsize::new(1), [const { AtomicBool::new(false) }; 3]);
        Arc::new(Fan { sender, id, group, bytes, berth, left, failed, full, reached })
    }

    /// Adds a delivery that takes up this number of bytes; `None` if there is no room for it.
    pub fn add(self: &Arc<Fan>, bytes: usize) -> Option<FanShare> {
        self.berth.widen(bytes).then(|| {
            self.left.fetch_add(1, Ordering::Relaxed);
            FanShare { fan: Some(self.clone()) }
        })
    }

    /// Ends the adding of deliveries. `reached`: some were delivered to connections of this node.
    /// Returns the frame's fate, if all are settled.
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
        let is_full = full && !failed && !reached;
        let failure = (failed || is_full).then_some(FailedFrame { id: self.id, is_full });
        Some(Settled::one(self.bytes, failure))
    }
}

impl Owed {
    /// The answer to the sender of a frame of this number of bytes.
    pub fn to(&Provenance { sender, id, .. }: &Provenance<'_>, bytes: usize) -> Owed {
        Owed { sender: Some(sender.clone()), id, bytes }
    }

    /// Returns the sender, and what to tell it if everything went well.
    pub fn done(mut self) -> Option<(Arc<ClientLink>, Posted)> {
        let sender = self.sender.take()?;
        Some((sender, Posted::Settled(Settled::one(self.bytes, None))))
    }

    /// Returns the sender, whom the caller tells the frame's fate.
    pub fn settle(mut self) -> Option<Arc<ClientLink>> {
        self.sender.take()
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            let failure = FailedFrame { id: self.id, is_full: false };
            sender.post(Posted::Settled(Settled::one(self.bytes, Some(failure))));
        }
    }
}

impl FanShare {
    fn fan(&self) -> &Fan {
        self.fan.as_ref().expect("it is there until it is settled")
    }

    /// Settles this delivery. If that settles the frame, returns its sender and what to tell the
    /// sender.
    fn settle(mut self, end: End) -> Option<(Arc<ClientLink>, Settled)> {
        let fan = self.fan.take()?;
        fan.settle(end).map(|settled| (fan.sender.clone(), settled))
    }
}

impl Drop for FanShare {
    fn drop(&mut self) {
        if let Some(fan) = self.fan.take()
            && let Some(settled) = fan.settle(End::Failed)
        {
            fan.sender.post(Posted::Settled(settled));
        }
    }
}

/// The messages as the store takes them.
pub fn messages(deliveries: &[Delivery]) -> Vec<NewMessage> {
    deliveries.iter().map(Delivery::message).collect()
}

impl Delivery {
    /// The owner of its share in the lanes; `None` if it has no sender any more.
    pub fn holder(&self) -> Option<Holder> {
        match &self.origin {
            Origin::Group(share) => Some(share.fan().berth.holder()),
            _ => self.payer_of_mailbox(),
        }
    }

    /// The owner of its share in the recipient's mailbox, if any: its sender or its group.
    pub fn payer_of_mailbox(&self) -> Option<Holder> {
        match &self.origin {
            Origin::Sender(_, berth) => Some(berth.holder()),
            Origin::Group(share) => {
                Some(Holder { payer: Payer::Group(share.fan().group), source: Source::of(ALL_GROUPS) })
            }
            Origin::Recorded(acknowledgement) => Some(acknowledgement.berth.holder()),
            Origin::Returned { .. } | Origin::Spooled(_) => None,
        }
    }

    /// Whether it was sent to a group.
    pub fn is_of_group(&self) -> bool {
        matches!(self.origin, Origin::Group(_))
    }

    /// Whether a dead connection has returned it, so that the user's connection to another node may
    /// get it.
    pub fn follows_its_user(&self) -> bool {
        matches!(self.origin, Origin::Returned { elsewhere: true, .. })
    }

    /// The message as the store takes it.
    pub fn message(&self) -> NewMessage {
        NewMessage { to: self.to, text: self.text.clone() }
    }
}

/// Notifies the senders of the fate of their frames: one event per sender, one wake-up per loop.
pub fn settle(deliveries: impl Iterator<Item = (Delivery, bool)>) {
    tell(deliveries.map(|(delivery, failed)| (delivery, if failed { End::Failed } else { End::Done })));
}

/// Like [`settle`], for messages whose recipients' mailboxes have no more room.
pub fn settle_full(deliveries: Vec<Delivery>) {
    tell(deliveries.into_iter().map(|delivery| (delivery, End::Full)));
}

/// The fate of a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Done,
    Failed,
    /// The recipient's mailbox has no room for more messages of this sender.
    Full,
}

fn tell(deliveries: impl Iterator<Item = (Delivery, End)>) {
    // Senders are notified in the order of their first delivery, so the result does not depend on
    // the links' addresses in memory.
    let mut totals: Vec<(Arc<ClientLink>, Settled, Option<Berth>)> = Vec::new();
    let mut by_sender: FxHashMap<*const ClientLink, usize> = FxHashMap::default();
    for (delivery, end) in deliveries {
        let id = delivery.id;
        let (sender, settled, berth) = match delivery.origin {
            Origin::Sender(owed, berth) => {
                let Some(sender) = owed.settle() else { continue };
                let failure = (end != End::Done).then_some(FailedFrame { id, is_full: end == End::Full });
                (sender, Settled::one(delivery.text.len(), failure), Some(berth))
            }
            Origin::Group(share) => match share.settle(end) {
                Some((sender, settled)) => (sender, settled, None),
                None => continue,
            },
            // Its conversation has it. Dropped, it may be the last that the sender waits for.
            Origin::Recorded(_) | Origin::Spooled(_) => continue,
            Origin::Returned { .. } => {
                if end != End::Done {
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
