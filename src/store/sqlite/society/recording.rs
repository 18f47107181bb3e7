//! Recording entries with a change.

use rusqlite::{Connection, OptionalExtension};

use crate::protocol::UserId;
use crate::store::community::{Recorded, recorded};
use crate::store::history::{CommitRules, NewEntry};
use crate::store::sqlite::conversations::commit;

/// Records entries of one conversation.
pub(super) fn record(
    db: &Connection,
    entries: &[NewEntry],
    members: Vec<UserId>,
    gone: Vec<UserId>,
) -> rusqlite::Result<Option<Recorded>> {
    let outcomes = commit::commit(db, entries, CommitRules::OF_SERVER)?;
    Ok(recorded(entries, &outcomes, members, gone))
}

/// A text of the row with this id.
pub(super) fn text_of(db: &Connection, query: &str, id: i32) -> rusqlite::Result<Option<String>> {
    db.prepare_cached(query)?.query_row([id], |row| row.get(0)).optional()
}
