//! Messages that wait: the table `OfflineMessage` with ids, and what it has in common with one
//! without (`keyless.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mysql::prelude::Queryable;
use mysql::{Conn, Row, Value, params};
use rustc_hash::FxHashSet;

use super::calls::{Repeat, TooLarge};
use super::shapes::{self, LIST_MAX};
use super::{Base, column, ids_of};
use crate::protocol::UserId;
use crate::store::ROW_BYTES;
use crate::store::{AppendOutcome, KeptMessage, MessageId, Messages, NewMessage, StoreError};

/// Messages in a table whose rows have ids.
pub(super) struct MessagesWithIds {
    base: Arc<Base>,
    /// It is logged that there are messages that no reply can hold.
    has_unreadable: AtomicBool,
}

impl MessagesWithIds {
    pub(super) fn of(base: Arc<Base>) -> MessagesWithIds {
        MessagesWithIds { base, has_unreadable: AtomicBool::new(false) }
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
        if unreadable > 0 && !self.has_unreadable.swap(true, Ordering::Relaxed) {
            log::error!(
                "{name}: {unreadable} messages for user {} are larger than max_allowed_packet and stay in the table until it \
                 is raised; others like them are not logged",
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

/// The code that both kinds of tables share.
impl Base {
    pub(super) fn append(&self, messages: &[NewMessage]) -> Result<Vec<AppendOutcome>, StoreError> {
        let recipients: BTreeSet<UserId> = messages.iter().map(|message| message.to).collect();
        let existing: FxHashSet<UserId> = self.calls.call(|db, _| existing(db, &recipients))?;
        let mut bytes_max = usize::MAX;
        loop {
            // The limit of the database is known once a connection is open, and may have changed
            // since.
            let outcome = |message: &NewMessage| match existing.contains(&message.to) {
                false => AppendOutcome::NoSuchUser,
                true if self.fits(&message.text) => AppendOutcome::Stored,
                true => AppendOutcome::TooLong,
            };
            let kept: Vec<AppendOutcome> = messages.iter().map(outcome).collect();
            let stored = messages.iter().zip(&kept).filter(|(_, kept)| **kept == AppendOutcome::Stored);
            let rows: Vec<&NewMessage> = stored.map(|(message, _)| message).collect();
            bytes_max = bytes_max.min(self.limits.text_bytes()).min(shapes::RUN_BYTES_MAX);
            let runs = runs_of(&rows, bytes_max);
            let inserted = match runs.as_slice() {
                [] => Ok(()),
                [run] => self.calls.call(|db, _| insert(db, run)),
                runs => self.calls.transaction(Repeat::Freely, |db| runs.iter().try_for_each(|run| insert(db, run))),
            };
            match inserted {
                Ok(()) => return Ok(kept),
                // The database takes less than it says, or less than it did: it is given less until
                // it takes it.
                Err(StoreError::Failed(cause)) if cause.is::<TooLarge>() && runs.iter().any(|run| run.len() > 1) => {
                    bytes_max /= 2;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn fits(&self, text: &str) -> bool {
        text.len() <= self.limits.text_bytes() && self.schema.fits(text)
    }

    pub(super) fn mailbox_bytes(&self, user: UserId) -> Result<usize, StoreError> {
        let bytes: Option<u64> = self.calls.call(|db, _| {
            let statement = "SELECT CAST(COALESCE(SUM(LENGTH(message) + :each), 0) AS UNSIGNED) AS bytes
                             FROM OfflineMessage WHERE userid = :user";
            let row = db.exec_first(statement, params! {"user" => user.0, "each" => ROW_BYTES})?;
            row.map(|mut row: Row| column(&mut row, "bytes")).transpose()
        })?;
        Ok(usize::try_from(bytes.unwrap_or(0)).unwrap_or(usize::MAX))
    }
}

/// One run of rows, as one statement.
fn insert(connection: &mut impl Queryable, rows: &[&NewMessage]) -> mysql::Result<()> {
    let values = rows.iter().flat_map(|row| [row.to.0.into(), Value::from(row.text.as_bytes())]);
    let statement = format!("INSERT INTO OfflineMessage (userid, message) VALUES {}", shapes::pairs(rows.len()));
    connection.exec_drop(statement, values.collect::<Vec<_>>())
}

/// Splits rows into runs for [`insert`], each of at most `bytes_max` bytes.
fn runs_of<'a>(mut rows: &'a [&'a NewMessage], bytes_max: usize) -> Vec<&'a [&'a NewMessage]> {
    let mut runs = Vec::new();
    while !rows.is_empty() {
        let (run, rest) = rows.split_at(shapes::run_length(rows.iter().map(|row| row.text.len()), bytes_max));
        runs.push(run);
        rows = rest;
    }
    runs
}

/// Those of `users` who exist.
fn existing(connection: &mut Conn, users: &BTreeSet<UserId>) -> mysql::Result<FxHashSet<UserId>> {
    let users: Vec<UserId> = users.iter().copied().collect();
    let mut existing = FxHashSet::default();
    for users in users.chunks(LIST_MAX) {
        let ids = shapes::padded(users.iter().map(|user| user.0.into()));
        let statement = format!("SELECT id FROM User WHERE id IN {}", shapes::list(ids.len()));
        existing.extend(ids_of(connection.exec(statement, ids)?)?);
    }
    Ok(existing)
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
        // One that is too long would have the whole page fail.
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
            // The rest of the page is read all the same: an error in it must not stay in the
            // connection.
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

/// How many rows are worth asking for, when `left` bytes are wanted after `rows` of them had
/// `bytes`.
fn next_page(left: usize, bytes: usize, rows: usize) -> usize {
    let size = bytes / rows.max(1);
    // One more, which tells that there is more than is wanted.
    (left / size.max(1) + 1).clamp(1, PAGE_MAX)
}

/// Deletes messages of `user`, one statement a list of ids.
fn delete(connection: &mut impl Queryable, user: UserId, ids: &[MessageId]) -> mysql::Result<()> {
    let list = shapes::padded(ids.iter().map(|id| id.0.into()));
    let statement = format!("DELETE FROM OfflineMessage WHERE userid = ? AND id IN {}", shapes::list(list.len()));
    let values: Vec<Value> = std::iter::once(user.0.into()).chain(list).collect();
    connection.exec_drop(statement, values)
}

/// Rows that are asked for at once: most mailboxes hold fewer than the first.
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
