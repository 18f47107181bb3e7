//! [`Effect`]: what a session wants done.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::Job;
#[cfg(doc)]
use super::{Input, Outcome, members_at_once};
use crate::protocol::{GroupId, UserId};

/// What a session wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect<'f> {
    /// Send this to the client.
    Reply(Cow<'static, str>),
    /// Send this to the client and report [`Input::Sent`] when it has arrived.
    ReplyAndReport(String),
    /// Forward a frame to one user; [`Input::Settled`] tells what became of it.
    Deliver { to: UserId, text: Cow<'f, str> },
    /// Forward a frame to all of these members of a group but one; settled as one frame. If they are more than
    /// [`members_at_once`], [`Input::Spread`] comes before that.
    DeliverAll { group: GroupId, to: Arc<[UserId]>, except: UserId, text: Cow<'f, str> },
    /// Have a job done; its [`Outcome`] comes as an input.
    Submit(Job),
    /// Have the other nodes send messages for this user here; [`Outcome::Placed`] comes as an input.
    Join(UserId),
    /// From now on messages for this user go to this connection.
    Attach(UserId),
    /// They no longer do.
    Detach(UserId),
    /// Log this user out of every connection of this node; theirs hear [`Input::LoggedOut`]. If it `shows`,
    /// [`Outcome::Shown`] comes as an input when the user's `User.state` says so.
    LogOut { user: UserId, shows: bool },
    /// The same; [`Outcome::Shown`] comes as an input when the user's `User.state` says so.
    DetachAndShow(UserId),
    /// Have the user's `User.state` say online; [`Outcome::Shown`] comes as an input.
    Show(UserId),
    /// The messages kept for this user may be fetched by another connection.
    ReleaseMailbox(UserId),
    /// Ask the connection that has this user's mailbox whether it still needs it.
    WantMailbox(UserId),
    /// Report [`Input::Reminder`] after this time.
    Remind(Duration),
    /// Close the connection: it cannot be waited for any longer.
    HangUp,
}

/// Effects in the order in which they are to be carried out.
pub type Effects<'f> = SmallVec<[Effect<'f>; 4]>;
