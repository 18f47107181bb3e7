//! [`Change`]: a change that a frame makes to the store. The changes of one read are one
//! transaction.

use crate::conv::Conv;
use crate::frame::{Line, Message, Page, Peer, Read};

/// A change of the store.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// The login succeeded.
    Account(Account),
    /// A new token of this device.
    Token(String),
    /// A conversation as a 43 shows it. `adopt`: the store holds no cursor of it, so it begins at
    /// the head.
    Line { line: Line, adopt: bool },
    /// A message in its place: the cursor moves to it. The numbers in between are a gap.
    Take { conv: Conv, message: Message },
    /// An own message is committed. `place`: it is the next one of its conversation, so the cursor
    /// moves to it.
    Acked { cid: String, conv: Conv, seq: u64, tag: String, time: i64, place: bool },
    /// An own message is refused for good.
    Refused { cid: String, errno: i64, errmsg: String },
    /// The messages of a conversation in the store are not of the server's history, which ends at
    /// `head`. `is_counted`: a 43 of this login has counted the conversation's unread messages.
    Reset { conv: Conv, head: u64, is_counted: bool },
    /// A conversation no longer belongs to the user.
    Closed { conv: Conv, errno: i64 },
    /// A page; `before` is the number that the request named.
    Page { page: Page, before: Option<u64> },
    /// The server keeps no message below this number.
    Floor { conv: Conv, floor: u64 },
    /// The user's own read mark.
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
