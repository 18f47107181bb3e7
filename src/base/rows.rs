//! Rows of the database that replies show: users, groups and stored messages.

use super::disabled::is_disabled;
use super::ids::{GroupId, UserId};
use super::made_by_jwt::has_mark;

/// A row of the user table, without its secrets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its name as registered, 1 to 50 characters.
    pub name: String,
}

/// The state of an account, as its stored password shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AccountState {
    /// Whether an administrator has disabled it.
    pub is_disabled: bool,
    /// Whether a JSON web token has made it.
    pub is_made_by_jwt: bool,
}

impl AccountState {
    /// The state of the account with this stored password.
    pub fn of(stored: &str) -> AccountState {
        AccountState { is_disabled: is_disabled(stored), is_made_by_jwt: has_mark(stored) }
    }
}

/// A row of the group table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its name, at most 50 characters.
    pub name: String,
    /// Its description, at most 200 characters, possibly empty.
    pub description: String,
}

/// The key of a stored message, ascending in the order of arrival.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MessageId(pub i64);

/// A stored message as a fetch returns it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptMessage {
    /// Its key, for deleting it.
    pub id: MessageId,
    /// The frame's JSON text as it was appended.
    pub text: String,
}
