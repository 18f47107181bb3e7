//! Converts rows of results to values of the server.

use mysql::prelude::FromValue;
use mysql::{Row, Value};

use crate::base::rows::User;
use crate::protocol::UserId;

/// A value of a row by the name of its column. A missing value, or one of another type, is an error
/// and not a panic.
pub(super) fn column<T: FromValue>(row: &mut Row, name: &str) -> mysql::Result<T> {
    match row.take_opt(name) {
        Some(value) => Ok(value?),
        None => Err(mysql::Error::FromValueError(Value::NULL)),
    }
}

/// A text. The reference server's tables allow `NULL` where none was given.
pub(super) fn text(row: &mut Row, name: &str) -> mysql::Result<String> {
    Ok(column::<Option<String>>(row, name)?.unwrap_or_default())
}

pub(super) fn collect<T>(rows: Vec<Row>, mut read: impl FnMut(&mut Row) -> mysql::Result<T>) -> mysql::Result<Vec<T>> {
    rows.into_iter().map(|mut row| read(&mut row)).collect()
}

/// The column `id` of users.
pub(super) fn ids_of(rows: Vec<Row>) -> mysql::Result<Vec<UserId>> {
    collect(rows, |row| column(row, "id").map(UserId))
}

pub(super) fn user_row(row: &mut Row) -> mysql::Result<User> {
    Ok(User { id: UserId(column(row, "id")?), name: text(row, "name")? })
}

/// An id that the database has assigned; the columns keep it within 32 bits.
pub(super) fn new_id(id: u64) -> mysql::Result<i32> {
    i32::try_from(id).map_err(|_| mysql::Error::FromValueError(Value::UInt(id)))
}
