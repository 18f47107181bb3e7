//! [`LoopStats`]: the counters of a loop, and [`LoopWatch`], with which another thread observes a
//! loop.
//!
//! Only the loop writes its numbers, each with a plain load and store, in cache lines of its own. A
//! reader gets recent values, which may belong to slightly different moments.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::handler::CloseReason;
use crate::loop_handle::{Letter, LoopHandle};

/// A number that one thread changes and any thread reads.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

/// The numbers of one loop.
#[derive(Debug)]
#[repr(align(128))]
pub struct LoopStats {
    accepted: Tally,
    open: Tally,
    closed: [Tally; CloseReason::ALL.len()],
    turns: [Tally; TURN_BOUNDS.len() + 1],
    turn_nanos: Tally,
    heartbeat: Mutex<Heartbeat>,
}

/// How long the turns of a loop took, from the end of one sleep to the beginning of the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TurnTimes {
    /// The number of turns that took no longer than the bound at the same index in [`TURN_BOUNDS`],
    /// but longer than the one before it; the last entry counts those that took longer than all
    /// bounds.
    pub turns: [u64; TURN_BOUNDS.len() + 1],
    /// Their total duration.
    pub total: Duration,
}

/// Observes a loop from another thread. It outlives the loop.
#[derive(Debug)]
pub struct LoopWatch<M> {
    handle: LoopHandle<M>,
    stats: Arc<LoopStats>,
}

/// The state of a loop's heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heartbeat {
    Given,
    /// The heartbeat was requested at this time.
    Asked(Instant),
    /// The loop has ended.
    Ended,
}

impl Tally {
    /// Adds to the number. If two threads do so at the same time, one addition may be lost.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// The number. Any thread may call it.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }
}

impl LoopStats {
    pub(crate) fn new() -> LoopStats {
        LoopStats {
            accepted: Tally::default(),
            open: Tally::default(),
            closed: Default::default(),
            turns: Default::default(),
            turn_nanos: Tally::default(),
            heartbeat: Mutex::new(Heartbeat::Given),
        }
    }

    /// Connections assigned to this loop.
    pub fn accepted(&self) -> u64 {
        self.accepted.value()
    }

    /// The loop's open connections, including those that are closing or wait for their preface.
    pub fn open(&self) -> u64 {
        self.open.value()
    }

    /// Connections that closed, or are closing, for this reason.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize].value()
    }

    /// The durations of the loop's turns.
    pub fn turn_times(&self) -> TurnTimes {
        let turns = std::array::from_fn(|n| self.turns[n].value());
        TurnTimes { turns, total: Duration::from_nanos(self.turn_nanos.value()) }
    }

    pub(crate) fn on_open(&self) {
        self.accepted.add(1);
    }

    pub(crate) fn on_close(&self, reason: CloseReason) {
        self.closed[reason as usize].add(1);
    }

    /// Counts a finished turn; `open` connections are left.
    pub(crate) fn on_turn(&self, took: Duration, open: usize) {
        let place = TURN_BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(TURN_BOUNDS.len());
        self.turns[place].add(1);
        // 64 bits of nanoseconds last for centuries.
        self.turn_nanos.add(took.as_nanos() as u64);
        self.open.set(open as u64);
    }

    pub(crate) fn on_beat(&self) {
        *self.heartbeat.lock() = Heartbeat::Given;
    }

    pub(crate) fn on_end(&self) {
        self.open.set(0);
        *self.heartbeat.lock() = Heartbeat::Ended;
    }
}

impl<M> LoopWatch<M> {
    pub(crate) fn new(handle: LoopHandle<M>, stats: Arc<LoopStats>) -> LoopWatch<M> {
        LoopWatch { handle, stats }
    }

    /// The numbers of the loop.
    pub fn stats(&self) -> &LoopStats {
        &self.stats
    }

    /// The number of letters in the loop's inbox.
    pub fn letters(&self) -> usize {
        self.handle.letters()
    }

    /// Requests a heartbeat, unless one is owed. The request takes the same path as all other
    /// letters, so a loop that is stuck, or was not woken, does not answer.
    pub fn ask(&self) {
        let mut heartbeat = self.stats.heartbeat.lock();
        if *heartbeat == Heartbeat::Given {
            *heartbeat = Heartbeat::Asked(Instant::now());
            drop(heartbeat);
            self.handle.post(Letter::Beat);
        }
    }

    /// The time since which the loop has owed a heartbeat. A loop that has ended owes nothing.
    pub fn owes_since(&self) -> Option<Instant> {
        match *self.stats.heartbeat.lock() {
            Heartbeat::Asked(at) => Some(at),
            Heartbeat::Given | Heartbeat::Ended => None,
        }
    }
}

/// The upper bounds of the ranges in which turns are counted.
pub const TURN_BOUNDS: [Duration; 10] = [
    Duration::from_micros(25),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_counted_once_where_it_belongs() {
        let stats = LoopStats::new();
        for (micros, place) in [(0, 0), (25, 0), (26, 1), (1000, 3), (1001, 4), (5_000_000, 9), (5_000_001, 10)] {
            let before = stats.turn_times();
            stats.on_turn(Duration::from_micros(micros), 7);
            let after = stats.turn_times();
            let differing: Vec<usize> = (0..after.turns.len()).filter(|n| after.turns[*n] > before.turns[*n]).collect();
            assert_eq!((differing, after.turns[place] - before.turns[place]), (vec![place], 1), "{micros} µs");
            assert_eq!(after.total - before.total, Duration::from_micros(micros));
        }
        assert_eq!(stats.open(), 7);
        assert!(TURN_BOUNDS.is_sorted());
    }

    #[test]
    fn every_reason_has_a_place_of_its_own() {
        for (place, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
    }
}
