//! [`ConnectionPool`]: connections to a database, each opened for the first call that needs it and
//! reused for later ones.
//!
//! ```text
//!   call ── idle connection ──▶ works ──▶ back to the pool: to the call that has waited longest, else idle
//!     └──── none idle: waits ◀─────────┐
//!   keeper ─ one thread for each attempt to connect ─┘   never more than the waiting calls and the stock need
//! ```
//! The keeper is a thread that starts attempts, and closes connections that are broken or idle for
//! too long. While the database refuses connections there is one attempt at a time, and a growing
//! backoff with a random part before the next. So many idle nodes do not retry at the same moments
//! on a database that is full.
//!
//! No connection is tested before or after a call, because that would be two more round trips.
//! Instead the caller reports a broken one, and [`ConnectionPool::renew`] makes the pool drop all
//! connections that were opened before.
//!
//! Why not r2d2: each failed attempt starts the next by itself, for each connection that was ever
//! missing. So an idle node made 600 attempts a second, and took every connection when the shortage
//! was over.

mod pace;
mod stock;

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use parking_lot::{Condvar, Mutex, MutexGuard};

pub use self::stock::PoolSizes;
use self::stock::{Aged, Stock, WaitingCall};
use crate::vital::vital;

/// Connections to one database. Shared by all threads that may block.
pub struct ConnectionPool<C: Send + 'static> {
    shared: Arc<Core<C>>,
}

/// Why a connection could not be opened.
#[derive(Clone, Debug)]
pub struct OpenFailure {
    /// The reason, as text for the log.
    pub cause: String,
    /// Whether the database answered and refuses the connection, which is logged for the operator.
    pub is_refusal: bool,
}

/// Why a call got no connection in time. `Display` gives the reason.
#[derive(Debug)]
pub struct NoConnection(String);

/// A connection for one call; dropping it returns it to the pool.
pub struct Pooled<C: Send + 'static> {
    shared: Arc<Core<C>>,
    /// `None` only while dropping.
    kept: Option<Aged<C>>,
    is_broken: bool,
}

struct Core<C> {
    /// The name of the database, for the log.
    name: String,
    sizes: PoolSizes,
    open: Box<dyn Fn() -> Result<C, OpenFailure> + Send + Sync>,
    /// A leaf lock; nothing is opened, closed or logged under it.
    state: Mutex<Stock<C>>,
    /// Notified when there is work for the keeper.
    work: Condvar,
}

