//! [`SpoolFile`]: a spool in a SQLite file, `spool.db`, by the embedded store's means: one writer with group commit, a
//! synced log, a lock against other servers.

use std::path::{Path, PathBuf};
use std::time::Instant;

use parking_lot::Mutex;
use rusqlite::{Connection, Row, named_params};

use super::BUSY_TIMEOUT;
use super::live::Live;
use super::open;
use super::refusal::OpenError;
use crate::protocol::UserId;
use crate::spool::{Addition, MESSAGE_BYTES, PIECE_BYTES_MAX, PIECE_MAX, Part, Spool, SpoolId, SpoolLoad, Spooled};
use crate::store::{Message, StoreError};

/// A [`Spool`] in a file. Logs when it begins to be used, when it is full and when it is empty again.
pub struct SpoolFile {
    file: PathBuf,
    bytes_max: usize,
    /// A leaf lock: what is in it, and what is just being put into it.
    state: Mutex<State>,
    live: Live,
}

#[derive(Debug, Default)]
struct State {
    load: SpoolLoad,
    /// Since when there is something in it that is not set aside, and how much has left it since.
    since: Option<(Instant, usize)>,
    /// It was full, and that is logged.
    is_full: bool,
}

impl SpoolFile {
    /// Whether the folder `data_dir` has one.
    pub fn is_there(data_dir: &Path) -> bool {
        data_dir.join(open::SPOOL.name).exists()
    }

    /// Opens `spool.db` in the folder `data_dir`, creating what is missing. It takes so many bytes, [`MESSAGE_BYTES`] for
    /// each message among them; with 0 it takes nothing, and only gives back what it has.
    ///
    /// # Errors
    /// As for [`SqliteStore::open`](super::SqliteStore::open).
    pub fn open(data_dir: &Path, bytes_max: usize) -> Result<SpoolFile, OpenError> {
        let (live, load) = Live::open(data_dir, &open::SPOOL, BUSY_TIMEOUT, measure)?;
        let file = live.file.clone();
        if load.messages > 0 {
            log::warn!("{load} of an earlier run wait in {} for the database", file.display());
        }
        let since = (load.messages > 0).then(|| (Instant::now(), 0));
        let state = Mutex::new(State { load, since, is_full: false });
        Ok(SpoolFile { file, bytes_max, state, live })
    }

    /// Makes room for as many as there is room for; which have some.
    fn reserve(&self, messages: &[Addition]) -> Vec<bool> {
        let is_lost = self.live.condition.is_lost();
        let mut state = self.state.lock();
        let mut reserve = |addition: &Addition| {
            let bytes = weight(&addition.message);
            let has_room = !is_lost && state.load.bytes + bytes <= self.bytes_max;
            let fits = self.bytes_max > 0 && (addition.must || has_room);
            if fits {
                state.load.messages += 1;
                state.load.bytes += bytes;
            }
            fits
        };
        let kept: Vec<bool> = messages.iter().map(&mut reserve).collect();
        let is_full = self.bytes_max > 0 && !is_lost && kept.contains(&false);
        let begins_to_be_full = is_full && !state.is_full;
        state.is_full |= is_full;
        let load = state.load;
        drop(state);
        if begins_to_be_full {
            log::error!("{} is full (spool_max) with {load}: what must be kept is refused", self.file.display());
        }
        kept
    }

    /// Something was put in.
    fn note_use(&self) {
        let mut state = self.state.lock();
        let begins = state.since.is_none();
        state.since.get_or_insert_with(|| (Instant::now(), 0));
        drop(state);
        if begins {
            log::warn!("what must be kept goes to {} until the database is back", self.file.display());
        }
    }

    /// So much was taken out, or set aside.
    fn note_leaving(&self, messages: usize, bytes: usize, aside: usize) {
        let mut state = self.state.lock();
        state.load.messages -= messages;
        state.load.bytes -= bytes;
        state.load.aside += aside;
        if let Some((_, left)) = &mut state.since {
            *left += messages;
        }
        if state.load.messages > state.load.aside {
            return;
        }
        state.is_full = false;
        let (ended, aside) = (state.since.take(), state.load.aside);
        drop(state);
        if let Some((since, left)) = ended {
            let (file, seconds) = (self.file.display(), since.elapsed().as_secs_f32());
            log::warn!("{file} has drained: {left} messages in {seconds:.1} s, {aside} set aside");
        }
    }
}

