//! The rows of `OfflineMessage`, in addition to conversations.

use mysql::prelude::Queryable;
use mysql::{Conn, Transaction, params};

use super::moments::NOW;
use super::script::{Script, list};
use crate::base::conversation::ConversationId;
use crate::protocol::UserId;
use crate::store::history::WaitingRows;
use crate::store::mysql::rows::column;
use crate::store::{KeptMessage, MessageId};

/// Rows without a mark, in their order. Rows with more than `row_bytes_max` of text, which the
/// database cannot send, are skipped.
pub(super) fn unmarked(
    db: &mut Conn,
    user: UserId,
    after: MessageId,
    rows_max: usize,
    bytes_max: usize,
    row_bytes_max: usize,
) -> mysql::Result<Vec<KeptMessage>> {
    let rows = db.exec_iter(
        "SELECT id, message FROM OfflineMessage
         WHERE userid = :user AND id > :after AND seq = 0 AND OCTET_LENGTH(message) <= :row_bytes_max
         ORDER BY id LIMIT :rows_max",
        params! {"user" => user.0, "after" => after.0, row_bytes_max, rows_max},
    )?;
    let (mut kept, mut bytes, mut is_full) = (Vec::new(), 0, false);
    for row in rows {
        // The other rows are read as well: an error in them must not stay in the connection.
        let mut row = row?;
        let message = KeptMessage { id: MessageId(column(&mut row, "id")?), text: column(&mut row, "message")? };
        bytes += message.text.len();
        is_full |= bytes > bytes_max && !kept.is_empty();
        if !is_full {
            kept.push(message);
        }
    }
    Ok(kept)
}

/// The rows with which an import begins. One statement tells whether the user was seen at level 1
/// within `window` ms, and whether there is a row at all. Usually there is none.
pub(super) fn waiting(
    db: &mut Conn,
    user: UserId,
    window: i64,
    (rows_max, bytes_max, row_bytes_max): (usize, usize, usize),
) -> mysql::Result<WaitingRows> {
    let statement = format!(
        "SELECT EXISTS (SELECT 1 FROM OfflineMessage WHERE userid = :user),
                EXISTS (SELECT 1 FROM User WHERE id = :user AND level1_seen > {NOW} - :window)"
    );
    let found: Option<(bool, bool)> = db.exec_first(statement, params! {"user" => user.0, window})?;
    let (has_rows, uses_level1) = found.unwrap_or_default();
    let unmarked = match has_rows {
        true => unmarked(db, user, MessageId(i64::MIN), rows_max, bytes_max, row_bytes_max)?,
        false => Vec::new(),
    };
    Ok(WaitingRows { uses_level1, is_empty: !has_rows, unmarked })
}

pub(super) fn mark(
    db: &mut Transaction<'_>,
    user: UserId,
    rows: &[(MessageId, ConversationId, i64)],
    bytes_max: usize,
) -> mysql::Result<()> {
    let mut script = Script::new(bytes_max);
    for (MessageId(id), conv, seq) in rows {
        let conv = conv.column();
        script.add(
            (),
            format!("UPDATE OfflineMessage SET conv = {conv}, seq = {seq} WHERE id = {id} AND userid = {user}"),
        );
    }
    script.run(db, |(), _| Ok(()))
}

/// The statement that deletes the rows whose messages the user's devices have stored in these
/// conversations. It reads the user's rows only once, however many conversations there are.
pub(super) fn reported(user: UserId, convs: &[i64]) -> String {
    let convs = list(convs);
    format!(
        "DELETE o FROM OfflineMessage AS o STRAIGHT_JOIN Member AS m ON m.conv = o.conv AND m.user = o.userid
         WHERE o.userid = {user} AND o.seq > 0 AND o.conv IN ({convs}) AND o.seq <= m.recv"
    )
}
