//! [`Rounds`]: who is served next when not all can be served in one turn.
//!
//! What waits belongs to a *share*: an account, say, or an address. Shares are served in turn, one item each, however many
//! items they have; and a share that begins to wait goes before those that have been served since they began. So a client
//! that asks for little waits for the item that is being served, and for those that began to wait at the same time, not for
//! everybody who keeps the loop busy. Within a share, items that are *urgent* take turns with the others: what comes from a
//! client that was not heard lately does not wait behind all that the greedy ones of its address have sent.
//! Between shares this is the order of the flow queues of RFC 8290 (FQ-CoDel, 4.2), counted in items.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};

/// Items that wait, by share.
#[derive(Debug)]
pub(crate) struct Rounds<T> {
    /// Each share is in one of the two lists below. The hash is keyed: clients choose their addresses.
    waiting: HashMap<u64, Share<T>>,
    /// Shares that were not served since they began to wait.
    fresh: VecDeque<u64>,
    /// The others. One that has nothing left stays for a round, so that it cannot be fresh again in each.
    served: VecDeque<u64>,
    len: usize,
}

/// What waits of one share.
#[derive(Debug)]
struct Share<T> {
    urgent: VecDeque<T>,
    rest: VecDeque<T>,
    /// The last that was served was urgent: now it is the turn of another.
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

    /// Has an item wait behind those of its share, or behind the urgent ones.
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

    /// The item whose turn it is.
    pub(crate) fn next(&mut self) -> Option<T> {
        while self.len > 0 {
            let share = self.fresh.pop_front().or_else(|| self.served.pop_front())?;
            match self.waiting.get_mut(&share).and_then(Share::next) {
                Some(item) => {
                    self.len -= 1;
                    self.served.push_back(share);
                    return Some(item);
                }
                None => _ = self.waiting.remove(&share),
            }
        }
        // Nobody waits: all may be fresh again.
        if !self.waiting.is_empty() {
            *self = Rounds::new();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(rounds: &mut Rounds<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| rounds.next()).collect()
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
    fn who_comes_goes_before_those_who_were_served() {
        let mut rounds = Rounds::new();
        for share in 0..1000 {
            rounds.push(share, "greedy", false);
            rounds.push(share, "greedy", false);
        }
        for _ in 0..1500 {
            rounds.next();
        }
        rounds.push(1000, "quiet", false);
        assert_eq!(rounds.next(), Some("quiet"));
        // Not so in the same round once more.
        rounds.push(1000, "again", false);
        assert_eq!(rounds.next(), Some("greedy"));
        assert_eq!(all(&mut rounds).last(), Some(&"again"));
    }

    #[test]
    fn what_is_urgent_takes_turns_with_the_rest_of_its_share() {
        let mut rounds = Rounds::new();
        for (item, urgent) in [("a", false), ("b", false), ("c", false), ("x", true), ("y", true)] {
            rounds.push(1, item, urgent);
        }
        assert_eq!(all(&mut rounds), ["x", "a", "y", "b", "c"]);
    }
}
