//! [`Level1Seen`]: the users of level 2 who still use level 1. Only for these is a recorded message
//! also stored in `OfflineMessage`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHashSet;

use crate::base::clock::Clock;
use crate::base::recent::Recent;
use crate::protocol::UserId;
use crate::store::StoreError;
use crate::store::history::{History, HistoryRole};
use crate::store::outages::Outages;

/// The users who were seen at level 1 within [`LEVEL1_WINDOW`]. The database knows them; its answer
/// is remembered for a while.
pub struct Level1Seen {
    history: HistoryRole,
    outages: Arc<Outages>,
    clock: Clock,
    known: Mutex<Recent<UserId, KnownUse>>,
}

/// A user's use of level 1, as known at some time.
#[derive(Clone, Copy, Debug)]
struct KnownUse {
    at: Instant,
    what: Level1Use,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Level1Use {
    /// A login on this node is written.
    Written,
    /// The database says that the user was seen within the window.
    Seen,
    /// The database says that the user was not seen within the window.
    Unseen,
}

impl Level1Seen {
    /// An empty table.
    pub fn new(history: HistoryRole, outages: Arc<Outages>, clock: Clock) -> Level1Seen {
        Level1Seen { history, outages, clock, known: Mutex::new(Recent::new(KNOWN_MAX)) }
    }

    /// Notes that a user of level 2 logs in at level 1. Returns whether [`Level1Seen::write`] is
    /// due: once a day.
    pub fn logs_in(&self, user: UserId, now: Instant) -> bool {
        let mut known = self.known.lock();
        let is_written = |known: &KnownUse| {
            known.what == Level1Use::Written && now.saturating_duration_since(known.at) < WRITTEN_EVERY
        };
        if known.get(&user).is_some_and(is_written) {
            return false;
        }
        known.insert(user, KnownUse { at: now, what: Level1Use::Written });
        true
    }

    /// Writes a login. Blocks.
    pub fn write(&self, user: UserId) {
        let written = self.ask(|history| history.seen_at_level1(user));
        self.outages.note("noting logins at level 1", written.as_ref().err());
        if written.is_err() {
            self.is_not_written(user);
        }
    }

    /// Notes that the login could not be written: the next one tries again.
    pub fn is_not_written(&self, user: UserId) {
        self.known.lock().remove(&user);
    }

    /// Reads in one query the unknown uses of these users. Blocks.
    pub fn learn(&self, users: impl IntoIterator<Item = UserId>) {
        let now = self.clock.now();
        let unknown: Vec<UserId> = {
            let known = self.known.lock();
            let is_fresh = |known: &KnownUse| now.saturating_duration_since(known.at) < known.what.lifetime();
            users.into_iter().filter(|user| !known.get(user).is_some_and(is_fresh)).collect()
        };
        if unknown.is_empty() {
            return;
        }
        let seen = self.ask(|history| history.level1_users(&unknown, LEVEL1_WINDOW));
        self.outages.note("reading who uses level 1", seen.as_ref().err());
        let Ok(seen) = seen else { return };
        let seen: FxHashSet<UserId> = seen.into_iter().collect();
        let mut known = self.known.lock();
        for user in unknown {
            let what = if seen.contains(&user) { Level1Use::Seen } else { Level1Use::Unseen };
            known.insert(user, KnownUse { at: now, what });
        }
    }

    /// Whether the user was seen at level 1, as far as [`Level1Seen::learn`] has found out. True if
    /// the database does not answer.
    pub fn uses(&self, user: UserId) -> bool {
        self.known.lock().get(&user).is_none_or(|known| known.what != Level1Use::Unseen)
    }

    fn ask<T>(&self, question: impl FnOnce(&dyn History) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let history = self.history.get()?;
        question(history.ok_or_else(|| StoreError::Failed("the tables have no conversations".into()))?)
    }
}

impl Level1Use {
    /// How long the entry is valid. A user who returns to level 1 on another node is noticed soon.
    fn lifetime(self) -> Duration {
        match self {
            Level1Use::Written | Level1Use::Seen => WRITTEN_EVERY,
            Level1Use::Unseen => UNSEEN_FOR,
        }
    }
}

/// The milliseconds after which a user who was not seen at level 1 is assumed to have left it.
pub const LEVEL1_WINDOW: i64 = 30 * 24 * 3600 * 1000;
/// The interval at which a user's logins are written.
const WRITTEN_EVERY: Duration = Duration::from_hours(24);
const UNSEEN_FOR: Duration = Duration::from_secs(60);
/// The most users in each of two generations. A user takes about 30 bytes.
const KNOWN_MAX: usize = 50_000;
