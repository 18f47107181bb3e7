//! [`StateWriter`]: keeps `User.state` up to date, off the hot path.
//!
//! Only the latest state of a user matters, so changes wait in a map, which is bounded by the users there are, and a
//! thread writes all that have gathered as one batch. The column is for neighbours and tools: nobody here trusts it.
//!
//! A user may be on several nodes. The one that is left asks the others before it writes `offline`, and once more after
//! that: a user who arrived elsewhere in between is online.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashMap;

use crate::bus::Bus;
use crate::protocol::UserId;
use crate::store::{Store, StoreError, UserState};

/// Notes who came and went, and has it written.
#[derive(Debug)]
pub struct StateWriter {
    shared: Arc<Shared>,
    /// Until it is closed.
    thread: Mutex<Option<JoinHandle<()>>>,
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
    pub fn start(store: Arc<dyn Store>, bus: Arc<dyn Bus>) -> io::Result<StateWriter> {
        let shared = Arc::new(Shared { pending: Mutex::default(), news: Condvar::new() });
        let writer = shared.clone();
        let thread = thread::Builder::new().name("states".into()).spawn(move || writer.run(&*store, &*bus))?;
        Ok(StateWriter { shared, thread: Mutex::new(Some(thread)) })
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
    pub fn close(&self, by: Instant) {
        self.shared.pending.lock().stopping = true;
        self.shared.news.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            pool::join_until(thread, by);
        }
    }
}

impl Shared {
    fn run(&self, store: &dyn Store, bus: &dyn Bus) {
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
            let Err(error) = write(&states, store, bus) else { continue };
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

fn write(states: &[(UserId, UserState)], store: &dyn Store, bus: &dyn Bus) -> Result<(), StoreError> {
    let mut states = states.to_vec();
    let stays = elsewhere(&states, bus);
    remove(&mut states, &stays);
    if states.is_empty() {
        return Ok(());
    }
    store.set_states(&states)?;
    let arrived: Vec<_> = elsewhere(&states, bus).into_iter().map(|user| (user, UserState::Online)).collect();
    if arrived.is_empty() { Ok(()) } else { store.set_states(&arrived) }
}

/// Who of those that are to be offline is on another node. When the others cannot be asked, they will tell.
fn elsewhere(states: &[(UserId, UserState)], bus: &dyn Bus) -> Vec<UserId> {
    let offline = |(user, state): &(UserId, UserState)| (*state == UserState::Offline).then_some(*user);
    let leaving: Vec<UserId> = states.iter().filter_map(offline).collect();
    if leaving.is_empty() { leaving } else { bus.elsewhere(&leaving).unwrap_or_default() }
}

fn remove(states: &mut Vec<(UserId, UserState)>, users: &[UserId]) {
    let users: rustc_hash::FxHashSet<_> = users.iter().collect();
    states.retain(|(user, state)| *state == UserState::Online || !users.contains(user));
}

const RETRY_AFTER: Duration = Duration::from_millis(500);
