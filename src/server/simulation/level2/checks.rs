//! The promises, by name.

use std::collections::{BTreeMap, BTreeSet};

use testkit::level2::{Ack, Message};

use super::acts::conversation;
use super::world::{Kind, World};
use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::{GroupId, UserId};
use crate::server::simulation::number_of;
use crate::store::history::Cid;

impl World {
    /// Examines the history after a step, if it has grown.
    pub(super) fn observe(&mut self) {
        let mut tables = self.tables.lock();
        if self.dice.one_in(3) {
            tables.land_one();
        }
        self.database_failed |= tables.is_failing();
        let convs: Vec<(ConversationId, i64)> = tables.history.extents().collect();
        let count = convs.iter().map(|(conv, _)| tables.history.stored(*conv).count()).sum();
        if std::mem::replace(&mut self.looked_at, count) == count {
            return;
        }
        // A send that was refused because its user had left the group may succeed later, if the
        // connection has ended before its device heard of that. So may one whose acknowledgement
        // and whose message were lost, one after the other.
        let may_overtake = |conv: ConversationId| {
            self.tally.memberships > 0 && conv == ConversationId::of_group(GroupId(1)) || !self.lost.places.is_empty()
        };
        let mut ids: BTreeSet<(UserId, &[u8])> = BTreeSet::new();
        for (conv, head) in convs {
            let mut last: BTreeMap<usize, u32> = BTreeMap::new();
            let mut next = 1;
            for (seq, sender, cid, _) in tables.history.stored(conv) {
                assert!(seq == next, "C: the numbers of {conv:?} have a hole: {seq} where {next} is next");
                next += 1;
                let Some((device, nth)) = of_device(cid) else { continue };
                assert!(ids.insert((sender, cid.bytes())), "B: message {nth} of device {device} is there twice");
                let before = last.insert(device, nth).unwrap_or_default();
                assert!(
                    before < nth || may_overtake(conv),
                    "C: device {device} has sent message {nth} before {before} to {conv:?}"
                );
            }
            assert!(head < next, "C: the head of {conv:?} is {head}, and its last message is {}", next - 1);
        }
    }

    /// Checks a device's message that is acknowledged.
    pub(super) fn check_acknowledged(&mut self, no: usize, ack: &Ack) {
        let user = self.devices[no].user;
        let conv = conversation(user, &ack.conv.0);
        let seq = i64::try_from(ack.seq.0).expect("a number");
        if self.lost.ids.contains(&(user, Cid::of_client(&ack.cid).expect("an id"))) {
            return;
        }
        let is_there = self.is_stored(user, &ack.cid, conv, seq);
        assert!(is_there, "A: message {} of device {no} is acknowledged, and is not number {seq} of {conv:?}", ack.cid);
        self.check_tag(no, conv, seq, &ack.tag.0);
        self.acknowledged.push((no, ack.cid.clone(), conv, seq));
    }

    fn is_stored(&self, user: UserId, cid: &str, conv: ConversationId, seq: i64) -> bool {
        let cid = Cid::of_client(cid).expect("an id");
        let place = self.tables.lock().history.place_of(user, &cid);
        place.is_some_and(|(of, number, _)| (of, number) == (conv, seq))
    }

    /// Checks a message that a device is shown.
    pub(super) fn check_shown(&self, no: usize, name: &str, message: &Message) {
        let conv = conversation(self.devices[no].user, name);
        self.check_tag(no, conv, i64::try_from(message.seq.0).expect("a number"), &message.tag.0);
    }

    fn check_tag(&self, no: usize, conv: ConversationId, seq: i64, tag: &str) {
        let stored = self.tables.lock().history.tag(conv, seq);
        let is_lost = Tag::parse(tag).is_some_and(|tag| self.lost.places.contains(&(conv, seq, tag.0)));
        assert!(
            is_lost || stored == Tag::parse(tag),
            "D: device {no} is shown number {seq} of {conv:?}, which cannot be read"
        );
    }

    /// Checks that connected devices have been shown everything.
    pub(super) fn check_shown_unasked(&self, when: &str) {
        for (no, device) in self.devices.iter().enumerate().filter(|(_, device)| device.is_synced()) {
            for (conv, head) in self.convs_of(device.user) {
                let name = conv.name_for(device.user).to_string();
                let cursor = i64::try_from(device.store.cursor(&name)).unwrap_or_default();
                assert!(cursor >= head, "F: device {no} was shown {name} up to {cursor} of {head} {when}");
            }
        }
    }

