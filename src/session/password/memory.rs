//! [`Memory`]: the tags of recently verified passwords.

use std::time::{Duration, Instant};

use rustc_hash::FxBuildHasher;

use super::form::ClientKind;
use super::stamp::Stamp;
use crate::base::recent::Recent;
use crate::protocol::UserId;

/// The tags of recently verified passwords. Ids are the store's own, so the hasher needs no secret.
pub(super) struct Memory {
    known: Recent<UserId, (RememberedPassword, Instant), FxBuildHasher>,
    /// How often users of each shard were forgotten.
    forgotten: Box<[u32; SHARDS]>,
    /// The factor of the hash that maps a user to a shard.
    factor: u64,
    /// The time at which the young table was begun. The old one may contain valid entries until
    /// that is too long ago.
    aged: Option<Instant>,
}

/// The remembered password of one user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RememberedPassword {
    pub(super) tag: PasswordTag,
    /// The stamp of the stored value when it was verified.
    pub(super) stamp: Stamp,
    pub(super) client: ClientKind,
}

/// How often users of a shard were forgotten. While the count stays the same, no user of that shard
/// was logged out of everything.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Forgotten(u32);

#[cfg(test)]
impl Forgotten {
    /// The count of a user who was never forgotten.
    pub(crate) const NEVER: Forgotten = Forgotten(0);
}

/// Half of a hash: 128 bits cannot be guessed by chance either, and there is one tag for every
/// user.
pub(super) type PasswordTag = [u8; 16];

impl Memory {
    /// An empty memory. `secret` must be random.
    pub(super) fn new(secret: u64) -> Memory {
        Memory { known: Recent::new(REMEMBERED_MAX), forgotten: Box::new([0; SHARDS]), factor: secret | 1, aged: None }
    }

    pub(super) fn insert(&mut self, user: UserId, known: RememberedPassword, now: Instant, valid_for: Duration) {
        let aged = self.aged.get_or_insert(now);
        if now.saturating_duration_since(*aged) >= valid_for {
            *aged = now;
            self.known.age();
        }
        if self.known.insert(user, (known, now)) {
            self.aged = Some(now);
        }
    }

    pub(super) fn get(&self, user: UserId, now: Instant, valid_for: Duration) -> Option<RememberedPassword> {
        let (known, since) = self.known.get(&user)?;
        (now.saturating_duration_since(*since) < valid_for).then_some(*known)
    }

    pub(super) fn get_mut(&mut self, user: UserId) -> Option<&mut RememberedPassword> {
        self.known.get_mut(&user).map(|(known, _)| known)
    }

    pub(super) fn forget(&mut self, user: UserId) {
        self.known.remove(&user);
        let shard = self.shard(user);
        let count = &mut self.forgotten[shard];
        *count = count.wrapping_add(1);
    }

    pub(super) fn forgotten(&self, user: UserId) -> Forgotten {
        Forgotten(self.forgotten[self.shard(user)])
    }

    /// Multiply-shift hashing: a client that does not know the factor cannot create an account in
    /// the shard of another one.
    fn shard(&self, user: UserId) -> usize {
        (u64::from(user.0 as u32).wrapping_mul(self.factor) >> (u64::BITS - SHARDS.ilog2())) as usize
    }
}

/// The number of shards. Two users of one shard cost each other a read of the stored password.
const SHARDS: usize = 4096;

/// The least number of users that are remembered; about 12 MB at most.
const REMEMBERED_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn known(tag: u8) -> RememberedPassword {
        RememberedPassword { tag: [tag; 16], stamp: Stamp(0), client: ClientKind::Other }
    }

    #[test]
    fn valid_passwords_stay_when_the_memory_is_full_just_before_it_ages() {
        let (mut memory, start) = (Memory::new(1 << 40 | 1), Instant::now());
        let late = start + HOUR - Duration::from_secs(1);
        memory.insert(UserId(0), known(1), start, HOUR);
        let bound = REMEMBERED_MAX as i32;
        (1..=bound).for_each(|user| memory.insert(UserId(user), known(1), late, HOUR));
        memory.insert(UserId(0), known(2), start + HOUR, HOUR);
        assert!((2..=bound).all(|user| memory.get(UserId(user), start + HOUR, HOUR).is_some()));
        memory.insert(UserId(0), known(2), late + HOUR, HOUR);
        memory.insert(UserId(0), known(2), late + 2 * HOUR, HOUR);
        assert_eq!(memory.known.len(), 1, "and what has expired does not");
    }

    #[test]
    fn expired_passwords_give_their_memory_back_within_as_long_again() {
        let (mut memory, start) = (Memory::new(1 << 40 | 1), Instant::now());
        let mut insert_100 = |from: i32, now| {
            (from..from + 100).for_each(|user| memory.insert(UserId(user), known(1), now, HOUR));
            memory.known.len()
        };
        assert_eq!(insert_100(0, start), 100);
        assert_eq!(insert_100(100, start + HOUR / 2), 200);
        assert_eq!(insert_100(200, start + HOUR), 300);
        assert_eq!(insert_100(300, start + 2 * HOUR), 200);
        assert_eq!(memory.get(UserId(299), start + 2 * HOUR - Duration::from_millis(1), HOUR), Some(known(1)));
        assert_eq!(memory.get(UserId(299), start + 2 * HOUR, HOUR), None);
    }
}
