//! [`MemoryHistory`]: conversations in memory, for the simulation. Maps take the place of SQL; the
//! decisions are made by the same code (`history/plan.rs`, `history/head.rs`,
//! `community/groups.rs`).

mod devices;
mod groups;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::devices::MemoryDevices;
use super::StoreError;
use super::history::head::{HeadRow, RecalledBlock};
use super::history::page;
use super::history::plan::{
    self, BatchFacts, ConvRow, EntryTarget, IMPORTED, Known, Plan, PlanQuestions, RoomQuestions, partner_of,
};
use super::history::{
    Cid, CommitOutcome, CommitRules, Denied, DeviceId, FrameHash, Head, HistoryEntry, Marked, MemberChange, NewEntry,
    PageAsk, PageOutcome, RaisedMark, SharedKey, Touched, tag_of,
};
use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::{GroupId, UserId};

/// The users and groups of a database.
#[derive(Clone, Default)]
pub(crate) struct People {
    /// Names and stored passwords.
    pub(crate) users: BTreeMap<UserId, (String, String)>,
    pub(crate) groups: BTreeMap<GroupId, MemoryGroup>,
}

#[derive(Clone, Default)]
pub(crate) struct MemoryGroup {
    pub(crate) name: String,
    pub(crate) members: BTreeSet<UserId>,
    pub(crate) creator: Option<UserId>,
    pub(crate) banned: BTreeSet<UserId>,
}

/// The tables of conversations. A clone is a copy of their content.
#[derive(Clone, Default)]
pub(crate) struct MemoryHistory {
    convs: BTreeMap<ConversationId, ConvRow>,
    rows: BTreeMap<(ConversationId, i64), MemoryRow>,
    ids: BTreeMap<(UserId, Cid), (ConversationId, i64)>,
    members: BTreeMap<(ConversationId, UserId), MemoryMember>,
    blocks: BTreeMap<(ConversationId, i64), RecalledBlock>,
    pub(crate) devices: MemoryDevices,
    level2: BTreeSet<UserId>,
    level1_seen: BTreeMap<UserId, i64>,
    keys: BTreeMap<i64, [u8; 32]>,
    flaw: Option<Flaw>,
    /// With [`Flaw::NumbersBeforeLock`]: the numbers assigned so far, and the uncommitted messages.
    drawn: BTreeMap<ConversationId, i64>,
    in_flight: Vec<(Vec<NewEntry>, Arc<Plan>)>,
}

/// Deliberate mistakes, which the checks of the simulation must find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flaw {
    /// Numbers are assigned before the transaction has the lock, so a later one may commit earlier.
    NumbersBeforeLock,
    /// A retry is stored again.
    IdsNotChecked,
    /// A read mark is set to the requested number even if that is lower.
    MarksFall,
}

#[derive(Clone)]
struct MemoryRow {
    nth: i64,
    sender: UserId,
    time: i64,
    kind: i64,
    target: i64,
    edited: i64,
    recalled: i64,
    cid: Cid,
    hash: FrameHash,
    text: Arc<str>,
}

/// A row of `Member`.
#[derive(Clone, Copy, Default)]
struct MemoryMember {
    joined: i64,
    joined_nth: i64,
    read: i64,
    read_nth: i64,
    own: i64,
    recv: i64,
    marked: i64,
}

impl MemoryHistory {
    pub(crate) fn with_flaw(flaw: Option<Flaw>) -> MemoryHistory {
        MemoryHistory { flaw, ..MemoryHistory::default() }
    }

    /// Stores the messages that are not refused.
    pub(crate) fn commit(
        &mut self,
        people: &mut People,
        batch: &[NewEntry],
        rules: CommitRules,
        now: i64,
    ) -> Vec<CommitOutcome> {
        let mut facts = self.facts(people, batch, now);
        if self.flaw == Some(Flaw::NumbersBeforeLock) {
            for entry in batch {
                let drawn = self.drawn.get(&entry.conv).copied().unwrap_or_default();
                let row = facts.convs.entry(entry.conv).or_default();
                row.head = row.head.max(drawn);
            }
            let plan = plan::plan(batch, facts, rules);
            self.drawn.extend(plan.convs.iter().map(|(conv, row)| (*conv, row.head)));
            let outcomes = plan.outcomes.clone();
            self.in_flight.push((batch.to_vec(), Arc::new(plan)));
            return outcomes;
        }
        let plan = plan::plan(batch, facts, rules);
        self.write(people, batch, &plan);
        plan.outcomes
    }

