//! [`Store`]: the state of one device, in one SQLite file: the account, conversations with their
//! cursors, messages, gaps, and the outbox.
//!
//! All changes from one read of the socket are one transaction ([`Store::apply`]), so a message and
//! its cursor are stored together or not at all. The store has all messages of a conversation from
//! `floor` + 1 to `cursor`, except the numbers in `gaps`.

mod messages;
mod outbox;
mod schema;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::change::{Account, Change};
use crate::conv::Conv;
use crate::error::Result;
use crate::frame::{Line, Read};
use crate::machine::{Cursor, Known, Login};
use crate::view::Conversation;

/// The data of one device.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Connection,
    /// The user's id; 0 before the first login.
    me: i64,
    _lock: Option<File>,
}

impl Store {
    /// Opens a data file; `device` names a new one.
    pub(crate) fn open(path: &Path, device: impl FnOnce() -> Result<String>) -> Result<Store> {
        let (connection, lock) = schema::open(path)?;
        Store::on(connection, Some(lock), device)
    }

    /// Opens a store in memory, which keeps nothing after it is dropped.
    pub(crate) fn in_memory(device: impl FnOnce() -> Result<String>) -> Result<Store> {
        Store::on(schema::in_memory()?, None, device)
    }

    fn on(connection: Connection, lock: Option<File>, device: impl FnOnce() -> Result<String>) -> Result<Store> {
        let me: Option<Option<i64>> =
            connection.query_row("SELECT user FROM account", [], |row| row.get(0)).optional()?;
        if me.is_none() {
            connection.execute("INSERT INTO account (id, device) VALUES (1, ?1)", [device()?])?;
        }
        Ok(Store { connection, me: me.flatten().unwrap_or(0), _lock: lock })
    }

    // The account

    /// The login of this device.
    pub(crate) fn login(&self) -> Result<Login> {
        let query = "SELECT device, user, name, token, frame_max FROM account";
        Ok(self.connection.query_row(query, [], |row| {
            let (user, name): (Option<i64>, Option<String>) = (row.get(1)?, row.get(2)?);
            let frame_max: i64 = row.get(4)?;
            Ok(Login {
                device: row.get(0)?,
                token: row.get(3)?,
                password: None,
                jwt: None,
                owner: user.zip(name),
                frame_max: usize::try_from(frame_max).unwrap_or(0).max(1024),
            })
        })?)
    }

    /// The user's id; 0 before the first login.
    pub(crate) fn me(&self) -> i64 {
        self.me
    }

    /// Removes the token of a device that has logged out.
    pub(crate) fn forget_token(&self) -> Result<()> {
        self.connection.execute("UPDATE account SET token = NULL, token_expires = NULL", [])?;
        Ok(())
    }

    fn set_account(&mut self, account: &Account) -> Result<()> {
        let Account { user, name, token, token_expires, frame_max } = account;
        if self.me == 0 {
            self.sign_outbox(*user)?;
        }
        self.me = *user;
        let update = "UPDATE account SET user = ?1, name = ?2, token = ?3, token_expires = ?4, frame_max = ?5";
        let frame_max = i64::try_from(*frame_max).unwrap_or(i64::MAX);
        self.connection.execute(update, params![user, name, token, token_expires, frame_max])?;
        Ok(())
    }

    // Changes

    /// The state with which a new connection begins.
    pub(crate) fn known(&self) -> Result<Known> {
        let query = "SELECT conv, cursor, tag FROM convs WHERE tag IS NOT NULL AND closed IS NULL ORDER BY time DESC";
        let cursor = |row: &Row<'_>| Ok((conv(row)?, Cursor { seq: number(row, 1)?, tag: row.get(2)? }));
        let cursors = self.connection.prepare_cached(query)?.query_map([], cursor)?.collect::<rusqlite::Result<_>>()?;
        let query = "SELECT conv, wanted FROM convs WHERE wanted > read";
        let mark = |row: &Row<'_>| Ok((conv(row)?, number(row, 1)?));
        let marks = self.connection.prepare_cached(query)?.query_map([], mark)?.collect::<rusqlite::Result<_>>()?;
        Ok(Known { cursors, filled: self.filled()?, marks })
    }

    /// Applies changes in one transaction.
    pub(crate) fn apply(&mut self, changes: &[Change]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.in_transaction(|store| changes.iter().try_for_each(|change| store.change(change)))
    }

    fn in_transaction<T>(&mut self, work: impl FnOnce(&mut Store) -> Result<T>) -> Result<T> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let result = work(self).and_then(|done| {
            self.connection.execute_batch("COMMIT")?;
            Ok(done)
        });
        if result.is_err() && !self.connection.is_autocommit() {
            // The caller must get the first error, not an error of the rollback.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        result
    }

