//! [`Presence`]: the users who are online on this node, and their connections. This is the only
//! table that loops share.
//!
//! A thread that delivers to a user holds the user's shard for reading while it hands the message
//! to a connection or to a lane. A thread that changes where the user's messages go holds the shard
//! for writing, and under the same lock moves the messages that a leaving connection did not take.
//! So messages from one sender to one recipient stay in order across logins and logouts. Under a
//! shard's lock only leaf locks are taken: those of a link's output, of a lane, and of the state
//! writer.

use std::slice;
use std::sync::Arc;

use net::Link;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use rustc_hash::FxHashMap;

use crate::protocol::UserId;
use crate::store::history::DeviceId;

/// User -> connections, in shards.
#[derive(Debug)]
pub struct Presence<M> {
    shards: Box<[RwLock<Shard<M>>]>,
}

/// The users of one shard. Each has at least one connection.
#[derive(Debug)]
pub struct Shard<M> {
    users: FxHashMap<UserId, UserLinks<M>>,
    /// Connections that will receive for a user once the other nodes send here.
    joining: FxHashMap<UserId, UserLinks<M>>,
    /// Users whose newest connection was given messages that another node's connection had not
    /// taken.
    given: FxHashMap<UserId, Given>,
    /// Connections of level 2, which get what is recorded in conversations.
    devices: FxHashMap<UserId, Vec<DeviceLink<M>>>,
}

/// A connection of level 2.
#[derive(Debug)]
pub struct DeviceLink<M> {
    /// The connection.
    pub link: Arc<Link<M>>,
    /// Its device.
    pub device: DeviceId,
    /// The number of its login: a later one of the device has a higher one.
    pub login: i64,
    /// Whether messages of other nodes arrive, as far as this connection has waited for them.
    pub is_placed: bool,
}

/// The messages of a dead connection to another node that this node has delivered.
#[derive(Debug)]
struct Given {
    /// The name of that node: messages that other nodes return may be older.
    by: Box<str>,
    /// [`Link::pushes`] of the connection right after it was given them. If the number differs, the
    /// connection has received something since.
    pushes: u32,
}

/// A user's connections in the order of their logins. Small, because there is an entry for every
/// user and nearly all have one connection.
#[derive(Debug)]
enum UserLinks<M> {
    One(UserLink<M>),
    #[expect(clippy::box_collection, reason = "a Vec itself would make the entry of everybody half as large again")]
    More(Box<Vec<UserLink<M>>>),
}

/// One connection of a user, and the age of its messages compared with those of the others.
#[derive(Debug)]
struct UserLink<M> {
    link: Arc<Link<M>>,
    /// Whether it has logged in again while another connection was newer. Some of its messages are
    /// then older than those that the others have received.
    came_back: bool,
    /// Whether the user has since logged in at another node.
    is_elsewhere: bool,
    /// [`Link::pushes`] at a time when the connection had received nothing newer than the messages
    /// of the user's other connections. If the number differs, it has received something since, or
    /// may have before.
    pushes: u32,
}

impl<M> Presence<M> {
    /// A table without users.
    pub fn new() -> Presence<M> {
        Presence { shards: (0..SHARDS).map(|_| RwLock::default()).collect() }
    }

    /// All shards, locked one after the other.
    pub fn shards(&self) -> impl Iterator<Item = RwLockReadGuard<'_, Shard<M>>> {
        self.shards.iter().map(RwLock::read)
    }

    /// The shard of `user`, which cannot change while it is held.
    pub fn read(&self, user: UserId) -> RwLockReadGuard<'_, Shard<M>> {
        self.shards[shard_of(user)].read()
    }

    /// The number of users online, at either level.
    pub fn users(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().user_count()).sum()
    }

    /// The shard of `user`, for changes.
    pub fn write(&self, user: UserId) -> RwLockWriteGuard<'_, Shard<M>> {
        self.shards[shard_of(user)].write()
    }
}

impl<M> Default for Shard<M> {
    fn default() -> Shard<M> {
        let (users, joining) = (FxHashMap::default(), FxHashMap::default());
        Shard { users, joining, given: FxHashMap::default(), devices: FxHashMap::default() }
    }
}

impl<M> Default for Presence<M> {
    fn default() -> Presence<M> {
        Presence::new()
    }
}

impl<M> Shard<M> {
    /// The connection that receives for `user`: the one with the latest login.
    pub fn newest(&self, user: UserId) -> Option<&Arc<Link<M>>> {
        self.entries(user).last().map(|entry| &entry.link)
    }

    /// Whether `link` receives for `user`, and all its messages are newer than those that the
    /// user's other connections have received. These may then be given its messages.
    pub fn holds_newest(&self, user: UserId, link: &Link<M>) -> bool {
        self.entries(user).last().is_some_and(|entry| *entry.link == *link && !entry.came_back)
    }

