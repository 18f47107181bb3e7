//! Retention: deletes the lowest numbers first, a few at a time.

use rusqlite::{Connection, OptionalExtension};

use super::moments::now;
use crate::base::conversation::ConversationId;
use crate::store::StoreError;
use crate::store::history::head::BLOCK;
use crate::store::history::retention::{RetentionTurn, TURN_ROW};
use crate::store::history::{HistoryRetention, RETIRED_MAX, RetentionClaim, RetentionStep};
use crate::store::sqlite::late::Late;

/// Examines the next conversations on a reading connection, and changes only those that need it,
/// all in one short transaction.
pub(super) fn step(
    live: &Late,
    retention: &HistoryRetention,
    after: ConversationId,
) -> Result<RetentionStep, StoreError> {
    let convs = live.read(|db| candidates(db, retention, after))?;
    let last = convs.last().map(|(conv, _)| *conv).filter(|_| convs.len() == RETIRED_MAX);
    let work: Vec<i64> = convs.iter().filter(|(_, has_work)| *has_work).map(|(conv, _)| *conv).collect();
    let mut step = RetentionStep { next: last.map(ConversationId::from_column), retired: 0, deleted: 0 };
    let Some(&last_work) = work.last() else { return Ok(step) };
    let retention = *retention;
    let (reached, retired, deleted) = live.change(move |db| {
        let (mut left, mut retired, mut deleted, mut reached) = (RETIRED_MAX as i64, 0, 0, last_work);
        for conv in &work {
            let gone = retire(db, &retention, *conv, left)?;
            left -= gone.retired.max(gone.deleted);
            retired += gone.retired;
            deleted += gone.deleted;
            if left <= 0 {
                reached = *conv;
                break;
            }
        }
        Ok((reached, retired, deleted))
    })?;
    if reached != last_work {
        step.next = Some(ConversationId::from_column(reached));
    }
    Ok(RetentionStep { retired: retired.unsigned_abs(), deleted: deleted.unsigned_abs(), ..step })
}

/// The next conversations, and whether they need a change.
fn candidates(
    db: &Connection,
    retention: &HistoryRetention,
    after: ConversationId,
) -> rusqlite::Result<Vec<(i64, bool)>> {
    let mut query = db.prepare_cached(
        "SELECT c.id, c.head, c.floor,
             (SELECT m.time FROM Message AS m WHERE m.conv = c.id AND m.seq = c.floor + 1),
             (SELECT o.time FROM Message AS o WHERE o.conv = c.id AND o.seq <= c.floor ORDER BY o.seq LIMIT 1)
         FROM Conversation AS c WHERE c.id > ?1 ORDER BY c.id LIMIT ?2",
    )?;
    let rows = query.query_map([after.column(), RETIRED_MAX as i64], |row| {
        let (head, floor): (i64, i64) = (row.get(1)?, row.get(2)?);
        let (first, oldest): (Option<i64>, Option<i64>) = (row.get(3)?, row.get(4)?);
        let has_work = head.saturating_sub(retention.newest) > floor
            || first.is_some_and(|time| time < retention.before)
            || oldest.is_some_and(|time| time < retention.ids_before);
        Ok((row.get(0)?, has_work))
    })?;
    rows.collect()
}

/// The deleted part of a conversation.
struct RetiredRows {
    retired: i64,
    deleted: i64,
}

