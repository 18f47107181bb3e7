//! [`DeviceNews`]: news of one node to others for connections of level 2.
//!
//! Nobody confirms such news. If it is lost, the sweep of the node that missed it finds the
//! messages, or that node reads them from the store when the next message comes.

use std::sync::Arc;

use crate::base::conversation::{ConversationId, Seq, Tag};
use crate::history::pump::{PumpEvent, Row};
use crate::protocol::UserId;
use crate::protocol::level2::frames::{Committed, MarkNews};
use crate::store::history::DeviceId;

/// One piece of news.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceNews {
    /// Messages were committed in conversations of two, for the devices of this user.
    Messages(UserId, Vec<CommittedFrame>),
    /// Messages were committed in groups, for the devices of their members.
    GroupMessages(Vec<CommittedFrame>),
    /// Marks in this conversation have risen, for the devices of this user.
    Marks(UserId, ConversationId, MarkNews),
    /// A frame for the devices of this user, which may be lost.
    Show(UserId, Arc<str>),
    /// Connections of a device of this user end.
    End(UserId, DeviceId, DeviceEnd),
    /// This user is a member of a group now, and sees its messages from this number on.
    Joined(UserId, ConversationId, Seq),
    /// This user is no longer a member. This number was the last that the user may see.
    Left(UserId, ConversationId, Seq),
    /// This user now uses level 2.
    UsesLevel2(UserId),
    /// The first user has blocked the second, or no longer blocks the second.
    Blocked(UserId, UserId, bool),
    /// This user is logged out of everything, and remembered passwords are no longer valid.
    LoggedOut(UserId),
}

/// Why connections of a device end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceEnd {
    /// The device has logged in elsewhere, with this number.
    Replaced(i64),
    /// The device was logged out.
    Revoked,
}

/// A message in the form for its readers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedFrame {
    /// The conversation.
    pub conv: ConversationId,
    /// Its place in the conversation.
    pub at: Committed,
    /// The tag of the message before it, if known.
    pub before: Option<Tag>,
    /// Its sender.
    pub from: UserId,
    /// The 42 that shows it.
    pub frame: Arc<str>,
}

impl CommittedFrame {
    /// The event for the pump of a connection that shows this message.
    pub fn push(&self) -> PumpEvent {
        let CommittedFrame { conv, at, before, from, frame } = self;
        PumpEvent::Push { conv: *conv, row: Row { at: *at, from: *from, frame: frame.clone() }, before: *before }
    }
}
