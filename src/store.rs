//! The durable facts: accounts, friends, groups and messages that wait for their recipient.
//!
//! [`Store`] is the seam between the chat domain and a database. Its calls block, so only jobs and lanes make them,
//! never a loop. Every change is durable when its call returns `Ok`.
//!
//! The store keeps what it is given: rights, length limits and password hashing are decided before it is asked.

pub mod mysql;
pub mod sqlite;
pub mod tables;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::metrics::PoolUse;
use crate::protocol::{GroupId, UserId};

/// What every database behind this server can do. All methods may be called from any thread but a loop.
pub trait Store: Send + Sync + 'static {
    /// One line for the log and the operator: which database this is and where.
    fn describe(&self) -> String;

    /// Whether a hashed password fits its column. Where it does not, passwords are stored and compared as plain text.
    fn fits_hashes(&self) -> bool;

    /// The stored password of `user` as it stands in the table (a PHC string, or plain text of the reference server),
    /// `None` for an unknown user.
    fn credential(&self, user: UserId) -> Result<Option<String>, StoreError>;

    /// The same of many users, in any order; those who are unknown or have none are left out.
    fn credentials(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>, StoreError> {
        let find = |user: &UserId| Ok(self.credential(*user)?.map(|stored| (*user, stored)));
        users.iter().filter_map(|user| find(user).transpose()).collect()
    }

    /// A new user, offline. Names are unique without regard to case and accents.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`] when the name is in use.
    fn register(&self, name: &str, credential: &str) -> Result<UserId, StoreError>;

    /// Replaces the stored password of `user`, but only where it still equals `old`.
    fn replace_credential(&self, user: UserId, old: &str, new: &str) -> Result<(), StoreError>;

    /// Writes `User.state` for many users at once. Later entries of one user win; unknown users are passed over.
    fn set_states(&self, changes: &[(UserId, UserState)]) -> Result<(), StoreError>;

    /// Writes that nobody is online.
    fn set_all_offline(&self) -> Result<(), StoreError>;

    /// Those of `users` whose `User.state` says online, in any order. The column is what reference nodes go by.
    fn online(&self, users: &[UserId]) -> Result<Vec<UserId>, StoreError>;

    /// The users after `user` whose `User.state` says online, by ascending id, at most `limit` of them.
    fn online_after(&self, user: UserId, limit: usize) -> Result<Vec<UserId>, StoreError>;

    /// Makes two users friends of each other, each row once. `None` when one of them does not exist.
    fn add_friends(&self, a: UserId, b: UserId) -> Result<Option<FriendNames>, StoreError>;

    /// Deletes the one row `from` -> `to`; no such row is no error.
    fn remove_friend(&self, from: UserId, to: UserId) -> Result<(), StoreError>;

    /// The friends of `user` by ascending id.
    fn friends(&self, user: UserId) -> Result<Vec<User>, StoreError>;

    /// One user, `None` if unknown.
    fn user(&self, user: UserId) -> Result<Option<User>, StoreError>;

    /// A new group with `owner` as its creator and first member.
    fn create_group(&self, owner: UserId, name: &str, description: &str) -> Result<GroupId, StoreError>;

    /// Makes `user` a normal member unless it is a member already, or the group has `members_max` members. Nodes that do so
    /// at the same time may exceed that.
    fn join_group(&self, user: UserId, group: GroupId, members_max: usize) -> Result<Joined, StoreError>;

    /// Whether `user` is a member, without reading all that are.
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

    /// One group, `None` if unknown.
    fn group(&self, group: GroupId) -> Result<Option<Group>, StoreError>;

    /// At most `limit` groups whose name contains `text` literally, without regard to case and accents, by ascending id; those
    /// that are found within [`SEARCH_TIME`].
    fn groups_named(&self, text: &str, limit: usize) -> Result<Vec<Group>, StoreError>;

    /// The members of `group` by ascending id; empty for an unknown group, since every group has its creator.
    fn members(&self, group: GroupId) -> Result<Vec<UserId>, StoreError>;

    /// Keeps messages for recipients that are not online. The whole batch is one transaction: all or nothing.
    /// Returns one outcome per message, in the order given; of one recipient, later messages are fetched later.
    fn append(&self, messages: &[Message]) -> Result<Vec<Kept>, StoreError>;

    /// Whether [`Store::append`] would not find this text too long, as far as is known without asking the database.
    fn fits(&self, _text: &str) -> bool {
        true
    }

    /// What is stored for `user`, in bytes, with [`MESSAGE_BYTES`](crate::quotas::MESSAGE_BYTES) for each message beside its
    /// text. Asked only of mailboxes that much goes into.
    fn mailbox_bytes(&self, _user: UserId) -> Result<usize, StoreError> {
        Ok(0)
    }

    /// The oldest messages kept for `user`, in the order they were appended, as many as fit in `bytes_max` of text
    /// but at least one if there is any. Nothing is deleted.
    fn fetch(&self, user: UserId, bytes_max: usize) -> Result<Vec<KeptMessage>, StoreError>;

    /// Deletes exactly these messages of `user`; one that is gone already is no error.
    fn delete(&self, user: UserId, ids: &[MessageId]) -> Result<(), StoreError>;

    /// How many threads may append at the same time and be faster for it.
    fn appenders(&self) -> usize {
        1
    }

    /// How the connections are used, if there are any. Does not block.
    fn connections(&self) -> Option<PoolUse> {
        None
    }

    /// Finds out whether the database keeps what it is given, by a small write if need be, within a few seconds whatever is
    /// wrong with it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it does not, or says nothing.
    fn check(&self) -> Result<(), StoreError>;

    /// Whether the database was taken away for good, so that what it is given now would be found by nobody. It should be
    /// given only what nobody can be told of, and the server should stop.
    fn is_lost(&self) -> bool {
        false
    }

    /// Has `stop` called when [`Store::is_lost`] becomes true, from any thread.
    fn on_lost(&self, _stop: Box<dyn Fn() + Send + Sync>) {}

    /// Has `look` called when it begins to keep nothing, from any thread, so that nobody needs to wait for the next
    /// [`Store::check`] to know.
    fn on_trouble(&self, _look: Box<dyn Fn() + Send + Sync>) {}
}

