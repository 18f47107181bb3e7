//! [`Waiters`]: the logins that wait until other nodes send their user's messages here, with
//! deadlines.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::protocol::UserId;

/// See the [module](self). `W` is a waiter.
#[derive(Debug)]
pub(crate) struct Waiters<W> {
    /// The deadline and the waiters of each user.
    by_user: FxHashMap<UserId, (Instant, Vec<W>)>,
    /// The same deadlines, ascending. Some belong to users who no longer have waiters.
    dues: VecDeque<(Instant, UserId)>,
}

impl<W> Waiters<W> {
    /// No waiters.
    pub(crate) fn new() -> Waiters<W> {
        Waiters { by_user: FxHashMap::default(), dues: VecDeque::new() }
    }

    /// Adds a waiter for this user. `now` must not be earlier than in the last call.
    pub(crate) fn add(&mut self, user: UserId, waiter: W, now: Instant) {
        let by = now + LOGIN_PATIENCE;
        let (_, waiters) = self.by_user.entry(user).or_insert_with(|| {
            self.dues.push_back((by, user));
            (by, Vec::new())
        });
        waiters.push(waiter);
    }

    /// Removes and returns the waiters for this user.
    pub(crate) fn take(&mut self, user: UserId) -> Vec<W> {
        self.by_user.remove(&user).map(|(_, waiters)| waiters).unwrap_or_default()
    }

    /// Removes and returns the waiters whose time is up.
    pub(crate) fn take_late(&mut self, now: Instant) -> Vec<W> {
        let mut late = Vec::new();
        while let Some((due, user)) = self.next().filter(|(due, _)| *due <= now) {
            debug_assert_eq!(self.by_user[&user].0, due);
            late.extend(self.take(user));
        }
        late
    }

    /// Removes and returns all waiters.
    pub(crate) fn take_all(&mut self) -> Vec<W> {
        self.dues.clear();
        self.by_user.drain().flat_map(|(_, (_, waiters))| waiters).collect()
    }

    /// The earliest deadline.
    pub(crate) fn next_due(&mut self) -> Option<Instant> {
        self.next().map(|(due, _)| due)
    }

    fn next(&mut self) -> Option<(Instant, UserId)> {
        while let Some(&(due, user)) = self.dues.front() {
            if self.by_user.get(&user).is_some_and(|(by, _)| *by == due) {
                return Some((due, user));
            }
            self.dues.pop_front();
        }
        None
    }
}

/// How long a login waits for its subscription. The real client gives up after a second.
const LOGIN_PATIENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_waiter_does_not_leave_with_one_that_has_waited_long() {
        let (start, pause) = (Instant::now(), LOGIN_PATIENCE / 5);
        let mut waiting = Waiters::new();
        waiting.add(UserId(1), "first", start);
        waiting.add(UserId(2), "second", start + pause);
        waiting.add(UserId(1), "first again", start + 2 * pause);
        assert_eq!(waiting.next_due(), Some(start + LOGIN_PATIENCE));
        assert_eq!(waiting.take_late(start + LOGIN_PATIENCE), ["first", "first again"]);
        assert_eq!(waiting.next_due(), Some(start + pause + LOGIN_PATIENCE));
        assert_eq!(waiting.take(UserId(2)), ["second"]);
        assert_eq!(waiting.next_due(), None);
        waiting.add(UserId(2), "second again", start + LOGIN_PATIENCE);
        assert!(waiting.take_late(start + pause + LOGIN_PATIENCE).is_empty(), "it is another wait");
        assert_eq!(waiting.take_all(), ["second again"]);
        assert_eq!(waiting.next_due(), None);
    }

    #[test]
    fn a_second_wait_for_the_same_user_has_the_full_patience() {
        let (start, pause) = (Instant::now(), LOGIN_PATIENCE / 5);
        let mut waiting = Waiters::new();
        waiting.add(UserId(1), "first", start);
        assert_eq!(waiting.take(UserId(1)), ["first"]);
        waiting.add(UserId(1), "again", start + pause);
        assert_eq!(waiting.next_due(), Some(start + pause + LOGIN_PATIENCE));
    }
}
