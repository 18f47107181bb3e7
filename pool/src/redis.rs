//! [`RedisPool`]: connections to Redis for threads that may block.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use r2d2::{ManageConnection, NopErrorHandler, Pool};
use redis::{Client, Connection, ConnectionLike, RedisError, RedisResult};

/// A pool of connections. When Redis is not there, a call fails within its timeouts.
#[derive(Debug)]
pub struct RedisPool {
    pool: Pool<Manager>,
    /// Connections of an earlier age are not used any more.
    age: Arc<AtomicU64>,
}

/// How large a pool is, and how long its calls may take.
#[derive(Clone, Copy, Debug)]
pub struct RedisPoolSettings {
    /// The most connections.
    pub size: u32,
    /// How long a connection may be idle before it is closed; one is kept.
    pub idle_timeout: Duration,
    /// How long a call may wait for a free connection.
    pub wait_timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long an answer may take.
    pub response_timeout: Duration,
}

/// Why a call failed.
#[derive(Debug)]
pub enum RedisFailure {
    /// There was no connection: nothing was sent.
    NotSent(r2d2::Error),
    /// What was sent may have been done, or not.
    InDoubt(RedisError),
}

impl RedisPool {
    /// A pool that connects when it is needed.
    pub fn new(client: Client, settings: RedisPoolSettings) -> RedisPool {
        let age = Arc::new(AtomicU64::new(0));
        let pool = Pool::builder()
            .max_size(settings.size)
            .min_idle(Some(1))
            .idle_timeout(Some(settings.idle_timeout))
            .max_lifetime(None)
            .connection_timeout(settings.wait_timeout)
            // A check would cost a round trip each time; a connection that has failed is thrown away instead.
            .test_on_check_out(false)
            // Whoever calls hears of failures and says so once, not once for each attempt in the background.
            .error_handler(Box::new(NopErrorHandler))
            .build_unchecked(Manager { client, settings, age: age.clone() });
        RedisPool { pool, age }
    }

    /// Redis was gone: the connections that there are lead nowhere, and are not used any more.
    pub fn renew(&self) {
        self.age.fetch_add(1, Ordering::AcqRel);
    }

    /// Does something with a connection. Blocks.
    ///
    /// # Errors
    /// [`RedisFailure`].
    pub fn run<T>(&self, work: impl FnOnce(&mut Connection) -> RedisResult<T>) -> Result<T, RedisFailure> {
        let mut pooled = self.pool.get().map_err(RedisFailure::NotSent)?;
        while pooled.age != self.age.load(Ordering::Acquire) {
            pooled.failed = true;
            drop(pooled);
            pooled = self.pool.get().map_err(RedisFailure::NotSent)?;
        }
        let result = work(&mut pooled.connection);
        // After a timeout the answer may still come, and would be taken for that to the next command.
        pooled.failed = result.as_ref().is_err_and(|error| error.is_io_error() || error.is_timeout());
        result.map_err(RedisFailure::InDoubt)
    }

    /// The most connections there may be.
    pub fn size(&self) -> u32 {
        self.pool.max_size()
    }

    /// How many connections there are, and how many of them are idle.
    pub fn connections(&self) -> (u32, u32) {
        let state = self.pool.state();
        (state.connections, state.idle_connections)
    }
}

#[derive(Debug)]
struct Manager {
    client: Client,
    settings: RedisPoolSettings,
    age: Arc<AtomicU64>,
}

struct Pooled {
    connection: Connection,
    age: u64,
    failed: bool,
}

impl ManageConnection for Manager {
    type Connection = Pooled;
    type Error = RedisError;

    fn connect(&self) -> RedisResult<Pooled> {
        let age = self.age.load(Ordering::Acquire);
        let connection = self.client.get_connection_with_timeout(self.settings.connect_timeout)?;
        connection.set_read_timeout(Some(self.settings.response_timeout))?;
        connection.set_write_timeout(Some(self.settings.response_timeout))?;
        Ok(Pooled { connection, age, failed: false })
    }

    fn is_valid(&self, pooled: &mut Pooled) -> RedisResult<()> {
        redis::cmd("PING").query(&mut pooled.connection)
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        pooled.failed || !pooled.connection.is_open()
    }
}

impl fmt::Display for RedisFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedisFailure::NotSent(cause) => write!(f, "no connection: {cause}"),
            RedisFailure::InDoubt(cause) => f.write_str(without_arguments(&cause.to_string())),
        }
    }
}

/// What Redis says of a command without the command itself, which may hold what somebody wrote to another: it repeats the
/// beginning of one that it does not know.
pub fn without_arguments(said: &str) -> &str {
    said.split_once(", with args beginning with").map_or(said, |(before, _)| before)
}

impl std::error::Error for RedisFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RedisFailure::NotSent(cause) => Some(cause),
            RedisFailure::InDoubt(cause) => Some(cause),
        }
    }
}
