//! Messages and gaps.

use rusqlite::{OptionalExtension, Row, params};

use super::{Store, int, number};
use crate::body::Body;
use crate::conv::Conv;
use crate::error::Result;
use crate::frame::{self, Page};
use crate::view::{History, Message};

/// The numbers of a conversation.
struct Numbers {
    cursor: u64,
    floor: u64,
    read: u64,
    /// The last message at the time when the server counted `unread`.
    head: u64,
}

impl Store {
    /// Stores a message in its place: the cursor moves to it, and the numbers in between are a gap.
    pub(super) fn take(&mut self, conv: Conv, message: &frame::Message) -> Result<()> {
        let place = self.place(conv)?;
        if message.seq > place.cursor {
            self.add_gap(conv, place.cursor.max(place.floor) + 1, message.seq - 1)?;
            self.move_cursor(conv, message.seq, &message.tag, message.time)?;
            if message.seq > place.head {
                self.count(conv, message, place.read)?;
            }
        }
        self.merge(conv, message)
    }

    /// Moves the cursor to a message that the store does not have.
    pub(super) fn skip(&mut self, conv: Conv, seq: u64, tag: &str, time: i64) -> Result<()> {
        let place = self.place(conv)?;
        self.add_gap(conv, place.cursor.max(place.floor) + 1, seq)?;
        self.move_cursor(conv, seq, tag, time)
    }

