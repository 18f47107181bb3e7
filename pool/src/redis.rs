//! [`RedisPool`]: connections to Redis for threads that may block.
//!
//! A call has one deadline for everything: waiting for a connection, opening one, and all its commands. A pool of a
//! library opens connections on threads of its own, at its own pace, and knows no deadlines; so the thread that calls
//! opens the connection here.
//!
//! A connection that was idle may be closed without a word: by Redis (`timeout`), or by a firewall that has forgotten it.
//! So it is looked at before anything is sent on it, and asked with a `PING` when it was idle for long. That costs the next
//! call a round trip, where a message sent into a closed connection would be in doubt.

mod connection;

use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use redis::{RedisError, RedisResult};

pub use self::connection::{RedisConnection, RedisStream, Timed};

/// A pool of connections. When Redis is not there, a call fails within its deadline.
pub struct RedisPool<S> {
    dial: Box<Dial<S>>,
    settings: RedisPoolSettings,
    state: Mutex<State<S>>,
    /// A connection was given back, or another one may be opened.
    given_back: Condvar,
}

/// Opens a connection, logged in, by a deadline.
type Dial<S> = dyn Fn(Instant) -> Result<RedisConnection<S>, Box<dyn Error + Send + Sync>> + Send + Sync;

/// How large a pool is, and how long its calls may wait.
#[derive(Clone, Copy, Debug)]
pub struct RedisPoolSettings {
    /// The most connections.
    pub size: u32,
    /// How long a connection may be idle before it is closed.
    pub idle_timeout: Duration,
    /// How long a call may wait while all connections are in use.
    pub wait_timeout: Duration,
}

/// Why a call failed.
#[derive(Debug)]
pub enum RedisFailure {
    /// All connections are in use: nothing was sent. It says nothing about Redis.
    Busy,
    /// No connection could be opened: nothing was sent.
    NoConnection(String),
    /// The connection failed before anything was sent.
    NotSent(RedisError),
    /// What was sent may have been done, or not.
    InDoubt(RedisError),
}

struct State<S> {
    /// The one used last comes last, and is used next.
    idle: Vec<Idle<S>>,
    /// With those in use and those being opened.
    open: u32,
    /// Connections of an earlier age are not used any more.
    age: u64,
    /// Why the last attempt to open one failed, and until when none is made.
    failed: Option<(String, Instant)>,
}

struct Idle<S> {
    connection: RedisConnection<S>,
    since: Instant,
}

/// A connection in use. It goes back to the pool when it is dropped, unless it is broken or old.
struct Lent<'p, S: RedisStream> {
    pool: &'p RedisPool<S>,
    /// None while it is being opened.
    connection: Option<RedisConnection<S>>,
    age: u64,
    was_idle: bool,
}

impl<S: RedisStream> RedisPool<S> {
    /// A pool that opens connections when they are needed.
    pub fn new(
        settings: RedisPoolSettings,
        dial: impl Fn(Instant) -> Result<RedisConnection<S>, Box<dyn Error + Send + Sync>> + Send + Sync + 'static,
    ) -> RedisPool<S> {
        let state = State { idle: Vec::new(), open: 0, age: 0, failed: None };
        RedisPool { dial: Box::new(dial), settings, state: Mutex::new(state), given_back: Condvar::new() }
    }

    /// The connections that there are lead nowhere, or to the wrong place, and are not used any more. New ones are tried at
    /// once.
    pub fn renew(&self) {
        let mut state = self.state.lock();
        state.age += 1;
        state.failed = None;
        let old = state.take_idle(|_| true);
        drop(state);
        drop(old);
        self.given_back.notify_all();
    }

    /// Does something with a connection, by a deadline. Blocks. `work` is done once more on another connection when it is
    /// certain that nothing of it was sent.
    ///
    /// # Errors
    /// [`RedisFailure`].
    pub fn run<T>(
        &self,
        by: Instant,
        work: impl Fn(&mut RedisConnection<S>) -> RedisResult<T>,
    ) -> Result<T, RedisFailure> {
        let mut may_repeat = true;
        loop {
            let mut lent = self.take(by)?;
            let was_idle = lent.was_idle;
            let connection = lent.connection.as_mut().expect("it is open");
            connection.begin(by);
            let result = work(connection);
            let nothing_sent = connection.is_broken() && !connection.has_sent();
            drop(lent);
            match result {
                Err(_) if nothing_sent && was_idle && may_repeat => may_repeat = false,
                Err(error) if nothing_sent => return Err(RedisFailure::NotSent(error)),
                result => return result.map_err(RedisFailure::InDoubt),
            }
        }
    }

    /// The most connections there may be.
    pub fn size(&self) -> u32 {
        self.settings.size
    }

    /// How many connections there are, and how many of them are idle.
    pub fn connections(&self) -> (u32, u32) {
        let state = self.state.lock();
        (state.open, u32::try_from(state.idle.len()).unwrap_or(u32::MAX))
    }

