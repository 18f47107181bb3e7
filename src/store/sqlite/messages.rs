//! Stored messages: the table `OfflineMessage`, and the texts that several of them share in
//! `MessageText`.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, named_params};
use rustc_hash::FxHashMap;

use super::SqliteStore;
use crate::base::conversation::ConversationId;
use crate::protocol::UserId;
use crate::store::ROW_BYTES;
use crate::store::{AppendOutcome, KeptMessage, MessageId, Messages, NewMessage, StoreError};

impl Messages for SqliteStore {
    fn append(&self, messages: &[NewMessage]) -> Result<Vec<AppendOutcome>, StoreError> {
        let messages = messages.to_vec();
        self.live.write(move |db| {
            // Parameters are bound by number: looking names up would make each message 2% more
            // expensive.
            let mut insert = db.prepare_cached("INSERT INTO OfflineMessage (userid, message) VALUES (?1, ?2)")?;
            let (mut recipients, mut shared) = (KnownRecipients::default(), SharedTexts::of(&messages));
            let mut keep = |message: &NewMessage| {
                if !recipients.has(db, message.to)? {
                    return Ok(AppendOutcome::NoSuchUser);
                }
                if let Some(conv) = message.recorded {
                    insert_marked(db, message, conv, shared.id_of(db, message)?)?;
                } else if let Some(text) = shared.id_of(db, message)? {
                    db.prepare_cached(
                        "INSERT INTO OfflineMessage (userid, message, textid) VALUES (:user, '', :text)",
                    )?
                    .execute(named_params! {":user": message.to.0, ":text": text})?;
                } else {
                    insert.raw_bind_parameter(1, message.to.0)?;
                    insert.raw_bind_parameter(2, &*message.text)?;
                    insert.raw_execute()?;
                }
                Ok(AppendOutcome::Stored)
            };
            messages.iter().map(&mut keep).collect()
        })
    }

    fn mailbox_bytes(&self, user: UserId) -> Result<usize, StoreError> {
        self.live.read(move |db| {
            let bytes: i64 = db
                .prepare_cached(
                    "SELECT coalesce(sum(octet_length(coalesce(MessageText.message, OfflineMessage.message)) + :each), 0)
                     FROM OfflineMessage LEFT JOIN MessageText ON MessageText.id = textid WHERE userid = :user",
                )?
                .query_row(named_params! {":user": user.0, ":each": ROW_BYTES as i64}, |row| row.get(0))?;
            Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
        })
    }

    fn fetch(&self, user: UserId, bytes_max: usize) -> Result<Vec<KeptMessage>, StoreError> {
        self.live.settle()?;
        self.live.read(move |db| {
            let mut select =
                db.prepare_cached("SELECT id, message, textid FROM OfflineMessage WHERE userid = :user ORDER BY id")?;
            // Few messages share a text, and a join would slow all of them.
            let mut shared = db.prepare_cached("SELECT message FROM MessageText WHERE id = :id")?;
            let mut rows = select.query(named_params! {":user": user.0})?;
            let (mut kept, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let text: String = match row.get("textid")? {
                    None::<i64> => row.get("message")?,
                    Some(id) => shared.query_row(named_params! {":id": id}, |row| row.get(0))?,
                };
                bytes += text.len();
                if bytes > bytes_max && !kept.is_empty() {
                    break;
                }
                kept.push(KeptMessage { id: MessageId(row.get("id")?), text });
            }
            Ok(kept)
        })
    }

    fn delete(&self, user: UserId, ids: &[MessageId]) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        self.live.write(move |db| {
            let mut delete = db.prepare_cached("DELETE FROM OfflineMessage WHERE id = :id AND userid = :user")?;
            let mut text_of =
                db.prepare_cached("SELECT textid FROM OfflineMessage WHERE id = :id AND userid = :user")?;
            let any_shared = db.prepare_cached("SELECT 1 FROM MessageText LIMIT 1")?.exists([])?;
            let mut texts = BTreeSet::new();
            for id in &ids {
                let row = named_params! {":id": id.0, ":user": user.0};
                if any_shared {
                    texts.extend(text_of.query_row(row, |row| row.get::<_, Option<i64>>(0)).optional()?.flatten());
                }
                delete.execute(row)?;
            }
            forget_texts(db, &texts)
        })
    }
}

/// Inserts a row with a mark. Its message is the last one of its conversation, or an earlier one.
fn insert_marked(
    db: &Connection,
    message: &NewMessage,
    conv: ConversationId,
    shared: Option<i64>,
) -> rusqlite::Result<()> {
    let text = if shared.is_some() { "" } else { &*message.text };
    db.prepare_cached(
        "INSERT INTO OfflineMessage (userid, message, textid, conv, seq)
         VALUES (:user, :text, :shared, :conv, coalesce((SELECT head FROM Conversation WHERE id = :conv), 0))",
    )?
    .execute(named_params! {":user": message.to.0, ":text": text, ":shared": shared, ":conv": conv.column()})
    .map(drop)
}

/// Deletes those of these texts that no message uses any more.
pub(super) fn forget_texts(db: &Connection, texts: &BTreeSet<i64>) -> rusqlite::Result<()> {
    let mut forget = db.prepare_cached(
        "DELETE FROM MessageText
         WHERE id = :id AND NOT EXISTS (SELECT 1 FROM OfflineMessage WHERE textid = :id)",
    )?;
    texts.iter().try_for_each(|text| forget.execute(named_params! {":id": text}).map(drop))
}

/// The recipients of a batch, each looked up once: no user is added or deleted during a
/// transaction.
#[derive(Default)]
struct KnownRecipients {
    exist: FxHashMap<UserId, bool>,
}

impl KnownRecipients {
    fn has(&mut self, db: &Connection, user: UserId) -> rusqlite::Result<bool> {
        match self.exist.entry(user) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(unknown) => {
                let mut exists = db.prepare_cached("SELECT 1 FROM User WHERE id = ?1")?;
                Ok(*unknown.insert(exists.exists([user.0])?))
            }
        }
    }
}

/// The texts that several messages of a batch share, each stored once.
struct SharedTexts {
    /// Address of a text in memory -> the number of messages with it, and its id once it is stored.
    texts: FxHashMap<*const u8, (u32, Option<i64>)>,
}

impl SharedTexts {
    fn of(messages: &[NewMessage]) -> SharedTexts {
        let mut texts: FxHashMap<_, (u32, Option<i64>)> = FxHashMap::default();
        // Most batches have no such text, and a table of all texts would make each message 3% more
        // expensive.
        for message in messages.iter().filter(|message| Arc::strong_count(&message.text) > OWNERS) {
            texts.entry(message.text.as_ptr()).or_default().0 += 1;
        }
        texts.retain(|_, (count, _)| *count > 1);
        SharedTexts { texts }
    }

    /// The id of the message's text, if it is shared.
    fn id_of(&mut self, db: &Connection, message: &NewMessage) -> rusqlite::Result<Option<i64>> {
        let Some((_, id)) = self.texts.get_mut(&message.text.as_ptr()) else { return Ok(None) };
        if id.is_none() {
            db.prepare_cached("INSERT INTO MessageText (message) VALUES (:message)")?
                .execute(named_params! {":message": &*message.text})?;
            *id = Some(db.last_insert_rowid());
        }
        Ok(*id)
    }
}

/// The number of references to a text of a single message: from its delivery, from the caller's
/// batch, and from the writer's copy of the batch.
const OWNERS: usize = 3;
