//! [`Change`]: what a frame changes in the store. The changes of one read are one transaction.

use crate::conv::Conv;
use crate::frame::{Line, Message, Page, Peer, Read};

/// A change of the store.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// The login succeeded.
    Account(Account),
    /// A new token of this device.
    Token(String),
    /// A conversation as a 43 shows it. `adopt`: the store holds no cursor of it, so it begins at the head.
    Line { line: Line, adopt: bool },
    /// A message in its place: the cursor moves to it. What lies between is a gap.
    Take { conv: Conv, message: Message },
    /// An own message is committed. `place`: it is the next one of its conversation, so the cursor moves to it.
    Acked { cid: String, conv: Conv, seq: u64, tag: String, time: i64, place: bool },
    /// An own message is refused for good.
    Refused { cid: String, errno: i64, errmsg: String },
    /// What the store holds of a conversation is not of the server's history, which ends at `head`.
    /// `is_counted`: a 43 of this login has counted what is not read of it.
    Reset { conv: Conv, head: u64, is_counted: bool },
    /// A conversation is not the user's any more.
    Closed { conv: Conv, errno: i64 },
    /// A page; `before` is what was asked for.
    Page { page: Page, before: Option<u64> },
    /// Nothing below this number is kept by the server.
    Floor { conv: Conv, floor: u64 },
    /// The own mark.
    Read(Read),
    /// A partner's marks.
    Peer(Peer),
}

/// The user that is logged in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Account {
    pub(crate) user: i64,
    pub(crate) name: String,
    pub(crate) token: String,
    pub(crate) token_expires: i64,
    pub(crate) frame_max: usize,
}
