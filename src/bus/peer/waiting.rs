//! [`Waiting`]: who waits until the other nodes send here what is for their user, and for how long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::protocol::UserId;

/// See the [module](self). `W` is who waits.
#[derive(Debug)]
pub(crate) struct Waiting<W> {
    /// For each user, and until when.
    by_user: FxHashMap<UserId, (Instant, Vec<W>)>,
    /// The same times, ascending. Some are of those who wait no longer.
    dues: VecDeque<(Instant, UserId)>,
}

impl<W> Waiting<W> {
    /// Nobody waits.
    pub(crate) fn new() -> Waiting<W> {
        Waiting { by_user: FxHashMap::default(), dues: VecDeque::new() }
    }

    /// From now on `waiter` waits for this user. `now` is no earlier than the last time.
    pub(crate) fn add(&mut self, user: UserId, waiter: W, now: Instant) {
        let by = now + LOGIN_PATIENCE;
        let (_, waiters) = self.by_user.entry(user).or_insert_with(|| {
            self.dues.push_back((by, user));
            (by, Vec::new())
        });
        waiters.push(waiter);
    }

    /// Removes and returns those that waited for this user.
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

    /// Everybody, who waits no longer.
    pub(crate) fn take_all(&mut self) -> Vec<W> {
        self.dues.clear();
        self.by_user.drain().flat_map(|(_, (_, waiters))| waiters).collect()
    }

    /// When the first of them would not wait any longer.
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
    fn who_has_just_come_does_not_go_with_who_has_waited_long() {
        let (start, pause) = (Instant::now(), LOGIN_PATIENCE / 5);
        let mut waiting = Waiting::new();
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
    fn who_waits_again_for_the_same_user_waits_for_as_long_as_anybody() {
        let (start, pause) = (Instant::now(), LOGIN_PATIENCE / 5);
        let mut waiting = Waiting::new();
        waiting.add(UserId(1), "first", start);
        assert_eq!(waiting.take(UserId(1)), ["first"]);
        waiting.add(UserId(1), "again", start + pause);
        assert_eq!(waiting.next_due(), Some(start + pause + LOGIN_PATIENCE));
    }
}
