//! [`Plan`]: the changes of a batch of messages, decided without a database. A store reads the
//! [`BatchFacts`] under its locks, and writes the plan before it releases them.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};

use super::entries::{
    CommitOutcome, CommitRules, EntryKind, EntryPlace, EntryRefusal, MemberChange, NewEntry, SenderCheck,
};
use super::head::{BLOCK, RecalledBlock};
use super::names::{Cid, FrameHash, tag_of};
use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::{GroupId, UserId};

/// The facts that a batch needs.
#[derive(Default, Debug)]
pub(in crate::store) struct BatchFacts {
    /// The database's clock, ms.
    pub(in crate::store) now: i64,
    /// The conversations that exist, locked.
    pub(in crate::store) convs: FxHashMap<ConversationId, ConvRow>,
    /// The stored messages that have an id of the batch.
    pub(in crate::store) known: FxHashMap<(UserId, Cid), Known>,
    /// The recipients of unchecked entries that exist.
    pub(in crate::store) users: FxHashSet<UserId>,
    /// Pairs of a user and another whom that user has blocked.
    pub(in crate::store) blocked: FxHashSet<(UserId, UserId)>,
    /// The conversations of two of users who open another one, see [`RoomQuestions`].
    pub(in crate::store) opened: FxHashMap<UserId, usize>,
    /// Pairs of a user and another who is the user's friend, likewise.
    pub(in crate::store) friends: FxHashSet<(UserId, UserId)>,
    /// Members of groups.
    pub(in crate::store) members: FxHashSet<(GroupId, UserId)>,
    /// The groups of unchecked entries that exist.
    pub(in crate::store) groups: FxHashSet<GroupId>,
    /// The targets of edits and recalls.
    pub(in crate::store) targets: FxHashMap<(ConversationId, i64), EntryTarget>,
    /// `Member.joined` of the users who edit or recall.
    pub(in crate::store) joined: FxHashMap<(ConversationId, UserId), i64>,
    /// The rows of `Recalled` with targets of recalls.
    pub(in crate::store) blocks: FxHashMap<(ConversationId, i64), RecalledBlock>,
}

/// A row of `Conversation`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(in crate::store) struct ConvRow {
    pub(in crate::store) head: i64,
    pub(in crate::store) head_tag: i64,
    pub(in crate::store) count: i64,
    pub(in crate::store) recalled: i64,
    pub(in crate::store) floor: i64,
    pub(in crate::store) touched: i64,
}

impl BatchFacts {
    /// Whether a conversation has no message.
    fn is_fresh(&self, conv: ConversationId) -> bool {
        self.convs.get(&conv).is_none_or(|row| row.head == 0)
    }
}

impl ConvRow {
    /// The tag of the last message.
    fn last_tag(&self) -> Option<Tag> {
        (self.head > 0).then_some(Tag(self.head_tag as u32))
    }
}

/// A message that is stored under one of the ids.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Known {
    pub(in crate::store) conv: ConversationId,
    pub(in crate::store) seq: i64,
    pub(in crate::store) time: i64,
    pub(in crate::store) hash: FrameHash,
}

/// A message that is to be edited or recalled.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct EntryTarget {
    pub(in crate::store) sender: UserId,
    pub(in crate::store) time: i64,
    pub(in crate::store) kind: i64,
    pub(in crate::store) recalled: i64,
}

/// The rows to write, in the order of their numbers.
#[derive(Default, Debug)]
pub(in crate::store) struct Plan {
    pub(in crate::store) outcomes: Vec<CommitOutcome>,
    pub(in crate::store) rows: Vec<NewRow>,
    /// The conversations after the batch.
    pub(in crate::store) convs: BTreeMap<ConversationId, ConvRow>,
    /// The conversations without a message before: their members get rows.
    pub(in crate::store) fresh: Vec<ConversationId>,
    pub(in crate::store) marks: BTreeMap<(ConversationId, UserId), SenderMark>,
    /// Conversation, target and number.
    pub(in crate::store) edits: Vec<(ConversationId, i64, i64)>,
    /// The same for recalls. They come after the edits.
    pub(in crate::store) recalls: Vec<(ConversationId, i64, i64)>,
    pub(in crate::store) blocks: BTreeMap<(ConversationId, i64), RecalledBlock>,
    pub(in crate::store) changes: Vec<PlannedMemberChange>,
    /// The open friend requests.
    pub(in crate::store) asked: Vec<(UserId, UserId)>,
}

/// A row of `Message`, without the data of its entry.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct NewRow {
    /// The index of the entry.
    pub(in crate::store) entry: usize,
    pub(in crate::store) seq: i64,
    pub(in crate::store) nth: i64,
    pub(in crate::store) time: i64,
    pub(in crate::store) kind: i64,
    pub(in crate::store) target: i64,
}

