//! [`Routed`]: what became of a forwarded frame, as far as it is known at once.

use crate::delivery::Delivery;
use crate::session::Settled;

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

    /// The notice for the sender's session about its frame of `bytes` bytes, if the frame is
    /// settled.
    pub fn settled(self, bytes: usize) -> Option<Settled> {
        let Routed::Settled { failed, full } = self else { return None };
        Some(Settled { frames: 1, bytes, failed: failed.into(), full: full.into() })
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