    /// Checks that devices which were connected while the database lost its end hold nothing of it
    /// any more.
    pub(super) fn check_nothing_lost_is_held(&self) {
        let tables = self.tables.lock();
        for (no, device) in self.devices.iter().enumerate().filter(|(_, device)| device.is_synced()) {
            for (name, log) in device.store.logs.iter().filter(|(_, log)| log.closed.is_none()) {
                let conv = conversation(device.user, name);
                for (seq, held) in &log.messages {
                    let is_there = tables.history.tag(conv, *seq as i64) == Tag::parse(&held.tag.0);
                    assert!(is_there, "G: connected device {no} holds number {seq} of {name}, which is lost");
                }
            }
        }
    }

    /// The conversations of a user, and their last numbers.
    pub(super) fn convs_of(&self, user: UserId) -> Vec<(ConversationId, i64)> {
        let tables = self.tables.lock();
        let is_in = |conv: ConversationId| match (conv.group(), conv.users()) {
            (Some(group), _) => tables.people().groups.get(&group).is_some_and(|group| group.members.contains(&user)),
            (None, Some((low, high))) => low == user || high == user,
            (None, None) => false,
        };
        tables.history.extents().filter(|(conv, _)| is_in(*conv)).collect()
    }

    /// Checks everything after all is mended and at rest, and every device has come back.
    pub(super) fn check_end(&self) {
        for (no, cid, conv, seq) in &self.acknowledged {
            let is_there = self.is_stored(self.devices[*no].user, cid, *conv, *seq);
            assert!(is_there, "A: message {cid} of device {no} was acknowledged, and is not number {seq} of {conv:?}");
        }
        let promise = if self.was_restored { "G" } else { "E" };
        for no in 0..self.devices.len() {
            self.check_store(no, promise);
        }
        if !self.was_restored && self.broken.is_none() {
            self.check_old_messages();
            self.check_old_messages_are_once();
            self.check_received_by_old();
        }
    }

    /// Checks that a device holds exactly the messages that its user may see.
    fn check_store(&self, no: usize, promise: &str) {
        let device = &self.devices[no];
        assert!(device.store.outbox.is_empty(), "A: device {no} waits for {:?}", device.store.outbox);
        let tables = self.tables.lock();
        for (conv, head) in self.convs_of_locked(device.user, &tables) {
            let name = conv.name_for(device.user).to_string();
            let floor = tables.history.head(tables.people(), device.user, conv).map_or(0, |head| head.floor);
            let log = device.store.log(&name);
            let cursor = log.map_or(0, |log| log.cursor) as i64;
            assert!(cursor.max(floor) == head, "{promise}: device {no} has {name} up to {cursor}, and it has {head}");
            for entry in tables.history.run(conv, floor + 1, head, false, usize::MAX) {
                let held = log.and_then(|log| log.messages.get(&(entry.seq as u64)));
                let is_right = held.is_some_and(|held| {
                    let changes = (held.edited.map(|seq| seq.0 as i64), held.recalled.map(|seq| seq.0 as i64));
                    let body = entry.text.as_deref().unwrap_or("null");
                    let is_it = Tag::parse(&held.tag.0) == Some(entry.tag) && held.from == i64::from(entry.from.0);
                    let is_as_it_is = held.m.0 == body && changes == (entry.edited, entry.recalled);
                    let last_change = changes.1.or(changes.0);
                    is_it && (is_as_it_is || last_change.is_some_and(|change| self.is_lost(conv, change)))
                });
                assert!(
                    is_right,
                    "{promise}: device {no} holds {held:?} as number {} of {name}, and not {entry:?}",
                    entry.seq
                );
            }
        }
        for (name, log) in &device.store.logs {
            let conv = conversation(device.user, name);
            let visible = conv.group().map(|group| periods(&tables, group, device.user));
            for (seq, held) in &log.messages {
                let seq = *seq as i64;
                let is_own = visible
                    .as_ref()
                    .is_none_or(|periods| periods.iter().any(|(from, to)| (*from..=*to).contains(&seq)));
                assert!(is_own, "device {no} holds number {seq} of {name}, which is not for it");
                let is_there = tables.history.tag(conv, seq) == Tag::parse(&held.tag.0);
                assert!(is_there, "{promise}: device {no} holds number {seq} of {name}, which is not in history");
            }
        }
    }

    /// Whether a message with this number was lost. If it was an edit or a recall, a device that
    /// had not come to that number may hold the message that it has changed, and cannot know that
    /// the change is gone. A device that had come to it holds the edit or the recall itself unless
    /// it was reset.
    fn is_lost(&self, conv: ConversationId, seq: i64) -> bool {
        self.lost.numbers.contains(&(conv, seq))
    }

