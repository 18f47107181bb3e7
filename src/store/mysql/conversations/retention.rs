//! Retention: the lowest numbers go first, a few at a time. Every conversation has a transaction of
//! its own, so that its senders wait for a few rows at most.

use mysql::prelude::Queryable;
use mysql::{Conn, Row, Transaction};

use crate::base::conversation::ConversationId;
use crate::store::StoreError;
use crate::store::history::head::BLOCK;
use crate::store::history::{RETIRED_MAX, Retention, RetentionStep};
use crate::store::mysql::calls::{Calls, Repeat};
use crate::store::mysql::rows::column;

pub(super) fn step(calls: &Calls, retention: &Retention, after: ConversationId) -> Result<RetentionStep, StoreError> {
    let convs = calls.call(|db, _| candidates(db, retention, after))?;
    let is_last = convs.len() < RETIRED_MAX;
    let (mut left, mut last) = (RETIRED_MAX as i64, after.column());
    let retired = |left: i64| (RETIRED_MAX as i64 - left).unsigned_abs();
    for (conv, has_work) in convs {
        if has_work {
            left -= calls.transaction(Repeat::Freely, |db| retire(db, retention, conv, left))?;
        }
        if left <= 0 {
            // There may be more of this one.
            return Ok(RetentionStep { next: Some(ConversationId::from_column(conv - 1)), retired: retired(left) });
        }
        last = conv;
    }
    let next = (!is_last).then_some(ConversationId::from_column(last));
    Ok(RetentionStep { next, retired: retired(left) })
}

/// The next conversations, and whether there is something to do in them.
fn candidates(db: &mut Conn, retention: &Retention, after: ConversationId) -> mysql::Result<Vec<(i64, bool)>> {
    let rows = db.exec_iter(
        "SELECT c.id AS id, c.head AS head, c.floor AS floor,
             (SELECT m.time FROM Message AS m WHERE m.conv = c.id AND m.seq = c.floor + 1) AS first_time,
             (SELECT o.time FROM Message AS o WHERE o.conv = c.id ORDER BY o.seq LIMIT 1) AS oldest_time
         FROM Conversation AS c WHERE c.id > ? ORDER BY c.id LIMIT ?",
        (after.column(), RETIRED_MAX),
    )?;
    rows.map(|row| {
        let mut row: Row = row?;
        let (head, floor): (i64, i64) = (column(&mut row, "head")?, column(&mut row, "floor")?);
        let first: Option<i64> = column(&mut row, "first_time")?;
        let oldest: Option<i64> = column(&mut row, "oldest_time")?;
        let is_retired = head.saturating_sub(retention.newest) > floor
            || first.is_some_and(|time| time < retention.before)
            || floor > 0 && oldest.is_some_and(|time| time < retention.ids_before);
        Ok((column(&mut row, "id")?, is_retired))
    })
    .collect()
}

/// Retires at most `max` messages of a conversation. What is younger than ids are stored stays as a
/// row without text, so that its repeat is found.
fn retire(db: &mut Transaction<'_>, retention: &Retention, conv: i64, max: i64) -> mysql::Result<i64> {
    let found = db.exec_first("SELECT head, floor FROM Conversation WHERE id = ? FOR UPDATE", (conv,))?;
    let Some((head, floor)): Option<(i64, i64)> = found else { return Ok(0) };
    let surplus = head.saturating_sub(retention.newest);
    let rows: Vec<(i64, i64, i64)> = db.exec(
        "SELECT seq, nth, time FROM Message WHERE conv = ? AND seq > ? ORDER BY seq LIMIT ?",
        (conv, floor, max),
    )?;
    let goes = |(seq, _, time): &&(i64, i64, i64)| *time < retention.before || *seq <= surplus;
    let reached = rows.iter().take_while(goes).last();
    let new_floor = match reached {
        Some((seq, nth, _)) => {
            db.exec_drop("UPDATE Conversation SET floor = ?, floor_nth = ? WHERE id = ?", (seq, nth, conv))?;
            db.exec_drop("UPDATE Message SET text = '' WHERE conv = ? AND seq > ? AND seq <= ?", (conv, floor, seq))?;
            forget_changes(db, conv, *seq)?;
            *seq
        }
        None => floor,
    };
    delete_old(db, retention, conv, new_floor, max)?;
    Ok(new_floor - floor)
}

/// Deletes rows up to the floor whose ids are too old to be repeated; they are the lowest ones.
fn delete_old(db: &mut Transaction<'_>, retention: &Retention, conv: i64, floor: i64, max: i64) -> mysql::Result<()> {
    let end: Option<Option<i64>> = db.exec_first(
        "SELECT MAX(seq) FROM (SELECT seq, time FROM Message WHERE conv = ? AND seq <= ? ORDER BY seq LIMIT ?) AS lowest
         WHERE time < ?",
        (conv, floor, max, retention.ids_before),
    )?;
    match end.flatten() {
        Some(end) => db.exec_drop("DELETE FROM Message WHERE conv = ? AND seq <= ?", (conv, end)),
        None => Ok(()),
    }
}

/// The edits and the recalled numbers that no reader needs any more.
fn forget_changes(db: &mut Transaction<'_>, conv: i64, floor: i64) -> mysql::Result<()> {
    db.exec_drop("DELETE FROM Edit WHERE conv = ? AND seq <= ?", (conv, floor))?;
    // Blocks of which every number is gone.
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
