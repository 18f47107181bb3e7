//! [`Probe`]: whether the database stores messages, found out by one for nobody.
//!
//! A database may answer, and take statements that change nothing, while it can store nothing: its
//! disk is full, a table is full or damaged, its log of changes cannot be written. So now and then
//! a row for user 0, whom nobody can be, is inserted and deleted in one transaction, which other
//! programs never see, unless the table knows no transactions. A primary that became a replica
//! refuses it. An account that may write to a read-only server (`READ ONLY ADMIN`) would not be
//! refused, and its messages would be lost to the new primary; so each look asks whether the server
//! is read-only, and takes that for the refusal which other accounts get. Connections opened since
//! then are read-only themselves (`dial.rs`).

use mysql::prelude::Queryable;
use mysql::{Conn, params};

use super::error::{self, Trouble};

/// How far a message for nobody goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Probe {
    /// It is inserted and deleted by its id, and both is committed.
    Committed,
    /// It is inserted, and the transaction is undone: without ids a row can only be found by
    /// reading the whole table.
    Undone,
    /// It is not inserted: nothing could take it back, or a trigger would see it.
    Nothing,
}

impl Probe {
    /// Has the database do what storing a message needs, as calls do it, and leaves nothing behind.
    ///
    /// # Errors
    /// As for a call that stores a message.
    pub(super) fn write(self, connection: &mut Conn) -> mysql::Result<()> {
        refuse_if_read_only(connection)?;
        connection.exec_drop(NO_CHANGE, ())?;
        connection.exec_drop(NO_INSERT, ())?;
        if self == Probe::Nothing {
            return Ok(());
        }
        match self.write_row(connection) {
            // An operator's constraint knows no user 0. That says nothing about messages.
            Err(error) if error::trouble(&error) == Trouble::Refused => Ok(()),
            done => done,
        }
    }

    fn write_row(self, connection: &mut Conn) -> mysql::Result<()> {
        connection.query_drop("START TRANSACTION")?;
        match self.change(connection) {
            // To undo it would take as long again. The caller closes the connection, and that
            // undoes it.
            Err(error) if matches!(error::trouble(&error), Trouble::Silent | Trouble::Lost) => Err(error),
            Ok(true) => connection.query_drop("COMMIT"),
            Ok(false) => connection.query_drop("ROLLBACK"),
            Err(error) => connection.query_drop("ROLLBACK").and(Err(error)),
        }
    }

    /// Whether the row is gone, so that the transaction can be committed.
    fn change(self, connection: &mut Conn) -> mysql::Result<bool> {
        connection.query_drop("INSERT INTO OfflineMessage (userid, message) VALUES (0, '')")?;
        if self == Probe::Undone {
            return Ok(false);
        }
        let id = connection.last_insert_id();
        connection.exec_drop("DELETE FROM OfflineMessage WHERE id = :id AND userid = 0", params! {id})?;
        Ok(connection.affected_rows() == 1)
    }
}

/// Has the database do the least that needs the table and the rights to write it.
pub(super) fn look(connection: &mut Conn) -> mysql::Result<()> {
    refuse_if_read_only(connection)?;
    connection.query_drop(NO_CHANGE)?;
    connection.query_drop(NO_INSERT)
}

fn refuse_if_read_only(connection: &mut Conn) -> mysql::Result<()> {
    let value: Option<String> = connection.query_first("SELECT CONCAT(@@global.read_only)")?;
    if value.as_deref().is_some_and(is_on) { Err(error::read_only()) } else { Ok(()) }
}

/// Whether `read_only` is on: a number, or in later versions of MariaDB a word.
pub(super) fn is_on(value: &str) -> bool {
    value != "0" && !value.eq_ignore_ascii_case("OFF")
}

/// These need the table and the rights to write it, and change nothing.
const NO_CHANGE: &str = "DELETE FROM OfflineMessage WHERE 1 = 0";
const NO_INSERT: &str = "INSERT INTO OfflineMessage (userid, message) SELECT 0, '' FROM DUAL WHERE 1 = 0";
