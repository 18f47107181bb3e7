//! The rows of `OfflineMessage`, in addition to conversations.

use std::collections::BTreeSet;

use rusqlite::{Connection, Params, params};

use crate::base::conversation::ConversationId;
use crate::protocol::UserId;
use crate::store::sqlite::messages::forget_texts;
use crate::store::sqlite::rows::limit;
use crate::store::{KeptMessage, MessageId};

/// Rows without a mark, in their order.
pub(super) fn unmarked(
    db: &Connection,
    user: UserId,
    after: MessageId,
    rows_max: usize,
    bytes_max: usize,
) -> rusqlite::Result<Vec<KeptMessage>> {
    let mut select = db.prepare_cached(
        "SELECT m.id, coalesce(t.message, m.message) FROM OfflineMessage AS m LEFT JOIN MessageText AS t ON t.id = m.textid
         WHERE m.userid = ?1 AND m.id > ?2 AND m.seq = 0 ORDER BY m.id LIMIT ?3",
    )?;
    let mut rows = select.query(params![user.0, after.0, limit(rows_max)])?;
    let (mut kept, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let message = KeptMessage { id: MessageId(row.get(0)?), text: row.get(1)? };
        bytes += message.text.len();
        if bytes > bytes_max && !kept.is_empty() {
            break;
        }
        kept.push(message);
    }
    Ok(kept)
}

pub(super) fn mark(db: &Connection, user: UserId, rows: &[(MessageId, ConversationId, i64)]) -> rusqlite::Result<()> {
    let mut update =
        db.prepare_cached("UPDATE OfflineMessage SET conv = ?3, seq = ?4 WHERE id = ?1 AND userid = ?2")?;
    rows.iter().try_for_each(|(id, conv, seq)| update.execute(params![id.0, user.0, conv.column(), seq]).map(drop))
}

pub(super) fn has_marked(db: &Connection, user: UserId) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM OfflineMessage WHERE userid = ?1 AND seq > 0 LIMIT 1")?.exists([user.0])
}

pub(super) fn delete_marked(db: &Connection, user: UserId) -> rusqlite::Result<()> {
    delete(db, "DELETE FROM OfflineMessage WHERE userid = ?1 AND seq > 0 RETURNING textid", params![user.0])
}

/// Deletes the rows whose messages a device has stored.
pub(super) fn delete_reported(db: &Connection, user: UserId, conv: ConversationId, seq: i64) -> rusqlite::Result<()> {
    let statement =
        "DELETE FROM OfflineMessage WHERE userid = ?1 AND conv = ?2 AND seq > 0 AND seq <= ?3 RETURNING textid";
    delete(db, statement, params![user.0, conv.column(), seq])
}

fn delete(db: &Connection, statement: &str, parameters: impl Params) -> rusqlite::Result<()> {
    let mut delete = db.prepare_cached(statement)?;
    let mut texts: BTreeSet<i64> = BTreeSet::new();
    for text in delete.query_map(parameters, |row| row.get::<_, Option<i64>>(0))? {
        texts.extend(text?);
    }
    forget_texts(db, &texts)
}