    /// Whether another connection than `link` receives for `user`, and has received nothing newer
    /// than the messages of `link`. It may then be given those.
    pub fn goes_first(&self, user: UserId, link: &Link<M>) -> bool {
        let Some((newest, others)) = self.entries(user).split_last() else { return false };
        let has_got_nothing = !newest.came_back && newest.link.pushes() == newest.pushes;
        has_got_nothing && others.iter().any(|entry| *entry.link == *link && !entry.came_back)
    }

    /// Notes that the connection that receives for `user` was given the messages of the oldest one,
    /// which are older than those of the others.
    pub fn was_given_the_oldest(&mut self, user: UserId) {
        let newest = match self.users.get_mut(&user) {
            None => return,
            Some(UserLinks::One(entry)) => Some(entry),
            Some(UserLinks::More(entries)) => entries.last_mut(),
        };
        if let Some(entry) = newest {
            entry.pushes = entry.link.pushes();
        }
    }

    /// The connection that may be given messages that a dead connection to that node had not taken:
    /// the newest one, unless it has received something newer, apart from messages that the same
    /// node has returned.
    pub fn follows_elsewhere(&self, user: UserId, node: &str) -> Option<&Arc<Link<M>>> {
        let newest = self.entries(user).last().filter(|entry| !entry.came_back)?;
        let pushes = newest.link.pushes();
        let goes_on = self.given.get(&user).is_some_and(|given| *given.by == *node && given.pushes == pushes);
        (goes_on || pushes == newest.pushes).then_some(&newest.link)
    }

    /// Notes that this connection was given them.
    pub fn was_given(&mut self, user: UserId, node: &str) {
        if let Some(pushes) = self.newest(user).map(|link| link.pushes()) {
            self.given.insert(user, Given { by: node.into(), pushes });
        }
    }

    /// Notes that the user has logged in at another node, later than on the connections here.
    pub fn went_elsewhere(&mut self, user: UserId) {
        match self.users.get_mut(&user) {
            None => {}
            Some(UserLinks::One(entry)) => entry.is_elsewhere = true,
            Some(UserLinks::More(entries)) => entries.iter_mut().for_each(|entry| entry.is_elsewhere = true),
        }
    }

    /// Whether the user has logged in at another node since the login on `link`.
    pub fn is_elsewhere(&self, user: UserId, link: &Link<M>) -> bool {
        self.entries(user).iter().any(|entry| *entry.link == *link && entry.is_elsewhere)
    }

    /// Whether no connection of `user` has logged in before `link`.
    pub fn is_oldest(&self, user: UserId, link: &Link<M>) -> bool {
        self.entries(user).first().is_some_and(|entry| *entry.link == *link)
    }

    /// Whether `user` is logged in on `link`.
    pub fn is_on(&self, user: UserId, link: &Link<M>) -> bool {
        self.entries(user).iter().any(|entry| *entry.link == *link)
    }

    /// The connections of `user`, in the order of their logins.
    pub fn links(&self, user: UserId) -> impl DoubleEndedIterator<Item = &Arc<Link<M>>> {
        self.entries(user).iter().map(|entry| &entry.link)
    }

    fn entries(&self, user: UserId) -> &[UserLink<M>] {
        self.users.get(&user).map_or(&[], UserLinks::as_slice)
    }

    /// Whether `user` is on any connection, or soon will be.
    pub fn has(&self, user: UserId) -> bool {
        self.users.contains_key(&user) || self.joining.contains_key(&user) || self.devices.contains_key(&user)
    }

    fn user_count(&self) -> usize {
        self.users.len() + self.devices.keys().filter(|user| !self.users.contains_key(*user)).count()
    }

    /// The users who receive on this node, some of them twice.
    pub fn users(&self) -> impl Iterator<Item = UserId> {
        self.users.keys().chain(self.devices.keys()).copied()
    }

    /// All connections of level 1, and their users; one with several users comes several times.
    pub fn all_links(&self) -> impl Iterator<Item = (UserId, &Arc<Link<M>>)> {
        self.users.iter().flat_map(|(user, links)| links.as_slice().iter().map(|entry| (*user, &entry.link)))
    }

    /// The connections of level 2 of `user`.
    pub fn devices(&self, user: UserId) -> &[DeviceLink<M>] {
        self.devices.get(&user).map_or(&[], Vec::as_slice)
    }

    /// All connections of level 2, and their users.
    pub fn all_devices(&self) -> impl Iterator<Item = (UserId, &DeviceLink<M>)> {
        self.devices.iter().flat_map(|(user, devices)| devices.iter().map(|device| (*user, device)))
    }

    /// Adds a connection of level 2.
    pub fn add_device(&mut self, user: UserId, device: DeviceLink<M>) {
        self.devices.entry(user).or_default().push(device);
    }

