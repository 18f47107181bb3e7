//! [`Recording`]: a message to be committed, and who is owed what becomes of it.

use std::sync::Arc;

use super::refusals::AWAY;
use crate::admission::berths::Berth;
use crate::base::conversation::ConversationId;
use crate::delivery::{ClientLink, Owed, Posted};
use crate::history::pump::{PumpEvent, SendAnswer, Submission};
use crate::session::Recipients;
use crate::store::history::NewEntry;

/// An item of a lane, which is moved several times on its way.
#[derive(Debug)]
pub struct RecorderItem(pub(super) Box<Recording>);

/// A message to be committed.
#[derive(Debug)]
pub struct Recording {
    /// What is stored.
    pub entry: NewEntry,
    /// Its recipients, but for the sender. The members of a group are read if they are not known.
    pub to: RecordedFor,
    /// What recipients at level 1 get, if anything.
    pub forward: Option<Arc<str>>,
    /// The sender, which is told what became of it.
    pub owner: RecordOwner,
    /// Its room.
    pub berth: Berth,
}

/// The recipients of a recorded message.
#[derive(Debug)]
pub enum RecordedFor {
    /// These.
    Known(Recipients),
    /// Those who are in its conversation.
    Conversation,
}

/// The sender of a recorded message.
#[derive(Debug)]
pub enum RecordOwner {
    /// At level 2.
    Member(SendOwed),
    /// At level 1.
    Session(Owed),
}

/// The answer that a send of level 2 is owed. Dropped, it is refused: no client waits for ever for a
/// send that was lost in a panic.
#[derive(Debug)]
pub struct SendOwed {
    pub(super) link: Option<Arc<ClientLink>>,
    pub(super) conv: ConversationId,
    pub(super) submission: Submission,
}

impl SendOwed {
    /// The answer to a send of this connection.
    pub fn new(link: &Arc<ClientLink>, conv: ConversationId, submission: Submission) -> SendOwed {
        SendOwed { link: Some(link.clone()), conv, submission }
    }

    /// The connection, and what to tell it.
    pub(super) fn settle(mut self, answer: SendAnswer) -> Option<(Arc<ClientLink>, Posted)> {
        let link = self.link.take()?;
        let event = PumpEvent::Answered { conv: self.conv, id: self.submission.id, answer };
        Some((link, Posted::Pump(event)))
    }
}

impl Drop for SendOwed {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            let (conv, id, answer) = (self.conv, self.submission.id, SendAnswer::Refused(AWAY));
            link.post(Posted::Pump(PumpEvent::Answered { conv, id, answer }));
        }
    }
}

/// What a recording weighs beside its text.
pub const RECORDING_BYTES: usize = size_of::<Recording>();
