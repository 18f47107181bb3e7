//! [`Calls`]: how a statement gets a connection, and what happens when it fails.
//!
//! | trouble | what is done |
//! |---|---|
//! | a deadlock | the same again, a few times, after a pause that differs between callers |
//! | a lock that was not free in time | the same again, once |
//! | the connection is lost | once more on a new one, if doing it twice does no harm or nothing can have been done; idle connections are dropped with it |
//! | no answer in time | nothing: the database counts as down, and calls fail at once until it answers |
//! | read-only, no right | once more on a new connection, which may lead to another server or have the right |
//! | full, no statement left, a table is missing | nothing: [`StoreError::Unavailable`], and the node is not ready |
//! | too large | nothing: [`StoreError::Failed`] with [`TooLarge`], and new connections say what the database takes |
//! | refused | nothing: [`StoreError::Failed`] |
//! | an unknown error | refused if the database does something simpler, else as if it were full |

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mysql::{Conn, Transaction, TxOpts};
use pool::{ConnectionPool, Pooled};

use super::error::{self, Trouble};
use super::health::DatabaseHealth;
use crate::base::loads::PoolUse;
use crate::store::{StoreCallback, StoreError};

/// The way to the database. May be used from any thread that may block.
pub(super) struct Calls {
    pool: Arc<ConnectionPool<Conn>>,
    health: DatabaseHealth,
}

/// The statement was longer than the database takes.
#[derive(Debug)]
pub(super) struct TooLarge(String);

/// Whether an operation may be done again when its connection was lost, and with it the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repeat {
    /// Twice is as good as once, or better than never.
    Freely,
    /// Only if it cannot have been done.
    IfUndone,
}

/// The outcome of the previous attempt, for the operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CallAttempt {
    /// Nothing was done before this.
    First,
    /// The same was asked before and the answer lost, so it may have been done.
    Again,
}

/// Why an attempt failed, and whether its changes may have been made nevertheless.
struct Failure {
    error: mysql::Error,
    is_in_doubt: bool,
}

impl Calls {
    pub(super) fn new(pool: Arc<ConnectionPool<Conn>>, health: DatabaseHealth) -> Calls {
        Calls { pool, health }
    }

    /// How the connections are used.
    pub(super) fn connections(&self) -> PoolUse {
        let (open, idle) = self.pool.size();
        PoolUse { open, idle, max: self.pool.size_max() }
    }

