//! [`Probe`]: whether the database stores messages, found out by one for nobody.
//!
//! A database may answer, and take statements that change nothing, while it can store nothing: its disk is full, a table is
//! full or damaged, its log of changes cannot be written. So now and then a row for user 0, whom nobody can be, is inserted
//! and deleted in one transaction, which other programs never see. A primary that became a replica refuses it; but an
//! account that may write to a read-only server is not refused, and the row would make the replica differ, so that is asked
//! for first.

use mysql::prelude::Queryable;
use mysql::{Conn, TxOpts, params};

use super::error::{self, Trouble};

/// How far a message for nobody goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Probe {
    /// It is inserted and deleted by its id, and both is committed.
    Committed,
    /// It is inserted, and the transaction is undone: without ids a row can only be found by reading the whole table.
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
        connection.exec_drop(NO_CHANGE, ())?;
        connection.exec_drop(NO_INSERT, ())?;
        if self == Probe::Nothing || is_read_only(connection)? {
            return Ok(());
        }
        match self.write_row(connection) {
            // An operator's constraint knows no user 0. That says nothing about messages.
            Err(error) if error::trouble(&error) == Trouble::Refused => Ok(()),
            done => done,
        }
    }

    fn write_row(self, connection: &mut Conn) -> mysql::Result<()> {
        // Dropped, it is undone.
        let mut transaction = connection.start_transaction(TxOpts::default())?;
        transaction.exec_drop("INSERT INTO OfflineMessage (userid, message) VALUES (0, '')", ())?;
        if self == Probe::Undone {
            return transaction.rollback();
        }
        let id = transaction.last_insert_id();
        transaction.exec_drop("DELETE FROM OfflineMessage WHERE id = :id AND userid = 0", params! {id})?;
        transaction.commit()
    }
}

/// Has the database do the least that needs the table and the rights to write it.
pub(super) fn look(connection: &mut Conn) -> mysql::Result<()> {
    connection.query_drop(NO_CHANGE)?;
    connection.query_drop(NO_INSERT)
}

fn is_read_only(connection: &mut Conn) -> mysql::Result<bool> {
    // A number, or in later versions of MariaDB a word.
    let value: Option<String> = connection.query_first("SELECT CONCAT(@@global.read_only)")?;
    Ok(value.is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("OFF")))
}

/// These need the table and the rights to write it, and change nothing.
const NO_CHANGE: &str = "DELETE FROM OfflineMessage WHERE 1 = 0";
const NO_INSERT: &str = "INSERT INTO OfflineMessage (userid, message) SELECT 0, '' FROM DUAL WHERE 1 = 0";
