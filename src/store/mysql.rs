//! The store of a cluster: a MySQL or MariaDB database that all nodes share, perhaps with reference
//! servers.
//!
//! Calls use connections of a pool (`pool::ConnectionPool`) and prepared statements. `calls.rs`
//! decides what happens when a statement fails. `dial.rs` opens connections, and `servers.rs`
//! chooses one of several servers for them. `health.rs` makes calls fail at once while the database
//! is unreachable. `schema.rs` finds out which tables the database has. Each role has a file.
//! Messages are stored alike in every table (`base.rs`); reading and deleting them differs for
//! tables with ids (`messages.rs`) and without, as the reference server made them (`keyless.rs`).
//!
//! A call whose answer was lost is made again where that does no harm. For messages that means at
//! least once: an append in doubt is repeated, for twice is better than never.
//!
//! Unlike the embedded store this one is not alone: `User.state` is left as it is when the database
//! is opened.

mod accounts;
mod base;
mod calls;
mod choice;
mod contacts;
mod conversations;
mod dial;
mod duty;
mod error;
mod health;
mod hook_queue;
mod keyless;
mod late;
pub mod maintenance;
mod messages;
mod open;
mod patrol;
mod probe;
mod rows;
mod schema;
mod servers;
mod shapes;
mod society;
mod states;
pub mod target;

use std::sync::Arc;

use self::base::Base;
use self::keyless::KeylessMessages;
pub use self::late::open_later;
pub use self::maintenance::Maintenance;
use self::messages::MessagesWithIds;
pub use self::open::{DatabaseAddress, Fault, MysqlOpenError};
use super::community::Community;
use super::history::History;
use super::hooks::HookQueue;
use super::{AppendOutcome, Database, KeptMessage, MessageId, Messages, NewMessage, StoreCallback, StoreError};
use crate::base::loads::PoolUse;
use crate::config::MysqlSettings;
use crate::protocol::UserId;

/// All roles of a [`Store`](super::Store) in a MySQL or MariaDB database.
pub struct MysqlStore {
    base: Arc<Base>,
    /// The role for the form of the table: with ids or without.
    messages: Box<dyn Messages>,
}

impl MysqlStore {
    /// Connects, and inspects the tables; logs both.
    ///
    /// # Errors
    ///
    /// [`MysqlOpenError`], for anything that the operator must correct. An open store survives
    /// outages of the database.
    pub fn open(settings: &MysqlSettings) -> Result<MysqlStore, MysqlOpenError> {
        let open::OpenedDatabase { calls, schema, limits, name } = open::open(settings)?;
        log::info!("{name}: {}", schema.describe());
        for warning in schema.warnings() {
            log::warn!("{name}: {warning}");
        }
        let text_bytes = limits.text_bytes();
        if text_bytes < SMALL_TEXT_BYTES {
            log::warn!(
                "{name}: max_allowed_packet is small: messages over {text_bytes} bytes cannot be stored; raise it"
            );
        }
        let has_ids = schema.has_message_ids;
        let base = Arc::new(Base { name, calls, schema, limits });
        let messages: Box<dyn Messages> = match has_ids {
            true => Box::new(MessagesWithIds::of(base.clone())),
            false => Box::new(KeylessMessages::of(base.clone())),
        };
        Ok(MysqlStore { base, messages })
    }
}

impl Database for MysqlStore {
    fn describe(&self) -> String {
        let in_use = self.base.calls.server_in_use().map_or_else(String::new, |server| format!(", in use: {server}"));
        format!("{}{in_use}, {}", self.base.name, self.base.schema.describe())
    }

    fn history(self: Arc<Self>) -> Option<Arc<dyn History>> {
        if self.base.schema.has_history { Some(self) } else { None }
    }

    fn community(self: Arc<Self>) -> Option<Arc<dyn Community>> {
        if self.base.schema.has_history { Some(self) } else { None }
    }

    fn hooks(self: Arc<Self>) -> Option<Arc<dyn HookQueue>> {
        if self.base.schema.has_history && self.base.schema.has_hooks { Some(self) } else { None }
    }

    fn appenders(&self) -> usize {
        APPENDERS
    }

    fn connections(&self) -> Option<PoolUse> {
        Some(self.base.calls.connections())
    }

    fn check(&self) -> Result<(), StoreError> {
        self.base.calls.check()
    }

    fn on_trouble(&self, look: StoreCallback) {
        self.base.calls.on_trouble(look);
    }
}

impl Messages for MysqlStore {
    fn append(&self, messages: &[NewMessage]) -> Result<Vec<AppendOutcome>, StoreError> {
        self.messages.append(messages)
    }

    fn fits(&self, text: &str) -> bool {
        self.messages.fits(text)
    }

    fn mailbox_bytes(&self, user: UserId) -> Result<usize, StoreError> {
        self.messages.mailbox_bytes(user)
    }

    fn fetch(&self, user: UserId, bytes_max: usize) -> Result<Vec<KeptMessage>, StoreError> {
        self.messages.fetch(user, bytes_max)
    }

    fn delete(&self, user: UserId, ids: &[MessageId]) -> Result<(), StoreError> {
        self.messages.delete(user, ids)
    }
}

/// The number of commits that a database flushes together.
const APPENDERS: usize = 4;

/// The longest frame that clients may send by default.
const SMALL_TEXT_BYTES: usize = 64 * 1024;
