//! [`SpoolFile`]: a spool in a SQLite file, `spool.db`. Like the embedded store, it has one writer
//! with group commit, a synced log, and a lock against other servers.

mod table;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};
use pool::Outage;
use rusqlite::{Connection, OpenFlags};

use super::condition::Condition;
use super::live::Live;
use super::open::{self, BUSY_TIMEOUT};
use super::paths::{beside, sqlite_path};
use super::refusal::{SqliteOpenError, refused};
use crate::admission::{Holder, NestedShares};
use crate::store::spool::{Addition, MESSAGE_BYTES, PIECE_MAX, Part, Spool, SpoolId, SpoolLoad, Spooled};
use crate::store::{NewMessage, StoreCallback, StoreError};

/// A [`Spool`] in a file. It logs when it comes into use, when it is full and when it is empty
/// again.
///
/// A full disk accepts no deletion either. Rows that cannot be deleted are remembered and hidden.
/// When the file contains nothing else, it is replaced by a new one, for which there is room then.
pub struct SpoolFile {
    data_dir: PathBuf,
    file: PathBuf,
    bytes_max: usize,
    condition: Arc<Condition>,
    /// A leaf lock on its content, and on what is being added.
    state: Mutex<SpoolState>,
    /// `None` if it could not be replaced by a new one. Locked during calls, so that it is not
    /// replaced meanwhile.
    live: RwLock<Option<Live>>,
}

#[derive(Debug, Default)]
struct SpoolState {
    load: SpoolLoad,
    /// The current outage of the database. It lasts while the spool holds messages that are not set
    /// aside.
    outage: Outage,
    /// The number of messages that have left the spool since the outage began.
    left: usize,
    /// The room that each sender has taken since the spool was last empty, and the total. Messages
    /// drained meanwhile still count, so that a sender who has added much lets others go first.
    shares: Option<(NestedShares, usize)>,
    /// The time during which it is full: it then refuses messages until it has drained.
    full: Outage,
    /// Messages that are stored and could not be deleted; never more than the file holds.
    gone: Arc<BTreeSet<SpoolId>>,
    /// The time at which the deletions were last tried.
    tidied: Option<Instant>,
    /// The highest id assigned by a replaced file. Lanes remember ids, so none may be reused.
    given: i64,
}

impl SpoolFile {
    /// Whether there is a spool in the folder `data_dir`.
    pub fn is_there(data_dir: &Path) -> bool {
        data_dir.join(open::SPOOL.name).exists()
    }

    /// Opens `spool.db` in the folder `data_dir`, creating what is missing. It accepts `bytes_max`
    /// bytes, including [`MESSAGE_BYTES`] for each message; with 0 it accepts nothing, and only
    /// returns what it has.
    ///
    /// # Errors
    /// As for [`SqliteStore::open`](super::SqliteStore::open).
    pub fn open(data_dir: &Path, bytes_max: usize) -> Result<SpoolFile, SqliteOpenError> {
        let file = data_dir.join(open::SPOOL.name);
        let condition = Arc::new(Condition::new(file.display().to_string()));
        let opened = Live::open(data_dir, &open::SPOOL, BUSY_TIMEOUT, condition.clone(), |db| {
            table::measure(db).map_err(|error| refused(&file, error))
        });
        let (live, load) = match opened {
            Ok((live, load)) => (Some(live), load),
            // The server works without the spool, which is opened later when there is room.
            Err(error @ SqliteOpenError::Full { .. }) => match peek(&file) {
                Some(load) => {
                    log::error!("{error}; starting without it, and trying again every {TIDY_EVERY:?}");
                    (None, load)
                }
                None => return Err(error),
            },
            Err(error) => return Err(error),
        };
        if load.messages > 0 {
            log::warn!("{load} of an earlier run wait in {} for the database", file.display());
        }
        let mut state = SpoolState { load, ..SpoolState::default() };
        if load.messages > 0 {
            state.outage.begin();
        }
        let state = Mutex::new(state);
        let (data_dir, live) = (data_dir.to_owned(), RwLock::new(live));
        Ok(SpoolFile { data_dir, file, bytes_max, condition, state, live })
    }

