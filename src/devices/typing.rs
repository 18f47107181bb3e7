//! [`Typing`]: limits how often a 51 is passed on.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::base::conversation::ConversationName;

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

/// The shortest time between two 51s of one connection in a conversation that are passed on.
pub(super) const TYPING_EVERY: Duration = Duration::from_secs(3);
/// The most conversations in which one connection types within that time.
const TYPED_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::UserId;

    #[test]
    fn nobody_types_in_more_conversations_at_a_time_than_a_few() {
        let (mut typing, now) = (Typing::default(), Instant::now());
        let mut types = |user: usize, at| typing.is_due(ConversationName::User(UserId(user as i32)), at);
        assert!((1..=TYPED_MAX).all(|user| types(user, now)));
        assert!(!types(TYPED_MAX + 1, now));
        assert!(types(TYPED_MAX + 1, now + TYPING_EVERY));
    }
}
