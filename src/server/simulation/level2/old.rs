//! [`OldClient`]: a client of level 1 beside the devices, and [`OldMessages`]: the messages that
//! all of them have written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::device::Wire;
use crate::base::conversation::ConversationId;
use crate::protocol::UserId;

/// A user's one connection at level 1.
pub(super) struct OldClient {
    pub(super) user: UserId,
    pub(super) wire: Option<Wire>,
    pub(super) is_in: bool,
    /// The replies that it expects, in order.
    pub(super) expected: VecDeque<OldReply>,
    /// The number of times that it was shown or has fetched each message, by id or number.
    pub(super) got: BTreeMap<String, usize>,
}

/// A reply that the server owes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum OldReply {
    Login,
    Fetch,
    /// Its messages up to here are settled: the numbers since the last one.
    Barrier(BTreeSet<u32>),
}

/// A message of a client of level 1.
pub(super) struct OldMessage {
    pub(super) from: UserId,
    pub(super) conv: ConversationId,
    /// Whether its sender was told that everything up to it is settled, without an error.
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

    /// The numbers of messages whose settlement it has asked about.
    pub(super) fn asked(&self) -> BTreeSet<u32> {
        let barriers = self.expected.iter().filter_map(|reply| match reply {
            OldReply::Barrier(numbers) => Some(numbers),
            _ => None,
        });
        barriers.flatten().copied().collect()
    }
}

/// The messages of the clients of level 1, by number.
#[derive(Default)]
pub(super) struct OldMessages {
    by_number: BTreeMap<u32, OldMessage>,
    last: u32,
}

impl OldMessages {
    /// Notes a new one. Returns its number.
    pub(super) fn add(&mut self, from: UserId, conv: ConversationId) -> u32 {
        self.last += 1;
        self.by_number.insert(self.last, OldMessage { from, conv, is_settled: false });
        self.last
    }

    pub(super) fn unsettled_of(&self, from: UserId) -> impl Iterator<Item = u32> {
        let own = self.by_number.iter().filter(move |(_, message)| message.from == from && !message.is_settled);
        own.map(|(number, _)| *number)
    }

    pub(super) fn settle(&mut self, numbers: BTreeSet<u32>) {
        for number in numbers {
            self.by_number.entry(number).and_modify(|message| message.is_settled = true);
        }
    }

    /// Forgets this sender's unsettled messages, whose fate is not known.
    pub(super) fn forget_unsettled_of(&mut self, from: UserId) {
        self.by_number.retain(|_, message| message.from != from || message.is_settled);
    }

    pub(super) fn settled(&self) -> impl Iterator<Item = (u32, &OldMessage)> {
        let settled = self.by_number.iter().filter(|(_, message)| message.is_settled);
        settled.map(|(number, message)| (*number, message))
    }
}
