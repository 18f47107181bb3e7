//! [`Postbox`]: the messages that wait for offline users, and their imports.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashSet;

use crate::protocol::UserId;
use crate::routing::quotas::Quotas;
use crate::store::{MessageId, Messages, Role, StoreError};

/// The messages that wait for offline users, and the users whose mailboxes are being imported.
pub struct Postbox {
    messages: Role<dyn Messages>,
    quotas: Arc<Quotas>,
    importing: Arc<Mutex<FxHashSet<UserId>>>,
}

/// The import of a user's mailbox, until it is dropped.
pub(super) struct ImportClaim {
    user: UserId,
    importing: Arc<Mutex<FxHashSet<UserId>>>,
}

impl Postbox {
    /// Starts without imports.
    pub fn new(messages: Role<dyn Messages>, quotas: Arc<Quotas>) -> Postbox {
        Postbox { messages, quotas, importing: Arc::default() }
    }

    /// Claims a mailbox; `None` while another login of the user imports.
    pub(super) fn claim(&self, user: UserId) -> Option<ImportClaim> {
        let is_first = self.importing.lock().insert(user);
        is_first.then(|| ImportClaim { user, importing: self.importing.clone() })
    }

    /// Deletes rows.
    pub(super) fn delete(&self, user: UserId, rows: &[MessageId]) -> Result<(), StoreError> {
        self.messages.get()?.delete(user, rows)?;
        self.quotas.deleted(user);
        Ok(())
    }
}

impl Drop for ImportClaim {
    fn drop(&mut self) {
        self.importing.lock().remove(&self.user);
    }
}
