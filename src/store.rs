//! The durable facts: accounts, friends, groups and messages that wait for their recipient.
//!
//! [`Store`] is the seam between the chat domain and a database; [`roles`] are its interfaces. Its
//! calls block, so only jobs and lanes make them, never a loop. Every change is durable when its
//! call returns `Ok`.
//!
//! The store decides nothing about rights, length limits and password hashing: its callers have
//! done so before.

pub mod community;
pub mod history;
pub mod hooks;
pub mod maybe;
#[cfg(test)]
pub(crate) mod memory;
pub mod mysql;
pub mod outages;
pub mod roles;
#[cfg(test)]
pub(crate) mod some_contacts;
pub mod spool;
pub mod sqlite;
pub mod tables;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::roles::{Accounts, AllRoles, Contacts, Database, Messages, Role, States, Store, StoreCallback};
use crate::base::conversation::ConversationId;
pub use crate::base::rows::{Group, KeptMessage, MessageId, User};
use crate::protocol::UserId;

/// `User.state`, written for neighbours and tools; the server itself never trusts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserState {
    /// Logged in somewhere.
    Online,
    /// Logged in nowhere.
    Offline,
}

/// The result of a request to join a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Joined {
    /// The user is a member now, of the group with this name.
    New(String),
    /// The user was already a member, of the group with this name.
    Already(String),
    /// The group has no room for another member.
    Full,
    /// No group has that id.
    NoSuchGroup,
}

/// Whether a user is a member of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Membership {
    /// A member.
    Member,
    /// Not a member, but others are.
    Stranger,
    /// Nobody is a member.
    NoSuchGroup,
}

/// The longest time of a search, however many groups there are.
pub const SEARCH_TIME: Duration = Duration::from_secs(1);
/// The number of groups that a search examines between two looks at the clock.
pub const SEARCH_PAGE: usize = 10_000;

/// The bytes that a stored message takes in a mailbox, beside its text.
pub const ROW_BYTES: usize = 64;

/// The names of two new friends, in the order of the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FriendNames {
    /// The first user's name.
    pub a: String,
    /// The second user's name.
    pub b: String,
}

/// A message to store: the JSON text of one frame, for one recipient. All recipients of a group
/// message share the text.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// The recipient.
    pub to: UserId,
    /// UTF-8 JSON text without a raw newline.
    pub text: Arc<str>,
    /// The conversation that contains it already. Its row gets a mark: this conversation and its
    /// last number, which is the message's own or a later one.
    pub recorded: Option<ConversationId>,
}

impl NewMessage {
    /// A message that is in no conversation.
    pub fn new(to: UserId, text: impl Into<Arc<str>>) -> NewMessage {
        NewMessage { to, text: text.into(), recorded: None }
    }
}

/// The outcome for one [`NewMessage`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendOutcome {
    /// It is on disk.
    Stored,
    /// No such user; nothing was stored.
    NoSuchUser,
    /// The table's column is too narrow for it (the reference server's schema); nothing was stored.
    TooLong,
}

/// The reason why a store call failed. Nothing of a failed call remains in the database.
#[derive(Debug)]
pub enum StoreError {
    /// The user name is in use; answer the client, do not retry.
    NameTaken,
    /// The database cannot be reached, is busy for too long or is out of space: the same call may
    /// work later.
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
