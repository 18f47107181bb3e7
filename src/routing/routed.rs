//! [`Routed`]: the fate of a forwarded frame, as far as it is known at once.

use crate::base::ending::{DeliveryResult, Undelivered};
use crate::base::ids::FrameId;
use crate::delivery::Delivery;
use crate::session::Settled;

/// The fate of a forwarded frame, as far as it is known immediately.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Routed {
    /// Settled.
    Settled(DeliveryResult),
    /// On its way; the sender's session will be notified.
    OnItsWay,
}

impl Routed {
    pub(super) const DONE: Routed = Routed::Settled(Ok(()));
    pub(super) const FAILED: Routed = Routed::Settled(Err(Undelivered::Unstored));

    /// The notice for the sender's session about its message in a frame of `bytes` bytes, if the
    /// frame is settled.
    pub fn settled(self, id: FrameId, bytes: usize) -> Option<Settled> {
        match self {
            Routed::Settled(ending) => Some(Settled::one(id, bytes, ending)),
            Routed::OnItsWay => None,
        }
    }
}

/// The result of putting a message into its lane, unless the user's connection has taken it.
pub(super) enum Parked {
    No,
    Yes,
    /// The lanes are shut down.
    Refused(Delivery),
    /// Its sender has used up its share of the lanes.
    NoRoom,
}
