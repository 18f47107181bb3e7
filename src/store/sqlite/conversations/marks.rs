//! Raising marks.

use rusqlite::{Connection, OptionalExtension, params};

use super::moments::now;
use super::{mailbox, reading};
use crate::base::conversation::ConversationId;
use crate::protocol::UserId;
use crate::store::history::{Denied, DeviceId, Head, Marked, RaisedMark};

/// Gives the user rows in these groups, in which only later messages are visible.
pub(super) fn adopt(db: &Connection, user: UserId, groups: &[ConversationId]) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO Member (conv, user, joined, joined_nth)
         SELECT id, ?2, head + 1, count FROM Conversation WHERE id = ?1 ON CONFLICT DO NOTHING",
    )?;
    groups.iter().try_for_each(|group| insert.execute(params![group.column(), user.0]).map(drop))
}

/// The reports of a device.
pub(super) fn cursors(db: &Connection, device: DeviceId) -> rusqlite::Result<Vec<(ConversationId, i64)>> {
    db.prepare_cached("SELECT conv, seq FROM DeviceCursor WHERE device = ?1 ORDER BY conv")?
        .query_map([device.0], |row| Ok((ConversationId::from_column(row.get(0)?), row.get(1)?)))?
        .collect()
}

/// Raises the read mark of a user.
pub(super) fn read(
    db: &Connection,
    user: UserId,
    conv: ConversationId,
    read: i64,
) -> rusqlite::Result<Result<Marked, Denied>> {
    let before = match reading::head(db, user, conv)? {
        Ok(head) => head,
        Err(denied) => return Ok(Err(denied)),
    };
    let read = read.min(before.head);
    let has_risen = read > before.read;
    if has_risen {
        if conv.group().is_some() {
            adopt(db, user, &[conv])?;
        }
        // A deleted number counts as the floor, whose count is in the conversation.
        let nth: Option<i64> = db
            .prepare_cached("SELECT nth FROM Message WHERE conv = ?1 AND seq = ?2")?
            .query_row([conv.column(), read], |row| row.get(0))
            .optional()?;
        db.prepare_cached(
            "INSERT INTO Member (conv, user, read, read_nth, marked) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET read = excluded.read, read_nth = max(read_nth, excluded.read_nth),
                 marked = excluded.marked,
                 own = iif(own = 0, 0, (SELECT count(*) FROM Message
                     WHERE conv = ?1 AND seq > ?3 AND sender = ?2 AND kind IN (0, 4) AND recalled = 0))",
        )?
        .execute(params![conv.column(), user.0, read, nth.unwrap_or_default(), now()])?;
    }
    let marked =
        |head: Head| Marked { read: head.read, recv: head.recv, has_risen, head: head.head, unread: head.unread };
    Ok(reading::head(db, user, conv)?.map(marked))
}

/// Raises the numbers that a device has stored.
pub(super) fn report(
    db: &Connection,
    user: UserId,
    device: DeviceId,
    stored: &[(ConversationId, i64)],
) -> rusqlite::Result<Vec<RaisedMark>> {
    let mut find = db.prepare_cached(
        "SELECT c.head, m.read, m.recv FROM Member AS m JOIN Conversation AS c ON c.id = m.conv
         WHERE m.conv = ?1 AND m.user = ?2",
    )?;
    let is_there =
        db.prepare_cached("SELECT 1 FROM Device WHERE id = ?1 AND user = ?2")?.exists(params![device.0, user.0])?;
    let (mut raised, now) = (Vec::new(), now());
    for (conv, seq) in stored {
        let member: Option<(i64, i64, i64)> = find
            .query_row(params![conv.column(), user.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((head, read, recv)) = member else { continue };
        let seq = (*seq).min(head);
        if seq <= 0 {
            continue;
        }
        if is_there {
            db.prepare_cached(
                "INSERT INTO DeviceCursor (device, conv, seq) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET seq = excluded.seq WHERE excluded.seq > seq",
            )?
            .execute([device.0, conv.column(), seq])?;
        }
        if seq > recv {
            db.prepare_cached("UPDATE Member SET recv = ?3, marked = ?4 WHERE conv = ?1 AND user = ?2")?
                .execute(params![conv.column(), user.0, seq, now])?;
            mailbox::delete_reported(db, user, *conv, seq)?;
            raised.push(RaisedMark { conv: *conv, user, read: read.min(head), recv: seq });
        }
    }
    Ok(raised)
}
