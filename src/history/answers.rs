//! [`Answers`]: keeps answers in the order of their requests, whichever is found first.

use std::collections::VecDeque;

/// Answers in the order of their requests. One such queue holds all the replies of a connection
/// except 41s, which have their own order in each conversation, see [`super::sends`].
///
/// The caller limits the open answers: it stops reading requests when [`Answers::open_count`]
/// reaches its bound.
#[derive(Debug)]
pub struct Answers<T> {
    /// The ticket of the first answer.
    first: u64,
    slots: VecDeque<Option<T>>,
}

/// The place of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Ticket(u64);

impl<T> Answers<T> {
    /// Reserves the place of an answer behind those of all earlier requests.
    pub fn open(&mut self) -> Ticket {
        self.slots.push_back(None);
        Ticket(self.first + self.slots.len() as u64 - 1)
    }

    /// Sets the answer of `ticket`. A second answer is dropped, and false returned.
    pub fn settle(&mut self, ticket: Ticket, answer: T) -> bool {
        let place = ticket.0.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        match place.and_then(|place| self.slots.get_mut(place)) {
            Some(slot @ None) => {
                *slot = Some(answer);
                true
            }
            Some(Some(_)) | None => false,
        }
    }

    /// Takes the next answer, if it is there. Call this until it returns `None`.
    pub fn next_ready(&mut self) -> Option<T> {
        if !matches!(self.slots.front(), Some(Some(_))) {
            return None;
        }
        self.first += 1;
        let answer = self.slots.pop_front().flatten();
        if self.slots.is_empty() {
            // Bursts are rare and connections many, so the memory is freed.
            self.slots = VecDeque::new();
        }
        answer
    }

    /// Whether the answer of `ticket` was taken.
    pub fn has_left(&self, ticket: Ticket) -> bool {
        ticket.0 < self.first
    }

    /// The number of requests without an answer, or whose answer waits for an earlier one.
    pub fn open_count(&self) -> usize {
        self.slots.len()
    }
}

impl<T> Default for Answers<T> {
    fn default() -> Self {
        Answers { first: 0, slots: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_leave_in_the_order_of_questions() {
        let mut answers = Answers::default();
        let [first, second, third] = [answers.open(), answers.open(), answers.open()];
        assert!(answers.settle(third, "third"));
        assert_eq!(answers.next_ready(), None);
        assert!(answers.settle(first, "first"));
        assert!(!answers.settle(first, "first again"));
        assert_eq!((answers.next_ready(), answers.next_ready()), (Some("first"), None));
        assert!(answers.has_left(first) && !answers.has_left(second) && !answers.has_left(third));
        assert!(!answers.settle(first, "too late"));
        let fourth = answers.open();
        assert!(answers.settle(second, "second"));
        assert_eq!(
            (answers.next_ready(), answers.next_ready(), answers.next_ready()),
            (Some("second"), Some("third"), None)
        );
        assert_eq!(answers.open_count(), 1);
        assert!(answers.settle(fourth, "fourth"));
        assert_eq!((answers.next_ready(), answers.open_count()), (Some("fourth"), 0));
        assert!(!answers.settle(Ticket(99), "never asked"));
    }

    #[test]
    fn any_order_of_finding_gives_one_order_of_leaving() {
        use proptest::prelude::*;
        proptest!(|(order in Just((0..20_usize).collect::<Vec<_>>()).prop_shuffle())| {
            let mut answers = Answers::default();
            let tickets: Vec<_> = (0..20).map(|_| answers.open()).collect();
            let mut left = Vec::new();
            for place in order {
                prop_assert!(answers.settle(tickets[place], place));
                left.extend(std::iter::from_fn(|| answers.next_ready()));
            }
            prop_assert_eq!(left, (0..20).collect::<Vec<_>>());
        });
    }
}
