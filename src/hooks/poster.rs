//! [`Poster`]: the thread that posts. See the [module](super).
//!
//! # Rounds
//! In a cluster one node posts: it holds a lease on the queue, and gives it back when a request
//! fails, because another node may reach the web server. In each round it takes rows that are due,
//! senders in turn, reads their recipients and texts, posts them, and deletes the rows. If it dies
//! before it has deleted them, they are posted again.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use pool::Outage;

use super::assembled::{Assembled, Settlement, assemble};
use super::batch::HookBatch;
use super::pace::{MESSAGES_MAX, Pace};
use super::post::{PostError, Receiver, TIME_MAX, post};
use super::resting::RestingSenders;
use super::turns;
use crate::base::conversation::ConversationId;
use crate::config::{Config, HookAddress, HookNetworks, Secret};
use crate::metrics::{HookEvent, HookRequest, Metrics};
use crate::protocol::UserId;
use crate::store::StoreError;
use crate::store::history::HistoryRole;
use crate::store::hooks::{HookQueue, HookRole, HookRow};
use crate::store::outages::Outages;

/// The thread, named `hooks`.
pub struct Poster {
    control: Arc<HookControl>,
    thread: JoinHandle<()>,
    hooks: HookRole,
    owner: u64,
}

/// The parts that the thread uses.
#[derive(Clone)]
pub struct PosterParts {
    /// The queue.
    pub hooks: HookRole,
    /// The texts.
    pub history: HistoryRole,
    /// The failing kinds of calls.
    pub outages: Arc<Outages>,
    /// The counters.
    pub metrics: Arc<Metrics>,
}

/// The settings of the hook.
#[derive(Clone, PartialEq, Debug)]
pub struct HookSettings {
    address: HookAddress,
    secret: Secret,
    delay: Duration,
    private: HookNetworks,
    waiting_max: u32,
}

impl HookSettings {
    /// The settings; `None` if there is no hook.
    pub fn of(config: &Config) -> Option<HookSettings> {
        Some(HookSettings {
            address: config.hook_url.0.clone()?,
            secret: config.hook_secret.clone()?,
            delay: config.hook_delay,
            private: config.hook_private.clone(),
            waiting_max: config.hook_waiting_max,
        })
    }
}

/// Changes the settings of the thread, or stops it.
pub struct HookControl {
    state: Mutex<ControlState>,
    news: Condvar,
}

struct ControlState {
    settings: HookSettings,
    stopping: bool,
}

impl HookControl {
    /// Replaces the settings. The next request uses them.
    pub fn change(&self, settings: HookSettings) {
        let mut state = self.state.lock();
        if state.settings != settings {
            state.settings = settings;
            self.news.notify_one();
        }
    }

    /// Waits until the time is over or the settings change. Returns the settings, `None` if the
    /// thread must end.
    fn wait(&self, pause: Duration, known: Option<&HookSettings>) -> Option<HookSettings> {
        let (mut state, by) = (self.state.lock(), Instant::now() + pause);
        while !state.stopping && known == Some(&state.settings) {
            if self.news.wait_until(&mut state, by).timed_out() {
                break;
            }
        }
        (!state.stopping).then(|| state.settings.clone())
    }
}

impl Poster {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system cannot start a thread, or has no random bytes.
    pub fn start(parts: PosterParts, settings: HookSettings) -> io::Result<Poster> {
        let owner = getrandom::u64().map_err(io::Error::other)?;
        let state = ControlState { settings, stopping: false };
        let hooks = parts.hooks.clone();
        let control = Arc::new(HookControl { state: Mutex::new(state), news: Condvar::new() });
        let work = PosterWork {
            parts,
            owner,
            control: control.clone(),
            pace: Pace::new(),
            resting: RestingSenders::default(),
            outage: Outage::default(),
            last: UserId(0),
            tidied: None,
            resume: None,
            told_of_drops: None,
            untold_drops: 0,
            told_of_refusals: None,
            is_poster: false,
            owed: Settlement::default(),
        };
        let thread = thread::Builder::new().name("hooks".into()).spawn(move || work.run())?;
        Ok(Poster { control, thread, hooks, owner })
    }

    /// The way to change its settings.
    pub fn control(&self) -> Arc<HookControl> {
        self.control.clone()
    }

