//! [`Accounts`]: notices that the account of a connected user was changed or deleted in the
//! database, as operators do after a theft, and logs the user out.
//!
//! A login notes the [`Stamp`] of the stored password. A thread compares these stamps with the
//! table, many users in one statement: soon after a login that was answered from memory, and for
//! all connected users in turn. A user whose row differs twice in a row, or is gone, is logged out
//! from all connections of this node; each node does so for its own users. While the database is
//! unavailable, no user is logged out.
//!
//! The cost for the database is bounded: a statement of at most [`BATCH`] primary keys every
//! [`PAUSE`], so 5,120 rows per second, and all users no more often than the configured interval.
//! So N users are compared within the larger of the interval and N / 5,120 seconds, and logged out
//! [`PAUSE`] later.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use net::Turn;
use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashMap;

use crate::delivery::Posted;
use crate::protocol::UserId;
use crate::routing::router::Router;
use crate::server::jobs::Jobs;
use crate::session::password::Stamp;
use crate::store::StoreError;

/// The stamps of users who are or recently were connected. Shared by all threads.
pub struct Accounts {
    /// Leaf locks.
    shards: Box<[Mutex<FxHashMap<UserId, Entry>>]>,
    /// Users who were logged in from memory, to be compared soon. A leaf lock.
    queue: Mutex<Queue>,
    news: Condvar,
    /// Logs users out, once it is set.
    router: OnceLock<Weak<Router>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    stamp: Stamp,
    /// The number of the latest rounds in which the user was on no connection.
    absent: u8,
    /// This node upgrades the stored password, and another node may do so first: until this time a
    /// difference is not a change of the account.
    upgrading_until: Option<Instant>,
}

impl Entry {
    fn new(stamp: Stamp) -> Entry {
        Entry { stamp, absent: 0, upgrading_until: None }
    }
}

#[derive(Debug, Default)]
struct Queue {
    remembered: Vec<UserId>,
    stopping: bool,
}

impl Accounts {
    /// No users.
    pub fn new() -> Accounts {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Accounts { shards, queue: Mutex::default(), news: Condvar::new(), router: OnceLock::new() }
    }

    /// The password of `user` was checked against the stored value with this stamp, and is right.
    /// If the stamp differs from the one before, the account was changed, and connections of this
    /// user used the old password: they are logged out.
    pub fn verified(&self, user: UserId, stamp: Stamp) {
        let before = self.shard(user).lock().insert(user, Entry::new(stamp));
        if before.is_some_and(|before| before.stamp != stamp) {
            self.log_out(user);
        }
    }

    /// `user` was logged in from memory, where the stored value had this stamp; it is compared
    /// soon. Never blocks.
    pub fn remembered(&self, user: UserId, stamp: Stamp) {
        self.shard(user).lock().entry(user).or_insert(Entry::new(stamp)).absent = 0;
        let mut queue = self.queue.lock();
        // Beyond that number, the rounds over all users find them.
        if queue.remembered.len() < REMEMBERED_MAX {
            queue.remembered.push(user);
            if queue.remembered.len() == 1 {
                self.news.notify_one();
            }
        }
    }

    /// The stored value of `user` was replaced by one for which the same password is right.
    pub fn restamp(&self, user: UserId, from: Stamp, to: Stamp) {
        if let Some(entry) = self.shard(user).lock().get_mut(&user).filter(|entry| entry.stamp == from) {
            entry.stamp = to;
        }
    }

    /// This node is about to replace the plain-text password of `user`: the user is not compared
    /// before [`Accounts::upgraded`], but until this time at most.
    pub fn upgrading(&self, user: UserId, until: Instant) {
        if let Some(entry) = self.shard(user).lock().get_mut(&user) {
            entry.upgrading_until = Some(until);
        }
    }

    /// The upgrade is over, with any result.
    pub fn upgraded(&self, user: UserId) {
        if let Some(entry) = self.shard(user).lock().get_mut(&user) {
            entry.upgrading_until = None;
        }
    }

