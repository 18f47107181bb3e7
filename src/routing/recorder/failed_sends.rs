//! [`FailedSends`]: which connections have to send a message again before later ones of theirs pass.

use std::sync::{Arc, Weak};

use rustc_hash::FxHashMap;

use super::recording::SendOwed;
use crate::base::conversation::ConversationId;
use crate::delivery::ClientLink;

/// Connections with a send that failed and has not come again, and its conversation.
#[derive(Default)]
pub(super) struct FailedSends {
    failed: FxHashMap<FailedKey, Weak<ClientLink>>,
    /// Those of connections that have ended are dropped when there are this many.
    tidy_at: usize,
}

/// A connection and a conversation.
type FailedKey = (usize, ConversationId);

impl FailedSends {
    /// Whether no earlier send of the connection to the conversation has failed and not come again.
    pub(super) fn lets_pass(&mut self, owed: &SendOwed) -> bool {
        if self.failed.is_empty() {
            return true;
        }
        let Some(key) = key(owed) else { return true };
        if owed.submission.resumes {
            self.failed.remove(&key);
        }
        !self.failed.contains_key(&key)
    }

    pub(super) fn note(&mut self, owed: &SendOwed) {
        if self.failed.len() >= self.tidy_at {
            self.failed.retain(|_, link| link.strong_count() > 0);
            self.tidy_at = (2 * self.failed.len()).max(TIDY_MIN);
        }
        if let (Some(key), Some(link)) = (key(owed), &owed.link) {
            self.failed.insert(key, Arc::downgrade(link));
        }
    }
}

fn key(owed: &SendOwed) -> Option<FailedKey> {
    owed.link.as_ref().map(|link| (Arc::as_ptr(link) as usize, owed.conv))
}

/// The fewest failures after which those of ended connections are dropped.
const TIDY_MIN: usize = 1024;
