//! Kept messages: the table `OfflineMessage`, with ids and, as the reference server made it, without.
//!
//! Without ids nothing tells two equal rows apart, and nothing needs to: equal messages of one user are as good as each
//! other, if only as many are deleted as were returned. So the id of a message there is a hash of its text and of how many
//! equal ones come before it. Rows come in the order they were inserted, because a table without a key is kept in the
//! order of a hidden one.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;

use mysql::prelude::Queryable;
use mysql::{Conn, Transaction, Value, params};
use rustc_hash::{FxHashMap, FxHashSet};

use super::shapes::{self, LIST_MAX};
use super::{column, ids_of};
use crate::protocol::UserId;
use crate::store::{KeptMessage, Message, MessageId};

/// One run of rows, as one statement.
pub(super) fn insert(connection: &mut impl Queryable, rows: &[&Message]) -> mysql::Result<()> {
    let values = rows.iter().flat_map(|row| [row.to.0.into(), Value::from(row.text.as_bytes())]);
    let statement = format!("INSERT INTO OfflineMessage (userid, message) VALUES {}", shapes::pairs(rows.len()));
    connection.exec_drop(statement, values.collect::<Vec<_>>())
}

/// Splits rows into runs for [`insert`], of so many bytes at most.
pub(super) fn runs<'a>(mut rows: &'a [&'a Message], bytes_max: usize) -> Vec<&'a [&'a Message]> {
    let mut runs = Vec::new();
    while !rows.is_empty() {
        let (run, rest) = rows.split_at(shapes::run_length(rows.iter().map(|row| row.text.len()), bytes_max));
        runs.push(run);
        rows = rest;
    }
    runs
}

/// Those of `users` who exist.
pub(super) fn existing(connection: &mut Conn, users: &BTreeSet<UserId>) -> mysql::Result<FxHashSet<UserId>> {
    let users: Vec<UserId> = users.iter().copied().collect();
    let mut existing = FxHashSet::default();
    for users in users.chunks(LIST_MAX) {
        let ids = shapes::padded(users.iter().map(|user| user.0.into()));
        let statement = format!("SELECT id FROM User WHERE id IN {}", shapes::list(ids.len()));
        existing.extend(ids_of(connection.exec(statement, ids)?)?);
    }
    Ok(existing)
}

/// The oldest messages of `user`, page by page, and how many were passed over because the database cannot send more than
/// `row_bytes_max` of text in a row. A page has as many rows as probably are asked for, and its rows are read one by one:
/// no more is in memory than asked for, and little more comes from the database.
pub(super) fn fetch(
    connection: &mut Conn,
    user: UserId,
    bytes_max: usize,
    row_bytes_max: usize,
) -> mysql::Result<(Vec<KeptMessage>, usize)> {
    let (mut kept, mut unreadable, mut bytes, mut after) = (Vec::new(), 0, 0, i64::MIN);
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
            if bytes > bytes_max && !kept.is_empty() {
                return Ok((kept, unreadable));
            }
            kept.push(KeptMessage { id: MessageId(id), text });
        }
        if count < page {
            return Ok((kept, unreadable));
        }
        page = next_page(bytes_max.saturating_sub(bytes), bytes, kept.len());
    }
}

/// How many rows are worth asking for, when `left` bytes are wanted after `rows` of them had `bytes`.
fn next_page(left: usize, bytes: usize, rows: usize) -> usize {
    let size = bytes / rows.max(1);
    // One more, which tells that there is more than is wanted.
    (left / size.max(1) + 1).clamp(1, PAGE_MAX)
}

/// Deletes messages of `user`, one statement a list of ids.
pub(super) fn delete(connection: &mut impl Queryable, user: UserId, ids: &[MessageId]) -> mysql::Result<()> {
    let list = shapes::padded(ids.iter().map(|id| id.0.into()));
    let statement = format!("DELETE FROM OfflineMessage WHERE userid = ? AND id IN {}", shapes::list(list.len()));
    let values: Vec<Value> = std::iter::once(user.0.into()).chain(list).collect();
    connection.exec_drop(statement, values)
}

