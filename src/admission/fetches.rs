//! [`Fetches`]: the memory for replies with stored messages, and the queue of fetches for it.
//!
//! Before the store is read, a fetch takes the memory that its reply may need at most. Then it
//! holds what the reply really occupies, until the client has received it. An address may have no
//! more than is free. Fetches that find no memory wait, and addresses take turns, so a client that
//! does not read its reply delays other fetches of its own address first. While a fetch waits,
//! connections that have read nothing of their reply for a while are closed, see
//! [`Fetches::in_the_way`]: their messages stay stored.

use std::collections::BTreeMap;
use std::hash::Hash;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::admission::{Shares, Source, Turns};
use crate::protocol::UserId;

/// The memory, the fetches that hold some, and those that wait. `W` is a connection, which makes
/// one fetch at a time. A leaf lock.
#[derive(Debug)]
pub struct Fetches<W> {
    /// The most memory that one fetch may need.
    page: usize,
    state: Mutex<FetchState<W>>,
}

#[derive(Debug)]
struct FetchState<W> {
    shares: Shares<Source>,
    under_way: FxHashMap<W, HeldFetch>,
    /// The fetches that hold memory, by age.
    by_age: BTreeMap<u64, W>,
    next_age: u64,
    waiting: Turns<Source, (UserId, W)>,
    /// The addresses of the waiting connections.
    waiting_from: FxHashMap<W, Source>,
}

#[derive(Debug)]
struct HeldFetch {
    source: Source,
    bytes: usize,
    age: u64,
}

impl<W: Clone + Eq + Hash> Fetches<W> {
    /// Makes `bytes_max` available, of which one fetch needs `page` at most. A few pages always
    /// fit.
    pub fn new(bytes_max: usize, page: usize) -> Fetches<W> {
        let shares = Shares::new(bytes_max.max(PAGES_MIN * page));
        let state = FetchState {
            shares,
            under_way: FxHashMap::default(),
            by_age: BTreeMap::new(),
            next_age: 0,
            waiting: Turns::default(),
            waiting_from: FxHashMap::default(),
        };
        Fetches { page, state: Mutex::new(state) }
    }

    /// Begins a fetch of a user. True if it may read the store now; otherwise it waits.
    pub fn begin(&self, user: UserId, source: Source, who: &W) -> bool {
        let mut state = self.state.lock();
        let begins = state.shares.take(source, self.page);
        if begins {
            state.hold(source, self.page, who);
        } else {
            state.waiting.push(source, (user, who.clone()));
            state.waiting_from.insert(who.clone(), source);
        }
        begins
    }

    /// Returns a fetch that has waited and may now read the store.
    pub fn next(&self) -> Option<(UserId, W)> {
        let mut guard = self.state.lock();
        let FetchState { shares, waiting, .. } = &mut *guard;
        let (source, (user, who)) = waiting.take_if(|source| shares.would_take(source, self.page))?;
        guard.waiting_from.remove(&who);
        guard.shares.take_anyway(source, self.page);
        guard.hold(source, self.page, &who);
        Some((user, who))
    }

    /// Notes that the reply of a fetch is complete and occupies this number of bytes.
    pub fn made(&self, who: &W, bytes: usize) {
        let mut guard = self.state.lock();
        let FetchState { shares, under_way, .. } = &mut *guard;
        let Some(held) = under_way.get_mut(who) else { return };
        shares.give_back(held.source, held.bytes);
        shares.take_anyway(held.source, bytes);
        held.bytes = bytes;
    }

    /// Ends a fetch: its client has the reply, or will not get one, or no longer waits.
    pub fn end(&self, who: &W) {
        let mut guard = self.state.lock();
        match guard.under_way.remove(who) {
            Some(HeldFetch { source, bytes, age }) => {
                guard.by_age.remove(&age);
                guard.shares.give_back(source, bytes);
            }
            None => {
                if let Some(source) = guard.waiting_from.remove(who) {
                    guard.waiting.retain(&source, |(_, waiting)| waiting != who);
                }
            }
        }
    }

    /// The connections that hold memory, the oldest first; empty unless this fetch waits. The
    /// caller asks each whether its client still reads.
    pub fn in_the_way(&self, who: &W) -> Vec<W> {
        let state = self.state.lock();
        if !state.waiting_from.contains_key(who) {
            return Vec::new();
        }
        state.by_age.values().take(ASKED_AT_ONCE).cloned().collect()
    }
}

impl<W: Clone + Eq + Hash> FetchState<W> {
    fn hold(&mut self, source: Source, bytes: usize, who: &W) {
        let age = self.next_age;
        self.next_age += 1;
        self.by_age.insert(age, who.clone());
        let before = self.under_way.insert(who.clone(), HeldFetch { source, bytes, age });
        debug_assert!(before.is_none(), "it fetches one thing at a time");
    }
}

/// With this minimum, an address alone has half of the pages, and other addresses find room.
const PAGES_MIN: usize = 4;
/// The most connections that are asked at a time whether their client still reads, every two
/// seconds.
const ASKED_AT_ONCE: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into())
    }

    #[test]
    fn one_address_has_half_and_those_of_others_do_not_wait_for_it() {
        let fetches = Fetches::new(800, 100);
        let begin = |from: u8, who: u32| fetches.begin(UserId(who as i32), source(from), &who);
        assert_eq!((1..=6).filter(|who| begin(1, *who)).count(), 4);
        assert!(begin(2, 11) && begin(2, 12));
        assert!(!begin(2, 13), "it has as much as is free");
        assert_eq!(fetches.next(), None);
        // A small reply leaves room.
        fetches.made(&11, 10);
        assert_eq!(fetches.next(), Some((UserId(13), 13)));
        (1..=5).for_each(|who| fetches.end(&who));
        assert_eq!((fetches.next(), fetches.next()), (Some((UserId(6), 6)), None), "5 waits no longer");
        [6, 11, 12, 13].iter().for_each(|who| fetches.end(who));
        let state = fetches.state.lock();
        assert_eq!((state.shares.free(), state.under_way.len(), state.by_age.len()), (800, 0, 0));
        assert!(state.waiting.is_empty() && state.waiting_from.is_empty());
    }

    #[test]
    fn one_that_waits_learns_who_is_in_the_way() {
        let fetches = Fetches::new(0, 100);
        let begin = |from, who: u32| fetches.begin(UserId(1), source(from), &who);
        assert!(begin(1, 1) && begin(1, 2) && !begin(1, 3), "there is room for a few");
        assert_eq!((fetches.in_the_way(&3), fetches.in_the_way(&1)), (vec![1, 2], vec![]));
        fetches.end(&1);
        assert_eq!(fetches.next(), Some((UserId(1), 3)));
        assert!(fetches.in_the_way(&3).is_empty(), "nobody waits");
    }
}
