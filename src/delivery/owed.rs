//! The answers that senders are owed: [`Owed`] at level 1, [`Acknowledgement`] for a recorded
//! message.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use parking_lot::Mutex;

use super::posted::{ClientLink, Posted, Provenance};
use crate::admission::Holder;
use crate::admission::berths::Berth;
use crate::base::conversation::{ConversationId, Seq};
use crate::base::ending::{DeliveryResult, Undelivered};
use crate::base::ids::FrameId;
use crate::session::Settled;

/// The answer that is owed to the sender of a frame for one recipient. If it is dropped unsettled,
/// the frame has failed and the sender is notified, so no sender waits for ever for a frame that
/// was lost in a panic.
#[derive(Debug)]
pub struct Owed {
    /// The sender, until the frame is settled.
    sender: Option<Arc<ClientLink>>,
    id: FrameId,
    bytes: usize,
}

/// The answer to the sender of a recorded message. It is sent when the last delivery to a recipient
/// at level 1 is dropped: then everything that level 1 promises is stored.
#[derive(Debug)]
pub struct Acknowledgement {
    answer: Option<(Arc<ClientLink>, Posted)>,
    /// The answers to retries of the message.
    others: Mutex<Vec<(Arc<ClientLink>, Posted)>>,
    /// The notice to an operator.
    operator: Mutex<Option<Tell>>,
    /// A recipient at level 1 does not get it.
    has_failed: AtomicBool,
    /// The conversation in which the message is recorded; `None` if that has failed.
    conv: Option<ConversationId>,
    /// Its number there; 0 if unknown.
    seq: Seq,
    /// Room for the message, and for all deliveries.
    berth: Berth,
}

/// Called once with whether each recipient at level 1 gets the message.
struct Tell(Box<dyn FnOnce(bool) + Send>);

impl fmt::Debug for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tell").finish_non_exhaustive()
    }
}

impl Acknowledgement {
    /// An answer that is not sent yet.
    pub fn new(
        link: Arc<ClientLink>,
        answer: Posted,
        place: Option<(ConversationId, Seq)>,
        berth: Berth,
    ) -> Arc<Acknowledgement> {
        let (conv, seq) = place.unzip();
        let (answer, seq) = (Some((link, answer)), seq.unwrap_or(0));
        let mut new = Acknowledgement::empty(conv, seq, berth);
        new.answer = answer;
        Arc::new(new)
    }

    /// The acknowledgement of a message for which nobody waits.
    pub fn silent(conv: ConversationId, berth: Berth) -> Arc<Acknowledgement> {
        Arc::new(Acknowledgement::empty(Some(conv), 0, berth))
    }

    /// Of a message without a connection. `tell` is called once, by any thread, and does not block.
    pub fn of_operator(
        tell: impl FnOnce(bool) + Send + 'static,
        (conv, seq): (ConversationId, Seq),
        berth: Berth,
    ) -> Arc<Acknowledgement> {
        let mut new = Acknowledgement::empty(Some(conv), seq, berth);
        new.operator = Mutex::new(Some(Tell(Box::new(tell))));
        Arc::new(new)
    }

    fn empty(conv: Option<ConversationId>, seq: Seq, berth: Berth) -> Acknowledgement {
        Acknowledgement {
            answer: None,
            others: Mutex::default(),
            operator: Mutex::default(),
            has_failed: AtomicBool::new(false),
            conv,
            seq,
            berth,
        }
    }

    /// Notes that a recipient at level 1 does not get it. Senders at level 2 are not told: the
    /// conversation has it.
    pub fn fail(&self) {
        self.has_failed.store(true, Ordering::Release);
    }

    /// Adds the answer to a retry, which is sent together with this one.
    pub fn follow(&self, link: Arc<ClientLink>, answer: Posted) {
        self.others.lock().push((link, answer));
    }

    /// Its number there; 0 if unknown.
    pub(crate) fn seq(&self) -> Seq {
        self.seq
    }

    /// The conversation in which the message is recorded; `None` if that has failed.
    pub(crate) fn conv(&self) -> Option<ConversationId> {
        self.conv
    }

    /// The owner of the share of the lanes that the message uses.
    pub(super) fn holder(&self) -> Holder {
        self.berth.holder()
    }

    /// The id of the frame in the output of a connection.
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
        if let Some(Tell(tell)) = self.operator.get_mut().take() {
            tell(!*self.has_failed.get_mut() && !thread::panicking());
        }
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

    /// Returns the sender and the answer for success.
    pub fn done(mut self) -> Option<(Arc<ClientLink>, Posted)> {
        let sender = self.sender.take()?;
        Some((sender, Posted::Settled(self.settled(Ok(())))))
    }

    /// Returns the sender and the answer with the frame's fate, for the caller to post.
    pub fn settle(mut self, ending: DeliveryResult) -> Option<(Arc<ClientLink>, Settled)> {
        self.sender.take().map(|sender| (sender, self.settled(ending)))
    }

    fn settled(&self, ending: DeliveryResult) -> Settled {
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
