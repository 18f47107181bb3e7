//! [`SomeContacts`]: a [`Contacts`] of a test, which answers few questions.

use super::roles::Contacts;
use super::{FriendNames, Group, Joined, Membership, StoreError, User};
use crate::protocol::{GroupId, UserId};

/// The answers of a test. A question without an answer fails the test.
pub(crate) trait SomeContacts: Send + Sync + 'static {
    fn members(&self, _: GroupId) -> Result<Vec<UserId>, StoreError> {
        unreachable!("nobody asks")
    }

    fn membership(&self, _: UserId, _: GroupId) -> Result<Membership, StoreError> {
        unreachable!("nobody asks")
    }

    fn groups_of(&self, _: UserId) -> Result<Vec<Group>, StoreError> {
        unreachable!("nobody asks")
    }
}

impl<T: SomeContacts> Contacts for T {
    fn members(&self, group: GroupId) -> Result<Vec<UserId>, StoreError> {
        SomeContacts::members(self, group)
    }

    fn membership(&self, user: UserId, group: GroupId) -> Result<Membership, StoreError> {
        SomeContacts::membership(self, user, group)
    }

    fn groups_of(&self, user: UserId) -> Result<Vec<Group>, StoreError> {
        SomeContacts::groups_of(self, user)
    }

    fn add_friends(&self, _: UserId, _: UserId) -> Result<Option<FriendNames>, StoreError> {
        unreachable!("nobody asks")
    }

    fn remove_friend(&self, _: UserId, _: UserId) -> Result<(), StoreError> {
        unreachable!("nobody asks")
    }

    fn friends(&self, _: UserId) -> Result<Vec<User>, StoreError> {
        unreachable!("nobody asks")
    }

    fn create_group(&self, _: UserId, _: &str, _: &str) -> Result<GroupId, StoreError> {
        unreachable!("nobody asks")
    }

    fn join_group(&self, _: UserId, _: GroupId, _: usize) -> Result<Joined, StoreError> {
        unreachable!("nobody asks")
    }

    fn group(&self, _: GroupId) -> Result<Option<Group>, StoreError> {
        unreachable!("nobody asks")
    }

    fn groups_named(&self, _: &str, _: usize) -> Result<Vec<Group>, StoreError> {
        unreachable!("nobody asks")
    }
}
