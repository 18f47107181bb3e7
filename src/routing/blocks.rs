//! [`Blocks`]: the blocked users, as far as this node knows. It is read for every chat message of
//! level 1.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::RwLock;
use rustc_hash::FxHashSet;

use crate::protocol::UserId;

/// Pairs of a user and one whom the user has blocked: 8 bytes each, and at most
/// [`BLOCKED_MAX`](crate::store::community::BLOCKED_MAX) of one user. Changes on this node are
/// noted at once, those of other nodes when their news arrive. The sweeper reads the table, and so
/// finds changes whose news were lost: every 10 seconds, or later if that would take more than one
/// part in 20 of the time.
#[derive(Debug, Default)]
pub struct Blocks {
    any: AtomicBool,
    pairs: RwLock<BlockedPairs>,
}

#[derive(Debug, Default)]
struct BlockedPairs {
    now: FxHashSet<(UserId, UserId)>,
    /// The changes since the reading of the table began, if it is being read. The rows that were
    /// read may be older.
    meanwhile: Option<Vec<Change>>,
}

/// A pair, and whether it is blocked now.
type Change = ((UserId, UserId), bool);

impl Blocks {
    /// Whether nobody has blocked anybody.
    pub fn is_empty(&self) -> bool {
        !self.any.load(Relaxed)
    }

    /// Whether `user` has blocked `other`.
    pub fn has(&self, user: UserId, other: UserId) -> bool {
        self.any.load(Relaxed) && self.pairs.read().now.contains(&(user, other))
    }

    /// Whether one of them has blocked the other.
    pub fn is_between(&self, one: UserId, other: UserId) -> bool {
        self.has(one, other) || self.has(other, one)
    }

    /// Notes that `user` has blocked `other`.
    pub fn add(&self, user: UserId, other: UserId) {
        self.change(((user, other), true));
    }

    /// Notes that `user` has unblocked `other`.
    pub fn remove(&self, user: UserId, other: UserId) {
        self.change(((user, other), false));
    }

    /// Replaces all pairs by those that `read` finds. A change that is noted while it reads stays.
    /// Returns the new pairs. One thread at a time may call it.
    ///
    /// # Errors
    /// Those of `read`. Then nothing changes.
    pub fn reread<E>(
        &self,
        read: impl FnOnce() -> Result<FxHashSet<(UserId, UserId)>, E>,
    ) -> Result<Vec<(UserId, UserId)>, E> {
        self.pairs.write().meanwhile = Some(Vec::new());
        let read = read();
        let mut pairs = self.pairs.write();
        let meanwhile = pairs.meanwhile.take().unwrap_or_default();
        let mut all = read?;
        meanwhile.into_iter().for_each(|change| apply(&mut all, change));
        let new = all.difference(&pairs.now).copied().collect();
        pairs.now = all;
        self.any.store(!pairs.now.is_empty(), Relaxed);
        Ok(new)
    }

    fn change(&self, change: Change) {
        let mut pairs = self.pairs.write();
        apply(&mut pairs.now, change);
        if let Some(meanwhile) = &mut pairs.meanwhile {
            meanwhile.push(change);
        }
        self.any.store(!pairs.now.is_empty(), Relaxed);
    }
}

fn apply(pairs: &mut FxHashSet<(UserId, UserId)>, (pair, is_blocked): Change) {
    if is_blocked {
        pairs.insert(pair);
    } else {
        pairs.remove(&pair);
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
    }

    #[test]
    fn blocks_that_are_read_replace_the_known_ones() {
        let (blocks, [ann, bob, cat]) = (Blocks::default(), [1, 2, 3].map(UserId));
        blocks.add(ann, bob);
        let read = || Ok::<_, ()>(FxHashSet::from_iter([(cat, ann)]));
        assert_eq!(blocks.reread(read), Ok(vec![(cat, ann)]));
        assert_eq!(blocks.reread(read), Ok(vec![]));
        assert!(blocks.has(cat, ann) && !blocks.has(ann, bob));
        assert_eq!(blocks.reread(|| Err(())), Err(()));
        assert!(blocks.has(cat, ann) && !blocks.is_empty());
    }

    #[test]
    fn a_change_while_the_table_is_read_stays() {
        let (blocks, [ann, bob, cat]) = (Blocks::default(), [1, 2, 3].map(UserId));
        blocks.add(cat, ann);
        let read = || {
            let old = FxHashSet::from_iter([(cat, ann)]);
            blocks.add(ann, bob);
            blocks.remove(cat, ann);
            Ok::<_, ()>(old)
        };
        // The pair was noted before, so its watchers have parted already.
        assert_eq!(blocks.reread(read), Ok(vec![]));
        assert!(blocks.has(ann, bob) && !blocks.has(cat, ann));
    }
}
