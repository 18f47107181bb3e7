//! [`Spool`]: the messages that wait on this node's disk while the database of the cluster is
//! unavailable.
//!
//! The lanes to the store (`routing/backlog.rs`) decide when messages go in and come out; a spool
//! only holds them, in order, and within its bound. Every message in it was accepted, and confirmed
//! to its sender.

use crate::admission::Holder;
pub use crate::base::loads::SpoolLoad;
use crate::protocol::UserId;
use crate::store::{NewMessage, StoreCallback, StoreError};

/// A durable queue of messages. Its calls block, and only lanes make them, except [`Spool::load`].
pub trait Spool: Send + Sync + 'static {
    /// Adds messages at the end, in the order given, and returns for each whether it was added:
    /// there may be no room for all. Added messages are on the disk when this returns.
    ///
    /// # Errors
    ///
    /// The disk is full or broken; then nothing was added.
    fn add(&self, messages: Vec<Addition>) -> Result<Vec<bool>, StoreError>;

    /// Returns the oldest messages of this part, at least one if there is any, up to a number and
    /// an amount of text. They stay in the spool.
    ///
    /// # Errors
    /// The file cannot be read.
    fn oldest(&self, part: Part) -> Result<Vec<Spooled>, StoreError>;

    /// Removes messages that are now in the database; it is not an error if one is already removed.
    /// If the disk accepts no deletion now, it is retried later, and the messages may come back
    /// after a crash.
    ///
    /// # Errors
    /// The file cannot be read; all of them are still there then.
    fn remove(&self, ids: &[SpoolId]) -> Result<(), StoreError>;

    /// Whether deletions wait to be retried.
    fn owes(&self) -> bool {
        false
    }

    /// Retries these deletions, unless that was tried within the last second.
    fn tidy(&self) {}

    /// Keeps messages that the database refuses, but hides them from [`Spool::oldest`] until the
    /// next start.
    ///
    /// # Errors
    /// As for [`Spool::remove`].
    fn set_aside(&self, ids: &[SpoolId]) -> Result<(), StoreError>;

    /// The spool's fullness. Does not block for long.
    fn load(&self) -> SpoolLoad;

    /// Checks within a few seconds whether the spool stores messages, by a small write if
    /// necessary.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it does not, or does not answer.
    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// As [`Database::is_lost`](crate::store::Database::is_lost).
    fn is_lost(&self) -> bool {
        false
    }

    /// As [`Database::on_lost`](crate::store::Database::on_lost).
    fn on_lost(&self, _stop: StoreCallback) {}

    /// As [`Database::on_trouble`](crate::store::Database::on_trouble).
    fn on_trouble(&self, _look: StoreCallback) {}

    /// Whether this spool can keep anything.
    fn is_there(&self) -> bool {
        true
    }
}

/// A message to be added.
#[derive(Clone, Debug)]
pub struct Addition {
    /// The message.
    pub message: NewMessage,
    /// Whether it may exceed the bound, because no sender could be notified of a refusal.
    pub must: bool,
    /// The account or address whose share of the room it takes, if any.
    pub holder: Option<Holder>,
}

/// A waiting message.
#[derive(Clone, Debug)]
pub struct Spooled {
    /// Its key.
    pub id: SpoolId,
    /// The message.
    pub message: NewMessage,
}

/// The key of a waiting message, ascending in the order of arrival.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SpoolId(pub i64);

/// Some of the messages of a spool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The messages of one lane after a certain message.
    Lane {
        /// The number of the lane, counted from 0.
        nth: u64,
        /// The number of lanes in this run; there may have been others when the message came.
        of: u64,
        /// The last message that was processed.
        after: SpoolId,
    },
    /// The messages for one user.
    User(UserId),
}

/// The key of `user` in lanes; its remainder is the lane.
pub fn lane_key(user: UserId) -> u64 {
    u64::from(user.0.cast_unsigned())
}

/// The number of the lane, of `lanes` lanes, for messages to `user`; the router uses the same.
pub fn lane_of(user: UserId, lanes: u64) -> u64 {
    pool::lane_of(lane_key(user), lanes)
}

/// The spool of a server without one: it keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoSpool;

impl Spool for NoSpool {
    fn add(&self, messages: Vec<Addition>) -> Result<Vec<bool>, StoreError> {
        Ok(vec![false; messages.len()])
    }

    fn oldest(&self, _: Part) -> Result<Vec<Spooled>, StoreError> {
        Ok(Vec::new())
    }

    fn remove(&self, _: &[SpoolId]) -> Result<(), StoreError> {
        Ok(())
    }

    fn set_aside(&self, _: &[SpoolId]) -> Result<(), StoreError> {
        Ok(())
    }

    fn load(&self) -> SpoolLoad {
        SpoolLoad::default()
    }

    fn is_there(&self) -> bool {
        false
    }
}

/// The weight of a message in a spool beside its text.
pub const MESSAGE_BYTES: usize = 64;
/// The most messages that [`Spool::oldest`] returns.
pub const PIECE_MAX: usize = 1024;
/// The most text that it returns, unless a single message is longer.
pub const PIECE_BYTES_MAX: usize = 1024 * 1024;
