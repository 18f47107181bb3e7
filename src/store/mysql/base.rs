//! [`Base`]: the parts that all roles work on, and the storing of messages, which is the same for
//! tables with ids and without.

use std::collections::BTreeSet;

use mysql::prelude::Queryable;
use mysql::{Conn, Row, Value, params};
use rustc_hash::{FxHashMap, FxHashSet};

use super::calls::{Calls, Repeat, TooLarge};
use super::dial::PacketLimits;
use super::rows::{column, ids_of};
use super::schema::Schema;
use super::shapes::{self, LIST_MAX};
use crate::base::conversation::ConversationId;
use crate::protocol::UserId;
use crate::store::{AppendOutcome, NewMessage, ROW_BYTES, StoreError};

/// The parts that all roles work on.
pub(super) struct Base {
    pub(super) name: String,
    pub(super) calls: Calls,
    pub(super) schema: Schema,
    pub(super) limits: PacketLimits,
}

/// The part of [`Messages`](crate::store::Messages) that is the same for tables with ids and
/// without.
impl Base {
    pub(super) fn append(&self, messages: &[NewMessage]) -> Result<Vec<AppendOutcome>, StoreError> {
        let recipients: BTreeSet<UserId> = messages.iter().map(|message| message.to).collect();
        let existing: FxHashSet<UserId> = self.calls.call(|db, _| existing(db, &recipients))?;
        let heads = self.heads(messages)?;
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
                [run] => self.calls.call(|db, _| insert(db, run, heads.as_ref())),
                runs => self
                    .calls
                    .transaction(Repeat::Freely, |db| runs.iter().try_for_each(|run| insert(db, run, heads.as_ref()))),
            };
            match inserted {
                Ok(()) => return Ok(kept),
                // The database takes less than it reports, or less than before: the batch is split
                // until it takes the parts.
                Err(StoreError::Failed(cause)) if cause.is::<TooLarge>() && runs.iter().any(|run| run.len() > 1) => {
                    bytes_max /= 2;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The heads of the conversations of recorded messages. These messages are not above them.
    fn heads(&self, messages: &[NewMessage]) -> Result<Option<FxHashMap<i64, i64>>, StoreError> {
        let convs: BTreeSet<i64> =
            messages.iter().filter_map(|message| message.recorded).map(|conv| conv.column()).collect();
        if convs.is_empty() || !self.schema.has_history {
            return Ok(None);
        }
        let convs: Vec<i64> = convs.into_iter().collect();
        let mut heads = FxHashMap::default();
        for convs in convs.chunks(LIST_MAX) {
            let list = shapes::padded(convs.iter().map(|conv| (*conv).into()));
            let statement = format!("SELECT id, head FROM Conversation WHERE id IN {}", shapes::list(list.len()));
            let found: Vec<(i64, i64)> = self.calls.call(|db, _| db.exec(&statement, list.clone()))?;
            heads.extend(found);
        }
        Ok(Some(heads))
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

/// Inserts one run of rows by one statement. Either all of them have a mark, or none has.
fn insert(
    connection: &mut impl Queryable,
    rows: &[&NewMessage],
    heads: Option<&FxHashMap<i64, i64>>,
) -> mysql::Result<()> {
    if let Some(heads) = heads.filter(|_| rows.iter().any(|row| row.recorded.is_some())) {
        let values = rows.iter().flat_map(|row| {
            let conv = row.recorded.map_or(0, ConversationId::column);
            let seq = heads.get(&conv).copied().unwrap_or_default();
            [row.to.0.into(), Value::from(row.text.as_bytes()), conv.into(), seq.into()]
        });
        let tuples = shapes::tuples(rows.len(), 4);
        let statement = format!("INSERT INTO OfflineMessage (userid, message, conv, seq) VALUES {tuples}");
        return connection.exec_drop(statement, values.collect::<Vec<_>>());
    }
    let values = rows.iter().flat_map(|row| [row.to.0.into(), Value::from(row.text.as_bytes())]);
    let statement = format!("INSERT INTO OfflineMessage (userid, message) VALUES {}", shapes::pairs(rows.len()));
    connection.exec_drop(statement, values.collect::<Vec<_>>())
}

/// Splits rows into runs for [`insert`], each of at most `bytes_max` bytes.
fn runs_of<'a>(mut rows: &'a [&'a NewMessage], bytes_max: usize) -> Vec<&'a [&'a NewMessage]> {
    let mut runs = Vec::new();
    while let Some(first) = rows.first() {
        let alike = rows.iter().take_while(|row| row.recorded.is_some() == first.recorded.is_some());
        let (run, rest) = rows.split_at(shapes::run_length(alike.map(|row| row.text.len()), bytes_max));
        runs.push(run);
        rows = rest;
    }
    runs
}

/// The users of these who exist.
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
