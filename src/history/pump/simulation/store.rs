//! The model of the store: what was committed, and what the user may see of it.

use std::collections::BTreeMap;

use super::client::{ME, Truth};
use crate::base::conversation::{ConversationId, Cursor, Seq, Tag};
use crate::history::cursor::{self, Extent, HeldCursor};
use crate::history::pump::{FoundCursor, Heads, PumpEvent, Row, RowPage};
use crate::protocol::UserId;
use crate::protocol::level2::Rid;
use crate::protocol::level2::frames::{self, Committed, Message, Refusal};

/// The model of the store.
#[derive(Default)]
pub(super) struct Store {
    pub(super) convs: BTreeMap<ConversationId, Conversation>,
    time: i64,
    /// Whether it has lost the end of a history.
    pub(super) has_lost: bool,
}

/// A page that a pump asks for.
pub(super) struct PageWanted {
    pub(super) conv: ConversationId,
    pub(super) from: Seq,
    pub(super) to: Option<Seq>,
    pub(super) written: Option<Seq>,
}

#[derive(Default, Clone)]
pub(super) struct Conversation {
    pub(super) rows: Vec<StoredRow>,
    floor: Seq,
    /// For a group: the first number of the membership, 0 if the user is not a member.
    joined: Option<Seq>,
    /// Every floor that the user had.
    floors: Vec<Seq>,
}

#[derive(Clone, Debug)]
pub(super) struct StoredRow {
    from: UserId,
    pub(super) cid: String,
    pub(super) at: Committed,
}

impl Store {
    pub(super) fn append(&mut self, conv: ConversationId, from: UserId, cid: String) -> Committed {
        self.time += 1;
        let conversation = self.convs.entry(conv).or_default();
        let seq = conversation.rows.len() as Seq + 1;
        let at = Committed { seq, tag: Tag(self.time as u32 * 7), time: self.time };
        conversation.rows.push(StoredRow { from, cid, at });
        at
    }

    pub(super) fn find(&self, conv: ConversationId, cid: &str) -> Option<Committed> {
        self.convs.get(&conv)?.rows.iter().find(|row| row.cid == cid).map(|row| row.at)
    }

    pub(super) fn tag(&self, conv: ConversationId, seq: Seq) -> Option<Tag> {
        self.convs.get(&conv)?.rows.get(usize::try_from(seq - 1).ok()?).map(|row| row.at.tag)
    }

