//! [`Unsettled`]: the forwarded frames of one client whose fate is not known.

use super::input::Settled;
use crate::base::ending::Undelivered;

/// See the [module](self). It also holds the failures of frames that were settled since the last
/// time when all were.
#[derive(Default, Debug)]
pub(super) struct Unsettled {
    frames: u32,
    bytes: usize,
    failures: Failures,
}

/// The numbers of frames that have failed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Failures {
    pub(super) failed: u32,
    /// The failures because of a full mailbox.
    pub(super) full: u32,
}

impl Unsettled {
    /// Whether all are settled.
    pub(super) fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Whether one more frame may be forwarded: not too much is on its way, and no failure has to
    /// be reported first.
    pub(super) fn has_room(&self) -> bool {
        self.failures.failed == 0 && self.frames < UNSETTLED_MAX && self.bytes < UNSETTLED_BYTES_MAX
    }

    /// Adds a frame.
    pub(super) fn add(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes;
    }

    /// Settles frames. Returns the failures when all frames are settled.
    pub(super) fn settle(&mut self, settled: &Settled) -> Option<Failures> {
        self.frames -= settled.frames;
        self.bytes -= settled.bytes;
        for failure in &settled.failures {
            self.failures.failed += 1;
            self.failures.full += u32::from(failure.reason == Undelivered::MailboxFull);
        }
        self.is_empty().then(|| std::mem::take(&mut self.failures))
    }

    pub(super) fn check_invariants(&self) {
        let Unsettled { frames, bytes, failures: Failures { failed, full } } = *self;
        assert!(full <= failed, "each has failed");
        assert!(frames > 0 || (bytes, failed) == (0, 0), "nothing on its way, nothing to tell of it");
    }
}

/// The most frames of one client on their way before its input is no longer read.
pub(super) const UNSETTLED_MAX: u32 = 4096;
/// The same in bytes.
const UNSETTLED_BYTES_MAX: usize = 1024 * 1024;