    /// Ends the thread. A request that is under way gets no more than a second: its messages stay
    /// in the queue, and another node may post them.
    pub fn close(self, by: Instant) {
        self.control.state.lock().stopping = true;
        self.control.news.notify_one();
        let within = by.min(Instant::now() + CLOSE_TIME);
        while !self.thread.is_finished() && Instant::now() < within {
            thread::sleep(CLOSE_TIME / 100);
        }
        if self.thread.is_finished() {
            return pool::join_until(self.thread, by);
        }
        let give_way = move || {
            if let Ok(Some(queue)) = self.hooks.get() {
                let _ = queue.release(self.owner);
            }
        };
        if let Ok(thread) = thread::Builder::new().name("hooks".into()).spawn(give_way) {
            pool::join_until(thread, by);
        }
    }
}

struct PosterWork {
    parts: PosterParts,
    owner: u64,
    control: Arc<HookControl>,
    pace: Pace,
    resting: RestingSenders,
    outage: Outage,
    /// The sender whose turn was the last one.
    last: UserId,
    /// When the queue was last tidied.
    tidied: Option<Instant>,
    /// When the log last had a line about dropped messages, and how many were dropped since.
    told_of_drops: Option<Instant>,
    untold_drops: u64,
    /// When the log last had a line about refused messages.
    told_of_refusals: Option<Instant>,
    /// The next attempt after a failure; `None` if none has failed. The queue is tidied meanwhile.
    resume: Option<Instant>,
    /// Whether this node posts.
    is_poster: bool,
    /// The effect of the last success, if the database did not take it. Nothing is posted before
    /// it does, because the same messages would be posted again and again.
    owed: Settlement,
}

impl PosterWork {
    fn run(mut self) {
        let (mut pause, mut settings) = (Duration::ZERO, None);
        while let Some(now) = self.control.wait(pause, settings.as_ref()) {
            if settings.as_ref() != Some(&now) {
                // Failures and refusals of another web server, or with another key, say nothing.
                (self.pace, self.resting, self.resume) = (Pace::new(), RestingSenders::default(), None);
            }
            let worked = catch_unwind(AssertUnwindSafe(|| self.round(&now))).unwrap_or_else(|_| {
                self.resume = Some(Instant::now() + self.pace.failed(1.0));
                Err(StoreError::Failed("a round of the hook panicked".into()))
            });
            self.parts.outages.note("reading messages for the hook", worked.as_ref().err());
            pause = worked.unwrap_or(LOOK_EVERY);
            settings = Some(now);
        }
        if self.is_poster {
            let _ = self.give_way();
        }
    }

    /// Posts one batch. Returns the pause until the next round.
    fn round(&mut self, settings: &HookSettings) -> Result<Duration, StoreError> {
        let parts = self.parts.clone();
        let (Some(queue), Some(history)) = (parts.hooks.get()?, parts.history.get()?) else { return Ok(LOOK_EVERY) };
        let Some(now) = queue.claim(self.owner, LEASE)? else {
            self.is_poster = false;
            parts.metrics.hook_queue(0, Duration::ZERO);
            return Ok(LOOK_EVERY);
        };
        self.is_poster = true;
        self.settle(queue)?;
        let tidied = self.tidy(queue, now, settings);
        parts.outages.note("counting the messages for the hook", tidied.err().as_ref());
        if let Some(left) = self.resume.and_then(|at| at.checked_duration_since(Instant::now())) {
            // Another node may reach the web server.
            self.give_way()?;
            return Ok(left.min(TIDY_EVERY));
        }
        let rows = self.due(queue, now - millis(settings.delay))?;
        if rows.is_empty() {
            return Ok(LOOK_EVERY);
        }
        let messages_max = if self.resting.is_trial() { 1 } else { self.pace.messages_max() };
        let each = (messages_max / turns::senders(&rows).max(1)).max(1);
        let recipients = queue.recipients(&rows, each)?;
        let read = |places: &[(ConversationId, i64)]| history.messages_at(places);
        let assembled = assemble(&rows, &recipients, messages_max, read)?;
        let Assembled { batch, settlement, idle, last } = assembled;
        self.last = last.unwrap_or(self.last);
        parts.metrics.hooked(HookEvent::Received, idle.len());
        if !idle.is_empty() {
            queue.settle(&idle, &[])?;
        }
        if batch.messages() == 0 {
            return Ok(Duration::ZERO);
        }
        self.post(queue, &rows, batch, settlement, settings)
    }