/// The change of the sender's own row by a send.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(in crate::store) struct SenderMark {
    /// The read mark; 0 if it does not rise.
    pub(in crate::store) read: i64,
    pub(in crate::store) read_nth: i64,
    /// The number of own messages above the mark.
    pub(in crate::store) own: i64,
    /// The first visible number, for a member of a group without a row, whom a node without history
    /// has admitted.
    pub(in crate::store) joined: i64,
    pub(in crate::store) joined_nth: i64,
}

/// A change of a group's members.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct PlannedMemberChange {
    pub(in crate::store) conv: ConversationId,
    pub(in crate::store) change: MemberChange,
    /// The first visible number of a new member.
    pub(in crate::store) joined: i64,
    pub(in crate::store) joined_nth: i64,
    /// The read mark of a new member: earlier messages count as read.
    pub(in crate::store) read: i64,
    pub(in crate::store) read_nth: i64,
}

/// Conversations of groups have ids up to this one, those of two users higher ones.
pub(in crate::store) const LAST_GROUP: i64 = (1 << 32) - 1;

/// The kinds in the column. For an imported message, 4 is added.
pub(in crate::store) const MESSAGE: i64 = 0;
const EDIT: i64 = 1;
const RECALL: i64 = 2;
const OTHER: i64 = 3;
pub(in crate::store) const IMPORTED: i64 = 4;

/// Whether a row of this kind counts as unread, and may be edited and recalled.
pub(in crate::store) fn counts(kind: i64) -> bool {
    kind % IMPORTED == MESSAGE
}

impl EntryKind {
    /// The number of the target.
    pub(in crate::store) fn target(self) -> Option<i64> {
        match self {
            EntryKind::Edit(target) | EntryKind::Recall(target) => Some(target),
            EntryKind::Message | EntryKind::Other => None,
        }
    }
}

/// The plan for a batch.
pub(in crate::store) fn plan(batch: &[NewEntry], mut facts: BatchFacts, rules: CommitRules) -> Plan {
    let mut plan = Plan::default();
    for (index, entry) in batch.iter().enumerate() {
        let outcome = match settled(entry, &facts) {
            Some(outcome) => outcome,
            None => match refusal(entry, &facts, rules) {
                Some(refusal) => CommitOutcome::Refused(refusal),
                None => {
                    let before = facts.convs.get(&entry.conv).and_then(ConvRow::last_tag);
                    CommitOutcome::New(plan.add(index, entry, &mut facts), before)
                }
            },
        };
        plan.outcomes.push(outcome);
    }
    plan
}

/// The outcome of an entry whose id is known.
fn settled(entry: &NewEntry, facts: &BatchFacts) -> Option<CommitOutcome> {
    let known = facts.known.get(&(entry.sender, entry.cid.clone()))?;
    if known.conv != entry.conv || known.hash != entry.hash {
        return Some(CommitOutcome::Refused(EntryRefusal::Conflict));
    }
    let tag = tag_of(known.conv, known.seq, entry.sender, &entry.cid, known.time);
    Some(CommitOutcome::Again(EntryPlace { seq: known.seq, tag, time: known.time }))
}

fn refusal(entry: &NewEntry, facts: &BatchFacts, rules: CommitRules) -> Option<EntryRefusal> {
    let CommitRules { edit_window, conversations_max } = rules;
    let refused = match entry.check {
        SenderCheck::None => None,
        SenderCheck::Rights => missing_right(entry, facts),
        SenderCheck::Whole => missing_right(entry, facts).or_else(|| {
            let has_room = has_room(entry.conv, entry.sender, facts, conversations_max);
            (!has_room).then_some(EntryRefusal::NoRoom)
        }),
    };
    refused.or_else(|| entry.kind.target().and_then(|target| unfit_target(entry, target, facts, edit_window)))
}

/// Whether `sender` may write in this conversation of two: it has messages, or both users have room
/// for another one.
pub(in crate::store) fn has_room(conv: ConversationId, sender: UserId, facts: &BatchFacts, max: usize) -> bool {
    let Some(recipient) = partner_of(conv, sender).filter(|_| facts.is_fresh(conv)) else { return true };
    let has = |user, max| facts.opened.get(&user).is_none_or(|count| *count < max);
    let is_known = recipient == sender || facts.friends.contains(&(recipient, sender));
    has(sender, max) && has(recipient, if is_known { max } else { max.div_ceil(2) })
}

