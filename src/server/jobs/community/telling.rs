//! Shows connections what was recorded: those of this node directly, those of other nodes through
//! the bus.

use std::sync::Arc;

use super::parts::Arrangements;
use crate::bus::{CommittedFrame, DeviceNews};
use crate::delivery::{ClientLink, Posted};
use crate::devices::tasks::MemberNews;
use crate::history::pump::PumpEvent;
use crate::protocol::UserId;
use crate::protocol::level2::frames::{self, Committed, Message};
use crate::store::community::{Recorded, RecordedEntry};

impl Arrangements {
    /// Pushes recorded entries to the devices of all users concerned. `joins` is a member from the
    /// first entry on. Users who are gone see the first entry as their last one.
    pub(super) fn tell(&self, recorded: &Recorded, joins: Option<UserId>) {
        let Some(first) = recorded.entries.first() else { return };
        let (conv, seq) = (recorded.conv, first.place.seq);
        let (mut posts, mut news) = (Vec::new(), Vec::new());
        let uses_level2 = |user: &&UserId| self.parts.audience.has(**user);
        for user in recorded.members.iter().filter(uses_level2) {
            let frames: Vec<_> = recorded.entries.iter().map(|entry| frame(recorded, entry, *user)).collect();
            let (mut events, joined) = (Vec::new(), joins == Some(*user));
            events.extend(joined.then_some(PumpEvent::Joined { conv, from: seq }));
            events.extend(frames.iter().map(CommittedFrame::push));
            // Messages committed after it may have been posted only to the earlier members. So the
            // device must look for them.
            events.extend(joined.then_some(PumpEvent::Hint { conv, head: seq + 1 }));
            self.post(*user, events, &mut posts);
            if joins == Some(*user) {
                news.push(DeviceNews::Joined(*user, conv, seq));
            }
            if conv.group().is_none() {
                news.push(DeviceNews::Messages(*user, frames));
            }
        }
        for user in recorded.gone.iter().filter(uses_level2) {
            let last = frame(recorded, first, *user);
            let left = PumpEvent::Left { conv, seen: Some((1, seq)) };
            self.post(*user, vec![last.push(), left], &mut posts);
            news.push(DeviceNews::Messages(*user, vec![last]));
            news.push(DeviceNews::Left(*user, conv, seq));
        }
        if conv.group().is_some()
            && let Some(member) = recorded.members.iter().find(uses_level2)
        {
            // All members use the same name for a group, so they share the frames.
            let frames = recorded.entries.iter().map(|entry| frame(recorded, entry, *member)).collect();
            news.push(DeviceNews::GroupMessages(frames));
        }
        ClientLink::post_all(posts);
        if !self.parts.bus.is_alone() {
            self.parts.bus.tell_devices(&news);
        }
    }

    fn post(&self, user: UserId, events: Vec<PumpEvent>, posts: &mut Vec<(Arc<ClientLink>, Posted)>) {
        let Some(router) = self.router() else { return };
        let links = router.attendance().devices(user, |_| true);
        let tell = |link| (link, Posted::Member(Box::new(MemberNews::Pump(events.clone()))));
        posts.extend(links.into_iter().map(tell));
    }
}

/// The frame that shows an entry to `user`.
fn frame(recorded: &Recorded, entry: &RecordedEntry, user: UserId) -> CommittedFrame {
    let (RecordedEntry { place, before, from, text }, conv) = (entry, recorded.conv);
    let at = Committed { seq: place.seq, tag: place.tag, time: place.time };
    let message = Message { at, from: *from, frame: Some(text), edited: None, recalled: None, imported: false };
    let frame = frames::pushed(conv.name_for(user), &message).into();
    CommittedFrame { conv, at, before: *before, from: *from, frame }
}
