//! [`Payer`]: whose share something is.

use std::fmt;

use super::Source;
use crate::protocol::{GroupId, UserId};

/// The account where one is known, else the address. An account with many connections, from many addresses, is one payer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Payer {
    /// A connection that is logged in, by the user it logged in as first.
    Account(UserId),
    /// A connection that is not.
    Address(Source),
    /// A group, for what is stored of it in the mailboxes of its members.
    Group(GroupId),
}

/// The payer and the address that a share belongs to: both bound it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The owner of the share.
    pub payer: Payer,
    /// Where the connection comes from.
    pub source: Source,
}

impl Payer {
    /// A number for it that no other has: half of them are for accounts and groups. No IPv6 network has one of those, which
    /// begin with 8000:0000 and 8000:0001 (RFC 4291, 2.4: not assigned).
    pub fn share(self) -> u64 {
        match self {
            Payer::Account(user) => ACCOUNT | u64::from(user.0.cast_unsigned()),
            Payer::Address(source) => source.number(),
            Payer::Group(group) => GROUP | u64::from(group.0.cast_unsigned()),
        }
    }
}

/// Marks accounts, and groups.
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
