//! [`Posts`]: the news of a batch for connections and other nodes.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::announcer::Announcer;
use super::parts::RecorderParts;
use crate::base::conversation::Tag;
use crate::bus::DeviceNews;
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
    groups: Vec<CommittedFrame>,
    users: FxHashMap<UserId, Vec<CommittedFrame>>,
}

impl Posts {
    /// Adds a message for the devices of its sender, except the connection that sent it, and of its
    /// recipients.
    pub(super) fn push(
        &mut self,
        entry: &NewEntry,
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
                self.users.entry(user).or_default().push(told(&frame));
            }
            for link in links {
                self.news.push((link, Posted::Pump(told(&frame).push())));
            }
        }
        if let Some(frame) = shared.filter(|_| !is_alone) {
            self.groups.push(told(&frame));
        }
    }

    /// Posts everything, with one wake-up per loop, and has the other nodes notified.
    pub(super) fn send(self, announcer: Option<&Announcer>) {
        ClientLink::post_all(self.news);
        let Some(announcer) = announcer else { return };
        let mut news: Vec<DeviceNews> = Vec::new();
        for (user, messages) in self.users {
            news.extend(parcels(messages).map(|messages| DeviceNews::Messages(user, messages)));
        }
        news.extend(parcels(self.groups).map(DeviceNews::GroupMessages));
        if !news.is_empty() {
            announcer.tell(news);
        }
    }
}

/// Splits messages into pieces that one publication can hold.
fn parcels(messages: Vec<CommittedFrame>) -> impl Iterator<Item = Vec<CommittedFrame>> {
    let mut rest = messages.into_iter().peekable();
    std::iter::from_fn(move || {
        let (mut parcel, mut bytes) = (vec![rest.next()?], 0);
        while let Some(next) = rest.next_if(|next| {
            bytes += next.frame.len();
            bytes < PARCEL_BYTES_MAX
        }) {
            parcel.push(next);
        }
        Some(parcel)
    })
}

pub(super) fn committed(place: EntryPlace) -> frames::Committed {
    frames::Committed { seq: place.seq, tag: place.tag, time: place.time }
}

/// The most text in one publication, unless a single message is longer.
const PARCEL_BYTES_MAX: usize = 256 * 1024;
