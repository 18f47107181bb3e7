//! Shows that a user is typing.

use std::sync::Arc;

use super::parts::Conversations;
use crate::base::conversation::ConversationName;
use crate::devices::tasks::Identity;
use crate::protocol::level2::replies;
use crate::protocol::{GroupId, UserId};
use crate::store::{Membership, StoreError};

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
            None => {
                let contacts = self.parts.contacts.get()?;
                // Strangers must not make the server read whole groups.
                match contacts.membership(user, group)? {
                    Membership::Member => groups.load(group, now, contacts)?,
                    Membership::Stranger | Membership::NoSuchGroup => [].into(),
                }
            }
        };
        let is_shown = members.len() <= TYPING_MEMBERS_MAX && members.binary_search(&user).is_ok();
        Ok(if is_shown { members } else { [].into() })
    }
}

/// The most members of a group in which typing is shown.
const TYPING_MEMBERS_MAX: usize = 200;
