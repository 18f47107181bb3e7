//! Raising marks.

use mysql::prelude::Queryable;
use mysql::{Row, Transaction, from_row_opt, params};
use rustc_hash::FxHashMap;

use super::moments::{NOW, now};
use super::script::{LIST_MAX, Script, list};
use super::{mailbox, reading};
use crate::base::conversation::ConversationId;
use crate::protocol::UserId;
use crate::store::history::{Denied, DeviceId, Head, Marked, RaisedMark};
use crate::store::mysql::rows::column;

/// Gives the user rows in these groups, in which only later messages are visible.
pub(super) fn adopt(db: &mut impl Queryable, user: UserId, groups: &[ConversationId]) -> mysql::Result<()> {
    for groups in groups.chunks(LIST_MAX) {
        let groups = list(groups.iter().map(|group| group.column()));
        db.query_drop(format!(
            "INSERT INTO Member (conv, user, joined, joined_nth)
             SELECT id, {user}, head + 1, count FROM Conversation WHERE id IN ({groups})
             ON DUPLICATE KEY UPDATE joined = Member.joined"
        ))?;
    }
    Ok(())
}

/// One conversation of a user.
pub(super) fn head(
    db: &mut impl Queryable,
    user: UserId,
    conv: ConversationId,
    bytes_max: usize,
) -> mysql::Result<Result<Head, Denied>> {
    let row = match reading::some(db, user, &[conv], bytes_max)?.pop().unwrap_or(Err(Denied::Unknown)) {
        Ok(row) => row,
        Err(denied) => return Ok(Err(denied)),
    };
    let recalled = reading::recalled(db, std::slice::from_ref(&row))?;
    Ok(Ok(row.into_head(&recalled)))
}

/// Raises the read mark of a user. `has_risen`: whether an attempt whose answer was lost has raised
/// it.
pub(super) fn read(
    db: &mut Transaction<'_>,
    user: UserId,
    conv: ConversationId,
    read: i64,
    has_risen: &mut bool,
    bytes_max: usize,
) -> mysql::Result<Result<Marked, Denied>> {
    let before = match head(db, user, conv, bytes_max)? {
        Ok(head) => head,
        Err(denied) => return Ok(Err(denied)),
    };
    let read = read.min(before.head);
    if read > before.read {
        *has_risen |= raise(db, user, conv, read)?;
    }
    let has_risen = *has_risen;
    let marked =
        |head: Head| Marked { read: head.read, recv: head.recv, has_risen, head: head.head, unread: head.unread };
    Ok(head(db, user, conv, bytes_max)?.map(marked))
}

/// Raises a mark below the head. False if another node has done so.
fn raise(db: &mut Transaction<'_>, user: UserId, conv: ConversationId, read: i64) -> mysql::Result<bool> {
    if conv.group().is_some() {
        adopt(db, user, &[conv])?;
    } else {
        let statement = "INSERT INTO Member (conv, user) VALUES (?, ?) ON DUPLICATE KEY UPDATE conv = conv";
        db.exec_drop(statement, (conv.column(), user.0))?;
    }
    // While this row is locked, no own message of the user can be committed without being counted
    // below: a commit inserts the message first and then counts it in this row.
    let row: Option<(i64, i64)> = db
        .exec_first("SELECT `read`, own FROM Member WHERE conv = ? AND user = ? FOR UPDATE", (conv.column(), user.0))?;
    let Some((stands, own)) = row else { return Ok(false) };
    if stands >= read {
        return Ok(false);
    }
    let own: i64 = match own {
        0 => 0,
        _ => db
            .exec_first(
                "SELECT COUNT(*) FROM Message
                 WHERE conv = ? AND seq > ? AND sender = ? AND kind IN (0, 4) AND recalled = 0",
                (conv.column(), read, user.0),
            )?
            .unwrap_or_default(),
    };
    // A deleted number counts as the floor, whose count is in the conversation.
    let nth: Option<i64> =
        db.exec_first("SELECT nth FROM Message WHERE conv = ? AND seq = ?", (conv.column(), read))?;
    let nth = nth.unwrap_or_default();
    db.exec_drop(
        format!(
            "UPDATE Member SET `read` = :read, read_nth = GREATEST(read_nth, :nth), own = :own, marked = {NOW}
             WHERE conv = :conv AND user = :user"
        ),
        params! {read, nth, own, "conv" => conv.column(), "user" => user.0},
    )?;
    Ok(true)
}

