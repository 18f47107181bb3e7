//! [`Watchers`]: the connections that watch which users come and go.
//!
//! # Bounds
//! Thousands may watch one user, who may come and go many times a second. So of each user, at most
//! [`SHOWN_AT_ONCE`] changes are shown within [`SHOWN_WITHIN`]. Of the later ones, only the last
//! counts: it is shown when that time is over ([`Watchers::show_late`]). Changes of other users are
//! shown at once meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::delivery::{ClientLink, Posted};
use crate::devices::tasks::MemberNews;
use crate::protocol::UserId;
use crate::store::UserState;

/// The users who are watched. A connection watches a bounded number of them. Its frames about
/// changes on this node are posted at once; those about other nodes when [`Watchers::look`] is
/// called.
#[derive(Debug)]
pub struct Watchers {
    /// Whether there cannot be other nodes.
    is_alone: bool,
    any: AtomicBool,
    /// A leaf lock; frames are posted under it, so that each connection hears changes in their
    /// order.
    users: Mutex<FxHashMap<UserId, Watched>>,
    /// The users of whom a change waits. A leaf lock, also under the other one.
    late: Mutex<FxHashSet<UserId>>,
}

#[derive(Debug)]
struct Watched {
    state: UserState,
    /// The state that the watching connections were shown.
    shown: UserState,
    /// Whether some of them, which came later, were shown the other state.
    is_mixed: bool,
    /// The changes that were shown since this time.
    changes: u32,
    since: Option<Instant>,
    /// The watching connections by address, each with its own user. A map, because thousands may
    /// watch one user, and all of them may leave at once.
    links: FxHashMap<usize, (UserId, Arc<ClientLink>)>,
}

/// When a change is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ShownWhen {
    /// The state was shown before.
    Never,
    Now,
    /// After this time.
    Late(Duration),
}

impl Watched {
    fn new(state: UserState) -> Watched {
        Watched { state, shown: state, is_mixed: false, changes: 0, since: None, links: FxHashMap::default() }
    }

    /// Decides when the present state is shown.
    fn show(&mut self, now: Instant) -> ShownWhen {
        if self.shown == self.state && !self.is_mixed {
            return ShownWhen::Never;
        }
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= SHOWN_WITHIN {
            (self.since, self.changes) = (Some(now), 0);
        } else if self.changes >= SHOWN_AT_ONCE {
            return ShownWhen::Late(SHOWN_WITHIN - elapsed);
        }
        self.changes += 1;
        (self.shown, self.is_mixed) = (self.state, false);
        ShownWhen::Now
    }
}

impl Watchers {
    /// Starts without watchers.
    pub fn new(is_alone: bool) -> Watchers {
        Watchers { is_alone, any: AtomicBool::new(false), users: Mutex::default(), late: Mutex::default() }
    }

    /// Notes that this user has come to this node or left it. A user who has left may be on another
    /// node.
    pub fn note_here(&self, user: UserId, state: UserState) {
        if state == UserState::Online || self.is_alone {
            self.note(user, state);
        }
    }

    fn note(&self, user: UserId, state: UserState) {
        if !self.are_any() {
            return;
        }
        let mut users = self.users.lock();
        let Some(watched) = users.get_mut(&user).filter(|watched| watched.state != state) else { return };
        watched.state = state;
        self.show(user, watched, Instant::now());
    }

    /// Shows a user's state now or later. Returns how much later.
    fn show(&self, user: UserId, watched: &mut Watched, now: Instant) -> Option<Duration> {
        match watched.show(now) {
            ShownWhen::Never => {}
            ShownWhen::Now => {
                let state = watched.state;
                ClientLink::post_all(watched.links.values().map(|(_, link)| shown(link, user, state)).collect());
            }
            ShownWhen::Late(after) => {
                self.late.lock().insert(user);
                return Some(after);
            }
        }
        None
    }

    /// Shows the changes whose time has come. Returns the time until the next one.
    pub fn show_late(&self, now: Instant) -> Option<Duration> {
        if !self.are_any() {
            return None;
        }
        // This lock is taken first: nobody may find the list empty while another call holds users
        // whose time has not come.
        let mut users = self.users.lock();
        let late = std::mem::take(&mut *self.late.lock());
        let show = |user| users.get_mut(&user).and_then(|watched| self.show(user, watched, now));
        late.into_iter().filter_map(show).min()
    }

