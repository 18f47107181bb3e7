//! The ids in a request as its client claims them, before anything is known of them.

use std::fmt;

use crate::base::ids::{GroupId, UserId};

/// An id as a client sent it: any integer. An integer beyond 64 bits becomes the nearest one that
/// fits, which is no user's id either.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Id(pub i64);

/// An id that is repeated in the reply: its value, and its digits if [`Id`] cannot hold them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EchoedId<'f> {
    /// The id.
    pub id: Id,
    pub(super) digits: Option<&'f str>,
}

/// The sender that a chat claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// This id.
    Claimed(Id),
    /// A value that is not an id.
    Malformed,
}

/// Not JSON, or not a request: the 401 reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadRequest;

impl Id {
    /// The user with this id, if it is in the range of ids.
    pub fn user(self) -> Option<UserId> {
        i32::try_from(self.0).ok().filter(|id| *id > 0).map(UserId)
    }

    /// The user with this id, or one that never exists.
    pub fn user_or_nobody(self) -> UserId {
        self.user().unwrap_or(UserId(0))
    }

    /// The group with this id, or one that never exists.
    pub fn group_or_none(self) -> GroupId {
        GroupId(self.user_or_nobody().0)
    }
}

impl From<Id> for EchoedId<'_> {
    fn from(id: Id) -> Self {
        EchoedId { id, digits: None }
    }
}

impl fmt::Display for EchoedId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.digits {
            Some(digits) => f.write_str(digits),
            None => self.id.0.fmt(f),
        }
    }
}
