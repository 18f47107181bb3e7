//! [`Effect`]: an effect that a session wants carried out.

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
    /// Forward a frame to all these members of a group except one; it is settled as one frame. If
    /// there are more than [`members_at_once`](super::members_at_once),
    /// [`Input::Spread`](super::Input::Spread) comes before that.
    DeliverAll { id: FrameId, group: GroupId, to: Arc<[UserId]>, except: UserId, text: Cow<'f, str> },
    /// Forward a frame that is in the conversation of these two users to the second one at level 1.
    Hand { from: UserId, to: UserId, text: String },
    /// Note that the first user has sent the second one a friend request in a frame that is in no
    /// conversation.
    NoteRequest { from: UserId, to: UserId },
    /// Record a frame in its conversation, because a user in it uses level 2, and then forward it.
    /// It is settled as one frame.
    Record(Box<ToRecord<'f>>),
    /// Log the client in at level 2; [`Input::OptedIn`](super::Input::OptedIn) reports the result.
    OptIn(Box<OptIn>),
    /// Run a job; its [`Outcome`](super::Outcome) comes as an input.
    Submit(Job),
    /// Make the other nodes send this user's messages here;
    /// [`Outcome::Placed`](super::Outcome::Placed) comes as an input.
    Join(UserId),
    /// Send messages for this user to this connection from now on.
    Attach(UserId),
    /// Stop sending messages for this user to this connection.
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
    /// Let another connection fetch this user's stored messages.
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
    /// The id of the frame.
    pub id: FrameId,
    /// Its sender, who is logged in.
    pub sender: UserId,
    /// Its recipients.
    pub to: Recipients,
    /// Its kind.
    pub kind: EntryKind,
    /// Its text.
    pub text: Cow<'f, str>,
}

/// The recipients of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recipients {
    /// One user.
    User(UserId),
    /// The members of a group, ascending, without the sender.
    Group(GroupId, Arc<[UserId]>),
}

/// A login at level 2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OptIn {
    /// The request of the client.
    pub login: Login<'static>,
    /// The client's id of the request, which the reply repeats.
    pub rid: Option<Rid>,
}

/// Effects, to be carried out in order.
pub type Effects<'f> = SmallVec<[Effect<'f>; 4]>;
