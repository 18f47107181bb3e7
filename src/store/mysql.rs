//! The store of a cluster: a MySQL or MariaDB database that all nodes share, perhaps with reference
//! servers.
//!
//! Calls use connections of a pool (`pool::ConnectionPool`) and prepared statements. `calls.rs`
//! says what happens when a statement fails, `dial.rs` how connections are opened, `health.rs` how
//! calls fail at once while the database is gone, and `schema.rs` which tables it works on. Each
//! role has a file; messages have two, for tables with ids and, as the reference server made them,
//! without (`keyless.rs`).
//!
//! A call whose answer was lost is made again where that does no harm. For messages that means at
//! least once: an append in doubt is repeated, for twice is better than never.
//!
//! Unlike the embedded store this one is not alone: `User.state` is left as it is when the database
//! is opened.

mod accounts;
mod calls;
mod contacts;
mod dial;
mod error;
mod health;
mod keyless;
mod late;
pub mod maintenance;
mod messages;
mod open;
mod probe;
mod schema;
mod shapes;
mod states;
pub mod target;

use std::sync::Arc;

use mysql::prelude::FromValue;
use mysql::{Row, Value};

use self::calls::Calls;
use self::dial::PacketLimits;
use self::keyless::Keyless;
pub use self::late::open_later;
pub use self::maintenance::Maintenance;
use self::messages::MessagesWithIds;
pub use self::open::{Fault, MysqlOpenError, Site};
use self::schema::Schema;
use super::{AppendOutcome, Database, KeptMessage, MessageId, Messages, NewMessage, StoreError, User};
use crate::base::loads::PoolUse;
use crate::config::MysqlSettings;
use crate::protocol::UserId;

/// All roles of a [`Store`](super::Store) in a MySQL or MariaDB database.
pub struct MysqlStore {
    base: Arc<Base>,
    /// As its tables are.
    messages: Box<dyn Messages>,
}

/// The data that all roles work on.
struct Base {
    name: String,
    calls: Calls,
    schema: Schema,
    limits: PacketLimits,
}

impl MysqlStore {
    /// Connects and looks at the tables, which it logs.
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
        let messages: Box<dyn Messages> =
            if has_ids { Box::new(MessagesWithIds::of(base.clone())) } else { Box::new(Keyless::of(base.clone())) };
        Ok(MysqlStore { base, messages })
    }
}

impl Database for MysqlStore {
    fn describe(&self) -> String {
        format!("{}, {}", self.base.name, self.base.schema.describe())
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

    fn on_trouble(&self, look: Box<dyn Fn() + Send + Sync>) {
        self.base.calls.on_trouble(look);
    }
}

/// By the one that fits the tables.
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

/// A value of a row by the name of its column. A value of another type, or none, is an error and no
/// panic.
fn column<T: FromValue>(row: &mut Row, name: &str) -> mysql::Result<T> {
    match row.take_opt(name) {
        Some(value) => Ok(value?),
        None => Err(mysql::Error::FromValueError(Value::NULL)),
    }
}

/// A text, which is `NULL` where the reference server's tables allow it and nobody has given any.
fn text(row: &mut Row, name: &str) -> mysql::Result<String> {
    Ok(column::<Option<String>>(row, name)?.unwrap_or_default())
}

fn collect<T>(rows: Vec<Row>, mut read: impl FnMut(&mut Row) -> mysql::Result<T>) -> mysql::Result<Vec<T>> {
    rows.into_iter().map(|mut row| read(&mut row)).collect()
}

/// The column `id` of users.
fn ids_of(rows: Vec<Row>) -> mysql::Result<Vec<UserId>> {
    collect(rows, |row| column(row, "id").map(UserId))
}

fn user_row(row: &mut Row) -> mysql::Result<User> {
    Ok(User { id: UserId(column(row, "id")?), name: text(row, "name")? })
}

/// An id that the database has given out; the columns keep it within 32 bits.
fn new_id(id: u64) -> mysql::Result<i32> {
    i32::try_from(id).map_err(|_| mysql::Error::FromValueError(Value::UInt(id)))
}

/// Commits that a database flushes together.
const APPENDERS: usize = 4;

/// The longest frame that clients may send, unless told otherwise.
const SMALL_TEXT_BYTES: usize = 64 * 1024;