    fn live(&self) -> Result<MappedRwLockReadGuard<'_, Live>, StoreError> {
        RwLockReadGuard::try_map(self.live.read(), Option::as_ref)
            .map_err(|_| StoreError::Unavailable(format!("{} cannot be opened", self.file.display()).into()))
    }

    /// Hides messages without writing to the disk.
    fn remember_gone(&self, live: &Live, ids: &[SpoolId], error: &StoreError) -> Result<(), StoreError> {
        let known = self.state.lock().gone.clone();
        let new: Vec<SpoolId> = ids.iter().copied().filter(|id| !known.contains(id)).collect();
        let asked = new.clone();
        let (messages, bytes) = live.read(move |db| table::sizes(db, &asked))?;
        drop(known);
        let mut state = self.state.lock();
        let begins = state.gone.is_empty();
        Arc::make_mut(&mut state.gone).extend(new);
        state.tidied.get_or_insert_with(Instant::now);
        drop(state);
        if begins {
            let file = self.file.display();
            log::warn!("{error}: stored messages cannot be deleted from {file}, and are skipped there");
        }
        self.note_leaving(messages, bytes, 0);
        Ok(())
    }

    /// Deletes the hidden messages, as far as the disk accepts it.
    fn delete_gone(&self) {
        loop {
            let Ok(live) = self.live() else { return };
            let some: Vec<SpoolId> = self.state.lock().gone.iter().take(PIECE_MAX).copied().collect();
            if some.is_empty() || delete(&live, &some).is_err() {
                return;
            }
            let mut state = self.state.lock();
            let gone = Arc::make_mut(&mut state.gone);
            for id in &some {
                gone.remove(id);
            }
            if gone.is_empty() {
                log::warn!("the messages that could not be deleted are now deleted from {}", self.file.display());
            }
        }
    }

    /// Creates a new file if the old one contains only stored messages; or opens one that could not
    /// be opened.
    fn replace(&self) {
        // Nothing can be added while this is locked.
        let mut slot = self.live.write();
        let is_empty = self.state.lock().load.messages == 0;
        if self.condition.is_lost() || (slot.is_some() && !is_empty) {
            return;
        }
        if let Some(live) = &*slot {
            match live.read(table::highest_given) {
                Ok(given) => self.state.lock().given = given,
                Err(error) => return log::debug!("{error}"),
            }
        }
        let is_new = slot.take().is_some_and(|live| discard(live, &self.file).is_ok());
        if is_new {
            self.state.lock().gone = Arc::default();
        }
        let given = self.state.lock().given;
        let go_on = |db: &Connection| table::go_on_after(db, given).map_err(|error| refused(&self.file, error));
        match Live::open(&self.data_dir, &open::SPOOL, BUSY_TIMEOUT, self.condition.clone(), go_on) {
            Ok((live, ())) => {
                *slot = Some(live);
                let what = if is_new { "is a new file: all that was in the old one is stored" } else { "is open" };
                log::warn!("{} {what}", self.file.display());
            }
            Err(error) => log::debug!("{error}"),
        }
    }

    /// Reserves room for as many as fit. Returns for each whether it has room.
    fn reserve(&self, messages: &[Addition]) -> Vec<bool> {
        let is_lost = self.condition.is_lost();
        let mut state = self.state.lock();
        let mut reserve = |addition: &Addition| {
            let bytes = weight(&addition.message);
            let has_room = !is_lost && state.load.bytes + bytes <= self.bytes_max;
            let has_room = has_room && (addition.must || state.take_share(addition.holder, bytes, self.bytes_max));
            let fits = self.bytes_max > 0 && (addition.must || has_room);
            if fits {
                state.load.messages += 1;
                state.load.bytes += bytes;
            }
            fits
        };
        let kept: Vec<bool> = messages.iter().map(&mut reserve).collect();
        let is_full = self.bytes_max > 0 && !is_lost && kept.contains(&false);
        let begins_to_be_full = is_full && state.full.begin();
        let load = state.load;
        drop(state);
        if begins_to_be_full {
            log::error!("{} is full (spool_max) with {load}: further messages are refused", self.file.display());
        }
        kept
    }

    /// Notes that messages were added.
    fn note_use(&self) {
        let mut state = self.state.lock();
        let begins = state.outage.begin();
        drop(state);
        if begins {
            log::warn!("messages are stored in {} until the database is back", self.file.display());
        }
    }

    /// Notes that messages were removed, or set aside.
    fn note_leaving(&self, messages: usize, bytes: usize, aside: usize) {
        let mut state = self.state.lock();
        state.load.messages -= messages;
        state.load.bytes -= bytes;
        state.load.aside += aside;
        state.left += messages;
        if state.load.messages > state.load.aside {
            return;
        }
        // The line about the drained spool covers this too.
        state.full.end();
        state.shares = None;
        let (lasted, left, aside) = (state.outage.end(), std::mem::take(&mut state.left), state.load.aside);
        drop(state);
        if let Some(lasted) = lasted {
            log::warn!("{} has drained: {left} messages in {lasted}, {aside} set aside", self.file.display());
        }
    }
}

