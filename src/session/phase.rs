//! [`Phase`]: the states of a session.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use crate::protocol::{GroupId, UserId};
use crate::store::{MessageId, UserState};

/// Where a session stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// Takes whatever comes.
    Ready,
    /// For a job's outcome.
    Waiting(Awaited),
    /// A frame is being handed to the members of a large group: what comes after it must not overtake it.
    Spreading,
    /// The request is done, but its push is not settled yet.
    Settling { reply: String },
    /// Kept messages are on their way to the client; they are deleted when they have arrived.
    /// `wanted` is when another connection asked for the mailbox, and how much had not arrived then.
    Sending { user: UserId, ids: Box<[MessageId]>, wanted: Option<Box<(Instant, usize)>> },
    /// Over.
    Ended,
}

/// Which outcome a session waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Awaited {
    /// Whether the password of this user is right.
    Password(UserId),
    /// The bus to confirm that this node is subscribed for the user.
    Place(UserId),
    /// That this is the user's `User.state`: of a login or logout, which is answered then, at the latest `by` this time.
    State { user: UserId, state: UserState, by: Instant },
    /// The members of a group, for the frame that still stands in the input.
    Members(GroupId),
    /// That these are friends.
    Friends { a: UserId, b: UserId },
    /// Just the reply.
    Reply,
    /// The messages kept for this user.
    Messages(UserId),
    /// The same, for a further frame with them that nobody has asked for.
    MoreMessages(UserId),
    /// That so many messages of this user are deleted.
    Deletion(UserId, u32),
}

/// What was found out for a frame while it waited.
#[derive(Debug)]
pub(super) enum Found {
    Members(GroupId, Arc<[UserId]>),
    /// Nothing can be found out: this is the answer.
    Refusal(Cow<'static, str>),
}
