//! The outbox: messages that are not committed yet.

use rusqlite::{OptionalExtension, Row, params};

use super::{Store, conv};
use crate::conv::Conv;
use crate::error::Result;
use crate::frame::Message;
use crate::machine::Wanted;
use crate::view::Pending;

impl Store {
    /// Puts a message into the outbox. When this returns, the message survives a power cut.
    pub(crate) fn enqueue(&mut self, conv: Conv, cid: &str, frame: &str, now_ms: i64) -> Result<()> {
        self.in_transaction(|store| {
            store.touch(conv)?;
            let name = conv.to_string();
            let insert = "INSERT INTO outbox (conv, cid, frame) VALUES (?1, ?2, ?3)";
            store.connection.prepare_cached(insert)?.execute([&name, cid, frame])?;
            let update = "UPDATE convs SET time = max(time, ?2) WHERE conv = ?1";
            store.connection.prepare_cached(update)?.execute(params![name, now_ms])?;
            Ok(())
        })
    }

    /// Sets the sender of messages that were sent before the first login, when it was not known.
    pub(super) fn sign_outbox(&self, user: i64) -> Result<()> {
        self.connection.execute("UPDATE outbox SET frame = json_set(frame, '$.FROMID', ?1)", [user])?;
        Ok(())
    }

    /// The conversations with messages in the outbox.
    pub(super) fn filled(&self) -> Result<Vec<Conv>> {
        let query = "SELECT DISTINCT conv FROM outbox WHERE errno IS NULL";
        let mut statement = self.connection.prepare_cached(query)?;
        Ok(statement.query_map([], conv)?.collect::<rusqlite::Result<_>>()?)
    }

    /// The next messages of a conversation that are to be sent: row, `cid`, frame.
    pub(crate) fn to_send(&self, wanted: Wanted) -> Result<Vec<(i64, String, String)>> {
        let query =
            "SELECT id, cid, frame FROM outbox WHERE conv = ?1 AND id > ?2 AND errno IS NULL ORDER BY id LIMIT ?3";
        let mut statement = self.connection.prepare_cached(query)?;
        let count = i64::try_from(wanted.count).unwrap_or(i64::MAX);
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let rows = statement.query_map(params![wanted.conv.to_string(), wanted.after, count], row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The number of messages that wait.
    pub(crate) fn pending_count(&self) -> Result<u64> {
        let count: i64 =
            self.connection.query_row("SELECT count(*) FROM outbox WHERE errno IS NULL", [], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// The messages of a conversation that wait or were refused, in the order sent.
    pub(crate) fn pending(&self, conv: Conv, limit: usize) -> Result<Vec<Pending>> {
        let query = "SELECT cid, frame, errno, errmsg FROM outbox WHERE conv = ?1 ORDER BY id LIMIT ?2";
        let mut statement = self.connection.prepare_cached(query)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![conv.to_string(), limit], |row| {
            let refused: Option<i64> = row.get(2)?;
            let why: Option<String> = row.get(3)?;
            let refused = refused.map(|errno| (errno, why.unwrap_or_default()));
            Ok(Pending { conv, cid: row.get(0)?, frame: row.get(1)?, refused })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Removes a refused message. Returns whether there was one.
    pub(crate) fn discard(&self, cid: &str) -> Result<bool> {
        Ok(self.connection.execute("DELETE FROM outbox WHERE cid = ?1 AND errno IS NOT NULL", [cid])? > 0)
    }

    /// Removes a committed message from the outbox, and stores it in its place if that is next.
    pub(super) fn acked(&mut self, cid: &str, conv: Conv, seq: u64, tag: &str, time: i64, place: bool) -> Result<()> {
        let query = "DELETE FROM outbox WHERE cid = ?1 RETURNING frame";
        let frame: Option<String> =
            self.connection.prepare_cached(query)?.query_row([cid], |row| row.get(0)).optional()?;
        match (place, frame) {
            (false, _) => Ok(()),
            (true, Some(frame)) => {
                let message = Message {
                    seq,
                    from: self.me,
                    time,
                    tag: tag.to_owned(),
                    m: Some(frame),
                    edited: None,
                    recalled: None,
                };
                self.take(conv, &message)
            }
            (true, None) => self.skip(conv, seq, tag, time),
        }
    }

    pub(super) fn refused(&self, cid: &str, errno: i64, errmsg: &str) -> Result<()> {
        let update = "UPDATE outbox SET errno = ?2, errmsg = ?3 WHERE cid = ?1";
        self.connection.execute(update, params![cid, errno, errmsg])?;
        Ok(())
    }
}
