//! [`Posts`]: the news of a batch for connections and other nodes.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::announcer::{Announcer, SentFrame};
use super::parts::RecorderParts;
use crate::admission::Holder;
use crate::base::conversation::Tag;
use crate::bus::news::CommittedFrame;
use crate::delivery::{ClientLink, Posted};
use crate::protocol::UserId;
use crate::protocol::level2::frames::{self, Message};
use crate::store::history::{EntryPlace, NewEntry};

/// The news of a batch for connections.
#[derive(Default)]
pub(super) struct Posts {
    pub(super) news: Vec<(Arc<ClientLink>, Posted)>,
    /// The news for other nodes: messages of groups, and of conversations of two by recipient.
    groups: Vec<SentFrame>,
    users: FxHashMap<UserId, Vec<SentFrame>>,
}

impl Posts {
    /// Adds a message of `holder` for the devices of its sender, except the connection that sent
    /// it, and of its recipients.
    pub(super) fn push(
        &mut self,
        (entry, holder): (&NewEntry, Holder),
        (place, before): (EntryPlace, Option<Tag>),
        recipients: &[UserId],
        origin: Option<&Arc<ClientLink>>,
        parts: &RecorderParts,
    ) {
        let message = Message {
            at: committed(place),
            from: entry.sender,
            frame: Some(&entry.text),
            edited: None,
            recalled: None,
            imported: entry.is_imported,
        };
        let (conv, at, from) = (entry.conv, committed(place), entry.sender);
        let told = |frame: &Arc<str>| CommittedFrame { conv, at, before, from, frame: frame.clone() };
        // All members of a group use the same name for it, so they share the text.
        let mut shared: Option<Arc<str>> = None;
        let is_listed = recipients.contains(&from);
        let is_alone = parts.bus.is_alone();
        // A sender who repeats a message to a group after leaving it is not a member.
        let is_sender_told = !is_listed && conv.group().is_none();
        for user in recipients.iter().copied().chain(is_sender_told.then_some(from)) {
            if !parts.audience.has(user) {
                continue;
            }
            let links =
                parts.router.attendance().devices(user, |device| origin.is_none_or(|origin| device.link != *origin));
            if links.is_empty() && is_alone {
                continue;
            }
            let compose = || Arc::<str>::from(frames::pushed(conv.name_for(user), &message));
            let frame = match conv.group() {
                Some(_) => shared.get_or_insert_with(compose).clone(),
                None => compose(),
            };
            if !is_alone && conv.group().is_none() {
                self.users.entry(user).or_default().push((holder, told(&frame)));
            }
            for link in links {
                self.news.push((link, Posted::Pump(told(&frame).push())));
            }
        }
        if let Some(frame) = shared.filter(|_| !is_alone) {
            self.groups.push((holder, told(&frame)));
        }
    }

    /// Posts everything, with one wake-up per loop, and has the other nodes notified.
    pub(super) fn send(self, announcer: Option<&Announcer>) {
        ClientLink::post_all(self.news);
        if let Some(announcer) = announcer {
            let users = self.users.into_iter().map(|(user, messages)| (Some(user), messages));
            announcer.tell(users.chain([(None, self.groups)]));
        }
    }
}

pub(super) fn committed(place: EntryPlace) -> frames::Committed {
    frames::Committed { seq: place.seq, tag: place.tag, time: place.time }
}
