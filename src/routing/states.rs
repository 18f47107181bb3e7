//! [`StateWriter`]: keeps `User.state` up to date, off the hot path.
//!
//! Only the latest state of a user matters. So changes wait in a map, which is bounded by the
//! number of users, and a thread writes them in batches. The column is for C++ neighbours and
//! tools: this server never trusts it.
//!
//! While nodes of the reference server run, which rely on the column, a login or logout waits until
//! its state is written, with the batch. If it cannot be written now, no login waits any longer.
//!
//! A user may be on several nodes. A node that the user leaves asks the others before it writes
//! `offline`, and once more after that: a user who logged in elsewhere in between is online.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::bus::Register;
use crate::delivery::{ClientLink, Posted};
use crate::protocol::UserId;
use crate::routing::watchers::{SHOWN_WITHIN, Watchers};
use crate::session::Outcome;
use crate::store::{Role, States, StoreError, UserState};

/// Notes logins and logouts, and writes them.
pub struct StateWriter {
    shared: Arc<StateCore>,
    /// The thread; `None` once the writer is closed.
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The data shared by the thread and its callers.
struct StateCore {
    store: Role<dyn States>,
    bus: Arc<dyn Register>,
    /// The thread also shows them changes that came too fast.
    watchers: Arc<Watchers>,
    pending: Mutex<PendingStates>,
    news: Condvar,
}

/// Users to be added to the register, and users to be removed from it, where that has not succeeded
/// yet.
#[derive(Debug, Default)]
struct RegisterBacklog {
    arrived: FxHashSet<UserId>,
    gone: FxHashSet<UserId>,
}

#[derive(Debug, Default)]
struct PendingStates {
    states: FxHashMap<UserId, UserState>,
    /// Connections that wait until a state is written. Each waits for one state, and not for long.
    waiting: FxHashMap<UserId, Vec<(UserState, Arc<ClientLink>)>>,
    /// Set at shutdown: changes that cannot be written are given up.
    stopping: bool,
    /// Whether everything noted is written.
    all_written: bool,
}

impl StateWriter {
    /// A writer that only notes changes, until it is [started](StateWriter::start).
    pub fn new(store: Role<dyn States>, bus: Arc<dyn Register>, watchers: Arc<Watchers>) -> StateWriter {
        let shared = Arc::new(StateCore { store, bus, watchers, pending: Mutex::default(), news: Condvar::new() });
        StateWriter { shared, thread: Mutex::new(None) }
    }

    /// Starts the thread that writes, named `states`. Call it once.
    ///
    /// # Errors
    ///
    /// If the system cannot start a thread.
    pub fn start(&self) -> io::Result<()> {
        let writer = self.shared.clone();
        let thread = thread::Builder::new().name("states".into()).spawn(move || pool::vital(|| writer.run()))?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Notes a change. Never blocks.
    pub fn note(&self, user: UserId, state: UserState) {
        self.shared.watchers.note_here(user, state);
        self.shared.note(user, state, None);
    }

    /// Notes a change; `link` is posted [`Outcome::Shown`] when it is written.
    pub fn note_and_tell(&self, user: UserId, state: UserState, link: &Arc<ClientLink>) {
        self.shared.watchers.note_here(user, state);
        self.shared.note(user, state, Some(link));
    }

    /// Has `link` posted [`Outcome::Shown`] when this state, which will be noted, is written.
    pub fn tell(&self, user: UserId, state: UserState, link: &Arc<ClientLink>) {
        self.shared.pending.lock().waiting.entry(user).or_default().push((state, link.clone()));
    }

    /// Lets waiters for this user's state stop waiting.
    pub fn tell_at_once(&self, user: UserId) {
        let told = self.shared.pending.lock().told(user, |_| true);
        ClientLink::post_all(told);
    }

    /// Writes that these users have left a node, immediately; false if that is impossible. Blocks.
    pub fn write_offline(&self, users: &[UserId]) -> bool {
        let states: Vec<_> = users.iter().map(|user| (*user, UserState::Offline)).collect();
        self.shared.write(&states).is_ok()
    }

    /// Writes the noted changes, and ends. Changes that fail at the first attempt are given up, and
    /// at `by` all are. If all are written, this node leaves the register. Otherwise it stays
    /// there, and other nodes correct the states of its users.
    pub fn close(&self, by: Instant) {
        self.shared.pending.lock().stopping = true;
        self.shared.news.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            pool::join_until(thread, by);
        }
        let all_written = self.shared.pending.lock().all_written;
        if all_written {
            self.shared.bus.say_goodbye();
        }
    }
}

impl StateCore {
    fn run(&self) {
        let mut backlog = RegisterBacklog::default();
        let mut given_up = false;
        loop {
            // A change that is noted as late wakes nobody, so while anybody watches, this thread
            // looks again before the change is due.
            let watches = || self.watchers.are_any().then_some(SHOWN_WITHIN);
            let late = self.watchers.show_late(Instant::now()).or_else(watches);
            let mut pending = self.pending.lock();
            while pending.states.is_empty() {
                if pending.stopping {
                    pending.all_written = !given_up;
                    return;
                }
                let retry = (!backlog.is_empty()).then_some(RETRY_AFTER);
                match retry.into_iter().chain(late).min() {
                    None => self.news.wait(&mut pending),
                    Some(pause) if self.news.wait_for(&mut pending, pause).timed_out() => break,
                    Some(_) => {}
                }
            }
            let states: Vec<_> = pending.states.drain().collect();
            drop(pending);
            // Users are claimed before the state is written, and released after it, so every user
            // who is marked online is registered with a node, and is corrected if that node dies.
            // If the register takes no writes now, the state is written all the same, and the claim
            // follows.
            backlog.claim(&*self.bus, &states);
            let written = self.write(&states);
            // If the state cannot be written, its waiters are notified as well, so that they do not
            // wait longer than their clients do.
            self.tell(&states);
            if let Err(error) = written {
                let mut pending = self.pending.lock();
                if pending.stopping || !matches!(error, StoreError::Unavailable(_)) {
                    log::error!("the state of {} users was not written: {error}", states.len());
                    given_up = true;
                    continue;
                }
                // Changes noted meanwhile are newer.
                for (user, state) in states {
                    pending.states.entry(user).or_insert(state);
                }
                self.news.wait_for(&mut pending, RETRY_AFTER);
                continue;
            }
            backlog.disclaim(&*self.bus, &states);
        }
    }

