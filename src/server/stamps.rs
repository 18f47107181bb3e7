//! [`AccountStamps`]: the stamp of the stored password against which each connected user was last
//! checked.
//!
//! A login notes the [`Stamp`] of the stored password; the thread of [`accounts`](super::accounts)
//! compares these stamps with the table.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use net::Turn;
use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::base::clock::Clock;
use crate::delivery::{ClientLink, Posted};
use crate::devices::tasks::MemberNews;
use crate::protocol::UserId;
use crate::protocol::level2::replies::Reason;
use crate::routing::router::Router;
use crate::session::password::Stamp;

/// The stamps of users who are or recently were connected. Shared by all threads.
pub struct AccountStamps {
    clock: Clock,
    /// Leaf locks.
    shards: Box<[Mutex<FxHashMap<UserId, Entry>>]>,
    /// Users who were logged in from memory, to be compared soon. A leaf lock.
    remembered: Mutex<RememberedUsers>,
    news: Condvar,
    /// Logs users out, once it is set.
    router: OnceLock<Weak<Router>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    stamp: Stamp,
    /// The number of consecutive rounds, up to the last, in which the user was on no connection.
    absent: u8,
    /// The time until which a difference does not count as a change of the account: this node
    /// upgrades the stored password, and another node may do so first.
    upgrading_until: Option<Instant>,
}

impl Entry {
    fn new(stamp: Stamp) -> Entry {
        Entry { stamp, absent: 0, upgrading_until: None }
    }
}

#[derive(Debug, Default)]
struct RememberedUsers {
    users: Vec<UserId>,
    stopping: bool,
}

impl AccountStamps {
    /// A table without users.
    pub fn new(clock: Clock) -> AccountStamps {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        AccountStamps { clock, shards, remembered: Mutex::default(), news: Condvar::new(), router: OnceLock::new() }
    }

    /// Notes that the password of `user` was right for the stored value with this stamp. If the
    /// stamp differs from the previous one, the account was changed, and connections of this user
    /// that used the old password are logged out.
    pub fn verified(&self, user: UserId, stamp: Stamp) {
        let before = self.shard(user).lock().insert(user, Entry::new(stamp));
        if before.is_some_and(|before| before.stamp != stamp) {
            self.log_out(user);
        }
    }

    /// Whether another stamp is known of `user`, so that the account may have been changed.
    pub fn differs(&self, user: UserId, stamp: Stamp) -> bool {
        let shard = self.shard(user).lock();
        shard.get(&user).is_some_and(|entry| entry.stamp != stamp && entry.upgrading_until.is_none())
    }

    /// Notes that the stored value of `user` was replaced by one with this stamp, and logs out the
    /// connections of this node.
    pub fn replaced(&self, user: UserId, stamp: Stamp) {
        // A device that logs in after this is not ended.
        let devices = self.devices(user);
        let before = self.shard(user).lock().insert(user, Entry::new(stamp));
        if before.is_none_or(|before| before.stamp != stamp) {
            self.end(user, devices);
        }
    }

    /// Notes that `user` was logged in from memory, where the stored value had this stamp. The user
    /// is compared soon. Never blocks.
    pub fn remembered(&self, user: UserId, stamp: Stamp) {
        self.shard(user).lock().entry(user).or_insert(Entry::new(stamp)).absent = 0;
        let mut remembered = self.remembered.lock();
        // Beyond this number, the rounds over all users find them.
        if remembered.users.len() < REMEMBERED_MAX {
            remembered.users.push(user);
            if remembered.users.len() == 1 {
                self.news.notify_one();
            }
        }
    }

    /// Notes that the client on `by` has changed the password of `user`: the stored value now has
    /// this stamp. All other connections of this node are logged out.
    pub fn changed(&self, user: UserId, stamp: Stamp, by: &Arc<ClientLink>) {
        self.shard(user).lock().insert(user, Entry::new(stamp));
        let Some(router) = self.router() else { return };
        for link in router.attendance().log_out_others(&mut Turn::at(self.clock.now()), user, by) {
            link.post(Posted::AccountChanged(user));
        }
    }

    /// Notes that the stored value of `user` was replaced by another one of the same password.
    pub fn restamp(&self, user: UserId, from: Stamp, to: Stamp) {
        if let Some(entry) = self.shard(user).lock().get_mut(&user).filter(|entry| entry.stamp == from) {
            entry.stamp = to;
        }
    }

