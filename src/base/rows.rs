//! Rows of the database that replies show: users, groups and stored messages.

use super::ids::{GroupId, UserId};

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
