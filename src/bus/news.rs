//! [`DeviceNews`]: what one node tells others for connections of level 2.
//!
//! Nobody confirms it. What is lost is found by the sweep of the node that has missed it, or read
//! from the store when the next message comes.

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
    /// The same in groups, for the devices of their members.
    GroupMessages(Vec<CommittedFrame>),
    /// Marks in this conversation have risen, for the devices of this user.
    Marks(UserId, ConversationId, MarkNews),
    /// A frame for the devices of this user, which may be lost.
    Show(UserId, Arc<str>),
    /// Connections of a device of this user end.
    End(UserId, DeviceId, DeviceEnd),
    /// This user is a member of a group now, and sees its messages from this number on.
    Joined(UserId, ConversationId, Seq),
    /// This user is not a member any more; this number was the last for the user.
    Left(UserId, ConversationId, Seq),
    /// This user uses level 2 from now on.
    UsesLevel2(UserId),
}

/// Why connections of a device end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceEnd {
    /// The device has logged in elsewhere, with this number.
    Replaced(i64),
    /// The device was logged out.
    Revoked,
}

/// A message as its readers are shown it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedFrame {
    /// The conversation.
    pub conv: ConversationId,
    /// Its place.
    pub at: Committed,
    /// The tag of the message before it, if that is known.
    pub before: Option<Tag>,
    /// Its sender.
    pub from: UserId,
    /// The 42.
    pub frame: Arc<str>,
}

impl CommittedFrame {
    /// What a connection is told of it.
    pub fn push(&self) -> PumpEvent {
        let CommittedFrame { conv, at, before, from, frame } = self;
        PumpEvent::Push { conv: *conv, row: Row { at: *at, from: *from, frame: frame.clone() }, before: *before }
    }
}
