//! [`Directory`]: friends, groups, and the search for both.

use std::sync::Arc;

use super::reply;
use crate::base::clock::Clock;
use crate::bus::Bus;
use crate::metrics::{Hit, Metrics};
use crate::protocol::{self, GroupId, UserId};
use crate::routing::groups::GroupCache;
use crate::session::Outcome;
use crate::store::{Joined, Membership, Store, StoreError};

/// Friends and groups.
pub struct Directory {
    store: Store,
    bus: Arc<dyn Bus>,
    clock: Clock,
    metrics: Arc<Metrics>,
    limits: Limits,
    /// The members of groups.
    pub groups: GroupCache,
}

/// How much of a thing there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most groups that one search returns.
    pub search_results_max: usize,
    /// Most members of a group.
    pub group_members_max: usize,
}

impl Directory {
    /// One that knows no group yet.
    pub fn new(
        store: Store,
        bus: Arc<dyn Bus>,
        clock: Clock,
        metrics: Arc<Metrics>,
        groups: GroupCache,
        limits: Limits,
    ) -> Directory {
        Directory { store, bus, clock, metrics, limits, groups }
    }

    pub(super) fn add_friends(&self, a: UserId, b: UserId) -> Result<Outcome, StoreError> {
        self.store.contacts.get()?.add_friends(a, b).map(Outcome::Friends)
    }

    pub(super) fn remove_friend(&self, user: UserId, friend: UserId) -> Result<Outcome, StoreError> {
        self.store.contacts.get()?.remove_friend(user, friend)?;
        Ok(Outcome::Reply(protocol::ACK.into()))
    }

    pub(super) fn contacts_of(&self, user: UserId) -> Result<Outcome, StoreError> {
        let contacts = self.store.contacts.get()?;
        Ok(reply(protocol::contacts(&contacts.friends(user)?, &contacts.groups_of(user)?)))
    }

    pub(super) fn groups_of(&self, user: UserId) -> Result<Outcome, StoreError> {
        Ok(reply(protocol::groups(&self.store.contacts.get()?.groups_of(user)?)))
    }

    pub(super) fn groups_named(&self, name: &str) -> Result<Outcome, StoreError> {
        let found = self.store.contacts.get()?.groups_named(name, self.limits.search_results_max)?;
        Ok(reply(protocol::groups(&found)))
    }

    pub(super) fn create_group(&self, owner: UserId, name: &str, description: &str) -> Result<Outcome, StoreError> {
        let group = self.store.contacts.get()?.create_group(owner, name, description)?;
        // Another node knows nothing of it that could be wrong.
        self.groups.changed(group);
        Ok(reply(protocol::group_created(group, name)))
    }

    /// `asked` is the id as it was sent.
    pub(super) fn join(&self, user: UserId, group: GroupId, asked: protocol::Asked<'_>) -> Result<Outcome, StoreError> {
        let joined = self.store.contacts.get()?.join_group(user, group, self.limits.group_members_max)?;
        Ok(match joined {
            Joined::New(name) => {
                self.group_changed(group);
                reply(protocol::joined(group, &name))
            }
            // Nothing has changed, so nobody need hear of it.
            Joined::Already(name) => reply(protocol::joined(group, &name)),
            Joined::NoSuchGroup => reply(protocol::no_such_group(asked)),
            Joined::Full => {
                self.metrics.refused(Hit::GroupMembersMax);
                reply(protocol::group_full(asked))
            }
        })
    }

    /// One row says whether the sender may write to the group; all are read only then.
    pub(super) fn members(&self, group: GroupId, sender: Option<UserId>) -> Result<Outcome, StoreError> {
        let now = self.clock.now();
        if let Some(sender) = sender.filter(|sender| !self.groups.was_member(*sender, group)) {
            let changes = self.groups.changes();
            match self.store.contacts.get()?.membership(sender, group)? {
                Membership::Member => {}
                Membership::NoSuchGroup => return Ok(Outcome::Members([].into())),
                Membership::Stranger => {
                    self.groups.note_stranger(sender, group, now, changes);
                    return Ok(Outcome::Refused(protocol::NOT_A_MEMBER.into()));
                }
            }
        }
        Ok(Outcome::Members(self.groups.load(group, now, self.store.contacts.get()?)?))
    }

    /// Before the reply: whoever hears from the client that it has joined finds it in the group.
    fn group_changed(&self, group: GroupId) {
        self.groups.changed(group);
        self.bus.group_changed(group);
    }

    pub(super) fn search(&self, keyword: &str) -> Result<Outcome, StoreError> {
        let all_digits = !keyword.is_empty() && keyword.bytes().all(|byte| byte.is_ascii_digit());
        let id = if all_digits { keyword.parse().unwrap_or(0) } else { 0 };
        let user = if id > 0 { self.store.accounts.get()?.user(UserId(id))? } else { None };
        let by_id = if id > 0 { self.store.contacts.get()?.group(GroupId(id))? } else { None };
        let mut named = self.store.contacts.get()?.groups_named(keyword, self.limits.search_results_max)?;
        if let Some(group) = by_id {
            named.retain(|other| other.id != group.id);
            named.insert(0, group);
        }
        Ok(reply(protocol::search_results(user.as_ref(), &named)))
    }
}