    fn shard(&self, user: UserId) -> &Mutex<FxHashMap<UserId, Entry>> {
        &self.shards[user.0 as usize % SHARDS]
    }

    /// The stamp that the row must have at this time, if it is known.
    fn stamp(&self, user: UserId, now: Instant) -> Option<Stamp> {
        let shard = self.shard(user).lock();
        shard.get(&user).filter(|entry| entry.upgrading_until.is_none_or(|until| until <= now)).map(|entry| entry.stamp)
    }

    fn router(&self) -> Option<Arc<Router>> {
        self.router.get().and_then(Weak::upgrade)
    }

    /// Logs the user out of all connections of this node, which are notified.
    fn log_out(&self, user: UserId) -> usize {
        let Some(router) = self.router() else { return 0 };
        let links = router.log_out(&mut Turn::new(), user, None);
        for link in &links {
            link.post(Posted::AccountChanged(user));
        }
        links.len()
    }

    /// The connected users of a shard. Users without a connection for long are dropped.
    fn connected(&self, nth: usize) -> Vec<UserId> {
        let Some(router) = self.router() else { return Vec::new() };
        let users: Vec<UserId> = self.shards[nth].lock().keys().copied().collect();
        let (connected, absent): (Vec<_>, Vec<_>) = users.into_iter().partition(|user| router.has(*user));
        let mut shard = self.shards[nth].lock();
        for user in &connected {
            if let Some(entry) = shard.get_mut(user) {
                entry.absent = 0;
            }
        }
        for user in absent {
            let Some(entry) = shard.get_mut(&user) else { continue };
            entry.absent += 1;
            // A login may still be on its way.
            if entry.absent == FORGOTTEN_AFTER {
                shard.remove(&user);
            }
        }
        connected
    }
}

impl Default for Accounts {
    fn default() -> Accounts {
        Accounts::new()
    }
}

/// The thread that compares, named `accounts`.
pub struct Checker {
    jobs: Arc<Jobs>,
    thread: JoinHandle<()>,
}

impl Checker {
    /// Starts it: all users are compared every `interval`, zero for never.
    ///
    /// # Errors
    ///
    /// If the system cannot start a thread.
    pub fn start(jobs: Arc<Jobs>, router: &Arc<Router>, interval: Duration) -> io::Result<Checker> {
        let _ = jobs.logins.accounts.router.set(Arc::downgrade(router));
        let comparing = jobs.clone();
        let run = move || Comparison::new(interval, Instant::now()).run(&comparing);
        let thread = thread::Builder::new().name("accounts".into()).spawn(run)?;
        Ok(Checker { jobs, thread })
    }

    /// Ends it; does not wait for a database beyond `by`.
    pub fn close(self, by: Instant) {
        self.jobs.logins.accounts.queue.lock().stopping = true;
        self.jobs.logins.accounts.news.notify_one();
        pool::join_until(self.thread, by);
    }
}

/// The users to be compared next.
#[derive(Debug)]
struct Comparison {
    interval: Duration,
    /// When the next round over all users begins.
    next: Instant,
    /// The next shard of this round, and the remaining users of the one before.
    shard: usize,
    left: Vec<UserId>,
    /// Users whose row differed a moment ago. This node may have replaced the row and not noted
    /// that yet.
    suspects: Vec<UserId>,
}

impl Comparison {
    fn new(interval: Duration, now: Instant) -> Comparison {
        Comparison { interval, next: now + interval, shard: SHARDS, left: Vec::new(), suspects: Vec::new() }
    }