    fn take(&self, by: Instant) -> Result<Lent<'_, S>, RedisFailure> {
        let begun = Instant::now();
        let mut patience = by.min(begun + self.settings.wait_timeout);
        let mut state = self.state.lock();
        let old = state.take_idle(|idle| begun.saturating_duration_since(idle.since) > self.settings.idle_timeout);
        if !old.is_empty() {
            drop(state);
            drop(old);
            state = self.state.lock();
        }
        loop {
            let (age, now) = (state.age, Instant::now());
            let lend = |connection, was_idle| Lent { pool: self, connection, age, was_idle };
            let failed = state.failed.as_ref().filter(|(_, until)| *until > now).map(|(cause, _)| cause.clone());
            if let Some(Idle { connection, since }) = state.idle.pop() {
                drop(state);
                let mut lent = lend(Some(connection), true);
                if self.is_usable(&mut lent, since, by) {
                    return Ok(lent);
                }
                lent.discard();
            } else if failed.is_none() && state.open < self.settings.size {
                state.open += 1;
                drop(state);
                // If that fails or panics, it is counted off when this is dropped.
                let mut lent = lend(None, false);
                match (self.dial)(by) {
                    Ok(connection) => {
                        lent.connection = Some(connection);
                        return Ok(lent);
                    }
                    Err(error) => {
                        patience = by.min(Instant::now() + self.settings.wait_timeout);
                        self.state.lock().failed = Some((error.to_string(), Instant::now() + DIAL_PAUSE));
                    }
                }
            } else if let Some(cause) = failed.clone().filter(|_| state.open == 0) {
                return Err(RedisFailure::NoConnection(cause));
            } else if self.given_back.wait_until(&mut state, patience).timed_out() {
                return Err(failed.map_or(RedisFailure::Busy, RedisFailure::NoConnection));
            } else {
                continue;
            }
            state = self.state.lock();
        }
    }

    /// Whether a connection that was idle still leads to Redis. If it does not answer, neither do those that were idle for
    /// longer.
    fn is_usable(&self, lent: &mut Lent<'_, S>, since: Instant, by: Instant) -> bool {
        let Some(connection) = lent.connection.as_mut().filter(|connection| connection.is_quiet()) else {
            return false;
        };
        let now = Instant::now();
        if now.saturating_duration_since(since) < TRUSTED_FOR {
            return true;
        }
        if connection.answers(by.min(now + PING_PATIENCE)) {
            return true;
        }
        let old = self.state.lock().take_idle(|_| true);
        drop(old);
        false
    }
}

impl<S> State<S> {
    /// Takes out the idle connections of which this is true: the caller closes them, without the lock.
    fn take_idle(&mut self, is_old: impl Fn(&Idle<S>) -> bool) -> Vec<Idle<S>> {
        let (old, idle): (Vec<_>, Vec<_>) = std::mem::take(&mut self.idle).into_iter().partition(is_old);
        self.idle = idle;
        self.open -= u32::try_from(old.len()).expect("they were counted");
        old
    }
}

impl<S: RedisStream> Lent<'_, S> {
    /// It is of no use.
    fn discard(mut self) {
        self.connection = None;
    }
}

impl<S: RedisStream> Drop for Lent<'_, S> {
    fn drop(&mut self) {
        let connection = self.connection.take().filter(|connection| !connection.is_broken());
        let mut state = self.pool.state.lock();
        let (kept, closed) = if state.age == self.age { (connection, None) } else { (None, connection) };
        match kept {
            Some(connection) => state.idle.push(Idle { connection, since: Instant::now() }),
            None => state.open -= 1,
        }
        drop(state);
        drop(closed);
        self.pool.given_back.notify_one();
    }
}

impl<S> fmt::Debug for RedisPool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPool").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl RedisFailure {
    /// Whether the connection has failed, or none came about: Redis may be away.
    pub fn is_of_connection(&self) -> bool {
        match self {
            RedisFailure::Busy => false,
            RedisFailure::NoConnection(_) | RedisFailure::NotSent(_) => true,
            RedisFailure::InDoubt(error) => error.is_io_error(),
        }
    }

    /// The word that Redis begins a refusal with, such as `READONLY`.
    pub fn code(&self) -> Option<&str> {
        match self {
            RedisFailure::Busy | RedisFailure::NoConnection(_) => None,
            RedisFailure::NotSent(error) | RedisFailure::InDoubt(error) => error.code(),
        }
    }
}

impl fmt::Display for RedisFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedisFailure::Busy => f.write_str("all connections are in use"),
            RedisFailure::NoConnection(cause) => write!(f, "no connection: {cause}"),
            RedisFailure::NotSent(cause) | RedisFailure::InDoubt(cause) => {
                f.write_str(without_arguments(&cause.to_string()))
            }
        }
    }
}

/// What Redis says of a command without the command itself, which may hold what somebody wrote to another: it repeats the
/// beginning of one that it does not know.
pub fn without_arguments(said: &str) -> &str {
    said.split_once(", with args beginning with").map_or(said, |(before, _)| before)
}

impl Error for RedisFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            RedisFailure::Busy | RedisFailure::NoConnection(_) => None,
            RedisFailure::NotSent(cause) | RedisFailure::InDoubt(cause) => Some(cause),
        }
    }
}

/// How long a connection may be idle before it is asked: the shortest `timeout` of Redis.
const TRUSTED_FOR: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(1) };
/// How long such an answer may take. A firewall that has forgotten a connection swallows the question.
const PING_PATIENCE: Duration = Duration::from_millis(500);
/// After a failure nobody tries to open a connection for this time, and calls fail at once.
const DIAL_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