impl SpoolState {
    /// Takes room for a sender; false if that would exceed its share.
    fn take_share(&mut self, holder: Option<Holder>, bytes: usize, bytes_max: usize) -> bool {
        let Some(holder) = holder else { return true };
        let free = bytes_max.saturating_sub(self.load.bytes);
        let (shares, taken) = self.shares.get_or_insert_with(|| (NestedShares::new(0), 0));
        shares.set_max(*taken + free);
        let fits = shares.take(holder, bytes);
        *taken += if fits { bytes } else { 0 };
        fits
    }

    /// Returns room because the messages could not be written. Shares that were begun anew
    /// meanwhile do not contain it.
    fn give_back(&mut self, held: Vec<(Holder, usize)>) {
        if self.load.messages <= self.load.aside {
            self.shares = None;
        } else if let Some((shares, taken)) = &mut self.shares {
            for (holder, bytes) in held {
                let bytes = bytes.min(shares.held(&holder));
                shares.give_back(holder, bytes);
                *taken -= bytes;
            }
        }
    }
}

impl Spool for SpoolFile {
    fn add(&self, messages: Vec<Addition>) -> Result<Vec<bool>, StoreError> {
        let live = self.live()?;
        let kept = self.reserve(&messages);
        let share = |(addition, kept): (&Addition, &bool)| {
            let holder = addition.holder.filter(|_| *kept && !addition.must)?;
            Some((holder, weight(&addition.message)))
        };
        let shares: Vec<_> = messages.iter().zip(&kept).filter_map(share).collect();
        let with_room = messages.into_iter().zip(&kept).filter(|(_, kept)| **kept);
        let rows: Vec<NewMessage> = with_room.map(|(addition, _)| addition.message).collect();
        if rows.is_empty() {
            return Ok(kept);
        }
        let (count, bytes) = (rows.len(), rows.iter().map(weight).sum::<usize>());
        if let Err(error) = live.write(move |db| table::insert(db, &rows)) {
            let mut state = self.state.lock();
            state.load.messages -= count;
            state.load.bytes -= bytes;
            state.give_back(shares);
            return Err(error);
        }
        self.note_use();
        Ok(kept)
    }

    fn oldest(&self, part: Part) -> Result<Vec<Spooled>, StoreError> {
        // The order matters: the hidden messages belong to the file that is read.
        let live = self.live()?;
        let gone = self.state.lock().gone.clone();
        live.read(move |db| table::oldest(db, part, &gone))
    }

    fn remove(&self, ids: &[SpoolId]) -> Result<(), StoreError> {
        let live = self.live()?;
        match delete(&live, ids) {
            Ok((messages, bytes)) => {
                self.note_leaving(messages, bytes, 0);
                Ok(())
            }
            Err(error) => self.remember_gone(&live, ids, &error),
        }
    }

    fn owes(&self) -> bool {
        !self.state.lock().gone.is_empty() || self.live.try_read().is_some_and(|live| live.is_none())
    }

    fn tidy(&self) {
        let mut state = self.state.lock();
        if state.tidied.is_some_and(|at| at.elapsed() < TIDY_EVERY) {
            return;
        }
        state.tidied = Some(Instant::now());
        drop(state);
        self.delete_gone();
        if self.owes() {
            self.replace();
        }
    }

    fn set_aside(&self, ids: &[SpoolId]) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        let aside = self.live()?.write(move |db| table::set_aside(db, &ids))?;
        self.note_leaving(0, 0, aside);
        Ok(())
    }

    fn load(&self) -> SpoolLoad {
        self.state.lock().load
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.owes() {
            self.tidy();
        }
        self.live()?.check()
    }

    fn is_lost(&self) -> bool {
        self.condition.is_lost()
    }

    fn on_lost(&self, stop: StoreCallback) {
        self.condition.on_lost(stop);
    }

    fn on_trouble(&self, look: StoreCallback) {
        self.condition.on_trouble(look);
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        self.delete_gone();
        let left = self.state.get_mut();
        if left.gone.is_empty() || self.condition.is_lost() {
            return;
        }
        let (gone, waiting) = (left.gone.len(), left.load.messages);
        let is_discarded =
            waiting == 0 && self.live.get_mut().take().is_some_and(|live| discard(live, &self.file).is_ok());
        if !is_discarded {
            let file = self.file.display();
            log::warn!(
                "{gone} messages that are stored are still in {file}, and will be stored again at the next start"
            );
        }
    }
}

