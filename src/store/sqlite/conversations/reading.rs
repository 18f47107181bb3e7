//! Reads conversations: their heads, and their messages.

use std::slice;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::UserId;
use crate::store::history::head::{HeadRow, RecalledBlock, into_heads};
use crate::store::history::plan::{IMPORTED, partner_of};
use crate::store::history::{Cid, Denied, Head, HistoryEntry, tag_of};

/// The columns of `head_row`, except the name and the partner's marks. A member without a row has
/// joined after the last message, through a node without history.
const COLUMNS: &str = "coalesce(c.head, 0), coalesce(c.head_tag, 0), coalesce(c.count, 0), coalesce(c.recalled, 0),
    coalesce(c.floor, 0), coalesce(c.floor_nth, 0), coalesce(c.touched, 0), coalesce(m.joined, c.head + 1, 0),
    coalesce(m.joined_nth, c.count, 0), coalesce(m.read, 0), coalesce(m.read_nth, 0), coalesce(m.own, 0), coalesce(m.recv, 0)";

/// Groups with messages in which the user has no row: a node without history has admitted the user,
/// who sees only later messages.
pub(super) fn unknown_groups(db: &Connection, user: UserId) -> rusqlite::Result<Vec<ConversationId>> {
    db.prepare_cached(
        "SELECT c.id FROM GroupUser AS g JOIN Conversation AS c ON c.id = g.groupid
         LEFT JOIN Member AS m ON m.conv = g.groupid AND m.user = g.userid
         WHERE g.userid = ?1 AND m.user IS NULL",
    )?
    .query_map([user.0], |row| Ok(ConversationId::from_column(row.get(0)?)))?
    .collect()
}

/// All conversations of a user, the most recently active first. To be called within one moment.
pub(super) fn heads(db: &Connection, user: UserId) -> rusqlite::Result<Vec<Head>> {
    let mut rows: Vec<HeadRow> = db
        .prepare_cached(&format!(
            "SELECT m.conv, u.name, {COLUMNS},
                 iif(u.receipts = 0 OR (SELECT receipts FROM User WHERE id = ?1) = 0, NULL, p.read), p.recv
             FROM Member AS m JOIN Conversation AS c ON c.id = m.conv
             LEFT JOIN Member AS p ON p.conv = m.conv AND p.user = (m.conv >> 32) + (m.conv & 4294967295) - m.user
             LEFT JOIN User AS u ON u.id = (m.conv >> 32) + (m.conv & 4294967295) - m.user
             WHERE m.user = ?1 AND m.conv > 4294967295 AND c.head > 0"
        ))?
        .query_map([user.0], head_row)?
        .collect::<rusqlite::Result<_>>()?;
    let mut groups = db.prepare_cached(&format!(
        "SELECT g.groupid, a.groupname, {COLUMNS}, NULL, NULL
         FROM GroupUser AS g JOIN AllGroup AS a ON a.id = g.groupid
         LEFT JOIN Conversation AS c ON c.id = g.groupid
         LEFT JOIN Member AS m ON m.conv = g.groupid AND m.user = g.userid
         WHERE g.userid = ?1"
    ))?;
    for row in groups.query_map([user.0], head_row)? {
        rows.push(row?);
    }
    let recalled = recalled(db, &rows)?;
    let mut heads = into_heads(rows, &recalled);
    heads.sort_by_key(|head| (std::cmp::Reverse(head.touched), head.conv));
    Ok(heads)
}

/// One conversation of a user.
pub(super) fn head(db: &Connection, user: UserId, conv: ConversationId) -> rusqlite::Result<Result<Head, Denied>> {
    let found = match conv.group() {
        Some(group) => {
            let row = db
                .prepare_cached(&format!(
                    "SELECT a.id, a.groupname, {COLUMNS}, NULL, NULL
                     FROM AllGroup AS a JOIN GroupUser AS g ON g.groupid = a.id AND g.userid = ?2
                     LEFT JOIN Conversation AS c ON c.id = a.id
                     LEFT JOIN Member AS m ON m.conv = a.id AND m.user = ?2
                     WHERE a.id = ?1"
                ))?
                .query_row(params![group.0, user.0], head_row)
                .optional()?;
            let exists = || db.prepare_cached("SELECT 1 FROM AllGroup WHERE id = ?1")?.exists([group.0]);
            match row {
                Some(row) => row,
                None => return Ok(Err(if exists()? { Denied::NotYours } else { Denied::Unknown })),
            }
        }
        None => {
            let Some(partner) = partner_of(conv, user) else { return Ok(Err(Denied::NotYours)) };
            let row = db
                .prepare_cached(&format!(
                    "SELECT ?1, u.name, {COLUMNS}, coalesce(p.read, 0), coalesce(p.recv, 0)
                     FROM (SELECT 1) LEFT JOIN User AS u ON u.id = ?3
                     LEFT JOIN Conversation AS c ON c.id = ?1
                     LEFT JOIN Member AS m ON m.conv = ?1 AND m.user = ?2
                     LEFT JOIN Member AS p ON p.conv = ?1 AND p.user = ?3"
                ))?
                .query_row(params![conv.column(), user.0, partner.0], head_row)?;
            if row.name.is_none() && row.head == 0 {
                return Ok(Err(Denied::Unknown));
            }
            row
        }
    };
    complete(db, found).map(Ok)
}

