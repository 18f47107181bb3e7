//! [`Probe`]: whether the database stores messages, tried with a message for nobody.
//!
//! A database may answer, and accept statements that change nothing, but be unable to store
//! anything: its disk is full, a table is full or damaged, or its binary log cannot be written. So
//! now and then a row for user 0, an id that no user has, is inserted and deleted in one
//! transaction. Other programs never see it, unless the table has no transactions. A primary that
//! became a replica refuses the row. It would not refuse an account that may write to a read-only
//! server (`READ ONLY ADMIN`), whose messages the new primary would lack. So each check asks
//! whether the server is read-only, and treats that like the refusal that other accounts get.
//! Connections opened since then are read-only themselves (`dial.rs`).
//!
//! Messages of level 2 go into other tables. No row is tried there, but statements that change
//! nothing: they need the tables, the rights, and that no other program keeps a table locked.

use mysql::prelude::Queryable;
use mysql::{Conn, params};

use super::error::{self, Trouble};

/// What an attempt to store a message for nobody does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Probe {
    pub(super) row: ProbedRow,
    /// Whether there are tables of level 2.
    pub(super) has_history: bool,
}

/// The last step of the attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ProbedRow {
    /// The row is inserted and deleted by its id, and both are committed.
    Committed,
    /// The row is inserted, and the transaction is undone: without ids, a row can be found only by
    /// reading the whole table.
    Undone,
    /// Nothing is inserted: nothing could undo it, or a trigger would see it.
    Nothing,
}

impl Probe {
    /// Makes the database do everything that storing a message needs, as calls do, and leaves
    /// nothing behind.
    ///
    /// # Errors
    /// As for a call that stores a message.
    pub(super) fn write(self, connection: &mut Conn) -> mysql::Result<()> {
        refuse_if_read_only(connection)?;
        for statement in self.without_effect() {
            connection.exec_drop(statement, ())?;
        }
        self.write_after_look(connection)
    }

    /// The part of [`Probe::write`] that a [`Probe::look`] leaves out.
    ///
    /// # Errors
    /// As for a call that stores a message.
    pub(super) fn write_after_look(self, connection: &mut Conn) -> mysql::Result<()> {
        if self.row == ProbedRow::Nothing {
            return Ok(());
        }
        match self.write_row(connection) {
            // An operator's constraint forbids user 0. That means nothing for messages.
            Err(error) if error::trouble(&error) == Trouble::Refused => Ok(()),
            done => done,
        }
    }

    /// Makes the database do the least that needs the tables and the rights to write them.
    ///
    /// # Errors
    /// As for a call that stores a message.
    pub(super) fn look(self, connection: &mut Conn) -> mysql::Result<()> {
        refuse_if_read_only(connection)?;
        self.without_effect().try_for_each(|statement| connection.query_drop(statement))
    }

    fn without_effect(self) -> impl Iterator<Item = &'static str> {
        MESSAGES_WITHOUT_EFFECT.into_iter().chain(HISTORY_WITHOUT_EFFECT.into_iter().filter(move |_| self.has_history))
    }

    fn write_row(self, connection: &mut Conn) -> mysql::Result<()> {
        connection.query_drop("START TRANSACTION")?;
        match self.change(connection) {
            // Undoing it would take as long again. The caller closes the connection, which undoes
            // it.
            Err(error) if matches!(error::trouble(&error), Trouble::Silent | Trouble::Lost) => Err(error),
            Ok(true) => connection.query_drop("COMMIT"),
            Ok(false) => connection.query_drop("ROLLBACK"),
            Err(error) => connection.query_drop("ROLLBACK").and(Err(error)),
        }
    }

    /// Whether the row is gone, so that the transaction can be committed.
    fn change(self, connection: &mut Conn) -> mysql::Result<bool> {
        connection.query_drop("INSERT INTO OfflineMessage (userid, message) VALUES (0, '')")?;
        if self.row == ProbedRow::Undone {
            return Ok(false);
        }
        let id = connection.last_insert_id();
        connection.exec_drop("DELETE FROM OfflineMessage WHERE id = :id AND userid = 0", params! {id})?;
        Ok(connection.affected_rows() == 1)
    }
}

/// Whether the server takes messages, as far as can be told without knowing its tables.
pub(super) fn look(connection: &mut Conn) -> mysql::Result<()> {
    Probe { row: ProbedRow::Nothing, has_history: false }.look(connection)
}

fn refuse_if_read_only(connection: &mut Conn) -> mysql::Result<()> {
    let value: Option<String> = connection.query_first("SELECT CONCAT(@@global.read_only)")?;
    if value.as_deref().is_some_and(is_on) {
        Err(error::read_only("the server is read-only, and this account could write all the same"))
    } else {
        Ok(())
    }
}

/// Whether `read_only` is on: a number, or a word in later versions of MariaDB.
pub(super) fn is_on(value: &str) -> bool {
    value != "0" && !value.eq_ignore_ascii_case("OFF")
}

/// Statements that need the table and the rights to write it, and change nothing.
const MESSAGES_WITHOUT_EFFECT: [&str; 2] = [
    "DELETE FROM OfflineMessage WHERE 1 = 0",
    "INSERT INTO OfflineMessage (userid, message) SELECT 0, '' FROM DUAL WHERE 1 = 0",
];
/// The same for the tables that each message of level 2 is written to.
const HISTORY_WITHOUT_EFFECT: [&str; 3] = [
    "INSERT INTO Message (conv, seq, nth, sender, time, kind, ref, edited, recalled, cid, hash, text)
     SELECT 0, 0, 0, 0, 0, 0, 0, 0, 0, '', '', '' FROM DUAL WHERE 1 = 0",
    "UPDATE Conversation SET head = head WHERE 1 = 0",
    "UPDATE Member SET `read` = `read` WHERE 1 = 0",
];
