//! [`Effect`]: what a session wants done.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::Job;
use crate::base::ids::FrameId;
use crate::protocol::level2::{Login, Rid};
use crate::protocol::{GroupId, UserId};
use crate::store::history::EntryKind;

/// The effects of an input, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect<'f> {
    /// Send this to the client.
    Reply(Cow<'static, str>),
    /// Send this to the client and report [`Input::Sent`](super::Input::Sent) when it has arrived.
    ReplyAndReport(String),
    /// Forward a frame to one user; [`Input::Settled`](super::Input::Settled) reports its fate.
    Deliver { id: FrameId, to: UserId, text: Cow<'f, str> },
    /// Forward a frame to all these members of a group but one; it is settled as one frame. If they
    /// are more than [`members_at_once`](super::members_at_once),
    /// [`Input::Spread`](super::Input::Spread) comes before that.
    DeliverAll { id: FrameId, group: GroupId, to: Arc<[UserId]>, except: UserId, text: Cow<'f, str> },
    /// Forward a frame that is in the conversation of these two to the second one at level 1.
    Hand { from: UserId, to: UserId, text: String },
    /// Note that the first user has asked the second one to be friends, by a frame that is in no
    /// conversation.
    NoteRequest { from: UserId, to: UserId },
    /// Record a frame in its conversation, because somebody in it uses level 2, and forward it then;
    /// it is settled as one frame.
    Record(Box<ToRecord<'f>>),
    /// Log the client in at level 2; [`Input::OptedIn`](super::Input::OptedIn) reports whether it is.
    OptIn(Box<OptIn>),
    /// Run a job; its [`Outcome`](super::Outcome) comes as an input.
    Submit(Job),
    /// Make the other nodes send this user's messages here;
    /// [`Outcome::Placed`](super::Outcome::Placed) comes as an input.
    Join(UserId),
    /// From now on messages for this user go to this connection.
    Attach(UserId),
    /// From now on they do not.
    Detach(UserId),
    /// Log this user out of every connection of this node; each of these gets
    /// [`Input::LoggedOut`](super::Input::LoggedOut). If `shows`,
    /// [`Outcome::Shown`](super::Outcome::Shown) comes as an input when the user's `User.state`
    /// says so.
    LogOut { user: UserId, shows: bool },
    /// Like `Detach`; [`Outcome::Shown`](super::Outcome::Shown) comes as an input when the user's
    /// `User.state` says so.
    DetachAndShow(UserId),
    /// Set the user's `User.state` to online; [`Outcome::Shown`](super::Outcome::Shown) comes as an
    /// input.
    Show(UserId),
    /// Another connection may fetch this user's stored messages.
    ReleaseMailbox(UserId),
    /// Ask the connection that has this user's mailbox whether it still needs it.
    WantMailbox(UserId),
    /// Report [`Input::Reminder`](super::Input::Reminder) after this time.
    Remind(Duration),
    /// Close the connection without waiting any longer.
    HangUp,
}

/// A frame of level 1 that is recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToRecord<'f> {
    /// The frame.
    pub id: FrameId,
    /// Its sender, who is logged in.
    pub sender: UserId,
    /// Where it goes.
    pub to: Recipients,
    /// What it is.
    pub kind: EntryKind,
    /// Its text.
    pub text: Cow<'f, str>,
}

/// The recipients of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recipients {
    /// One user.
    User(UserId),
    /// The members of a group, ascending, but for the sender.
    Group(GroupId, Arc<[UserId]>),
}

/// A login at level 2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OptIn {
    /// What the client says.
    pub login: Login<'static>,
    /// What the reply repeats.
    pub rid: Option<Rid>,
}

/// Effects, to be carried out in order.
pub type Effects<'f> = SmallVec<[Effect<'f>; 4]>;
