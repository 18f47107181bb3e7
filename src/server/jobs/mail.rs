//! [`Mail`]: fetching stored messages, and deleting them once they have arrived.

use std::sync::Arc;

use crate::protocol::{self, UserId};
use crate::routing::quotas::Quotas;
use crate::session::Outcome;
use crate::store::{KeptMessage, MessageId, Messages, ROW_BYTES, Role, StoreError};

/// Fetches and deletes stored messages.
pub struct Mail {
    store: Role<dyn Messages>,
    quotas: Arc<Quotas>,
    /// The most text that one fetch returns, in bytes.
    fetch_bytes_max: usize,
}

impl Mail {
    /// A fetch returns this number of bytes at most.
    pub fn new(store: Role<dyn Messages>, quotas: Arc<Quotas>, fetch_bytes_max: usize) -> Mail {
        Mail { store, quotas, fetch_bytes_max }
    }

    pub(super) fn fetch(&self, user: UserId) -> Result<Outcome, StoreError> {
        Ok(outcome(&self.store.get()?.fetch(user, self.fetch_bytes_max)?))
    }

    /// Returns as many messages as fit a frame that is joined with others.
    pub(super) fn fetch_frame(&self, user: UserId) -> Result<Outcome, StoreError> {
        let bytes_max = self.fetch_bytes_max.min(net::JOINED_BYTES_MAX);
        let mut messages = self.store.get()?.fetch(user, bytes_max)?;
        messages.truncate(protocol::fit_a_frame(&messages));
        Ok(outcome(&messages))
    }

    /// The stored messages of a user, counted.
    pub(super) fn waiting(&self, user: UserId) -> Result<Waiting, StoreError> {
        let store = self.store.get()?;
        let rows = store.fetch(user, COUNTED_BYTES)?;
        let bytes = if rows.is_empty() { 0 } else { store.mailbox_bytes(user)? };
        Ok(Waiting::new(rows.len(), rows.iter().map(|row| row.text.len() + ROW_BYTES).sum(), bytes))
    }

    pub(super) fn delete(&self, user: UserId, ids: &[MessageId]) -> Result<Outcome, StoreError> {
        self.store.get()?.delete(user, ids)?;
        self.quotas.deleted(user);
        Ok(Outcome::Deleted)
    }
}

/// Messages that wait for a login at level 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Waiting {
    /// The number of messages in the first 256 KiB.
    pub rows: usize,
    /// Whether there are more.
    pub more: bool,
    /// The bytes of all.
    pub bytes: usize,
}

impl Waiting {
    /// Of these rows with these bytes, when all have that many.
    fn new(rows: usize, bytes_of_rows: usize, bytes: usize) -> Waiting {
        Waiting { rows, more: bytes_of_rows < bytes, bytes }
    }
}

/// The text of which the messages are counted for an operator.
const COUNTED_BYTES: usize = 256 * 1024;

fn outcome(messages: &[KeptMessage]) -> Outcome {
    let ids = messages.iter().map(|message| message.id).collect();
    Outcome::Messages { reply: protocol::messages(messages), ids }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uncounted_messages_are_reported_as_more() {
        assert!(!Waiting::new(2, 500, 500).more);
        assert!(Waiting::new(2, 500, 501).more);
        assert!(!Waiting::new(0, 0, 0).more);
    }
}
