//! [`Turns`]: a round-robin queue.
//!
//! Keys (addresses or payers) take turns, each with its own first item. So a newcomer waits for one
//! item of each key, and not for all that one key has in the queue.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// The waiting items by key.
#[derive(Debug)]
pub struct Turns<K, T> {
    waiting: HashMap<K, VecDeque<T>>,
    /// The keys with waiting items, each once.
    order: VecDeque<K>,
}

impl<K: Copy + Eq + Hash, T> Turns<K, T> {
    /// Adds an item of this key.
    pub fn push(&mut self, key: K, item: T) {
        let items = self.waiting.entry(key).or_default();
        if items.is_empty() {
            self.order.push_back(key);
        }
        items.push_back(item);
    }

    /// Removes and returns the item whose turn it is.
    pub fn take(&mut self) -> Option<(K, T)> {
        self.take_if(|_| true)
    }

    /// Removes and returns the first item, in the order of turns, whose key may be served now. The
    /// other keys keep their turn.
    pub fn take_if(&mut self, may_be_served: impl Fn(&K) -> bool) -> Option<(K, T)> {
        let at = self.order.iter().position(may_be_served)?;
        let key = self.order.remove(at)?;
        let items = self.waiting.get_mut(&key).expect("somebody waits");
        let item = items.pop_front().expect("somebody waits");
        if items.is_empty() {
            self.waiting.remove(&key);
        } else {
            self.order.push_back(key);
        }
        Some((key, item))
    }

    /// Removes the items of this key that are not `wanted`.
    pub fn retain(&mut self, key: &K, wanted: impl Fn(&T) -> bool) {
        let Some(items) = self.waiting.get_mut(key) else { return };
        items.retain(wanted);
        if items.is_empty() {
            self.waiting.remove(key);
            self.order.retain(|other| other != key);
        }
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

impl<K, T> Default for Turns<K, T> {
    fn default() -> Turns<K, T> {
        Turns { waiting: HashMap::new(), order: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_take_turns_and_nobody_is_overtaken_by_a_neighbour() {
        let mut turns = Turns::default();
        for (from, name) in [(1, "a"), (1, "b"), (1, "c"), (2, "x"), (1, "d"), (3, "p"), (3, "q")] {
            turns.push(from, name);
        }
        assert_eq!([(); 4].map(|()| turns.take()), [(1, "a"), (2, "x"), (3, "p"), (1, "b")].map(Some));
        turns.push(2, "y");
        turns.push(2, "z");
        let rest = [(3, "q"), (1, "c"), (2, "y"), (1, "d"), (2, "z")];
        assert_eq!([(); 5].map(|()| turns.take()), rest.map(Some));
        assert_eq!(turns.take(), None);
        assert!(turns.waiting.is_empty() && turns.is_empty(), "nothing is kept of who was served");
    }

    #[test]
    fn a_key_that_may_not_be_served_keeps_its_turn() {
        let mut turns = Turns::default();
        for (from, name) in [(1, "a"), (2, "x"), (2, "y"), (1, "b")] {
            turns.push(from, name);
        }
        assert_eq!([(); 2].map(|()| turns.take_if(|key| *key != 1)), [(2, "x"), (2, "y")].map(Some));
        assert_eq!(turns.take_if(|key| *key != 1), None);
        assert_eq!([(); 2].map(|()| turns.take()), [(1, "a"), (1, "b")].map(Some));
    }
}
