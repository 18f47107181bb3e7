//! [`OldClient`]: a client of level 1 beside the devices.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::device::Wire;
use crate::protocol::UserId;

/// A user's one connection at level 1.
pub(super) struct OldClient {
    pub(super) user: UserId,
    pub(super) wire: Option<Wire>,
    pub(super) is_in: bool,
    /// What it has asked for, in order.
    pub(super) expected: VecDeque<OldReply>,
    /// What it was shown and what it has fetched, by id or number: how often.
    pub(super) got: BTreeMap<String, usize>,
}

/// A reply that it is owed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum OldReply {
    Login,
    Fetch,
    /// What it has sent up to here is settled: the numbers since the last one.
    Barrier(BTreeSet<u32>),
}

/// A message of a client of level 1.
pub(super) struct OldMessage {
    pub(super) from: UserId,
    pub(super) conv: crate::base::conversation::ConversationId,
    /// Its sender was told that everything up to it is settled, and of no error.
    pub(super) is_settled: bool,
}

impl OldClient {
    pub(super) fn new(user: UserId) -> OldClient {
        OldClient { user, wire: None, is_in: false, expected: VecDeque::new(), got: BTreeMap::new() }
    }

    pub(super) fn disconnect(&mut self) -> Option<Wire> {
        (self.is_in, self.expected) = (false, VecDeque::new());
        self.wire.take()
    }
}
