//! The statements on the table `Spooled`, whose rows are the messages of a spool.

use std::collections::BTreeSet;

use rusqlite::{Connection, Row, named_params};

use crate::base::conversation::ConversationId;
use crate::protocol::UserId;
use crate::store::NewMessage;
use crate::store::spool::{MESSAGE_BYTES, PIECE_BYTES_MAX, PIECE_MAX, Part, SpoolId, SpoolLoad, Spooled, lane_of};

/// Adds messages in this order.
pub(super) fn insert(db: &Connection, messages: &[NewMessage]) -> rusqlite::Result<()> {
    let mut insert =
        db.prepare_cached("INSERT INTO Spooled (userid, message, conv) VALUES (:user, :message, :conv)")?;
    for message in messages {
        let conv = message.recorded.map_or(0, ConversationId::column);
        insert.execute(named_params! {":user": message.to.0, ":message": &*message.text, ":conv": conv})?;
    }
    Ok(())
}

/// Deletes rows; returns their number and size.
pub(super) fn delete(db: &Connection, ids: &[SpoolId]) -> rusqlite::Result<(usize, usize)> {
    sum_of(db, "DELETE FROM Spooled WHERE id = :id RETURNING octet_length(message) AS bytes", ids)
}

/// The number and the size of those rows that exist.
pub(super) fn sizes(db: &Connection, ids: &[SpoolId]) -> rusqlite::Result<(usize, usize)> {
    sum_of(db, "SELECT octet_length(message) AS bytes FROM Spooled WHERE id = :id", ids)
}

fn sum_of(db: &Connection, statement: &str, ids: &[SpoolId]) -> rusqlite::Result<(usize, usize)> {
    let mut statement = db.prepare_cached(statement)?;
    let (mut messages, mut bytes) = (0, 0);
    for id in ids {
        for length in statement.query_map(named_params! {":id": id.0}, |row| number(row, "bytes"))? {
            messages += 1;
            bytes += length? + MESSAGE_BYTES;
        }
    }
    Ok((messages, bytes))
}

/// Marks rows as set aside; returns how many were not before.
pub(super) fn set_aside(db: &Connection, ids: &[SpoolId]) -> rusqlite::Result<usize> {
    let mut update = db.prepare_cached("UPDATE Spooled SET aside = 1 WHERE id = :id AND aside = 0")?;
    ids.iter().try_fold(0, |sum, id| Ok(sum + update.execute(named_params! {":id": id.0})?))
}

/// The oldest rows of `part` that are neither set aside nor `hidden`, as many as fit one piece.
pub(super) fn oldest(db: &Connection, part: Part, hidden: &BTreeSet<SpoolId>) -> rusqlite::Result<Vec<Spooled>> {
    match part {
        Part::Lane { nth, of, after } => piece(
            db,
            "SELECT id, userid, message, conv FROM Spooled WHERE id > :after AND aside = 0 ORDER BY id",
            named_params! {":after": after.0},
            |user, id| lane_of(user, of) == nth && !hidden.contains(&id),
        ),
        Part::User(user) => piece(
            db,
            "SELECT id, userid, message, conv FROM Spooled WHERE userid = :user AND aside = 0 ORDER BY id",
            named_params! {":user": user.0},
            |_, id| !hidden.contains(&id),
        ),
    }
}

/// The highest id ever assigned.
pub(super) fn highest_given(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("SELECT COALESCE(max(seq), 0) FROM sqlite_sequence WHERE name = 'Spooled'", [], |row| row.get(0))
}

/// Makes the next id higher than this one.
pub(super) fn go_on_after(db: &Connection, given: i64) -> rusqlite::Result<()> {
    if highest_given(db)? >= given {
        return Ok(());
    }
    db.execute("DELETE FROM sqlite_sequence WHERE name = 'Spooled'", [])?;
    db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('Spooled', :given)", named_params! {":given": given})?;
    Ok(())
}

/// The number and the size of all rows.
pub(super) fn measure(db: &Connection) -> rusqlite::Result<SpoolLoad> {
    let query = "SELECT count(*) AS messages, COALESCE(sum(octet_length(message)), 0) AS bytes FROM Spooled";
    db.query_row(query, [], |row| {
        let (messages, bytes) = (number(row, "messages")?, number(row, "bytes")?);
        Ok(SpoolLoad { messages, bytes: bytes + messages * MESSAGE_BYTES, aside: 0 })
    })
}

/// The first visible rows, as many as fit one piece.
fn piece(
    db: &Connection,
    query: &str,
    parameters: &[(&str, &dyn rusqlite::ToSql)],
    is_wanted: impl Fn(UserId, SpoolId) -> bool,
) -> rusqlite::Result<Vec<Spooled>> {
    let mut select = db.prepare_cached(query)?;
    let mut rows = select.query(parameters)?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        // This check comes before the message is read.
        if !is_wanted(UserId(row.get("userid")?), SpoolId(row.get("id")?)) {
            continue;
        }
        let spooled = spooled(row)?;
        bytes += spooled.message.text.len();
        if bytes > PIECE_BYTES_MAX && !found.is_empty() {
            break;
        }
        found.push(spooled);
        if found.len() == PIECE_MAX {
            break;
        }
    }
    Ok(found)
}

fn spooled(row: &Row<'_>) -> rusqlite::Result<Spooled> {
    let conv: i64 = row.get("conv")?;
    let message = NewMessage {
        to: UserId(row.get("userid")?),
        text: row.get::<_, String>("message")?.into(),
        recorded: (conv != 0).then(|| ConversationId::from_column(conv)),
    };
    Ok(Spooled { id: SpoolId(row.get("id")?), message })
}

/// A column that is never negative.
fn number(row: &Row<'_>, column: &str) -> rusqlite::Result<usize> {
    Ok(usize::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
}