/// Retires at most `max` messages of a conversation. A message younger than the time for which ids
/// are kept stays as a row without text, so that its repeat is found.
fn retire(db: &Connection, retention: &HistoryRetention, conv: i64, max: i64) -> rusqlite::Result<RetiredRows> {
    let (head, floor): (i64, i64) = db
        .prepare_cached("SELECT head, floor FROM Conversation WHERE id = ?1")?
        .query_row([conv], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let surplus = head.saturating_sub(retention.newest);
    let mut query =
        db.prepare_cached("SELECT seq, nth, time FROM Message WHERE conv = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3")?;
    let mut rows = query.query([conv, floor, max])?;
    let mut reached = None;
    while let Some(row) = rows.next()? {
        let (seq, nth, time): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if time >= retention.before && seq > surplus {
            break;
        }
        reached = Some((seq, nth));
    }
    let new_floor = reached.map_or(floor, |(seq, _)| seq);
    if let Some((seq, nth)) = reached {
        db.prepare_cached("UPDATE Conversation SET floor = ?2, floor_nth = ?3 WHERE id = ?1")?
            .execute([conv, seq, nth])?;
        forget_changes(db, conv, seq)?;
    }
    let (end, deleted) = delete_old(db, retention, conv, new_floor, max)?;
    if new_floor > floor.max(end) {
        db.prepare_cached("UPDATE Message SET text = '' WHERE conv = ?1 AND seq > ?2 AND seq <= ?3")?.execute([
            conv,
            floor.max(end),
            new_floor,
        ])?;
    }
    Ok(RetiredRows { retired: new_floor - floor, deleted })
}

/// Deletes rows up to the floor whose ids are too old to be repeated; they are the lowest ones.
/// Returns the number up to which none are left, and how many were deleted.
fn delete_old(
    db: &Connection,
    retention: &HistoryRetention,
    conv: i64,
    floor: i64,
    max: i64,
) -> rusqlite::Result<(i64, i64)> {
    let end: Option<i64> = db
        .prepare_cached(
            "SELECT max(seq) FROM (SELECT seq, time FROM Message WHERE conv = ?1 AND seq <= ?2 ORDER BY seq LIMIT ?4)
             WHERE time < ?3",
        )?
        .query_row([conv, floor, retention.ids_before, max], |row| row.get(0))
        .optional()?
        .flatten();
    let Some(end) = end else { return Ok((0, 0)) };
    let deleted = db.prepare_cached("DELETE FROM Message WHERE conv = ?1 AND seq <= ?2")?.execute([conv, end])?;
    Ok((end, deleted as i64))
}

/// Deletes edits and recalled numbers that no reader needs any more.
fn forget_changes(db: &Connection, conv: i64, floor: i64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM Edit WHERE conv = ?1 AND seq <= ?2")?.execute([conv, floor])?;
    // Blocks whose numbers are all deleted.
    let gone: i64 = db
        .prepare_cached("SELECT coalesce(sum(count), 0) FROM Recalled WHERE conv = ?1 AND block < ?2")?
        .query_row([conv, (floor + 1) / BLOCK], |row| row.get(0))?;
    if gone > 0 {
        db.prepare_cached("DELETE FROM Recalled WHERE conv = ?1 AND block < ?2")?
            .execute([conv, (floor + 1) / BLOCK])?;
        db.prepare_cached("UPDATE Conversation SET recalled = recalled - ?2 WHERE id = ?1")?.execute([conv, gone])?;
    }
    Ok(())
}

fn turn(db: &Connection) -> rusqlite::Result<RetentionTurn> {
    let found: Option<Vec<u8>> = db
        .prepare_cached("SELECT value FROM Meta WHERE id = ?1")?
        .query_row([TURN_ROW], |row| row.get(0))
        .optional()?;
    Ok(found.map_or_else(RetentionTurn::default, |found| RetentionTurn::stored(&found)))
}

/// The turn that this claim gets, if any. A file belongs to one process, so nobody else changes it
/// meanwhile.
pub(super) fn claimed(db: &Connection, claim: &RetentionClaim) -> rusqlite::Result<Option<RetentionTurn>> {
    Ok(turn(db)?.claimed(claim, now()))
}

pub(super) fn write_turn(db: &Connection, turn: &RetentionTurn) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO Meta (id, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value")?
        .execute((TURN_ROW, &turn.bytes()[..]))
        .map(drop)
}

pub(super) fn end(db: &Connection, claim: &RetentionClaim) -> rusqlite::Result<()> {
    match turn(db)?.ended(claim, now()) {
        Some(turn) => write_turn(db, &turn),
        None => Ok(()),
    }
}