fn missing_right(entry: &NewEntry, facts: &BatchFacts) -> Option<EntryRefusal> {
    let Some(group) = entry.conv.group() else {
        let recipient = partner_of(entry.conv, entry.sender);
        return match recipient.filter(|recipient| facts.users.contains(recipient)) {
            None => Some(EntryRefusal::NoSuchUser),
            Some(recipient) => facts.blocked.contains(&(recipient, entry.sender)).then_some(EntryRefusal::Blocked),
        };
    };
    match (facts.members.contains(&(group, entry.sender)), facts.groups.contains(&group)) {
        (true, _) => None,
        (false, true) => Some(EntryRefusal::NotMember),
        (false, false) => Some(EntryRefusal::NoSuchGroup),
    }
}

fn unfit_target(entry: &NewEntry, target: i64, facts: &BatchFacts, edit_window: i64) -> Option<EntryRefusal> {
    let conv = facts.convs.get(&entry.conv).copied().unwrap_or_default();
    let joined = facts.joined.get(&(entry.conv, entry.sender)).copied().unwrap_or_default();
    let floor = conv.floor.max(joined - 1).max(0);
    let found = facts.targets.get(&(entry.conv, target)).filter(|_| (floor + 1..=conv.head).contains(&target));
    let Some(found) = found else { return Some(EntryRefusal::NoSuchTarget) };
    if found.sender != entry.sender || !counts(found.kind) || found.recalled > 0 {
        return Some(EntryRefusal::NotYours);
    }
    (facts.now - found.time >= edit_window).then_some(EntryRefusal::TooLate)
}

/// The other user of a conversation of two; in the notes to oneself, the user. `None` in a group,
/// and if the user is neither of the two.
pub(in crate::store) fn partner_of(conv: ConversationId, user: UserId) -> Option<UserId> {
    match conv.users()? {
        (low, high) if low == user => Some(high),
        (low, high) if high == user => Some(low),
        _ => None,
    }
}

impl PlannedMemberChange {
    /// The change by an entry with this number and this count of messages; `nth_before` messages
    /// precede it.
    fn new(change: MemberChange, conv: ConversationId, (seq, nth): (i64, i64), nth_before: i64) -> PlannedMemberChange {
        let sees_all = matches!(change, MemberChange::Joins { sees_all: true, .. });
        let (joined, joined_nth) = if sees_all { (0, 0) } else { (seq, nth_before) };
        PlannedMemberChange { conv, change, joined, joined_nth, read: seq, read_nth: nth }
    }
}

impl Plan {
    /// Gives an entry its place.
    fn add(&mut self, index: usize, entry: &NewEntry, facts: &mut BatchFacts) -> EntryPlace {
        let (conv_id, sender) = (entry.conv, entry.sender);
        let conv = facts.convs.entry(conv_id).or_default();
        if conv.head == 0 {
            self.fresh.push(conv_id);
            let (low, high) = conv_id.users().unzip();
            for user in low.into_iter().chain(high.filter(|_| low != high)) {
                facts.opened.entry(user).and_modify(|count| *count += 1);
            }
        }
        let (nth_before, mut kind) = (conv.count, kind_of(entry.kind));
        if entry.is_imported {
            kind += IMPORTED;
        }
        conv.head += 1;
        conv.count += i64::from(counts(kind));
        // The clock of the database may have been set back.
        conv.touched = conv.touched.max(facts.now);
        let place = EntryPlace {
            seq: conv.head,
            tag: tag_of(conv_id, conv.head, sender, &entry.cid, conv.touched),
            time: conv.touched,
        };
        conv.head_tag = place.tag.0.into();
        let (seq, nth, time) = (place.seq, conv.count, place.time);
        if let EntryKind::Recall(target) = entry.kind {
            let block = facts.blocks.entry((conv_id, target / BLOCK));
            let block = block.or_insert_with(|| RecalledBlock::new(conv_id.column(), target / BLOCK));
            conv.recalled += i64::from(block.add(target));
            self.blocks.insert((conv_id, target / BLOCK), block.clone());
            self.recalls.push((conv_id, target, seq));
            if let Some(found) = facts.targets.get_mut(&(conv_id, target)) {
                found.recalled = seq;
            }
        } else if let EntryKind::Edit(target) = entry.kind {
            self.edits.push((conv_id, target, seq));
        }
        self.convs.insert(conv_id, *conv);
        let target = entry.kind.target().unwrap_or_default();
        self.rows.push(NewRow { entry: index, seq, nth, time, kind, target });
        let (joined, joined_nth) = if conv_id.group().is_some() { (seq, nth_before) } else { (0, 0) };
        let unmarked = SenderMark { joined, joined_nth, ..SenderMark::default() };
        let mark = self.marks.entry((conv_id, sender)).or_insert(unmarked);
        if entry.is_imported {
            mark.own += i64::from(counts(kind));
        } else if !is_event(entry) {
            *mark = SenderMark { read: seq, read_nth: nth, own: 0, ..*mark };
        }
        let changes = entry.change.map(|change| PlannedMemberChange::new(change, conv_id, (seq, nth), nth_before));
        self.changes.extend(changes);
        if entry.kind == EntryKind::Other {
            self.asked.extend(partner_of(conv_id, sender).map(|other| (sender, other)));
        }
        // Later entries of the batch may repeat or change this entry.
        facts.targets.insert((conv_id, seq), EntryTarget { sender, time, kind, recalled: 0 });
        let known = Known { conv: conv_id, seq, time, hash: entry.hash };
        facts.known.insert((sender, entry.cid.clone()), known);
        place
    }
}

