//! [`GroupCache`]: the members of groups that were recently written to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use crate::base::recent::Recent;
use crate::protocol::{GroupId, UserId};
use crate::store::{Contacts, StoreError};

/// Group -> members, ascending. A caller that changes a group calls [`GroupCache::changed`], on
/// this node and through the bus on all others. Nodes of the reference server do not, so in a
/// cluster entries are valid only for a short time.
#[derive(Debug)]
pub struct GroupCache {
    known: RwLock<CachedGroups>,
    lifetime: Option<Duration>,
}

/// The cached groups, and the users who are known not to be members.
#[derive(Debug)]
struct CachedGroups {
    /// The size of each of the two generations, so that many groups with many members cannot use
    /// all memory.
    generation_bytes_max: usize,
    /// Two generations: when the young one is full it becomes the old one, and the entries of the
    /// old one are dropped.
    young: FxHashMap<GroupId, KnownMembers>,
    old: FxHashMap<GroupId, KnownMembers>,
    /// The size of the young generation.
    weight: usize,
    non_members: NonMembers,
    /// Counts the changes: a result that was read from the store before a change is not cached
    /// after it.
    changes: u64,
}

#[derive(Debug)]
struct KnownMembers {
    members: Arc<[UserId]>,
    /// The time until which they are valid.
    valid: Validity,
}

/// The validity of a group's cached members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Validity {
    /// They were read at this time, and nothing has changed since.
    Since(Instant),
    /// They are outdated. They serve for a moment, because the store was unavailable at this time.
    Stopgap(Instant),
    /// The group has changed: they serve only if nothing better is available.
    Over,
}

/// Users who recently wrote to a group without being a member.
#[derive(Debug)]
struct NonMembers(Recent<GroupId, Vec<(UserId, Instant)>>);

impl GroupCache {
    /// An empty cache whose entries are valid for `lifetime`, or without a limit.
    pub fn new(lifetime: Option<Duration>) -> GroupCache {
        GroupCache { known: RwLock::new(CachedGroups::new(GENERATION_BYTES_MAX)), lifetime }
    }

    /// The members, if they are cached and valid.
    pub fn members(&self, group: GroupId, now: Instant) -> Option<Arc<[UserId]>> {
        let known = self.known.read();
        let known = known.get(group)?;
        let is_fresh = match known.valid {
            Validity::Since(read) => {
                self.lifetime.is_none_or(|lifetime| now.saturating_duration_since(read) < lifetime)
            }
            Validity::Stopgap(missed) => now.saturating_duration_since(missed) < STOPGAP_FOR,
            Validity::Over => false,
        };
        is_fresh.then(|| known.members.clone())
    }

    /// The number of members when they were last read, at any time; `None` if they are not cached.
    pub fn size(&self, group: GroupId) -> Option<usize> {
        self.known.read().get(group).map(|known| known.members.len())
    }

    /// Whether other servers change groups, so that a user may already be a member without this
    /// node knowing.
    pub fn may_be_stale(&self) -> bool {
        self.lifetime.is_some()
    }

    /// Whether `user` was a member when the members were last read, at any time.
    pub fn was_member(&self, user: UserId, group: GroupId) -> bool {
        self.known.read().get(group).is_some_and(|known| known.members.binary_search(&user).is_ok())
    }

    /// Whether `user` was recently found not to be a member, and the group has not changed since.
    pub fn is_stranger(&self, user: UserId, group: GroupId, now: Instant) -> bool {
        let known = self.known.read();
        let non_members = known.non_members.0.get(&group);
        let is_stranger = |(stranger, since): &(UserId, Instant)| {
            *stranger == user && now.saturating_duration_since(*since) < STRANGER_FOR
        };
        non_members.is_some_and(|non_members| non_members.iter().any(is_stranger))
    }

    /// The number of changes; read it before querying the store for [`GroupCache::note_stranger`].
    pub fn changes(&self) -> u64 {
        self.known.read().changes
    }

