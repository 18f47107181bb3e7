//! [`Typing`], [`RecentTyping`] and [`ShownTyping`]: limit how often a 51 is passed on, of a
//! connection, of a user on one node, and of a user on all nodes.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::base::conversation::{ConversationId, ConversationName};
use crate::base::recent::Recent;
use crate::protocol::UserId;

/// The conversations in which the user types.
#[derive(Debug, Default)]
pub(super) struct Typing {
    /// The conversations, each with the time when a 51 was last passed on.
    typed: SmallVec<[(ConversationName, Instant); 2]>,
}

impl Typing {
    /// Whether a 51 may be passed on now.
    pub(super) fn is_due(&mut self, conv: ConversationName, now: Instant) -> bool {
        self.typed.retain(|(_, at)| now.saturating_duration_since(*at) < TYPING_EVERY);
        let is_due = self.typed.len() < TYPED_MAX && self.typed.iter().all(|(typed, _)| *typed != conv);
        if is_due {
            self.typed.push((conv, now));
        }
        is_due
    }
}

/// When each user last typed in a conversation, on any device of this node. Connections limit
/// themselves too, so that their requests cost nothing.
#[derive(Debug)]
pub struct RecentTyping(Mutex<Recent<(UserId, ConversationId), Instant>>);

impl Default for RecentTyping {
    fn default() -> RecentTyping {
        RecentTyping(Mutex::new(Recent::new(TYPISTS_MAX)))
    }
}

impl RecentTyping {
    /// Whether the user's typing is shown now. If too many others have typed since the last time,
    /// it is shown too early.
    pub fn is_due(&self, user: UserId, conv: ConversationId, now: Instant) -> bool {
        let mut recent = self.0.lock();
        let last = recent.get(&(user, conv));
        if last.is_some_and(|last| now.saturating_duration_since(*last) < TYPING_EVERY) {
            return false;
        }
        recent.insert((user, conv), now);
        true
    }
}

/// The 51s that users were shown on this node. Two devices of one user may type on two nodes, and
/// then each node sends a 51.
#[derive(Debug)]
pub struct ShownTyping {
    shown: Mutex<Recent<(UserId, u64), Instant>>,
    hasher: RandomState,
}

impl Default for ShownTyping {
    fn default() -> ShownTyping {
        ShownTyping { shown: Mutex::new(Recent::new(SHOWN_MAX)), hasher: RandomState::new() }
    }
}

impl ShownTyping {
    /// Whether this 51 is shown to `to` now. The 51s of one sender in one conversation are equal.
    pub fn is_due(&self, to: UserId, frame: &str, now: Instant) -> bool {
        let (key, mut shown) = ((to, self.hasher.hash_one(frame)), self.shown.lock());
        if shown.get(&key).is_some_and(|last| now.saturating_duration_since(*last) < SHOWN_EVERY) {
            return false;
        }
        shown.insert(key, now);
        true
    }
}

/// The shortest time between two 51s of one connection, or user, in a conversation that are passed
/// on.
pub(super) const TYPING_EVERY: Duration = Duration::from_secs(3);
/// The same, of all devices of a user. Two 51s that a node has sent properly may arrive a little
/// closer together.
const SHOWN_EVERY: Duration = Duration::from_millis(2800);
/// The 51s that are remembered, at least: some 40 bytes each. If too many others were shown since,
/// one is shown too early.
const SHOWN_MAX: usize = 20_000;
/// The most conversations in which one connection types within that time.
const TYPED_MAX: usize = 16;
/// The users and conversations that are remembered, at least: some 50 bytes each.
const TYPISTS_MAX: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::GroupId;

    #[test]
    fn nobody_types_in_more_conversations_at_a_time_than_a_few() {
        let (mut typing, now) = (Typing::default(), Instant::now());
        let mut types = |user: usize, at| typing.is_due(ConversationName::User(UserId(user as i32)), at);
        assert!((1..=TYPED_MAX).all(|user| types(user, now)));
        assert!(!types(TYPED_MAX + 1, now));
        assert!(types(TYPED_MAX + 1, now + TYPING_EVERY));
    }

    #[test]
    fn a_user_is_shown_each_51_once_in_a_while() {
        let (shown, now, [ann, bob]) = (ShownTyping::default(), Instant::now(), [UserId(1), UserId(2)]);
        assert!(shown.is_due(ann, "x", now) && shown.is_due(bob, "x", now) && shown.is_due(ann, "y", now));
        assert!(!shown.is_due(ann, "x", now + SHOWN_EVERY - Duration::from_millis(1)));
        assert!(shown.is_due(ann, "x", now + TYPING_EVERY));
    }

    #[test]
    fn a_user_types_once_in_three_seconds_in_each_conversation() {
        let (typing, now) = (RecentTyping::default(), Instant::now());
        let (ann, bob) = (UserId(1), UserId(2));
        let (team, both) = (ConversationId::of_group(GroupId(3)), ConversationId::between(ann, bob));
        assert!(typing.is_due(ann, team, now) && typing.is_due(bob, team, now) && typing.is_due(ann, both, now));
        let soon = now + TYPING_EVERY - Duration::from_millis(1);
        assert!(!typing.is_due(ann, team, soon));
        let later = now + TYPING_EVERY;
        assert!(typing.is_due(ann, team, later) && !typing.is_due(ann, team, later));
    }
}
