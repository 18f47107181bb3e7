//! Reads the heads of conversations.

use mysql::prelude::Queryable;
use mysql::{Row, from_row_opt};
use rustc_hash::FxHashMap;

use super::script::{LIST_MAX, Script, list};
use crate::base::conversation::ConversationId;
use crate::protocol::UserId;
use crate::store::history::head::{HeadRow, RecalledBlock, into_heads};
use crate::store::history::plan::partner_of;
use crate::store::history::{Denied, Head};
use crate::store::mysql::rows::column;

/// The columns of a conversation and of one member. A member without a row has joined after the
/// last message, through a node without history.
const COLUMNS: &str = "COALESCE(c.head, 0) AS head, COALESCE(c.head_tag, 0) AS head_tag, COALESCE(c.count, 0) AS count,
    COALESCE(c.recalled, 0) AS recalled, COALESCE(c.floor, 0) AS floor, COALESCE(c.floor_nth, 0) AS floor_nth,
    COALESCE(c.touched, 0) AS touched, COALESCE(m.joined, c.head + 1, 0) AS joined,
    COALESCE(m.joined_nth, c.count, 0) AS joined_nth, COALESCE(m.`read`, 0) AS own_read,
    COALESCE(m.read_nth, 0) AS read_nth, COALESCE(m.own, 0) AS own, COALESCE(m.recv, 0) AS recv";

/// The other user in the conversation of the row `m` of `Member`.
const PARTNER: &str = "CAST((m.conv >> 32) + (m.conv & 4294967295) - m.user AS SIGNED)";

/// A column of names, in the collation that both halves of a union must have in common.
fn name(column: &str) -> String {
    format!("CONVERT({column} USING utf8mb4) COLLATE utf8mb4_bin AS name")
}

/// The conversations of a user, as rows.
#[derive(Default)]
pub(super) struct AllRows {
    rows: Vec<HeadRow>,
    /// Groups with messages in which the user has no row: a node without history has admitted the
    /// user, who sees only later messages.
    pub(super) unknown: Vec<ConversationId>,
}

impl AllRows {
    /// Whether recalled messages matter, so that they must be read.
    pub(super) fn has_recalled(&self) -> bool {
        self.rows.iter().any(|row| row.block().is_some())
    }

    /// The heads, the most recently active first.
    pub(super) fn into_heads(self, recalled: &[RecalledBlock]) -> Vec<Head> {
        let mut heads: Vec<Head> = into_heads(self.rows, recalled);
        heads.sort_by_key(|head| (std::cmp::Reverse(head.touched), head.conv));
        heads
    }

    /// The recalled messages that matter.
    pub(super) fn recalled(&self, db: &mut impl Queryable) -> mysql::Result<Vec<RecalledBlock>> {
        recalled(db, &self.rows)
    }
}

/// All conversations of a user, by one statement.
pub(super) fn all(db: &mut impl Queryable, user: UserId) -> mysql::Result<AllRows> {
    let (partner, group) = (name("u.name"), name("a.groupname"));
    let statement = format!(
        "SELECT m.conv AS conv, {partner}, 0 AS is_unknown, {COLUMNS},
             IF(u.receipts = 0 OR o.receipts = 0, NULL, p.`read`) AS peer_read, p.recv AS peer_recv
         FROM Member AS m JOIN Conversation AS c ON c.id = m.conv
         LEFT JOIN Member AS p ON p.conv = m.conv AND p.user = {PARTNER}
         LEFT JOIN User AS u ON u.id = {PARTNER}
         LEFT JOIN User AS o ON o.id = m.user
         WHERE m.user = ? AND m.conv > 4294967295 AND c.head > 0
         UNION ALL
         SELECT g.groupid, {group}, c.id IS NOT NULL AND m.user IS NULL, {COLUMNS}, NULL, NULL
         FROM GroupUser AS g JOIN AllGroup AS a ON a.id = g.groupid
         LEFT JOIN Conversation AS c ON c.id = g.groupid
         LEFT JOIN Member AS m ON m.conv = g.groupid AND m.user = g.userid
         WHERE g.userid = ?"
    );
    let mut all = AllRows::default();
    for row in db.exec_iter(statement, (user.0, user.0))? {
        let mut row = row?;
        let is_unknown: i64 = column(&mut row, "is_unknown")?;
        let found = head_row(&mut row)?;
        if is_unknown != 0 {
            all.unknown.push(ConversationId::from_column(found.conv));
        }
        all.rows.push(found);
    }
    Ok(all)
}

/// A query about some conversations.
#[derive(Clone, Copy)]
enum ReadingQuery {
    Names,
    Pairs,
    Groups,
}

