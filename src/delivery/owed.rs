//! The answers that senders are owed: [`Owed`] at level 1, [`Acknowledgement`] for a recorded message.

use std::sync::Arc;

use parking_lot::Mutex;

use super::posted::{ClientLink, Posted, Provenance};
use crate::admission::Holder;
use crate::admission::berths::Berth;
use crate::base::conversation::ConversationId;
use crate::base::ending::{Ending, Undelivered};
use crate::base::ids::FrameId;
use crate::session::Settled;

/// The answer that the sender of a frame for one recipient is owed. If it is dropped unsettled, the
/// frame has failed and the sender is told so: no sender waits for ever for a frame that was lost
/// in a panic.
#[derive(Debug)]
pub struct Owed {
    /// The sender, until the frame is settled.
    sender: Option<Arc<ClientLink>>,
    id: FrameId,
    bytes: usize,
}

/// The answer to the sender of a recorded message. It is sent when the last delivery to a recipient
/// at level 1 lets go of it: then everything is kept that level 1 promises them.
#[derive(Debug)]
pub struct Acknowledgement {
    answer: Option<(Arc<ClientLink>, Posted)>,
    /// Those to repeats of the message.
    others: Mutex<Vec<(Arc<ClientLink>, Posted)>>,
    /// Where the message is recorded; `None` if that has failed.
    conv: Option<ConversationId>,
    /// Room for the message, and for all deliveries.
    berth: Berth,
}

impl Acknowledgement {
    /// The answer, which is not sent yet.
    pub fn new(
        link: Arc<ClientLink>,
        answer: Posted,
        conv: Option<ConversationId>,
        berth: Berth,
    ) -> Arc<Acknowledgement> {
        Arc::new(Acknowledgement { answer: Some((link, answer)), others: Mutex::default(), conv, berth })
    }

    /// Of a message for which nobody waits.
    pub fn silent(conv: ConversationId, berth: Berth) -> Arc<Acknowledgement> {
        Arc::new(Acknowledgement { answer: None, others: Mutex::default(), conv: Some(conv), berth })
    }

    /// The message was sent again meanwhile: that is answered when this is.
    pub fn follow(&self, link: Arc<ClientLink>, answer: Posted) {
        self.others.lock().push((link, answer));
    }

    /// Where the message is recorded; `None` if that has failed.
    pub(super) fn conv(&self) -> Option<ConversationId> {
        self.conv
    }

    /// The owner of the share of the lanes that the message uses.
    pub(super) fn holder(&self) -> Holder {
        self.berth.holder()
    }

    /// What the frame is called in the output of a connection.
    pub fn frame(&self) -> FrameId {
        if self.conv.is_some() { FrameId::RECORDED } else { FrameId::UNNAMED }
    }

    /// Returns the answer if nobody else waits to send it, so that many can be sent together.
    pub fn take(self: Arc<Acknowledgement>) -> Option<(Arc<ClientLink>, Posted)> {
        Arc::into_inner(self).and_then(|mut last| last.answer.take())
    }

    /// Takes room for a delivery; false if that would exceed the sender's share.
    pub fn widen(&self, bytes: usize) -> bool {
        self.berth.widen(bytes)
    }
}

impl Drop for Acknowledgement {
    fn drop(&mut self) {
        let others = std::mem::take(self.others.get_mut());
        for (link, answer) in self.answer.take().into_iter().chain(others) {
            link.post(answer);
        }
    }
}

impl Owed {
    /// The answer to the sender of a frame of this number of bytes.
    pub fn to(&Provenance { sender, id, .. }: &Provenance<'_>, bytes: usize) -> Owed {
        Owed { sender: Some(sender.clone()), id, bytes }
    }

    /// The frame, for the log.
    pub(super) fn frame(&self) -> FrameId {
        self.id
    }

    /// Returns the sender, and what to tell it if everything went well.
    pub fn done(mut self) -> Option<(Arc<ClientLink>, Posted)> {
        let sender = self.sender.take()?;
        Some((sender, Posted::Settled(self.settled(Ok(())))))
    }

    /// Returns the sender, whom the caller tells the frame's fate, and what to tell it.
    pub fn settle(mut self, ending: Ending) -> Option<(Arc<ClientLink>, Settled)> {
        self.sender.take().map(|sender| (sender, self.settled(ending)))
    }

    fn settled(&self, ending: Ending) -> Settled {
        Settled::one(self.id, self.bytes, ending)
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.post(Posted::Settled(self.settled(Err(Undelivered::Unstored))));
        }
    }
}
