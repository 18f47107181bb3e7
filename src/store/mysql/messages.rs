//! [`MessagesWithIds`]: stored messages in the table `OfflineMessage` with ids.

use std::sync::Arc;

use mysql::prelude::Queryable;
use mysql::{Conn, Value, params};

use super::base::Base;
use super::calls::Repeat;
use super::rows::column;
use super::shapes::{self, LIST_MAX};
use crate::protocol::UserId;
use crate::store::{AppendOutcome, KeptMessage, MessageId, Messages, NewMessage, StoreError};

/// Messages in a table whose rows have ids.
pub(super) struct MessagesWithIds {
    base: Arc<Base>,
}

impl MessagesWithIds {
    pub(super) fn of(base: Arc<Base>) -> MessagesWithIds {
        MessagesWithIds { base }
    }
}

impl Messages for MessagesWithIds {
    fn append(&self, messages: &[NewMessage]) -> Result<Vec<AppendOutcome>, StoreError> {
        self.base.append(messages)
    }

    fn fits(&self, text: &str) -> bool {
        self.base.fits(text)
    }

    fn mailbox_bytes(&self, user: UserId) -> Result<usize, StoreError> {
        self.base.mailbox_bytes(user)
    }

    fn fetch(&self, user: UserId, bytes_max: usize) -> Result<Vec<KeptMessage>, StoreError> {
        let Base { calls, limits, name, .. } = &*self.base;
        let (kept, unreadable) = calls.call(|db, _| fetch(db, user, bytes_max, limits.text_bytes()))?;
        if unreadable > 0 {
            log::error!(
                "{name}: {unreadable} messages for user {} are larger than max_allowed_packet and stay in the table until it \
                 is raised",
                user.0
            );
        }
        Ok(kept)
    }

    fn delete(&self, user: UserId, ids: &[MessageId]) -> Result<(), StoreError> {
        let (calls, mut ids) = (&self.base.calls, ids.to_vec());
        ids.sort_unstable();
        match ids.as_slice() {
            [] => Ok(()),
            few if few.len() <= LIST_MAX => calls.call(|db, _| delete(db, user, few)),
            many => {
                calls.transaction(Repeat::Freely, |db| many.chunks(LIST_MAX).try_for_each(|ids| delete(db, user, ids)))
            }
        }
    }
}

/// Reads the oldest messages of `user` page by page. Also returns how many were skipped because the
/// database cannot send more than `row_bytes_max` of text in a row. A page has about as many rows
/// as are needed, and rows are read one by one, so memory holds no more than was requested.
fn fetch(
    connection: &mut Conn,
    user: UserId,
    bytes_max: usize,
    row_bytes_max: usize,
) -> mysql::Result<(Vec<KeptMessage>, usize)> {
    let (mut kept, mut unreadable, mut bytes, mut after) = (Vec::new(), 0, 0, i64::MIN);
    let mut is_full = false;
    let mut page = FIRST_PAGE;
    loop {
        // One row that is too long would make the whole page fail.
        let rows = connection.exec_iter(
            "SELECT id, IF(OCTET_LENGTH(message) > :row_bytes_max, NULL, message) AS message
             FROM OfflineMessage WHERE userid = :user AND id > :after ORDER BY id LIMIT :page",
            params! {"user" => user.0, after, row_bytes_max, page},
        )?;
        let mut count = 0;
        for row in rows {
            let mut row = row?;
            let (id, text): (i64, Option<String>) = (column(&mut row, "id")?, column(&mut row, "message")?);
            (after, count) = (id, count + 1);
            let Some(text) = text else {
                unreadable += 1;
                continue;
            };
            bytes += text.len();
            // The rest of the page is read as well: an error in it must not stay in the connection.
            is_full |= bytes > bytes_max && !kept.is_empty();
            if !is_full {
                kept.push(KeptMessage { id: MessageId(id), text });
            }
        }
        if is_full || count < page {
            return Ok((kept, unreadable));
        }
        page = next_page(bytes_max.saturating_sub(bytes), bytes, kept.len());
    }
}

/// The number of rows to request, if `left` bytes are wanted and `rows` rows had `bytes`.
fn next_page(left: usize, bytes: usize, rows: usize) -> usize {
    let size = bytes / rows.max(1);
    // One more row shows whether there is more than is wanted.
    (left / size.max(1) + 1).clamp(1, PAGE_MAX)
}

/// Deletes messages of `user`, one statement for each list of ids.
fn delete(connection: &mut impl Queryable, user: UserId, ids: &[MessageId]) -> mysql::Result<()> {
    let list = shapes::padded(ids.iter().map(|id| id.0.into()));
    let statement = format!("DELETE FROM OfflineMessage WHERE userid = ? AND id IN {}", shapes::list(list.len()));
    let values: Vec<Value> = std::iter::once(user.0.into()).chain(list).collect();
    connection.exec_drop(statement, values)
}

/// The rows of the first request: most mailboxes hold fewer.
const FIRST_PAGE: usize = 32;
const PAGE_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_about_what_is_wanted() {
        assert_eq!(next_page(64 * 1024, 32 * 60_000, 32), 2, "one that fits, and one that tells that there is more");
        assert_eq!(next_page(0, 1000, 10), 1);
        assert_eq!(next_page(1 << 20, 3_200, 32), PAGE_MAX);
        assert_eq!(next_page(1 << 20, 0, 0), PAGE_MAX, "nothing readable was there so far");
    }
}
