//! [`assemble`]: rows of the queue become one request, with texts and recipients.

use rustc_hash::FxHashMap;

use super::batch::HookBatch;
use crate::base::conversation::ConversationId;
use crate::protocol::UserId;
use crate::store::StoreError;
use crate::store::history::HistoryEntry;
use crate::store::hooks::{HookRecipients, HookRow};

/// The effect of a success on the queue.
#[derive(Default)]
pub(super) struct Settlement {
    /// Rows that are done.
    pub(super) done: Vec<i64>,
    /// Rows with more members, and the last one that is done.
    pub(super) reached: Vec<(i64, UserId)>,
}

/// The messages of a request, and the effect of its success on the queue.
#[derive(Default)]
pub(super) struct Assembled {
    pub(super) batch: HookBatch,
    pub(super) settlement: Settlement,
    /// Rows without a recipient who needs a post.
    pub(super) idle: Vec<i64>,
    pub(super) last: Option<UserId>,
}

type Texts = FxHashMap<(ConversationId, i64), Option<HistoryEntry>>;

/// Writes a batch from rows in turn.
pub(super) fn assemble(
    rows: &[HookRow],
    recipients: &[HookRecipients],
    messages_max: usize,
    read: impl Fn(&[(ConversationId, i64)]) -> Result<Vec<Option<HistoryEntry>>, StoreError>,
) -> Result<Assembled, StoreError> {
    let mut assembled = Assembled::default();
    let mut texts = Texts::default();
    let wanted: Vec<(&HookRow, &HookRecipients)> = rows.iter().zip(recipients).collect();
    for some in wanted.chunks(TEXTS_AT_ONCE) {
        if assembled.batch.messages() >= messages_max {
            break;
        }
        let with_recipients = some.iter().filter(|(_, recipients)| !recipients.users.is_empty());
        let places: Vec<(ConversationId, i64)> = with_recipients.map(|(row, _)| (row.conv, row.seq)).collect();
        texts.clear();
        if !places.is_empty() {
            texts.extend(places.iter().copied().zip(read(&places)?));
        }
        for (row, recipients) in some {
            if !assembled.take(row, recipients, &texts, messages_max) {
                return Ok(assembled);
            }
        }
    }
    Ok(assembled)
}

impl Assembled {
    /// Adds a row. Returns whether there is room for more.
    fn take(&mut self, row: &HookRow, recipients: &HookRecipients, texts: &Texts, messages_max: usize) -> bool {
        // A message that is deleted or recalled is not posted.
        let entry = texts.get(&(row.conv, row.seq)).and_then(Option::as_ref).filter(|entry| entry.text.is_some());
        let (Some(entry), false) = (entry, recipients.users.is_empty()) else {
            self.idle.push(row.id);
            return true;
        };
        let mut taken = None;
        for user in &recipients.users {
            if self.batch.messages() >= messages_max || !self.batch.add(row, entry, *user) {
                self.settlement.reached.extend(taken.map(|user| (row.id, user)));
                self.last = if taken.is_some() { Some(row.sender) } else { self.last };
                return false;
            }
            taken = Some(*user);
        }
        self.last = Some(row.sender);
        match taken.filter(|_| recipients.has_more) {
            Some(user) => self.settlement.reached.push((row.id, user)),
            None => self.settlement.done.push(row.id),
        }
        true
    }
}

/// The texts that are in memory at once.
const TEXTS_AT_ONCE: usize = 32;
