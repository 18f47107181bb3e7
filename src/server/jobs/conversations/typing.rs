//! Shows that a user is typing.

use std::sync::Arc;
use std::time::Instant;

use super::parts::Conversations;
use crate::base::conversation::ConversationName;
use crate::devices::tasks::Identity;
use crate::protocol::level2::replies;
use crate::protocol::{GroupId, UserId};
use crate::routing::groups::GroupCache;
use crate::store::{Contacts, Membership, StoreError};

impl Conversations {
    /// Shows the other users of a conversation that the user is typing; nobody if the group is
    /// large.
    pub(super) fn show_typing(&self, who: &Identity, name: ConversationName) -> Result<(), StoreError> {
        let (user, conv, now) = (who.user, name.for_user(who.user), self.parts.clock.now());
        // This comes first, so that a stranger to a group causes few reads.
        if !self.typing.is_due(user, conv, now) {
            return Ok(());
        }
        let recipients: Arc<[UserId]> = match name {
            ConversationName::User(partner) if self.parts.blocks.is_between(user, partner) => [].into(),
            ConversationName::User(partner) => [partner].into(),
            ConversationName::Group(group) => {
                readers_in(&self.parts.groups, (group, user), now, || self.parts.contacts.get())?
            }
        };
        let others = recipients.iter().filter(|other| **other != user && self.parts.audience.has(**other));
        let frame = |other: &UserId| (*other, replies::typing(conv.name_for(*other), user).into());
        let frames: Vec<_> = others.map(frame).collect();
        if !frames.is_empty() {
            self.show(&frames);
        }
        Ok(())
    }
}

/// The members of a group to whom `user` is shown typing.
fn readers_in<'s>(
    groups: &GroupCache,
    (group, user): (GroupId, UserId),
    now: Instant,
    contacts: impl FnOnce() -> Result<&'s dyn Contacts, StoreError>,
) -> Result<Arc<[UserId]>, StoreError> {
    let nobody = || Ok([].into());
    let members = match groups.members(group, now) {
        Some(members) => members,
        // The members of a large group are not read for this.
        None if groups.size(group).is_some_and(|size| size > TYPING_MEMBERS_MAX) => return nobody(),
        None if groups.is_stranger(user, group, now) => return nobody(),
        None => {
            let contacts = contacts()?;
            // Strangers must not make the server read whole groups.
            if !groups.was_member(user, group) {
                let changes = groups.changes();
                match contacts.membership(user, group)? {
                    Membership::Member => {}
                    Membership::NoSuchGroup => return nobody(),
                    Membership::Stranger => {
                        groups.note_stranger(user, group, now, changes);
                        return nobody();
                    }
                }
            }
            // The members of before serve while the database is away.
            groups.load(group, now, contacts)?
        }
    };
    let is_shown = members.len() <= TYPING_MEMBERS_MAX && members.binary_search(&user).is_ok();
    if is_shown { Ok(members) } else { nobody() }
}

/// The most members of a group in which typing is shown.
const TYPING_MEMBERS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::store::some_contacts::SomeContacts;

    /// A store of one group, which counts its reads and may be away.
    #[derive(Default)]
    struct OneGroup {
        members: Vec<UserId>,
        is_away: bool,
        reads: Mutex<Vec<&'static str>>,
    }

    impl OneGroup {
        fn read(&self, what: &'static str) -> Result<(), StoreError> {
            self.reads.lock().push(what);
            if self.is_away { Err(StoreError::Unavailable("away".into())) } else { Ok(()) }
        }
    }

    impl SomeContacts for OneGroup {
        fn members(&self, _: GroupId) -> Result<Vec<UserId>, StoreError> {
            self.read("members").map(|()| self.members.clone())
        }

        fn membership(&self, user: UserId, _: GroupId) -> Result<Membership, StoreError> {
            self.read("membership")?;
            Ok(if self.members.contains(&user) { Membership::Member } else { Membership::Stranger })
        }
    }

    #[test]
    fn a_stranger_costs_one_read_and_a_member_is_shown_while_the_store_is_away() {
        let (groups, now, group) = (GroupCache::new(None), Instant::now(), GroupId(3));
        let mut store = OneGroup { members: vec![UserId(1), UserId(2)], ..OneGroup::default() };
        let readers = |store: &OneGroup, user| {
            readers_in(&groups, (group, UserId(user)), now, || Ok(store)).map(|readers| readers.len())
        };
        for _ in 0..3 {
            assert_eq!(readers(&store, 9).unwrap(), 0);
        }
        assert_eq!(*store.reads.lock(), ["membership"]);
        assert_eq!(readers(&store, 1).unwrap(), 2);
        groups.changed(group);
        store.is_away = true;
        assert_eq!(readers(&store, 1).unwrap(), 2);
        assert!(readers(&store, 8).is_ok_and(|readers| readers == 0), "the members are known again");
    }
}
