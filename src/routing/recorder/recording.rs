//! [`Recording`]: a message to be committed, and the answer that is owed for it.

use std::fmt;
use std::sync::Arc;
use std::thread;

use super::refusals::AWAY;
use crate::admission::berths::Berth;
use crate::base::conversation::ConversationId;
use crate::delivery::{ClientLink, Owed, Posted};
use crate::history::pump::{PumpEvent, SendAnswer, Submission};
use crate::session::Recipients;
use crate::store::history::NewEntry;

/// An item of a lane, boxed because it is moved several times.
#[derive(Debug)]
pub struct RecorderItem(pub(super) Box<Recording>);

/// A message to be committed.
#[derive(Debug)]
pub struct Recording {
    /// The entry that is stored.
    pub entry: NewEntry,
    /// Its recipients, except the sender. The members of a group are read if they are not known.
    pub to: RecordedFor,
    /// The text for recipients at level 1, if any.
    pub forward: Option<Arc<str>>,
    /// The sender, which is notified of the outcome.
    pub owner: RecordOwner,
    /// Its room in the lanes.
    pub berth: Berth,
}

/// The recipients of a recorded message.
#[derive(Debug)]
pub enum RecordedFor {
    /// These users.
    Known(Recipients),
    /// The users of its conversation.
    Conversation,
}

/// The sender of a recorded message.
#[derive(Debug)]
pub enum RecordOwner {
    /// A client of level 2.
    Member(SendOwed),
    /// A client of level 1.
    Session(Owed),
    /// An operator, without a connection.
    Operator(OperatorOwed),
}

/// The answer that is owed for a send of level 2. It is always given, so that no client waits for
/// ever: if it is dropped, it becomes a refusal; if it is dropped in a panic, the connection ends.
#[derive(Debug)]
pub struct SendOwed {
    pub(super) link: Option<Arc<ClientLink>>,
    pub(super) conv: ConversationId,
    pub(super) submission: Submission,
}

impl SendOwed {
    /// The answer owed for a send of this connection.
    pub fn new(link: &Arc<ClientLink>, conv: ConversationId, submission: Submission) -> SendOwed {
        SendOwed { link: Some(link.clone()), conv, submission }
    }

    /// The connection, and the answer for it.
    pub(super) fn settle(mut self, answer: SendAnswer) -> Option<(Arc<ClientLink>, Posted)> {
        let link = self.link.take()?;
        let event = PumpEvent::Answered { conv: self.conv, id: self.submission.id, answer };
        Some((link, Posted::Pump(event)))
    }
}

impl Drop for SendOwed {
    /// After a panic the message may be committed, and later sends of the connection may be in the
    /// lane, which must not pass it. So the connection ends: its client repeats them all.
    fn drop(&mut self) {
        match self.link.take() {
            Some(link) if thread::panicking() => link.hang_up(),
            Some(link) => {
                let (conv, id, answer) = (self.conv, self.submission.id, SendAnswer::Refused(AWAY));
                link.post(Posted::Pump(PumpEvent::Answered { conv, id, answer }));
            }
            None => {}
        }
    }
}

/// The notice owed to an operator about a message. It is given when everything that level 1
/// promises the recipient is stored. If it is dropped, the message has failed.
pub struct OperatorOwed(Option<TellOperator>);

type TellOperator = Box<dyn FnOnce(SendAnswer) + Send>;

impl OperatorOwed {
    /// `tell` is called once, by any thread, and does not block.
    pub fn new(tell: impl FnOnce(SendAnswer) + Send + 'static) -> OperatorOwed {
        OperatorOwed(Some(Box::new(tell)))
    }

    pub(super) fn settle(mut self, answer: SendAnswer) {
        if let Some(tell) = self.0.take() {
            tell(answer);
        }
    }
}

impl Drop for OperatorOwed {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(SendAnswer::Refused(AWAY));
        }
    }
}

impl fmt::Debug for OperatorOwed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorOwed").finish_non_exhaustive()
    }
}

/// The weight of a recording without its text.
pub const RECORDING_BYTES: usize = size_of::<Recording>();
