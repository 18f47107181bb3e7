//! [`FailedSends`]: the connections that must retry a failed send before their later ones pass.

use std::sync::{Arc, Weak};

use rustc_hash::FxHashMap;

use super::recording::SendOwed;
use crate::base::conversation::ConversationId;
use crate::delivery::ClientLink;

/// Connections with a failed send that was not retried yet, and its conversation.
#[derive(Default)]
pub(super) struct FailedSends {
    failed: FxHashMap<FailedKey, Weak<ClientLink>>,
    /// The number of entries at which those of ended connections are dropped.
    tidy_at: usize,
    /// A panic has ended connections whose sends it has lost. Their later ones may still come.
    has_panicked: bool,
}

/// A connection and a conversation.
type FailedKey = (usize, ConversationId);

impl FailedSends {
    /// Whether a send may pass: no earlier one of the connection to the conversation waits to be
    /// retried.
    pub(super) fn lets_pass(&mut self, owed: &SendOwed) -> bool {
        if self.has_panicked && owed.link.as_ref().is_some_and(|link| link.is_sealed()) {
            return false;
        }
        if self.failed.is_empty() {
            return true;
        }
        let Some(key) = key(owed) else { return true };
        if owed.submission.resumes {
            self.failed.remove(&key);
        }
        !self.failed.contains_key(&key)
    }

    /// The batch before has panicked.
    pub(super) fn note_panic(&mut self) {
        self.has_panicked = true;
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

/// The lowest number of entries at which those of ended connections are dropped.
const TIDY_MIN: usize = 1024;

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::history::pump::Submission;
    use crate::protocol::GroupId;

    #[test]
    fn nothing_passes_a_send_that_a_panic_has_lost() {
        let (link, other) = (net::simulation::link_to_nowhere().unwrap(), net::simulation::link_to_nowhere().unwrap());
        let owed = |link| SendOwed::new(link, ConversationId::of_group(GroupId(1)), Submission::ALONE);
        let (mut failed, later) = (FailedSends::default(), owed(&link));
        assert!(failed.lets_pass(&later));
        let batch = owed(&link);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _batch = batch;
            std::panic::panic_any("as a commit would");
        }));
        assert!(panicked.is_err());
        failed.note_panic();
        assert!(!failed.lets_pass(&later), "it was in the lane already");
        assert!(failed.lets_pass(&owed(&other)));
    }
}
