//! Fills the tables with rows of another database, in the raw form of `tables.rs`.

use mysql::prelude::Queryable;
use mysql::{Row, Value, params};

use super::error;
use super::maintenance::Maintenance;
use super::open::MysqlOpenError;
use super::rows::column;
use super::shapes;
use crate::base::collation::fold;
use crate::store::tables::{Field, GROUPS, RowFields, Sum, Summing, Table, USERS};

/// Two users whose names are equal to the database.
#[derive(Debug)]
pub struct SameName {
    /// The id and name of the first one.
    pub first: (i64, String),
    /// The id and name of the second one.
    pub second: (i64, String),
}

impl Maintenance {
    /// The sum over the rows of a table. Reads all of it.
    ///
    /// # Errors
    /// The database does not answer, or refuses this user.
    pub fn sum(&mut self, table: &Table) -> Result<Sum, MysqlOpenError> {
        self.add_up(table).map_err(|error| self.explain(&error))
    }

    fn add_up(&mut self, table: &Table) -> mysql::Result<Sum> {
        let query = format!("SELECT {} FROM {} ORDER BY {}", table.column_list(), table.name, table.key_list());
        let mut sum = Summing::new(table);
        for row in self.connection.exec_iter(query, ())? {
            sum.add(&fields(row?)?);
        }
        Ok(sum.finish())
    }

    /// Inserts rows, many in a statement. After an error, the rows of earlier statements are
    /// inserted. If the table has columns that are not copied, these are filled too.
    ///
    /// # Errors
    /// The database refuses, or does not answer.
    pub fn insert(&mut self, table: &Table, rows: &[RowFields]) -> Result<(), MysqlOpenError> {
        let mut rest = rows;
        let bytes_max = usize::try_from(self.longest_text()?).unwrap_or(usize::MAX).min(shapes::RUN_BYTES_MAX);
        while !rest.is_empty() {
            let (run, later) = rest.split_at(shapes::run_length(rest.iter().map(|row| size(row)), bytes_max));
            self.insert_run(table, run).map_err(|error| self.explain(&error))?;
            rest = later;
        }
        Ok(())
    }

    fn insert_run(&mut self, table: &Table, rows: &[RowFields]) -> mysql::Result<()> {
        let computed = if table.name == GROUPS.name { ", name_key" } else { "" };
        let statement = format!(
            "INSERT INTO {} ({}{computed}) VALUES {}",
            table.name,
            table.column_list(),
            shapes::tuples(rows.len(), table.columns.len() + usize::from(!computed.is_empty()))
        );
        let mut values = Vec::with_capacity(rows.len() * (table.columns.len() + 1));
        for row in rows {
            values.extend(row.iter().map(value));
            if !computed.is_empty() {
                values.push(fold(&text(row, 1)).into());
            }
        }
        self.connection.exec_drop(statement, values)
    }

    /// Inserts users. If a name is taken, notes by whom and continues.
    ///
    /// # Errors
    /// The database refuses for another reason, or does not answer.
    pub fn insert_users(&mut self, rows: &[RowFields], same: &mut Vec<SameName>) -> Result<(), MysqlOpenError> {
        for run in rows.chunks(USERS_AT_ONCE) {
            match self.insert_run(&USERS, run) {
                Err(error) if is_duplicate(&error) => {}
                other => {
                    other.map_err(|error| self.explain(&error))?;
                    continue;
                }
            }
            for row in run {
                match self.insert_run(&USERS, std::slice::from_ref(row)) {
                    Err(error) if is_duplicate(&error) => {
                        same.extend(self.taken_by(row).map_err(|error| self.explain(&error))?);
                    }
                    other => other.map_err(|error| self.explain(&error))?,
                }
            }
        }
        Ok(())
    }

    fn taken_by(&mut self, row: &[Field]) -> mysql::Result<Option<SameName>> {
        let (id, name) = (USERS.key_of(row).0, text(row, 1));
        let found =
            self.connection.exec_first("SELECT id, name FROM User WHERE name = :name", params! {"name" => &name})?;
        let Some(mut found): Option<Row> = found else { return Ok(None) };
        Ok(Some(SameName { first: (column(&mut found, "id")?, column(&mut found, "name")?), second: (id, name) }))
    }

    /// Sets the next number of a self-numbering table to one above `highest`.
    ///
    /// # Errors
    /// The database refuses, or does not answer.
    pub fn number_after(&mut self, table: &Table, highest: i64) -> Result<(), MysqlOpenError> {
        // After the last possible number of users and groups there is no next one.
        let next = if highest == i64::from(i32::MAX) { highest } else { highest.saturating_add(1) };
        self.run(&format!("ALTER TABLE {} AUTO_INCREMENT = {next}", table.name))
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// The database does not answer.
    pub fn begin_transaction(&mut self) -> Result<(), MysqlOpenError> {
        self.run("START TRANSACTION")
    }

    /// Commits the transaction.
    ///
    /// # Errors
    /// The database refuses, or does not answer.
    pub fn commit(&mut self) -> Result<(), MysqlOpenError> {
        self.run("COMMIT")
    }

    /// Rolls the transaction back.
    ///
    /// # Errors
    /// The database does not answer; then it rolls back by itself.
    pub fn roll_back(&mut self) -> Result<(), MysqlOpenError> {
        self.run("ROLLBACK")
    }

    /// The length of the longest text in one statement, in bytes.
    ///
    /// # Errors
    /// The database does not answer.
    pub fn longest_text(&mut self) -> Result<u64, MysqlOpenError> {
        let packet: mysql::Result<Option<u64>> = self.connection.query_first("SELECT @@max_allowed_packet");
        Ok(packet.map_err(|error| self.explain(&error))?.unwrap_or_default().saturating_sub(PACKET_OVERHEAD))
    }

    fn run(&mut self, statement: &str) -> Result<(), MysqlOpenError> {
        self.connection.query_drop(statement).map_err(|error| self.explain(&error))
    }
}

fn fields(row: Row) -> mysql::Result<RowFields> {
    let field = |value| match value {
        Value::Int(number) => Ok(Field::Number(number)),
        Value::Bytes(text) => Ok(Field::Text(text)),
        // The reference server's tables allow it where ours have an empty text.
        Value::NULL => Ok(Field::Text(Vec::new())),
        other => Err(mysql::Error::FromValueError(other)),
    };
    row.unwrap_raw().into_iter().map(|value| field(value.unwrap_or(Value::NULL))).collect()
}

fn value(field: &Field) -> Value {
    match field {
        Field::Number(number) => Value::Int(*number),
        Field::Text(text) => Value::Bytes(text.clone()),
    }
}

fn text(row: &[Field], at: usize) -> String {
    match row.get(at) {
        Some(Field::Text(text)) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    }
}

/// The approximate size of a row in a statement.
pub fn size(row: &[Field]) -> usize {
    row.iter().map(|field| if let Field::Text(text) = field { text.len() } else { 8 }).sum()
}

fn is_duplicate(error: &mysql::Error) -> bool {
    error::code(error) == Some(error::DUPLICATE_ENTRY)
}

const USERS_AT_ONCE: usize = 512;

/// The size of a packet without the text.
const PACKET_OVERHEAD: u64 = 1024;
