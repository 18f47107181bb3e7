//! [`MemberEffect`]: an effect that a [`Member`](super::member::Member) wants carried out.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::tasks::MemberTask;
use crate::base::conversation::ConversationId;
use crate::history::pump::Submission;
use crate::protocol::level2::replies::Reason;
use crate::protocol::level2::{MessageChange, Send};
use crate::store::history::{Cid, EntryKind, FrameHash};

/// The work to do, in this order.
#[derive(Debug)]
pub enum MemberEffect {
    /// Write a frame.
    Write(Arc<str>),
    /// Write a frame, and report [`Member::on_taken`](super::member::Member::on_taken) when it has
    /// arrived.
    WriteAndReport(Arc<str>),
    /// Do this task on a thread.
    Do(MemberTask),
    /// Commit this message.
    Send(Box<Outgoing>),
    /// Call [`Member::on_time`](super::member::Member::on_time) after this time.
    Remind(Duration),
    /// Write the 55 and close the connection.
    End(Reason),
}

/// Effects, in their order.
pub type MemberEffects = SmallVec<[MemberEffect; 4]>;

/// A message to be committed.
#[derive(Debug)]
pub struct Outgoing {
    /// The conversation.
    pub conv: ConversationId,
    /// Its number on this connection.
    pub submission: Submission,
    /// The kind of the entry.
    pub kind: EntryKind,
    /// The client's id of the message.
    pub cid: Cid,
    /// The hash of the frame's bytes.
    pub hash: FrameHash,
    /// The text that is stored.
    pub text: Arc<str>,
    /// The text for recipients at level 1, if any.
    pub forward: Option<Arc<str>>,
}

impl Outgoing {
    /// The message of a client's send in this conversation.
    pub fn of(send: &Send<'_>, conv: ConversationId, submission: Submission, cid: Cid) -> Outgoing {
        let kind = match send.change {
            Some(MessageChange::Edit(target)) => EntryKind::Edit(target),
            Some(MessageChange::Recall(target)) => EntryKind::Recall(target),
            None if send.msg_type == 5 => EntryKind::Other,
            None => EntryKind::Message,
        };
        let text: Arc<str> = send.stored().into();
        let forward = send.change.is_none().then(|| match send.forward.text() {
            forward if *forward == *text => text.clone(),
            forward => forward.into(),
        });
        Outgoing { conv, submission, kind, cid, hash: FrameHash::of(send.frame.as_bytes()), text, forward }
    }
}
