//! [`StateWriter`]: keeps `User.state` up to date, off the hot path.
//!
//! Only the latest state of a user matters, so changes wait in a map, which is bounded by the users there are, and a
//! thread writes all that have gathered as one batch. The column is for neighbours and tools: nobody here trusts it.
//!
//! While nodes of the reference server are there, which go by the column, a login or logout waits for it, and is told when it
//! is written: with the batch. When it cannot be written now, nobody waits any longer.
//!
//! A user may be on several nodes. The one that is left asks the others before it writes `offline`, and once more after
//! that: a user who arrived elsewhere in between is online.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::bus::Register;
use crate::delivery::{ClientLink, Posted};
use crate::protocol::UserId;
use crate::session::Outcome;
use crate::store::{Role, States, StoreError, UserState};

/// Notes who came and went, and has it written.
pub struct StateWriter {
    shared: Arc<Shared>,
    /// Until it is closed.
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    store: Role<dyn States>,
    bus: Arc<dyn Register>,
    pending: Mutex<Pending>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    states: FxHashMap<UserId, UserState>,
    /// Connections that wait until a state is written. One waits for one state, and not for long.
    waiting: FxHashMap<UserId, Vec<(UserState, Arc<ClientLink>)>>,
    /// The server stops: what cannot be written now is given up.
    stopping: bool,
    /// All that was noted is written.
    all_written: bool,
}

impl StateWriter {
    /// A writer that only notes changes, until it is [started](StateWriter::start).
    pub fn new(store: Role<dyn States>, bus: Arc<dyn Register>) -> StateWriter {
        let shared = Arc::new(Shared { store, bus, pending: Mutex::default(), news: Condvar::new() });
        StateWriter { shared, thread: Mutex::new(None) }
    }

    /// Starts the thread that writes, named `states`. Call it once.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(&self) -> io::Result<()> {
        let writer = self.shared.clone();
        let thread = thread::Builder::new().name("states".into()).spawn(move || writer.run())?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Notes a change. Never blocks.
    pub fn note(&self, user: UserId, state: UserState) {
        self.shared.note(user, state, None);
    }

    /// The same; `link` is posted [`Outcome::Shown`] when it is written.
    pub fn note_and_tell(&self, user: UserId, state: UserState, link: &Arc<ClientLink>) {
        self.shared.note(user, state, Some(link));
    }

    /// `link` is posted [`Outcome::Shown`] when this state, which will be noted, is written.
    pub fn tell(&self, user: UserId, state: UserState, link: &Arc<ClientLink>) {
        self.shared.pending.lock().waiting.entry(user).or_default().push((state, link.clone()));
    }

    /// Nobody needs to wait for the state of this user.
    pub fn tell_at_once(&self, user: UserId) {
        let told = self.shared.pending.lock().told(user, |_| true);
        ClientLink::post_all(told);
    }

    /// Writes that these users have left a node, now; false if that is not possible. Blocks.
    pub fn write_offline(&self, users: &[UserId]) -> bool {
        let states: Vec<_> = users.iter().map(|user| (*user, UserState::Offline)).collect();
        self.shared.write(&states).is_ok()
    }

    /// Writes what was noted, and ends; whether all was written. What cannot be at the first try is given up, and at `by`
    /// everything is.
    pub fn close(&self, by: Instant) -> bool {
        self.shared.pending.lock().stopping = true;
        self.shared.news.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            pool::join_until(thread, by);
        }
        self.shared.pending.lock().all_written
    }
}

