//! [`Outlet`]: what a connection writes, and whether its client takes it.

use std::sync::Arc;

use super::effects::{MemberEffect, MemberEffects};

/// The output of a connection, as far as its member knows.
#[derive(Debug)]
pub(super) struct Outlet {
    /// Bytes that the client has not taken.
    waiting: usize,
    high: usize,
    /// Bytes written since a frame that reports its arrival.
    unmarked: usize,
}

impl Outlet {
    /// An empty one, which is full with more than `high` bytes.
    pub(super) fn new(high: usize) -> Outlet {
        Outlet { waiting: 0, high, unmarked: 0 }
    }

    pub(super) fn write(&mut self, frame: Arc<str>, effects: &mut MemberEffects) {
        self.waiting += frame.len();
        self.unmarked += frame.len();
        if self.unmarked >= self.high / 2 {
            self.unmarked = 0;
            effects.push(MemberEffect::WriteAndReport(frame));
        } else {
            effects.push(MemberEffect::Write(frame));
        }
    }

    /// A frame that reports its arrival has arrived; this number of bytes have not.
    pub(super) fn taken(&mut self, waiting: usize) {
        self.waiting = waiting;
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting > self.high
    }
}
