//! The roles of a store. Each caller takes only the one that it uses, and a test double implements
//! only that one.
//!
//! | role | content |
//! |---|---|
//! | [`Accounts`] | the users and their passwords |
//! | [`Contacts`] | friends and groups |
//! | [`Messages`] | messages that wait for offline users |
//! | [`States`] | the column `User.state`, for neighbours and tools |
//! | [`History`] | conversations of level 2; the tables may lack them |
//! | [`HookQueue`] | messages for the hook; the tables may lack the queue |
//! | [`Community`] | own accounts, blocked users and changes of groups; the tables may lack them |
//! | [`Database`] | whether the database works, for the operator |
//!
//! A [`Role`] is the way to one of them, which may not be open yet.

use std::sync::{Arc, OnceLock};

use rustc_hash::FxHashSet;

use super::community::{Community, CommunityRole};
use super::history::{History, HistoryRole};
use super::hooks::{HookQueue, HookRole};
use super::{
    AppendOutcome, FriendNames, Group, Joined, KeptMessage, Membership, MessageId, NewMessage, StoreError, User,
    UserState,
};
use crate::base::loads::PoolUse;
use crate::base::rows::AccountState;
use crate::protocol::{GroupId, UserId};

/// The durable facts, by roles. Cloning shares them.
#[derive(Clone)]
pub struct Store {
    /// The accounts.
    pub accounts: Role<dyn Accounts>,
    /// Friends and groups.
    pub contacts: Role<dyn Contacts>,
    /// Stored messages.
    pub messages: Role<dyn Messages>,
    /// `User.state`.
    pub states: Role<dyn States>,
    /// Conversations of level 2.
    pub history: HistoryRole,
    /// Changes that users make to accounts and groups at level 2.
    pub community: CommunityRole,
    /// Messages that may have to be posted to the hook.
    pub hooks: HookRole,
    /// The database behind the roles. Always available.
    pub database: Arc<dyn Database>,
}

impl Store {
    /// All roles of one database.
    pub fn of<S: AllRoles>(store: Arc<S>) -> Store {
        Store {
            accounts: Role::of(store.clone()),
            contacts: Role::of(store.clone()),
            messages: Role::of(store.clone()),
            states: Role::of(store.clone()),
            history: HistoryRole::of(store.clone().history()),
            community: CommunityRole::of(store.clone().community()),
            hooks: HookRole::of(store.clone().hooks()),
            database: store,
        }
    }

    /// The roles of a database that is not open yet, and what opens them.
    pub(super) fn late(database: Arc<dyn Database>) -> (Store, Opener) {
        let (accounts, contacts, messages, states) = (Role::none(), Role::none(), Role::none(), Role::none());
        let (history, community, hooks) = (HistoryRole::default(), CommunityRole::default(), HookRole::default());
        let store = Store { accounts, contacts, messages, states, history, community, hooks, database };
        let Store { accounts, contacts, messages, states, history, community, hooks, .. } = store.clone();
        (store, Opener { accounts, contacts, messages, states, history, community, hooks })
    }
}

/// Opens the roles of a store that was made before its database answered.
pub(super) struct Opener {
    accounts: Role<dyn Accounts>,
    contacts: Role<dyn Contacts>,
    messages: Role<dyn Messages>,
    states: Role<dyn States>,
    history: HistoryRole,
    community: CommunityRole,
    hooks: HookRole,
}

impl Opener {
    pub(super) fn open<S: AllRoles>(&self, store: &Arc<S>) {
        self.accounts.open(store.clone());
        self.contacts.open(store.clone());
        self.messages.open(store.clone());
        self.states.open(store.clone());
        self.history.open(store.clone().history());
        self.community.open(store.clone().community());
        self.hooks.open(store.clone().hooks());
    }
}

/// The way to one role of a store. Cloning shares it.
pub struct Role<R: ?Sized>(Arc<OnceLock<Arc<R>>>);

impl<R: ?Sized> Role<R> {
    /// An open role.
    pub fn of(role: Arc<R>) -> Role<R> {
        Role(Arc::new(OnceLock::from(role)))
    }

    /// A role that is not open, and may never be.
    pub fn none() -> Role<R> {
        Role(Arc::default())
    }

    /// The role.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] before it is open.
    pub fn get(&self) -> Result<&R, StoreError> {
        self.0.get().map(|role| &**role).ok_or_else(|| StoreError::Unavailable(NOT_OPEN.into()))
    }

    /// Opens it, unless it is open.
    fn open(&self, role: Arc<R>) {
        let _ = self.0.set(role);
    }
}

impl Role<dyn Messages> {
    /// Whether [`Messages::fits`]. False before the tables are known, because a text that is
    /// accepted must be stored later.
    pub fn fits(&self, text: &str) -> bool {
        self.get().is_ok_and(|messages| messages.fits(text))
    }
}

