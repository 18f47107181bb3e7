//! [`Watchers`]: who wants to hear which users come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::delivery::{ClientLink, Posted};
use crate::devices::tasks::MemberNews;
use crate::protocol::UserId;
use crate::store::UserState;

/// The users who are watched. A connection watches a bounded number of them. Changes on this node are
/// told at once; those of other nodes when somebody looks ([`Watchers::look`]).
#[derive(Debug)]
pub struct Watchers {
    /// Whether there cannot be other nodes.
    is_alone: bool,
    any: AtomicBool,
    /// A leaf lock; frames are posted under it, so that each connection hears changes in their order.
    users: Mutex<FxHashMap<UserId, Watched>>,
}

#[derive(Debug)]
struct Watched {
    state: UserState,
    /// Each with its own user, by its address: thousands may watch one user, and all of them may take
    /// their leave at once.
    links: FxHashMap<usize, (UserId, Arc<ClientLink>)>,
}

impl Watchers {
    /// Nobody is watched.
    pub fn new(is_alone: bool) -> Watchers {
        Watchers { is_alone, any: AtomicBool::new(false), users: Mutex::default() }
    }

    /// This user has come to this node, or left it. One who has left may be on another node.
    pub fn note_here(&self, user: UserId, state: UserState) {
        if state == UserState::Online || self.is_alone {
            self.note(user, state);
        }
    }

    fn note(&self, user: UserId, state: UserState) {
        if !self.any.load(Relaxed) {
            return;
        }
        let mut users = self.users.lock();
        let Some(watched) = users.get_mut(&user).filter(|watched| watched.state != state) else { return };
        watched.state = state;
        ClientLink::post_all(watched.links.values().map(|(_, link)| shown(link, user, state)).collect());
    }

    /// `link`, of user `own`, watches these users from now on, and none of those before. It is shown
    /// all of them. The states count for users whom nobody watches yet.
    pub fn watch(&self, own: UserId, link: &Arc<ClientLink>, before: &[UserId], now: &[(UserId, UserState)]) {
        let mut users = self.users.lock();
        forget(&mut users, link, before);
        let mut frames = Vec::with_capacity(now.len());
        for (user, state) in now {
            let watched = users.entry(*user).or_insert_with(|| Watched { state: *state, links: FxHashMap::default() });
            watched.links.insert(address(link), (own, link.clone()));
            frames.push(shown(link, *user, watched.state));
        }
        self.any.store(!users.is_empty(), Relaxed);
        ClientLink::post_all(frames);
        drop(users);
        if link.is_sealed() {
            // Its end may have been noted before.
            self.forget(link, &now.iter().map(|(user, _)| *user).collect::<Vec<_>>());
        }
    }

    /// `link` does not watch these users any more.
    pub fn forget(&self, link: &ClientLink, before: &[UserId]) {
        if before.is_empty() {
            return;
        }
        let mut users = self.users.lock();
        forget(&mut users, link, before);
        self.any.store(!users.is_empty(), Relaxed);
    }

    /// These two do not see each other any more, because one has blocked the other: they look offline
    /// until they are watched again.
    pub fn part(&self, one: UserId, other: UserId) {
        if !self.any.load(Relaxed) {
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

    /// All who are watched.
    pub fn watched(&self) -> Vec<UserId> {
        self.users.lock().keys().copied().collect()
    }

    /// Somebody has looked at these users: those who are online, and the others.
    pub fn look(&self, users: &[UserId], is_online: impl Fn(UserId) -> bool) {
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
