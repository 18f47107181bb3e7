//! [`Community`]: the changes that users make to their accounts, to each other and to groups,
//! beyond the requests of the reference server.
//!
//! A change of a group or a new friendship is an entry of its conversation, recorded in the same
//! transaction as the change ([`Recorded`]). So nobody can read the entry before the change is
//! made, or see the change without the entry. The store decides whether a change is allowed while
//! it holds the lock of the conversation, from facts that it reads under that lock ([`groups`]).
//!
//! Like [`History`](super::history::History), this role may be missing: then the tables are the
//! reference server's, and [`Contacts`](super::Contacts) does what they allow.

mod accounts;
mod friends;
pub(in crate::store) mod groups;
mod recorded;

pub use self::accounts::{AccountDeletion, Deletion, OwnAccount, PasswordChange, Swapped};
pub use self::friends::{Befriended, BlockOutcome, FriendPolicy, FriendRequest, Trace};
pub(in crate::store) use self::friends::{FriendDecision, FriendFacts};
pub use self::groups::{Deed, GroupAct, GroupChanged, GroupMember, GroupRefusal, GroupRole, NewGroup, Right, Visible};
pub(in crate::store) use self::recorded::recorded;
pub use self::recorded::{Recorded, RecordedEntry};
use super::StoreError;
use super::history::DeviceId;
use super::maybe::MaybeRole;
use crate::protocol::{GroupId, UserId};

/// The changes and queries of a store with level 2. Its methods block, as those of all roles do.
pub trait Community: Send + Sync + 'static {
    /// Creates a group with its first entry, the event `created`.
    fn found_group(&self, group: &NewGroup) -> Result<(GroupId, Recorded), StoreError>;

    /// Changes a group or its members, if it is allowed.
    fn act(&self, act: &GroupAct) -> Result<Result<GroupChanged, GroupRefusal>, StoreError>;

    /// The members of a group by ascending id. `asker` must be one of them.
    fn members_of(&self, group: GroupId, asker: UserId) -> Result<Result<Vec<GroupMember>, GroupRefusal>, StoreError>;

    /// Makes two users friends of each other, or records the request if the other has to agree.
    fn befriend(&self, request: &FriendRequest) -> Result<Befriended, StoreError>;

    /// Notes that `from` has sent `to` a friend request that is in no conversation.
    fn note_asked(&self, from: UserId, to: UserId) -> Result<(), StoreError>;

    /// Blocks `other` for `user`, who may block [`BLOCKED_MAX`] others.
    fn block(&self, user: UserId, other: UserId) -> Result<BlockOutcome, StoreError>;

    /// Unblocks `other`.
    fn unblock(&self, user: UserId, other: UserId) -> Result<BlockOutcome, StoreError>;

    /// The users whom `user` has blocked, by ascending id, with their names.
    fn blocked_by(&self, user: UserId) -> Result<Vec<(UserId, Option<String>)>, StoreError>;

    /// At most `limit` pairs of a user and another whom that user has blocked, ascending, after
    /// `after`.
    fn blocks_after(&self, after: (UserId, UserId), limit: usize) -> Result<Vec<(UserId, UserId)>, StoreError>;

    /// The account of a user; `None` if it is deleted.
    fn own(&self, user: UserId) -> Result<Option<OwnAccount>, StoreError>;

    /// Changes the name of a user, or whether others see the user's marks; `None` leaves it as it
    /// is. Returns the changed account, `None` if it is deleted.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`] if another user has that name.
    fn change_own(
        &self,
        user: UserId,
        name: Option<&str>,
        receipts: Option<bool>,
    ) -> Result<Option<OwnAccount>, StoreError>;

    /// The users of these who show no marks, and are shown nobody else's.
    fn hiding_marks(&self, users: &[UserId]) -> Result<Vec<UserId>, StoreError>;

    /// Replaces the stored password if it still equals the old one. Forgets all devices of the
    /// user, except the one to keep, whose earlier tokens become invalid. Returns the forgotten
    /// ones.
    fn change_password(&self, change: &PasswordChange) -> Result<Swapped<Vec<DeviceId>>, StoreError>;

    /// Deletes the account of a user if the stored password is still the one that was checked. The
    /// user leaves all groups, with entries there, and is removed from lists of friends and of
    /// blocked users; devices and waiting messages are deleted. The id is never used again, but the
    /// name may be.
    fn delete_account(&self, request: &AccountDeletion<'_>) -> Result<Swapped<Deletion>, StoreError>;
}

/// The way to this role.
pub type CommunityRole = MaybeRole<dyn Community>;

/// The most users that a user may block: their list must fit into one frame.
pub const BLOCKED_MAX: usize = 1000;
