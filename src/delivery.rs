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
use crate::base::conversation::ConversationId;
use crate::base::ending::{Ending, Undelivered};
use crate::base::ids::FrameId;
use crate::devices::entry::EntryNews;
use crate::devices::tasks::MemberNews;
use crate::history::pump::PumpEvent;
use crate::protocol::{GroupId, UserId, Waiting};
use crate::session::{OptIn, Outcome, Settled};
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
    /// The same of what comes for each message: an event of its pump.
    Pump(PumpEvent),
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
    /// The recipient.
    pub to: UserId,
    /// The frame's JSON text, shared by all recipients.
    pub text: Arc<str>,
    /// The connection that waits for the delivery's fate.
    pub origin: Origin,
    /// Whether a node refused it because the recipient was not there.
    pub(crate) was_refused: bool,
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
    Returned(FrameId, Comeback),
    /// The sender of a message that is in a conversation already. The answer waits until the last
    /// delivery is settled.
    Recorded(Arc<Acknowledgement>),
    /// No sender any more: it is in the spool, and stays there until the database has it.
    /// The conversation that it is in already stays with it.
    Spooled(SpoolId, Option<ConversationId>),
}

/// How a message that a connection has returned stands to others for its user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comeback {
    /// Everything on its way to other nodes was sent before the user came here. It is stored behind
    /// that.
    InOrder,
    /// The same, and the user has since logged in at another node, which may deliver it if it has
    /// nothing newer. Otherwise it is stored.
    Elsewhere,
    /// The user had left that connection before, so others may have sent newer messages since. It
    /// is stored at once.
    Late,
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
    /// Where the message is recorded; `None` if that has failed.
    conv: Option<ConversationId>,
    /// Room for the message, and for all deliveries.
    berth: Berth,
}

impl Acknowledgement {
    /// The answer, which is not sent yet.
    pub fn new(
        link: Arc<ClientLink>,
        answer: Posted,
        conv: Option<ConversationId>,
        berth: Berth,
    ) -> Arc<Acknowledgement> {
        Arc::new(Acknowledgement { answer: Some((link, answer)), conv, berth })
    }

    /// What the frame is called in the output of a connection.
    pub fn frame(&self) -> FrameId {
        if self.conv.is_some() { FrameId::RECORDED } else { FrameId::UNNAMED }
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

    /// Ends the adding of deliveries. `here`: the endings of those that need no lane. Returns the
    /// frame's ending, if all are settled.
    pub fn all_under_way(&self, here: impl IntoIterator<Item = Ending>) -> Option<Ending> {
        here.into_iter().for_each(|ending| self.note(ending));
        self.one_less()
    }

    /// Settles a delivery. Returns the frame's ending, if all are settled.
    fn settle(&self, ending: Ending) -> Option<Ending> {
        self.note(ending);
        self.one_less()
    }

    fn note(&self, ending: Ending) {
        let flag = match ending {
            Ok(()) => &self.reached,
            Err(Undelivered::Unstored) => &self.failed,
            Err(Undelivered::MailboxFull) => &self.full,
        };
        flag.store(true, Ordering::Relaxed);
    }

    fn one_less(&self) -> Option<Ending> {
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        let [failed, full, reached] =
            [&self.failed, &self.full, &self.reached].map(|flag| flag.load(Ordering::Relaxed));
        Some(match (failed, full && !reached) {
            (true, _) => Err(Undelivered::Unstored),
            (false, true) => Err(Undelivered::MailboxFull),
            (false, false) => Ok(()),
        })
    }

    /// What its sender is told.
    fn settled(&self, ending: Ending) -> Settled {
        Settled::one(self.id, self.bytes, ending)
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
        Some((sender, Posted::Settled(self.settled(Ok(())))))
    }

    /// Returns the sender, whom the caller tells the frame's fate, and what to tell it.
    pub fn settle(mut self, ending: Ending) -> Option<(Arc<ClientLink>, Settled)> {
        self.sender.take().map(|sender| (sender, self.settled(ending)))
    }

    fn settled(&self, ending: Ending) -> Settled {
        Settled::one(self.id, self.bytes, ending)
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.post(Posted::Settled(self.settled(Err(Undelivered::Unstored))));
        }
    }
}

