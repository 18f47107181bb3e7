//! [`GroupCache`]: the members of groups that were written to lately.

use std::sync::Arc;

use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use crate::protocol::{GroupId, UserId};
use crate::store::{Store, StoreError};

/// Group -> members, ascending. Everything that changes a group on this node goes through [`GroupCache::changed`].
#[derive(Debug, Default)]
pub struct GroupCache {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    members: FxHashMap<GroupId, Arc<[UserId]>>,
    /// Counts the changes: what was read from the store before one is not kept after it.
    changes: u64,
}

impl GroupCache {
    /// The members, if they are known.
    pub fn members(&self, group: GroupId) -> Option<Arc<[UserId]>> {
        self.known.read().members.get(&group).cloned()
    }

    /// Asks the store for the members, and keeps the answer. Blocks.
    ///
    /// # Errors
    /// The store's.
    pub fn load(&self, group: GroupId, store: &dyn Store) -> Result<Arc<[UserId]>, StoreError> {
        let before = self.known.read().changes;
        let members: Arc<[UserId]> = store.members(group)?.into();
        let mut known = self.known.write();
        if known.changes == before && !members.is_empty() {
            if known.members.len() >= GROUPS_MAX {
                known.members.clear();
            }
            known.members.insert(group, members.clone());
        }
        Ok(members)
    }

    /// The store has other members for this group now.
    pub fn changed(&self, group: GroupId) {
        let mut known = self.known.write();
        known.changes += 1;
        known.members.remove(&group);
    }
}

/// Groups that are kept; with more, all are forgotten and asked for again.
const GROUPS_MAX: usize = 10_000;