    fn convs_of_locked(
        &self,
        user: UserId,
        tables: &crate::server::simulation::store::Tables,
    ) -> Vec<(ConversationId, i64)> {
        let is_in = |conv: ConversationId| match (conv.group(), conv.users()) {
            (Some(group), _) => tables.people().groups.get(&group).is_some_and(|group| group.members.contains(&user)),
            (None, Some((low, high))) => low == user || high == user,
            (None, None) => false,
        };
        tables.history.extents().filter(|(conv, _)| is_in(*conv)).collect()
    }

    /// Messages that level 1 was told are settled are in the conversations of those who use level 2
    /// alone, once.
    fn check_old_messages(&self) {
        let tables = self.tables.lock();
        for (number, message) in self.old_messages.settled() {
            let Some((low, high)) = message.conv.users() else { continue };
            let to = if low == message.from { high } else { low };
            if to.0 > 2 || self.database_failed {
                continue;
            }
            let text = format!(r#""n":{number},"#);
            let count = tables.history.stored(message.conv).filter(|(.., stored)| stored.contains(&text)).count();
            assert!(count == 1, "message n{number} of level 1 is settled, and {count} times in {:?}", message.conv);
        }
    }

    /// A message of level 1 is nowhere twice: one that was recorded is not imported once more,
    /// wherever it came back from.
    fn check_old_messages_are_once(&self) {
        if self.database_failed {
            return;
        }
        let tables = self.tables.lock();
        let mut seen = BTreeSet::new();
        for (conv, _) in tables.history.extents() {
            for (seq, _, _, text) in tables.history.stored(conv).filter(|(_, _, cid, _)| of_device(cid).is_none()) {
                let Some(number) = number_of(text) else { continue };
                assert!(
                    seen.insert(number),
                    "E: message n{number} of level 1 is twice, the second is {seq} of {conv:?}"
                );
            }
        }
    }

    /// A message from a device to the user who has level 1 alone is with that user, or waits.
    fn check_received_by_old(&self) {
        if self.kind > Kind::Connections {
            return;
        }
        let (tables, old) = (self.tables.lock(), &self.olds[1]);
        let kept: Vec<&str> = tables.kept(old.user).collect();
        for (conv, _) in self.convs_of_locked(old.user, &tables) {
            for (seq, sender, cid, text) in tables.history.stored(conv).filter(|(_, sender, ..)| *sender != old.user) {
                let Some((device, nth)) = of_device(cid) else { continue };
                if tables.history.entry(conv, seq).is_none_or(|entry| entry.recalled.is_some())
                    || text.contains(r#""edit":"#)
                    || text.contains(r#""recall":"#)
                {
                    continue;
                }
                let name = format!("d{device}-{nth}");
                let waits = kept.iter().filter(|text| text.contains(&format!(r#""{name}""#))).count();
                let count = old.got.get(&name).copied().unwrap_or_default() + waits;
                let is_right = if self.kind == Kind::Calm { count == 1 } else { count > 0 };
                assert!(is_right, "message {name} of user {sender} is {count} times with the user of level 1");
            }
        }
    }
}

/// The numbers of a group that a user may see: the periods of membership. The event that begins or
/// ends one belongs to it.
fn periods(tables: &crate::server::simulation::store::Tables, group: GroupId, user: UserId) -> Vec<(i64, i64)> {
    let is_first = if group.0 == 1 { user.0 < 4 } else { user.0 != 3 };
    let (mut periods, mut begun) = (Vec::new(), is_first.then_some(1));
    for (seq, _, _, text) in tables.history.stored(ConversationId::of_group(group)) {
        let Some(event) = text.strip_prefix(&format!(r#"{{"USERID":{user},"#)) else { continue };
        if event.contains(r#""event":"joined""#) {
            begun = Some(seq);
        } else if event.contains(r#""event":"left""#) {
            periods.extend(begun.take().map(|from| (from, seq)));
        }
    }
    periods.extend(begun.map(|from| (from, i64::MAX)));
    periods
}

/// The device and the number of a message, from its id.
fn of_device(cid: &Cid) -> Option<(usize, u32)> {
    let text = str::from_utf8(cid.bytes()).ok()?.strip_prefix('d')?;
    let (device, nth) = text.split_once('-')?;
    Some((device.parse().ok()?, nth.parse().ok()?))
}