    pub(super) fn row(&self, conv: ConversationId, seq: Seq) -> Row {
        let row = &self.convs[&conv].rows[seq as usize - 1];
        let frame = format!(r#"{{"msgType":4,"cid":"{}","msg":"hi"}}"#, row.cid);
        let message =
            Message { at: row.at, from: row.from, frame: Some(&frame), edited: None, recalled: None, imported: false };
        Row { at: row.at, from: row.from, frame: frames::pushed(conv.name_for(ME), &message).into() }
    }

    /// The last message of a conversation.
    pub(super) fn last(&self, conv: ConversationId) -> Option<Committed> {
        self.convs.get(&conv)?.rows.last().map(|row| row.at)
    }

    /// Whether the user is in this conversation, or may begin it.
    pub(super) fn is_mine(&self, conv: ConversationId) -> bool {
        self.convs.get(&conv).is_none_or(|conversation| conversation.is_mine(conv))
    }

    /// A group that the user has been in from its beginning.
    pub(super) fn begin_group(&mut self, conv: ConversationId) {
        self.convs.entry(conv).or_default().joined = Some(1);
    }

    /// Makes the user a member of a group with the message `seq`.
    pub(super) fn join(&mut self, conv: ConversationId, seq: Seq) {
        let conversation = self.convs.entry(conv).or_default();
        conversation.joined = Some(seq);
        conversation.note_floor();
    }

    /// Makes the user leave a group. Returns the first number of the membership that ends.
    pub(super) fn leave(&mut self, conv: ConversationId) -> Option<Seq> {
        self.convs.get_mut(&conv).and_then(|conversation| conversation.joined.take())
    }

    /// Raises the floor of a conversation, to its head at most.
    pub(super) fn raise_floor(&mut self, conv: ConversationId, steps: Seq) {
        if let Some(conversation) = self.convs.get_mut(&conv) {
            let head = conversation.rows.len() as Seq;
            conversation.floor = (conversation.floor + steps).min(head);
            conversation.note_floor();
        }
    }

    /// Loses up to this number of a conversation's last messages. Returns whether there is such a
    /// conversation.
    pub(super) fn lose_end(&mut self, conv: ConversationId, count: usize) -> bool {
        let Some(conversation) = self.convs.get_mut(&conv) else { return false };
        let left = conversation.rows.len().saturating_sub(count).max(conversation.floor as usize);
        let is_member_since = conversation.joined.unwrap_or(1) as usize;
        conversation.rows.truncate(left.max(is_member_since));
        self.has_lost = true;
        true
    }

    /// The conversations of the user.
    pub(super) fn mine(&self) -> impl Iterator<Item = (ConversationId, Extent)> {
        let mine = self.convs.iter().filter(|(conv, conversation)| conversation.is_mine(**conv));
        mine.map(|(conv, conversation)| (*conv, conversation.extent()))
    }

    pub(super) fn heads(&self, rid: Option<Rid>, have: Vec<(ConversationId, Cursor)>) -> Heads {
        let is_login = rid.is_none();
        let named = |conv: &ConversationId| is_login || have.iter().any(|(other, _)| other == conv);
        let convs: Vec<_> = self.mine().filter(|(conv, _)| named(conv)).collect();
        let cursors = have.iter().map(|(conv, cursor)| {
            if !self.is_mine(*conv) {
                let refusal = Refusal::forever(403, "you are not in this conversation");
                return FoundCursor::Refused(conv.name_for(ME).to_string().into(), refusal);
            }
            let extent = self.convs.get(conv).map_or(Extent { head: 0, floor: 0 }, Conversation::extent);
            let stored = cursor::needs_tag(cursor.seq, extent).then(|| self.tag(*conv, cursor.seq)).flatten();
            FoundCursor::Own(*conv, HeldCursor { seq: cursor.seq, tag: Some(cursor.tag), stored })
        });
        let convs = convs.into_iter().map(|(conv, extent)| (conv, extent, self.last(conv))).collect();
        Heads { rid, cursors: cursors.collect(), convs, resume: 3 }
    }

    pub(super) fn read(&self, wanted: &PageWanted, limit: usize) -> PumpEvent {
        let PageWanted { conv, from, to, written } = *wanted;
        let nothing = Conversation::default();
        let conversation = self.convs.get(&conv).unwrap_or(&nothing);
        // A member may see a message to the end of the membership, or never.
        if !conversation.is_mine(conv) && to.is_none() {
            return PumpEvent::PageDenied(Refusal::forever(403, "you are not in this conversation"));
        }
        let mut extent = conversation.extent();
        if conversation.joined.is_none() && conv.group().is_some() {
            extent.floor = conversation.floor;
        }
        let end = to.unwrap_or(Seq::MAX).min(extent.head);
        let numbers = (from.max(extent.floor + 1)..=end).take(limit);
        let written = written.and_then(|seq| self.tag(conv, seq));
        PumpEvent::Page(RowPage { extent, rows: numbers.map(|seq| self.row(conv, seq)).collect(), written })
    }
}

impl Conversation {
    pub(super) fn is_mine(&self, conv: ConversationId) -> bool {
        conv.group().is_none() || self.joined.is_some()
    }

    pub(super) fn extent(&self) -> Extent {
        let head = self.rows.len() as Seq;
        Extent { head, floor: self.floor.max(self.joined.unwrap_or(1) - 1).min(head) }
    }

    fn note_floor(&mut self) {
        self.floors.push(self.extent().floor);
    }
}

impl Truth for Store {
    fn cid(&self, conv: ConversationId, seq: Seq) -> Option<String> {
        self.convs.get(&conv)?.rows.get(seq as usize - 1).map(|row| row.cid.clone())
    }

    fn may_reset(&self) -> bool {
        self.has_lost
    }

    fn floor(&self, conv: ConversationId) -> Seq {
        let conversation = &self.convs[&conv];
        conversation.floors.iter().copied().max().unwrap_or(0).max(conversation.extent().floor)
    }

    fn floor_was(&self, conv: ConversationId, seq: Seq) -> bool {
        self.convs[&conv].floors.contains(&seq)
    }
}
