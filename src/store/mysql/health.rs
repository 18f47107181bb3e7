//! [`Health`]: whether the database gives signs of life, so that calls need not find out one by one.
//!
//! A call that waits for a database which was stopped or cut off waits for its whole timeout, and the next one too: all
//! workers would soon do nothing else. So one thread, `store-check`, asks for a sign of life on a connection of its
//! own, and while there is none every call fails at once.
//!
//! ```text
//!   up ──── no answer to the check or to a call ────▶ down      calls fail at once
//!   up ◀─── the check is answered, again every 500 ms ─ down
//! ```

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use mysql::{Conn, Opts};
use parking_lot::{Condvar, Mutex};
use pool::MysqlPool;

use super::error::{self, Trouble};

/// What is known of the database. Dropping it ends the thread.
pub(super) struct Health {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// A leaf lock.
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    /// Since when there is no sign of life, and why.
    down: Option<(Instant, Arc<str>)>,
    /// It lives, but would not do what this server needs, and why.
    refusal: Option<Arc<str>>,
    /// A call has met something odd: look now.
    is_suspect: bool,
    is_closing: bool,
}

impl Health {
    /// Starts the thread. `connection` was opened with `opts`, whose timeouts bound a check.
    pub(super) fn watch(connection: Conn, opts: Opts, pool: Arc<MysqlPool>, name: String) -> io::Result<Health> {
        let shared = Arc::new(Shared { state: Mutex::default(), news: Condvar::new() });
        let mut watcher = Watcher { connection: Some(connection), opts, pool, name };
        let watched = shared.clone();
        let run = move || watched.run(&mut watcher);
        let thread = thread::Builder::new().name("store-check".to_owned()).spawn(run)?;
        Ok(Health { shared, thread: Some(thread) })
    }

    /// Why the database cannot be used, if it cannot.
    pub(super) fn outage(&self) -> Option<Arc<str>> {
        self.shared.state.lock().down.as_ref().map(|(_, cause)| cause.clone())
    }

    /// Why the database is of no use, although calls may try: it is read only, say, or a table is gone.
    pub(super) fn refusal(&self) -> Option<Arc<str>> {
        self.shared.state.lock().refusal.clone()
    }

    /// A call got no answer. Others need not try until a check is answered.
    pub(super) fn fell_silent(&self, cause: &str) {
        let mut state = self.shared.state.lock();
        state.down.get_or_insert_with(|| (Instant::now(), cause.into()));
        state.is_suspect = true;
        self.shared.news.notify_one();
    }

    /// A call has lost its connection or got none: the next check is made at once.
    pub(super) fn suspect(&self) {
        self.shared.state.lock().is_suspect = true;
        self.shared.news.notify_one();
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.shared.state.lock().is_closing = true;
        self.shared.news.notify_one();
        // A check under way is not waited for; its bounds are seconds.
        drop(self.thread.take());
    }
}

impl Shared {
    fn run(&self, watcher: &mut Watcher) {
        let mut logged = false;
        loop {
            let mut state = self.state.lock();
            if !state.is_suspect && !state.is_closing {
                self.news.wait_for(&mut state, CHECK_EVERY);
            }
            if state.is_closing {
                return;
            }
            state.is_suspect = false;
            drop(state);
            match watcher.look() {
                Ok(refusal) => {
                    self.note_refusal(refusal, &watcher.name);
                    let was_down = self.state.lock().down.take();
                    if let Some((since, _)) = was_down {
                        // Whatever connections were open, their servers may be gone or still be at an old statement.
                        watcher.pool.renew();
                        if logged {
                            log::warn!("{} answers again after {:.1} s", watcher.name, since.elapsed().as_secs_f32());
                        }
                        logged = false;
                    }
                }
                Err(cause) => {
                    if !logged {
                        log::error!("{} does not answer: {cause}; trying again every {CHECK_EVERY:?}", watcher.name);
                        logged = true;
                    }
                    let mut state = self.state.lock();
                    let since = state.down.take().map_or_else(Instant::now, |(since, _)| since);
                    state.down = Some((since, cause.into()));
                    drop(state);
                    // Otherwise a refusal, which comes at once, would be asked for again at once.
                    self.pause();
                }
            }
        }
    }

    /// One line when the database begins to refuse, one when it no longer does.
    fn note_refusal(&self, refusal: Option<String>, name: &str) {
        let (is, was) = (refusal.is_some(), self.state.lock().refusal.take());
        match (&refusal, was.is_some()) {
            (Some(cause), false) => log::error!("{name} is of no use: {cause}"),
            (None, true) => log::warn!("{name} does what is needed again"),
            (Some(_), true) | (None, false) => {}
        }
        if is {
            self.state.lock().refusal = refusal.map(Arc::from);
        }
    }

    /// Waits for the time of the next check, whoever asks for one.
    fn pause(&self) {
        let until = Instant::now() + CHECK_EVERY;
        let mut state = self.state.lock();
        while !state.is_closing && !self.news.wait_until(&mut state, until).timed_out() {}
        state.is_suspect = true;
    }
}

/// What the thread works with.
struct Watcher {
    connection: Option<Conn>,
    opts: Opts,
    pool: Arc<MysqlPool>,
    name: String,
}

impl Watcher {
    /// Whether the database answers; if so, what it refuses.
    fn look(&mut self) -> Result<Option<String>, String> {
        if let Some(mut connection) = self.connection.take() {
            match connection.query_drop(NO_CHANGE) {
                Ok(()) => {
                    self.connection = Some(connection);
                    return Ok(None);
                }
                Err(error) if matches!(error::trouble(&error), Trouble::Refused | Trouble::Busy) => {
                    self.connection = Some(connection);
                    return Ok(Some(error::text(&error)));
                }
                // Somebody works on the table, and the database is well.
                Err(error) if matches!(error::trouble(&error), Trouble::Locked | Trouble::Waited) => {
                    self.connection = Some(connection);
                    return Ok(None);
                }
                // Another attempt would take as long again.
                Err(error) if error::trouble(&error) == Trouble::Silent => return Err(error::text(&error)),
                // It may have been closed alone. If the database was restarted, so were all others.
                Err(_) => self.pool.renew(),
            }
        }
        match Conn::new(self.opts.clone()) {
            Ok(connection) => {
                self.connection = Some(connection);
                Ok(None)
            }
            // It lives, though it has no connection to spare for this thread; perhaps for nobody here.
            Err(error) if error::trouble(&error) == Trouble::Busy => {
                let (open, _) = self.pool.size();
                Ok((open == 0).then(|| error::text(&error)))
            }
            Err(error) => Err(error::text(&error)),
        }
    }
}

/// Needs the table and the right to write it, and changes nothing.
const NO_CHANGE: &str = "DELETE FROM OfflineMessage WHERE 1 = 0";
const CHECK_EVERY: Duration = Duration::from_millis(500);