impl FanShare {
    fn fan(&self) -> &Fan {
        self.fan.as_ref().expect("it is there until it is settled")
    }

    /// Settles this delivery. If that settles the frame, returns its sender and what to tell the
    /// sender.
    fn settle(mut self, ending: Ending) -> Option<(Arc<ClientLink>, Settled)> {
        let fan = self.fan.take()?;
        fan.settle(ending).map(|ending| (fan.sender.clone(), fan.settled(ending)))
    }
}

impl Drop for FanShare {
    fn drop(&mut self) {
        if let Some(fan) = self.fan.take()
            && let Some(ending) = fan.settle(Err(Undelivered::Unstored))
        {
            fan.sender.post(Posted::Settled(fan.settled(ending)));
        }
    }
}

/// The messages as the store takes them.
pub fn messages(deliveries: &[Delivery]) -> Vec<NewMessage> {
    deliveries.iter().map(Delivery::message).collect()
}

impl Delivery {
    /// A message that no node has refused.
    pub fn new(to: UserId, text: Arc<str>, origin: Origin) -> Delivery {
        Delivery { to, text, origin, was_refused: false }
    }

    /// The forwarded frame, for the log; the deliveries of a frame for a group share its id.
    pub fn frame(&self) -> FrameId {
        match &self.origin {
            Origin::Sender(owed, _) => owed.id,
            Origin::Group(share) => share.fan().id,
            Origin::Returned(id, _) => *id,
            Origin::Recorded(_) | Origin::Spooled(..) => FrameId::UNNAMED,
        }
    }

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
            Origin::Returned(..) | Origin::Spooled(..) => None,
        }
    }

    /// Whether it was sent to a group.
    pub fn is_of_group(&self) -> bool {
        matches!(self.origin, Origin::Group(_))
    }

    /// Whether a dead connection has returned it, so that the user's connection to another node may
    /// get it.
    pub fn follows_its_user(&self) -> bool {
        matches!(self.origin, Origin::Returned(_, Comeback::Elsewhere))
    }

    /// The message as the store takes it.
    pub fn message(&self) -> NewMessage {
        NewMessage { to: self.to, text: self.text.clone(), recorded: self.recorded() }
    }

    /// The conversation that it is in already.
    fn recorded(&self) -> Option<ConversationId> {
        match &self.origin {
            Origin::Recorded(acknowledgement) => acknowledgement.conv,
            Origin::Returned(FrameId::RECORDED, _) => Waiting::read(&self.text).map(|frame| frame.conv(self.to)),
            Origin::Sender(..) | Origin::Group(_) | Origin::Returned(..) => None,
            Origin::Spooled(_, recorded) => *recorded,
        }
    }
}

/// Notifies the senders of these messages, which all end alike. See [`settle`].
pub fn settle_all(deliveries: Vec<Delivery>, ending: Ending) {
    settle(deliveries.into_iter().map(|delivery| (delivery, ending)));
}

/// Notifies the senders of the fate of their frames: one event per sender, one wake-up per loop.
pub fn settle(deliveries: impl Iterator<Item = (Delivery, Ending)>) {
    // Senders are notified in the order of their first delivery, so the result does not depend on
    // the links' addresses in memory.
    let mut totals: Vec<(Arc<ClientLink>, Settled, Option<Berth>)> = Vec::new();
    let mut by_sender: FxHashMap<*const ClientLink, usize> = FxHashMap::default();
    for (delivery, ending) in deliveries {
        let id = delivery.frame();
        let (sender, settled, berth) = match delivery.origin {
            Origin::Sender(owed, berth) => {
                let Some((sender, settled)) = owed.settle(ending) else { continue };
                (sender, settled, Some(berth))
            }
            Origin::Group(share) => match share.settle(ending) {
                Some((sender, settled)) => (sender, settled, None),
                None => continue,
            },
            // Its conversation has it. Dropped, it may be the last that the sender waits for.
            Origin::Recorded(_) | Origin::Spooled(..) => continue,
            Origin::Returned(..) => {
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
