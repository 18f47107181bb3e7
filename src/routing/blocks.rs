//! [`Blocks`]: the blocked users, as far as this node knows. It is read for every chat message of
//! level 1.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::RwLock;
use rustc_hash::FxHashSet;

use crate::protocol::UserId;

/// Pairs of a user and one whom the user has blocked: 8 bytes each, and at most
/// [`BLOCKED_MAX`](crate::store::community::BLOCKED_MAX) of one user. Changes on this node are
/// noted at once, those of other nodes when the sweeper reads the table.
#[derive(Debug, Default)]
pub struct Blocks {
    any: AtomicBool,
    pairs: RwLock<FxHashSet<(UserId, UserId)>>,
}

impl Blocks {
    /// Whether nobody has blocked anybody.
    pub fn is_empty(&self) -> bool {
        !self.any.load(Relaxed)
    }

    /// Whether `user` has blocked `other`.
    pub fn has(&self, user: UserId, other: UserId) -> bool {
        self.any.load(Relaxed) && self.pairs.read().contains(&(user, other))
    }

    /// Whether one of them has blocked the other.
    pub fn is_between(&self, one: UserId, other: UserId) -> bool {
        self.has(one, other) || self.has(other, one)
    }

    /// Notes that `user` has blocked `other`.
    pub fn add(&self, user: UserId, other: UserId) {
        self.change(|pairs| {
            pairs.insert((user, other));
        });
    }

    /// Notes that `user` has unblocked `other`.
    pub fn remove(&self, user: UserId, other: UserId) {
        self.change(|pairs| {
            pairs.remove(&(user, other));
        });
    }

    /// Replaces all pairs. Returns those that are new.
    pub fn replace(&self, all: FxHashSet<(UserId, UserId)>) -> Vec<(UserId, UserId)> {
        let mut new = Vec::new();
        self.change(|pairs| {
            new.extend(all.difference(pairs));
            *pairs = all;
        });
        new
    }

    fn change(&self, change: impl FnOnce(&mut FxHashSet<(UserId, UserId)>)) {
        let mut pairs = self.pairs.write();
        change(&mut pairs);
        self.any.store(!pairs.is_empty(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_a_direction_and_silences_both() {
        let (blocks, [ann, bob, cat]) = (Blocks::default(), [1, 2, 3].map(UserId));
        assert!(!blocks.has(ann, bob));
        blocks.add(ann, bob);
        assert!(blocks.has(ann, bob) && !blocks.has(bob, ann));
        assert!(blocks.is_between(bob, ann) && !blocks.is_between(ann, cat));
        blocks.remove(ann, bob);
        assert!(!blocks.is_between(ann, bob));
        assert_eq!(blocks.replace([(cat, ann)].into_iter().collect()), [(cat, ann)]);
        assert_eq!(blocks.replace([(cat, ann)].into_iter().collect()), []);
        assert!(blocks.has(cat, ann) && !blocks.has(ann, bob));
    }
}
