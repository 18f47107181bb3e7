//! Marks, and the users who are notified of them.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::parts::{self, Conversations};
use crate::base::conversation::{ConversationId, ConversationName, Seq};
use crate::base::trace::{Hop, Step};
use crate::bus::DeviceNews;
use crate::delivery::{ClientLink, Posted};
use crate::devices::tasks::{Identity, MemberNews, Noted};
use crate::history::answers::Ticket;
use crate::protocol::UserId;
use crate::protocol::level2::frames::{self, MarkNews, Marks};
use crate::protocol::level2::{Rid, replies};
use crate::routing::blocks::Blocks;
use crate::store::StoreError;
use crate::store::history::{Head, History, Marked};

/// Shows partners' marks in a 43. The store leaves out those of users who show theirs to nobody.
#[derive(Clone, Copy)]
pub(super) struct PartnerMarks<'c> {
    /// Whether partners see each other's marks.
    receipts: bool,
    blocks: &'c Blocks,
}

impl PartnerMarks<'_> {
    /// The partner's marks that `user` is shown, if any: none if one of them has blocked the other.
    pub(super) fn shown(self, user: UserId, head: &Head) -> Option<Marks> {
        let (read, recv) = head.peer.filter(|_| self.receipts)?;
        let is_blocked = partner_in(head.conv, user).is_some_and(|partner| self.blocks.is_between(user, partner));
        (!is_blocked).then_some(Marks { read, recv })
    }
}

impl Conversations {
    /// The rules for marks in 43s.
    pub(super) fn partner_marks(&self) -> PartnerMarks<'_> {
        PartnerMarks { receipts: self.rules.receipts, blocks: &self.parts.blocks }
    }

    /// The answer to a 49, and the mark, unless the 49 is refused. Other devices of the user get
    /// the same answer, and the partner gets a 50.
    pub(super) fn mark_read(
        &self,
        history: &dyn History,
        who: &Identity,
        name: ConversationName,
        read: Seq,
        rid: Option<&Rid>,
    ) -> Result<(String, Option<Marked>), StoreError> {
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
        Ok((frames::read(name, who.user, read, head, unread, rid), Some(marked)))
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
        for (conv, seq) in &places {
            let at = || Step { conv: conv.column(), seq: *seq, to: who.user.0, ..Step::of(Hop::Reported) };
            self.parts.tracer.note(|| Step { device: who.device.0, ..at() });
        }
        let marks = raised.iter().map(|mark| (mark.conv, Marks { read: mark.read, recv: mark.recv }));
        self.tell_marks(&self.peer_marks(who.user, &marks.collect::<Vec<_>>()), None);
        Ok(MemberNews::Reported(ticket, stored.to_vec(), Noted::Stored))
    }

    /// The user's marks, for the partners in conversations of two.
    fn peer_marks(&self, user: UserId, marks: &[(ConversationId, Marks)]) -> Vec<ToldMarks> {
        let partner = |conv| partner_in(conv, user);
        let uses_level2 = |partner: &UserId| self.parts.audience.has(*partner);
        let told = marks.iter().filter_map(|(conv, marks)| Some((partner(*conv).filter(uses_level2)?, *conv, *marks)));
        self.with_receipts(user, told.collect()).unwrap_or_default()
    }

    /// The marks of these that a user and partners show each other.
    fn with_receipts(
        &self,
        user: UserId,
        mut shown: Vec<(UserId, ConversationId, Marks)>,
    ) -> Result<Vec<ToldMarks>, StoreError> {
        shown.retain(|(partner, ..)| self.rules.receipts && !self.parts.blocks.is_between(user, *partner));
        if shown.is_empty() {
            return Ok(Vec::new());
        }
        let users = shown.iter().map(|(partner, ..)| *partner).chain([user]).collect::<Vec<_>>();
        let hiding = self.hiding_marks(&users)?;
        let is_shown = |partner: &UserId| !hiding.contains(&user) && !hiding.contains(partner);
        let shown = shown.into_iter().filter(|(partner, ..)| is_shown(partner));
        Ok(shown.map(|(partner, conv, marks)| (partner, conv, MarkNews::Partner(marks))).collect())
    }

    /// The present marks of these conversations: the user's own, and the partner's as far as the
    /// user may see them.
    pub(super) fn marks_now(
        &self,
        history: &dyn History,
        user: UserId,
        convs: &[ConversationId],
    ) -> Result<MemberNews, StoreError> {
        let heads: Vec<Head> = history.heads_of(user, convs)?.into_iter().flatten().collect();
        let of_partner = |head: &Head| {
            let (read, recv) = head.peer?;
            Some((partner_in(head.conv, user)?, head.conv, Marks { read, recv }))
        };
        // Without these facts the client could not be told a partner's present marks, so it must
        // ask again.
        let of_partners = self.with_receipts(user, heads.iter().filter_map(of_partner).collect())?;
        let own = |head: &Head| MarkNews::Own { read: head.read, head: head.head, unread: head.unread };
        let own = heads.iter().map(|head| (head.conv, own(head)));
        Ok(MemberNews::MarksRead(Some(
            own.chain(of_partners.into_iter().map(|(_, conv, news)| (conv, news))).collect(),
        )))
    }

    /// The users of these who show their marks to nobody.
    fn hiding_marks(&self, users: &[UserId]) -> Result<FxHashSet<UserId>, StoreError> {
        let hiding = self.parts.community.get().and_then(|community| match community {
            Some(community) => community.hiding_marks(users),
            None => Ok(Vec::new()),
        });
        self.parts.outages.note("reading receipts", hiding.as_ref().err());
        Ok(hiding?.into_iter().collect())
    }

    /// Tells the devices of these users, except one device, that marks have risen. Other nodes get
    /// all of them at once.
    fn tell_marks(&self, told: &[ToldMarks], except: Option<&Identity>) {
        let posts = told.iter().map(|(user, conv, marks)| (*user, move || MemberNews::Marks(*conv, *marks)));
        self.post(posts, except);
        let news = told.iter().map(|(user, conv, marks)| DeviceNews::Marks(*user, *conv, *marks));
        self.tell_nodes(&news.collect::<Vec<_>>());
    }

    /// Sends 51s to the devices of these users, except those that they were just shown.
    pub(super) fn show(&self, frames: &[(UserId, Arc<str>)]) {
        let (router, now) = (self.router(), self.parts.clock.now());
        let is_shown = |user, frame: &str| {
            router.as_ref().is_some_and(|router| {
                let is_here = !router.attendance().devices(user, |_| true).is_empty();
                is_here && router.shows_typing(user, frame, now)
            })
        };
        let here = frames.iter().filter(|(user, frame)| is_shown(*user, frame));
        self.post(here.map(|(user, frame)| (*user, move || MemberNews::Show(frame.clone()))), None);
        let news = frames.iter().map(|(user, frame)| DeviceNews::Show(*user, frame.clone()));
        self.tell_nodes(&news.collect::<Vec<_>>());
    }

    /// Posts news to the devices of these users on this node, except one.
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
}

/// The other user of a conversation of two.
fn partner_in(conv: ConversationId, user: UserId) -> Option<UserId> {
    match conv.name_for(user) {
        ConversationName::User(partner) => Some(partner).filter(|partner| *partner != user),
        ConversationName::Group(_) => None,
    }
}

/// Marks that have risen, for this user.
type ToldMarks = (UserId, ConversationId, MarkNews);
