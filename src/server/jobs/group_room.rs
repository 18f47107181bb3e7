//! [`GroupRoom`]: the number of groups that a user is in is bounded, because every login of the
//! user at level 2 reads all of them.

use std::sync::Arc;

use crate::metrics::{Hit, Metrics};
use crate::protocol::{GroupId, UserId};
use crate::store::{Contacts, Membership, Role, StoreError};

/// Tells whether a user may come into another group. Requests of one user at the same time may
/// exceed the bound by their number.
#[derive(Clone)]
pub struct GroupRoom {
    /// Friends and groups as they are stored.
    pub contacts: Role<dyn Contacts>,
    /// Counts refusals.
    pub metrics: Arc<Metrics>,
    /// The most groups that a user is in.
    pub groups_max: usize,
}

impl GroupRoom {
    /// Whether `user` may create a group.
    pub(super) fn for_new(&self, user: UserId) -> Result<bool, StoreError> {
        self.has_room(user, self.groups_max)
    }

    /// Whether `user` may come into this group; also if there is none, or if the user is a member
    /// already, because these requests change nothing and have replies of their own.
    pub(super) fn for_joining(&self, user: UserId, group: GroupId) -> Result<bool, StoreError> {
        self.has_room_in(user, group, self.groups_max)
    }

    /// Whether another user may add `user` to this group. Only half of the bound is for others, so
    /// that nobody can keep a user from joining and creating groups.
    pub(super) fn for_being_added(&self, user: UserId, group: GroupId) -> Result<bool, StoreError> {
        self.has_room_in(user, group, self.groups_max / 2)
    }

    fn has_room_in(&self, user: UserId, group: GroupId, max: usize) -> Result<bool, StoreError> {
        let contacts = self.contacts.get()?;
        if !contacts.is_in_groups(user, max)? || contacts.membership(user, group)? != Membership::Stranger {
            return Ok(true);
        }
        self.metrics.refused(Hit::GroupsMax);
        Ok(false)
    }

    fn has_room(&self, user: UserId, max: usize) -> Result<bool, StoreError> {
        let is_full = self.contacts.get()?.is_in_groups(user, max)?;
        if is_full {
            self.metrics.refused(Hit::GroupsMax);
        }
        Ok(!is_full)
    }
}
