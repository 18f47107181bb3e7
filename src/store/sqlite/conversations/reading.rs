//! Reading conversations: where they stand, and their messages.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::moments::in_one_moment;
use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::UserId;
use crate::store::history::head::{HeadRow, RecalledBlock};
use crate::store::history::plan::{IMPORTED, partner_of};
use crate::store::history::{Cid, Denied, Entry, Head, tag_of};

/// The columns of `head_row`, but for the name and the partner's marks. A member without a row
/// joined after the last message, by a node without history.
const COLUMNS: &str = "coalesce(c.head, 0), coalesce(c.head_tag, 0), coalesce(c.count, 0), coalesce(c.recalled, 0),
    coalesce(c.floor, 0), coalesce(c.floor_nth, 0), coalesce(c.touched, 0), coalesce(m.joined, c.head + 1, 0),
    coalesce(m.joined_nth, c.count, 0), coalesce(m.read, 0), coalesce(m.read_nth, 0), coalesce(m.own, 0), coalesce(m.recv, 0)";

/// Groups with messages in which the user has no row: a node that knows no history has made the
/// user a member, who sees what comes from now on.
pub(super) fn unknown_groups(db: &Connection, user: UserId) -> rusqlite::Result<Vec<ConversationId>> {
    db.prepare_cached(
        "SELECT c.id FROM GroupUser AS g JOIN Conversation AS c ON c.id = g.groupid
         LEFT JOIN Member AS m ON m.conv = g.groupid AND m.user = g.userid
         WHERE g.userid = ?1 AND m.user IS NULL",
    )?
    .query_map([user.0], |row| Ok(ConversationId::from_column(row.get(0)?)))?
    .collect()
}

/// All conversations of a user, the most recently active first.
pub(super) fn heads(db: &Connection, user: UserId) -> rusqlite::Result<Vec<Head>> {
    in_one_moment(db, |db| {
        let mut rows: Vec<HeadRow> = db
            .prepare_cached(&format!(
                "SELECT m.conv, u.name, {COLUMNS}, iif(u.receipts = 0 OR o.receipts = 0, NULL, p.read), p.recv
                 FROM Member AS m JOIN Conversation AS c ON c.id = m.conv
                 LEFT JOIN Member AS p ON p.conv = m.conv AND p.user = (m.conv >> 32) + (m.conv & 4294967295) - m.user
                 LEFT JOIN User AS u ON u.id = (m.conv >> 32) + (m.conv & 4294967295) - m.user
                 LEFT JOIN User AS o ON o.id = m.user
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
        let mut heads = rows.into_iter().map(|row| complete(db, row)).collect::<rusqlite::Result<Vec<Head>>>()?;
        heads.sort_by_key(|head| (std::cmp::Reverse(head.touched), head.conv));
        Ok(heads)
    })
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
    let Some(block) = row.block() else { return Ok(row.into_head(&[])) };
    let recalled: Vec<RecalledBlock> = db
        .prepare_cached("SELECT block, count, bits FROM Recalled WHERE conv = ?1 AND block >= ?2")?
        .query_map([row.conv, block], |found| {
            Ok(RecalledBlock::stored(row.conv, found.get(0)?, found.get(1)?, found.get(2)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(row.into_head(&recalled))
}

pub(super) fn tag(db: &Connection, conv: ConversationId, seq: i64) -> rusqlite::Result<Option<Tag>> {
    db.prepare_cached("SELECT sender, cid, time FROM Message WHERE conv = ?1 AND seq = ?2")?
        .query_row([conv.column(), seq], |row| {
            let cid = Cid::stored(row.get_ref(1)?.as_blob()?);
            Ok(tag_of(conv, seq, UserId(row.get(0)?), &cid, row.get(2)?))
        })
        .optional()
}

pub(super) fn run(
    db: &Connection,
    conv: ConversationId,
    from: i64,
    to: i64,
    from_end: bool,
    bytes_max: usize,
) -> rusqlite::Result<Vec<Entry>> {
    let order = if from_end { "DESC" } else { "ASC" };
    let mut query = db.prepare_cached(&format!(
        "SELECT m.seq, m.sender, m.time, m.kind, m.edited, m.recalled, m.cid, coalesce(e.text, m.text)
         FROM Message AS m LEFT JOIN Message AS e ON m.edited > 0 AND e.conv = m.conv AND e.seq = m.edited
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

fn entry(conv: ConversationId, row: &Row<'_>) -> rusqlite::Result<Entry> {
    let (seq, from, time) = (row.get(0)?, UserId(row.get(1)?), row.get(2)?);
    let (kind, edited, recalled): (i64, i64, i64) = (row.get(3)?, row.get(4)?, row.get(5)?);
    let cid = Cid::stored(row.get_ref(6)?.as_blob()?);
    Ok(Entry {
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