    fn run(mut self, jobs: &Jobs) {
        let mut pause = PAUSE;
        loop {
            let mut queue = jobs.logins.accounts.queue.lock();
            if !queue.stopping && self.is_idle() && queue.remembered.is_empty() {
                match self.interval.is_zero() {
                    true => jobs.logins.accounts.news.wait(&mut queue),
                    false => drop(jobs.logins.accounts.news.wait_until(&mut queue, self.next)),
                }
            }
            if !queue.stopping {
                // Users who log in meanwhile share the statement.
                jobs.logins.accounts.news.wait_for(&mut queue, pause);
            }
            if queue.stopping {
                return;
            }
            if self.interval.is_zero() {
                queue.remembered.clear();
                continue;
            }
            let soon = queue.remembered.len().min(BATCH / 2);
            let remembered = queue.remembered.drain(..soon).collect();
            drop(queue);
            // Without this thread no change would be noticed any more.
            let step = || self.step(jobs, remembered, Instant::now());
            let compared = catch_unwind(AssertUnwindSafe(step))
                .unwrap_or_else(|_| Err(StoreError::Failed("the driver panicked".into())));
            jobs.services.outages.note("comparing accounts", compared.as_ref().err());
            pause = if compared.is_ok() { PAUSE } else { RETRY_AFTER };
        }
    }

    fn is_idle(&self) -> bool {
        self.shard == SHARDS && self.left.is_empty() && self.suspects.is_empty()
    }

    /// Compares the users of one statement: those logged in from memory, those who differed, and
    /// some of all users.
    fn step(&mut self, jobs: &Jobs, remembered: Vec<UserId>, now: Instant) -> Result<(), StoreError> {
        if self.shard == SHARDS && self.left.is_empty() && self.next <= now {
            (self.shard, self.next) = (0, now + self.interval);
        }
        let suspects = std::mem::take(&mut self.suspects);
        let mut batch = [suspects.clone(), remembered].concat();
        while batch.len() < BATCH {
            if let Some(user) = self.left.pop() {
                batch.push(user);
            } else if self.shard < SHARDS {
                self.left = jobs.logins.accounts.connected(self.shard);
                self.shard += 1;
            } else {
                break;
            }
        }
        let changed = match changed(jobs, batch) {
            Ok(changed) => changed,
            Err(error) => {
                self.suspects = suspects;
                return Err(error);
            }
        };
        let (again, first): (Vec<_>, Vec<_>) = changed.into_iter().partition(|user| suspects.contains(user));
        self.suspects = first;
        let ended: usize = again.iter().map(|user| end(jobs, *user)).sum();
        if let Some(user) = again.first().filter(|_| ended > 0) {
            log::warn!(
                "{ended} connections of {} users, {user} among them, are logged out: their accounts were changed or deleted in \
                 the database",
                again.len()
            );
        }
        Ok(())
    }
}

/// Returns the users whose row is gone or differs from the one against which their password was
/// checked.
fn changed(jobs: &Jobs, mut users: Vec<UserId>) -> Result<Vec<UserId>, StoreError> {
    users.sort_unstable();
    users.dedup();
    if users.is_empty() {
        return Ok(users);
    }
    let stored: FxHashMap<UserId, String> =
        jobs.services.store.accounts.get()?.credentials(&users)?.into_iter().collect();
    jobs.services.metrics.accounts_compared(users.len());
    let now = Instant::now();
    users.retain(|user| {
        let found = stored.get(user).map(|stored| jobs.logins.passwords.stamp(stored));
        jobs.logins.accounts.stamp(*user, now).is_some_and(|noted| found != Some(noted))
    });
    Ok(users)
}

/// Logs out a user whose account has changed. Returns the number of connections.
fn end(jobs: &Jobs, user: UserId) -> usize {
    jobs.logins.passwords.forget(user);
    let ended = jobs.logins.accounts.log_out(user);
    jobs.services.metrics.logged_out(ended);
    ended
}

/// The users of one statement, and the pause until the next.
const BATCH: usize = 512;
const PAUSE: Duration = Duration::from_millis(100);
/// The pause after a failed statement.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The most users logged in from memory that wait to be compared. 400 kB.
const REMEMBERED_MAX: usize = 100_000;
/// After this number of rounds, a user without a connection is dropped. A login may take a while,
/// because other nodes must know of it first.
const FORGOTTEN_AFTER: u8 = 12;
/// Enough for two loops rarely to need the same one, and for each to be small.
const SHARDS: usize = 64;