impl<R: ?Sized> Clone for Role<R> {
    fn clone(&self) -> Role<R> {
        Role(self.0.clone())
    }
}

const NOT_OPEN: &str = "the database has not answered yet";

/// A database that has all roles.
pub trait AllRoles: Accounts + Contacts + Messages + States + Database {}

impl<S: Accounts + Contacts + Messages + States + Database> AllRoles for S {}

/// The accounts. Its methods block and may be called from any thread but a loop, as those of all
/// roles may.
pub trait Accounts: Send + Sync + 'static {
    /// Whether a hashed password fits its column. If not, passwords are stored and compared as
    /// plain text.
    fn fits_hashes(&self) -> bool;

    /// The stored password of `user` as it stands in the table (a PHC string, or plain text of the
    /// reference server), `None` for an unknown user.
    fn credential(&self, user: UserId) -> Result<Option<String>, StoreError>;

    /// The stored passwords of many users, in any order. Users who are unknown or have none are
    /// left out.
    fn credentials(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>, StoreError> {
        let find = |user: &UserId| Ok(self.credential(*user)?.map(|stored| (*user, stored)));
        users.iter().filter_map(|user| find(user).transpose()).collect()
    }

    /// Creates a user, offline. Names are unique without regard to case and accents.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`] if the name is in use.
    fn register(&self, name: &str, credential: &str) -> Result<UserId, StoreError>;

    /// Replaces the stored password of `user` if it still equals `old`.
    fn replace_credential(&self, user: UserId, old: &str, new: &str) -> Result<(), StoreError>;

    /// One user, `None` if unknown.
    fn user(&self, user: UserId) -> Result<Option<User>, StoreError>;

    /// At most `limit` accounts with ids above `after`, by ascending id, each with its
    /// state.
    fn accounts_after(&self, _after: UserId, _limit: usize) -> Result<Vec<(User, AccountState)>, StoreError> {
        Err(StoreError::Failed("this store does not list accounts".into()))
    }

    /// The user with this name, without regard to case and accents.
    fn user_named(&self, name: &str) -> Result<Option<User>, StoreError>;
}

/// Friends and groups.
pub trait Contacts: Send + Sync + 'static {
    /// Makes two users friends of each other. Existing rows are kept. `None` if one of them does
    /// not exist.
    fn add_friends(&self, a: UserId, b: UserId) -> Result<Option<FriendNames>, StoreError>;

    /// Deletes the row `from` -> `to`. It is not an error if there is none.
    fn remove_friend(&self, from: UserId, to: UserId) -> Result<(), StoreError>;

    /// The friends of `user` by ascending id.
    fn friends(&self, user: UserId) -> Result<Vec<User>, StoreError>;

    /// Creates a group with `owner` as its creator and first member.
    fn create_group(&self, owner: UserId, name: &str, description: &str) -> Result<GroupId, StoreError>;

    /// Makes `user` a normal member, unless the user is one already or the group has `members_max`
    /// members. Several nodes at once may exceed that limit.
    fn join_group(&self, user: UserId, group: GroupId, members_max: usize) -> Result<Joined, StoreError>;

    /// Whether `user` is a member, without reading all members.
    fn membership(&self, user: UserId, group: GroupId) -> Result<Membership, StoreError> {
        let members = self.members(group)?;
        Ok(match members.binary_search(&user) {
            Ok(_) => Membership::Member,
            Err(_) if members.is_empty() => Membership::NoSuchGroup,
            Err(_) => Membership::Stranger,
        })
    }

    /// The groups that `user` is a member of, by ascending id.
    fn groups_of(&self, user: UserId) -> Result<Vec<Group>, StoreError>;

    /// Whether `user` is a member of `count` groups or more.
    fn is_in_groups(&self, user: UserId, count: usize) -> Result<bool, StoreError> {
        Ok(self.groups_of(user)?.len() >= count)
    }

    /// One group, `None` if unknown.
    fn group(&self, group: GroupId) -> Result<Option<Group>, StoreError>;

    /// At most `limit` groups with ids above `after`, by ascending id, each with its number of
    /// members.
    fn groups_after(&self, _after: GroupId, _limit: usize) -> Result<Vec<(Group, u64)>, StoreError> {
        Err(StoreError::Failed("this store does not list groups".into()))
    }

    /// At most `limit` groups whose name contains `text` literally, without regard to case and
    /// accents, by ascending id: those that are found within [`SEARCH_TIME`](super::SEARCH_TIME).
    fn groups_named(&self, text: &str, limit: usize) -> Result<Vec<Group>, StoreError>;

    /// The members of `group` by ascending id; empty for an unknown group, since every group has
    /// its creator.
    fn members(&self, group: GroupId) -> Result<Vec<UserId>, StoreError>;

    /// The users of these who are in these groups, in any order. The cost depends on the users and
    /// on the groups that they are in.
    fn memberships(&self, groups: &[GroupId], users: &[UserId]) -> Result<Vec<(GroupId, UserId)>, StoreError> {
        let wanted: FxHashSet<GroupId> = groups.iter().copied().collect();
        let mut found = Vec::new();
        for user in users {
            let theirs = self.groups_of(*user)?.into_iter().map(|group| group.id);
            found.extend(theirs.filter(|group| wanted.contains(group)).map(|group| (group, *user)));
        }
        Ok(found)
    }

    /// The members of each of these groups, in the order of the groups.
    fn members_of_each(&self, groups: &[GroupId]) -> Result<Vec<Vec<UserId>>, StoreError> {
        groups.iter().map(|group| self.members(*group)).collect()
    }
}

