//! [`Condition`]: the known state of a database file: whether it accepts writes, is damaged, or was
//! removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rusqlite::ErrorCode;

use crate::store::{StoreCallback, StoreError};

/// The state, shared by all users of one database file.
pub(super) struct Condition {
    /// The file, for the log.
    name: String,
    /// A leaf lock.
    state: Mutex<Findings>,
    news: Condvar,
    is_lost: AtomicBool,
    /// The callbacks for the loss of the file, and for the beginning of failing writes. Locked
    /// during a call, so a callback must not call back.
    on_lost: Mutex<Option<StoreCallback>>,
    on_trouble: Mutex<Option<StoreCallback>>,
}

#[derive(Default)]
struct Findings {
    /// The result of the last batch of changes, and its time.
    last: Option<(Instant, Result<(), Arc<str>>)>,
    /// The time at which an unanswered probe was sent.
    asked: Option<Instant>,
    /// SQLite's error for a damaged page. This does not pass by itself.
    damage: Option<Arc<str>>,
    /// The way in which the file was lost.
    lost: Option<Arc<str>>,
}

impl Condition {
    pub(super) fn new(name: String) -> Condition {
        Condition {
            name,
            state: Mutex::default(),
            news: Condvar::new(),
            is_lost: AtomicBool::new(false),
            on_lost: Mutex::new(None),
            on_trouble: Mutex::new(None),
        }
    }

    /// Notes that changes are on the disk.
    pub(super) fn wrote(&self) {
        self.note(Ok(()));
    }

    /// Notes that changes could not be written, and that their content is not the cause.
    pub(super) fn failed(&self, cause: &rusqlite::Error) {
        self.note(Err(cause.to_string().into()));
    }

    fn note(&self, result: Result<(), Arc<str>>) {
        let mut state = self.state.lock();
        let begins_to_fail = result.is_err() && !matches!(&state.last, Some((_, Err(_))));
        state.last = Some((Instant::now(), result));
        state.asked = None;
        drop(state);
        self.news.notify_all();
        if begins_to_fail {
            self.tell_trouble();
        }
    }

    fn tell_trouble(&self) {
        if let Some(look) = &*self.on_trouble.lock() {
            look();
        }
    }

    /// Checks any error of SQLite for a damaged page. One such page is enough, because other damage
    /// is unknown.
    pub(super) fn examine(&self, error: &rusqlite::Error) {
        if !matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) {
            return;
        }
        let mut state = self.state.lock();
        let is_news = state.damage.is_none();
        if is_news {
            state.damage = Some(format!("{} is damaged: {error}; restore a backup", self.name).into());
        }
        drop(state);
        self.news.notify_all();
        if is_news {
            log::error!("{} is damaged: {error}; stop the server and restore a backup", self.name);
            self.tell_trouble();
        }
    }

    /// Notes that the file was moved, replaced or deleted, so that data written from now on could
    /// not be found.
    pub(super) fn lose(&self, how: &str) {
        let mut state = self.state.lock();
        if state.lost.is_some() {
            return;
        }
        state.lost = Some(how.into());
        self.is_lost.store(true, Ordering::Release);
        drop(state);
        self.news.notify_all();
        log::error!("{how} while the server runs: it accepts nothing more, saves what it has, and stops");
        if let Some(stop) = &*self.on_lost.lock() {
            stop();
        }
    }

    /// Whether the file was removed.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// Has `stop` called when the file is removed, immediately if it was already.
    pub(super) fn on_lost(&self, stop: StoreCallback) {
        // Under the lock, because otherwise a loss at this moment would call nothing.
        let mut on_lost = self.on_lost.lock();
        if self.is_lost() {
            stop();
        }
        *on_lost = Some(stop);
    }

    /// Has `look` called when writes begin to fail.
    pub(super) fn on_trouble(&self, look: StoreCallback) {
        *self.on_trouble.lock() = Some(look);
    }

    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the file was removed.
    pub(super) fn refuse_if_lost(&self) -> Result<(), StoreError> {
        let lost = if self.is_lost() { self.state.lock().lost.clone() } else { None };
        lost.map_or(Ok(()), |how| Err(StoreError::Unavailable((*how).into())))
    }

    /// Whether changes reach the disk. A result from within the last second is the answer;
    /// otherwise `probe` makes a write, and its result is awaited, until `patience` after it was
    /// sent at most.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if they do not, or there is no answer.
    pub(super) fn check(&self, patience: Duration, probe: impl FnOnce()) -> Result<(), StoreError> {
        let begun = Instant::now();
        let mut state = self.state.lock();
        if state.last.as_ref().is_none_or(|(at, _)| begun.saturating_duration_since(*at) >= KNOWN_FOR)
            && state.asked.is_none()
        {
            state.asked = Some(begun);
            drop(state);
            probe();
            state = self.state.lock();
        }
        loop {
            if let Some(cause) = state.lost.as_ref().or(state.damage.as_ref()) {
                return Err(StoreError::Unavailable((**cause).into()));
            }
            let Some(asked) = state.asked else {
                // The probe was answered, or is not needed.
                let result = state.last.as_ref().map_or(Ok(()), |(_, result)| result.clone());
                return result.map_err(|cause| StoreError::Unavailable((*cause).into()));
            };
            if self.news.wait_until(&mut state, asked + patience).timed_out() && state.asked == Some(asked) {
                let seconds = asked.elapsed().as_secs_f32();
                let cause = format!("the disk of {} does not answer for {seconds:.1} s", self.name);
                return Err(StoreError::Unavailable(cause.into()));
            }
        }
    }
}

/// How long the result of a write predicts that of the next.
const KNOWN_FOR: Duration = Duration::from_secs(1);
