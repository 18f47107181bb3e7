//! [`Script`]: several statements that are sent together, so that they cost one round trip. Values
//! are written into the text: prepared statements would have one shape for every length of a list,
//! and the database keeps every shape.

use std::fmt::{Display, Write as _};

use mysql::prelude::Queryable;
use mysql::{Conn, Row, Value};

use crate::store::mysql::error::{self, Trouble};

/// Statements, each with the name under which its rows are passed on.
pub(super) struct Script<Q> {
    statements: Vec<(Q, String)>,
    bytes_max: usize,
}

impl<Q: Copy> Script<Q> {
    /// An empty script. At most `bytes_max` are sent at once, unless one statement is longer.
    pub(super) fn new(bytes_max: usize) -> Script<Q> {
        Script { statements: Vec::new(), bytes_max }
    }

    pub(super) fn add(&mut self, name: Q, statement: impl Into<String>) {
        self.statements.push((name, statement.into()));
    }

    /// Adds statements that insert `rows`, each some of them. A row is written as `(1,'a')`.
    pub(super) fn insert(&mut self, name: Q, into: &str, rows: impl IntoIterator<Item = String>, end: &str) {
        let mut statement = String::new();
        for row in rows {
            if !statement.is_empty() && statement.len() + row.len() + end.len() >= self.bytes_max {
                statement.push_str(end);
                self.add(name, std::mem::take(&mut statement));
            }
            if statement.is_empty() {
                let _ = write!(statement, "INSERT INTO {into} VALUES ");
            } else {
                statement.push(',');
            }
            statement.push_str(&row);
        }
        if !statement.is_empty() {
            statement.push_str(end);
            self.add(name, statement);
        }
    }

    /// Runs the statements in order, and passes their rows on. After an error the rest is not run.
    pub(super) fn run(
        self,
        db: &mut impl Queryable,
        mut each: impl FnMut(Q, Row) -> mysql::Result<()>,
    ) -> mysql::Result<()> {
        let mut rest = self.statements.as_slice();
        while let Some(((_, first), others)) = rest.split_first() {
            let mut text = first.clone();
            let together = others.iter().take_while(|(_, next)| {
                let fits = text.len() + next.len() < self.bytes_max;
                if fits {
                    let _ = write!(text, ";{next}");
                }
                fits
            });
            let (now, later) = rest.split_at(1 + together.count());
            let (mut answers, mut names) = (db.query_iter(text)?, now.iter());
            while let Some(rows) = answers.iter() {
                let name = names.next().map(|(name, _)| *name);
                for row in rows {
                    let (Some(name), row) = (name, row?) else { continue };
                    each(name, row)?;
                }
            }
            rest = later;
        }
        Ok(())
    }
}

/// Runs statements that begin and end a transaction. After an error the transaction is undone.
pub(in crate::store::mysql) fn or_undone<T>(
    db: &mut Conn,
    statements: impl FnOnce(&mut Conn) -> mysql::Result<T>,
) -> mysql::Result<T> {
    statements(db).map_err(|error| match error::trouble(&error) {
        // The transaction ends with the connection.
        Trouble::Lost | Trouble::Silent => error,
        _ => db.query_drop("ROLLBACK").err().unwrap_or(error),
    })
}

/// `1,2,3`.
pub(in crate::store::mysql) fn list(values: impl IntoIterator<Item = impl Display>) -> String {
    let mut text = String::new();
    for value in values {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{value}");
    }
    text
}

/// Pairs of numbers as a table `pair` with the columns `one` and `two`, to which the caller joins
/// the table that is asked: `… AS pair STRAIGHT_JOIN Blocked ON user = pair.one AND …`. Both
/// databases then look each pair up by an index. A condition of as many `OR`s costs the optimizer
/// of MariaDB time that grows with their square: 11 ms for 400 pairs, where this takes 0.3 ms.
pub(super) fn pairs(pairs: impl IntoIterator<Item = (impl Display, impl Display)>) -> String {
    table_of(pairs.into_iter().map(|(one, two)| format!("[{one},{two}]")), "BIGINT")
}

/// The same with bytes in `two`, as hexadecimal digits.
pub(super) fn named_pairs<'a>(pairs: impl IntoIterator<Item = (impl Display, &'a [u8])>) -> String {
    table_of(pairs.into_iter().map(|(one, two)| format!("[{one},\"{}\"]", hex(two))), "VARCHAR(128)")
}

fn table_of(rows: impl Iterator<Item = String>, two: &str) -> String {
    let rows = list(rows);
    format!("JSON_TABLE('[{rows}]', '$[*]' COLUMNS (one BIGINT PATH '$[0]', two {two} PATH '$[1]')) AS pair")
}

/// Bytes as a literal.
pub(super) fn bytes(bytes: &[u8]) -> String {
    format!("x'{}'", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A text as a literal, for connections in which a backslash escapes.
pub(super) fn text(text: &str) -> String {
    Value::from(text).as_sql(false)
}

/// The most values in one list. MariaDB turns a list of a thousand into a table.
pub(in crate::store::mysql) const LIST_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written() {
        assert_eq!(list([1, 2, 3]), "1,2,3");
        let table = pairs([(1, 2), (1, 3), (2, 4)]);
        assert!(table.starts_with("JSON_TABLE('[[1,2],[1,3],[2,4]]', '$[*]' COLUMNS (one BIGINT PATH"), "{table}");
        let table = named_pairs([(1, b"\0'\"" as &[u8])]);
        assert!(table.starts_with(r#"JSON_TABLE('[[1,"002722"]]', '$[*]' "#), "{table}");
        assert_eq!((bytes(&[0, 255]), bytes(&[])), ("x'00ff'".to_owned(), "x''".to_owned()));
        assert_eq!(text("it's \\ \"n\"\n\0é"), r#"'it\'s \\ \"n\"\n\0é'"#);
    }

    #[test]
    fn rows_go_into_statements_of_bounded_length() {
        let mut script = Script::new(40);
        script.insert((), "T (a)", (0..10).map(|n| format!("({n})")), " END");
        let texts: Vec<&str> = script.statements.iter().map(|(_, text)| text.as_str()).collect();
        assert!(texts.iter().all(|text| text.len() <= 40), "{texts:?}");
        assert_eq!(texts[0], "INSERT INTO T (a) VALUES (0),(1),(2) END");
        assert_eq!(texts.concat().matches('(').count(), 10 + texts.len());
        let mut long = Script::new(10);
        long.insert((), "T (a)", ["(1)".to_owned()], "");
        assert_eq!(long.statements.len(), 1, "one that is too long is the database's to refuse");
    }
}
