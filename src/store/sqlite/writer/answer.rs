//! The place for the answer to one caller.
//!
//! A receiver of a channel first yields the processor several times, in the hope that the answer is
//! near. A commit waits for the disk, so they were in vain, and took 9 % of the processor time of a
//! server whose users come back. Here the caller sleeps at once.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// The end that gives the answer. Dropping it without an answer wakes the caller as well.
#[derive(Debug)]
pub(super) struct AnswerPlace<T>(Arc<Slot<T>>);

/// The end of the caller.
#[derive(Debug)]
pub(super) struct AwaitedAnswer<T>(Arc<Slot<T>>);

#[derive(Debug)]
struct Slot<T> {
    state: Mutex<SlotState<T>>,
    news: Condvar,
}

#[derive(Debug)]
enum SlotState<T> {
    Empty,
    Full(T),
    /// No answer will come.
    Dropped,
}

pub(super) fn answer_place<T>() -> (AnswerPlace<T>, AwaitedAnswer<T>) {
    let slot = Arc::new(Slot { state: Mutex::new(SlotState::Empty), news: Condvar::new() });
    (AnswerPlace(slot.clone()), AwaitedAnswer(slot))
}

impl<T> AnswerPlace<T> {
    pub(super) fn put(self, answer: T) {
        *self.0.state.lock() = SlotState::Full(answer);
        // Dropping it wakes the caller.
    }
}

impl<T> Drop for AnswerPlace<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if let SlotState::Empty = *state {
            *state = SlotState::Dropped;
        }
        drop(state);
        self.0.news.notify_one();
    }
}

impl<T> AwaitedAnswer<T> {
    /// The answer; `None` if the other end was dropped without one. Blocks.
    pub(super) fn wait(self) -> Option<T> {
        let mut state = self.0.state.lock();
        loop {
            match std::mem::replace(&mut *state, SlotState::Dropped) {
                SlotState::Full(answer) => return Some(answer),
                SlotState::Dropped => return None,
                SlotState::Empty => {
                    *state = SlotState::Empty;
                    self.0.news.wait(&mut state);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_caller_gets_the_answer_or_learns_that_none_comes() {
        for is_answered in [true, false] {
            let (place, awaited) = answer_place();
            let caller = thread::spawn(move || awaited.wait());
            if is_answered {
                place.put(7);
            } else {
                drop(place);
            }
            assert_eq!(caller.join().unwrap(), is_answered.then_some(7));
        }
        let (place, awaited) = answer_place();
        place.put(8);
        assert_eq!(awaited.wait(), Some(8), "it waits for the caller");
    }
}
