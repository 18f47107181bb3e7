//! The label of a frame in a connection's output: its user and the message's id.

use net::{Fate, Label};

use crate::base::ids::FrameId;
use crate::protocol::UserId;

/// The fate of a user's message in a connection's output: it comes back if it does not arrive.
pub(super) fn or_back(user: UserId, id: FrameId) -> Fate {
    Fate::Return(Label { id: id.into(), user: user.0.cast_unsigned(), user_has_left: false })
}

/// The recipient.
pub(super) fn user_of(label: &Label) -> UserId {
    UserId(label.user.cast_signed())
}

/// Whether the frame was for this user.
pub(super) fn is_for(label: &Label, user: UserId) -> bool {
    user_of(label) == user
}

/// A message that a connection has returned.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) id: FrameId,
    pub(super) frame: Box<[u8]>,
}

impl Returned {
    pub(super) fn of((label, frame): (Label, Box<[u8]>)) -> Returned {
        Returned { id: label.id.into(), frame }
    }
}
