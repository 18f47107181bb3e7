//! The users whom a client may watch, and their states.

use std::collections::HashSet;
use std::sync::Arc;

use super::parts::Conversations;
use crate::bus::DeviceNews;
use crate::config::PresenceShown;
use crate::delivery::ClientLink;
use crate::devices::tasks::{Identity, MemberNews};
use crate::history::answers::Ticket;
use crate::protocol::UserId;
use crate::protocol::level2::{Rid, replies};
use crate::store::{StoreError, UserState};

impl Conversations {
    /// Makes a connection watch these users, and no others. Posts the answer and their states. A
    /// user who may not be watched always looks offline.
    pub(super) fn watch(
        &self,
        who: &Identity,
        link: &Arc<ClientLink>,
        (ticket, rid): (Ticket, Option<&Rid>),
        (before, now): (&[UserId], &[UserId]),
    ) -> Result<Vec<MemberNews>, StoreError> {
        let visible = match self.rules.presence {
            PresenceShown::All => now.to_vec(),
            PresenceShown::Contacts => self.contacts_among(who.user, now)?,
            PresenceShown::Off => Vec::new(),
        };
        let is_open = |other: &UserId| !self.parts.blocks.is_between(who.user, *other);
        let visible: Vec<UserId> = visible.into_iter().filter(is_open).collect();
        let online = self.online(&visible)?;
        let (seen, unseen): (Vec<_>, Vec<_>) = now.iter().copied().partition(|user| visible.contains(user));
        let state = |user| if online.contains(&user) { UserState::Online } else { UserState::Offline };
        let states: Vec<_> = seen.into_iter().map(|user| (user, state(user))).collect();
        // The answer comes before the states, which are posted by the watchers.
        post(link, MemberNews::Answer(ticket, replies::done(52, rid)));
        self.parts.watchers.watch(who.user, link, before, &states);
        // One of two users may have blocked the other between the query and the note.
        for blocked in visible.iter().filter(|other| self.parts.blocks.is_between(who.user, **other)) {
            self.parts.watchers.part(who.user, *blocked);
        }
        if self
            .router()
            .is_none_or(|router| router.attendance().devices(who.user, |device| device.link == *link).is_empty())
        {
            // The connection has ended meanwhile.
            self.parts.watchers.forget(link, now);
        }
        for user in unseen {
            post(link, MemberNews::Presence(user, false));
        }
        if let Some(router) = self.router().filter(|_| self.parts.bus.is_alone()) {
            // Finds users who came or went between the query and the note.
            self.parts.watchers.look(&visible, |user| router.attendance().has(user));
        }
        Ok(vec![MemberNews::Watching])
    }

    /// Notes on every node that `user` has blocked `other`, or no longer does. Two users of whom
    /// one has blocked the other do not see each other.
    pub fn note_block(&self, user: UserId, other: UserId, is_blocked: bool) {
        if is_blocked {
            self.parts.blocks.add(user, other);
            self.parts.watchers.part(user, other);
        } else {
            self.parts.blocks.remove(user, other);
        }
        self.tell_nodes(&[DeviceNews::Blocked(user, other, is_blocked)]);
    }

    /// Queries the watched users of other nodes. Blocks.
    pub fn look_at_watched(&self) -> Result<(), StoreError> {
        for some in self.parts.watchers.watched().chunks(WATCHED_AT_ONCE) {
            let online = self.online(some)?;
            self.parts.watchers.look(some, |user| online.contains(&user));
        }
        Ok(())
    }

    /// The users of these who are online: on this node, or by the column that all nodes write.
    fn online(&self, users: &[UserId]) -> Result<HashSet<UserId>, StoreError> {
        let Some(router) = self.router() else { return Ok(HashSet::new()) };
        let (here, others): (Vec<UserId>, Vec<UserId>) = users.iter().partition(|user| router.attendance().has(**user));
        let mut online: HashSet<UserId> = here.into_iter().collect();
        if !others.is_empty() && !self.parts.bus.is_alone() {
            online.extend(self.parts.states.get()?.online(&others)?);
        }
        Ok(online)
    }

    /// The users of these who are `user`, a friend of `user`, or in a group with `user`.
    fn contacts_among(&self, user: UserId, users: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let contacts = self.parts.contacts.get()?;
        let friends: HashSet<UserId> = contacts.friends(user)?.into_iter().map(|friend| friend.id).collect();
        let is_friend = |other: &UserId| *other == user || friends.contains(other);
        let (mut known, mut unknown): (Vec<UserId>, Vec<UserId>) = users.iter().copied().partition(is_friend);
        if unknown.is_empty() {
            return Ok(known);
        }
        for group in contacts.groups_of(user)? {
            let now = self.parts.clock.now();
            let members = match self.parts.groups.members(group.id, now) {
                Some(members) => members,
                None => self.parts.groups.load(group.id, now, contacts)?,
            };
            let (found, rest) = unknown.into_iter().partition(|other| members.binary_search(other).is_ok());
            (known, unknown) = ([known, found].concat(), rest);
            if unknown.is_empty() {
                break;
            }
        }
        Ok(known)
    }
}

fn post(link: &ClientLink, news: MemberNews) {
    link.post(crate::delivery::Posted::Member(Box::new(news)));
}

/// The users that one statement reads.
const WATCHED_AT_ONCE: usize = 512;
