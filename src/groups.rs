//! [`GroupCache`]: the members of groups that were written to lately.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use crate::protocol::{GroupId, UserId};
use crate::store::{Store, StoreError};

/// Group -> members, ascending. Whoever changes a group calls [`GroupCache::changed`], on this node and through the bus on
/// all others. Nodes of the reference server do not, so in a cluster nothing is kept for long.
#[derive(Debug)]
pub struct GroupCache {
    known: RwLock<Known>,
    lifetime: Option<Duration>,
}

#[derive(Debug, Default)]
struct Known {
    groups: FxHashMap<GroupId, Members>,
    /// Counts the changes: what was read from the store before one is not kept after it.
    changes: u64,
}

#[derive(Debug)]
struct Members {
    members: Arc<[UserId]>,
    /// Since when they are believed; not at all, when they have changed. Then they are for want of anything better.
    since: Option<Instant>,
}

impl GroupCache {
    /// Knows no group; what it learns it keeps for `lifetime`, or for ever.
    pub fn new(lifetime: Option<Duration>) -> GroupCache {
        GroupCache { known: RwLock::default(), lifetime }
    }

    /// The members, if they are known.
    pub fn members(&self, group: GroupId, now: Instant) -> Option<Arc<[UserId]>> {
        let known = self.known.read();
        let known = known.groups.get(&group)?;
        let since = known.since?;
        let is_fresh = self.lifetime.is_none_or(|lifetime| now.saturating_duration_since(since) < lifetime);
        is_fresh.then(|| known.members.clone())
    }

    /// Whether others than this node change groups, so that a user may be a member already who is not known as one.
    pub fn may_be_stale(&self) -> bool {
        self.lifetime.is_some()
    }

    /// Asks the store for the members, and keeps the answer, which is as of `now`. Blocks.
    ///
    /// # Errors
    /// The store's.
    pub fn load(&self, group: GroupId, now: Instant, store: &dyn Store) -> Result<Arc<[UserId]>, StoreError> {
        let before = self.known.read().changes;
        let members: Arc<[UserId]> = match store.members(group) {
            Ok(members) => members.into(),
            // Better the members of a while ago than none: those who are online can be written to without a database.
            Err(error @ StoreError::Unavailable(_)) => return self.stale(group, now).ok_or(error),
            Err(error) => return Err(error),
        };
        let mut known = self.known.write();
        let since = (known.changes == before).then_some(now);
        if !members.is_empty() {
            if known.groups.len() >= GROUPS_MAX {
                known.groups.clear();
            }
            known.groups.insert(group, Members { members: members.clone(), since });
        }
        Ok(members)
    }

    /// The members as they were last known, which are believed for another while.
    fn stale(&self, group: GroupId, now: Instant) -> Option<Arc<[UserId]>> {
        let mut known = self.known.write();
        let known = known.groups.get_mut(&group)?;
        known.since = Some(now);
        Some(known.members.clone())
    }

    /// The store has other members for this group now.
    pub fn changed(&self, group: GroupId) {
        let mut known = self.known.write();
        known.changes += 1;
        if let Some(known) = known.groups.get_mut(&group) {
            known.since = None;
        }
    }

    /// Any group may have changed.
    pub fn forget(&self) {
        let mut known = self.known.write();
        known.changes += 1;
        known.groups.values_mut().for_each(|known| known.since = None);
    }
}

/// Groups that are kept; with more, all are forgotten and asked for again.
const GROUPS_MAX: usize = 10_000;
