//! Shows that a user is typing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::parts::Conversations;
use crate::base::conversation::{ConversationId, ConversationName};
use crate::base::recent::Recent;
use crate::devices::tasks::Identity;
use crate::protocol::level2::replies;
use crate::protocol::{GroupId, UserId};
use crate::store::StoreError;

/// When each user last typed in a conversation, on any device of this node. Connections limit
/// themselves too, so that their requests cost nothing.
#[derive(Debug)]
pub(super) struct RecentTyping(Mutex<Recent<(UserId, ConversationId), Instant>>);

impl RecentTyping {
    pub(super) fn new() -> RecentTyping {
        RecentTyping(Mutex::new(Recent::new(TYPISTS_MAX)))
    }

    /// Whether the user's typing is shown now. If too many others have typed since the last time,
    /// it is shown too early.
    fn is_due(&self, user: UserId, conv: ConversationId, now: Instant) -> bool {
        let mut recent = self.0.lock();
        let last = recent.get(&(user, conv));
        if last.is_some_and(|last| now.saturating_duration_since(*last) < TYPING_EVERY) {
            return false;
        }
        recent.insert((user, conv), now);
        true
    }
}

impl Conversations {
    /// Shows the other users of a conversation that the user is typing; nobody if the group is
    /// large.
    pub(super) fn show_typing(&self, who: &Identity, name: ConversationName) -> Result<(), StoreError> {
        let (user, conv) = (who.user, name.for_user(who.user));
        let recipients: Arc<[UserId]> = match name {
            ConversationName::User(partner) if self.parts.blocks.is_between(user, partner) => [].into(),
            ConversationName::User(partner) => [partner].into(),
            ConversationName::Group(group) => self.readers_in(group, user)?,
        };
        let mut others =
            recipients.iter().filter(|other| **other != user && self.parts.audience.has(**other)).peekable();
        if others.peek().is_some() && self.typing.is_due(user, conv, self.parts.clock.now()) {
            let frame = |other: &UserId| (*other, replies::typing(conv.name_for(*other), user).into());
            self.show(&others.map(frame).collect::<Vec<_>>());
        }
        Ok(())
    }

    /// The members of a group to whom `user` is shown typing.
    fn readers_in(&self, group: GroupId, user: UserId) -> Result<Arc<[UserId]>, StoreError> {
        let (groups, now) = (&self.parts.groups, self.parts.clock.now());
        let members = match groups.members(group, now) {
            Some(members) => members,
            // The members of a large group are not read for this.
            None if groups.size(group).is_some_and(|size| size > TYPING_MEMBERS_MAX) => [].into(),
            None => groups.load(group, now, self.parts.contacts.get()?)?,
        };
        let is_shown = members.len() <= TYPING_MEMBERS_MAX && members.binary_search(&user).is_ok();
        Ok(if is_shown { members } else { [].into() })
    }
}

/// The shortest time between two 51s of one user in a conversation that are shown.
const TYPING_EVERY: Duration = Duration::from_secs(3);
/// The most members of a group in which typing is shown.
const TYPING_MEMBERS_MAX: usize = 200;
/// The users and conversations that are remembered, at least: some 50 bytes each.
const TYPISTS_MAX: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_types_once_in_three_seconds_in_each_conversation() {
        let (typing, now) = (RecentTyping::new(), Instant::now());
        let (ann, bob) = (UserId(1), UserId(2));
        let (team, both) = (ConversationId::of_group(GroupId(3)), ConversationId::between(ann, bob));
        assert!(typing.is_due(ann, team, now) && typing.is_due(bob, team, now) && typing.is_due(ann, both, now));
        let soon = now + TYPING_EVERY - Duration::from_millis(1);
        assert!(!typing.is_due(ann, team, soon));
        let later = now + TYPING_EVERY;
        assert!(typing.is_due(ann, team, later) && !typing.is_due(ann, team, later));
    }
}
