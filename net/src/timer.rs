//! [`Timers`]: the deadlines of one loop.
//!
//! A deadline is not moved when its connection is active, because moving would cost every frame.
//! Instead the loop checks, when a deadline has passed, whether it still holds, and sets another
//! one if not. So a connection has at most one entry of each kind.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::slots::ConnId;

/// The purpose of a deadline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Deadline {
    /// Nothing was received for the idle timeout.
    Idle,
    /// A started frame did not complete in time.
    Frame,
    /// A closing connection took too long.
    Close,
    /// A held output may be written.
    Write,
    /// The application wanted to be reminded.
    Reminder,
}

/// The earlier of two deadlines.
#[inline]
pub(crate) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Deadlines in the order in which they pass.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, ConnId, Deadline)>>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Instant, id: ConnId, deadline: Deadline) {
        self.heap.push(Reverse((at, id, deadline)));
    }

    /// Takes one deadline that has passed.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(ConnId, Deadline)> {
        let Reverse((at, ..)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, id, deadline))| (id, deadline))
    }

    /// Drops the deadlines of closed connections if those are the majority: `alive` is the number
    /// of open ones, which `is_alive` recognizes. Otherwise connections that come and go would fill
    /// the memory for as long as the idle timeout.
    pub(crate) fn sweep(&mut self, alive: usize, mut is_alive: impl FnMut(ConnId) -> bool) {
        if self.heap.len() > 2 * ENTRIES_MAX * alive + SWEEP_MIN {
            self.heap.retain(|Reverse((_, id, _))| is_alive(*id));
        }
    }

    /// The next deadline, if there is one.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }
}

/// The usual entries of one connection: idle, frame, close when draining, close when lingering,
/// write, a reminder.
const ENTRIES_MAX: usize = 6;
/// The number of entries below which a sweep is not worth it.
const SWEEP_MIN: usize = 1000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn deadlines_pass_in_order_and_not_early() {
        let start = Instant::now();
        let id = |index| ConnId { index, generation: 0 };
        let mut timers = Timers::default();
        assert_eq!(timers.next(), None);
        timers.set(start + Duration::from_secs(2), id(2), Deadline::Idle);
        timers.set(start + Duration::from_secs(1), id(1), Deadline::Frame);
        assert_eq!(timers.next(), Some(start + Duration::from_secs(1)));
        assert_eq!(timers.pop(start), None);
        let later = start + Duration::from_secs(2);
        assert_eq!(timers.pop(later), Some((id(1), Deadline::Frame)));
        assert_eq!(timers.pop(later), Some((id(2), Deadline::Idle)));
        assert_eq!(timers.pop(later), None);
    }

    #[test]
    fn connections_that_come_and_go_leave_few_deadlines() {
        let start = Instant::now();
        let mut timers = Timers::default();
        for index in 0..100_000 {
            timers.set(start, ConnId { index, generation: 0 }, Deadline::Idle);
            timers.sweep(2, |id| id.index < 2);
        }
        assert!(timers.heap.len() <= 2 * ENTRIES_MAX * 2 + SWEEP_MIN);
        assert_eq!(timers.pop(start).map(|(id, _)| id.index), Some(0), "the living keep theirs");
    }
}
