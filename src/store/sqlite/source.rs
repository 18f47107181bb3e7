//! [`CopySource`]: the embedded store's tables as plain rows, for copying them elsewhere. It
//! changes nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, ToSql};

use super::failure::store_error;
use super::guard::DatabaseLocks;
use super::open::{self, BUSY_TIMEOUT};
use super::refusal::SqliteOpenError;
use crate::store::StoreError;
use crate::store::tables::{Field, MESSAGES, RowFields, RowKey, Sum, Summing, Table};

/// The database of a server that is not running. While this exists, no server can start on it, and
/// all reads are of one moment.
pub struct CopySource {
    file: PathBuf,
    db: Connection,
    _guard: DatabaseLocks,
}

impl CopySource {
    /// Opens a database, or the one in this folder.
    ///
    /// # Errors
    ///
    /// As for [`SqliteStore::open`](super::SqliteStore::open), but a missing file is not created,
    /// and one of an earlier version is not upgraded.
    pub fn open(path: &Path) -> Result<CopySource, SqliteOpenError> {
        let file = if path.is_dir() { path.join("raybox.db") } else { path.to_owned() };
        // SQLite would fill an empty file.
        let is_empty = fs::metadata(&file).map(|found| found.len() == 0);
        if is_empty.map_err(|cause| SqliteOpenError::Failed { file: file.clone(), cause: Box::new(cause) })? {
            let cause = io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty");
            return Err(SqliteOpenError::Damaged { file, cause: Box::new(cause) });
        }
        let (db, guard) = open::open_to_read(&file, BUSY_TIMEOUT, false)?;
        Ok(CopySource { file, db, _guard: guard })
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The number of rows after `after`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn count(&self, table: &Table, after: RowKey) -> Result<u64, StoreError> {
        let query = format!("SELECT count(*) FROM {} WHERE {}", whole(table), after_first(table));
        let count: i64 = self.db.query_row(&query, &*key(&after, table), |row| row.get(0)).map_err(store_error)?;
        Ok(count.unsigned_abs())
    }

    /// Calls `each` with the rows after `after` up to `last`, in the order of their keys, until it
    /// fails.
    ///
    /// # Errors
    ///
    /// Those of `each`, or the file cannot be read.
    pub fn for_each<E: From<StoreError>>(
        &self,
        table: &Table,
        after: RowKey,
        last: RowKey,
        mut each: impl FnMut(RowFields) -> Result<(), E>,
    ) -> Result<(), E> {
        let query = format!(
            "SELECT {} FROM {} WHERE {} ORDER BY {}",
            table.column_list(),
            whole(table),
            after_first(table),
            table.key_list()
        );
        let mut select = self.db.prepare(&query).map_err(store_error)?;
        let mut rows = select.query(&*key(&after, table)).map_err(store_error)?;
        while let Some(row) = rows.next().map_err(store_error)? {
            let fields = fields(row, table.columns.len()).map_err(store_error)?;
            if table.key_of(&fields) > last {
                break;
            }
            each(fields)?;
        }
        Ok(())
    }

    /// The row count and checksum of the rows up to `last`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn sum(&self, table: &Table, last: RowKey) -> Result<Sum, StoreError> {
        let mut sum = Summing::new(table);
        self.for_each(table, RowKey::FIRST, last, |row| {
            sum.add(&row);
            Ok::<(), StoreError>(())
        })?;
        Ok(sum.finish())
    }

    /// The highest number ever given to a row of a self-numbering table.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn highest_ever(&self, table: &Table) -> Result<i64, StoreError> {
        let query = "SELECT seq FROM sqlite_sequence WHERE name = ?1";
        let highest = self.db.query_row(query, [table.name], |row| row.get(0)).optional();
        highest.map(Option::unwrap_or_default).map_err(store_error)
    }

    /// The length of the longest stored message, in bytes.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn longest_message(&self) -> Result<u64, StoreError> {
        let query = format!(
            "SELECT max(coalesce((SELECT max(octet_length(message)) FROM {}), 0),
                        coalesce((SELECT max(octet_length(text)) FROM Message), 0))",
            whole(&MESSAGES)
        );
        let longest: i64 = self.db.query_row(&query, [], |row| row.get(0)).map_err(store_error)?;
        Ok(longest.unsigned_abs())
    }
}

/// The table as in other databases: each message with its text.
fn whole(table: &Table) -> &'static str {
    if table.name == MESSAGES.name {
        "(SELECT OfflineMessage.id AS id, userid, coalesce(MessageText.message, OfflineMessage.message) AS message,
              conv, seq
          FROM OfflineMessage LEFT JOIN MessageText ON MessageText.id = textid)"
    } else {
        table.name
    }
}

/// The condition for rows after a key, whose values [`key`] fills in.
fn after_first(table: &Table) -> String {
    let values = if table.key_columns == 1 { "?1" } else { "?1, ?2" };
    format!("({}) > ({values})", table.key_list())
}

fn key<'k>(key: &'k RowKey, table: &Table) -> Vec<&'k dyn ToSql> {
    let numbers: [&dyn ToSql; 2] = [&key.0, &key.1];
    numbers[..table.key_columns].to_vec()
}

fn fields(row: &Row<'_>, columns: usize) -> rusqlite::Result<RowFields> {
    let field = |at| match row.get_ref(at)? {
        ValueRef::Integer(number) => Ok(Field::Number(number)),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(Field::Text(bytes.to_owned())),
        other => Err(rusqlite::Error::InvalidColumnType(at, String::new(), other.data_type())),
    };
    (0..columns).map(field).collect()
}