fn head_row(row: &Row<'_>) -> rusqlite::Result<HeadRow> {
    let peer_read: Option<i64> = row.get(15)?;
    let peer_recv: Option<i64> = row.get(16)?;
    Ok(HeadRow {
        conv: row.get(0)?,
        name: row.get(1)?,
        head: row.get(2)?,
        head_tag: row.get(3)?,
        count: row.get(4)?,
        recalled: row.get(5)?,
        floor: row.get(6)?,
        floor_nth: row.get(7)?,
        touched: row.get(8)?,
        joined: row.get(9)?,
        joined_nth: row.get(10)?,
        read: row.get(11)?,
        read_nth: row.get(12)?,
        own: row.get(13)?,
        recv: row.get(14)?,
        peer: peer_read.zip(peer_recv),
    })
}

fn complete(db: &Connection, row: HeadRow) -> rusqlite::Result<Head> {
    let recalled = recalled(db, slice::from_ref(&row))?;
    Ok(row.into_head(&recalled))
}

/// The recalled messages that matter in these conversations, read by one statement if there are
/// any.
fn recalled(db: &Connection, rows: &[HeadRow]) -> rusqlite::Result<Vec<RecalledBlock>> {
    let first: Vec<(i64, i64)> = rows.iter().filter_map(|row| Some((row.conv, row.block()?))).collect();
    if first.is_empty() {
        return Ok(Vec::new());
    }
    db.prepare_cached(
        "SELECT r.conv, r.block, r.count, r.bits FROM json_each(?1) AS first
         CROSS JOIN Recalled AS r ON r.conv = first.value ->> 0 AND r.block >= first.value ->> 1",
    )?
    .query_map([pairs(&first)], |row| Ok(RecalledBlock::stored(row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
    .collect()
}

/// A list like `[[1,2],[3,4]]`, which statements use as a table, so that their text does not depend
/// on its length. `CROSS JOIN` makes them look up each pair by an index, whatever the planner
/// estimates.
fn pairs(pairs: &[(i64, i64)]) -> String {
    let each: Vec<String> = pairs.iter().map(|(one, other)| format!("[{one},{other}]")).collect();
    format!("[{}]", each.join(","))
}

/// The tags of these numbers, in their order.
pub(super) fn tags(db: &Connection, places: &[(ConversationId, i64)]) -> rusqlite::Result<Vec<Option<Tag>>> {
    let mut found = vec![None; places.len()];
    let mut query = db.prepare_cached(
        "SELECT place.key, m.conv, m.seq, m.sender, m.cid, m.time FROM json_each(?1) AS place
         CROSS JOIN Message AS m ON m.conv = place.value ->> 0 AND m.seq = place.value ->> 1",
    )?;
    let mut rows = query.query([pairs_of(places)])?;
    while let Some(row) = rows.next()? {
        let (nth, conv): (u32, i64) = (row.get(0)?, row.get(1)?);
        let cid = Cid::stored(row.get_ref(4)?.as_blob()?);
        let tag = tag_of(ConversationId::from_column(conv), row.get(2)?, UserId(row.get(3)?), &cid, row.get(5)?);
        found[nth as usize] = Some(tag);
    }
    Ok(found)
}

/// The messages with these numbers, in their order.
pub(super) fn messages_at(
    db: &Connection,
    places: &[(ConversationId, i64)],
) -> rusqlite::Result<Vec<Option<HistoryEntry>>> {
    let mut found = vec![None; places.len()];
    let mut query = db.prepare_cached(&format!(
        "SELECT {ENTRY}, place.key, m.conv FROM json_each(?1) AS place
         CROSS JOIN Message AS m ON m.conv = place.value ->> 0 AND m.seq = place.value ->> 1
         LEFT JOIN Message AS e ON m.edited > 0 AND e.conv = m.conv AND e.seq = m.edited
         LEFT JOIN Conversation AS c ON c.id = m.conv
         WHERE m.seq > coalesce(c.floor, 0)"
    ))?;
    let mut rows = query.query([pairs_of(places)])?;
    while let Some(row) = rows.next()? {
        let (nth, conv): (u32, i64) = (row.get(8)?, row.get(9)?);
        found[nth as usize] = Some(entry(ConversationId::from_column(conv), row)?);
    }
    Ok(found)
}

fn pairs_of(places: &[(ConversationId, i64)]) -> String {
    pairs(&places.iter().map(|(conv, seq)| (conv.column(), *seq)).collect::<Vec<_>>())
}

pub(super) fn run(
    db: &Connection,
    conv: ConversationId,
    from: i64,
    to: i64,
    from_end: bool,
    bytes_max: usize,
) -> rusqlite::Result<Vec<HistoryEntry>> {
    let order = if from_end { "DESC" } else { "ASC" };
    let mut query = db.prepare_cached(&format!(
        "SELECT {ENTRY} FROM Message AS m LEFT JOIN Message AS e ON m.edited > 0 AND e.conv = m.conv AND e.seq = m.edited
         WHERE m.conv = ?1 AND m.seq BETWEEN ?2 AND ?3 AND m.seq > coalesce((SELECT floor FROM Conversation WHERE id = ?1), 0)
         ORDER BY m.seq {order}"
    ))?;
    let mut rows = query.query([conv.column(), from, to])?;
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let entry = entry(conv, row)?;
        bytes += entry.text.as_ref().map_or(0, String::len);
        if bytes > bytes_max && !entries.is_empty() {
            break;
        }
        entries.push(entry);
    }
    if from_end {
        entries.reverse();
    }
    Ok(entries)
}

/// The columns that [`entry`] reads, with edits applied.
const ENTRY: &str = "m.seq, m.sender, m.time, m.kind, m.edited, m.recalled, m.cid, coalesce(e.text, m.text)";

fn entry(conv: ConversationId, row: &Row<'_>) -> rusqlite::Result<HistoryEntry> {
    let (seq, from, time) = (row.get(0)?, UserId(row.get(1)?), row.get(2)?);
    let (kind, edited, recalled): (i64, i64, i64) = (row.get(3)?, row.get(4)?, row.get(5)?);
    let cid = Cid::stored(row.get_ref(6)?.as_blob()?);
    Ok(HistoryEntry {
        seq,
        from,
        time,
        tag: tag_of(conv, seq, from, &cid, time),
        text: if recalled == 0 { Some(row.get(7)?) } else { None },
        edited: (edited > 0 && recalled == 0).then_some(edited),
        recalled: (recalled > 0).then_some(recalled),
        is_imported: kind >= IMPORTED,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use rusqlite::trace::{TraceEvent, TraceEventCodes};

    use super::*;

    thread_local! {
        static STATEMENTS: Cell<usize> = const { Cell::new(0) };
    }

    fn note(event: TraceEvent<'_>) {
        if let TraceEvent::Stmt(..) = event {
            STATEMENTS.set(STATEMENTS.get() + 1);
        }
    }

    /// A user with this number of conversations, in each of which something unread is recalled.
    fn with_conversations(count: i32) -> (Connection, UserId) {
        let mut db = Connection::open_in_memory().unwrap();
        for sql in [
            include_str!("../../../../sql/sqlite/0001_init.sql"),
            include_str!("../../../../sql/sqlite/0002_shared_text.sql"),
            include_str!("../../../../sql/sqlite/0003_history.sql"),
        ] {
            db.execute_batch(sql).unwrap();
        }
        for partner in 2..2 + count {
            let conv = ConversationId::between(UserId(1), UserId(partner)).column();
            db.execute_batch(&format!(
                "INSERT INTO Conversation VALUES ({conv}, 2, 5, 2, 1, 0, 0, {partner});
                 INSERT INTO Message VALUES (NULL, {conv}, 1, 1, {partner}, 7, 0, 0, 0, 2, x'61{partner:08x}', x'00', ''),
                     (NULL, {conv}, 2, 2, {partner}, 7, 0, 0, 0, 0, x'62{partner:08x}', x'00', '{{}}');
                 INSERT INTO Recalled VALUES ({conv}, 0, 1, x'02');
                 INSERT INTO Member (conv, user) VALUES ({conv}, 1), ({conv}, {partner});"
            ))
            .unwrap();
        }
        db.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(note)).unwrap();
        (db, UserId(1))
    }

    #[test]
    fn a_login_needs_as_many_statements_for_five_hundred_conversations_as_for_five() {
        let counts = [5, 500].map(|count| {
            let (db, user) = with_conversations(count);
            let heads = heads(&db, user).unwrap();
            assert_eq!(heads.len(), count as usize);
            assert!(heads.iter().all(|head| head.unread == 1), "one of two is recalled");
            let places: Vec<(ConversationId, i64)> = heads.iter().map(|head| (head.conv, head.head)).collect();
            let lasts = messages_at(&db, &places).unwrap();
            assert!(lasts.iter().all(|last| last.as_ref().is_some_and(|last| last.seq == 2)));
            assert!(tags(&db, &places).unwrap().iter().zip(lasts).all(|(tag, last)| *tag == last.map(|last| last.tag)));
            STATEMENTS.take()
        });
        assert_eq!(counts[0], counts[1]);
        assert!(counts[0] <= 8, "{counts:?}");
    }
}