    /// Notes that `user` is not a member, according to a query made at this number of changes. If
    /// other servers change groups, this is not remembered: the user may join on another node, and
    /// write here before this node learns it.
    pub fn note_stranger(&self, user: UserId, group: GroupId, now: Instant, changes: u64) {
        let mut known = self.known.write();
        if self.may_be_stale() || known.changes != changes {
            return;
        }
        let mut non_members = known.non_members.0.get(&group).cloned().unwrap_or_default();
        non_members
            .retain(|(stranger, since)| *stranger != user && now.saturating_duration_since(*since) < STRANGER_FOR);
        if non_members.len() >= STRANGERS_MAX {
            non_members.clear();
        }
        non_members.push((user, now));
        known.non_members.0.insert(group, non_members);
    }

    /// Reads the members from the store and caches them as of `now`. Blocks.
    ///
    /// # Errors
    ///
    /// The errors of the store.
    pub fn load(&self, group: GroupId, now: Instant, store: &dyn Contacts) -> Result<Arc<[UserId]>, StoreError> {
        let before = self.known.read().changes;
        let members: Arc<[UserId]> = match store.members(group) {
            Ok(members) => members.into(),
            // Old members are better than none: those who are online can be written to without a
            // database.
            Err(error @ StoreError::Unavailable(_)) => return self.stale(group, now).ok_or(error),
            Err(error) => return Err(error),
        };
        let mut known = self.known.write();
        let valid = if known.changes == before { Validity::Since(now) } else { Validity::Over };
        if !members.is_empty() {
            known.insert(group, KnownMembers { members: members.clone(), valid });
        }
        Ok(members)
    }

    /// Reads the members of several groups at once, as [`GroupCache::load`] does. Blocks.
    ///
    /// # Errors
    ///
    /// The errors of the store.
    pub fn load_each(&self, groups: &[GroupId], now: Instant, store: &dyn Contacts) -> Result<(), StoreError> {
        let before = self.known.read().changes;
        let each = store.members_of_each(groups)?;
        let mut known = self.known.write();
        let valid = if known.changes == before { Validity::Since(now) } else { Validity::Over };
        for (group, members) in groups.iter().zip(each).filter(|(_, members)| !members.is_empty()) {
            known.insert(*group, KnownMembers { members: members.into(), valid });
        }
        Ok(())
    }

    /// The last known members. They serve only for a moment, because somebody may have joined or
    /// left; then the store is queried again.
    fn stale(&self, group: GroupId, now: Instant) -> Option<Arc<[UserId]>> {
        let mut known = self.known.write();
        let known = known.get_mut(group)?;
        known.valid = Validity::Stopgap(now);
        Some(known.members.clone())
    }

    /// Notes that the members of this group have changed.
    pub fn changed(&self, group: GroupId) {
        let mut known = self.known.write();
        known.changes += 1;
        known.non_members.0.remove(&group);
        if let Some(known) = known.get_mut(group) {
            known.valid = Validity::Over;
        }
    }

    /// Notes that any group may have changed.
    pub fn forget(&self) {
        let mut known = self.known.write();
        known.changes += 1;
        known.non_members = NonMembers::default();
        let CachedGroups { young, old, .. } = &mut *known;
        young.values_mut().chain(old.values_mut()).for_each(|known| known.valid = Validity::Over);
    }
}

impl CachedGroups {
    fn new(generation_bytes_max: usize) -> CachedGroups {
        CachedGroups {
            generation_bytes_max,
            young: FxHashMap::default(),
            old: FxHashMap::default(),
            weight: 0,
            non_members: NonMembers::default(),
            changes: 0,
        }
    }

    fn get(&self, group: GroupId) -> Option<&KnownMembers> {
        self.young.get(&group).or_else(|| self.old.get(&group))
    }

    fn get_mut(&mut self, group: GroupId) -> Option<&mut KnownMembers> {
        self.young.get_mut(&group).or_else(|| self.old.get_mut(&group))
    }

    fn insert(&mut self, group: GroupId, members: KnownMembers) {
        let weight = weight(&members);
        if self.weight + weight > self.generation_bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        self.old.remove(&group);
        self.weight += weight;
        if let Some(before) = self.young.insert(group, members) {
            self.weight -= self::weight(&before);
        }
    }
}

impl Default for NonMembers {
    fn default() -> NonMembers {
        NonMembers(Recent::new(STRANGE_GROUPS_MAX))
    }
}

