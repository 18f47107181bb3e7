//! Imports the messages that wait in `OfflineMessage` into conversations, at logins of level 2.
//!
//! Rows without a mark come from the time before their user used level 2, from nodes without
//! conversations, and from the spool. They are read in their order, in pieces. Each message is
//! committed under an id derived from its content, so that a repeated import finds it. Then its row
//! is deleted, or gets a mark if the user may still fetch it at level 1. A row that cannot be read
//! or is too long stays, and so does one of a group that the user has left.
//!
//! Equal messages of a group are distinguished by their number in the mailbox. If a member imports
//! two equal ones at different logins, and neither was recorded before, the second is taken for the
//! first.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};

use super::parts::Conversations;
use super::postbox::ImportClaim;
use crate::base::conversation::{ConversationId, Seq, Tag};
use crate::bus::{CommittedFrame, DeviceNews};
use crate::delivery::ClientLink;
use crate::history::pump::PumpEvent;
use crate::metrics::ImportEvent;
use crate::protocol::level2::RECORDED_MAX;
use crate::protocol::level2::frames::{self, Message};
use crate::protocol::{StoredFrame, UserId};
use crate::routing::level1_seen::LEVEL1_WINDOW;
use crate::store::history::{
    Cid, CommitOutcome, CommitRules, EntryKind, EntryPlace, FrameHash, History, NewEntry, Occurrence, SenderCheck,
    import_cid,
};
use crate::store::{KeptMessage, MessageId, StoreError};

/// The import of a user's rows, between two pieces. There is one per user at a time.
pub struct Import {
    user: UserId,
    after: MessageId,
    /// The fate of the rows, once known.
    rows: Option<ImportedRows>,
    /// The number of equal messages so far, by the id of the first of them; for groups.
    equal: FxHashMap<Cid, u32>,
    /// The groups of the user, read when the first group message comes.
    groups: Option<FxHashSet<ConversationId>>,
    /// Messages that are too long to be recorded.
    too_long: u32,
    _claim: ImportClaim,
}

/// Whether rows may be left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum ImportStep {
    /// Rows may be left.
    More,
    /// Everything is imported, or the database prevents it.
    Done,
}

/// The fate of the rows of imported messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ImportedRows {
    /// They are deleted.
    Go,
    /// They stay, with a mark: the user may fetch them at level 1.
    Stay,
}

/// Messages of a piece, with their rows.
#[derive(Default)]
struct ImportPiece {
    rows: Vec<MessageId>,
    entries: Vec<NewEntry>,
    /// Rows of messages that are in conversations.
    placed: Vec<(MessageId, ConversationId, i64)>,
    /// The new entries, by their index, their places, and the tags before them.
    new: Vec<(usize, EntryPlace, Option<Tag>)>,
}

impl Conversations {
    /// Begins to import a user's messages; `None` if another login of the user has begun.
    pub fn begin_import(&self, user: UserId) -> Option<Import> {
        let claim = self.parts.postbox.claim(user)?;
        let (after, rows, equal, groups) = (MessageId(i64::MIN), None, FxHashMap::default(), None);
        Some(Import { user, after, rows, equal, groups, too_long: 0, _claim: claim })
    }

    /// Imports a piece. Blocks. If that fails, the rest is imported at the next login.
    pub fn import(&self, import: &mut Import) -> ImportStep {
        let step = self.try_import(import);
        self.parts.outages.note("importing messages", step.as_ref().err());
        step.unwrap_or(ImportStep::Done)
    }

