//! [`Rounds`]: the order of service when not every item can be served in one turn.
//!
//! Each waiting item belongs to a *share*, for example an account or an address. Shares are served
//! in turn, one item each, however many items they have. A share that begins to wait goes before
//! shares that have been served since they began. So a client with few requests waits for the
//! current item, and for shares that began to wait at the same time, not for all that keep the loop
//! busy. Within a share, *urgent* items take turns with the others: input from a client that was
//! quiet before does not wait behind all input of the greedy clients of its address. Between shares
//! this is the order of the flow queues of RFC 8290 (FQ-CoDel, 4.2), counted in items.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};

/// Waiting items, by share.
#[derive(Debug)]
pub(crate) struct Rounds<T> {
    /// Each share is in one of the two lists below. The hash is keyed, because clients choose their
    /// addresses.
    waiting: HashMap<u64, Share<T>>,
    /// Shares that were not served since they began to wait.
    fresh: VecDeque<u64>,
    /// The other shares. A share without items stays for a round, so that it cannot be fresh again
    /// in each round.
    served: VecDeque<u64>,
    len: usize,
}

/// The waiting items of one share.
#[derive(Debug)]
struct Share<T> {
    urgent: VecDeque<T>,
    rest: VecDeque<T>,
    /// Whether the last turn preferred urgent items: the next one prefers the others.
    was_urgent: bool,
}

impl<T> Share<T> {
    fn push(&mut self, item: T, urgent: bool) {
        let items = if urgent { &mut self.urgent } else { &mut self.rest };
        items.push_back(item);
    }

    fn next(&mut self) -> Option<T> {
        let (first, second) = match self.was_urgent {
            true => (&mut self.rest, &mut self.urgent),
            false => (&mut self.urgent, &mut self.rest),
        };
        self.was_urgent = !self.was_urgent;
        first.pop_front().or_else(|| second.pop_front())
    }
}

impl<T> Rounds<T> {
    pub(crate) fn new() -> Rounds<T> {
        Rounds { waiting: HashMap::new(), fresh: VecDeque::new(), served: VecDeque::new(), len: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an item behind those of its share, or behind the urgent ones.
    pub(crate) fn push(&mut self, share: u64, item: T, urgent: bool) {
        self.len += 1;
        match self.waiting.entry(share) {
            Entry::Occupied(mut items) => items.get_mut().push(item, urgent),
            Entry::Vacant(items) => {
                let new = Share { urgent: VecDeque::new(), rest: VecDeque::new(), was_urgent: false };
                items.insert(new).push(item, urgent);
                self.fresh.push_back(share);
            }
        }
    }

    /// Removes and returns the next item of the shares that may be served now. The others keep
    /// their places.
    pub(crate) fn next(&mut self, may_be_served: impl Fn(u64) -> bool) -> Option<T> {
        let (mut passed_fresh, mut passed_served) = (Vec::new(), Vec::new());
        let mut found = None;
        while self.len > 0 && found.is_none() {
            let (share, passed) = match self.fresh.pop_front() {
                Some(share) => (share, &mut passed_fresh),
                None => match self.served.pop_front() {
                    Some(share) => (share, &mut passed_served),
                    None => break,
                },
            };
            if !may_be_served(share) {
                passed.push(share);
                continue;
            }
            found = self.waiting.get_mut(&share).and_then(Share::next);
            match found {
                Some(_) => {
                    self.len -= 1;
                    self.served.push_back(share);
                }
                None => _ = self.waiting.remove(&share),
            }
        }
        passed_fresh.into_iter().rev().for_each(|share| self.fresh.push_front(share));
        passed_served.into_iter().rev().for_each(|share| self.served.push_front(share));
        // Nothing waits, so all shares may be fresh again.
        if found.is_none() && self.len == 0 && !self.waiting.is_empty() {
            *self = Rounds::new();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(rounds: &mut Rounds<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| rounds.next(|_| true)).collect()
    }

    #[test]
    fn shares_take_turns_however_much_they_have() {
        let mut rounds = Rounds::new();
        for item in ["a1", "a2", "a3"] {
            rounds.push(1, item, false);
        }
        rounds.push(2, "b1", false);
        rounds.push(2, "b2", false);
        rounds.push(3, "c1", false);
        assert_eq!(all(&mut rounds), ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert!(rounds.is_empty() && rounds.waiting.is_empty());
    }

    #[test]
    fn a_newcomer_goes_before_shares_that_were_served() {
        let mut rounds = Rounds::new();
        for share in 0..1000 {
            rounds.push(share, "greedy", false);
            rounds.push(share, "greedy", false);
        }
        for _ in 0..1500 {
            rounds.next(|_| true);
        }
        rounds.push(1000, "quiet", false);
        assert_eq!(rounds.next(|_| true), Some("quiet"));
        // The share is not served again in the same round.
        rounds.push(1000, "again", false);
        assert_eq!(rounds.next(|_| true), Some("greedy"));
        assert_eq!(all(&mut rounds).last(), Some(&"again"));
    }

    #[test]
    fn a_share_that_may_not_be_served_keeps_its_place() {
        let mut rounds = Rounds::new();
        for (share, item) in [(1, "a1"), (1, "a2"), (2, "b1"), (3, "c1"), (2, "b2")] {
            rounds.push(share, item, false);
        }
        assert_eq!(rounds.next(|share| share != 1), Some("b1"));
        assert_eq!(rounds.next(|share| share == 2), Some("b2"));
        assert_eq!(rounds.next(|share| share > 3), None);
        assert_eq!(all(&mut rounds), ["a1", "c1", "a2"]);
    }

    #[test]
    fn urgent_items_take_turns_with_the_rest_of_their_share() {
        let mut rounds = Rounds::new();
        for (item, urgent) in [("a", false), ("b", false), ("c", false), ("x", true), ("y", true)] {
            rounds.push(1, item, urgent);
        }
        assert_eq!(all(&mut rounds), ["x", "a", "y", "b", "c"]);
    }
}
