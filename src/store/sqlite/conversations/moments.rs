//! The time, and queries as of one moment.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

/// The clock, ms since 1970.
pub(in crate::store::sqlite) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Runs queries on a reading connection that see the same moment.
pub(super) fn in_one_moment<T>(
    db: &Connection,
    queries: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    // The transaction ends when it is dropped.
    let moment = db.unchecked_transaction()?;
    queries(&moment)
}