/// [`fetch`] from a table without ids.
pub(super) fn fetch_keyless(
    connection: &mut Conn,
    user: UserId,
    bytes_max: usize,
    hashes: &RandomState,
) -> mysql::Result<Vec<KeptMessage>> {
    let statement = "SELECT message FROM OfflineMessage WHERE userid = :user LIMIT 65536";
    let rows = connection.exec_iter(statement, params! {"user" => user.0})?;
    let (mut kept, mut bytes) = (Vec::new(), 0);
    let mut seen: FxHashMap<String, u64> = FxHashMap::default();
    for row in rows {
        let mut row = row?;
        // The reference server never writes NULL, and its clients could not read it.
        let Some(text) = column::<Option<String>>(&mut row, "message")? else { continue };
        bytes += text.len();
        if bytes > bytes_max && !kept.is_empty() {
            break;
        }
        let nth = seen.entry(text.clone()).or_default();
        kept.push(KeptMessage { id: keyless_id(hashes, &text, *nth), text });
        *nth += 1;
    }
    Ok(kept)
}

/// [`delete`] from a table without ids: of each text as many rows as were returned, the oldest.
pub(super) fn delete_keyless(
    transaction: &mut Transaction<'_>,
    user: UserId,
    ids: &[MessageId],
    hashes: &RandomState,
    bytes_max: usize,
) -> mysql::Result<()> {
    let ids: FxHashSet<MessageId> = ids.iter().copied().collect();
    // Hash of a text -> rows there are; and only of what is deleted, text -> rows to delete.
    let (mut rows_of, mut doomed) = (FxHashMap::default(), BTreeMap::<String, u64>::new());
    let statement = "SELECT message FROM OfflineMessage WHERE userid = :user FOR UPDATE";
    for row in transaction.exec_iter(statement, params! {"user" => user.0})? {
        let Some(text) = column::<Option<String>>(&mut row?, "message")? else { continue };
        let rows: &mut u64 = rows_of.entry(hashes.hash_one(&text)).or_default();
        let id = keyless_id(hashes, &text, *rows);
        *rows += 1;
        if ids.contains(&id) {
            *doomed.entry(text).or_default() += 1;
        }
    }
    let with_rows = |(text, doomed)| {
        let rows = rows_of.get(&hashes.hash_one(&text)).copied().unwrap_or(doomed);
        (text, (rows, doomed))
    };
    let texts = doomed.into_iter().map(with_rows);
    let (whole, part): (Vec<_>, Vec<_>) = texts.partition(|(_, (rows, doomed))| rows == doomed);
    // A list is padded to up to twice its length.
    let longest = whole.iter().map(|(text, _)| 2 * text.len()).max().unwrap_or_default().max(1);
    for texts in whole.chunks((bytes_max / longest).clamp(1, KEYLESS_LIST_MAX)) {
        // The limit spares an equal message that came in meanwhile: it is behind these.
        let rows = texts.iter().map(|(_, (rows, _))| rows).sum();
        delete_texts(transaction, user, texts.iter().map(|(text, _)| text), rows)?;
    }
    for (text, (_, doomed)) in part {
        delete_texts(transaction, user, std::iter::once(&text), doomed)?;
    }
    Ok(())
}

/// Deletes the first `rows` rows that hold one of `texts`, compared byte by byte whatever the column's collation.
fn delete_texts<'a>(
    transaction: &mut Transaction<'_>,
    user: UserId,
    texts: impl Iterator<Item = &'a String>,
    rows: u64,
) -> mysql::Result<()> {
    let list = shapes::padded(texts.map(|text| text.as_bytes().into()));
    let statement = format!(
        "DELETE FROM OfflineMessage WHERE userid = ? AND CAST(message AS BINARY) IN {} LIMIT ?",
        shapes::list(list.len())
    );
    let values: Vec<Value> = std::iter::once(user.0.into()).chain(list).chain([rows.into()]).collect();
    transaction.exec_drop(statement, values)
}

fn keyless_id(hashes: &RandomState, text: &str, nth: u64) -> MessageId {
    MessageId(hashes.hash_one((text, nth)).cast_signed())
}

/// Rows that are asked for at once: most mailboxes hold fewer than the first.
const FIRST_PAGE: usize = 32;
const PAGE_MAX: usize = 1024;

/// The rows are at most 2000 bytes each.
const KEYLESS_LIST_MAX: usize = 256;

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
