//! [`Phase`]: the states of a session.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use crate::protocol::{GroupId, UserId};
use crate::store::{MessageId, UserState};

/// The state of a session.
#[derive(Debug)]
pub(super) enum Phase {
    /// Accepts any input.
    Ready,
    /// Waits for a job's outcome.
    Waiting(Awaited),
    /// A frame is being delivered to the members of a large group; later input must not overtake
    /// it.
    Spreading,
    /// The request is done, but its push is not settled yet.
    Settling { reply: String },
    /// Stored messages are on their way to the client; they are deleted when they have arrived.
    /// `wanted` is the time at which another connection asked for the mailbox, and the number of
    /// bytes that had not arrived then.
    Sending { user: UserId, ids: Box<[MessageId]>, wanted: Option<Box<(Instant, usize)>> },
    /// Ended.
    Ended,
}

/// The outcome that a session waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Awaited {
    /// The check of this user's password.
    Password(UserId),
    /// A login at level 2.
    OptIn,
    /// The bus to confirm that this node is subscribed for the user.
    Place(UserId),
    /// The writing of this value of `User.state`, for a login or logout, which is answered then, or
    /// at `by` at the latest.
    State { user: UserId, state: UserState, by: Instant },
    /// The members of a group, for the frame that is still in the input.
    Members(GroupId),
    /// The friendship of these users.
    Friends { a: UserId, b: UserId },
    /// Just the reply.
    Reply,
    /// The messages stored for this user.
    Messages(UserId),
    /// More of the messages stored for this user, for a further frame that the client has not
    /// requested.
    MoreMessages(UserId),
    /// The deletion of this number of the user's messages.
    Deletion(UserId, u32),
}

/// The result for a frame, found while it waited.
#[derive(Debug)]
pub(super) enum Finding {
    Members(GroupId, Arc<[UserId]>),
    /// No result but this answer.
    Refusal(Cow<'static, str>),
}