    fn try_import(&self, import: &mut Import) -> Result<ImportStep, StoreError> {
        let (history, user) = (self.history()?, import.user);
        let (rows, waiting, is_empty) = match import.rows {
            Some(rows) => (rows, history.unmarked(user, import.after, PIECE_ROWS, PIECE_BYTES)?, false),
            None => {
                let found = history.waiting(user, LEVEL1_WINDOW, PIECE_ROWS, PIECE_BYTES)?;
                let rows = if found.uses_level1 { ImportedRows::Stay } else { ImportedRows::Go };
                (rows, found.unmarked, found.is_empty)
            }
        };
        import.rows = Some(rows);
        let Some(last) = waiting.last().map(|row| row.id) else {
            if rows == ImportedRows::Go && !is_empty {
                // These are from the time when the user still used level 1.
                history.delete_marked(user)?;
            }
            import.tell_too_long();
            return Ok(ImportStep::Done);
        };
        import.after = last;
        let (mut piece, count) = (ImportPiece::default(), waiting.len());
        for row in waiting {
            piece.add(row, import, history)?;
        }
        piece.commit(history)?;
        let metrics = &self.parts.metrics;
        metrics.imported(ImportEvent::New, piece.new.len());
        metrics.imported(ImportEvent::Known, piece.placed.len() - piece.new.len());
        metrics.imported(ImportEvent::Left, count - piece.placed.len());
        match rows {
            ImportedRows::Stay => history.mark_rows(user, &piece.placed)?,
            ImportedRows::Go => {
                let ids: Vec<MessageId> = piece.placed.iter().map(|(id, ..)| *id).collect();
                self.parts.postbox.delete(user, &ids)?;
            }
        }
        log::debug!("{} messages of user {user} were imported", piece.placed.len());
        self.show_imported(&piece)?;
        Ok(ImportStep::More)
    }

    /// Tells the devices on this node the new heads of the conversations, and other nodes the new
    /// messages.
    fn show_imported(&self, piece: &ImportPiece) -> Result<(), StoreError> {
        self.tell_nodes(&piece.news(|user| self.parts.audience.has(user)));
        let Some(router) = self.router() else { return Ok(()) };
        let heads: BTreeMap<ConversationId, Seq> =
            piece.new.iter().map(|(nth, place, _)| (piece.entries[*nth].conv, place.seq)).collect();
        let mut posts = Vec::new();
        for (conv, head) in heads {
            self.tell_devices_in(&router, conv, &PumpEvent::Hint { conv, head }, &mut posts)?;
        }
        ClientLink::post_all(posts);
        Ok(())
    }
}

impl ImportPiece {
    /// Adds a row, unless it stays.
    fn add(&mut self, row: KeptMessage, import: &mut Import, history: &dyn History) -> Result<(), StoreError> {
        if row.text.len() > RECORDED_MAX {
            import.too_long += 1;
            return Ok(());
        }
        let Some(frame) = StoredFrame::read(&row.text) else { return Ok(()) };
        let (conv, sender) = (frame.conv(import.user), frame.from);
        if frame.group.is_some() && !import.is_member(conv, history)? {
            return Ok(());
        }
        // A message of level 2 that another node's connection has returned has lost its mark.
        let cid = frame.cid.as_deref().and_then(Cid::of_client);
        // Any client may write a `cid` into a frame of level 1, so the content is compared as well.
        let place = cid.map_or(Ok(None), |cid| history.place_of(sender, &cid))?;
        if let Some((_, seq, hash)) = place.filter(|(place, ..)| *place == conv)
            && is_the_same(&row.text, (conv, seq, hash), history)?
        {
            self.placed.push((row.id, conv, seq));
            return Ok(());
        }
        let cid = match frame.group {
            None => import_cid(conv, sender, &row.text, Occurrence::Row(row.id)),
            Some(_) => import.nth_equal(conv, sender, &row.text),
        };
        self.rows.push(row.id);
        self.entries.push(NewEntry {
            conv,
            sender,
            cid,
            hash: FrameHash::of(row.text.as_bytes()),
            kind: if frame.is_message { EntryKind::Message } else { EntryKind::Other },
            is_imported: true,
            check: SenderCheck::None,
            is_hooked: false,
            change: None,
            text: row.text.into(),
        });
        Ok(())
    }

    /// Commits the messages.
    fn commit(&mut self, history: &dyn History) -> Result<(), StoreError> {
        let outcomes =
            if self.entries.is_empty() { Vec::new() } else { history.commit(&self.entries, CommitRules::OF_SERVER)? };
        for (nth, ((id, entry), outcome)) in self.rows.iter().zip(&self.entries).zip(outcomes).enumerate() {
            match outcome {
                CommitOutcome::New(place, before) => {
                    self.new.push((nth, place, before));
                    self.placed.push((*id, entry.conv, place.seq));
                }
                CommitOutcome::Again(place) => self.placed.push((*id, entry.conv, place.seq)),
                CommitOutcome::Refused(refusal) => log::debug!("a message is not imported: {refusal:?}"),
            }
        }
        Ok(())
    }