    /// Notes that this node is about to replace the plain-text password of `user`. The user is not
    /// compared before [`AccountStamps::upgraded`], but until this time at most.
    pub fn upgrading(&self, user: UserId, until: Instant) {
        if let Some(entry) = self.shard(user).lock().get_mut(&user) {
            entry.upgrading_until = Some(until);
        }
    }

    /// Notes that the upgrade is over, with any result.
    pub fn upgraded(&self, user: UserId) {
        if let Some(entry) = self.shard(user).lock().get_mut(&user) {
            entry.upgrading_until = None;
        }
    }

    /// Enables logging users out.
    pub(super) fn attach(&self, router: &Arc<Router>) {
        let _ = self.router.set(Arc::downgrade(router));
    }

    /// Waits until a user is logged in from memory, or until `until` if that is given.
    pub(super) fn wait(&self, until: Option<Instant>) {
        let mut remembered = self.remembered.lock();
        if remembered.stopping || !remembered.users.is_empty() {
            return;
        }
        match until {
            None => self.news.wait(&mut remembered),
            Some(until) => drop(self.news.wait_until(&mut remembered, until)),
        }
    }

    /// Takes up to `max` users who were logged in from memory. Waits for `pause` first, so that
    /// users who log in meanwhile share the statement. `None` after [`AccountStamps::stop`].
    pub(super) fn take_remembered(&self, pause: Duration, max: usize) -> Option<Vec<UserId>> {
        let mut remembered = self.remembered.lock();
        if !remembered.stopping {
            self.news.wait_for(&mut remembered, pause);
        }
        let count = remembered.users.len().min(max);
        (!remembered.stopping).then(|| remembered.users.drain(..count).collect())
    }

    /// Wakes the comparing thread, which then ends.
    pub(super) fn stop(&self) {
        self.remembered.lock().stopping = true;
        self.news.notify_one();
    }

    fn shard(&self, user: UserId) -> &Mutex<FxHashMap<UserId, Entry>> {
        &self.shards[user.0 as usize % SHARDS]
    }

    /// The stamp that the row must have at this time, if known.
    pub(super) fn stamp(&self, user: UserId, now: Instant) -> Option<Stamp> {
        let shard = self.shard(user).lock();
        shard.get(&user).filter(|entry| entry.upgrading_until.is_none_or(|until| until <= now)).map(|entry| entry.stamp)
    }

    fn router(&self) -> Option<Arc<Router>> {
        self.router.get().and_then(Weak::upgrade)
    }

    /// Logs the user out of all connections of this node, which are notified.
    pub(super) fn log_out(&self, user: UserId) -> usize {
        // They are found before a client can notice anything and log in again.
        let devices = self.devices(user);
        self.end(user, devices)
    }

    fn devices(&self, user: UserId) -> SmallVec<[Arc<ClientLink>; 2]> {
        self.router().map(|router| router.attendance().devices(user, |_| true)).unwrap_or_default()
    }

    /// Ends all connections of level 1 of a user, and these of level 2.
    fn end(&self, user: UserId, devices: SmallVec<[Arc<ClientLink>; 2]>) -> usize {
        let Some(router) = self.router() else { return 0 };
        let links = router.attendance().log_out(&mut Turn::at(self.clock.now()), user, None);
        for link in &links {
            link.post(Posted::AccountChanged(user));
        }
        for link in &devices {
            link.post(Posted::Member(Box::new(MemberNews::End(Reason::Revoked))));
        }
        links.len() + devices.len()
    }

    /// The connected users of the nth of [`SHARDS`] shards. Users without a connection for long are
    /// dropped.
    pub(super) fn connected(&self, nth: usize) -> Vec<UserId> {
        let Some(router) = self.router() else { return Vec::new() };
        let users: Vec<UserId> = self.shards[nth].lock().keys().copied().collect();
        let (connected, absent): (Vec<_>, Vec<_>) = users.into_iter().partition(|user| router.attendance().has(*user));
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

/// The most users logged in from memory that wait to be compared; 400 kB.
const REMEMBERED_MAX: usize = 100_000;
/// After this number of rounds, a user without a connection is dropped. A login may take a while,
/// because other nodes must know of it first.
const FORGOTTEN_AFTER: u8 = 12;
/// The number of shards: two loops rarely need the same one, and each is small.
pub(super) const SHARDS: usize = 64;
