//! [`Condition`]: what is known of a database file: whether it takes what it is given, whether it is damaged, and whether
//! somebody took it away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rusqlite::ErrorCode;

use crate::store::StoreError;

/// Shared by all who use one database file.
pub(super) struct Condition {
    /// The file, for the log.
    name: String,
    /// A leaf lock.
    state: Mutex<Findings>,
    news: Condvar,
    is_lost: AtomicBool,
    /// What is called when the file is lost, and when changes begin not to be written. Held while it is called, which
    /// must not come back here.
    on_lost: Mutex<Option<Callback>>,
    on_trouble: Mutex<Option<Callback>>,
}

type Callback = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Findings {
    /// What became of the last batch of changes, and when.
    last: Option<(Instant, Result<(), Arc<str>>)>,
    /// When a probe was sent that is not answered.
    asked: Option<Instant>,
    /// What SQLite said of a damaged page. This does not pass by itself.
    damage: Option<Arc<str>>,
    /// Where the file is no longer, and why.
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

    /// Changes are on the disk.
    pub(super) fn wrote(&self) {
        self.note(Ok(()));
    }

    /// Changes could not be written, and not because of what they are.
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

    /// Looks at any error of SQLite for a damaged page. One is enough: what else is damaged nobody knows.
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

    /// The file is not where it was. What is stored from now on would be found by nobody.
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

    /// Whether the file was taken away.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// Has `stop` called when the file is taken away, at once if it was already.
    pub(super) fn on_lost(&self, stop: Callback) {
        // Under the lock, or a loss just now would call nobody.
        let mut on_lost = self.on_lost.lock();
        if self.is_lost() {
            stop();
        }
        *on_lost = Some(stop);
    }

    /// Has `look` called when changes begin not to be written.
    pub(super) fn on_trouble(&self, look: Callback) {
        *self.on_trouble.lock() = Some(look);
    }

    /// # Errors
    /// [`StoreError::Unavailable`] when the file was taken away.
    pub(super) fn refuse_if_lost(&self) -> Result<(), StoreError> {
        let lost = if self.is_lost() { self.state.lock().lost.clone() } else { None };
        lost.map_or(Ok(()), |how| Err(StoreError::Unavailable((*how).into())))
    }

    /// Whether changes reach the disk. What was found within the last second is the answer; otherwise `probe` has
    /// something written, and its outcome is waited for, but not for longer than `patience` since it was sent.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when they do not, or there is no answer.
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
                // It was answered, or need not be asked.
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

/// For how long the outcome of a write tells that of the next.
const KNOWN_FOR: Duration = Duration::from_secs(1);