    /// The number of transactions that have numbers and are not committed.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Commits one of these transactions.
    pub(crate) fn land(&mut self, people: &mut People, nth: usize) {
        let (batch, plan) = self.in_flight.swap_remove(nth);
        let before: Vec<_> = plan.convs.keys().map(|conv| (*conv, self.conv(*conv).head)).collect();
        self.write(people, &batch, &plan);
        for (conv, head) in before {
            let row = self.convs.entry(conv).or_default();
            row.head = row.head.max(head);
        }
    }

    fn facts(&self, people: &People, batch: &[NewEntry], now: i64) -> BatchFacts {
        let wanted = PlanQuestions::of(batch);
        let mut facts = BatchFacts { now, ..BatchFacts::default() };
        facts.convs.extend(wanted.convs.iter().filter_map(|conv| Some((*conv, *self.convs.get(conv)?))));
        for entry in batch.iter().filter(|_| self.flaw != Some(Flaw::IdsNotChecked)) {
            let key = (entry.sender, entry.cid.clone());
            if let Some(&(conv, seq)) = self.ids.get(&key) {
                let row = &self.rows[&(conv, seq)];
                facts.known.insert(key, Known { conv, seq, time: row.time, hash: row.hash });
            }
        }
        let room = RoomQuestions::of(batch, &facts);
        let is_of = |conv: &ConversationId, member: UserId, user| member == user && conv.users().is_some();
        let count = |user| self.members.keys().filter(|(conv, member)| is_of(conv, *member, user)).count();
        facts.opened.extend(room.users.iter().map(|user| (*user, count(*user))));
        facts.users.extend(wanted.users.iter().filter(|user| people.users.contains_key(user)));
        for (id, user) in &wanted.members {
            match people.groups.get(id) {
                Some(group) if group.members.contains(user) => drop(facts.members.insert((*id, *user))),
                Some(_) => drop(facts.groups.insert(*id)),
                None => {}
            }
        }
        let target = |place: &(ConversationId, i64)| {
            let MemoryRow { sender, time, kind, recalled, .. } = *self.rows.get(place)?;
            Some((*place, EntryTarget { sender, time, kind, recalled }))
        };
        facts.targets.extend(wanted.targets.iter().filter_map(target));
        let joined = |place: &(ConversationId, UserId)| Some((*place, self.members.get(place)?.joined));
        facts.joined.extend(wanted.changers.iter().filter_map(joined));
        let block = |place: &(ConversationId, i64)| Some((*place, self.blocks.get(place)?.clone()));
        facts.blocks.extend(wanted.blocks.iter().filter_map(block));
        facts
    }

