//! Retention: deletes the lowest numbers first, a few at a time. Every conversation has its own
//! transaction, so that its senders wait for only a few rows.

use mysql::prelude::Queryable;
use mysql::{Conn, Row, Transaction};

use super::moments::now;
use crate::base::conversation::ConversationId;
use crate::store::StoreError;
use crate::store::history::head::BLOCK;
use crate::store::history::retention::{RetentionTurn, TURN_ROW};
use crate::store::history::{HistoryRetention, RETIRED_MAX, RetentionClaim, RetentionStep};
use crate::store::mysql::calls::{Calls, Repeat};
use crate::store::mysql::rows::column;

pub(super) fn step(
    calls: &Calls,
    retention: &HistoryRetention,
    after: ConversationId,
) -> Result<RetentionStep, StoreError> {
    let convs = calls.call(|db, _| candidates(db, retention, after))?;
    let next = convs.last().map(|(conv, _)| *conv).filter(|_| convs.len() == RETIRED_MAX);
    let mut step = RetentionStep { next: next.map(ConversationId::from_column), retired: 0, deleted: 0 };
    let last = convs.last().map(|(conv, _)| *conv);
    let mut left = RETIRED_MAX as i64;
    for (conv, _) in convs.iter().filter(|(_, has_work)| *has_work) {
        let gone = calls.transaction(Repeat::Freely, |db| retire(db, retention, *conv, left))?;
        left -= gone.retired.max(gone.deleted);
        step.retired += gone.retired.unsigned_abs();
        step.deleted += gone.deleted.unsigned_abs();
        if left <= 0 {
            if Some(*conv) != last {
                step.next = Some(ConversationId::from_column(*conv));
            }
            break;
        }
    }
    Ok(step)
}

/// The next conversations, and whether they need a change.
fn candidates(db: &mut Conn, retention: &HistoryRetention, after: ConversationId) -> mysql::Result<Vec<(i64, bool)>> {
    let rows = db.exec_iter(
        "SELECT c.id AS id, c.head AS head, c.floor AS floor,
             (SELECT m.time FROM Message AS m WHERE m.conv = c.id AND m.seq = c.floor + 1) AS first_time,
             (SELECT o.time FROM Message AS o WHERE o.conv = c.id AND o.seq <= c.floor ORDER BY o.seq LIMIT 1)
                 AS oldest_time
         FROM Conversation AS c WHERE c.id > ? ORDER BY c.id LIMIT ?",
        (after.column(), RETIRED_MAX),
    )?;
    rows.map(|row| {
        let mut row: Row = row?;
        let (head, floor): (i64, i64) = (column(&mut row, "head")?, column(&mut row, "floor")?);
        let first: Option<i64> = column(&mut row, "first_time")?;
        let oldest: Option<i64> = column(&mut row, "oldest_time")?;
        let has_work = head.saturating_sub(retention.newest) > floor
            || first.is_some_and(|time| time < retention.before)
            || oldest.is_some_and(|time| time < retention.ids_before);
        Ok((column(&mut row, "id")?, has_work))
    })
    .collect()
}

/// The deleted part of a conversation.
#[derive(Default)]
struct RetiredRows {
    retired: i64,
    deleted: i64,
}

/// Retires at most `max` messages of a conversation. A message younger than the time for which ids
/// are kept stays as a row without text, so that its repeat is found.
fn retire(db: &mut Transaction<'_>, retention: &HistoryRetention, conv: i64, max: i64) -> mysql::Result<RetiredRows> {
    let found = db.exec_first("SELECT head, floor FROM Conversation WHERE id = ? FOR UPDATE", (conv,))?;
    let Some((head, floor)): Option<(i64, i64)> = found else { return Ok(RetiredRows::default()) };
    let surplus = head.saturating_sub(retention.newest);
    let rows: Vec<(i64, i64, i64)> = db.exec(
        "SELECT seq, nth, time FROM Message WHERE conv = ? AND seq > ? ORDER BY seq LIMIT ?",
        (conv, floor, max),
    )?;
    let goes = |(seq, _, time): &&(i64, i64, i64)| *time < retention.before || *seq <= surplus;
    let reached = rows.iter().take_while(goes).last();
    let new_floor = reached.map_or(floor, |(seq, ..)| *seq);
    if let Some((seq, nth, _)) = reached {
        db.exec_drop("UPDATE Conversation SET floor = ?, floor_nth = ? WHERE id = ?", (seq, nth, conv))?;
        forget_changes(db, conv, *seq)?;
    }
    let (end, deleted) = delete_old(db, retention, conv, new_floor, max)?;
    if new_floor > floor.max(end) {
        let empty = "UPDATE Message SET text = '' WHERE conv = ? AND seq > ? AND seq <= ?";
        db.exec_drop(empty, (conv, floor.max(end), new_floor))?;
    }
    Ok(RetiredRows { retired: new_floor - floor, deleted })
}

