//! Converts rows and numbers of statements to values of the server.

use rusqlite::{Connection, OptionalExtension, Row, named_params};

use crate::base::rows::User;
use crate::protocol::UserId;

/// The number for a LIMIT.
pub(super) fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn user_by_id(db: &Connection, user: UserId) -> rusqlite::Result<Option<User>> {
    db.prepare_cached("SELECT id, name FROM User WHERE id = :id")?
        .query_row(named_params! {":id": user.0}, user_row)
        .optional()
}

pub(super) fn user_row(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User { id: UserId(row.get("id")?), name: row.get("name")? })
}

/// The id of the row inserted last; the schema keeps it within 32 bits.
pub(super) fn new_id(db: &Connection) -> rusqlite::Result<i32> {
    let id = db.last_insert_rowid();
    i32::try_from(id).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, id))
}