    fn note(&self, user: UserId, state: UserState, waiter: Option<&Arc<ClientLink>>) {
        let mut pending = self.pending.lock();
        pending.states.insert(user, state);
        // A client that waits for the other state would wait in vain.
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

    /// Notifies the connections that wait for these states.
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

    /// The users who are to be set offline and are on another node. If the others cannot be asked,
    /// they will write their own state.
    fn elsewhere(&self, states: &[(UserId, UserState)]) -> Vec<UserId> {
        let leaving = in_state(states, UserState::Offline);
        if leaving.is_empty() { leaving } else { self.bus.elsewhere(&leaving).unwrap_or_default() }
    }
}

impl RegisterBacklog {
    fn is_empty(&self) -> bool {
        self.arrived.is_empty() && self.gone.is_empty()
    }

    /// Adds users who come online, before that is written.
    fn claim(&mut self, bus: &dyn Register, states: &[(UserId, UserState)]) {
        for user in in_state(states, UserState::Online) {
            self.gone.remove(&user);
            self.arrived.insert(user);
        }
        if bus.claim(&self.arrived.iter().copied().collect::<Vec<_>>()).is_ok() {
            self.arrived.clear();
        }
    }

    /// Removes users who have gone offline, once the states are written.
    fn disclaim(&mut self, bus: &dyn Register, states: &[(UserId, UserState)]) {
        for user in in_state(states, UserState::Offline) {
            self.arrived.remove(&user);
            self.gone.insert(user);
        }
        if bus.disclaim(&self.gone.iter().copied().collect::<Vec<_>>()).is_ok() {
            self.gone.clear();
        }
    }
}

impl PendingStates {
    /// Removes the waiters for such a state of this user. Returns what to post to them.
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::bus::Unreachable;

    /// A register on paper, which takes writes or refuses them.
    #[derive(Default)]
    struct Paper {
        users: Mutex<FxHashSet<UserId>>,
        is_shut: AtomicBool,
    }

    impl Paper {
        fn write(&self, act: impl FnOnce(&mut FxHashSet<UserId>)) -> Result<(), Unreachable> {
            if self.is_shut.load(Ordering::Relaxed) {
                return Err(Unreachable);
            }
            act(&mut self.users.lock());
            Ok(())
        }
    }

    impl Register for Paper {
        fn is_first(&self) -> bool {
            false
        }

        fn claim(&self, users: &[UserId]) -> Result<(), Unreachable> {
            self.write(|all| all.extend(users))
        }

        fn disclaim(&self, users: &[UserId]) -> Result<(), Unreachable> {
            self.write(|all| all.retain(|user| !users.contains(user)))
        }

        fn say_goodbye(&self) {}

        fn elsewhere(&self, _: &[UserId]) -> Result<Vec<UserId>, Unreachable> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_user_who_has_come_back_is_not_removed_from_the_register_late() {
        let (paper, mut backlog) = (Paper::default(), RegisterBacklog::default());
        let (seven, eight) = (UserId(7), UserId(8));
        paper.is_shut.store(true, Ordering::Relaxed);
        backlog.disclaim(&paper, &[(seven, UserState::Offline)]);
        paper.is_shut.store(false, Ordering::Relaxed);
        backlog.claim(&paper, &[(seven, UserState::Online)]);
        // The database does not take that state, so the next user to leave comes first.
        backlog.claim(&paper, &[(eight, UserState::Offline)]);
        backlog.disclaim(&paper, &[(eight, UserState::Offline)]);
        assert_eq!(paper.users.lock().iter().copied().collect::<Vec<_>>(), [seven]);
        assert!(backlog.is_empty());
    }
}
