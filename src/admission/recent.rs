//! [`Recent`]: a table of bounded size that forgets what was put in longest ago.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Keys come from outside, so they are hashed with a secret.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    entries: HashMap<K, (u64, V)>,
    /// The entries by age: serial number -> key.
    ages: BTreeMap<u64, K>,
    next_serial: u64,
    max: usize,
}

impl<K: Copy + Eq + Hash, V> Recent<K, V> {
    pub(super) fn new(max: usize) -> Recent<K, V> {
        Recent { entries: HashMap::new(), ages: BTreeMap::new(), next_serial: 0, max }
    }

    pub(super) fn get(&self, key: K) -> Option<&V> {
        self.entries.get(&key).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.entries.get_mut(&key).map(|(_, value)| value)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Puts a value in as the newest. The oldest leaves if there are too many.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.remove(key);
        if self.entries.len() >= self.max
            && let Some((_, oldest)) = self.ages.pop_first()
        {
            self.entries.remove(&oldest);
        }
        self.entries.insert(key, (self.next_serial, value));
        self.ages.insert(self.next_serial, key);
        self.next_serial += 1;
        debug_assert_eq!(self.entries.len(), self.ages.len());
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let (serial, value) = self.entries.remove(&key)?;
        self.ages.remove(&serial);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leaves() {
        let mut recent = Recent::new(2);
        recent.insert(1, 'a');
        recent.insert(2, 'b');
        recent.insert(1, 'c');
        recent.insert(3, 'd');
        assert_eq!((recent.get(1), recent.get(2), recent.get(3)), (Some(&'c'), None, Some(&'d')));
        assert_eq!(recent.remove(1), Some('c'));
        recent.insert(4, 'e');
        assert_eq!((recent.get(3), recent.get(4)), (Some(&'d'), Some(&'e')));
    }
}
