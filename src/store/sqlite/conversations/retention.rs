//! Retention: the lowest numbers go first, a few at a time.

use rusqlite::{Connection, OptionalExtension};

use crate::base::conversation::ConversationId;
use crate::store::history::head::BLOCK;
use crate::store::history::{RETIRED_MAX, Retention, RetentionStep};

pub(super) fn step(db: &Connection, retention: &Retention, after: ConversationId) -> rusqlite::Result<RetentionStep> {
    let convs: Vec<(i64, i64, i64)> = db
        .prepare_cached("SELECT id, head, floor FROM Conversation WHERE id > ?1 ORDER BY id LIMIT ?2")?
        .query_map([after.column(), RETIRED_MAX as i64], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let is_last = convs.len() < RETIRED_MAX;
    let (mut left, mut last) = (RETIRED_MAX as i64, after);
    for (conv, head, floor) in convs {
        left -= retire(db, retention, conv, head, floor, left)?;
        if left <= 0 {
            // There may be more of this one.
            let next = Some(ConversationId::from_column(conv - 1));
            return Ok(RetentionStep { next, retired: (RETIRED_MAX as i64 - left).unsigned_abs() });
        }
        last = ConversationId::from_column(conv);
    }
    Ok(RetentionStep { next: (!is_last).then_some(last), retired: (RETIRED_MAX as i64 - left).unsigned_abs() })
}

/// Retires at most `max` messages of a conversation. What is younger than ids are stored stays as a
/// row without text, so that its repeat is found.
fn retire(db: &Connection, retention: &Retention, conv: i64, head: i64, floor: i64, max: i64) -> rusqlite::Result<i64> {
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
    let new_floor = match reached {
        Some((seq, nth)) => {
            db.prepare_cached("UPDATE Conversation SET floor = ?2, floor_nth = ?3 WHERE id = ?1")?
                .execute([conv, seq, nth])?;
            db.prepare_cached("UPDATE Message SET text = '' WHERE conv = ?1 AND seq > ?2 AND seq <= ?3")?
                .execute([conv, floor, seq])?;
            forget_changes(db, conv, seq)?;
            seq
        }
        None => floor,
    };
    delete_old(db, retention, conv, new_floor, max)?;
    Ok(new_floor - floor)
}

/// Deletes rows up to the floor whose ids are too old to be repeated; they are the lowest ones.
fn delete_old(db: &Connection, retention: &Retention, conv: i64, floor: i64, max: i64) -> rusqlite::Result<()> {
    let end: Option<i64> = db
        .prepare_cached(
            "SELECT max(seq) FROM (SELECT seq, time FROM Message WHERE conv = ?1 AND seq <= ?2 ORDER BY seq LIMIT ?4)
             WHERE time < ?3",
        )?
        .query_row([conv, floor, retention.ids_before, max], |row| row.get(0))
        .optional()?
        .flatten();
    match end {
        Some(end) => {
            db.prepare_cached("DELETE FROM Message WHERE conv = ?1 AND seq <= ?2")?.execute([conv, end]).map(drop)
        }
        None => Ok(()),
    }
}

/// The edits and the recalled numbers that no reader needs any more.
fn forget_changes(db: &Connection, conv: i64, floor: i64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM Edit WHERE conv = ?1 AND seq <= ?2")?.execute([conv, floor])?;
    // Blocks of which every number is gone.
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