/// `User.state`, kept for neighbours and tools; the server itself never trusts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserState {
    /// Logged in somewhere.
    Online,
    /// Nowhere logged in.
    Offline,
}

/// A row of the user table, without its secrets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its name as registered, 1 to 50 characters.
    pub name: String,
}

/// A row of the group table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its name, at most 50 characters.
    pub name: String,
    /// Its description, at most 200 characters, perhaps empty.
    pub description: String,
}

/// What became of a user who wants to join a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Joined {
    /// It is a member now, of the group with this name.
    New(String),
    /// It was one before.
    Already(String),
    /// The group has as many members as it may.
    Full,
    /// There is none with that id.
    NoSuchGroup,
}

/// What a user is to a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Membership {
    /// One of its members.
    Member,
    /// Not one of them.
    Stranger,
    /// Nobody is a member.
    NoSuchGroup,
}

/// No search goes on for longer, however many groups there are.
pub const SEARCH_TIME: Duration = Duration::from_secs(1);
/// Groups that a search looks at before it looks at the time.
pub const SEARCH_PAGE: usize = 10_000;

/// The names of two new friends, in the order they were asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FriendNames {
    /// The first user's name.
    pub a: String,
    /// The second user's name.
    pub b: String,
}

/// A message to keep: one frame's JSON text for one recipient. The text is shared by all recipients of a group message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Whom it is for.
    pub to: UserId,
    /// UTF-8 JSON text without a raw newline.
    pub text: Arc<str>,
}

/// What became of one [`Message`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// It is on disk.
    Stored,
    /// No such user; nothing was stored.
    NoSuchUser,
    /// The table's column is too narrow for it (the reference server's schema); nothing was stored.
    TooLong,
}

/// The key of a kept message, ascending in the order of arrival.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MessageId(pub i64);

/// A message as it comes back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptMessage {
    /// Its key, for [`Store::delete`].
    pub id: MessageId,
    /// The frame's JSON text as it was appended.
    pub text: String,
}

/// Why a store call failed. Nothing of a failed call remains in the database.
#[derive(Debug)]
pub enum StoreError {
    /// The user name is in use; answer the client, do not retry.
    NameTaken,
    /// The database cannot be reached, is busy for too long or is out of space: the same call may work later.
    Unavailable(Box<dyn Error + Send + Sync>),
    /// The database refused the statement: a bug or a damaged database, so retrying will not help.
    Failed(Box<dyn Error + Send + Sync>),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::NameTaken => f.write_str("the name is in use"),
            StoreError::Unavailable(cause) => write!(f, "the database is not available: {cause}"),
            StoreError::Failed(cause) => write!(f, "the database refused: {cause}"),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StoreError::NameTaken => None,
            StoreError::Unavailable(cause) | StoreError::Failed(cause) => Some(&**cause),
        }
    }
}
