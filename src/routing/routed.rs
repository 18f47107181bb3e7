//! [`Routed`]: what became of a forwarded frame, as far as it is known at once.

use net::Label;

use crate::base::ids::FrameId;
use crate::delivery::Delivery;
use crate::session::{FailedFrame, Settled};

/// The fate of a forwarded frame, as far as it is known immediately.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Routed {
    /// Settled.
    Settled {
        /// It could neither be delivered nor stored for some recipient.
        failed: bool,
        /// It has failed because a recipient's mailbox is full.
        full: bool,
    },
    /// On its way; the sender's session will be notified.
    OnItsWay,
}

impl Routed {
    pub(super) const DONE: Routed = Routed::Settled { failed: false, full: false };
    pub(super) const FAILED: Routed = Routed::Settled { failed: true, full: false };

    /// The notice for the sender's session about its message in a frame of `bytes` bytes, if the
    /// frame is settled.
    pub fn settled(self, id: FrameId, bytes: usize) -> Option<Settled> {
        let Routed::Settled { failed, full: is_full } = self else { return None };
        Some(Settled::one(bytes, failed.then_some(FailedFrame { id, is_full })))
    }
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

/// Whether a message was put into its lane; not needed if the user's connection has it.
pub(super) enum Parked {
    No,
    Yes,
    /// The lanes are shut down.
    Refused(Delivery),
    /// Its sender has its share of the lanes.
    NoRoom,
}