    fn change(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::Account(account) => self.set_account(account),
            Change::Token(token) => {
                self.connection.execute("UPDATE account SET token = ?1", [token])?;
                Ok(())
            }
            Change::Line { line, adopt } => self.set_line(line, *adopt),
            Change::Take { conv, message } => self.take(*conv, message),
            Change::Acked { cid, conv, seq, tag, time, place } => self.acked(cid, *conv, *seq, tag, *time, *place),
            Change::Refused { cid, errno, errmsg } => self.refused(cid, *errno, errmsg),
            Change::Reset { conv, head, is_counted } => self.reset(*conv, *head, *is_counted),
            Change::Closed { conv, errno } => {
                self.touch(*conv)?;
                let update = "UPDATE convs SET closed = ?2, wanted = NULL, unread = 0 WHERE conv = ?1";
                self.connection.execute(update, params![conv.to_string(), errno])?;
                Ok(())
            }
            Change::Page { page, before } => self.page(page, *before),
            Change::Floor { conv, floor } => self.raise_floor(*conv, *floor),
            Change::Read(read) => {
                self.touch(read.conv)?;
                // A mark from before the newest message says nothing about that message. Other
                // marks fall only after a reset.
                let update = "UPDATE convs SET read = CASE WHEN ?4 >= head THEN ?2 ELSE max(read, ?2) END,
                    head = max(head, ?4),
                    unread = CASE WHEN ?4 >= head THEN ?3 ELSE unread END,
                    wanted = CASE WHEN wanted > ?2 THEN wanted END WHERE conv = ?1";
                let Read { conv, head, read, unread } = read;
                self.connection.execute(update, params![conv.to_string(), int(*read), int(*unread), int(*head)])?;
                Ok(())
            }
            Change::Peer(peer) => {
                self.touch(peer.conv)?;
                // Of one connection, each 50 is above the last one. They fall only with a lost
                // history.
                let update = "UPDATE convs SET peer_read = ?2, peer_recv = max(?2, ?3) WHERE conv = ?1";
                self.connection.execute(update, params![peer.conv.to_string(), int(peer.read), int(peer.recv)])?;
                Ok(())
            }
        }
    }

    /// Stores a conversation of a 43. If the store holds no cursor of the conversation, it begins
    /// at its head, and all numbers below are a gap.
    fn set_line(&mut self, line: &Line, adopt: bool) -> Result<()> {
        let conv = line.conv;
        self.touch(conv)?;
        let time = line.last.as_ref().map_or(0, |last| last.time);
        self.connection.execute(
            "UPDATE convs SET name = ?2, head = ?3, floor = ?4, read = ?5, unread = ?6, peer_read = ?7, peer_recv = ?8,
                closed = NULL, time = max(time, ?9), wanted = CASE WHEN wanted > ?5 THEN wanted END WHERE conv = ?1",
            params![
                conv.to_string(),
                line.name,
                int(line.head),
                int(line.floor),
                int(line.read),
                int(line.unread),
                int(line.peer_read),
                int(line.peer_recv),
                time
            ],
        )?;
        self.raise_floor(conv, line.floor)?;
        if !adopt {
            return Ok(());
        }
        let update = "UPDATE convs SET cursor = ?2, tag = ?3 WHERE conv = ?1";
        self.connection.execute(update, params![conv.to_string(), int(line.head), line.tag])?;
        let last = line.last.as_ref().filter(|last| last.seq == line.head);
        if let Some(last) = last {
            self.merge(conv, last)?;
        }
        self.add_gap(conv, line.floor + 1, if last.is_some() { line.head.saturating_sub(1) } else { line.head })
    }

    /// Drops the messages of a conversation, and limits its marks to the head.
    fn reset(&mut self, conv: Conv, head: u64, is_counted: bool) -> Result<()> {
        let name = conv.to_string();
        self.connection.execute("DELETE FROM messages WHERE conv = ?1", [&name])?;
        self.connection.execute("DELETE FROM gaps WHERE conv = ?1", [&name])?;
        let update = "UPDATE convs SET cursor = 0, tag = NULL, read = min(read, ?2), peer_read = min(peer_read, ?2),
            peer_recv = min(peer_recv, ?2), wanted = CASE WHEN wanted <= ?2 THEN wanted END WHERE conv = ?1";
        self.connection.execute(update, params![name, int(head)])?;
        if !is_counted {
            // The messages that follow are counted from the beginning, until the answer to a 49.
            let update = "UPDATE convs SET head = 0, unread = 0 WHERE conv = ?1";
            self.connection.execute(update, [&name])?;
        }
        Ok(())
    }

    /// Makes sure that the conversation has a row.
    fn touch(&self, conv: Conv) -> Result<()> {
        let insert = "INSERT INTO convs (conv) VALUES (?1) ON CONFLICT DO NOTHING";
        self.connection.prepare_cached(insert)?.execute([conv.to_string()])?;
        Ok(())
    }

    // Reads and writes of an application

    /// The conversations, the most recently active first.
    pub(crate) fn conversations(&self) -> Result<Vec<Conversation>> {
        self.conversations_where("TRUE", params![])
    }

    /// One conversation.
    pub(crate) fn conversation(&self, conv: Conv) -> Result<Option<Conversation>> {
        Ok(self.conversations_where("convs.conv = ?1", params![conv.to_string()])?.pop())
    }

    fn conversations_where(&self, condition: &str, params: &[&dyn rusqlite::ToSql]) -> Result<Vec<Conversation>> {
        let query = format!(
            "SELECT convs.conv, coalesce(convs.name, users.name), unread, max(read, coalesce(wanted, 0)),
                max(head, cursor), cursor, peer_read, peer_recv, closed, time,
                (SELECT count(*) FROM outbox WHERE outbox.conv = convs.conv AND errno IS NULL)
            FROM convs LEFT JOIN users
                ON users.id = CASE WHEN convs.conv LIKE 'u%' THEN CAST(substr(convs.conv, 2) AS INTEGER) END
            WHERE {condition} ORDER BY time DESC, convs.conv"
        );
        let mut statement = self.connection.prepare_cached(&query)?;
        let rows = statement.query_map(params, |row| {
            Ok(Conversation {
                conv: conv(row)?,
                name: row.get(1)?,
                unread: number(row, 2)?,
                read: number(row, 3)?,
                head: number(row, 4)?,
                held: number(row, 5)?,
                peer_read: number(row, 6)?,
                peer_recv: number(row, 7)?,
                closed: row.get(8)?,
                time: row.get(9)?,
                pending: number(row, 10)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Marks messages as read up to a number; the mark is stored until the server confirms it.
    /// Returns whether the mark is new.
    pub(crate) fn mark_read(&self, conv: Conv, seq: u64) -> Result<bool> {
        self.touch(conv)?;
        let update = "UPDATE convs SET wanted = ?2, unread = CASE WHEN ?2 >= max(head, cursor) THEN 0 ELSE unread END
            WHERE conv = ?1 AND max(read, coalesce(wanted, 0)) < ?2 AND closed IS NULL";
        Ok(self.connection.execute(update, params![conv.to_string(), int(seq)])? > 0)
    }

    /// Stores the names of users.
    pub(crate) fn remember_names(&mut self, names: &[(i64, String)]) -> Result<()> {
        let insert = "INSERT INTO users (id, name) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET name = ?2";
        self.in_transaction(|store| {
            for (id, name) in names {
                store.connection.prepare_cached(insert)?.execute(params![id, name])?;
            }
            Ok(())
        })
    }

    /// The name of a user, if it is known.
    pub(crate) fn name_of(&self, user: i64) -> Result<Option<String>> {
        let query =
            "SELECT coalesce((SELECT name FROM account WHERE user = ?1), (SELECT name FROM users WHERE id = ?1),
            (SELECT name FROM convs WHERE conv = 'u' || ?1))";
        Ok(self.connection.query_row(query, [user], |row| row.get(0))?)
    }

    /// The application's note under a key.
    pub(crate) fn note(&self, key: &str) -> Result<Option<String>> {
        Ok(self.connection.query_row("SELECT value FROM notes WHERE key = ?1", [key], |row| row.get(0)).optional()?)
    }

    /// Stores a note for the application.
    pub(crate) fn set_note(&self, key: &str, value: &str) -> Result<()> {
        let insert = "INSERT INTO notes (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2";
        self.connection.execute(insert, [key, value])?;
        Ok(())
    }
}

/// The conversation in the first column.
fn conv(row: &Row<'_>) -> rusqlite::Result<Conv> {
    let name: String = row.get(0)?;
    name.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            0,
            rusqlite::types::Type::Text,
            Box::<crate::conv::NotAConv>::new(error),
        )
    })
}

/// A number of a message. Negative numbers were never written.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    Ok(u64::try_from(number).unwrap_or(0))
}

/// A number in SQLite's type; frames with larger numbers are refused.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