    fn place(&self, conv: Conv) -> Result<Numbers> {
        self.touch(conv)?;
        let query = "SELECT cursor, floor, read, head FROM convs WHERE conv = ?1";
        let place = |row: &Row<'_>| {
            Ok(Numbers {
                cursor: number(row, 0)?,
                floor: number(row, 1)?,
                read: number(row, 2)?,
                head: number(row, 3)?,
            })
        };
        Ok(self.connection.prepare_cached(query)?.query_row([conv.to_string()], place)?)
    }

    fn move_cursor(&self, conv: Conv, seq: u64, tag: &str, time: i64) -> Result<()> {
        let update = "UPDATE convs SET cursor = ?2, tag = ?3, head = max(head, ?2), time = max(time, ?4), closed = NULL
            WHERE conv = ?1";
        self.connection.prepare_cached(update)?.execute(params![conv.to_string(), int(seq), tag, time])?;
        Ok(())
    }

    /// Counts the unread messages that come after the last 43. An own message marks everything
    /// before it as read.
    fn count(&self, conv: Conv, message: &frame::Message, read: u64) -> Result<()> {
        let body = Body::of(message.m.as_deref());
        let update = if message.from == self.me {
            "UPDATE convs SET read = max(read, ?2), unread = 0 WHERE conv = ?1"
        } else if message.seq > read && body.counts() {
            "UPDATE convs SET unread = unread + 1 WHERE conv = ?1 AND ?2 > 0"
        } else if body.recall().is_some_and(|target| target > read) {
            "UPDATE convs SET unread = max(unread - 1, 0) WHERE conv = ?1 AND ?2 > 0"
        } else {
            return Ok(());
        };
        self.connection.prepare_cached(update)?.execute(params![conv.to_string(), int(message.seq)])?;
        Ok(())
    }

    /// Stores a message at any place, and applies it to the message that it edits or recalls.
    pub(super) fn merge(&self, conv: Conv, message: &frame::Message) -> Result<()> {
        let frame::Message { seq, from, time, tag, m, edited, recalled } = message;
        // An edited message has the frame of its edit, so only an unedited one says itself what it
        // changes.
        let body = if edited.is_none() && recalled.is_none() { Body::of(m.as_deref()) } else { Body::default() };
        let target = body.edit().or(body.recall()).filter(|target| target < seq);
        let insert = "INSERT INTO messages (conv, seq, sender, time, tag, m, edited, recalled, target)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
            ON CONFLICT DO UPDATE SET m = ?6, edited = ?7, recalled = ?8, target = coalesce(?9, target)
            WHERE recalled IS NULL AND (?8 IS NOT NULL OR coalesce(edited, 0) <= coalesce(?7, 0))";
        let name = conv.to_string();
        self.connection.prepare_cached(insert)?.execute(params![
            name,
            int(*seq),
            from,
            time,
            tag,
            m,
            edited.map(int),
            recalled.map(int),
            target.map(int)
        ])?;
        match target {
            Some(target) => self.alter(conv, target, message, &body),
            // A page may be older than an edit that has come meanwhile.
            None => self.alter_by_later(conv, *seq),
        }
    }

    /// Applies the stored edits and the recall of a message that was stored after them.
    fn alter_by_later(&self, conv: Conv, seq: u64) -> Result<()> {
        let query = "SELECT seq, sender, time, tag, m FROM messages WHERE conv = ?1 AND target = ?2 ORDER BY seq";
        let mut statement = self.connection.prepare_cached(query)?;
        let later = |row: &Row<'_>| {
            let (seq, from, time, tag, m) = (number(row, 0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
            Ok(frame::Message { seq, from, time, tag, m, edited: None, recalled: None })
        };
        let later: Vec<_> =
            statement.query_map(params![conv.to_string(), int(seq)], later)?.collect::<rusqlite::Result<_>>()?;
        later.iter().try_for_each(|by| self.alter(conv, seq, by, &Body::of(by.m.as_deref())))
    }

    /// Applies a message to the one that it edits or recalls.
    fn alter(&self, conv: Conv, target: u64, by: &frame::Message, body: &Body) -> Result<()> {
        let frame::Message { seq, from, m, .. } = by;
        let change = if body.edit().is_some() {
            "UPDATE messages SET m = ?5, edited = ?4 WHERE conv = ?1 AND seq = ?2 AND sender = ?3 AND seq < ?4
                AND target IS NULL AND recalled IS NULL AND coalesce(edited, 0) < ?4"
        } else {
            // A recall empties the message and all its edits.
            "UPDATE messages SET m = NULL, edited = NULL, recalled = ?4 WHERE conv = ?1 AND sender = ?3 AND seq < ?4
                AND (seq = ?2 OR target = ?2) AND ?5 IS NOT NULL"
        };
        self.connection.prepare_cached(change)?.execute(params![conv.to_string(), int(target), from, int(*seq), m])?;
        Ok(())
    }

    /// Stores a page of history that was requested below a number or from the end.
    pub(super) fn page(&mut self, page: &Page, before: Option<u64>) -> Result<()> {
        let conv = page.conv;
        let cursor = self.place(conv)?.cursor;
        // Messages beyond the cursor come later, in their place.
        let mut held = page.msgs.iter().filter(|message| message.seq <= cursor);
        held.try_for_each(|message| self.merge(conv, message))?;
        let first = page.msgs.first().map(|message| message.seq);
        let last = page.msgs.last().map(|message| message.seq);
        match (first, last) {
            (Some(first), Some(last)) => self.fill(conv, if page.complete { 1 } else { first }, last)?,
            _ if page.complete => self.fill(conv, 1, before.map_or(cursor, |before| before.saturating_sub(1)))?,
            _ => {}
        }
        self.raise_floor(conv, page.floor)
    }

    // Gaps

    pub(super) fn add_gap(&self, conv: Conv, first: u64, last: u64) -> Result<()> {
        if first > last {
            return Ok(());
        }
        let insert = "INSERT INTO gaps (conv, first, last) VALUES (?1, ?2, ?3)
            ON CONFLICT DO UPDATE SET last = max(last, ?3)";
        self.connection.prepare_cached(insert)?.execute(params![conv.to_string(), int(first), int(last)])?;
        Ok(())
    }

    /// Removes the numbers from `first` to `last` from the gaps.
    fn fill(&self, conv: Conv, first: u64, last: u64) -> Result<()> {
        let query = "SELECT first, last FROM gaps WHERE conv = ?1 AND first <= ?3 AND last >= ?2";
        let name = conv.to_string();
        let gap = |row: &Row<'_>| Ok((number(row, 0)?, number(row, 1)?));
        let mut statement = self.connection.prepare_cached(query)?;
        let rows = statement.query_map(params![name, int(first), int(last)], gap)?;
        let gaps: Vec<(u64, u64)> = rows.collect::<rusqlite::Result<_>>()?;
        for (from, to) in gaps {
            self.connection.execute("DELETE FROM gaps WHERE conv = ?1 AND first = ?2", params![name, int(from)])?;
            self.add_gap(conv, from, to.min(first.saturating_sub(1)))?;
            self.add_gap(conv, from.max(last + 1), to)?;
        }
        Ok(())
    }

    /// Notes that the server keeps no message at or below this number.
    pub(super) fn raise_floor(&self, conv: Conv, floor: u64) -> Result<()> {
        let update = "UPDATE convs SET floor = max(floor, ?2) WHERE conv = ?1";
        self.connection.prepare_cached(update)?.execute(params![conv.to_string(), int(floor)])?;
        if floor > 0 { self.fill(conv, 1, floor) } else { Ok(()) }
    }

    /// The nearest gap below a number.
    pub(crate) fn gap_below(&self, conv: Conv, before: u64) -> Result<Option<(u64, u64)>> {
        let query = "SELECT first, last FROM gaps WHERE conv = ?1 AND first < ?2 ORDER BY first DESC LIMIT 1";
        let gap = |row: &Row<'_>| Ok((number(row, 0)?, number(row, 1)?));
        let mut statement = self.connection.prepare_cached(query)?;
        let gap = statement.query_row(params![conv.to_string(), int(before)], gap).optional()?;
        Ok(gap.map(|(first, last)| (first, last.min(before - 1))))
    }

    /// The newest messages below a number, down to a gap, without edits and recalls.
    pub(crate) fn history(&self, conv: Conv, before: Option<u64>, limit: usize) -> Result<History> {
        let before = before.unwrap_or(1 << 53);
        let gap = self.gap_below(conv, before)?;
        let above = gap.map_or(0, |(_, last)| last);
        let query = format!(
            "SELECT {COLUMNS} WHERE conv = ?1 AND seq < ?2 AND seq > ?3 AND {IS_SHOWN} ORDER BY seq DESC LIMIT ?4"
        );
        let limit = limit.min(10_000);
        let asked = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let mut statement = self.connection.prepare_cached(&query)?;
        let rows =
            statement.query_map(params![conv.to_string(), int(before), int(above), asked], |row| message(conv, row))?;
        let mut messages: Vec<Message> = rows.collect::<rusqlite::Result<_>>()?;
        let has_more = messages.len() > limit;
        messages.truncate(limit);
        messages.reverse();
        Ok(History { messages, is_start: !has_more && gap.is_none(), has_gap: !has_more && gap.is_some() })
    }

    /// The messages above a number in ascending order, up to the next gap.
    pub(crate) fn after(&self, conv: Conv, after: u64, limit: usize) -> Result<Vec<Message>> {
        let query = format!(
            "SELECT {COLUMNS} WHERE conv = ?1 AND seq > ?2 AND {IS_SHOWN} AND seq <
                coalesce((SELECT min(first) FROM gaps WHERE gaps.conv = ?1 AND last > ?2), 1 << 53)
            ORDER BY seq LIMIT ?3"
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.connection.prepare_cached(&query)?;
        let rows = statement.query_map(params![conv.to_string(), int(after), limit], |row| message(conv, row))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

const COLUMNS: &str = "seq, sender, time, m, edited, recalled FROM messages AS shown";

/// A recalled edit cannot be told from its recalled message by the frame, which is gone. Both have
/// the same number in `recalled`, and the message is the first of them.
const IS_SHOWN: &str = "target IS NULL AND NOT (recalled IS NOT NULL AND EXISTS (SELECT 1 FROM messages AS other
    WHERE other.conv = shown.conv AND other.recalled = shown.recalled AND other.seq < shown.seq))";

fn message(conv: Conv, row: &Row<'_>) -> rusqlite::Result<Message> {
    let optional = |column| row.get::<_, Option<i64>>(column).map(|number| number.and_then(|n| u64::try_from(n).ok()));
    Ok(Message {
        conv,
        seq: number(row, 0)?,
        from: row.get(1)?,
        time: row.get(2)?,
        frame: row.get(3)?,
        edited: optional(4)?,
        recalled: optional(5)?,
    })
}
