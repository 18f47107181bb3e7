//! [`RestingSenders`]: the senders whose messages the web server has refused, each with a pause of
//! its own. So they do not delay those of others.
//!
//! The first message of such a sender is tried alone when its pause is over, and not twice in a
//! row: a request for the others comes in between.
//!
//! Refusals of [`MANY`] senders without a success in between make the web server suspect, so they
//! slow all.
//!
//! Bound: [`RESTING_MAX`] senders, 32 bytes each. Beyond it, the one whose pause ends first is
//! forgotten, and its messages are tried early.

use std::time::Instant;

use rustc_hash::FxHashMap;

use super::pace::pause_after;
use crate::protocol::UserId;
use crate::store::hooks::HookRow;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct RestingSenders {
    senders: FxHashMap<UserId, Rest>,
    /// Whether the last rows were a trial.
    has_tried: bool,
    /// Those refused since the last success, at most [`MANY`].
    in_a_row: Vec<UserId>,
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    /// The refusals in a row.
    refusals: u32,
    until: Instant,
}

impl RestingSenders {
    /// Notes that a message of this sender, alone in its request, was refused.
    pub(super) fn refused(&mut self, sender: UserId, now: Instant, dice: f64) {
        if self.in_a_row.len() < MANY && !self.in_a_row.contains(&sender) {
            self.in_a_row.push(sender);
        }
        let refusals = self.senders.get(&sender).map_or(0, |rest| rest.refusals);
        if self.senders.len() >= RESTING_MAX && !self.senders.contains_key(&sender) {
            let first = self.senders.iter().min_by_key(|(_, rest)| rest.until).map(|(sender, _)| *sender);
            first.and_then(|first| self.senders.remove(&first));
        }
        let until = now + pause_after(refusals, dice);
        self.senders.insert(sender, Rest { refusals: refusals.saturating_add(1), until });
    }

    /// Notes that the messages of these rows were taken.
    pub(super) fn taken<'r>(&mut self, rows: impl IntoIterator<Item = &'r HookRow>) {
        self.in_a_row.clear();
        if !self.senders.is_empty() {
            rows.into_iter().for_each(|row| _ = self.senders.remove(&row.sender));
        }
    }

    /// Whether many senders were refused since the last success.
    pub(super) fn are_many(&self) -> bool {
        self.in_a_row.len() >= MANY
    }

    /// Whether the chosen rows are a trial. It has one recipient, so that a refusal tells whose
    /// message is refused.
    pub(super) fn is_trial(&self) -> bool {
        self.has_tried
    }

    /// Whether nothing of this sender may be posted now.
    pub(super) fn is_resting(&self, sender: UserId, now: Instant) -> bool {
        self.senders.get(&sender).is_some_and(|rest| now < rest.until)
    }

    /// The rows of these that the next request may have. `rows` are those that are due, in turn, of
    /// no sender who rests.
    pub(super) fn choose(&mut self, rows: Vec<HookRow>) -> Vec<HookRow> {
        let (on_trial, others): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| self.senders.contains_key(&row.sender));
        let tries = !on_trial.is_empty() && (others.is_empty() || !self.has_tried);
        self.has_tried = tries;
        if tries { on_trial.into_iter().take(1).collect() } else { others }
    }
}

/// The most senders whose refusals are remembered.
const RESTING_MAX: usize = 4096;
/// The senders whose refusals in a row slow all.
const MANY: usize = 8;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::conversation::ConversationId;

    fn row(id: i64, sender: i32) -> HookRow {
        let (sender, conv) = (UserId(sender), ConversationId::between(UserId(1), UserId(2)));
        HookRow { id, sender, conv, seq: id, time: 0, member: UserId(0) }
    }

    fn ids(rows: Vec<HookRow>) -> Vec<i64> {
        rows.iter().map(|row| row.id).collect()
    }

    #[test]
    fn a_refused_sender_pauses_longer_each_time_and_is_tried_alone_and_not_twice_in_a_row() {
        let (mut resting, now, seven) = (RestingSenders::default(), Instant::now(), UserId(7));
        for seconds in [1, 2, 4] {
            resting.refused(seven, now, 1.0);
            let over = now + Duration::from_secs(seconds);
            assert!(resting.is_resting(seven, over - Duration::from_millis(1)) && !resting.is_resting(seven, over));
            assert!(!resting.is_resting(UserId(8), now));
        }
        let rows = || vec![row(1, 7), row(2, 8), row(3, 7), row(4, 9)];
        assert_eq!(ids(resting.choose(rows())), [1]);
        assert!(resting.is_trial());
        assert_eq!(ids(resting.choose(rows())), [2, 4]);
        assert!(!resting.is_trial());
        assert_eq!(ids(resting.choose(rows())), [1]);
        assert_eq!(ids(resting.choose(vec![row(3, 7)])), [3], "nobody else is there");
        resting.taken(&[row(3, 7)]);
        assert_eq!(ids(resting.choose(rows())), [1, 2, 3, 4]);
    }

    #[test]
    fn refusals_of_eight_senders_in_a_row_are_many_and_any_success_ends_them() {
        let (mut resting, now) = (RestingSenders::default(), Instant::now());
        for sender in [1, 2, 3, 4, 5, 6, 7, 7, 1] {
            resting.refused(UserId(sender), now, 1.0);
            assert!(!resting.are_many(), "{sender}");
        }
        for sender in 8..100 {
            resting.refused(UserId(sender), now, 1.0);
            assert!(resting.are_many() && resting.in_a_row.len() == MANY);
        }
        resting.taken(&[row(1, 1000)]);
        assert!(!resting.are_many());
        resting.refused(UserId(8), now, 1.0);
        assert!(!resting.are_many());
    }

    #[test]
    fn it_is_bounded_and_forgets_the_pause_that_ends_first() {
        let (mut resting, now) = (RestingSenders::default(), Instant::now());
        for sender in 0..i32::try_from(RESTING_MAX).unwrap() + 10 {
            let now = now + Duration::from_millis(sender.unsigned_abs().into());
            resting.refused(UserId(sender), now, 1.0);
        }
        assert_eq!(resting.senders.len(), RESTING_MAX);
        assert!(!resting.is_resting(UserId(9), now) && resting.is_resting(UserId(10), now));
    }
}
