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
    /// `wanted` is when another connection asked for the mailbox, and how many bytes had not
    /// arrived then.
    Sending { user: UserId, ids: Box<[MessageId]>, wanted: Option<Box<(Instant, usize)>> },
    /// Ended.
    Ended,
}

/// The outcome that a session waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Awaited {
    /// Whether the password of this user is right.
    Password(UserId),
    /// A login at level 2.
    OptIn,
    /// The bus to confirm that this node is subscribed for the user.
    Place(UserId),
    /// That `User.state` has this value, for a login or logout, which is answered then, or at `by`
    /// at the latest.
    State { user: UserId, state: UserState, by: Instant },
    /// The members of a group, for the frame that is still in the input.
    Members(GroupId),
    /// That these are friends.
    Friends { a: UserId, b: UserId },
    /// Only the reply.
    Reply,
    /// The messages stored for this user.
    Messages(UserId),
    /// The same, for a further frame that the client has not requested.
    MoreMessages(UserId),
    /// The deletion of this number of the user's messages.
    Deletion(UserId, u32),
}

/// The result for a frame, found while it waited.
#[derive(Debug)]
pub(super) enum Found {
    Members(GroupId, Arc<[UserId]>),
    /// There is no result: this is the answer.
    Refusal(Cow<'static, str>),
}
