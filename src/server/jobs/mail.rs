//! [`Mail`]: fetching stored messages, and deleting them once they have arrived.

use std::sync::Arc;

use crate::protocol::{self, UserId};
use crate::routing::quotas::Quotas;
use crate::session::Outcome;
use crate::store::{KeptMessage, MessageId, Messages, Role, StoreError};

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

    pub(super) fn delete(&self, user: UserId, ids: &[MessageId]) -> Result<Outcome, StoreError> {
        self.store.get()?.delete(user, ids)?;
        self.quotas.deleted(user);
        Ok(Outcome::Deleted)
    }
}

fn outcome(messages: &[KeptMessage]) -> Outcome {
    let ids = messages.iter().map(|message| message.id).collect();
    Outcome::Messages { reply: protocol::messages(messages), ids }
}
