//! [`Turns`]: the order in which those who wait are served.
//!
//! Addresses have their turn one after the other, each with the one of its own who came first. So who comes from elsewhere
//! waits for one of each address, and not for all that one address has in the queue.

use std::collections::{HashMap, VecDeque};

use super::Source;

/// Those who wait.
#[derive(Debug)]
pub struct Turns<T> {
    of_address: HashMap<Source, VecDeque<T>>,
    /// The addresses of which somebody waits, each once.
    order: VecDeque<Source>,
}

impl<T> Turns<T> {
    /// Somebody comes, from there.
    pub fn push(&mut self, source: Source, item: T) {
        let items = self.of_address.entry(source).or_default();
        if items.is_empty() {
            self.order.push_back(source);
        }
        items.push_back(item);
    }

    /// Takes the one whose turn it is.
    pub fn take(&mut self) -> Option<T> {
        let source = self.order.pop_front()?;
        let items = self.of_address.get_mut(&source).expect("somebody waits");
        let item = items.pop_front();
        if items.is_empty() {
            self.of_address.remove(&source);
        } else {
            self.order.push_back(source);
        }
        item
    }
}

impl<T> Default for Turns<T> {
    fn default() -> Turns<T> {
        Turns { of_address: HashMap::new(), order: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_take_turns_and_nobody_is_overtaken_by_a_neighbour() {
        let mut turns = Turns::default();
        let source = |last| Source::of([192, 0, 2, last].into());
        for (from, name) in [(1, "a"), (1, "b"), (1, "c"), (2, "x"), (1, "d"), (3, "p"), (3, "q")] {
            turns.push(source(from), name);
        }
        assert_eq!([(); 4].map(|()| turns.take()), ["a", "x", "p", "b"].map(Some));
        turns.push(source(2), "y");
        turns.push(source(2), "z");
        assert_eq!([(); 5].map(|()| turns.take()), ["q", "c", "y", "d", "z"].map(Some));
        assert_eq!(turns.take(), None);
        assert!(turns.of_address.is_empty() && turns.order.is_empty(), "nothing is kept of who was served");
    }
}
