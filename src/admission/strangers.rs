//! [`Strangers`]: the connections that are not logged in, and which of them makes room for others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU64;
use std::time::Instant;

use super::Source;

/// Identifies a stranger. Ids are never reused.
pub type StrangerId = NonZeroU64;

/// The connections that are not logged in. `W` is a handle to notify one.
#[derive(Debug)]
pub struct Strangers<W> {
    /// The strangers of each address, ordered by age, because ids ascend.
    of_address: HashMap<Source, BTreeMap<StrangerId, (Instant, W)>>,
    /// The same addresses, ordered by their number of strangers.
    by_count: BTreeSet<(usize, Source)>,
    count: usize,
    next: StrangerId,
}

impl<W> Strangers<W> {
    /// No strangers.
    pub fn new() -> Strangers<W> {
        Strangers { of_address: HashMap::new(), by_count: BTreeSet::new(), count: 0, next: NonZeroU64::MIN }
    }

    /// Adds a connection of this address that is new or has logged out.
    pub fn insert(&mut self, source: Source, who: W, now: Instant) -> StrangerId {
        let id = self.next;
        self.next = id.saturating_add(1);
        self.change(source, |strangers| strangers.insert(id, (now, who)));
        id
    }

    /// Removes a stranger that has logged in or closed. Does nothing if it was chosen to make room
    /// before.
    pub fn remove(&mut self, source: Source, id: StrangerId) {
        self.change(source, |strangers| strangers.remove(&id));
    }

    /// The time at which it became a stranger; `None` if it was chosen to make room.
    pub fn since(&self, source: Source, id: StrangerId) -> Option<Instant> {
        self.of_address.get(&source)?.get(&id).map(|(since, _)| *since)
    }

    /// The number of strangers, without those that were chosen to make room.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no strangers.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Removes and returns the oldest stranger of this address.
    pub fn take_oldest_of(&mut self, source: Source) -> Option<W> {
        self.of_address.get(&source)?;
        self.change(source, BTreeMap::pop_first).map(|(_, (_, who))| who)
    }

    /// Removes and returns the oldest stranger of the address that has most.
    pub fn take_oldest(&mut self) -> Option<W> {
        let (_, source) = *self.by_count.last()?;
        self.take_oldest_of(source)
    }

    fn change<T>(&mut self, source: Source, change: impl FnOnce(&mut BTreeMap<StrangerId, (Instant, W)>) -> T) -> T {
        let strangers = self.of_address.entry(source).or_default();
        let before = strangers.len();
        let result = change(strangers);
        let after = strangers.len();
        if after == 0 {
            self.of_address.remove(&source);
        }
        if before != after {
            self.by_count.remove(&(before, source));
            if after > 0 {
                self.by_count.insert((after, source));
            }
            self.count = self.count - before + after;
        }
        result
    }
}

impl<W> Default for Strangers<W> {
    fn default() -> Strangers<W> {
        Strangers::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into())
    }

    #[test]
    fn the_oldest_of_the_address_that_has_most_goes_first() {
        let (mut strangers, now) = (Strangers::new(), Instant::now());
        for (from, name) in [(1, "a"), (2, "x"), (1, "b"), (1, "c"), (2, "y"), (3, "p")] {
            strangers.insert(source(from), name, now);
        }
        assert_eq!(strangers.len(), 6);
        assert_eq!(strangers.take_oldest(), Some("a"));
        // Among equal addresses any may be chosen; of the address, the oldest.
        let mut next = [strangers.take_oldest(), strangers.take_oldest()];
        next.sort_unstable();
        assert_eq!(next, [Some("b"), Some("x")]);
        assert_eq!((strangers.take_oldest_of(source(3)), strangers.take_oldest_of(source(3))), (Some("p"), None));
        assert_eq!((strangers.take_oldest_of(source(1)), strangers.take_oldest()), (Some("c"), Some("y")));
        assert_eq!((strangers.take_oldest(), strangers.len()), (None, 0));
        assert!(strangers.of_address.is_empty() && strangers.by_count.is_empty(), "nothing is kept of who has left");
    }

    #[test]
    fn one_that_has_logged_in_stays() {
        let (mut strangers, now) = (Strangers::new(), Instant::now());
        let ids = ["a", "b", "c"].map(|name| strangers.insert(source(1), name, now));
        strangers.remove(source(1), ids[0]);
        assert_eq!(strangers.take_oldest(), Some("b"));
        // The connection is notified later, and may log in or close before.
        strangers.remove(source(1), ids[1]);
        assert_eq!((strangers.since(source(1), ids[1]), strangers.since(source(1), ids[2])), (None, Some(now)));
        assert_eq!((strangers.len(), strangers.take_oldest()), (1, Some("c")));
    }
}
