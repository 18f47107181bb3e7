//! [`HookQueue`]: the messages that may have to be posted to the hook. A row is written in the
//! transaction that stores its message, and deleted once the message is posted or needs no post.
//! The text stays in the table of messages.
//!
//! A message to a group is one row. Its members are read when it is due, page by page, and the row
//! notes how far they are done.

use std::time::Duration;

use super::StoreError;
use super::maybe::MaybeRole;
use crate::base::conversation::ConversationId;
use crate::protocol::UserId;

/// A message that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HookRow {
    /// The key of the row. Keys ascend with time.
    pub id: i64,
    /// The sender of the message.
    pub sender: UserId,
    /// The conversation.
    pub conv: ConversationId,
    /// The number of the message.
    pub seq: i64,
    /// The time of its commit, ms by the database's clock.
    pub time: i64,
    /// The members of the group up to this one are done.
    pub member: UserId,
}

/// Whether what a request records joins the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hooked {
    /// It joins the queue, in the same transaction.
    Yes,
    /// There is no hook, or nobody to post it for.
    No,
}

/// The recipients of a message that have not received it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct HookRecipients {
    /// Users who have used level 2, and of whose devices none has reported the message, by
    /// ascending id. The sender is not among them.
    pub users: Vec<UserId>,
    /// Whether there may be more after the last one.
    pub has_more: bool,
}

/// The size of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HooksWaiting {
    /// The number of rows.
    pub rows: u64,
    /// The time of the oldest one, ms by the database's clock; `None` if there is none.
    pub oldest: Option<i64>,
}

/// The queue. Its methods block.
pub trait HookQueue: Send + Sync + 'static {
    /// Makes `owner` the one node that posts, for the time of `lease`, unless another one is.
    /// Returns the time of the database, ms, or `None` if another node posts.
    fn claim(&self, owner: u64, lease: Duration) -> Result<Option<i64>, StoreError>;

    /// Lets another node post, if `owner` is the one that does.
    fn release(&self, owner: u64) -> Result<(), StoreError>;

    /// The oldest rows, at most `max`.
    fn oldest(&self, max: usize) -> Result<Vec<HookRow>, StoreError>;

    /// The senders with rows, by ascending id after `after`, at most `max`. The cost depends on
    /// their number, not on that of their rows.
    fn senders_after(&self, after: UserId, max: usize) -> Result<Vec<UserId>, StoreError>;

    /// The oldest rows of each of these senders, at most `each` of one sender, in the order of the
    /// senders.
    fn oldest_of(&self, senders: &[UserId], each: usize) -> Result<Vec<HookRow>, StoreError>;

    /// The recipients of these messages, in the order given; of each message at most `max`, from
    /// the first one that is not done.
    fn recipients(&self, rows: &[HookRow], max: usize) -> Result<Vec<HookRecipients>, StoreError>;

    /// Deletes the rows `done`, and notes for the rows `reached` up to which member they are done.
    fn settle(&self, done: &[i64], reached: &[(i64, UserId)]) -> Result<(), StoreError>;

    /// The size of the queue.
    fn waiting(&self) -> Result<HooksWaiting, StoreError>;

    /// The senders with the most rows and their numbers, most first, at most `max`.
    fn largest(&self, max: usize) -> Result<Vec<(UserId, u64)>, StoreError>;

    /// Deletes the oldest rows, of this sender or of all, at most `max`; returns their number.
    fn drop_oldest(&self, sender: Option<UserId>, max: u64) -> Result<u64, StoreError>;
}

/// The way to the queue.
pub type HookRole = MaybeRole<dyn HookQueue>;

/// The node that posts, from row 3 of the table `Meta`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(in crate::store) struct HookTurn {
    owner: u64,
    /// The time at which its lease ends, ms.
    until: i64,
}

impl HookTurn {
    /// Reads the row. One that this version cannot read counts as free.
    pub(in crate::store) fn stored(bytes: &[u8]) -> HookTurn {
        let Ok(bytes) = <[u8; 16]>::try_from(bytes) else { return HookTurn::default() };
        let (owner, until) = bytes.split_at(8);
        let number = |half: &[u8]| u64::from_le_bytes(std::array::from_fn(|n| half[n]));
        HookTurn { owner: number(owner), until: number(until).cast_signed() }
    }

    /// The bytes for the row.
    pub(in crate::store) fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.owner.to_le_bytes());
        bytes[8..].copy_from_slice(&self.until.to_le_bytes());
        bytes
    }

    /// Whether `owner` may post, and the turn to write for that, if any: the lease is renewed when
    /// half of it is over.
    pub(in crate::store) fn claimed(self, owner: u64, lease: i64, now: i64) -> (bool, Option<HookTurn>) {
        let renewed = HookTurn { owner, until: now.saturating_add(lease) };
        match self {
            _ if self.until <= now => (true, Some(renewed)),
            _ if self.owner != owner => (false, None),
            _ => (true, (self.until - now <= lease / 2).then_some(renewed)),
        }
    }

    /// The turn after `owner` has released it; `None` if another node posts.
    pub(in crate::store) fn released(self, owner: u64) -> Option<HookTurn> {
        (self.owner == owner && self.until > 0).then_some(HookTurn { owner, until: 0 })
    }
}

/// The row in the table `Meta`.
pub(in crate::store) const HOOK_TURN_ROW: i64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_posts_until_its_lease_ends() {
        let turn = HookTurn { owner: 1, until: 130 };
        assert_eq!(HookTurn::default().claimed(1, 30, 100), (true, Some(turn)));
        for (owner, now, expected) in [
            // The other node waits for the end of the lease.
            (2, 129, (false, None)),
            (0, 129, (false, None)),
            (2, 130, (true, Some(HookTurn { owner: 2, until: 160 }))),
            // The same node writes only when half of its lease is over.
            (1, 114, (true, None)),
            (1, 115, (true, Some(HookTurn { owner: 1, until: 145 }))),
            (1, 130, (true, Some(HookTurn { owner: 1, until: 160 }))),
        ] {
            assert_eq!(turn.claimed(owner, 30, now), expected, "node {owner} at {now}");
        }
        assert_eq!(turn.released(2), None);
        let free = turn.released(1).unwrap();
        assert!(free.claimed(2, 30, 101).0);
        assert_eq!(free.released(1), None);
    }

    #[test]
    fn a_turn_is_stored_as_it_is() {
        let turn = HookTurn { owner: u64::MAX - 7, until: -3 };
        assert_eq!(HookTurn::stored(&turn.bytes()), turn);
        assert_eq!(HookTurn::stored(b"other"), HookTurn::default());
    }
}