impl<C: Send + 'static> ConnectionPool<C> {
    /// Creates a pool whose initial connections are opened immediately by other threads. Up to 8
    /// threads call `open` at the same time; it may block, and must bound its own duration.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use pool::{ConnectionPool, OpenFailure, PoolSizes};
    ///
    /// let sizes = PoolSizes {
    ///     initial: 0,
    ///     max: 1,
    ///     idle_timeout: Duration::from_secs(60),
    ///     wait_timeout: Duration::from_millis(1),
    ///     connect_timeout: Duration::from_secs(10),
    /// };
    /// // The connections of a real pool lead to a database.
    /// let pool = ConnectionPool::new("numbers", sizes, || Ok::<u32, OpenFailure>(7))?;
    /// let seven = pool.connection().expect("a connection is opened");
    /// assert_eq!(*seven, 7);
    /// assert!(pool.connection().is_err(), "the only one is in use");
    /// drop(seven);
    /// assert!(pool.connection().is_ok());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn new(
        name: impl Into<String>,
        sizes: PoolSizes,
        open: impl Fn() -> Result<C, OpenFailure> + Send + Sync + 'static,
    ) -> io::Result<ConnectionPool<C>> {
        let (state, work) = (Mutex::new(Stock::default()), Condvar::new());
        let shared = Arc::new(Core { name: name.into(), sizes, open: Box::new(open), state, work });
        let keeper = shared.clone();
        thread::Builder::new().name("pool-keeper".to_owned()).spawn(move || vital(|| keeper.keep()))?;
        Ok(ConnectionPool { shared })
    }

    /// Returns a connection, immediately or within the limits of the pool. Blocks for at most
    /// `wait_timeout`, and `connect_timeout` more if another connection may be opened. Waiting
    /// calls are served in order.
    ///
    /// # Errors
    ///
    /// [`NoConnection`] if none was free in time, or none could be opened; the text says which. The
    /// caller may retry later.
    pub fn connection(&self) -> Result<Pooled<C>, NoConnection> {
        let (ticket, place) = {
            let mut state = self.shared.state.lock();
            if let Some(kept) = state.take_idle() {
                return Ok(self.pooled(kept));
            }
            let (sender, place) = bounded(1);
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            let patient_until = Instant::now() + self.shared.sizes.wait_timeout;
            state.waiting.push_back(WaitingCall { ticket, patient_until, place: sender });
            self.shared.work.notify_one();
            (ticket, place)
        };
        self.wait(ticket, &place)
    }

    fn wait(&self, ticket: u64, place: &Receiver<Aged<C>>) -> Result<Pooled<C>, NoConnection> {
        let PoolSizes { max, wait_timeout, connect_timeout, .. } = self.shared.sizes;
        let mut received = place.recv_timeout(wait_timeout);
        if received.is_err() {
            let has_prospect = {
                let state = self.shared.state.lock();
                state.open < max && !state.is_in_vain()
            };
            if has_prospect {
                received = place.recv_timeout(connect_timeout);
            }
        }
        if let Ok(kept) = received {
            return Ok(self.pooled(kept));
        }
        let mut state = self.shared.state.lock();
        state.waiting.retain(|waiting| waiting.ticket != ticket);
        // A connection may have arrived just before.
        if let Ok(kept) = place.try_recv() {
            drop(state);
            return Ok(self.pooled(kept));
        }
        Err(NoConnection(match (state.pace.failures(), state.open) {
            (0, open) if open >= max => format!("all {max} connections are in use"),
            (0, _) => "none was opened in time".to_owned(),
            (_, 0) => state.pace.cause().to_owned(),
            (_, open) => format!("all {open} connections are in use, and there is no other: {}", state.pace.cause()),
        }))
    }

    fn pooled(&self, kept: Aged<C>) -> Pooled<C> {
        Pooled { shared: self.shared.clone(), kept: Some(kept), is_broken: false }
    }

    /// Prevents calls from using connections that are open now.
    pub fn renew(&self) {
        let mut state = self.shared.state.lock();
        state.renew();
        self.shared.work.notify_one();
    }

    /// Like [`ConnectionPool::renew`], unless the pool was renewed after this connection was
    /// opened.
    pub fn renew_since(&self, connection: &Pooled<C>) {
        let mut state = self.shared.state.lock();
        if connection.kept.as_ref().is_some_and(|kept| kept.age == state.age) {
            state.renew();
            self.shared.work.notify_one();
        }
    }

    /// Makes an attempt immediately, because the database is known to answer again.
    pub fn try_now(&self) {
        let mut state = self.shared.state.lock();
        state.pace.skip_pause();
        self.shared.work.notify_one();
    }

    /// The most connections of the pool.
    pub fn size_max(&self) -> u32 {
        self.shared.sizes.max
    }

    /// The number of open connections, and of idle ones among them.
    pub fn size(&self) -> (u32, u32) {
        let state = self.shared.state.lock();
        (state.open, state.idle())
    }
}

impl<C: Send + 'static> Drop for ConnectionPool<C> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.is_closing = true;
        state.renew();
        let doomed = std::mem::take(&mut state.doomed);
        self.shared.work.notify_one();
        drop(state);
        // Closed here, so that the connections end properly even if the process ends right after
        // this.
        close(doomed);
    }
}

impl<C: Send + 'static> Pooled<C> {
    /// Reports that this connection must not be used again.
    pub fn mark_broken(&mut self) {
        self.is_broken = true;
    }

    /// The time since the connection was opened.
    pub fn age(&self) -> Duration {
        self.kept.as_ref().map_or(Duration::ZERO, |kept| kept.born.elapsed())
    }
}

impl<C: Send + 'static> Deref for Pooled<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.kept.as_ref().expect("taken when it is dropped only").connection
    }
}

impl<C: Send + 'static> DerefMut for Pooled<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.kept.as_mut().expect("taken when it is dropped only").connection
    }
}

impl<C: Send + 'static> Drop for Pooled<C> {
    fn drop(&mut self) {
        let Some(kept) = self.kept.take() else { return };
        let mut state = self.shared.state.lock();
        // A call that panicked may have left the connection in the middle of a statement.
        if self.is_broken || thread::panicking() || kept.age != state.age {
            state.forget(kept);
            self.shared.work.notify_one();
        } else {
            state.hand_on(kept);
        }
    }
}

