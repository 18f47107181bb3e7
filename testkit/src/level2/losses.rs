//! [`Losses`]: the messages that the database has lost, by a restored backup or a failover. A reset
//! is right only if a client holds some of them.

use std::collections::{BTreeMap, BTreeSet};

/// See the [module](self). Conversations have the names that the client uses.
#[derive(Clone, Default, Debug)]
pub struct Losses {
    convs: BTreeMap<String, Loss>,
}

#[derive(Clone, Default, Debug)]
struct Loss {
    /// The numbers of lost messages, and their tags.
    messages: BTreeSet<(u64, String)>,
    /// The user's read mark before the loss.
    read: u64,
}

impl Losses {
    /// Notes that a message is lost.
    pub fn lose(&mut self, conv: &str, seq: u64, tag: &str) {
        self.convs.entry(conv.to_owned()).or_default().messages.insert((seq, tag.to_owned()));
    }

    /// Notes that the user's read mark was here and is lower now.
    pub fn lose_mark(&mut self, conv: &str, read: u64) {
        let loss = self.convs.entry(conv.to_owned()).or_default();
        loss.read = loss.read.max(read);
    }

    /// Whether this message is lost.
    pub(super) fn has(&self, conv: &str, seq: u64, tag: &str) -> bool {
        self.convs.get(conv).is_some_and(|loss| loss.messages.contains(&(seq, tag.to_owned())))
    }

    /// Whether a message with this number is lost.
    pub(super) fn has_number(&self, conv: &str, seq: u64) -> bool {
        self.convs.get(conv).is_some_and(|loss| loss.messages.iter().any(|(lost, _)| *lost == seq))
    }

    /// Whether any message of a conversation is lost.
    pub(super) fn concerns(&self, conv: &str) -> bool {
        self.convs.get(conv).is_some_and(|loss| !loss.messages.is_empty())
    }

    /// Whether a read mark may have been here before the loss.
    pub(super) fn has_mark(&self, conv: &str, read: u64) -> bool {
        self.convs.get(conv).is_some_and(|loss| read <= loss.read)
    }
}
