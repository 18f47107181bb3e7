//! [`Sweeper`]: finds news that a node has missed. The bus may lose a message, and a node may die
//! between a commit and its announcement. So every node queries the database from time to time for
//! conversations that have grown, and checks whether the logins of its devices are still the last
//! ones.
//!
//! # Cost
//! Every [`SWEEP_EVERY`], per node: one query by an index for conversations that grew since the
//! last sweep and [`SWEPT`] before it, and one by primary key for each `LOGINS_AT_ONCE` connected
//! devices. Members of groups that are not cached are not loaded: if such groups have grown, one
//! query for each 512 users who are here finds those who are in them. A node that is alone misses
//! nothing, and only reads at its start which users use level 2.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::jobs::{Conversations, SeenDevices};

/// The thread that sweeps, named `sweeper`.
pub(super) struct Sweeper {
    bell: Arc<SweepBell>,
    thread: JoinHandle<()>,
}

/// Tells the thread when the next sweep is due.
#[derive(Debug, Default)]
pub(super) struct SweepBell {
    state: Mutex<BellState>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct BellState {
    /// Whether something may have been missed.
    rings: bool,
    stopping: bool,
}

impl Sweeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub(super) fn start(conversations: Arc<Conversations>, bell: Arc<SweepBell>) -> io::Result<Sweeper> {
        let heard = bell.clone();
        let run = move || {
            let mut sweeps = Sweeps::default();
            loop {
                let pause = sweeps.turn(&conversations);
                let (rings, stops) = heard.wait(pause);
                if stops {
                    return;
                }
                if rings {
                    sweeps.rang();
                }
            }
        };
        let thread = thread::Builder::new().name("sweeper".into()).spawn(run)?;
        Ok(Sweeper { bell, thread })
    }

    /// Ends the thread. Waits for a database until `by` at most.
    pub(super) fn close(self, by: Instant) {
        self.bell.state.lock().stopping = true;
        self.bell.news.notify_one();
        pool::join_until(self.thread, by);
    }
}

/// The state of the thread between two turns.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    knows_audience: bool,
    count: u32,
    /// The time at which the last successful sweep began.
    swept: Option<Instant>,
}

impl Sweeps {
    /// Sweeps, and returns the pause until the next turn. Blocks.
    pub(super) fn turn(&mut self, conversations: &Conversations) -> Duration {
        // Another node's news that a user uses level 2 may have been lost.
        self.count = self.count.wrapping_add(1);
        self.knows_audience &= !self.count.is_multiple_of(AUDIENCE_EVERY);
        let begun = conversations.now();
        // While the database did not answer here, messages of other nodes may have been missed.
        let missed = self.swept.map_or(Duration::ZERO, |swept| begun.saturating_duration_since(swept));
        let sees = if self.count.is_multiple_of(SEEN_EVERY) { SeenDevices::Written } else { SeenDevices::Known };
        // Without this thread nobody would notice what the bus loses.
        let swept = catch_unwind(AssertUnwindSafe(|| {
            self.knows_audience = self.knows_audience || conversations.read_audience();
            self.knows_audience && conversations.sweep(SWEPT + missed, sees)
        }));
        let swept = swept.unwrap_or(false);
        if swept {
            self.swept = Some(begun);
        }
        match swept {
            false => RETRY_AFTER,
            true if conversations.is_alone() => ALONE,
            true => SWEEP_EVERY,
        }
    }

    /// Notes that something may have been missed, such as a new user of level 2.
    pub(super) fn rang(&mut self) {
        self.knows_audience = false;
    }
}

impl SweepBell {
    /// Makes the thread sweep now, because something may have been missed. Never blocks.
    pub(super) fn ring(&self) {
        self.state.lock().rings = true;
        self.news.notify_one();
    }

    /// Whether the bell was rung since the last call.
    #[cfg(test)]
    pub(super) fn take_ring(&self) -> bool {
        std::mem::take(&mut self.state.lock().rings)
    }

    /// Waits for at most this time. Returns whether something may have been missed, and whether the
    /// thread must end.
    fn wait(&self, pause: Duration) -> (bool, bool) {
        let by = Instant::now() + pause;
        let mut state = self.state.lock();
        while !state.stopping && !state.rings {
            if self.news.wait_until(&mut state, by).timed_out() {
                break;
            }
        }
        (std::mem::take(&mut state.rings), state.stopping)
    }
}

/// The pause between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// The pause on a node that is alone, which has read all it needs.
const ALONE: Duration = Duration::from_hours(24);
/// The number of sweeps after which the users of level 2 are read again.
const AUDIENCE_EVERY: u32 = 3;
/// The number of sweeps, about an hour, after which this node's devices are noted as seen.
const SEEN_EVERY: u32 = 360;
/// The time that a sweep looks back beyond the beginning of the last successful one: longer than it
/// takes for a commit to become visible.
const SWEPT: Duration = Duration::from_secs(60);
/// The pause after a failed sweep.
const RETRY_AFTER: Duration = Duration::from_secs(2);
