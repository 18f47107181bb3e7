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
use mysql::{Conn, Row, Transaction, Value, params};
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

/// The oldest messages of `user`, page by page, so that no more is read than asked for, and how many were passed over
/// because the database cannot send more than `row_bytes_max` of text in a row.
pub(super) fn fetch(
    connection: &mut Conn,
    user: UserId,
    bytes_max: usize,
    row_bytes_max: usize,
) -> mysql::Result<(Vec<KeptMessage>, usize)> {
    let (mut kept, mut unreadable, mut bytes, mut after) = (Vec::new(), 0, 0, i64::MIN);
    loop {
        // One that is too long would have the whole page fail.
        let rows: Vec<Row> = connection.exec(
            "SELECT id, IF(OCTET_LENGTH(message) > :row_bytes_max, NULL, message) AS message
             FROM OfflineMessage WHERE userid = :user AND id > :after ORDER BY id LIMIT 256",
            params! {"user" => user.0, after, row_bytes_max},
        )?;
        let is_last = rows.len() < PAGE;
        for mut row in rows {
            let (id, text): (i64, Option<String>) = (column(&mut row, "id")?, column(&mut row, "message")?);
            after = id;
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
        if is_last {
            return Ok((kept, unreadable));
        }
    }
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
    let rows: Vec<Row> = connection
        .exec("SELECT message FROM OfflineMessage WHERE userid = :user LIMIT 65536", params! {"user" => user.0})?;
    let (mut kept, mut bytes) = (Vec::new(), 0);
    let mut seen: FxHashMap<String, u64> = FxHashMap::default();
    for mut row in rows {
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
    let rows: Vec<Row> = transaction
        .exec("SELECT message FROM OfflineMessage WHERE userid = :user FOR UPDATE", params! {"user" => user.0})?;
    let ids: FxHashSet<MessageId> = ids.iter().copied().collect();
    // Text -> rows there are, rows to delete.
    let mut texts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for mut row in rows {
        let Some(text) = column::<Option<String>>(&mut row, "message")? else { continue };
        let id = keyless_id(hashes, &text, texts.get(&text).map_or(0, |counts| counts.0));
        let counts = texts.entry(text).or_default();
        counts.0 += 1;
        counts.1 += u64::from(ids.contains(&id));
    }
    texts.retain(|_, (_, doomed)| *doomed > 0);
    let (whole, part): (Vec<_>, Vec<_>) = texts.into_iter().partition(|(_, (rows, doomed))| rows == doomed);
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

/// As in the statement.
const PAGE: usize = 256;

/// The rows are at most 2000 bytes each.
const KEYLESS_LIST_MAX: usize = 256;