impl<C: Send + 'static> Core<C> {
    /// Runs the keeper's thread. The only code of the driver that runs there closes connections.
    fn keep(self: &Arc<Self>) {
        let mut state = self.state.lock();
        while !state.is_closing {
            let now = Instant::now();
            let next = state.reap(&self.sizes, now);
            let attempts = state.attempts(&self.sizes, now);
            state.opening += attempts;
            let doomed = std::mem::take(&mut state.doomed);
            if attempts > 0 || !doomed.is_empty() {
                MutexGuard::unlocked(&mut state, || {
                    close(doomed);
                    (0..attempts).for_each(|_| self.begin_attempt());
                });
                continue;
            }
            let due = if state.wanted(&self.sizes) > 0 { state.pace.due(state.has_waiting()) } else { None };
            // The keeper is not notified when a connection becomes idle, so it looks.
            let look = now + self.sizes.idle_timeout.clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX);
            let until = next.into_iter().chain(due).fold(look, Instant::min);
            self.work.wait_until(&mut state, until);
        }
    }

    fn begin_attempt(self: &Arc<Self>) {
        let shared = self.clone();
        let spawned = thread::Builder::new().name("pool-open".to_owned()).spawn(move || shared.attempt());
        if let Err(error) = spawned {
            let cause = format!("the system has no thread left: {error}");
            self.settle(0, Err(OpenFailure { cause, is_refusal: true }));
        }
    }

    fn attempt(&self) {
        // Read first: if the pool is renewed while a connection is being opened, that connection is
        // old.
        let age = self.state.lock().age;
        let opened = catch_unwind(AssertUnwindSafe(|| (self.open)()));
        let panicked = |_| Err(OpenFailure { cause: "the driver panicked".to_owned(), is_refusal: true });
        self.settle(age, opened.unwrap_or_else(panicked));
    }

    /// Handles the end of an attempt.
    fn settle(&self, age: u64, opened: Result<C, OpenFailure>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.opening -= 1;
        let line = match opened {
            Ok(connection) => {
                state.open += 1;
                state.pace.succeeded();
                let kept = Aged { connection, age, born: now };
                if age == state.age {
                    state.hand_on(kept)
                } else {
                    state.forget(kept)
                }
                // As long as more connections are wanted, the shortage may not be over.
                let is_over = state.wanted(&self.sizes) == 0;
                let lasted = if is_over { state.refusals.end() } else { None };
                lasted.map(|lasted| format!("{} gives connections again after {lasted}", self.name))
            }
            Err(OpenFailure { cause, is_refusal }) => {
                state.pace.failed(now, &cause);
                if state.is_in_vain() {
                    state.waiting.retain(|waiting| waiting.patient_until > now);
                }
                let is_news = is_refusal && state.refusals.begin();
                is_news.then(|| {
                    let open = state.open;
                    format!("{} gives no further connection beside {open} open ones: {cause}; trying again", self.name)
                })
            }
        };
        drop(state);
        self.work.notify_one();
        if let Some(line) = line {
            log::warn!("{line}");
        }
    }
}

/// Closes the connections. Closing runs the driver's code, which talks to the database.
fn close<C>(connections: Vec<C>) {
    for connection in connections {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(connection)));
    }
}

impl fmt::Display for NoConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for NoConnection {}

