//! [`Accounts`]: notices that the account of a connected user was changed or deleted in the database, as operators do after a
//! theft, and has the user logged out.
//!
//! A login notes the [`Stamp`] of what is stored. A thread compares these stamps with the table, many users in one statement:
//! soon after a login that was answered from memory, and of everybody who is connected, in turn. A user whose row differs
//! twice, a moment apart, or is gone, is logged out from all connections of this node; each node does so for its own users.
//! While the database is away, nobody is.
//!
//! What it costs the database is bounded: a statement of at most [`BATCH`] primary keys every [`PAUSE`], hence 5,120 rows a second,
//! and all users no more often than the configured interval. So N users are looked at within the larger of the interval and
//! N / 5,120 seconds, and logged out [`PAUSE`] later.

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

/// The stamps of those who are connected, or were lately. Shared by all threads.
pub struct Accounts {
    /// Leaf locks.
    shards: Box<[Mutex<FxHashMap<UserId, Entry>>]>,
    /// Users who were logged in from memory, to be looked at soon. A leaf lock.
    queue: Mutex<Queue>,
    news: Condvar,
    /// Logs out, as soon as there is one.
    router: OnceLock<Weak<Router>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    stamp: Stamp,
    /// In how many looks at everybody, the latest, the user was on no connection.
    absent: u8,
    /// This node replaces what is stored, and another one may be faster: until then a difference is no change of the account.
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
    /// Nobody is known.
    pub fn new() -> Accounts {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Accounts { shards, queue: Mutex::default(), news: Condvar::new(), router: OnceLock::new() }
    }

    /// The password of `user` was checked against what has this stamp, and is right. If it was another one before, the
    /// account was changed, and whoever is connected as this user used the old password: they are logged out.
    pub fn verified(&self, user: UserId, stamp: Stamp) {
        let before = self.shard(user).lock().insert(user, Entry::new(stamp));
        if before.is_some_and(|before| before.stamp != stamp) {
            self.log_out(user);
        }
    }

    /// `user` was logged in from memory. What is stored had this stamp then, which is looked at soon. Never blocks.
    pub fn remembered(&self, user: UserId, stamp: Stamp) {
        self.shard(user).lock().entry(user).or_insert(Entry::new(stamp)).absent = 0;
        let mut queue = self.queue.lock();
        // Beyond that, the look at everybody finds them.
        if queue.remembered.len() < REMEMBERED_MAX {
            queue.remembered.push(user);
            if queue.remembered.len() == 1 {
                self.news.notify_one();
            }
        }
    }

    /// What is stored for `user` was replaced by something for which the same password is right.
    pub fn restamp(&self, user: UserId, from: Stamp, to: Stamp) {
        if let Some(entry) = self.shard(user).lock().get_mut(&user).filter(|entry| entry.stamp == from) {
            entry.stamp = to;
        }
    }

    /// What is stored for `user`, plain text, is about to be replaced by this node: it is not looked at before [`Accounts::upgraded`],
    /// but for no longer than until then.
    pub fn upgrading(&self, user: UserId, until: Instant) {
        if let Some(entry) = self.shard(user).lock().get_mut(&user) {
            entry.upgrading_until = Some(until);
        }
    }

    /// That is over, however it went.
    pub fn upgraded(&self, user: UserId) {
        if let Some(entry) = self.shard(user).lock().get_mut(&user) {
            entry.upgrading_until = None;
        }
    }

    fn shard(&self, user: UserId) -> &Mutex<FxHashMap<UserId, Entry>> {
        &self.shards[user.0 as usize % SHARDS]
    }

    /// The stamp that the row must have at this time, if that is known.
    fn stamp(&self, user: UserId, now: Instant) -> Option<Stamp> {
        let shard = self.shard(user).lock();
        shard.get(&user).filter(|entry| entry.upgrading_until.is_none_or(|until| until <= now)).map(|entry| entry.stamp)
    }

    fn router(&self) -> Option<Arc<Router>> {
        self.router.get().and_then(Weak::upgrade)
    }

    /// Takes the user from all connections of this node, which are told.
    fn log_out(&self, user: UserId) -> usize {
        let Some(router) = self.router() else { return 0 };
        let links = router.log_out(&mut Turn::new(), user, None);
        for link in &links {
            link.post(Posted::AccountChanged(user));
        }
        links.len()
    }

    /// The users of a shard who are on a connection. Those who have been on none for long are forgotten.
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
    /// Starts it: everybody is looked at every `interval`, zero for nobody ever.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(jobs: Arc<Jobs>, router: &Arc<Router>, interval: Duration) -> io::Result<Checker> {
        let _ = jobs.logins.accounts.router.set(Arc::downgrade(router));
        let comparing = jobs.clone();
        let run = move || Comparison::new(interval, Instant::now()).run(&comparing);
        let thread = thread::Builder::new().name("accounts".into()).spawn(run)?;
        Ok(Checker { jobs, thread })
    }

    /// Ends it, and does not wait for a database beyond `by`.
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
    /// When the next look at everybody begins.
    next: Instant,
    /// The next shard of this look, and who is left of the one before.
    shard: usize,
    left: Vec<UserId>,
    /// Users whose row differed a moment ago. This node may have replaced the row and not noted that yet.
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
                // Those who log in meanwhile share the statement.
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
            // Without this thread nobody would notice a change any more.
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

    /// One statement: those who were logged in from memory, those who differed, and some of everybody.
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

/// Those of these users whose row is not what it was when their password was checked, or is gone.
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

/// Logs out a user whose account has changed; from how many connections.
fn end(jobs: &Jobs, user: UserId) -> usize {
    jobs.logins.passwords.forget(user);
    let ended = jobs.logins.accounts.log_out(user);
    jobs.services.metrics.logged_out(ended);
    ended
}

/// Users that one statement asks for, and how long after one the next may follow.
const BATCH: usize = 512;
const PAUSE: Duration = Duration::from_millis(100);
/// The same after one that has failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Users who were logged in from memory and wait for their look. 400 kB.
const REMEMBERED_MAX: usize = 100_000;
/// After how many looks at everybody a user who is on no connection is forgotten. A login may be on its way for a while: other
/// nodes have to know of it first.
const FORGOTTEN_AFTER: u8 = 12;
/// Enough that two loops seldom want the same, and that one is small.
const SHARDS: usize = 64;