    /// Posts a batch of these rows. Returns the pause until the next round.
    fn post(
        &mut self,
        queue: &dyn HookQueue,
        rows: &[HookRow],
        batch: HookBatch,
        settlement: Settlement,
        settings: &HookSettings,
    ) -> Result<Duration, StoreError> {
        // The work before may have taken long: half of the lease must be left for the request.
        if queue.claim(self.owner, LEASE)?.is_none() {
            self.is_poster = false;
            return Ok(LOOK_EVERY);
        }
        let HookSettings { address, secret, private, .. } = settings;
        let receiver = Receiver { address, private, key: secret.expose(), within: TIME_MAX };
        let messages = batch.messages();
        match post(&receiver, seconds(), &batch.into_body()) {
            Ok(()) => {
                let Settlement { done, reached } = &settlement;
                let is_taken = |row: &&HookRow| done.contains(&row.id) || reached.iter().any(|(id, _)| *id == row.id);
                self.resting.taken(rows.iter().filter(is_taken));
                self.owed = settlement;
                self.worked(messages, settings);
                self.settle(queue)?;
                Ok(Duration::ZERO)
            }
            Err(error) => {
                if error.concerns_message() {
                    let only = settlement.done.first().or(settlement.reached.first().map(|(id, _)| id));
                    let only = only.and_then(|id| rows.iter().find(|row| row.id == *id)).filter(|_| messages == 1);
                    self.refused(&error, only.map(|row| row.sender), settings);
                    if !self.resting.are_many() {
                        self.parts.metrics.hook_request(HookRequest::Failed);
                        self.pace.refused();
                        return Ok(Duration::ZERO);
                    }
                }
                let pause = self.failed(&error, settings);
                self.resume = Some(Instant::now() + pause);
                let left = self.give_way();
                self.parts.outages.note("leaving the hook to another node", left.err().as_ref());
                Ok(pause.min(TIDY_EVERY))
            }
        }
    }

    /// Writes the effect of the last success.
    fn settle(&mut self, queue: &dyn HookQueue) -> Result<(), StoreError> {
        let Settlement { done, reached } = &self.owed;
        if !done.is_empty() || !reached.is_empty() {
            queue.settle(done, reached)?;
            self.owed = Settlement::default();
        }
        Ok(())
    }

    /// The rows that are due, in turn, of no sender whose messages were just refused.
    fn due(&mut self, queue: &dyn HookQueue, before: i64) -> Result<Vec<HookRow>, StoreError> {
        let (is_due, now) = (|row: &HookRow| row.time <= before, Instant::now());
        let mut rows = queue.oldest(MESSAGES_MAX + 1)?;
        if rows.len() > MESSAGES_MAX && rows.iter().all(is_due) {
            let senders = self.next_senders(queue, now)?;
            rows = match senders.len() {
                0 => Vec::new(),
                count => queue.oldest_of(&senders, MESSAGES_MAX.div_ceil(count))?,
            };
        }
        rows.retain(|row| is_due(row) && !self.resting.is_resting(row.sender, now));
        Ok(self.resting.choose(turns::in_turn(rows, self.last)))
    }

    /// The next senders in turn. While more messages are due than one request takes, only some
    /// senders have theirs among the oldest, so the senders are asked one after the other.
    fn next_senders(&self, queue: &dyn HookQueue, now: Instant) -> Result<Vec<UserId>, StoreError> {
        let (mut found, mut after, mut has_wrapped) = (Vec::new(), self.last, false);
        while found.len() < SENDERS_MAX {
            let some = queue.senders_after(after, SENDERS_MAX)?;
            let is_left = |sender: &UserId| !has_wrapped || *sender <= self.last;
            found.extend(
                some.iter().copied().filter(|sender| is_left(sender) && !self.resting.is_resting(*sender, now)),
            );
            match some.last() {
                Some(last) if some.len() == SENDERS_MAX && is_left(last) => after = *last,
                _ if has_wrapped => break,
                _ => (after, has_wrapped) = (UserId(i32::MIN), true),
            }
        }
        found.truncate(SENDERS_MAX);
        Ok(found)
    }

    fn worked(&mut self, messages: usize, settings: &HookSettings) {
        self.parts.metrics.hook_request(HookRequest::Worked);
        self.parts.metrics.hooked(HookEvent::Delivered, messages);
        self.pace.worked();
        self.resume = None;
        if let Some(lasted) = self.outage.end() {
            log::info!("hook {}: takes messages again, after {lasted}", settings.address.authority());
        }
    }

    fn failed(&mut self, error: &PostError, settings: &HookSettings) -> Duration {
        self.parts.metrics.hook_request(HookRequest::Failed);
        let pause = if error.concerns_message() { self.pace.refused_many(dice()) } else { self.pace.failed(dice()) };
        let host = settings.address.authority();
        if self.outage.begin() {
            log::warn!("hook {host}: {error}; its messages wait, and are posted again after growing pauses");
        } else {
            log::debug!("hook {host}: {error}; the next attempt comes in {pause:?}");
        }
        pause
    }

