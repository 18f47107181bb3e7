//! [`Sweeper`]: finds what a node was not told. The bus may lose a message, and a node may die between
//! its commit and its word to the others. So every node asks the database from time to time which
//! conversations have grown, and whether the logins of its devices are still the last ones.
//!
//! # Cost
//! Every [`SWEEP_EVERY`], per node: one query by an index for conversations that grew since the last
//! sweep and [`SWEPT`] before it, and one by primary key for each [`LOGINS_AT_ONCE`] devices that are connected. A node that is
//! alone hears of everything and only reads at its start who uses level 2.

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

/// Says when the next sweep is due.
#[derive(Debug, Default)]
pub(super) struct SweepBell {
    state: Mutex<BellState>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct BellState {
    /// Something may have been missed.
    rings: bool,
    stopping: bool,
}

impl Sweeper {
    /// Starts it.
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

    /// Ends it; does not wait for a database beyond `by`.
    pub(super) fn close(self, by: Instant) {
        self.bell.state.lock().stopping = true;
        self.bell.news.notify_one();
        pool::join_until(self.thread, by);
    }
}

/// What the thread knows from one turn to the next.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    knows_audience: bool,
    count: u32,
    /// When the last sweep began that has succeeded.
    swept: Option<Instant>,
}

impl Sweeps {
    /// Sweeps, and returns the pause until the next turn. Blocks.
    pub(super) fn turn(&mut self, conversations: &Conversations) -> Duration {
        // Another node's word that somebody uses level 2 may have been lost.
        self.count = self.count.wrapping_add(1);
        self.knows_audience &= !self.count.is_multiple_of(AUDIENCE_EVERY);
        let begun = conversations.now();
        // Messages of other nodes may have been missed since then, while the database did not answer here.
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

    /// Something may have been missed, such as that somebody uses level 2 now.
    pub(super) fn rang(&mut self) {
        self.knows_audience = false;
    }
}

impl SweepBell {
    /// Something may have been missed: sweeps now. Never blocks.
    pub(super) fn ring(&self) {
        self.state.lock().rings = true;
        self.news.notify_one();
    }

    /// Whether it was rung since this was asked last.
    #[cfg(test)]
    pub(super) fn take_ring(&self) -> bool {
        std::mem::take(&mut self.state.lock().rings)
    }

    /// Waits for at most this time. Returns whether something may have been missed, and whether the
    /// thread is to end.
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
/// The same of a node that is alone: it has read all it needs.
const ALONE: Duration = Duration::from_hours(24);
/// The number of sweeps after which it is read again who uses level 2.
const AUDIENCE_EVERY: u32 = 3;
/// The number of sweeps after which the devices of this node are written as seen: an hour.
const SEEN_EVERY: u32 = 360;
/// How far back a sweep looks, beyond the beginning of the last one that has succeeded: further than a
/// commit takes until it is seen.
const SWEPT: Duration = Duration::from_secs(60);
/// The pause after a sweep that has failed.
const RETRY_AFTER: Duration = Duration::from_secs(2);