    fn write(&mut self, people: &mut People, batch: &[NewEntry], plan: &Plan) {
        for row in &plan.rows {
            let NewEntry { conv, sender, cid, hash, text, .. } = batch[row.entry].clone();
            let plan::NewRow { seq, nth, time, kind, target, .. } = *row;
            self.ids.insert((sender, cid.clone()), (conv, seq));
            let row = MemoryRow { nth, sender, time, kind, target, edited: 0, recalled: 0, cid, hash, text };
            self.rows.insert((conv, seq), row);
        }
        for conv in &plan.fresh {
            let users: Vec<UserId> = match (conv.group(), conv.users()) {
                (Some(group), _) => people.groups.get(&group).map(|group| group.members.iter().copied().collect()),
                (None, users) => users.map(|(low, high)| vec![low, high]),
            }
            .unwrap_or_default();
            for user in users {
                self.members.entry((*conv, user)).or_default();
            }
        }
        self.convs.extend(plan.convs.iter().map(|(conv, row)| (*conv, *row)));
        for (&(conv, user), mark) in &plan.marks {
            if conv.group().is_none() && partner_of(conv, user).is_none() {
                continue;
            }
            let new = MemoryMember { joined: mark.joined, joined_nth: mark.joined_nth, ..MemoryMember::default() };
            let member = self.members.entry((conv, user)).or_insert(new);
            member.own = if mark.read > 0 { mark.own } else { member.own + mark.own };
            member.read_nth = member.read_nth.max(mark.read_nth);
            member.read = member.read.max(mark.read);
        }
        for (conv, target, seq) in &plan.edits {
            self.rows.entry((*conv, *target)).and_modify(|row| row.edited = *seq);
        }
        for (conv, target, seq) in &plan.recalls {
            let is_of = |row: &MemoryRow| row.target == *target && row.kind == 1;
            for ((_, at), row) in self.rows.range_mut((*conv, 0)..(*conv, i64::MAX)) {
                if at == target || is_of(row) {
                    (row.text, row.recalled) = ("".into(), *seq);
                }
            }
        }
        self.blocks.extend(plan.blocks.iter().map(|(place, block)| (*place, block.clone())));
        for change in &plan.changes {
            self.change(people, change);
        }
    }

    fn change(&mut self, people: &mut People, change: &plan::PlannedMemberChange) {
        let plan::PlannedMemberChange { conv, change, joined, joined_nth, read, read_nth } = *change;
        let Some(group) = conv.group().and_then(|group| people.groups.get_mut(&group)) else { return };
        match change {
            MemberChange::Joins { user, .. } => {
                group.members.insert(user);
                let member = self.members.entry((conv, user)).or_default();
                if read > member.read {
                    member.own = 0;
                }
                (member.joined, member.joined_nth) = (joined, joined_nth);
                (member.read, member.read_nth) = (member.read.max(read), member.read_nth.max(read_nth));
            }
            MemberChange::Leaves(user) => {
                group.members.remove(&user);
                self.members.remove(&(conv, user));
            }
        }
    }

    fn conv(&self, conv: ConversationId) -> ConvRow {
        self.convs.get(&conv).copied().unwrap_or_default()
    }

    /// All conversations of a user, the most recently active first.
    pub(crate) fn heads(&mut self, people: &People, user: UserId) -> Vec<Head> {
        let groups = people.groups.iter().filter(|(_, group)| group.members.contains(&user));
        let groups: Vec<ConversationId> = groups.map(|(id, _)| ConversationId::of_group(*id)).collect();
        for conv in groups.iter().copied().filter(|conv| self.convs.contains_key(conv)) {
            // A node without history has admitted the user.
            let ConvRow { head, count, .. } = self.conv(conv);
            let joins = MemoryMember { joined: head + 1, joined_nth: count, ..MemoryMember::default() };
            self.members.entry((conv, user)).or_insert(joins);
        }
        let of_two = self.members.keys().filter(|(conv, other)| *other == user && conv.group().is_none());
        let convs: Vec<ConversationId> =
            of_two.map(|(conv, _)| *conv).filter(|conv| self.conv(*conv).head > 0).collect();
        let mut heads: Vec<Head> =
            convs.into_iter().chain(groups).filter_map(|conv| self.head(people, user, conv).ok()).collect();
        heads.sort_by_key(|head| (std::cmp::Reverse(head.touched), head.conv));
        heads
    }

