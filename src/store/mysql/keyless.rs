//! [`KeylessMessages`]: stored messages in a table without ids, as the reference server made it.
//!
//! Equal rows cannot be told apart, and need not be: it only matters that as many rows are deleted
//! as were returned. So the id of a message is a hash of its text and of the number of equal
//! messages before it. Rows come in the order of insertion, because InnoDB orders a table without a
//! key by a hidden one.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use mysql::prelude::Queryable;
use mysql::{Conn, Transaction, Value, params};
use rustc_hash::{FxHashMap, FxHashSet};

use super::base::Base;
use super::calls::Repeat;
use super::rows::column;
use super::shapes;
use crate::protocol::UserId;
use crate::store::{AppendOutcome, KeptMessage, MessageId, Messages, NewMessage, StoreError};

/// Messages in a table whose rows have no ids.
pub(super) struct KeylessMessages {
    base: Arc<Base>,
    /// The hash for ids. It is keyed, so that no client can write texts with equal ids.
    hashes: RandomState,
}

impl KeylessMessages {
    pub(super) fn of(base: Arc<Base>) -> KeylessMessages {
        KeylessMessages { base, hashes: RandomState::new() }
    }
}

impl Messages for KeylessMessages {
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
        self.base.calls.call(|db, _| fetch(db, user, bytes_max, &self.hashes))
    }

    fn delete(&self, user: UserId, ids: &[MessageId]) -> Result<(), StoreError> {
        let text_bytes = self.base.limits.text_bytes();
        // Repeated, it would delete an equal message that was not returned.
        self.base.calls.transaction(Repeat::IfUndone, |db| delete(db, user, ids, &self.hashes, text_bytes))
    }
}

/// The oldest messages of `user`. Reads no more than requested.
fn fetch(
    connection: &mut Conn,
    user: UserId,
    bytes_max: usize,
    hashes: &RandomState,
) -> mysql::Result<Vec<KeptMessage>> {
    let statement = "SELECT message FROM OfflineMessage WHERE userid = :user LIMIT 65536";
    let rows = connection.exec_iter(statement, params! {"user" => user.0})?;
    let (mut kept, mut bytes, mut is_full) = (Vec::new(), 0, false);
    let mut seen: FxHashMap<String, u64> = FxHashMap::default();
    for row in rows {
        let mut row = row?;
        // The reference server never writes NULL, and its clients could not read it.
        let Some(text) = column::<Option<String>>(&mut row, "message")? else { continue };
        bytes += text.len();
        // The other rows are read as well: an error in them must not stay in the connection.
        is_full |= bytes > bytes_max && !kept.is_empty();
        if is_full {
            continue;
        }
        let nth = seen.entry(text.clone()).or_default();
        kept.push(KeptMessage { id: id_of(hashes, &text, *nth), text });
        *nth += 1;
    }
    Ok(kept)
}

/// Deletes, for each text, as many of the oldest rows as were returned.
fn delete(
    transaction: &mut Transaction<'_>,
    user: UserId,
    ids: &[MessageId],
    hashes: &RandomState,
    bytes_max: usize,
) -> mysql::Result<()> {
    let ids: FxHashSet<MessageId> = ids.iter().copied().collect();
    // Hash of a text -> existing rows; and, for the messages to delete, text -> rows to delete.
    let (mut rows_of, mut doomed) = (FxHashMap::default(), BTreeMap::<String, u64>::new());
    let statement = "SELECT message FROM OfflineMessage WHERE userid = :user FOR UPDATE";
    for row in transaction.exec_iter(statement, params! {"user" => user.0})? {
        let Some(text) = column::<Option<String>>(&mut row?, "message")? else { continue };
        let rows: &mut u64 = rows_of.entry(hashes.hash_one(&text)).or_default();
        let id = id_of(hashes, &text, *rows);
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
    for texts in whole.chunks((bytes_max / longest).clamp(1, LIST_MAX)) {
        // The limit spares an equal message that has come meanwhile, because it is after these.
        let rows = texts.iter().map(|(_, (rows, _))| rows).sum();
        delete_texts(transaction, user, texts.iter().map(|(text, _)| text), rows)?;
    }
    for (text, (_, doomed)) in part {
        delete_texts(transaction, user, std::iter::once(&text), doomed)?;
    }
    Ok(())
}

/// Deletes the first `rows` rows that hold one of `texts`, compared byte by byte regardless of the
/// column's collation.
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

fn id_of(hashes: &RandomState, text: &str, nth: u64) -> MessageId {
    MessageId(hashes.hash_one((text, nth)).cast_signed())
}

/// The most texts in a list. Rows have at most 2000 bytes.
const LIST_MAX: usize = 256;
