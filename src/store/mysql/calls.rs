//! [`Calls`]: gives a statement its connection, and handles its failure.
//!
//! | trouble | what is done |
//! |---|---|
//! | a deadlock | the same again, a few times, after a pause that differs between callers |
//! | a lock that was not free in time | the same again, once |
//! | the connection is lost | once more on a new one, if doing it twice does no harm or nothing can have been done; idle connections are dropped with it |
//! | the server was left for another one during the call | as if the connection was lost, although it has answered |
//! | no answer in time | nothing: the database counts as down, and calls fail at once until it answers |
//! | read-only, no right | once more on a new connection, which may lead to another server or have the right |
//! | full, no statement left, a table is missing | nothing: [`StoreError::Unavailable`], and the node is not ready |
//! | too large | nothing: [`StoreError::Failed`] with [`TooLarge`], and new connections say what the database takes |
//! | refused | nothing: [`StoreError::Failed`] |
//! | an unknown error | refused if the database does something simpler, else as if it were full |

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mysql::{Conn, Transaction, TxOpts};
use pool::{ConnectionPool, Pooled};

use super::error::{self, Trouble};
use super::health::DatabaseHealth;
use super::servers::MysqlServers;
use crate::base::loads::PoolUse;
use crate::store::{StoreCallback, StoreError};

/// The way to the database. May be used from any thread that may block.
pub(super) struct Calls {
    pool: Arc<ConnectionPool<Conn>>,
    health: DatabaseHealth,
    servers: MysqlServers,
}

/// The statement was longer than the database accepts.
#[derive(Debug)]
pub(super) struct TooLarge(String);

/// Whether an operation may be repeated after its connection, and with it the answer, was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repeat {
    /// Repeating it does no harm, or is better than losing it.
    Freely,
    /// It may be repeated only if it cannot have been done.
    IfUndone,
}

/// The outcome of the previous attempt, for the operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CallAttempt {
    /// Nothing was done before this.
    First,
    /// The same operation was sent before and the answer lost, so it may have been done.
    Again,
}

/// The reason why an attempt failed, and whether its changes may have been made nevertheless.
struct Failure {
    error: mysql::Error,
    is_in_doubt: bool,
}

impl Calls {
    pub(super) fn new(pool: Arc<ConnectionPool<Conn>>, health: DatabaseHealth, servers: MysqlServers) -> Calls {
        Calls { pool, health, servers }
    }

    /// The server in use, if there are several and one is in use.
    pub(super) fn server_in_use(&self) -> Option<&str> {
        if self.servers.are_several() { self.servers.in_use() } else { None }
    }

    /// The use of the connections.
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

    /// Fails at once if no call can succeed.
    fn gate(&self) -> Result<(), StoreError> {
        match self.health.outage() {
            Some(cause) => Err(StoreError::Unavailable((*cause).into())),
            None => Ok(()),
        }
    }

    /// Runs `operation`: one statement, or several that may be done twice or in part.
    pub(super) fn call<T>(
        &self,
        mut operation: impl FnMut(&mut Conn, CallAttempt) -> mysql::Result<T>,
    ) -> Result<T, StoreError> {
        self.repeat(Repeat::Freely, |connection, attempt| {
            operation(connection, attempt).map_err(|error| Failure { error, is_in_doubt: true })
        })
    }

    /// Runs `operation` in one transaction: all of it is done, or nothing.
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
            // Before the connection, which is then not older than that.
            let losses = self.servers.losses();
            let mut connection = self.connection()?;
            let Failure { error, is_in_doubt } = match operation(&mut connection, attempt) {
                Ok(done) if losses == self.servers.losses() => return Ok(done),
                // The server that has answered was given up meanwhile. It may have been frozen, and
                // the one that is used now does not have what it does.
                Ok(_) => Failure { error: io::Error::from(io::ErrorKind::ConnectionReset).into(), is_in_doubt: true },
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
                    // The database closes this connection. A new one learns the current limit.
                    self.part_with(&mut connection);
                    return Err(StoreError::Failed(Box::new(TooLarge(error::text(&error)))));
                }
                Trouble::Refused => return Err(StoreError::Failed(error::text(&error).into())),
                Trouble::Unknown => return Err(self.unknown(&mut connection, &error)),
            }
        }
    }

    /// Gives up a connection, and all that were opened before it: they were probably lost with it.
    fn part_with(&self, connection: &mut Pooled<Conn>) {
        connection.mark_broken();
        self.pool.renew_since(connection);
    }

    /// Handles an unlisted error: the statement counts as its cause if the database executes a
    /// simpler one.
    fn unknown(&self, connection: &mut Pooled<Conn>, error: &mysql::Error) -> StoreError {
        match self.health.probe(connection) {
            Ok(()) => StoreError::Failed(error::text(error).into()),
            // Another program works on the table, and the database works.
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

/// The pause doubles with every attempt. It differs between callers, so that two that have blocked
/// each other do not do so again.
fn pause_after(attempts: u32, connection_id: u32) -> Duration {
    Duration::from_millis((1 << attempts) + u64::from(connection_id % 7))
}

/// The age above which a connection is replaced if its server bars it.
const BARRED_AGE_MIN: Duration = Duration::from_secs(1);

/// The most attempts after deadlocks, which are found at once. For a lock that is not free, the
/// database waits 2 s each time.
const LOCKED_MAX: u32 = 6;