    /// # Errors
    ///
    /// [`StoreError::Unavailable`] while the database does not answer, or would refuse to store a
    /// message.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.health.outage().or_else(|| self.health.refusal()) {
            Some(cause) => Err(StoreError::Unavailable((*cause).into())),
            None => Ok(()),
        }
    }

    /// Has `look` called when the database can no longer be used.
    pub(super) fn on_trouble(&self, look: StoreCallback) {
        self.health.on_trouble(look);
    }

    /// Whether a call has any prospect.
    fn gate(&self) -> Result<(), StoreError> {
        match self.health.outage() {
            Some(cause) => Err(StoreError::Unavailable((*cause).into())),
            None => Ok(()),
        }
    }

    /// Runs `operation`, which is one statement, or several that are as good when they are done
    /// twice or in part.
    pub(super) fn call<T>(
        &self,
        mut operation: impl FnMut(&mut Conn, CallAttempt) -> mysql::Result<T>,
    ) -> Result<T, StoreError> {
        self.repeat(Repeat::Freely, |connection, attempt| {
            operation(connection, attempt).map_err(|error| Failure { error, is_in_doubt: true })
        })
    }

    /// Runs `operation` in one transaction: all of it is done or nothing.
    pub(super) fn transaction<T>(
        &self,
        repeat: Repeat,
        mut operation: impl FnMut(&mut Transaction<'_>) -> mysql::Result<T>,
    ) -> Result<T, StoreError> {
        self.repeat(repeat, |connection, _| {
            let undone = |error| Failure { error, is_in_doubt: false };
            let mut transaction = connection.start_transaction(TxOpts::default()).map_err(undone)?;
            let done = operation(&mut transaction).map_err(undone)?;
            transaction.commit().map_err(|error| Failure { error, is_in_doubt: true })?;
            Ok(done)
        })
    }

    fn repeat<T>(
        &self,
        repeat: Repeat,
        mut operation: impl FnMut(&mut Conn, CallAttempt) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let (mut attempt, mut was_lost, mut was_barred, mut locked) = (CallAttempt::First, false, false, 0);
        loop {
            let mut connection = self.connection()?;
            let Failure { error, is_in_doubt } = match operation(&mut connection, attempt) {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            match error::trouble(&error) {
                trouble @ (Trouble::Locked | Trouble::Waited) if locked < LOCKED_MAX => {
                    locked = if trouble == Trouble::Waited { LOCKED_MAX } else { locked + 1 };
                    let pause = pause_after(locked, connection.connection_id());
                    drop(connection);
                    thread::sleep(pause);
                }
                Trouble::Lost => {
                    self.part_with(&mut connection);
                    let may_repeat = repeat == Repeat::Freely || !is_in_doubt;
                    if was_lost || !may_repeat {
                        self.health.suspect();
                        return Err(unavailable(&error));
                    }
                    was_lost = true;
                    if is_in_doubt {
                        attempt = CallAttempt::Again;
                    }
                }
                Trouble::Silent => {
                    self.part_with(&mut connection);
                    self.health.fell_silent(&error::text(&error));
                    return Err(unavailable(&error));
                }
                // A new connection would reach the same server as a recent one, so not every call
                // opens another.
                Trouble::Barred if connection.age() > BARRED_AGE_MIN && !was_barred => {
                    self.part_with(&mut connection);
                    was_barred = true;
                }
                Trouble::Barred | Trouble::Busy => {
                    self.health.met(&error::text(&error));
                    return Err(unavailable(&error));
                }
                Trouble::Locked | Trouble::Waited => return Err(unavailable(&error)),
                Trouble::TooLarge => {
                    // The database closes it, and a new one says what it takes.
                    self.part_with(&mut connection);
                    return Err(StoreError::Failed(Box::new(TooLarge(error::text(&error)))));
                }
                Trouble::Refused => return Err(StoreError::Failed(error::text(&error).into())),
                Trouble::Unknown => return Err(self.unknown(&mut connection, &error)),
            }
        }
    }

    /// Uses a connection no more, nor those that were opened before: they were probably lost with
    /// it.
    fn part_with(&self, connection: &mut Pooled<Conn>) {
        connection.mark_broken();
        self.pool.renew_since(connection);
    }

    /// Handles an unlisted error: the statement is taken for its cause if the database executes a
    /// simpler one.
    fn unknown(&self, connection: &mut Pooled<Conn>, error: &mysql::Error) -> StoreError {
        match self.health.probe(connection) {
            Ok(()) => StoreError::Failed(error::text(error).into()),
            // Somebody works on the table, and the database is well.
            Err(other) if matches!(error::trouble(&other), Trouble::Locked | Trouble::Waited) => {
                StoreError::Failed(error::text(error).into())
            }
            Err(_) => {
                connection.mark_broken();
                self.health.met(&error::text(error));
                unavailable(error)
            }
        }
    }

    fn connection(&self) -> Result<Pooled<Conn>, StoreError> {
        self.gate()?;
        self.pool.connection().map_err(|error| {
            self.health.suspect();
            StoreError::Unavailable(format!("no connection to the database: {error}").into())
        })
    }
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for TooLarge {}

fn unavailable(error: &mysql::Error) -> StoreError {
    StoreError::Unavailable(error::text(error).into())
}

/// Doubles with every attempt; two callers that were in each other's way should not be so again.
fn pause_after(attempts: u32, connection_id: u32) -> Duration {
    Duration::from_millis((1 << attempts) + u64::from(connection_id % 7))
}

/// A connection that is older than this is left when its server bars it.
const BARRED_AGE_MIN: Duration = Duration::from_secs(1);

/// Deadlocks are found at once. A lock that is not free the database waits for, 2 s each time.
const LOCKED_MAX: u32 = 6;