/// Some conversations of a user, as rows in the order given.
pub(super) fn some(
    db: &mut impl Queryable,
    user: UserId,
    convs: &[ConversationId],
    bytes_max: usize,
) -> mysql::Result<Vec<Result<HeadRow, Denied>>> {
    let mut script = Script::new(bytes_max);
    for convs in convs.chunks(LIST_MAX) {
        ask(&mut script, user, convs);
    }
    let (mut names, mut rows, mut strange) = (FxHashMap::default(), FxHashMap::default(), Vec::new());
    script.run(db, |question, mut row| {
        match question {
            ReadingQuery::Names => {
                let (id, name): (i32, Option<String>) = from_row_opt(row)?;
                names.insert(UserId(id), name.unwrap_or_default());
            }
            ReadingQuery::Pairs => {
                let found = head_row(&mut row)?;
                rows.insert(found.conv, found);
            }
            ReadingQuery::Groups => {
                let is_member: i64 = column(&mut row, "is_member")?;
                let found = head_row(&mut row)?;
                if is_member == 0 {
                    strange.push(found.conv);
                }
                rows.insert(found.conv, found);
            }
        }
        Ok(())
    })?;
    let find = |conv: &ConversationId| {
        let found = rows.get(&conv.column()).cloned();
        if conv.group().is_some() {
            let found = found.ok_or(Denied::Unknown)?;
            return if strange.contains(&found.conv) { Err(Denied::NotYours) } else { Ok(found) };
        }
        let name = names.get(&partner_of(*conv, user).ok_or(Denied::NotYours)?).cloned();
        let row = found.unwrap_or_else(|| HeadRow { conv: conv.column(), peer: Some((0, 0)), ..HeadRow::default() });
        if name.is_none() && row.head == 0 { Err(Denied::Unknown) } else { Ok(HeadRow { name, ..row }) }
    };
    Ok(convs.iter().map(find).collect())
}

fn ask(script: &mut Script<ReadingQuery>, user: UserId, convs: &[ConversationId]) {
    let partners = list(convs.iter().filter_map(|conv| partner_of(*conv, user)));
    if !partners.is_empty() {
        script.add(ReadingQuery::Names, format!("SELECT id, name FROM User WHERE id IN ({partners})"));
        let pairs = list(convs.iter().filter(|conv| partner_of(**conv, user).is_some()).map(|conv| conv.column()));
        script.add(
            ReadingQuery::Pairs,
            format!(
                "SELECT c.id AS conv, NULL AS name, {COLUMNS}, COALESCE(p.`read`, 0) AS peer_read,
                     COALESCE(p.recv, 0) AS peer_recv
                 FROM Conversation AS c LEFT JOIN Member AS m ON m.conv = c.id AND m.user = {user}
                 LEFT JOIN Member AS p ON p.conv = c.id
                     AND p.user = CAST((c.id >> 32) + (c.id & 4294967295) - {user} AS SIGNED)
                 WHERE c.id IN ({pairs})"
            ),
        );
    }
    let groups = list(convs.iter().filter_map(|conv| conv.group()));
    if !groups.is_empty() {
        script.add(
            ReadingQuery::Groups,
            format!(
                "SELECT a.id AS conv, a.groupname AS name, g.userid IS NOT NULL AS is_member, {COLUMNS},
                     NULL AS peer_read, NULL AS peer_recv
                 FROM AllGroup AS a LEFT JOIN GroupUser AS g ON g.groupid = a.id AND g.userid = {user}
                 LEFT JOIN Conversation AS c ON c.id = a.id
                 LEFT JOIN Member AS m ON m.conv = a.id AND m.user = {user}
                 WHERE a.id IN ({groups})"
            ),
        );
    }
}

fn head_row(row: &mut Row) -> mysql::Result<HeadRow> {
    let peer_read: Option<i64> = column(row, "peer_read")?;
    let peer_recv: Option<i64> = column(row, "peer_recv")?;
    Ok(HeadRow {
        conv: column(row, "conv")?,
        name: column(row, "name")?,
        head: column(row, "head")?,
        head_tag: column(row, "head_tag")?,
        count: column(row, "count")?,
        recalled: column(row, "recalled")?,
        floor: column(row, "floor")?,
        floor_nth: column(row, "floor_nth")?,
        touched: column(row, "touched")?,
        joined: column(row, "joined")?,
        joined_nth: column(row, "joined_nth")?,
        read: column(row, "own_read")?,
        read_nth: column(row, "read_nth")?,
        own: column(row, "own")?,
        recv: column(row, "recv")?,
        peer: peer_read.zip(peer_recv),
    })
}

/// The recalled messages that matter for the unread counts of these conversations.
pub(super) fn recalled(db: &mut impl Queryable, rows: &[HeadRow]) -> mysql::Result<Vec<RecalledBlock>> {
    let first: Vec<(i64, i64)> = rows.iter().filter_map(|row| Some((row.conv, row.block()?))).collect();
    let mut blocks = Vec::new();
    for some in first.chunks(BLOCKS_AT_ONCE) {
        let each = some.iter().map(|(conv, block)| format!("(conv = {conv} AND block >= {block})"));
        let condition = each.collect::<Vec<_>>().join(" OR ");
        for row in db.query_iter(format!("SELECT conv, block, count, bits FROM Recalled WHERE {condition}"))? {
            let (conv, block, count, bits) = from_row_opt(row?)?;
            blocks.push(RecalledBlock::stored(conv, block, count, bits));
        }
    }
    Ok(blocks)
}

/// The conversations whose recalled messages one statement reads.
const BLOCKS_AT_ONCE: usize = 64;