impl Spool for SpoolFile {
    fn add(&self, messages: Vec<Addition>) -> Result<Vec<bool>, StoreError> {
        let kept = self.reserve(&messages);
        let with_room = messages.into_iter().zip(&kept).filter(|(_, kept)| **kept);
        let rows: Vec<Message> = with_room.map(|(addition, _)| addition.message).collect();
        if rows.is_empty() {
            return Ok(kept);
        }
        let (count, bytes) = (rows.len(), rows.iter().map(weight).sum::<usize>());
        let written = self.live.write(move |db| {
            let mut insert = db.prepare_cached("INSERT INTO Spooled (userid, message) VALUES (:user, :message)")?;
            for row in &rows {
                insert.execute(named_params! {":user": row.to.0, ":message": &*row.text})?;
            }
            Ok(())
        });
        if let Err(error) = written {
            let mut state = self.state.lock();
            state.load.messages -= count;
            state.load.bytes -= bytes;
            return Err(error);
        }
        self.note_use();
        Ok(kept)
    }

    fn oldest(&self, part: Part) -> Result<Vec<Spooled>, StoreError> {
        self.live.read(move |db| match part {
            // An id below zero, which the reference server's tables may hold, counts as in `lane_of`.
            Part::Lane { nth, of, after } => piece(
                db,
                "SELECT id, userid, message FROM Spooled
                 WHERE id > :after AND aside = 0 AND (userid & 4294967295) % :of = :nth ORDER BY id",
                named_params! {":after": after.0, ":of": of.cast_signed(), ":nth": nth.cast_signed()},
            ),
            Part::User(user) => piece(
                db,
                "SELECT id, userid, message FROM Spooled WHERE userid = :user AND aside = 0 ORDER BY id",
                named_params! {":user": user.0},
            ),
        })
    }

    fn remove(&self, ids: &[SpoolId]) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        let (messages, bytes) = self.live.write(move |db| {
            let mut delete =
                db.prepare_cached("DELETE FROM Spooled WHERE id = :id RETURNING octet_length(message) AS bytes")?;
            let (mut messages, mut bytes) = (0, 0);
            for id in &ids {
                for length in delete.query_map(named_params! {":id": id.0}, |row| number(row, "bytes"))? {
                    messages += 1;
                    bytes += length? + MESSAGE_BYTES;
                }
            }
            Ok((messages, bytes))
        })?;
        self.note_leaving(messages, bytes, 0);
        Ok(())
    }

    fn set_aside(&self, ids: &[SpoolId]) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        let aside = self.live.write(move |db| {
            let mut update = db.prepare_cached("UPDATE Spooled SET aside = 1 WHERE id = :id AND aside = 0")?;
            ids.iter().try_fold(0, |sum, id| Ok(sum + update.execute(named_params! {":id": id.0})?))
        })?;
        self.note_leaving(0, 0, aside);
        Ok(())
    }

    fn load(&self) -> SpoolLoad {
        self.state.lock().load
    }

    fn check(&self) -> Result<(), StoreError> {
        self.live.check()
    }

    fn is_lost(&self) -> bool {
        self.live.condition.is_lost()
    }

    fn on_lost(&self, stop: Box<dyn Fn() + Send + Sync>) {
        self.live.condition.on_lost(stop);
    }

    fn on_trouble(&self, look: Box<dyn Fn() + Send + Sync>) {
        self.live.condition.on_trouble(look);
    }
}

fn measure(db: &Connection) -> rusqlite::Result<SpoolLoad> {
    let query = "SELECT count(*) AS messages, COALESCE(sum(octet_length(message)), 0) AS bytes FROM Spooled";
    db.query_row(query, [], |row| {
        let (messages, bytes) = (number(row, "messages")?, number(row, "bytes")?);
        Ok(SpoolLoad { messages, bytes: bytes + messages * MESSAGE_BYTES, aside: 0 })
    })
}

/// The first rows, as many as one piece holds.
fn piece(db: &Connection, query: &str, parameters: &[(&str, &dyn rusqlite::ToSql)]) -> rusqlite::Result<Vec<Spooled>> {
    let mut select = db.prepare_cached(query)?;
    let mut rows = select.query(parameters)?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
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
    let message = Message { to: UserId(row.get("userid")?), text: row.get::<_, String>("message")?.into() };
    Ok(Spooled { id: SpoolId(row.get("id")?), message })
}

/// A column that is never negative.
fn number(row: &Row<'_>, column: &str) -> rusqlite::Result<usize> {
    Ok(usize::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
}

fn weight(message: &Message) -> usize {
    message.text.len() + MESSAGE_BYTES
}