fn weight(members: &KnownMembers) -> usize {
    size_of_val(&*members.members) + 64
}

/// The size of one generation. A node caches groups up to twice this size.
const GENERATION_BYTES_MAX: usize = 32 << 20;
/// How long outdated members serve after the store was unavailable, before it is queried again.
const STOPGAP_FOR: Duration = Duration::from_secs(1);
/// How long a node remembers that a user is not a member.
const STRANGER_FOR: Duration = Duration::from_secs(10);
/// The most non-members of one group, and the most groups with non-members, that are remembered.
const STRANGERS_MAX: usize = 64;
const STRANGE_GROUPS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use parking_lot::Mutex;

    use super::*;
    use crate::store::some_contacts::SomeContacts;

    fn members(count: i32) -> KnownMembers {
        KnownMembers { members: (1..=count).map(UserId).collect(), valid: Validity::Since(Instant::now()) }
    }

    #[test]
    fn it_is_bounded_by_what_it_holds_and_forgets_the_oldest() {
        let mut known = CachedGroups::new(1000);
        for group in 1..=100 {
            known.insert(GroupId(group), members(50));
            known.insert(GroupId(group), members(40));
            assert!(known.young.values().map(weight).sum::<usize>() == known.weight && known.weight <= 1000);
            assert!(known.get(GroupId(group)).is_some() && known.young.len() + known.old.len() <= 10);
        }
        assert!(known.get(GroupId(1)).is_none());
    }

    #[test]
    fn a_stranger_is_remembered_until_the_group_changes_or_for_a_while() {
        let (groups, now, group, user) = (GroupCache::new(None), Instant::now(), GroupId(1), UserId(7));
        let before = groups.changes();
        groups.note_stranger(user, group, now, before);
        assert!(groups.is_stranger(user, group, now));
        assert!(!groups.is_stranger(UserId(8), group, now) && !groups.is_stranger(user, GroupId(2), now));
        assert!(!groups.is_stranger(user, group, now + STRANGER_FOR));
        groups.changed(group);
        assert!(!groups.is_stranger(user, group, now));
        groups.note_stranger(user, group, now, before);
        assert!(!groups.is_stranger(user, group, now), "what was asked before the change says nothing");
        let elsewhere = GroupCache::new(Some(Duration::from_secs(5)));
        elsewhere.note_stranger(user, group, now, 0);
        assert!(!elsewhere.is_stranger(user, group, now), "the user may have joined on another node");
    }

    /// A store of one group, which can be switched off.
    #[derive(Default)]
    struct OneGroup {
        members: Mutex<Vec<UserId>>,
        is_away: AtomicBool,
    }

    impl SomeContacts for OneGroup {
        fn members(&self, _: GroupId) -> Result<Vec<UserId>, StoreError> {
            match self.is_away.load(Relaxed) {
                true => Err(StoreError::Unavailable("away".into())),
                false => Ok(self.members.lock().clone()),
            }
        }
    }

    #[test]
    fn outdated_members_serve_while_the_store_is_unavailable_and_no_longer() {
        let (store, now, group) = (OneGroup::default(), Instant::now(), GroupId(1));
        let [before, after] = [vec![UserId(1), UserId(2)], vec![UserId(1), UserId(3)]];
        *store.members.lock() = before.clone();
        let groups = GroupCache::new(None);
        assert_eq!(*groups.load(group, now, &store).unwrap(), before);
        // One user leaves and another joins, and then the store is unavailable for a moment.
        *store.members.lock() = after.clone();
        groups.changed(group);
        assert_eq!(groups.members(group, now), None);
        store.is_away.store(true, Relaxed);
        assert_eq!(*groups.load(group, now, &store).unwrap(), before, "better than none");
        assert!(groups.members(group, now).is_some(), "the store is not asked for each message");
        store.is_away.store(false, Relaxed);
        assert_eq!(groups.members(group, now + STOPGAP_FOR), None, "a server that is alone hears of no other change");
        assert_eq!(*groups.load(group, now + STOPGAP_FOR, &store).unwrap(), after);
        assert_eq!(groups.members(group, now + Duration::from_hours(24)).as_deref(), Some(&*after));
    }
}
