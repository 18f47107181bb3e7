//! [`Audience`]: the users of level 2, who decide which messages are recorded. It is read for every
//! message.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::config::RecordingScope;
use crate::protocol::UserId;

/// One bit for each user. Ids are assigned consecutively, so segments are full: 8 KiB for 65,536
/// users, and none where nobody uses level 2. A user is never removed.
#[derive(Debug)]
pub struct Audience {
    recorded: RecordingScope,
    any: AtomicBool,
    segments: OnceLock<Box<[OnceLock<Box<Segment>>]>>,
}

type Segment = [AtomicU64; SEGMENT_BITS / 64];

impl Audience {
    /// An audience without users.
    pub fn new(recorded: RecordingScope) -> Audience {
        Audience { recorded, any: AtomicBool::new(recorded == RecordingScope::Everything), segments: OnceLock::new() }
    }

    /// Treats every message from now on as if somebody used level 2.
    pub fn look_at_all(&self) {
        self.any.store(true, Relaxed);
    }

    /// Whether no message is recorded, because nobody uses level 2.
    pub fn is_empty(&self) -> bool {
        !self.any.load(Relaxed)
    }

    /// Whether a message between these two is recorded.
    pub fn records(&self, one: UserId, other: UserId) -> bool {
        self.recorded == RecordingScope::Everything || self.has(one) || self.has(other)
    }

    /// Whether a message to these members of a group is recorded.
    pub fn records_for(&self, members: &[UserId]) -> bool {
        self.recorded == RecordingScope::Everything || !self.is_empty() && members.iter().any(|user| self.has(*user))
    }

    /// Whether this user uses level 2.
    pub fn has(&self, user: UserId) -> bool {
        if self.is_empty() {
            return false;
        }
        let Some((segment, word, bit)) = place(user) else { return false };
        let segment = self.segments.get().and_then(|segments| segments[segment].get());
        segment.is_some_and(|words| words[word].load(Relaxed) & bit != 0)
    }

    /// Notes that this user uses level 2. A node without level 2 ignores it: another node has
    /// announced the user.
    pub fn add(&self, user: UserId) {
        if self.recorded == RecordingScope::Nothing {
            return;
        }
        let Some((segment, word, bit)) = place(user) else { return };
        let segments = self.segments.get_or_init(|| (0..SEGMENTS).map(|_| OnceLock::new()).collect());
        let words = segments[segment].get_or_init(|| Box::new([const { AtomicU64::new(0) }; SEGMENT_BITS / 64]));
        words[word].fetch_or(bit, Relaxed);
        self.any.store(true, Relaxed);
    }
}

/// Segment, word and bit of a user; `None` for an id that no user has.
fn place(user: UserId) -> Option<(usize, usize, u64)> {
    let id = usize::try_from(user.0).ok()?;
    Some((id / SEGMENT_BITS, id % SEGMENT_BITS / 64, 1 << (id % 64)))
}

const SEGMENT_BITS: usize = 1 << 16;
const SEGMENTS: usize = (i32::MAX as usize + 1) / SEGMENT_BITS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_has_the_users_that_were_added_and_no_others() {
        let audience = Audience::new(RecordingScope::OfLevel2);
        assert!(audience.is_empty() && !audience.has(UserId(1)));
        let users = [1, 63, 64, 65_535, 65_536, 1_000_000, i32::MAX].map(UserId);
        users.iter().for_each(|user| audience.add(*user));
        audience.add(UserId(-1));
        assert!(users.iter().all(|user| audience.has(*user)) && !audience.is_empty());
        for stranger in [-1, 0, 2, 62, 65, 65_534, 65_537, 999_999, i32::MAX - 1, i32::MIN].map(UserId) {
            assert!(!audience.has(stranger), "{stranger}");
        }
        assert!(audience.records_for(&[UserId(2), UserId(64)]) && !audience.records_for(&[UserId(2), UserId(66)]));
        assert!(audience.records(UserId(1), UserId(2)) && audience.records(UserId(2), UserId(1)));
        assert!(!audience.records(UserId(2), UserId(66)));
    }

    #[test]
    fn everything_is_recorded_though_nobody_uses_level_2() {
        let audience = Audience::new(RecordingScope::Everything);
        assert!(!audience.is_empty() && !audience.has(UserId(1)));
        assert!(audience.records(UserId(1), UserId(2)) && audience.records_for(&[]));
    }

    #[test]
    fn where_there_is_no_level_2_another_nodes_word_changes_nothing() {
        let audience = Audience::new(RecordingScope::Nothing);
        audience.add(UserId(1));
        assert!(audience.is_empty() && !audience.has(UserId(1)) && !audience.records(UserId(1), UserId(2)));
    }
}