/// Deletes rows; returns their number and size.
fn delete(live: &Live, ids: &[SpoolId]) -> Result<(usize, usize), StoreError> {
    let ids = ids.to_vec();
    live.write(move |db| table::delete(db, &ids))
}

/// Closes a spool and deletes its files, which needs no room.
fn discard(live: Live, file: &Path) -> io::Result<()> {
    // The locks are held until the files are deleted.
    let _guard = live.close();
    for suffix in ["", "-wal", "-shm"] {
        match fs::remove_file(beside(file, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The content of a spool after a graceful shutdown, read without writing anything, including the
/// files beside it. `None` if it is unknown: the spool is new, or there is a log.
fn peek(file: &Path) -> Option<SpoolLoad> {
    let log = fs::metadata(beside(file, "-wal"));
    if log.is_ok_and(|log| log.len() > 0) {
        return None;
    }
    let path = sqlite_path(file).to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // The file cannot change: this server has not opened it, and no other one can while the disk is
    // full.
    let db = Connection::open_with_flags(format!("file:{path}?immutable=1"), flags).ok()?;
    table::measure(&db).ok()
}

fn weight(message: &NewMessage) -> usize {
    message.text.len() + MESSAGE_BYTES
}

/// The interval at which pending deletions are retried.
const TIDY_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    use std::env;
    use std::process;

    use crate::admission::{Payer, Source};
    use crate::protocol::UserId;

    #[test]
    fn one_sender_has_half_of_it_and_others_find_room() {
        let dir = env::temp_dir().join(format!("raybox-spool-shares-{}", process::id()));
        let _ = fs::remove_dir_all(&dir);
        let spool = SpoolFile::open(&dir, 100 * 1000).unwrap();
        let add = |user: i32| {
            let source = Source::of([192, 0, 2, 1].into());
            let holder = Some(Holder { payer: Payer::Account(UserId(user)), source });
            let message = NewMessage::new(UserId(9), "x".repeat(1000 - MESSAGE_BYTES));
            spool.add(vec![Addition { message, must: false, holder }]).unwrap()[0]
        };
        assert_eq!((0..100).filter(|_| add(1)).count(), 50);
        assert_eq!((0..20).filter(|_| add(2)).count(), 20, "a quiet sender finds room");
        // When it is empty, all senders may begin again.
        let part = Part::Lane { nth: 0, of: 1, after: SpoolId(0) };
        let ids: Vec<SpoolId> = spool.oldest(part).unwrap().iter().map(|spooled| spooled.id).collect();
        spool.remove(&ids).unwrap();
        assert!(add(1));
        drop(spool);
        let _ = fs::remove_dir_all(&dir);
    }

    #[test]
    fn a_file_that_replaces_another_gives_no_id_again() {
        let dir = env::temp_dir().join(format!("raybox-spool-{}", process::id()));
        let spool = SpoolFile::open(&dir, 1 << 20).unwrap();
        let add = |text: &str| {
            let message = NewMessage::new(UserId(5), text);
            assert_eq!(spool.add(vec![Addition { message, must: false, holder: None }]).unwrap(), [true]);
        };
        let waiting = |after| spool.oldest(Part::Lane { nth: 0, of: 1, after }).unwrap();
        ["a", "b", "c"].into_iter().for_each(add);
        let ids: Vec<SpoolId> = waiting(SpoolId(0)).iter().map(|spooled| spooled.id).collect();
        // The disk accepts no deletion, like a full one.
        spool.live().unwrap().write(|db| db.pragma_update(None, "query_only", true)).unwrap();
        spool.remove(&ids).unwrap();
        assert!(spool.owes());
        spool.replace();
        assert!(!spool.owes(), "it is a new file");
        add("d");
        // A lane continues after the messages that it has processed.
        let left: Vec<_> = waiting(ids[2]).iter().map(|spooled| spooled.message.text.to_string()).collect();
        assert_eq!(left, ["d"]);
        drop(spool);
        fs::remove_dir_all(dir).unwrap();
    }
}
