//! Marks, and who is told of them.

use std::sync::Arc;

use rustc_hash::FxHashSet;

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
            let mut frames = self.peer_marks(who.user, &[(conv, Marks { read: marked.read, recv: marked.recv })]);
            frames.push((who.user, text(None).into()));
            self.show(&frames, Some(who));
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
        let raised = history.report(who.user, who.device, &places)?;
        let marks = raised.iter().map(|mark| (mark.conv, Marks { read: mark.read, recv: mark.recv }));
        self.show(&self.peer_marks(who.user, &marks.collect::<Vec<_>>()), None);
        Ok(MemberNews::Reported(ticket, stored.to_vec(), Noted::Stored))
    }

    /// The 50s that show the partners of conversations of two how far the user has come.
    fn peer_marks(&self, user: UserId, marks: &[(ConversationId, Marks)]) -> Vec<(UserId, Arc<str>)> {
        let partner = |conv: ConversationId| match conv.name_for(user) {
            ConversationName::User(partner) => Some(partner).filter(|partner| *partner != user),
            ConversationName::Group(_) => None,
        };
        let may_see = |partner: &UserId| {
            self.rules.receipts && self.parts.audience.has(*partner) && !self.parts.blocks.is_between(user, *partner)
        };
        let mut shown: Vec<_> =
            marks.iter().filter_map(|(conv, marks)| Some((partner(*conv).filter(may_see)?, *conv, *marks))).collect();
        if shown.is_empty() {
            return Vec::new();
        }
        let users = shown.iter().map(|(partner, ..)| *partner).chain([user]).collect::<Vec<_>>();
        match self.hiding_marks(&users) {
            Ok(hiding) if hiding.contains(&user) => shown.clear(),
            Ok(hiding) => shown.retain(|(partner, ..)| !hiding.contains(partner)),
            Err(_) => shown.clear(),
        }
        let frame = |(partner, conv, marks): (UserId, ConversationId, Marks)| {
            (partner, frames::peer_marks(conv.name_for(partner), user, marks).into())
        };
        shown.into_iter().map(frame).collect()
    }

    /// Those of the users who show their marks to nobody.
    fn hiding_marks(&self, users: &[UserId]) -> Result<FxHashSet<UserId>, StoreError> {
        let hiding = self.parts.community.get().and_then(|community| match community {
            Some(community) => community.hiding_marks(users),
            None => Ok(Vec::new()),
        });
        self.parts.outages.note("reading receipts", hiding.as_ref().err());
        Ok(hiding?.into_iter().collect())
    }

    /// Sends frames to the devices of these users, but for one device. The other nodes are told of all
    /// at once.
    fn show(&self, frames: &[(UserId, Arc<str>)], except: Option<&Identity>) {
        let Some(router) = self.router().filter(|_| !frames.is_empty()) else { return };
        let is_meant = |login| except.is_none_or(|except| except.login != login);
        let mut posts = Vec::new();
        for (user, frame) in frames {
            let show = |link| (link, Posted::Member(Box::new(MemberNews::Show(frame.clone()))));
            let links = router.attendance().devices(*user, |device| is_meant(device.login));
            posts.extend(links.into_iter().map(show));
        }
        ClientLink::post_all(posts);
        let news = frames.iter().map(|(user, frame)| DeviceNews::Show(*user, frame.clone()));
        self.tell_nodes(&news.collect::<Vec<_>>());
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
        let others = recipients.iter().filter(|user| **user != who.user && self.parts.audience.has(**user));
        let frame = |user: &UserId| (*user, replies::typing(conv.name_for(*user), who.user).into());
        self.show(&others.map(frame).collect::<Vec<_>>(), None);
    }
}

/// The most members of a group in which typing is shown.
const TYPING_MEMBERS_MAX: usize = 200;
