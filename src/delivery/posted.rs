//! [`Posted`]: an event that another thread posts to a session. A frame for a large group is posted
//! too, piece by piece ([`Spread`]), so the data that its recipients share is here as well
//! ([`Fan`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use net::Link;

use crate::admission::berths::Berth;
use crate::admission::{Guest, Holder};
use crate::base::ending::{DeliveryResult, Undelivered};
use crate::base::ids::FrameId;
use crate::devices::entry::EntryNews;
use crate::devices::tasks::MemberNews;
use crate::history::pump::PumpEvent;
use crate::protocol::{GroupId, UserId};
use crate::session::{OptIn, Outcome, Settled};

/// Events that other threads post to a session.
#[derive(Debug)]
pub enum Posted {
    /// The session's job is done.
    Outcome(Outcome),
    /// The fate of frames that the session has forwarded.
    Settled(Settled),
    /// A frame for a large group must be delivered to more of the members.
    Spread(Box<Spread>),
    /// Another connection of one of the session's users waits for the mailbox.
    MailboxWanted,
    /// The session opts in to level 2.
    OptIn(Box<OptIn>),
    /// A step of the login at level 2 is done.
    Entry(EntryNews),
    /// News for the member, at level 2.
    Member(Box<MemberNews>),
    /// An event for the member's pump, which comes for each message.
    Pump(PumpEvent),
    /// Another connection has logged this user out.
    LoggedOut(UserId),
    /// The descriptor is needed: the connection is closed unless it has logged in meanwhile.
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

/// The source of a forwarded frame.
#[derive(Clone, Copy, Debug)]
pub struct Provenance<'a> {
    /// Its sender, who is notified of its fate.
    pub sender: &'a Arc<ClientLink>,
    /// The frame.
    pub id: FrameId,
    /// The owner of the share of the lanes that it uses.
    pub holder: Holder,
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
    /// Set at the first member who is not on this node: the data that the lanes share, or `None`
    /// inside if there is no room.
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

/// One delivery of a [`Fan`]. If it is dropped unsettled, it has failed.
#[derive(Debug)]
pub struct FanShare {
    /// The whole frame, until this delivery is settled.
    fan: Option<Arc<Fan>>,
}

/// A frame for many recipients, settled when all its deliveries are.
///
/// A recipient whose mailbox has no room is left out, and the frame has not failed as long as it
/// reaches any recipient. Otherwise one member who never comes back would cause every message to a
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

    /// Ends the adding of deliveries. `here`: the results of deliveries without a lane. Returns the
    /// frame's result if all are settled.
    pub fn all_under_way(&self, here: impl IntoIterator<Item = DeliveryResult>) -> Option<DeliveryResult> {
        here.into_iter().for_each(|ending| self.note(ending));
        self.one_less()
    }

    /// Settles a delivery. Returns the frame's result if all are settled.
    fn settle(&self, ending: DeliveryResult) -> Option<DeliveryResult> {
        self.note(ending);
        self.one_less()
    }

    fn note(&self, ending: DeliveryResult) {
        let flag = match ending {
            Ok(()) => &self.reached,
            Err(Undelivered::Unstored) => &self.failed,
            Err(Undelivered::MailboxFull) => &self.full,
        };
        flag.store(true, Ordering::Relaxed);
    }

    fn one_less(&self) -> Option<DeliveryResult> {
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

    /// The outcome for the sender of this message.
    fn settled(&self, ending: DeliveryResult) -> Settled {
        Settled::one(self.id, self.bytes, ending)
    }
}

impl FanShare {
    fn fan(&self) -> &Fan {
        self.fan.as_ref().expect("it is there until it is settled")
    }

    /// The frame, for the log.
    pub(super) fn frame(&self) -> FrameId {
        self.fan().id
    }

    /// Its group.
    pub(super) fn group(&self) -> GroupId {
        self.fan().group
    }

    /// The owner of its share in the lanes.
    pub(super) fn holder(&self) -> Holder {
        self.fan().berth.holder()
    }

    /// Settles this delivery. If that settles the frame, returns its sender and the answer.
    pub(super) fn settle(mut self, ending: DeliveryResult) -> Option<(Arc<ClientLink>, Settled)> {
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