/// An event of a group is not a send: the user who causes it may have read nothing.
fn is_event(entry: &NewEntry) -> bool {
    entry.kind == EntryKind::Other && entry.conv.group().is_some()
}

fn kind_of(kind: EntryKind) -> i64 {
    match kind {
        EntryKind::Message => MESSAGE,
        EntryKind::Edit(_) => EDIT,
        EntryKind::Recall(_) => RECALL,
        EntryKind::Other => OTHER,
    }
}

/// The queries of a batch to the database.
#[derive(Default, Debug)]
pub(in crate::store) struct PlanQuestions {
    /// The conversations, ascending, each once: they are locked in this order.
    pub(in crate::store) convs: Vec<ConversationId>,
    pub(in crate::store) users: Vec<UserId>,
    /// Pairs of recipient and sender.
    pub(in crate::store) pairs: Vec<(UserId, UserId)>,
    /// Pairs of group and sender.
    pub(in crate::store) members: Vec<(GroupId, UserId)>,
    pub(in crate::store) targets: Vec<(ConversationId, i64)>,
    /// The senders of edits and recalls, and their conversations.
    pub(in crate::store) changers: Vec<(ConversationId, UserId)>,
    pub(in crate::store) blocks: Vec<(ConversationId, i64)>,
}

impl PlanQuestions {
    pub(in crate::store) fn of(batch: &[NewEntry]) -> PlanQuestions {
        let mut wanted = PlanQuestions::default();
        for entry in batch {
            wanted.convs.push(entry.conv);
            match (entry.check != SenderCheck::None, entry.conv.group()) {
                (true, Some(group)) => wanted.members.push((group, entry.sender)),
                (true, None) => {
                    if let Some(recipient) = partner_of(entry.conv, entry.sender) {
                        wanted.users.push(recipient);
                        wanted.pairs.push((recipient, entry.sender));
                    }
                }
                (false, _) => {}
            }
            if let Some(target) = entry.kind.target() {
                wanted.targets.push((entry.conv, target));
                wanted.changers.push((entry.conv, entry.sender));
            }
            if let EntryKind::Recall(target) = entry.kind {
                wanted.blocks.push((entry.conv, target / BLOCK));
            }
        }
        sort(&mut wanted.convs);
        sort(&mut wanted.users);
        sort(&mut wanted.pairs);
        sort(&mut wanted.members);
        sort(&mut wanted.targets);
        sort(&mut wanted.changers);
        sort(&mut wanted.blocks);
        wanted
    }
}

/// The queries for the room of users who open conversations of two. Most batches open none.
#[derive(Default, Debug)]
pub(in crate::store) struct RoomQuestions {
    /// The users whose conversations of two are counted, up to the limit.
    pub(in crate::store) users: Vec<UserId>,
    /// Pairs of recipient and sender: is the sender a friend of the recipient?
    pub(in crate::store) friends: Vec<(UserId, UserId)>,
}

impl RoomQuestions {
    /// The queries of a batch whose conversations are known.
    pub(in crate::store) fn of(batch: &[NewEntry], facts: &BatchFacts) -> RoomQuestions {
        let checked = batch.iter().filter(|entry| entry.check == SenderCheck::Whole);
        RoomQuestions::of_senders(checked.map(|entry| (entry.conv, entry.sender)), facts)
    }

    /// The queries of these senders.
    pub(in crate::store) fn of_senders(
        senders: impl IntoIterator<Item = (ConversationId, UserId)>,
        facts: &BatchFacts,
    ) -> RoomQuestions {
        let mut wanted = RoomQuestions::default();
        for (conv, sender) in senders.into_iter().filter(|(conv, _)| facts.is_fresh(*conv)) {
            if let Some(recipient) = partner_of(conv, sender) {
                wanted.users.extend([sender, recipient]);
                wanted.friends.push((recipient, sender));
            }
        }
        sort(&mut wanted.users);
        sort(&mut wanted.friends);
        wanted
    }
}

fn sort<T: Ord>(list: &mut Vec<T>) {
    list.sort_unstable();
    list.dedup();
}
