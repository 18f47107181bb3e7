//! Reading messages.

use mysql::prelude::Queryable;
use mysql::{Conn, Row, from_row_opt, params};
use rustc_hash::FxHashMap;

use super::script::{LIST_MAX, Script, pairs};
use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::UserId;
use crate::store::history::plan::IMPORTED;
use crate::store::history::{Cid, HistoryEntry, tag_of};
use crate::store::mysql::rows::column;

/// The tags of these numbers, in the order given.
pub(super) fn tags(
    db: &mut Conn,
    places: &[(ConversationId, i64)],
    bytes_max: usize,
) -> mysql::Result<Vec<Option<Tag>>> {
    let mut numbers: Vec<(i64, i64)> = places.iter().map(|(conv, seq)| (conv.column(), *seq)).collect();
    numbers.sort_unstable();
    let mut script = Script::new(bytes_max);
    for some in numbers.chunks(LIST_MAX) {
        let some = pairs(some.iter().copied());
        script.add(
            (),
            format!(
                "SELECT conv, seq, sender, cid, time FROM {some}
                 STRAIGHT_JOIN Message ON conv = pair.one AND seq = pair.two"
            ),
        );
    }
    let mut found = FxHashMap::default();
    script.run(db, |(), row| {
        let (conv, seq, sender, cid, time): (_, _, _, Vec<u8>, _) = from_row_opt(row)?;
        let conv = ConversationId::from_column(conv);
        found.insert((conv, seq), tag_of(conv, seq, UserId(sender), &Cid::stored(cid), time));
        Ok(())
    })?;
    Ok(places.iter().map(|place| found.get(place).copied()).collect())
}

/// The messages with these numbers, in the order given.
pub(super) fn messages_at(
    db: &mut Conn,
    places: &[(ConversationId, i64)],
    bytes_max: usize,
) -> mysql::Result<Vec<Option<HistoryEntry>>> {
    let mut numbers: Vec<(i64, i64)> = places.iter().map(|(conv, seq)| (conv.column(), *seq)).collect();
    numbers.sort_unstable();
    let mut script = Script::new(bytes_max);
    for some in numbers.chunks(LIST_MAX) {
        let some = pairs(some.iter().copied());
        script.add(
            (),
            format!(
                "SELECT m.conv AS conv, {COLUMNS} FROM {some}
                 STRAIGHT_JOIN Message AS m ON m.conv = pair.one AND m.seq = pair.two {EDITS}"
            ),
        );
    }
    let mut found = FxHashMap::default();
    script.run(db, |(), mut row| {
        let conv = ConversationId::from_column(column(&mut row, "conv")?);
        let entry = entry(conv, &mut row)?;
        found.insert((conv, entry.seq), entry);
        Ok(())
    })?;
    Ok(places.iter().map(|place| found.remove(place)).collect())
}

/// The messages from `from` to `to`: as many as have `bytes_max` of text together.
///
/// They are read a page at a time, because the driver must read all rows that it has requested.
pub(super) fn run(
    db: &mut Conn,
    conv: ConversationId,
    from: i64,
    to: i64,
    from_end: bool,
    bytes_max: usize,
) -> mysql::Result<Vec<HistoryEntry>> {
    let (mut entries, mut bytes, mut from, mut to) = (Vec::new(), 0, from, to);
    let mut rows_max = FIRST_PAGE;
    loop {
        let count = page(db, conv, (from, to), from_end, rows_max, |entry: HistoryEntry| {
            let size = entry.text.as_ref().map_or(0, String::len);
            let fits = entries.is_empty() || bytes + size <= bytes_max;
            // The floor may have risen between two pages.
            let follows = entries.last().is_none_or(|last: &HistoryEntry| last.seq.abs_diff(entry.seq) == 1);
            if fits && follows {
                bytes += size;
                entries.push(entry);
            }
            fits && follows
        })?;
        match (count, entries.last()) {
            (Some(count), Some(last)) if count == rows_max && from_end => to = last.seq - 1,
            (Some(count), Some(last)) if count == rows_max => from = last.seq + 1,
            _ => break,
        }
        // As many as are wanted, if they are as long as the earlier ones.
        let each = bytes / entries.len().max(1) + 1;
        rows_max = (bytes_max.saturating_sub(bytes) / each + 1).min(PAGE_MAX);
    }
    if from_end {
        entries.reverse();
    }
    Ok(entries)
}

/// Passes one page to `take` until that returns false. Returns the number of rows, `None` if no
/// more are needed.
fn page(
    db: &mut Conn,
    conv: ConversationId,
    (from, to): (i64, i64),
    from_end: bool,
    rows_max: usize,
    mut take: impl FnMut(HistoryEntry) -> bool,
) -> mysql::Result<Option<usize>> {
    let order = if from_end { "DESC" } else { "ASC" };
    let statement = format!(
        "SELECT {COLUMNS} FROM Message AS m {EDITS}
         WHERE m.conv = :conv AND m.seq BETWEEN :from AND :to
             AND m.seq > COALESCE((SELECT floor FROM Conversation WHERE id = :conv), 0)
         ORDER BY m.seq {order} LIMIT :rows_max"
    );
    let (mut count, mut goes_on) = (0, true);
    for row in db.exec_iter(statement, params! {"conv" => conv.column(), from, to, rows_max})? {
        // The other rows are read as well: an error in them must not stay in the connection.
        let mut row = row?;
        count += 1;
        goes_on = goes_on && take(entry(conv, &mut row)?);
    }
    Ok(goes_on.then_some(count))
}

fn entry(conv: ConversationId, row: &mut Row) -> mysql::Result<HistoryEntry> {
    let (seq, from, time) = (column(row, "seq")?, UserId(column(row, "sender")?), column(row, "time")?);
    let (kind, edited, recalled): (i64, i64, i64) =
        (column(row, "kind")?, column(row, "edited")?, column(row, "recalled")?);
    let cid = Cid::stored(column::<Vec<u8>>(row, "cid")?);
    Ok(HistoryEntry {
        seq,
        from,
        time,
        tag: tag_of(conv, seq, from, &cid, time),
        text: if recalled == 0 { Some(column(row, "text")?) } else { None },
        edited: (edited > 0 && recalled == 0).then_some(edited),
        recalled: (recalled > 0).then_some(recalled),
        is_imported: kind >= IMPORTED,
    })
}

/// The columns that [`entry`] reads, with edits applied.
const COLUMNS: &str = "m.seq AS seq, m.sender AS sender, m.time AS time, m.kind AS kind, m.edited AS edited,
    m.recalled AS recalled, m.cid AS cid, COALESCE(e.text, m.text) AS text";
const EDITS: &str = "LEFT JOIN Message AS e ON m.edited > 0 AND e.conv = m.conv AND e.seq = m.edited";
/// The rows of the first statement: enough for a client's page, and few enough that little is read
/// in vain if all have the longest texts.
const FIRST_PAGE: usize = 64;
const PAGE_MAX: usize = 1024;
