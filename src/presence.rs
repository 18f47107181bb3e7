//! [`Presence`]: which users are online on this node, and on which connections. The one table that loops share.
//!
//! Whoever delivers to a user holds the user's shard for reading while it hands the message over, to a connection or to
//! a lane; whoever changes where the user's messages go holds it for writing, and moves the messages that a leaving
//! connection did not take in the same breath. So messages of one sender to one recipient stay in order whatever comes
//! and goes. Under a shard's lock only leaf locks are taken: those of a link's output, of a lane, of the state writer.

use std::sync::Arc;

use net::Link;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::protocol::UserId;

/// User -> connections, in shards.
#[derive(Debug)]
pub struct Presence<M> {
    shards: Box<[RwLock<Shard<M>>]>,
}

/// The users of one shard. Nobody in it is without a connection.
#[derive(Debug)]
pub struct Shard<M> {
    users: FxHashMap<UserId, Seats<M>>,
}

/// A user's connections in the order of their logins.
type Seats<M> = SmallVec<[Arc<Link<M>>; 1]>;

impl<M> Presence<M> {
    /// Nobody is online.
    pub fn new() -> Presence<M> {
        Presence { shards: (0..SHARDS).map(|_| RwLock::new(Shard { users: FxHashMap::default() })).collect() }
    }

    /// The shard of `user`, which nobody changes while it is held.
    pub fn read(&self, user: UserId) -> RwLockReadGuard<'_, Shard<M>> {
        self.shards[shard_of(user)].read()
    }

    /// How many users are online.
    pub fn users(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().users.len()).sum()
    }

    /// The shard of `user`, for changing it.
    pub fn write(&self, user: UserId) -> RwLockWriteGuard<'_, Shard<M>> {
        self.shards[shard_of(user)].write()
    }
}

impl<M> Default for Presence<M> {
    fn default() -> Presence<M> {
        Presence::new()
    }
}

impl<M> Shard<M> {
    /// The connection that receives for `user`: the one that logged in last.
    pub fn newest(&self, user: UserId) -> Option<&Arc<Link<M>>> {
        self.users.get(&user).and_then(|seats| seats.last())
    }

    /// Makes `link` the one that receives for `user`. True if the user was nowhere before.
    pub fn add(&mut self, user: UserId, link: &Arc<Link<M>>) -> bool {
        let seats = self.users.entry(user).or_default();
        let was_nowhere = seats.is_empty();
        seats.retain(|seat| seat != link);
        seats.push(link.clone());
        was_nowhere
    }

    /// Forgets that `user` is on `link`; whether that was so, and whether the user is nowhere now.
    pub fn remove(&mut self, user: UserId, link: &Link<M>) -> Removed {
        let Some(seats) = self.users.get_mut(&user) else { return Removed::Nothing };
        let before = seats.len();
        seats.retain(|seat| **seat != *link);
        if seats.is_empty() {
            self.users.remove(&user);
            return Removed::Last;
        }
        if seats.len() < before { Removed::One } else { Removed::Nothing }
    }
}

/// What [`Shard::remove`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Removed {
    /// The user was not there.
    Nothing,
    /// The user is still on another connection.
    One,
    /// The user is on no connection any more.
    Last,
}

/// Ids are given out one after the other, so their low bits spread well.
fn shard_of(user: UserId) -> usize {
    user.0 as usize % SHARDS
}

/// Enough that two loops seldom want the same.
const SHARDS: usize = 256;
