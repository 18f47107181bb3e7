//! [`Mail`]: fetching what waits for users, and deleting what has arrived.

use crate::protocol::{self, UserId};
use crate::routing::quotas::Quotas;
use crate::session::Outcome;
use crate::store::{KeptMessage, MessageId, Messages, Role, StoreError};

/// What waits for users.
pub struct Mail {
    store: Role<dyn Messages>,
    /// How much may be stored for each user.
    pub quotas: Quotas,
    /// Most text that one fetch returns, in bytes.
    fetch_bytes_max: usize,
}

impl Mail {
    /// Mailboxes of so many bytes, of which a fetch returns so many.
    pub fn new(store: Role<dyn Messages>, mailbox_bytes_max: usize, fetch_bytes_max: usize) -> Mail {
        Mail { store, quotas: Quotas::new(mailbox_bytes_max), fetch_bytes_max }
    }

    pub(super) fn fetch(&self, user: UserId) -> Result<Outcome, StoreError> {
        Ok(outcome(&self.store.get()?.fetch(user, self.fetch_bytes_max)?))
    }

    /// As many as fit a frame that is joined with others.
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