    /// Notes that the web server refuses a message: the only one of the request, if its `sender` is
    /// given. Other senders do not wait for it.
    fn refused(&mut self, error: &PostError, sender: Option<UserId>, settings: &HookSettings) {
        let Some(sender) = sender else { return };
        self.resting.refused(sender, Instant::now(), dice());
        if self.told_of_refusals.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told_of_refusals = Some(Instant::now());
            let host = settings.address.authority();
            log::warn!("hook {host}: {error}, for a message of user {sender}; later ones of this sender wait for it");
        }
    }

    /// Lets another node post.
    fn give_way(&mut self) -> Result<(), StoreError> {
        self.is_poster = false;
        match self.parts.hooks.get()? {
            Some(queue) => queue.release(self.owner),
            None => Ok(()),
        }
    }

    /// Deletes what is too old or too much, from time to time, and counts what waits.
    fn tidy(&mut self, queue: &dyn HookQueue, now: i64, settings: &HookSettings) -> Result<(), StoreError> {
        if self.tidied.is_some_and(|tidied| tidied.elapsed() < TIDY_EVERY) {
            return Ok(());
        }
        let mut waiting = queue.waiting()?;
        let mut expired = 0;
        while waiting.oldest.is_some_and(|oldest| oldest < now - millis(KEPT_FOR)) {
            let rows = queue.oldest(DROPPED_AT_ONCE)?;
            let old: Vec<i64> = rows.iter().filter(|row| row.time < now - millis(KEPT_FOR)).map(|row| row.id).collect();
            queue.settle(&old, &[])?;
            expired += old.len();
            waiting = queue.waiting()?;
        }
        self.parts.metrics.hooked(HookEvent::Expired, expired);
        if expired > 0 {
            log::warn!("hook: {expired} messages could not be posted for 3 days, and are not posted any more");
        }
        let max = u64::from(settings.waiting_max);
        if waiting.rows > max {
            let dropped = shed(queue, waiting.rows - max + max / 10)?;
            self.parts.metrics.hooked(HookEvent::Dropped, usize::try_from(dropped).unwrap_or(usize::MAX));
            self.tell_of_drops(dropped, settings);
            waiting = queue.waiting()?;
        }
        let age = waiting.oldest.map_or(0, |oldest| (now - oldest).max(0).unsigned_abs());
        self.parts.metrics.hook_queue(waiting.rows, Duration::from_millis(age));
        self.tidied = Some(Instant::now());
        Ok(())
    }

    /// Logs dropped messages, one line in a while.
    fn tell_of_drops(&mut self, dropped: u64, settings: &HookSettings) {
        self.untold_drops += dropped;
        if self.told_of_drops.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            log::warn!(
                "hook: {} messages are not posted any more, because more than {} waited (hook_waiting)",
                self.untold_drops,
                settings.waiting_max
            );
            (self.told_of_drops, self.untold_drops) = (Some(Instant::now()), 0);
        }
    }
}

/// Drops at least this number of the oldest rows, of those senders who have most.
fn shed(queue: &dyn HookQueue, excess: u64) -> Result<u64, StoreError> {
    let (plan, rest) = turns::dropped(&queue.largest(LARGEST)?, excess);
    let plan = plan.into_iter().map(|(sender, rows)| (Some(sender), rows));
    let mut dropped = 0;
    for (sender, mut rows) in plan.chain((rest > 0).then_some((None, rest))) {
        // Short transactions, so that commits do not wait.
        while rows > 0 {
            let some = rows.min(DROPPED_AT_ONCE as u64);
            dropped += queue.drop_oldest(sender, some)?;
            rows -= some;
        }
    }
    Ok(dropped)
}

/// A random number from 0 to 1, of some digits.
fn dice() -> f64 {
    getrandom::u32().map_or(0.5, |dice| f64::from(dice) / f64::from(u32::MAX))
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The interval between looks at the queue.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The interval between looks at the size of the queue.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// The interval between lines in the log about dropped messages, and about refused ones.
const TELL_EVERY: Duration = Duration::from_secs(600);
/// How long a message waits at most.
const KEPT_FOR: Duration = Duration::from_hours(72);
/// How long other nodes wait for one that has stopped. It is renewed when half of it is over, so
/// it never ends during a request, which takes 10 s at most.
const LEASE: Duration = Duration::from_secs(30);
/// How long a request that is under way delays the shutdown.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// The most senders of a round, while more messages are due than one request takes.
const SENDERS_MAX: usize = 64;
const DROPPED_AT_ONCE: usize = 1000;
/// The senders among whom dropped messages are shared out.
const LARGEST: usize = 1000;
