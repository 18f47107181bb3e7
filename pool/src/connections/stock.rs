//! [`Stock`]: the connections of a pool, the calls that wait for one, and the decisions about
//! opening and closing. The stock itself opens and closes none.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::pace::AttemptPace;
use crate::outage::Outage;

/// The limits of a [`ConnectionPool`](crate::ConnectionPool).
#[derive(Clone, Copy, Debug)]
pub struct PoolSizes {
    /// The connections that are opened without a call and stay open, at most `max`.
    pub initial: u32,
    /// The most connections.
    pub max: u32,
    /// The time for which a connection beyond the initial ones may be idle.
    pub idle_timeout: Duration,
    /// The time for which a call may wait while all connections are in use.
    pub wait_timeout: Duration,
    /// The time that a call may wait beyond `wait_timeout` if another connection may be opened.
    pub connect_timeout: Duration,
}

/// See the [module](self).
pub(super) struct Stock<C> {
    /// The idle connections; the most recently used one is the last.
    idle: Vec<IdleConnection<C>>,
    /// The number of connections, including those in use.
    pub(super) open: u32,
    /// The number of running attempts.
    pub(super) opening: u32,
    /// Waiting calls, the oldest first.
    pub(super) waiting: VecDeque<WaitingCall<C>>,
    pub(super) next_ticket: u64,
    /// The current age: connections of an earlier age are not used any more.
    pub(super) age: u64,
    pub(super) pace: AttemptPace,
    /// Whether the database refuses connections.
    pub(super) refusals: Outage,
    /// Connections for the keeper to close, because closing may take a while.
    pub(super) doomed: Vec<C>,
    pub(super) is_closing: bool,
}

/// A connection, and the time at which it was opened.
pub(super) struct Aged<C> {
    pub(super) connection: C,
    pub(super) age: u64,
    pub(super) born: Instant,
}

struct IdleConnection<C> {
    kept: Aged<C>,
    since: Instant,
}

/// A call that waits for a connection.
pub(super) struct WaitingCall<C> {
    pub(super) ticket: u64,
    /// The time after which the call waits no longer if no connection can come.
    pub(super) patient_until: Instant,
    pub(super) place: Sender<Aged<C>>,
}

impl<C> Default for Stock<C> {
    fn default() -> Stock<C> {
        Stock {
            idle: Vec::new(),
            open: 0,
            opening: 0,
            waiting: VecDeque::new(),
            next_ticket: 0,
            age: 0,
            pace: AttemptPace::default(),
            refusals: Outage::default(),
            doomed: Vec::new(),
            is_closing: false,
        }
    }
}

impl<C> Stock<C> {
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether waiting is useless: no connection can be returned, and none is being opened.
    pub(super) fn is_in_vain(&self) -> bool {
        self.open == 0 && self.opening == 0 && self.pace.failures() > 0
    }

    /// The number of idle connections.
    pub(super) fn idle(&self) -> u32 {
        u32::try_from(self.idle.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn take_idle(&mut self) -> Option<Aged<C>> {
        self.idle.pop().map(|idle| idle.kept)
    }

    /// Gives the connection to the call that has waited longest, or back to the pool.
    pub(super) fn hand_on(&mut self, mut kept: Aged<C>) {
        while let Some(waiting) = self.waiting.pop_front() {
            match waiting.place.send(kept) {
                Ok(()) => return,
                Err(gone) => kept = gone.into_inner(),
            }
        }
        self.idle.push(IdleConnection { kept, since: Instant::now() });
    }

    pub(super) fn forget(&mut self, kept: Aged<C>) {
        self.open -= 1;
        self.doomed.push(kept.connection);
    }

    /// Prevents all connections that are open now from being used again.
    pub(super) fn renew(&mut self) {
        self.age += 1;
        for idle in std::mem::take(&mut self.idle) {
            self.forget(idle.kept);
        }
    }

    /// Closes connections that are too old or were idle for too long. Returns the time at which the
    /// next ones must be closed.
    pub(super) fn reap(&mut self, sizes: &PoolSizes, now: Instant) -> Option<Instant> {
        let mut surplus = self.open.saturating_sub(sizes.initial);
        let (mut next, mut stay) = (None, Vec::with_capacity(self.idle.len()));
        // The connection that has been idle longest is the first.
        for idle in std::mem::take(&mut self.idle) {
            let mut end = idle.kept.born + LIFETIME_MAX;
            if surplus > 0 {
                end = end.min(idle.since + sizes.idle_timeout);
            }
            if end <= now {
                surplus = surplus.saturating_sub(1);
                self.forget(idle.kept);
            } else {
                next = next.into_iter().chain([end]).min();
                stay.push(idle);
            }
        }
        self.idle = stay;
        next
    }

    /// The number of connections that the waiting calls and the initial number need beyond those
    /// being opened.
    pub(super) fn wanted(&self, sizes: &PoolSizes) -> u32 {
        let calls = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX).saturating_sub(self.opening);
        let stock = sizes.initial.saturating_sub(self.open + self.opening);
        calls.max(stock).min(sizes.max.saturating_sub(self.open + self.opening))
    }

    /// The number of attempts to begin now.
    pub(super) fn attempts(&self, sizes: &PoolSizes, now: Instant) -> u32 {
        let wanted = self.wanted(sizes);
        if self.pace.failures() == 0 {
            return wanted.min(ATTEMPTS_MAX.saturating_sub(self.opening));
        }
        let is_due = self.pace.due(self.has_waiting()).is_none_or(|at| at <= now);
        if is_due && self.opening == 0 { wanted.min(1) } else { 0 }
    }
}

/// The longest life of a connection. If the database's name leads elsewhere, the old database is
/// left within this time.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 60);

/// The most attempts that run at the same time.
const ATTEMPTS_MAX: u32 = 8;