/// Deletes rows up to the floor whose ids are too old to be repeated; they are the lowest ones.
/// Returns the number up to which none are left, and how many were deleted.
fn delete_old(
    db: &mut Transaction<'_>,
    retention: &HistoryRetention,
    conv: i64,
    floor: i64,
    max: i64,
) -> mysql::Result<(i64, i64)> {
    let end: Option<Option<i64>> = db.exec_first(
        "SELECT MAX(seq) FROM (SELECT seq, time FROM Message WHERE conv = ? AND seq <= ? ORDER BY seq LIMIT ?) AS lowest
         WHERE time < ?",
        (conv, floor, max, retention.ids_before),
    )?;
    let Some(end) = end.flatten() else { return Ok((0, 0)) };
    db.exec_drop("DELETE FROM Message WHERE conv = ? AND seq <= ?", (conv, end))?;
    Ok((end, i64::try_from(db.affected_rows()).unwrap_or(i64::MAX)))
}

/// Deletes edits and recalled numbers that no reader needs any more.
fn forget_changes(db: &mut Transaction<'_>, conv: i64, floor: i64) -> mysql::Result<()> {
    db.exec_drop("DELETE FROM Edit WHERE conv = ? AND seq <= ?", (conv, floor))?;
    // Blocks whose numbers are all deleted.
    let end = (floor + 1) / BLOCK;
    let gone: Option<i64> = db.exec_first(
        "SELECT CAST(COALESCE(SUM(count), 0) AS SIGNED) FROM Recalled WHERE conv = ? AND block < ?",
        (conv, end),
    )?;
    if let Some(gone) = gone.filter(|gone| *gone > 0) {
        db.exec_drop("DELETE FROM Recalled WHERE conv = ? AND block < ?", (conv, end))?;
        db.exec_drop("UPDATE Conversation SET recalled = recalled - ? WHERE id = ?", (gone, conv))?;
    }
    Ok(())
}

/// Whether a claim would be granted, as far as a read without a lock tells.
pub(super) fn may_claim(db: &mut Conn, claim: &RetentionClaim) -> mysql::Result<bool> {
    let turn = turn(db, "SELECT value FROM Meta WHERE id = ?")?;
    Ok(turn.claimed(claim, now(db)?).is_some())
}

/// Grants or refuses a claim.
pub(super) fn claim(db: &mut Transaction<'_>, claim: &RetentionClaim) -> mysql::Result<bool> {
    // Without this row, nodes would not wait for each other.
    let first = RetentionTurn::default().bytes();
    db.exec_drop("INSERT INTO Meta (id, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE id = id", (TURN_ROW, &first[..]))?;
    let turn = turn(db, LOCKED)?;
    let granted = turn.claimed(claim, now(db)?);
    granted.map_or(Ok(false), |turn| write_turn(db, &turn).map(|()| true))
}

/// Notes that the work is done.
pub(super) fn end(db: &mut Transaction<'_>, claim: &RetentionClaim) -> mysql::Result<()> {
    let turn = turn(db, LOCKED)?;
    let ended = turn.ended(claim, now(db)?);
    ended.map_or(Ok(()), |turn| write_turn(db, &turn))
}

fn turn(db: &mut impl Queryable, statement: &str) -> mysql::Result<RetentionTurn> {
    let found: Option<Vec<u8>> = db.exec_first(statement, (TURN_ROW,))?;
    Ok(found.map_or_else(RetentionTurn::default, |found| RetentionTurn::stored(&found)))
}

fn write_turn(db: &mut Transaction<'_>, turn: &RetentionTurn) -> mysql::Result<()> {
    db.exec_drop("UPDATE Meta SET value = ? WHERE id = ?", (&turn.bytes()[..], TURN_ROW))
}

const LOCKED: &str = "SELECT value FROM Meta WHERE id = ? FOR UPDATE";
