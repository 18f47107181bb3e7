//! [`Checker`]: notices that the account of a connected user was changed or deleted in the
//! database, as operators do after a theft, and logs the user out.
//!
//! A login notes the stamp of the stored password ([`AccountStamps`]). A thread compares these
//! stamps with the table, many users in one statement: soon after a login that was answered from
//! memory, and for all connected users in turn. A user whose row differs twice in a row, or is
//! gone, is logged out from all connections of this node; each node does so for its own users.
//! While the database is unavailable, no user is logged out.
//!
//! The cost for the database is bounded: a statement of at most [`BATCH`] primary keys every
//! [`PAUSE`], so 5,120 rows per second, and all users no more often than the configured interval.
//! So N users are compared within the larger of the interval and N / 5,120 seconds, and logged out
//! [`PAUSE`] later.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::stamps::{AccountStamps, SHARDS};
use crate::metrics::Metrics;
use crate::protocol::UserId;
use crate::session::password::Passwords;
use crate::store::outages::Outages;
use crate::store::{Accounts, Role, StoreError};

/// The thread that compares, named `accounts`.
pub struct Checker {
    stamps: Arc<AccountStamps>,
    thread: JoinHandle<()>,
}

/// The parts that comparing needs.
pub(super) struct CheckerParts {
    /// The accounts as they are stored.
    pub(super) store: Role<dyn Accounts>,
    /// The stamp against which each connected user was checked.
    pub(super) stamps: Arc<AccountStamps>,
    /// Makes the stamps, and forgets the password of a changed account.
    pub(super) passwords: Arc<Passwords>,
    /// The failing kinds of calls.
    pub(super) outages: Arc<Outages>,
    /// The counters.
    pub(super) metrics: Arc<Metrics>,
}

impl Checker {
    /// Starts the thread. It compares all users every `interval`; zero means never.
    ///
    /// # Errors
    ///
    /// If the system cannot start a thread.
    pub(super) fn start(parts: CheckerParts, interval: Duration) -> io::Result<Checker> {
        let stamps = parts.stamps.clone();
        let run = move || Comparison::new(parts, interval, Instant::now()).run();
        let thread = thread::Builder::new().name("accounts".into()).spawn(run)?;
        Ok(Checker { stamps, thread })
    }

    /// Ends the thread. Waits for a database until `by` at most.
    pub fn close(self, by: Instant) {
        self.stamps.stop();
        pool::join_until(self.thread, by);
    }
}

/// The users to be compared next.
struct Comparison {
    parts: CheckerParts,
    interval: Duration,
    /// The time of the next round over all users.
    next: Instant,
    /// The next shard of this round, and the remaining users of the previous one.
    shard: usize,
    left: Vec<UserId>,
    /// Users whose row differed at the last comparison. This node may have replaced the row and not
    /// noted that yet.
    suspects: Vec<UserId>,
}

impl Comparison {
    fn new(parts: CheckerParts, interval: Duration, now: Instant) -> Comparison {
        Comparison { parts, interval, next: now + interval, shard: SHARDS, left: Vec::new(), suspects: Vec::new() }
    }

    fn run(mut self) {
        let mut pause = PAUSE;
        loop {
            let compares = !self.interval.is_zero();
            if self.is_idle() {
                self.parts.stamps.wait(compares.then_some(self.next));
            }
            let soon = if compares { BATCH / 2 } else { usize::MAX };
            let Some(remembered) = self.parts.stamps.take_remembered(pause, soon) else { return };
            if !compares {
                continue;
            }
            // Without this thread no change would be noticed any more.
            let step = || self.step(remembered, Instant::now());
            let compared = catch_unwind(AssertUnwindSafe(step))
                .unwrap_or_else(|_| Err(StoreError::Failed("the driver panicked".into())));
            self.parts.outages.note("comparing accounts", compared.as_ref().err());
            pause = if compared.is_ok() { PAUSE } else { RETRY_AFTER };
        }
    }

    fn is_idle(&self) -> bool {
        self.shard == SHARDS && self.left.is_empty() && self.suspects.is_empty()
    }

    /// Compares the users of one statement: users logged in from memory, users whose row differed,
    /// and some of all users.
    fn step(&mut self, remembered: Vec<UserId>, now: Instant) -> Result<(), StoreError> {
        if self.shard == SHARDS && self.left.is_empty() && self.next <= now {
            (self.shard, self.next) = (0, now + self.interval);
        }
        let suspects = std::mem::take(&mut self.suspects);
        let mut batch = [suspects.clone(), remembered].concat();
        while batch.len() < BATCH {
            if let Some(user) = self.left.pop() {
                batch.push(user);
            } else if self.shard < SHARDS {
                self.left = self.parts.stamps.connected(self.shard);
                self.shard += 1;
            } else {
                break;
            }
        }
        let changed = match self.changed(batch) {
            Ok(changed) => changed,
            Err(error) => {
                self.suspects = suspects;
                return Err(error);
            }
        };
        let (again, first): (Vec<_>, Vec<_>) = changed.into_iter().partition(|user| suspects.contains(user));
        self.suspects = first;
        let ended: usize = again.iter().map(|user| self.end(*user)).sum();
        if let Some(user) = again.first().filter(|_| ended > 0) {
            log::warn!(
                "{ended} connections of {} users, {user} among them, are logged out: their accounts were changed or deleted in \
                 the database",
                again.len()
            );
        }
        Ok(())
    }

    /// Returns the users whose row is gone or differs from the one against which their password was
    /// checked.
    fn changed(&self, mut users: Vec<UserId>) -> Result<Vec<UserId>, StoreError> {
        let CheckerParts { store, stamps, passwords, metrics, .. } = &self.parts;
        users.sort_unstable();
        users.dedup();
        if users.is_empty() {
            return Ok(users);
        }
        let stored: FxHashMap<UserId, String> = store.get()?.credentials(&users)?.into_iter().collect();
        metrics.accounts_compared(users.len());
        let now = Instant::now();
        users.retain(|user| {
            let found = stored.get(user).map(|stored| passwords.stamp(stored));
            stamps.stamp(*user, now).is_some_and(|noted| found != Some(noted))
        });
        Ok(users)
    }

    /// Logs out a user whose account has changed. Returns the number of connections.
    fn end(&self, user: UserId) -> usize {
        self.parts.passwords.forget(user);
        let ended = self.parts.stamps.log_out(user);
        self.parts.metrics.logged_out(ended);
        ended
    }
}

/// The users of one statement, and the pause until the next.
const BATCH: usize = 512;
const PAUSE: Duration = Duration::from_millis(100);
/// The pause after a failed statement.
const RETRY_AFTER: Duration = Duration::from_secs(1);
