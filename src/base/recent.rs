//! [`Recent`]: a table of bounded size that drops its oldest entries.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::mem;

/// Two tables: when the young one is full it becomes the old one, and the entries of the old one
/// are dropped. So at least the latest `max` keys are remembered and never twice as many, without
/// memory beyond the entries themselves.
///
/// If keys come from outside, the hasher must have a secret.
#[derive(Debug)]
pub(crate) struct Recent<K, V, S = RandomState> {
    young: HashMap<K, V, S>,
    old: HashMap<K, V, S>,
    max: usize,
}

impl<K: Eq + Hash, V, S: BuildHasher + Default> Recent<K, V, S> {
    pub(crate) fn new(max: usize) -> Recent<K, V, S> {
        Recent { young: HashMap::default(), old: HashMap::default(), max }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.young.get_mut(key).or_else(|| self.old.get_mut(key))
    }

    /// Inserts a value as the newest. Returns whether the young table was full, so that a new one
    /// was begun.
    pub(crate) fn insert(&mut self, key: K, value: V) -> bool {
        self.old.remove(&key);
        let ages = self.young.len() >= self.max && !self.young.contains_key(&key);
        if ages {
            self.age();
        }
        self.young.insert(key, value);
        ages
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Drops everything inserted before the last call, or before the young table was last full.
    pub(crate) fn age(&mut self) {
        self.old = mem::take(&mut self.young);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<K, V, S> Recent<K, V, S> {
        pub(crate) fn len(&self) -> usize {
            self.young.len() + self.old.len()
        }
    }

    #[test]
    fn the_oldest_leave() {
        let mut recent = Recent::<_, _>::new(2);
        recent.insert(1, 'a');
        recent.insert(2, 'b');
        recent.insert(1, 'c');
        recent.insert(3, 'd');
        recent.insert(2, 'e');
        assert_eq!([1, 2, 3].map(|key| recent.get(&key).copied()), [Some('c'), Some('e'), Some('d')]);
        recent.insert(4, 'f');
        assert_eq!([1, 2, 3, 4].map(|key| recent.get(&key).copied()), [None, Some('e'), Some('d'), Some('f')]);
        *recent.get_mut(&2).unwrap() = 'g';
        assert_eq!(recent.get(&2), Some(&'g'));
        recent.remove(&2);
        recent.remove(&4);
        assert_eq!((recent.get(&2), recent.get(&4), recent.len()), (None, None, 1));
    }

    #[test]
    fn it_holds_the_latest_and_is_bounded() {
        let mut recent = Recent::<_, _>::new(10);
        for key in 0..1000_u32 {
            recent.insert(key, ());
            assert!(recent.len() <= 20);
            assert!((key.saturating_sub(9)..=key).all(|latest| recent.get(&latest).is_some()));
        }
    }
}