/// Messages that are read once, stored for users who are offline.
pub trait Messages: Send + Sync + 'static {
    /// Stores messages for offline recipients. The whole batch is one transaction: all or nothing.
    /// Returns one outcome per message, in the order given. A recipient fetches earlier messages of
    /// the batch first.
    fn append(&self, messages: &[NewMessage]) -> Result<Vec<AppendOutcome>, StoreError>;

    /// Whether [`Messages::append`] would not find this text too long, as far as is known without a
    /// query.
    fn fits(&self, _text: &str) -> bool {
        true
    }

    /// The bytes stored for `user`, including [`ROW_BYTES`](super::ROW_BYTES) for each message.
    /// Called only for mailboxes that receive much.
    fn mailbox_bytes(&self, _user: UserId) -> Result<usize, StoreError> {
        Ok(0)
    }

    /// The oldest messages stored for `user`, in the order they were appended: as many as fit in
    /// `bytes_max` of text, but at least one if there is any. Nothing is deleted.
    fn fetch(&self, user: UserId, bytes_max: usize) -> Result<Vec<KeptMessage>, StoreError>;

    /// Deletes exactly these messages of `user`; it is not an error if one is already gone.
    fn delete(&self, user: UserId, ids: &[MessageId]) -> Result<(), StoreError>;
}

/// `User.state`, which the server writes for neighbours and tools, and never trusts.
pub trait States: Send + Sync + 'static {
    /// Writes `User.state` for many users at once. The last entry of a user counts; unknown users
    /// are ignored.
    fn set_states(&self, changes: &[(UserId, UserState)]) -> Result<(), StoreError>;

    /// Sets all users to offline.
    fn set_all_offline(&self) -> Result<(), StoreError>;

    /// The users of these whose `User.state` says online, in any order. Nodes of the reference
    /// server rely on that column.
    fn online(&self, users: &[UserId]) -> Result<Vec<UserId>, StoreError>;

    /// The users after `user` whose `User.state` says online, by ascending id, at most `limit` of
    /// them.
    fn online_after(&self, user: UserId, limit: usize) -> Result<Vec<UserId>, StoreError>;
}

/// The database behind all roles.
pub trait Database: Send + Sync + 'static {
    /// One line for the log and the operator that names the database and its place.
    fn describe(&self) -> String;

    /// Conversations of level 2; `None` if the tables have none.
    fn history(self: Arc<Self>) -> Option<Arc<dyn History>> {
        None
    }

    /// Accounts, blocked users and groups of level 2; `None` if the tables lack what that needs.
    fn community(self: Arc<Self>) -> Option<Arc<dyn Community>> {
        None
    }

    /// The queue of the hook; `None` if the tables lack it.
    fn hooks(self: Arc<Self>) -> Option<Arc<dyn HookQueue>> {
        None
    }

    /// The number of threads that append faster together than one alone.
    fn appenders(&self) -> usize {
        1
    }

    /// The use of the connections, if there are any. Does not block.
    fn connections(&self) -> Option<PoolUse> {
        None
    }

    /// Checks within a few seconds whether the database stores messages, by a small write if
    /// necessary.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if it does not, or does not answer.
    fn check(&self) -> Result<(), StoreError>;

    /// Whether the database file was removed for good, so that nobody would find what is stored
    /// now. Then only messages without a sender to notify should still be stored, and the server
    /// should stop.
    fn is_lost(&self) -> bool {
        false
    }

    /// Registers `stop`, which any thread may call when [`Database::is_lost`] becomes true.
    fn on_lost(&self, _stop: StoreCallback) {}

    /// Registers `look`, which any thread may call when the database begins to refuse writes, so
    /// that the caller need not wait for the next [`Database::check`].
    fn on_trouble(&self, _look: StoreCallback) {}
}

/// The function that a store calls, on any thread, when its condition changes. It must neither
/// block nor call the store.
pub type StoreCallback = Box<dyn Fn() + Send + Sync>;
