//! [`Directory`]: friends, groups, and the search for both.

use std::sync::Arc;

use super::reply::reply;
use crate::base::clock::Clock;
use crate::bus::Exchange;
use crate::metrics::{Hit, Metrics};
use crate::protocol::{self, GroupId, UserId};
use crate::routing::groups::GroupCache;
use crate::session::{MadeFriends, Outcome, ToldBy};
use crate::store::{Accounts, Contacts, Joined, Membership, Role, StoreError};

/// Friends and groups, and the parts that they need.
pub struct Directory {
    /// The accounts, searched by id.
    pub accounts: Role<dyn Accounts>,
    /// Friends and groups as they are stored.
    pub contacts: Role<dyn Contacts>,
    /// The members that this node has cached.
    pub groups: Arc<GroupCache>,
    /// The bus to other nodes, which cache members as well.
    pub bus: Arc<dyn Exchange>,
    /// The time.
    pub clock: Clock,
    /// Counts refusals.
    pub metrics: Arc<Metrics>,
    /// The limits.
    pub limits: Limits,
}

/// Limits of results and groups.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most groups that one search returns.
    pub search_results_max: usize,
    /// The most members of a group.
    pub group_members_max: usize,
}

impl Directory {
    pub(super) fn add_friends(&self, a: UserId, b: UserId) -> Result<Outcome, StoreError> {
        let names = self.contacts.get()?.add_friends(a, b)?;
        let made = names.map_or(MadeFriends::NoSuchUser, |names| MadeFriends::Friends(names, ToldBy::Push));
        Ok(Outcome::Friends(made))
    }

    pub(super) fn remove_friend(&self, user: UserId, friend: UserId) -> Result<Outcome, StoreError> {
        self.contacts.get()?.remove_friend(user, friend)?;
        Ok(Outcome::Reply(protocol::ACK.into()))
    }

    pub(super) fn contacts_of(&self, user: UserId) -> Result<Outcome, StoreError> {
        let contacts = self.contacts.get()?;
        Ok(reply(protocol::contacts(&contacts.friends(user)?, &contacts.groups_of(user)?)))
    }

    pub(super) fn groups_of(&self, user: UserId) -> Result<Outcome, StoreError> {
        Ok(reply(protocol::groups(&self.contacts.get()?.groups_of(user)?)))
    }

    pub(super) fn groups_named(&self, name: &str) -> Result<Outcome, StoreError> {
        let found = self.contacts.get()?.groups_named(name, self.limits.search_results_max)?;
        Ok(reply(protocol::groups(&found)))
    }

    pub(super) fn create_group(&self, owner: UserId, name: &str, description: &str) -> Result<Outcome, StoreError> {
        let group = self.contacts.get()?.create_group(owner, name, description)?;
        // Other nodes cannot have cached a new group.
        self.groups.changed(group);
        Ok(reply(protocol::group_created(group, name)))
    }

    /// `asked` is the id as the client sent it.
    pub(super) fn join(
        &self,
        user: UserId,
        group: GroupId,
        asked: protocol::EchoedId<'_>,
    ) -> Result<Outcome, StoreError> {
        let joined = self.contacts.get()?.join_group(user, group, self.limits.group_members_max)?;
        Ok(match joined {
            Joined::New(name) => {
                self.group_changed(group);
                reply(protocol::joined(group, &name))
            }
            // Nothing has changed, so no node is notified.
            Joined::Already(name) => reply(protocol::joined(group, &name)),
            Joined::NoSuchGroup => reply(protocol::no_such_group(asked)),
            Joined::Full => {
                self.metrics.refused(Hit::GroupMembersMax);
                reply(protocol::group_full(asked))
            }
        })
    }

    /// Reads one row to see whether the sender may write to the group, and only then all members.
    pub(super) fn members(&self, group: GroupId, sender: Option<UserId>) -> Result<Outcome, StoreError> {
        let now = self.clock.now();
        if let Some(sender) = sender.filter(|sender| !self.groups.was_member(*sender, group)) {
            let changes = self.groups.changes();
            match self.contacts.get()?.membership(sender, group)? {
                Membership::Member => {}
                Membership::NoSuchGroup => return Ok(Outcome::Members([].into())),
                Membership::Stranger => {
                    self.groups.note_stranger(sender, group, now, changes);
                    return Ok(Outcome::Refused(protocol::NOT_A_MEMBER.into()));
                }
            }
        }
        Ok(Outcome::Members(self.groups.load(group, now, self.contacts.get()?)?))
    }

    /// Called before the reply, so that a client that learns of the join finds the user in the
    /// group.
    fn group_changed(&self, group: GroupId) {
        self.groups.changed(group);
        self.bus.group_changed(group);
    }

    /// Users are found by id, and by name only for a client of level 2 that requests it, because
    /// level 1 behaves like the C++ server.
    pub(super) fn search(&self, keyword: &str, by_name: bool) -> Result<Outcome, StoreError> {
        let all_digits = !keyword.is_empty() && keyword.bytes().all(|byte| byte.is_ascii_digit());
        let id = if all_digits { keyword.parse().unwrap_or(0) } else { 0 };
        let mut users = Vec::new();
        if id > 0 {
            users.extend(self.accounts.get()?.user(UserId(id))?);
        }
        if by_name && let Some(named) = self.accounts.get()?.user_named(keyword)? {
            // An id may be another user's name.
            users.retain(|user| user.id != named.id);
            users.push(named);
        }
        let by_id = if id > 0 { self.contacts.get()?.group(GroupId(id))? } else { None };
        let mut named = self.contacts.get()?.groups_named(keyword, self.limits.search_results_max)?;
        if let Some(group) = by_id {
            named.retain(|other| other.id != group.id);
            named.insert(0, group);
        }
        Ok(reply(protocol::search_results(&users, &named)))
    }
}
