//! [`StateWriter`]: keeps `User.state` up to date, off the hot path.
//!
//! Only the latest state of a user matters, so changes wait in a map, which is bounded by the users there are, and a
//! thread writes all that have gathered as one batch. The column is for neighbours and tools: nobody here trusts it.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashMap;

use crate::protocol::UserId;
use crate::store::{Store, StoreError, UserState};

/// Notes who came and went, and has it written.
#[derive(Debug)]
pub struct StateWriter {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    pending: Mutex<Pending>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    states: FxHashMap<UserId, UserState>,
    /// The server stops: what cannot be written now is given up.
    stopping: bool,
}

impl StateWriter {
    /// Starts the thread, named `states`.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(store: Arc<dyn Store>) -> io::Result<StateWriter> {
        let shared = Arc::new(Shared { pending: Mutex::default(), news: Condvar::new() });
        let writer = shared.clone();
        let thread = thread::Builder::new().name("states".into()).spawn(move || writer.run(&*store))?;
        Ok(StateWriter { shared, thread })
    }

    /// Notes a change. Never blocks.
    pub fn note(&self, user: UserId, state: UserState) {
        let mut pending = self.shared.pending.lock();
        pending.states.insert(user, state);
        if pending.states.len() == 1 {
            self.shared.news.notify_one();
        }
    }

    /// Writes what was noted, and ends. What cannot be written at the first try is given up, and at `by` everything is.
    pub fn close(self, by: Instant) {
        self.shared.pending.lock().stopping = true;
        self.shared.news.notify_one();
        pool::join_until(self.thread, by);
    }
}

impl Shared {
    fn run(&self, store: &dyn Store) {
        loop {
            let mut pending = self.pending.lock();
            while pending.states.is_empty() {
                if pending.stopping {
                    return;
                }
                self.news.wait(&mut pending);
            }
            let states: Vec<_> = pending.states.drain().collect();
            drop(pending);
            let Err(error) = store.set_states(&states) else { continue };
            let mut pending = self.pending.lock();
            if pending.stopping || !matches!(error, StoreError::Unavailable(_)) {
                log::error!("the state of {} users was not written: {error}", states.len());
                continue;
            }
            // What was noted meanwhile is newer.
            for (user, state) in states {
                pending.states.entry(user).or_insert(state);
            }
            self.news.wait_for(&mut pending, RETRY_AFTER);
        }
    }
}

const RETRY_AFTER: Duration = Duration::from_millis(500);
