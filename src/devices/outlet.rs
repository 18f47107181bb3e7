//! [`Outlet`]: the output of a connection, and whether its client takes it.

use std::sync::Arc;

use super::effects::{MemberEffect, MemberEffects};

/// The output of a connection, as far as its member knows.
#[derive(Debug)]
pub(super) struct Outlet {
    /// The bytes that the client has not taken.
    waiting: usize,
    high: usize,
    /// The bytes written since the last frame that reports its arrival.
    unmarked: usize,
}

impl Outlet {
    /// An empty output, which counts as full above `high` bytes.
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

    /// Notes that a frame that reports its arrival has arrived, and that this number of bytes have
    /// not.
    pub(super) fn taken(&mut self, waiting: usize) {
        self.waiting = waiting;
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting > self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_fills_it_is_reported_so_that_it_never_stays_full() {
        let (mut outlet, mut effects) = (Outlet::new(100), MemberEffects::new());
        (0..6).for_each(|_| outlet.write("x".repeat(20).into(), &mut effects));
        let reports: Vec<_> = effects.iter().map(|effect| matches!(effect, MemberEffect::WriteAndReport(_))).collect();
        assert_eq!(reports, [false, false, true, false, false, true]);
        assert!(outlet.is_full());
        outlet.taken(60);
        assert!(!outlet.is_full());
    }
}