impl Shared {
    fn run(&self) {
        // Whom the other nodes may forget, which they could not be told yet.
        let mut gone: Vec<UserId> = Vec::new();
        let mut given_up = false;
        loop {
            let mut pending = self.pending.lock();
            while pending.states.is_empty() {
                if pending.stopping {
                    pending.all_written = !given_up;
                    return;
                }
                if gone.is_empty() {
                    self.news.wait(&mut pending);
                } else if self.news.wait_for(&mut pending, RETRY_AFTER).timed_out() {
                    break;
                }
            }
            let states: Vec<_> = pending.states.drain().collect();
            drop(pending);
            let written = self.write(&states);
            // When it cannot be written, they are told as well, rather than wait for longer than their clients.
            self.tell(&states);
            if let Err(error) = written {
                let mut pending = self.pending.lock();
                if pending.stopping || !matches!(error, StoreError::Unavailable(_)) {
                    log::error!("the state of {} users was not written: {error}", states.len());
                    given_up = true;
                    continue;
                }
                // What was noted meanwhile is newer.
                for (user, state) in states {
                    pending.states.entry(user).or_insert(state);
                }
                self.news.wait_for(&mut pending, RETRY_AFTER);
                continue;
            }
            let back: FxHashSet<UserId> = in_state(&states, UserState::Online).into_iter().collect();
            gone.retain(|user| !back.contains(user));
            gone.extend(in_state(&states, UserState::Offline));
            if self.bus.disclaim(&gone).is_ok() {
                gone.clear();
            }
        }
    }

    fn note(&self, user: UserId, state: UserState, waiter: Option<&Arc<ClientLink>>) {
        let mut pending = self.pending.lock();
        pending.states.insert(user, state);
        // A client that waits for the other state will not see that one written.
        let overtaken = pending.told(user, |awaited| awaited != state);
        if let Some(link) = waiter {
            pending.waiting.entry(user).or_default().push((state, link.clone()));
        }
        if pending.states.len() == 1 {
            self.news.notify_one();
        }
        drop(pending);
        ClientLink::post_all(overtaken);
    }

    /// Tells those who wait for these states.
    fn tell(&self, states: &[(UserId, UserState)]) {
        let mut pending = self.pending.lock();
        if pending.waiting.is_empty() {
            return;
        }
        let told = states.iter().flat_map(|(user, state)| pending.told(*user, |awaited| awaited == *state)).collect();
        drop(pending);
        ClientLink::post_all(told);
    }

    fn write(&self, states: &[(UserId, UserState)]) -> Result<(), StoreError> {
        // Claimed before it is written, and given up after: nobody is marked online whom no node would look after.
        let _ = self.bus.claim(&in_state(states, UserState::Online));
        let mut states = states.to_vec();
        let stays = self.elsewhere(&states);
        remove(&mut states, &stays);
        if states.is_empty() {
            return Ok(());
        }
        self.store.get()?.set_states(&states)?;
        let arrived: Vec<_> = self.elsewhere(&states).into_iter().map(|user| (user, UserState::Online)).collect();
        if arrived.is_empty() { Ok(()) } else { self.store.get()?.set_states(&arrived) }
    }

    /// Those that are to be offline and are on another node. When the others cannot be asked, they will tell.
    fn elsewhere(&self, states: &[(UserId, UserState)]) -> Vec<UserId> {
        let leaving = in_state(states, UserState::Offline);
        if leaving.is_empty() { leaving } else { self.bus.elsewhere(&leaving).unwrap_or_default() }
    }
}

impl Pending {
    /// Takes those who wait for such a state of this user; what they are to be posted.
    fn told(&mut self, user: UserId, is_told: impl Fn(UserState) -> bool) -> Vec<(Arc<ClientLink>, Posted)> {
        let Some(waiting) = self.waiting.get_mut(&user) else { return Vec::new() };
        let told = waiting.extract_if(.., |(state, _)| is_told(*state));
        let told = told.map(|(state, link)| (link, Posted::Outcome(Outcome::Shown(user, state)))).collect();
        if waiting.is_empty() {
            self.waiting.remove(&user);
        }
        told
    }
}

fn in_state(states: &[(UserId, UserState)], state: UserState) -> Vec<UserId> {
    states.iter().filter(|(_, other)| *other == state).map(|(user, _)| *user).collect()
}

fn remove(states: &mut Vec<(UserId, UserState)>, users: &[UserId]) {
    let users: FxHashSet<_> = users.iter().collect();
    states.retain(|(user, state)| *state == UserState::Online || !users.contains(user));
}

const RETRY_AFTER: Duration = Duration::from_millis(500);
