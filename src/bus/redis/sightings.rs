//! [`Sightings`]: this node's knowledge of nodes of the reference server.

use std::sync::atomic::{AtomicBool, Ordering};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Sightings {
    pub(super) are_there: AtomicBool,
    /// Redis forbids this node to publish on the decoy channel, so tools count as nodes.
    pub(super) has_no_decoy: Anomaly,
    /// The nodes are not of this installation.
    pub(super) are_foreign: Anomaly,
}

impl Sightings {
    pub(super) fn new() -> Sightings {
        Sightings {
            are_there: AtomicBool::new(false),
            has_no_decoy: Anomaly::default(),
            are_foreign: Anomaly::default(),
        }
    }

    pub(super) fn are_there(&self) -> bool {
        self.are_there.load(Ordering::Acquire)
    }
}

/// Something unwanted that is logged when it begins, and not again while it lasts.
#[derive(Debug, Default)]
pub(super) struct Anomaly(AtomicBool);

impl Anomaly {
    /// Notes whether it is there. Returns true if it was not, and is now.
    pub(super) fn begins(&self, is_there: bool) -> bool {
        !self.0.swap(is_there, Ordering::AcqRel) && is_there
    }

    pub(super) fn is_there(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
