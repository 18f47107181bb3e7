//! [`Payer`]: the owner of a share.

use std::fmt;

use super::Source;
use crate::protocol::{GroupId, UserId};

/// An account if it is known, otherwise an address. An account with many connections from many
/// addresses is one payer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Payer {
    /// The account of a connection: the user that it first logged in as.
    Account(UserId),
    /// The address of a connection that is not logged in.
    Address(Source),
    /// A group, for its messages in the mailboxes of its members.
    Group(GroupId),
}

/// The payer and the address of a share: both limit it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The owner of the share.
    pub payer: Payer,
    /// The address of the connection.
    pub source: Source,
}

impl Payer {
    /// A unique number for the payer. Half of all numbers are for accounts and groups: they begin
    /// with 8000:0000 and 8000:0001, which no IPv6 network does (RFC 4291, 2.4: not assigned).
    pub fn share(self) -> u64 {
        match self {
            Payer::Account(user) => ACCOUNT | u64::from(user.0.cast_unsigned()),
            Payer::Address(source) => source.number(),
            Payer::Group(group) => GROUP | u64::from(group.0.cast_unsigned()),
        }
    }
}

/// The bit that marks accounts and groups.
const ACCOUNT: u64 = 1 << 63;
const GROUP: u64 = ACCOUNT | 1 << 32;

impl fmt::Display for Payer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payer::Account(user) => write!(f, "user {user}"),
            Payer::Address(source) => write!(f, "{source}"),
            Payer::Group(group) => write!(f, "group {}", group.0),
        }
    }
}