    /// One of these conversations.
    pub(crate) fn head(&self, people: &People, user: UserId, conv: ConversationId) -> Result<Head, Denied> {
        let row = self.conv(conv);
        let (name, peer) = match conv.group() {
            Some(id) => {
                let group = people.groups.get(&id).ok_or(Denied::Unknown)?;
                if !group.members.contains(&user) {
                    return Err(Denied::NotYours);
                }
                (Some(group.name.clone()), None)
            }
            None => {
                let partner = partner_of(conv, user).ok_or(Denied::NotYours)?;
                let name = people.users.get(&partner).map(|(name, _)| name.clone());
                if name.is_none() && row.head == 0 {
                    return Err(Denied::Unknown);
                }
                let marks = self.members.get(&(conv, partner)).copied().unwrap_or_default();
                (name, Some((marks.read, marks.recv)))
            }
        };
        let joins = MemoryMember { joined: row.head + 1, joined_nth: row.count, ..MemoryMember::default() };
        let absent = if row.head > 0 { joins } else { MemoryMember::default() };
        let member = self.members.get(&(conv, user)).copied().unwrap_or(absent);
        let head = HeadRow {
            conv: conv.column(),
            name,
            head: row.head,
            head_tag: row.head_tag,
            count: row.count,
            recalled: row.recalled,
            floor: row.floor,
            floor_nth: 0,
            touched: row.touched,
            joined: member.joined,
            joined_nth: member.joined_nth,
            read: member.read,
            read_nth: member.read_nth,
            own: member.own,
            recv: member.recv,
            peer,
        };
        let recalled: Vec<RecalledBlock> =
            self.blocks.range((conv, 0)..(conv, i64::MAX)).map(|(_, block)| block.clone()).collect();
        Ok(head.into_head(&recalled))
    }

    pub(crate) fn tag(&self, conv: ConversationId, seq: i64) -> Option<Tag> {
        let row = self.rows.get(&(conv, seq))?;
        Some(tag_of(conv, seq, row.sender, &row.cid, row.time))
    }

