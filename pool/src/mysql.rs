//! [`MysqlPool`]: connections to MySQL or MariaDB, kept for the next call.
//!
//! Nothing is asked of a connection before or after a call: a ping each would be two more round trips. Instead, whoever
//! finds a connection broken says so, and [`MysqlPool::renew`] makes the pool forget all that were opened before.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mysql::{Conn, OptsBuilder};
use r2d2::{ManageConnection, NopErrorHandler, Pool, PooledConnection};
use r2d2_mysql::MySqlConnectionManager;

/// Connections to one database. Shared by all threads that may block.
pub struct MysqlPool {
    pool: Pool<Opener>,
    generation: Arc<AtomicU64>,
    sizes: MysqlSizes,
}

/// The bounds of a [`MysqlPool`].
#[derive(Clone, Debug)]
pub struct MysqlSizes {
    /// Idle connections that are kept.
    pub initial: u32,
    /// The most connections.
    pub max: u32,
    /// How long a connection beyond the kept ones may be idle.
    pub idle_timeout: Duration,
    /// How long a call may wait while all connections are in use.
    pub wait_timeout: Duration,
    /// How long a call may wait while a connection is being opened.
    pub connect_timeout: Duration,
}

/// A connection for one call; it goes back to the pool when it is dropped.
pub struct MysqlConnection(PooledConnection<Opener>);

impl MysqlPool {
    /// A pool whose first connections are opened by other threads, now.
    ///
    /// # Panics
    /// When `sizes` contradict each other.
    pub fn new(opts: OptsBuilder, sizes: MysqlSizes) -> MysqlPool {
        let generation = Arc::new(AtomicU64::new(0));
        let opener = Opener { inner: MySqlConnectionManager::new(opts), generation: generation.clone() };
        let pool = Pool::builder()
            .min_idle(Some(sizes.initial))
            .max_size(sizes.max)
            .idle_timeout(Some(sizes.idle_timeout))
            .max_lifetime(Some(LIFETIME_MAX))
            // Half of it is the longest pause between two attempts to connect; calls bring bounds of their own.
            .connection_timeout(2 * RECONNECT_PAUSE_MAX)
            // No ping, see `Opener::is_valid`.
            .test_on_check_out(true)
            // It would write a line for every attempt while the database is gone.
            .error_handler(Box::new(NopErrorHandler))
            .build_unchecked(opener);
        MysqlPool { pool, generation, sizes }
    }

    /// A connection, sooner or later within the bounds of the pool.
    ///
    /// # Errors
    /// None was free in time, or none could be opened; the text says which.
    pub fn connection(&self) -> Result<MysqlConnection, r2d2::Error> {
        match self.pool.get_timeout(self.sizes.wait_timeout) {
            // Not all that there may be are in use: one is just being opened.
            Err(_) if self.pool.state().connections < self.sizes.max => {
                self.pool.get_timeout(self.sizes.connect_timeout).map(MysqlConnection)
            }
            result => result.map(MysqlConnection),
        }
    }

    /// Has no call use a connection that is open now.
    pub fn renew(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// The most connections.
    pub fn size_max(&self) -> u32 {
        self.sizes.max
    }

    /// How many connections are open, and how many of them are idle.
    pub fn size(&self) -> (u32, u32) {
        let state = self.pool.state();
        (state.connections, state.idle_connections)
    }
}

impl MysqlConnection {
    /// Says that this connection must not be used again.
    pub fn mark_broken(&mut self) {
        self.0.broken = true;
    }
}

impl Deref for MysqlConnection {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.0.conn
    }
}

impl DerefMut for MysqlConnection {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.0.conn
    }
}

/// What r2d2 keeps.
struct Kept {
    conn: Conn,
    generation: u64,
    broken: bool,
}

struct Opener {
    inner: MySqlConnectionManager,
    generation: Arc<AtomicU64>,
}

impl ManageConnection for Opener {
    type Connection = Kept;
    type Error = mysql::Error;

    fn connect(&self) -> Result<Kept, mysql::Error> {
        // Read first: a connection that was being opened when the pool was renewed is an old one.
        let generation = self.generation.load(Ordering::Acquire);
        Ok(Kept { conn: self.inner.connect()?, generation, broken: false })
    }

    fn is_valid(&self, kept: &mut Kept) -> Result<(), mysql::Error> {
        if self.has_broken(kept) { Err(mysql::Error::server_disconnected()) } else { Ok(()) }
    }

    fn has_broken(&self, kept: &mut Kept) -> bool {
        kept.broken || kept.generation != self.generation.load(Ordering::Acquire)
    }
}

/// When its name points elsewhere, the old database is left behind within this time.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 60);

const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);
