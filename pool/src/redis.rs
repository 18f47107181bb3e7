//! [`RedisPool`]: connections to Redis for threads that may block.
//!
//! A call has one deadline for everything: waiting for a connection, opening one, and all its
//! commands. A library's pool opens connections on threads of its own, at its own pace, and without
//! deadlines. So here the calling thread opens the connection.
//!
//! An idle connection may be closed without notice: by Redis (`timeout`), or by a firewall that has
//! dropped it. So it is checked before anything is sent on it, with a `PING` if it was idle for
//! long. The check costs the call a round trip; without it, a message sent into a closed connection
//! would be in doubt.

mod connection;

use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use redis::{RedisError, RedisResult};

pub use self::connection::{RedisConnection, RedisStream, TimedSocket};

/// A pool of connections. If Redis is unreachable, a call fails within its deadline.
pub struct RedisPool<S> {
    dial: Box<Dial<S>>,
    settings: RedisPoolSettings,
    state: Mutex<RedisStock<S>>,
    /// Notified when a connection was returned, or another one may be opened.
    given_back: Condvar,
}

/// Opens a logged-in connection, within a deadline.
type Dial<S> = dyn Fn(Instant) -> Result<RedisConnection<S>, Box<dyn Error + Send + Sync>> + Send + Sync;

/// The size of a pool, and the timeouts of its calls.
#[derive(Clone, Copy, Debug)]
pub struct RedisPoolSettings {
    /// The most connections.
    pub size: u32,
    /// The time for which a connection may be idle before it is closed.
    pub idle_timeout: Duration,
    /// The time for which a call may wait while all connections are in use.
    pub wait_timeout: Duration,
    /// The idle time up to which a connection is used without a `PING` first.
    pub trusted_for: Duration,
}

/// Why a call failed.
#[derive(Debug)]
pub enum RedisFailure {
    /// All connections are in use, and nothing was sent. This says nothing about Redis.
    Busy,
    /// No connection could be opened: nothing was sent.
    NoConnection(String),
    /// The connection failed before anything was sent.
    NotSent(RedisError),
    /// The commands were sent, and may or may not have been executed.
    InDoubt(RedisError),
}

struct RedisStock<S> {
    /// The idle connections; the most recently used one is the last, and is used next.
    idle: Vec<IdleRedis<S>>,
    /// The number of connections, including those in use and those being opened.
    open: u32,
    /// The current age: connections of an earlier age are not used any more.
    age: u64,
    /// The reason of the last failure to open a connection, and the time until which none is
    /// opened.
    failed: Option<(String, Instant)>,
}

struct IdleRedis<S> {
    connection: RedisConnection<S>,
    since: Instant,
}

/// A connection in use. Dropping it returns it to the pool, unless it is broken or old.
struct Lent<'p, S: RedisStream> {
    pool: &'p RedisPool<S>,
    /// `None` while it is being opened.
    connection: Option<RedisConnection<S>>,
    age: u64,
    was_idle: bool,
}

impl<S: RedisStream> RedisPool<S> {
    /// A pool that opens connections when they are needed, in the calling threads, with `dial`.
    /// `dial` gets the deadline of the call, and must not block beyond it.
    pub fn new(
        settings: RedisPoolSettings,
        dial: impl Fn(Instant) -> Result<RedisConnection<S>, Box<dyn Error + Send + Sync>> + Send + Sync + 'static,
    ) -> RedisPool<S> {
        let state = RedisStock { idle: Vec::new(), open: 0, age: 0, failed: None };
        RedisPool { dial: Box::new(dial), settings, state: Mutex::new(state), given_back: Condvar::new() }
    }

    /// Stops using the open connections, because they lead nowhere or to the wrong Redis. New ones
    /// are opened without a pause.
    pub fn renew(&self) {
        let mut state = self.state.lock();
        state.age += 1;
        state.failed = None;
        let old = state.take_idle(|_| true);
        drop(state);
        drop(old);
        self.given_back.notify_all();
    }

    /// Runs `work` with a connection, within a deadline. Blocks until `by` at most. `work` is
    /// retried once on another connection if it is certain that nothing was sent.
    ///
    /// # Errors
    ///
    /// [`RedisFailure`]; only for [`RedisFailure::InDoubt`] may the commands have been executed.
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

    /// The most connections of the pool.
    pub fn size(&self) -> u32 {
        self.settings.size
    }

    /// The number of open connections, and of idle ones among them.
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
            if let Some(IdleRedis { connection, since }) = state.idle.pop() {
                drop(state);
                let mut lent = lend(Some(connection), true);
                if self.is_usable(&mut lent, since, by) {
                    return Ok(lent);
                }
                lent.discard();
            } else if failed.is_none() && state.open < self.settings.size {
                state.open += 1;
                drop(state);
                // If opening fails or panics, dropping this corrects the number.
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

    /// Whether an idle connection still leads to Redis. If it does not answer, the connections that
    /// were idle for longer are dropped as well.
    fn is_usable(&self, lent: &mut Lent<'_, S>, since: Instant, by: Instant) -> bool {
        let Some(connection) = lent.connection.as_mut().filter(|connection| connection.is_quiet()) else {
            return false;
        };
        let now = Instant::now();
        if now.saturating_duration_since(since) < self.settings.trusted_for {
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

impl<S> RedisStock<S> {
    /// Removes and returns the idle connections for which `is_old` is true. The caller must close
    /// them without the lock.
    fn take_idle(&mut self, is_old: impl Fn(&IdleRedis<S>) -> bool) -> Vec<IdleRedis<S>> {
        let (old, idle): (Vec<_>, Vec<_>) = std::mem::take(&mut self.idle).into_iter().partition(is_old);
        self.idle = idle;
        self.open -= u32::try_from(old.len()).expect("they were counted");
        old
    }
}

impl<S: RedisStream> Lent<'_, S> {
    /// Closes the connection, because it cannot be used again.
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
            Some(connection) => state.idle.push(IdleRedis { connection, since: Instant::now() }),
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
    /// Whether the connection has failed, or none could be opened: Redis may be unreachable.
    pub fn is_of_connection(&self) -> bool {
        match self {
            RedisFailure::Busy => false,
            RedisFailure::NoConnection(_) | RedisFailure::NotSent(_) => true,
            RedisFailure::InDoubt(error) => error.is_io_error(),
        }
    }

    /// Whether Redis takes no writes at present, but executes everything else: its memory or disk
    /// is full, or it has too few replicas.
    pub fn is_of_writes(&self) -> bool {
        matches!(self.code(), Some("MISCONF" | "OOM" | "NOREPLICAS"))
    }

    /// The first word of a refusal by Redis, such as `READONLY`.
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

/// Redis's error text without the command's arguments: Redis repeats the beginning of an unknown
/// command, which may contain the text of a message.
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

/// The time for the answer to a `PING`. A firewall that has dropped a connection swallows the
/// `PING`.
const PING_PATIENCE: Duration = Duration::from_millis(500);
/// The pause after a failure: no connection is opened, and calls fail immediately.
const DIAL_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