    /// Whether any user is watched.
    pub fn are_any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Makes `link`, of user `own`, watch these users, and none of those before. It is shown all of
    /// them. The given states are used only for users whom nobody watched before.
    pub fn watch(&self, own: UserId, link: &Arc<ClientLink>, before: &[UserId], now: &[(UserId, UserState)]) {
        let mut users = self.users.lock();
        forget(&mut users, link, before);
        let mut frames = Vec::with_capacity(now.len());
        for (user, state) in now {
            let watched = users.entry(*user).or_insert_with(|| Watched::new(*state));
            watched.links.insert(address(link), (own, link.clone()));
            watched.is_mixed |= watched.shown != watched.state;
            frames.push(shown(link, *user, watched.state));
        }
        self.any.store(!users.is_empty(), Relaxed);
        ClientLink::post_all(frames);
        drop(users);
        if link.is_sealed() {
            // The connection's end may have been noted earlier.
            self.forget(link, &now.iter().map(|(user, _)| *user).collect::<Vec<_>>());
        }
    }

    /// Stops `link` from watching these users.
    pub fn forget(&self, link: &ClientLink, before: &[UserId]) {
        if before.is_empty() {
            return;
        }
        let mut users = self.users.lock();
        forget(&mut users, link, before);
        self.any.store(!users.is_empty(), Relaxed);
    }

    /// Hides these two from each other, because one has blocked the other: they look offline until
    /// they are watched again.
    pub fn part(&self, one: UserId, other: UserId) {
        if !self.are_any() {
            return;
        }
        let mut users = self.users.lock();
        for (own, user) in [(one, other), (other, one)] {
            let Some(watched) = users.get_mut(&user) else { continue };
            let parted = watched.links.extract_if(|_, (watcher, _)| *watcher == own);
            ClientLink::post_all(parted.map(|(_, (_, link))| shown(&link, user, UserState::Offline)).collect());
            if watched.links.is_empty() {
                users.remove(&user);
            }
        }
        self.any.store(!users.is_empty(), Relaxed);
    }

    /// All watched users.
    pub fn watched(&self) -> Vec<UserId> {
        self.users.lock().keys().copied().collect()
    }

    /// Notes a query about these users: which are online, and which are not.
    pub fn look(&self, users: &[UserId], is_online: impl Fn(UserId) -> bool) {
        self.show_late(Instant::now());
        for user in users {
            self.note(*user, if is_online(*user) { UserState::Online } else { UserState::Offline });
        }
    }
}

fn forget(users: &mut FxHashMap<UserId, Watched>, link: &ClientLink, before: &[UserId]) {
    for user in before {
        let Some(watched) = users.get_mut(user) else { continue };
        watched.links.remove(&address(link));
        if watched.links.is_empty() {
            users.remove(user);
        }
    }
}

fn address(link: &ClientLink) -> usize {
    std::ptr::from_ref(link).addr()
}

fn shown(link: &Arc<ClientLink>, user: UserId, state: UserState) -> (Arc<ClientLink>, Posted) {
    (link.clone(), Posted::Member(Box::new(MemberNews::Presence(user, state == UserState::Online))))
}

/// The most changes of one user that are shown at once within this time.
const SHOWN_AT_ONCE: u32 = 4;
pub(super) const SHOWN_WITHIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_changes_the_first_few_and_the_last_are_shown() {
        let (start, mut watched) = (Instant::now(), Watched::new(UserState::Offline));
        let mut shown = 0;
        for nth in 1..=1000 {
            watched.state = if nth % 2 == 1 { UserState::Online } else { UserState::Offline };
            shown += u32::from(watched.show(start) == ShownWhen::Now);
        }
        assert_eq!((shown, watched.show(start)), (SHOWN_AT_ONCE, ShownWhen::Never), "offline, as it was shown");
        watched.state = UserState::Online;
        let second = Duration::from_secs(1);
        assert_eq!(watched.show(start + second), ShownWhen::Late(SHOWN_WITHIN - second));
        assert_eq!(watched.show(start + SHOWN_WITHIN), ShownWhen::Now, "the last one");
        watched.state = UserState::Offline;
        assert_eq!(watched.show(start + SHOWN_WITHIN), ShownWhen::Now, "and then at once again");
    }

    #[test]
    fn a_state_that_only_newer_watchers_were_shown_is_shown_to_all() {
        let (start, mut watched) = (Instant::now(), Watched::new(UserState::Offline));
        watched.is_mixed = true;
        assert_eq!(watched.show(start), ShownWhen::Now);
        assert_eq!(watched.show(start), ShownWhen::Never);
    }
}
