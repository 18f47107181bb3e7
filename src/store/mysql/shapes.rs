//! Statements with a variable number of values, in a small number of shapes.
//!
//! A prepared statement has a fixed number of placeholders, and the database keeps every prepared
//! statement: one for each length of a batch would be hundreds a connection. So lists are padded to
//! a power of two by repeating their last value, and rows are inserted in runs of certain lengths.
//! These statements have no named parameters, which the driver would look up one by one.

use mysql::Value;

/// `(?,?,?)` and so on, for lists that [`padded`] has made.
pub(super) fn list(length: usize) -> String {
    let mut text = String::with_capacity(2 * length + 1);
    text.push('(');
    for nth in 0..length {
        text.push_str(if nth == 0 { "?" } else { ",?" });
    }
    text.push(')');
    text
}

/// `(?,?),(?,?)` and so on: rows of two values.
pub(super) fn pairs(rows: usize) -> String {
    let mut text = String::with_capacity(6 * rows);
    for nth in 0..rows {
        text.push_str(if nth == 0 { "(?,?)" } else { ",(?,?)" });
    }
    text
}

/// The same for rows of any number of values.
pub(super) fn tuples(rows: usize, values: usize) -> String {
    let tuple = format!("({})", vec!["?"; values].join(","));
    vec![tuple; rows].join(",")
}

/// The values of a list that is not empty, padded to the length of a shape.
pub(super) fn padded(values: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let mut values: Vec<Value> = values.into_iter().collect();
    let last = values.last().expect("a list has a value").clone();
    values.resize(values.len().next_power_of_two(), last);
    values
}

/// The longest list in one statement.
pub(super) const LIST_MAX: usize = 1024;

/// The number of rows at the beginning of a batch that go into one statement, from their sizes in
/// bytes: 1 to 16, 32, 64, 128, 256 or 512, and not more than `bytes_max` including the overhead of
/// each row, unless the first alone is larger.
pub(super) fn run_length(sizes: impl Iterator<Item = usize>, bytes_max: usize) -> usize {
    let mut bytes = 0;
    let fits = sizes.take(RUN_ROWS_MAX).take_while(|size| {
        bytes += size + ROW_OVERHEAD;
        bytes <= bytes_max
    });
    match fits.count() {
        0 => 1,
        few @ 1..=16 => few,
        many => 1 << many.ilog2(),
    }
}

/// The most text in one statement: more is not faster, even where the database accepts it.
pub(super) const RUN_BYTES_MAX: usize = 1 << 20;

/// The size of a row in a statement without its text: numbers, lengths and types.
const ROW_OVERHEAD: usize = 32;

const RUN_ROWS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_rows_are_written() {
        assert_eq!((list(1), list(4)), ("(?)".to_owned(), "(?,?,?,?)".to_owned()));
        assert_eq!((pairs(1), pairs(2)), ("(?,?)".to_owned(), "(?,?),(?,?)".to_owned()));
        assert_eq!((tuples(1, 1), tuples(2, 3)), ("(?)".to_owned(), "(?,?,?),(?,?,?)".to_owned()));
        let values = padded((1..=5).map(Value::Int));
        assert_eq!(values[4..], [5, 5, 5, 5].map(Value::Int));
        assert_eq!(values.len(), 8);
    }

    #[test]
    fn runs_have_few_lengths_and_bounded_sizes() {
        let of = |rows: usize, size: usize| run_length(std::iter::repeat_n(size, rows), RUN_BYTES_MAX);
        assert_eq!(
            [1, 2, 15, 16, 17, 31, 32, 100, 512, 5000].map(|rows| of(rows, 1)),
            [1, 2, 15, 16, 16, 16, 32, 64, 512, 512]
        );
        assert_eq!(of(100, RUN_BYTES_MAX + 1), 1);
        assert_eq!(of(100, RUN_BYTES_MAX / 3), 2);
        assert_eq!(of(100, RUN_BYTES_MAX / 3 - ROW_OVERHEAD), 3);
        assert_eq!(run_length(std::iter::repeat_n(1000, 100), 4 * (1000 + ROW_OVERHEAD)), 4);
    }
}