/// Raises the numbers that a device has stored. `raised` are the marks that rose, in this attempt
/// and in those whose answers were lost.
pub(super) fn report(
    db: &mut Transaction<'_>,
    user: UserId,
    device: DeviceId,
    stored: &[(ConversationId, i64)],
    raised: &mut FxHashMap<ConversationId, RaisedMark>,
) -> mysql::Result<()> {
    // Ascending, so that no two reports wait for each other.
    let mut furthest: Vec<(i64, i64)> = stored.iter().map(|(conv, seq)| (conv.column(), *seq)).collect();
    furthest.sort_unstable_by_key(|(conv, seq)| (*conv, std::cmp::Reverse(*seq)));
    furthest.dedup_by_key(|(conv, _)| *conv);
    let is_there: Option<i64> = db.exec_first("SELECT 1 FROM Device WHERE id = ? AND user = ?", (device.0, user.0))?;
    let now = now(db)?;
    for some in furthest.chunks(LIST_MAX) {
        let convs = list(some.iter().map(|(conv, _)| conv));
        let rows: Vec<Row> = db.query(format!(
            "SELECT m.conv AS conv, c.head AS head, m.`read` AS own_read, m.recv AS recv
             FROM Member AS m JOIN Conversation AS c ON c.id = m.conv WHERE m.user = {user} AND m.conv IN ({convs})
             ORDER BY m.conv"
        ))?;
        let (mut cursors, mut risen, mut script) = (Vec::new(), Vec::new(), Script::new(SCRIPT_BYTES));
        for mut row in rows {
            let (conv, head): (i64, i64) = (column(&mut row, "conv")?, column(&mut row, "head")?);
            let (read, recv): (i64, i64) = (column(&mut row, "own_read")?, column(&mut row, "recv")?);
            let Ok(at) = some.binary_search_by_key(&conv, |(conv, _)| *conv) else { continue };
            let seq = some[at].1.min(head);
            if seq <= 0 {
                continue;
            }
            cursors.push(format!("({},{conv},{seq})", device.0));
            if seq > recv {
                script.add(
                    (),
                    format!(
                        "UPDATE Member SET recv = GREATEST(recv, {seq}), marked = {now}
                         WHERE conv = {conv} AND user = {user}"
                    ),
                );
                risen.push(conv);
                let conv = ConversationId::from_column(conv);
                raised.insert(conv, RaisedMark { conv, user, read: read.min(head), recv: seq });
            }
        }
        if !risen.is_empty() {
            script.add((), mailbox::reported(user, &risen));
        }
        if is_there.is_some() {
            let end = " ON DUPLICATE KEY UPDATE seq = GREATEST(seq, VALUES(seq))";
            script.insert((), "DeviceCursor (device, conv, seq)", cursors, end);
        }
        script.run(db, |(), _| Ok(()))?;
    }
    Ok(())
}

/// The reports of a device.
pub(super) fn cursors(db: &mut impl Queryable, device: DeviceId) -> mysql::Result<Vec<(ConversationId, i64)>> {
    let rows = db.exec_iter("SELECT conv, seq FROM DeviceCursor WHERE device = ? ORDER BY conv", (device.0,))?;
    rows.map(|row| {
        let (conv, seq) = from_row_opt(row?)?;
        Ok((ConversationId::from_column(conv), seq))
    })
    .collect()
}

/// The most bytes of statements sent at once: few enough for every database.
const SCRIPT_BYTES: usize = 16 * 1024;
