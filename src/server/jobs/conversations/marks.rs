//! Marks, and who is told of them.

use std::sync::Arc;

use super::parts::{self, Conversations};
use crate::base::conversation::{ConversationId, ConversationName, Seq};
use crate::bus::DeviceNews;
use crate::delivery::{ClientLink, Posted};
use crate::devices::tasks::{Identity, MemberNews, Noted};
use crate::history::answers::Ticket;
use crate::protocol::UserId;
use crate::protocol::level2::frames::{self, Marks};
use crate::protocol::level2::{Rid, replies};
use crate::store::StoreError;
use crate::store::history::History;

impl Conversations {
    /// The answer to a 49. Other devices of the user get the same, and the partner gets a 50.
    pub(super) fn mark_read(
        &self,
        history: &dyn History,
        who: &Identity,
        name: ConversationName,
        read: Seq,
        rid: Option<&Rid>,
    ) -> Result<String, StoreError> {
        let conv = name.for_user(who.user);
        let marked = match history.mark_read(who.user, conv, read)? {
            Ok(marked) => marked,
            Err(denied) => return Ok(replies::refused(49, parts::denied(denied), rid)),
        };
        let text = |rid| frames::read(name, who.user, marked.read, marked.head, marked.unread, rid);
        if marked.has_risen {
            self.show(who.user, Some(who), &text(None).into());
            self.show_marks(conv, who.user, Marks { read: marked.read, recv: marked.recv });
        }
        Ok(text(rid))
    }

    /// Notes a 47.
    pub(super) fn report(
        &self,
        history: &dyn History,
        who: &Identity,
        ticket: Ticket,
        stored: &[(ConversationName, Seq)],
    ) -> Result<MemberNews, StoreError> {
        let places: Vec<_> = stored.iter().map(|(name, seq)| (name.for_user(who.user), *seq)).collect();
        for mark in history.report(who.user, who.device, &places)? {
            self.show_marks(mark.conv, mark.user, Marks { read: mark.read, recv: mark.recv });
        }
        Ok(MemberNews::Reported(ticket, stored.to_vec(), Noted::Stored))
    }

    /// Shows the partner of a conversation of two how far the user has come.
    fn show_marks(&self, conv: ConversationId, user: UserId, marks: Marks) {
        if let ConversationName::User(partner) = conv.name_for(user)
            && partner != user
            && self.rules.receipts
            && !self.hides_marks(user, partner)
        {
            let frame = frames::peer_marks(conv.name_for(partner), user, marks);
            self.show(partner, None, &frame.into());
        }
    }

    /// Whether these users are not shown each other's marks. If the database is away, they are not.
    fn hides_marks(&self, user: UserId, partner: UserId) -> bool {
        if self.parts.blocks.is_between(user, partner) {
            return true;
        }
        let hides = self.parts.community.get().and_then(|community| match community {
            Some(community) => community.hides_marks(user, partner),
            None => Ok(false),
        });
        self.parts.outages.note("reading receipts", hides.as_ref().err());
        hides.unwrap_or(true)
    }

    /// Sends a frame to the devices of `user` on this node, but for one.
    fn show(&self, user: UserId, except: Option<&Identity>, frame: &Arc<str>) {
        let Some(router) = self.router() else { return };
        let is_meant = |login| except.is_none_or(|except| except.login != login);
        let links = router.attendance().devices(user, |device| is_meant(device.login));
        let show = |link| (link, Posted::Member(Box::new(MemberNews::Show(frame.clone()))));
        ClientLink::post_all(links.into_iter().map(show).collect());
        self.tell_nodes(&[DeviceNews::Show(user, frame.clone())]);
    }

    /// Shows the others in a conversation that the user is typing. Members of a group are told as far
    /// as they are known without asking the database, and of a large one nobody is.
    pub(super) fn show_typing(&self, who: &Identity, name: ConversationName) {
        let conv = name.for_user(who.user);
        let recipients: Arc<[UserId]> = match name {
            ConversationName::User(partner) if self.parts.blocks.is_between(who.user, partner) => [].into(),
            ConversationName::User(partner) => [partner].into(),
            ConversationName::Group(group) => {
                let members = self.parts.groups.members(group, self.parts.clock.now()).unwrap_or_default();
                let is_told = members.len() <= TYPING_MEMBERS_MAX && members.binary_search(&who.user).is_ok();
                if is_told { members } else { [].into() }
            }
        };
        for user in recipients.iter().filter(|user| **user != who.user && self.parts.audience.has(**user)) {
            self.show(*user, None, &replies::typing(conv.name_for(*user), who.user).into());
        }
    }
}

/// The most members of a group in which typing is shown.
const TYPING_MEMBERS_MAX: usize = 200;
