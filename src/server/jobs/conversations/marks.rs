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
use crate::protocol::level2::frames::{self, MarkNews, Marks};
use crate::protocol::level2::{Rid, replies};
use crate::store::StoreError;
use crate::store::history::{History, Marked};

impl Conversations {
    /// The answer to a 49, and where the mark stands. Other devices of the user get the same, and the
    /// partner gets a 50.
    pub(super) fn mark_read(
        &self,
        history: &dyn History,
        who: &Identity,
        name: ConversationName,
        read: Seq,
        rid: Option<&Rid>,
    ) -> Result<(String, Option<(ConversationId, Seq)>), StoreError> {
        let conv = name.for_user(who.user);
        let marked = match history.mark_read(who.user, conv, read)? {
            Ok(marked) => marked,
            Err(denied) => return Ok((replies::refused(49, parts::denied(denied), rid), None)),
        };
        let Marked { read, recv, has_risen, head, unread } = marked;
        if has_risen {
            let mut told = self.peer_marks(who.user, &[(conv, Marks { read, recv })]);
            told.push((who.user, conv, MarkNews::Own { read, head, unread }));
            self.tell_marks(&told, Some(who));
        }
        Ok((frames::read(name, who.user, read, head, unread, rid), Some((conv, read))))
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
        self.tell_marks(&self.peer_marks(who.user, &marks.collect::<Vec<_>>()), None);
        Ok(MemberNews::Reported(ticket, stored.to_vec(), Noted::Stored))
    }

    /// What shows the partners of conversations of two how far the user has come.
    fn peer_marks(&self, user: UserId, marks: &[(ConversationId, Marks)]) -> Vec<ToldMarks> {
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
        shown.into_iter().map(|(partner, conv, marks)| (partner, conv, MarkNews::Partner(marks))).collect()
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

    /// Tells the devices of these users, but for one device, that marks have risen. The other nodes are
    /// told of all at once.
    fn tell_marks(&self, told: &[ToldMarks], except: Option<&Identity>) {
        let posts = told.iter().map(|(user, conv, marks)| (*user, move || MemberNews::Marks(*conv, *marks)));
        self.post(posts, except);
        let news = told.iter().map(|(user, conv, marks)| DeviceNews::Marks(*user, *conv, *marks));
        self.tell_nodes(&news.collect::<Vec<_>>());
    }

    /// Sends frames to the devices of these users.
    fn show(&self, frames: &[(UserId, Arc<str>)]) {
        self.post(frames.iter().map(|(user, frame)| (*user, move || MemberNews::Show(frame.clone()))), None);
        let news = frames.iter().map(|(user, frame)| DeviceNews::Show(*user, frame.clone()));
        self.tell_nodes(&news.collect::<Vec<_>>());
    }

    /// Tells the devices of these users on this node, but for one.
    fn post<N: Fn() -> MemberNews>(&self, news: impl Iterator<Item = (UserId, N)>, except: Option<&Identity>) {
        let Some(router) = self.router() else { return };
        let is_meant = |login| except.is_none_or(|except| except.login != login);
        let mut posts = Vec::new();
        for (user, news) in news {
            let links = router.attendance().devices(user, |device| is_meant(device.login));
            posts.extend(links.into_iter().map(|link| (link, Posted::Member(Box::new(news())))));
        }
        ClientLink::post_all(posts);
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
        self.show(&others.map(frame).collect::<Vec<_>>());
    }
}

/// Marks that have risen, for this user.
type ToldMarks = (UserId, ConversationId, MarkNews);

/// The most members of a group in which typing is shown.
const TYPING_MEMBERS_MAX: usize = 200;