    /// Notes that messages of other nodes arrive for this connection of level 2.
    pub fn place_device(&mut self, user: UserId, link: &Link<M>) {
        let devices = self.devices.get_mut(&user).into_iter().flatten();
        devices.filter(|device| *device.link == *link).for_each(|device| device.is_placed = true);
    }

    /// Removes a connection of level 2. Returns whether it was there.
    pub fn remove_device(&mut self, user: UserId, link: &Link<M>) -> bool {
        let Some(devices) = self.devices.get_mut(&user) else { return false };
        let before = devices.len();
        devices.retain(|device| *device.link != *link);
        let was_there = devices.len() < before;
        if devices.is_empty() {
            self.devices.remove(&user);
        }
        was_there
    }

    /// The users who will soon receive on this node.
    pub fn joining(&self) -> impl Iterator<Item = UserId> {
        self.joining.keys().copied()
    }

    /// Notes that `link` will receive for `user`. [`Shard::add`] or [`Shard::remove`] must follow.
    pub fn join(&mut self, user: UserId, link: &Arc<Link<M>>) {
        push(
            &mut self.joining,
            user,
            UserLink { link: link.clone(), came_back: false, is_elsewhere: false, pushes: 0 },
        );
    }

    /// Makes `link` the one that receives for `user`.
    pub fn add(&mut self, user: UserId, link: &Arc<Link<M>>) -> Added {
        let has_joined = take(&mut self.joining, user, link);
        self.given.remove(&user);
        let entries = self.entries(user);
        let was_nowhere = entries.is_empty();
        let before = entries.iter().position(|entry| entry.link == *link);
        let came_back = before.is_some_and(|at| at + 1 < entries.len() || entries[at].came_back);
        let sent = link.pushes();
        let pushes = match before {
            Some(at) if at + 1 == entries.len() => entries[at].pushes,
            // When the connection was the newest before, it may have received something newer than
            // the messages of another one.
            _ if sent > 0 && !was_nowhere => sent.wrapping_sub(1),
            _ => sent,
        };
        take(&mut self.users, user, link);
        push(&mut self.users, user, UserLink { link: link.clone(), came_back, is_elsewhere: false, pushes });
        match (was_nowhere, has_joined) {
            (true, true) => Added::FirstJoined,
            (true, false) => Added::First,
            (false, _) => Added::Another,
        }
    }

    /// Removes `user` from `link`, even before `link` receives. Returns whether there was such an
    /// entry, and whether the user is left without a connection.
    pub fn remove(&mut self, user: UserId, link: &Link<M>) -> Removed {
        let was_there = take(&mut self.users, user, link) | take(&mut self.joining, user, link);
        if was_there {
            self.given.remove(&user);
        }
        match was_there {
            false => Removed::Nothing,
            true if self.has(user) => Removed::One,
            true => Removed::Last,
        }
    }
}

impl<M> UserLinks<M> {
    fn as_slice(&self) -> &[UserLink<M>] {
        match self {
            UserLinks::One(entry) => slice::from_ref(entry),
            UserLinks::More(entries) => entries,
        }
    }
}

/// Adds a connection to those of the user.
fn push<M>(users: &mut FxHashMap<UserId, UserLinks<M>>, user: UserId, entry: UserLink<M>) {
    let entries = match users.remove(&user) {
        None => UserLinks::One(entry),
        Some(UserLinks::One(first)) => UserLinks::More(Box::new(vec![first, entry])),
        Some(UserLinks::More(mut entries)) => {
            entries.push(entry);
            UserLinks::More(entries)
        }
    };
    users.insert(user, entries);
}

/// Removes `link` from the connections of the user. Returns whether it was there.
fn take<M>(users: &mut FxHashMap<UserId, UserLinks<M>>, user: UserId, link: &Link<M>) -> bool {
    let Some(entries) = users.get_mut(&user) else { return false };
    let before = entries.as_slice().len();
    let left = match entries {
        UserLinks::One(entry) => usize::from(*entry.link != *link),
        UserLinks::More(entries) => {
            entries.retain(|entry| *entry.link != *link);
            entries.len()
        }
    };
    if left == 0 {
        users.remove(&user);
    }
    left < before
}

/// The result of [`Shard::add`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Added {
    /// The user was on no connection, and this one had not joined.
    First,
    /// The user was on no connection, and this one had joined.
    FirstJoined,
    /// The user was on another connection already.
    Another,
}

/// The result of [`Shard::remove`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Removed {
    /// The user was not there.
    Nothing,
    /// The user is still on another connection.
    One,
    /// The user is on no connection any more.
    Last,
}

/// Ids are assigned consecutively, so their low bits are well distributed.
fn shard_of(user: UserId) -> usize {
    user.0 as usize % SHARDS
}