/// The bounds of the keeper's sleep.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(100);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::atomic::{AtomicU32, Ordering};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A database with a limited number of connections.
    #[derive(Default)]
    struct Database {
        limit: AtomicU32,
        open: AtomicU32,
        attempts: AtomicU32,
        most_attempts_at_once: AtomicU32,
        attempts_now: AtomicU32,
    }

    /// One connection to this database.
    struct Link(Arc<Database>);

    impl Drop for Link {
        fn drop(&mut self) {
            self.0.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn database(limit: u32) -> Arc<Database> {
        Arc::new(Database { limit: limit.into(), ..Database::default() })
    }

    fn pool(database: &Arc<Database>, change: impl FnOnce(&mut PoolSizes)) -> ConnectionPool<Link> {
        let mut sizes = PoolSizes {
            initial: 2,
            max: 100,
            idle_timeout: PATIENCE,
            wait_timeout: PATIENCE,
            connect_timeout: PATIENCE,
        };
        change(&mut sizes);
        let database = database.clone();
        let open = move || {
            database.attempts.fetch_add(1, Ordering::SeqCst);
            let now = database.attempts_now.fetch_add(1, Ordering::SeqCst) + 1;
            database.most_attempts_at_once.fetch_max(now, Ordering::SeqCst);
            let limit = database.limit.load(Ordering::SeqCst);
            let taken =
                database.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < limit).then_some(n + 1));
            database.attempts_now.fetch_sub(1, Ordering::SeqCst);
            let refusal = |_| OpenFailure { cause: "Too many connections".to_owned(), is_refusal: true };
            taken.map(|_| Link(database.clone())).map_err(refusal)
        };
        ConnectionPool::new("a database", sizes, open).unwrap()
    }

    fn wait_until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "in vain: {what}");
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_stock_is_opened_and_given_back() {
        let database = database(100);
        let pool = pool(&database, |sizes| sizes.initial = 3);
        wait_until("the stock", || pool.size() == (3, 3));
        let held: Vec<_> = (0..10).map(|_| pool.connection().unwrap()).collect();
        // Connections exist only for waiting calls; no initial ones are opened beside those in use.
        assert_eq!((pool.size().0, database.attempts.load(Ordering::SeqCst)), (10, 10));
        drop(held);
        assert_eq!(pool.size(), (10, 10));
        drop(pool);
        wait_until("all are closed", || database.open.load(Ordering::SeqCst) == 0);
    }

    #[test]
    fn surplus_is_closed_when_it_has_been_idle() {
        let database = database(100);
        let pool = pool(&database, |sizes| sizes.idle_timeout = Duration::from_millis(20));
        let held: Vec<_> = (0..10).map(|_| pool.connection().unwrap()).collect();
        drop(held);
        wait_until("the surplus is closed", || pool.size() == (2, 2));
        wait_until("it is really closed", || database.open.load(Ordering::SeqCst) == 2);
    }

    #[test]
    fn a_full_database_is_asked_by_one_attempt_at_a_time_and_calls_share_what_there_is() {
        const CALLS: usize = 200;
        let database = database(2);
        let pool = pool(&database, |sizes| sizes.initial = 10);
        wait_until("the first refusal", || database.attempts.load(Ordering::SeqCst) > 2);
        wait_until("no attempt is on its way", || database.attempts_now.load(Ordering::SeqCst) == 0);
        database.most_attempts_at_once.store(0, Ordering::SeqCst);
        let before = database.attempts.load(Ordering::SeqCst);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..CALLS).for_each(|_| drop(pool.connection().unwrap())));
            }
        });
        assert_eq!(pool.size().0, 2);
        assert!(database.most_attempts_at_once.load(Ordering::SeqCst) <= 1);
        let attempts = database.attempts.load(Ordering::SeqCst) - before;
        assert!(attempts < 100, "{attempts} attempts for {} calls", 8 * CALLS);
        // The shortage is over: the initial number is opened, and no more.
        database.limit.store(100, Ordering::SeqCst);
        pool.try_now();
        wait_until("the stock", || pool.size().0 == 10);
        thread::park_timeout(Duration::from_millis(50));
        assert_eq!(database.open.load(Ordering::SeqCst), 10);
    }

    #[test]
    fn calls_are_served_in_order() {
        let database = database(1);
        let pool = pool(&database, |sizes| (sizes.initial, sizes.max) = (1, 1));
        let held = pool.connection().unwrap();
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for nth in 0..5 {
                let (pool, order) = (&pool, &order);
                scope.spawn(move || {
                    let _connection = pool.connection().unwrap();
                    order.lock().push(nth);
                });
                wait_until("it waits", || pool.shared.state.lock().waiting.len() == nth + 1);
            }
            drop(held);
        });
        assert_eq!(*order.lock(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn connections_opened_before_a_renewal_are_not_used_again() {
        let database = database(100);
        let pool = pool(&database, |_| {});
        let one = pool.connection().unwrap();
        let other = pool.connection().unwrap();
        pool.renew_since(&one);
        let new = pool.connection().unwrap();
        pool.renew_since(&other);
        drop((one, other, new));
        wait_until("the new ones are left", || pool.size() == (2, 2));
        assert_eq!(database.attempts.load(Ordering::SeqCst), 4, "the second renewal was the same as the first");
    }

    #[test]
    fn a_panic_of_the_driver_is_a_failed_attempt() {
        let tries = Arc::new(AtomicU32::new(0));
        let counted = tries.clone();
        let open = move || if counted.fetch_add(1, Ordering::SeqCst) < 2 { panic!("a driver's") } else { Ok(()) };
        let sizes =
            PoolSizes { initial: 1, max: 1, idle_timeout: PATIENCE, wait_timeout: PATIENCE, connect_timeout: PATIENCE };
        let pool = ConnectionPool::new("a database", sizes, open).unwrap();
        drop(pool.connection().unwrap());
        assert_eq!((pool.size(), tries.load(Ordering::SeqCst)), ((1, 1), 3));
    }

    #[test]
    fn a_call_hears_why_there_is_no_connection() {
        let database = database(0);
        let soon = |sizes: &mut PoolSizes| (sizes.wait_timeout, sizes.connect_timeout) = (PATIENCE / 10, PATIENCE / 10);
        let refused = pool(&database, soon).connection().err().unwrap();
        assert_eq!(refused.to_string(), "Too many connections");
        database.limit.store(1, Ordering::SeqCst);
        let pool = pool(&database, |sizes| {
            soon(sizes);
            (sizes.initial, sizes.max) = (1, 1);
        });
        let _held = pool.connection().unwrap();
        assert_eq!(pool.connection().err().unwrap().to_string(), "all 1 connections are in use");
    }
}