    /// The news of the new messages for other nodes, for users of level 2.
    fn news(&self, uses_level2: impl Fn(UserId) -> bool) -> Vec<DeviceNews> {
        let (mut of_users, mut of_groups) = (BTreeMap::<UserId, Vec<CommittedFrame>>::new(), Vec::new());
        for (nth, place, before) in &self.new {
            let entry = &self.entries[*nth];
            match entry.conv.users() {
                None => of_groups.push(imported_frame(entry, (*place, *before), entry.sender)),
                Some((low, high)) => {
                    let users = [low, high].into_iter().take(if low == high { 1 } else { 2 });
                    for user in users.filter(|user| uses_level2(*user)) {
                        of_users.entry(user).or_default().push(imported_frame(entry, (*place, *before), user));
                    }
                }
            }
        }
        let of_users = of_users.into_iter().map(|(user, messages)| DeviceNews::Messages(user, messages));
        of_users.chain((!of_groups.is_empty()).then_some(DeviceNews::GroupMessages(of_groups))).collect()
    }
}

/// Whether a row is the message of a conversation that has its `cid`. A row has one line and each
/// member once, even if the sender's frame had more. If the message was changed or deleted since,
/// only the `cid` can be compared.
fn is_the_same(
    row: &str,
    (conv, seq, hash): (ConversationId, Seq, FrameHash),
    history: &dyn History,
) -> Result<bool, StoreError> {
    if hash == FrameHash::of(row.as_bytes()) {
        return Ok(true);
    }
    let Some(stored) = history.messages_at(&[(conv, seq)])?.pop().flatten() else { return Ok(true) };
    let Some(text) = stored.text.filter(|_| stored.edited.is_none()) else { return Ok(true) };
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    Ok(value(&text).is_some_and(|stored| value(row) == Some(stored)))
}

/// The frame that shows an imported message to `user`.
fn imported_frame(entry: &NewEntry, (place, before): (EntryPlace, Option<Tag>), user: UserId) -> CommittedFrame {
    let at = frames::Committed { seq: place.seq, tag: place.tag, time: place.time };
    let message =
        Message { at, from: entry.sender, frame: Some(&entry.text), edited: None, recalled: None, imported: true };
    let frame = frames::pushed(entry.conv.name_for(user), &message).into();
    CommittedFrame { conv: entry.conv, at, before, from: entry.sender, frame }
}

impl Import {
    /// Once for each login.
    fn tell_too_long(&self) {
        if self.too_long > 0 {
            log::warn!(
                "{} messages for user {} are too long for level 2 (256 KiB): they stay for level 1",
                self.too_long,
                self.user
            );
        }
    }

    /// Whether the user is a member of a group.
    fn is_member(&mut self, conv: ConversationId, history: &dyn History) -> Result<bool, StoreError> {
        if self.groups.is_none() {
            // This also gives the user a row in groups to which a node without history has admitted
            // the user; messages imported later come after it.
            let heads = history.heads(self.user)?;
            self.groups = Some(heads.iter().map(|head| head.conv).filter(|conv| conv.group().is_some()).collect());
        }
        Ok(self.groups.as_ref().is_some_and(|groups| groups.contains(&conv)))
    }

    fn nth_equal(&mut self, conv: ConversationId, sender: UserId, text: &str) -> Cid {
        let first = import_cid(conv, sender, text, Occurrence::Nth(1));
        let nth = self.equal.entry(first.clone()).or_default();
        *nth += 1;
        if *nth == 1 { first } else { import_cid(conv, sender, text, Occurrence::Nth(*nth)) }
    }
}

/// The most rows of a piece, and the most text, in bytes.
const PIECE_ROWS: usize = 512;
const PIECE_BYTES: usize = 256 * 1024;
