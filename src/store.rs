//! The durable facts: accounts, friends, groups and messages that wait for their recipient.
//!
//! [`Store`] is the seam between the chat domain and a database; [`roles`] says what is asked of
//! it. Its calls block, so only jobs and lanes make them, never a loop. Every change is durable
//! when its call returns `Ok`.
//!
//! The store keeps what it is given: rights, length limits and password hashing are decided before
//! it is asked.

pub mod mysql;
pub mod outages;
pub mod roles;
pub mod spool;
pub mod sqlite;
pub mod tables;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::roles::{Accounts, AllRoles, Contacts, Database, Messages, Role, States, Store};
pub use crate::base::rows::{Group, KeptMessage, MessageId, User};
use crate::protocol::UserId;

/// `User.state`, kept for neighbours and tools; the server itself never trusts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserState {
    /// Logged in somewhere.
    Online,
    /// Nowhere logged in.
    Offline,
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

/// What a stored message weighs in a mailbox beside its text.
pub const ROW_BYTES: usize = 64;

/// The names of two new friends, in the order they were asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FriendNames {
    /// The first user's name.
    pub a: String,
    /// The second user's name.
    pub b: String,
}

/// A message to store: one frame's JSON text for one recipient. The text is shared by all recipients
/// of a group message.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Whom it is for.
    pub to: UserId,
    /// UTF-8 JSON text without a raw newline.
    pub text: Arc<str>,
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

/// Why a store call failed. Nothing of a failed call remains in the database.
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