/// The number of shards, so high that two loops rarely need the same one.
const SHARDS: usize = 256;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use net::simulation::link_to_nowhere;
    use net::{Fate, Turn};

    use super::*;

    const USER: UserId = UserId(1);

    fn shard() -> Shard<()> {
        Shard::default()
    }

    fn links<const N: usize>() -> [Arc<Link<()>>; N] {
        std::array::from_fn(|_| link_to_nowhere().expect("descriptors"))
    }

    fn push(link: &Arc<Link<()>>) {
        let before = link.pushes();
        link.send(&mut Turn::at(Instant::now()), b"{}", Fate::Return(net::Label::of(1))).expect("it takes everything");
        assert_ne!(link.pushes(), before);
    }

    #[test]
    fn the_last_login_receives_and_the_first_one_is_the_oldest() {
        let (mut shard, [a, b]) = (shard(), links());
        assert_eq!((shard.add(USER, &a), shard.add(USER, &b)), (Added::First, Added::Another));
        assert_eq!(shard.newest(USER), Some(&b));
        assert!(shard.is_oldest(USER, &a) && !shard.is_oldest(USER, &b));
        assert_eq!((shard.remove(USER, &b), shard.remove(USER, &b)), (Removed::One, Removed::Nothing));
        assert_eq!(shard.newest(USER), Some(&a));
        assert_eq!(shard.remove(USER, &a), Removed::Last);
    }

    #[test]
    fn a_user_counts_once_at_whatever_levels() {
        let (presence, [a, b, c]) = (Presence::<()>::new(), links());
        let device =
            |link: &Arc<Link<()>>| DeviceLink { link: link.clone(), device: DeviceId(1), login: 1, is_placed: true };
        presence.write(USER).add(USER, &a);
        assert_eq!(presence.users(), 1);
        presence.write(USER).add_device(USER, device(&b));
        assert_eq!(presence.users(), 1);
        presence.write(UserId(2)).add_device(UserId(2), device(&c));
        assert_eq!(presence.users(), 2);
        presence.write(USER).remove(USER, &a);
        assert_eq!(presence.users(), 2);
    }

    #[test]
    fn a_joining_user_is_here_and_leaves_as_a_whole() {
        let (mut shard, [a]) = (shard(), links());
        shard.join(USER, &a);
        assert!(shard.has(USER) && shard.newest(USER).is_none());
        assert_eq!(shard.add(USER, &a), Added::FirstJoined);
        shard.join(USER, &a);
        assert_eq!((shard.remove(USER, &a), shard.has(USER)), (Removed::Last, false));
    }

    #[test]
    fn a_connection_that_has_logged_in_again_behind_another_never_holds_only_the_newest() {
        let (mut shard, [a, b, c]) = (shard(), links());
        shard.add(USER, &a);
        shard.add(USER, &b);
        assert!(shard.holds_newest(USER, &b) && shard.goes_first(USER, &a), "b has got nothing");
        shard.add(USER, &a);
        assert!(!shard.holds_newest(USER, &a) && !shard.goes_first(USER, &b), "a has older messages");
        assert_eq!(shard.follows_elsewhere(USER, "x"), None);
        shard.add(USER, &a);
        assert!(!shard.holds_newest(USER, &a), "once more changes nothing");
        shard.add(USER, &c);
        assert!(shard.goes_first(USER, &b) && !shard.goes_first(USER, &a), "some of what a holds is newer");
    }

    #[test]
    fn messages_of_an_older_connection_go_first_only_while_the_newest_has_got_nothing() {
        let (mut shard, [a, b]) = (shard(), links());
        shard.add(USER, &a);
        shard.add(USER, &b);
        push(&b);
        assert!(!shard.goes_first(USER, &a), "b has got something newer");
        shard.add(USER, &b);
        assert!(!shard.goes_first(USER, &a), "another login does not change that");
        shard.was_given_the_oldest(USER);
        assert!(shard.goes_first(USER, &a), "what b has got is older than what others hold");
        shard.remove(USER, &b);
        shard.add(USER, &b);
        assert!(!shard.goes_first(USER, &a), "b was here before, and may have got something newer");
    }

    #[test]
    fn messages_that_a_node_returns_follow_to_a_connection_that_has_got_nothing_else() {
        let (mut shard, [a]) = (shard(), links());
        shard.add(USER, &a);
        assert_eq!(shard.follows_elsewhere(USER, "x"), Some(&a));
        push(&a);
        assert_eq!(shard.follows_elsewhere(USER, "x"), None);
        shard.was_given(USER, "x");
        assert_eq!((shard.follows_elsewhere(USER, "x"), shard.follows_elsewhere(USER, "y")), (Some(&a), None));
        push(&a);
        assert_eq!(shard.follows_elsewhere(USER, "x"), None, "it has got something since");
    }
}