    /// The messages with these numbers, with edits and recalls applied.
    pub(crate) fn run(
        &self,
        conv: ConversationId,
        from: i64,
        to: i64,
        from_end: bool,
        bytes_max: usize,
    ) -> Vec<HistoryEntry> {
        if from > to {
            return Vec::new();
        }
        let all: Vec<i64> = self.rows.range((conv, from)..=(conv, to)).map(|((_, seq), _)| *seq).collect();
        let ordered: Box<dyn Iterator<Item = &i64>> =
            if from_end { Box::new(all.iter().rev()) } else { Box::new(all.iter()) };
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for seq in ordered {
            let Some(entry) = self.entry(conv, *seq) else { continue };
            bytes += entry.text.as_ref().map_or(0, String::len);
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        if from_end {
            entries.reverse();
        }
        entries
    }

    /// A page for `user`.
    pub(crate) fn page(
        &self,
        people: &People,
        user: UserId,
        conv: ConversationId,
        ask: PageAsk,
        (limit, bytes_max): (i64, usize),
    ) -> Result<PageOutcome, StoreError> {
        match self.head(people, user, conv) {
            Ok(head) => page::read(&head, ask, limit, bytes_max, |from, to, from_end, bytes| {
                Ok(self.run(conv, from, to, from_end, bytes))
            }),
            Err(denied) => Ok(PageOutcome::Denied(denied)),
        }
    }

    pub(crate) fn entry(&self, conv: ConversationId, seq: i64) -> Option<HistoryEntry> {
        let row = self.rows.get(&(conv, seq))?;
        let MemoryRow { sender, time, kind, edited, recalled, .. } = *row;
        let newest = if edited > 0 { self.rows.get(&(conv, edited)).unwrap_or(row) } else { row };
        Some(HistoryEntry {
            seq,
            from: sender,
            time,
            tag: tag_of(conv, seq, sender, &row.cid, time),
            text: (recalled == 0).then(|| newest.text.to_string()),
            edited: (edited > 0 && recalled == 0).then_some(edited),
            recalled: (recalled > 0).then_some(recalled),
            is_imported: kind >= IMPORTED,
        })
    }

    /// The conversations, and their last numbers.
    pub(crate) fn extents(&self) -> impl Iterator<Item = (ConversationId, i64)> {
        self.convs.iter().map(|(conv, row)| (*conv, row.head))
    }

    /// The last number of one conversation.
    pub(crate) fn extent(&self, conv: ConversationId) -> i64 {
        self.conv(conv).head
    }

    /// All messages of a conversation as they are stored: number, sender, id and text.
    pub(crate) fn stored(&self, conv: ConversationId) -> impl Iterator<Item = (i64, UserId, &Cid, &str)> {
        let rows = self.rows.range((conv, 0)..(conv, i64::MAX));
        rows.map(|((_, seq), row)| (*seq, row.sender, &row.cid, &*row.text))
    }

    pub(crate) fn place_of(&self, sender: UserId, cid: &Cid) -> Option<(ConversationId, i64, FrameHash)> {
        let (conv, seq) = *self.ids.get(&(sender, cid.clone()))?;
        Some((conv, seq, self.rows.get(&(conv, seq))?.hash))
    }

    /// Raises a read mark.
    pub(crate) fn mark_read(
        &mut self,
        people: &People,
        user: UserId,
        conv: ConversationId,
        read: i64,
        now: i64,
    ) -> Result<Marked, Denied> {
        let before = self.head(people, user, conv)?;
        let read = read.min(before.head);
        let has_risen = read > before.read;
        if has_risen || self.flaw == Some(Flaw::MarksFall) {
            let nth = self.rows.get(&(conv, read)).map_or(0, |row| row.nth);
            let member = self.members.entry((conv, user)).or_default();
            (member.read, member.read_nth, member.own, member.marked) = (read, nth, 0, now);
        }
        let head = self.head(people, user, conv)?;
        Ok(Marked { read: head.read, recv: head.recv, has_risen, head: head.head, unread: head.unread })
    }

    /// Raises the numbers that a device has stored. Returns the marks that rose.
    pub(crate) fn report(
        &mut self,
        user: UserId,
        device: DeviceId,
        stored: &[(ConversationId, i64)],
        now: i64,
    ) -> Vec<RaisedMark> {
        let mut raised = Vec::new();
        for &(conv, seq) in stored {
            let head = self.conv(conv).head;
            let Some(member) = self.members.get_mut(&(conv, user)) else { continue };
            let seq = seq.min(head);
            if seq <= 0 {
                continue;
            }
            self.devices.report(user, device, conv, seq);
            if seq > member.recv {
                (member.recv, member.marked) = (seq, now);
                raised.push(RaisedMark { conv, user, read: member.read.min(head), recv: seq });
            }
        }
        raised
    }

    pub(crate) fn raised(&self, since: i64) -> Vec<RaisedMark> {
        let rows = self.members.iter().filter(|(_, member)| member.marked > since);
        rows.map(|(&(conv, user), member)| RaisedMark { conv, user, read: member.read, recv: member.recv }).collect()
    }

    pub(crate) fn touched(&self, since: i64) -> Vec<Touched> {
        let rows = self.convs.iter().filter(|(_, row)| row.touched > since);
        rows.map(|(conv, row)| Touched { conv: *conv, head: row.head, tag: Tag(row.head_tag as u32), at: row.touched })
            .collect()
    }

    pub(crate) fn use_level2(&mut self, user: UserId, now: i64) -> bool {
        let is_new = self.level2.insert(user);
        if is_new {
            self.level1_seen.insert(user, now);
        }
        is_new
    }

    pub(crate) fn level2_users_after(&self, user: UserId) -> Vec<UserId> {
        self.level2.iter().copied().filter(|other| *other > user).collect()
    }

    pub(crate) fn seen_at_level1(&mut self, user: UserId, now: i64) {
        self.level1_seen.insert(user, now);
    }

    pub(crate) fn uses_level1(&self, user: UserId, since: i64) -> bool {
        self.level1_seen.get(&user).is_some_and(|seen| *seen > since)
    }

    pub(crate) fn shared_key(&mut self, key: SharedKey, new: [u8; 32]) -> [u8; 32] {
        *self.keys.entry(key.row()).or_insert(new)
    }

    pub(crate) fn stored_key(&self, key: SharedKey) -> Option<[u8; 32]> {
        self.keys.get(&key.row()).copied()
    }
}

/// The answer of methods that this store does not implement.
pub(crate) fn not_here<T>() -> Result<T, StoreError> {
    Err(StoreError::Failed("this store does not do that".into()))
}
