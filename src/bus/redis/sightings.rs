//! [`Sightings`]: what this node knows about nodes of the reference server.

use std::sync::atomic::{AtomicBool, Ordering};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Sightings {
    pub(super) are_there: AtomicBool,
    /// Redis does not let this node publish on the decoy channel, so tools count as nodes.
    pub(super) has_no_decoy: AtomicBool,
    /// They were seen, but not of this installation, and that was logged.
    pub(super) are_foreign: AtomicBool,
}

impl Sightings {
    pub(super) fn new() -> Sightings {
        Sightings {
            are_there: AtomicBool::new(false),
            has_no_decoy: AtomicBool::new(false),
            are_foreign: AtomicBool::new(false),
        }
    }

    pub(super) fn are_there(&self) -> bool {
        self.are_there.load(Ordering::Acquire)
    }
}
