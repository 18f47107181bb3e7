//! [`Retirer`]: deletes old messages of conversations at night, if the operator wants that.
//!
//! ```text
//!   look, every minute ──▶ due, and no other node at it ──▶ round ──▶ round ──▶ … nothing found ──▶ done
//!                                                            └ step, pause, step, pause …
//! ```
//! A step handles a thousand messages at most, and the pauses are several times as long as the
//! steps, so that senders and readers hardly notice. A round takes one piece of each conversation.
//! The floor of each conversation records the progress, so the work may end at any point.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::{ToSpan, ZonedDateTime};
use parking_lot::{Condvar, Mutex};

use crate::base::conversation::ConversationId;
use crate::config::Config;
use crate::metrics::{Metrics, RetentionEvent};
use crate::store::StoreError;
use crate::store::history::{History, HistoryRetention, HistoryRole, RetentionClaim, RetentionRules};
use crate::store::outages::Outages;

/// The thread that deletes, named `retention`.
pub(super) struct Retirer {
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
}

/// The parts that the thread uses.
pub(super) struct RetirerParts {
    pub(super) history: HistoryRole,
    pub(super) rules: RetentionRules,
    pub(super) outages: Arc<Outages>,
    pub(super) metrics: Arc<Metrics>,
}

/// The rules of these settings; `None` if everything is kept.
pub(super) fn rules(config: &Config) -> Option<RetentionRules> {
    let rules = RetentionRules {
        days: config.history_days.0.unwrap_or_default(),
        newest: config.history_per_conversation.0.unwrap_or_default(),
        id_days: config.dedup_days,
    };
    (rules.days > 0 || rules.newest > 0).then_some(rules)
}

impl Retirer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system cannot start a thread, or has no random bytes.
    pub(super) fn start(parts: RetirerParts) -> io::Result<Retirer> {
        let owner = getrandom::u64().map_err(io::Error::other)?;
        let stop = Arc::<Stop>::default();
        let work = Retiring { parts, owner, stop: stop.clone() };
        let thread = thread::Builder::new().name("retention".into()).spawn(move || work.run())?;
        Ok(Retirer { stop, thread })
    }

    /// Ends the thread between two steps. Waits for a database until `by` at most.
    pub(super) fn close(self, by: Instant) {
        *self.stop.stopping.lock() = true;
        self.stop.news.notify_one();
        pool::join_until(self.thread, by);
    }
}

#[derive(Debug, Default)]
struct Stop {
    stopping: Mutex<bool>,
    news: Condvar,
}

impl Stop {
    /// Waits; returns whether the thread must end.
    fn wait(&self, pause: Duration) -> bool {
        let (mut stopping, by) = (self.stopping.lock(), Instant::now() + pause);
        while !*stopping {
            if self.news.wait_until(&mut stopping, by).timed_out() {
                break;
            }
        }
        *stopping
    }
}

struct Retiring {
    parts: RetirerParts,
    owner: u64,
    stop: Arc<Stop>,
}

/// The outcome of a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RetentionLook {
    /// Nothing is due, or everything is done.
    Done,
    /// The server stops.
    Stopped,
}

impl Retiring {
    fn run(self) {
        let (mut pause, mut minds_rules) = (START_DELAY, true);
        while !self.stop.wait(pause) {
            let looked = catch_unwind(AssertUnwindSafe(|| self.look(minds_rules)))
                .unwrap_or_else(|_| Err(StoreError::Failed("the driver panicked".into())));
            self.parts.outages.note("deleting old messages", looked.as_ref().err());
            match looked {
                Ok(RetentionLook::Stopped) => return,
                // Otherwise nodes with different rules would take turns for ever.
                Ok(RetentionLook::Done) => minds_rules = false,
                Err(_) => {}
            }
            pause = LOOK_EVERY;
        }
    }

    fn look(&self, minds_rules: bool) -> Result<RetentionLook, StoreError> {
        let Some(history) = self.parts.history.get()? else { return Ok(RetentionLook::Done) };
        let rules = self.parts.rules;
        let claim = RetentionClaim {
            owner: self.owner,
            due_before: last_night(&ZonedDateTime::now()),
            rules,
            minds_rules,
            lease: millis(LEASE),
        };
        if !history.claim_retention(&claim)? {
            return Ok(RetentionLook::Done);
        }
        let retention = retention(rules, wall_clock());
        let mut gone = 0;
        loop {
            match self.round(history, &retention, &claim)? {
                None => return Ok(RetentionLook::Stopped),
                Some(0) => break,
                Some(some) => gone += some,
            }
        }
        history.end_retention(&claim)?;
        if gone > 0 {
            log::info!(
                "{gone} messages of conversations were old and are deleted (history_days, history_per_conversation)"
            );
        }
        Ok(RetentionLook::Done)
    }

    /// Deletes one piece of each conversation. Returns the number of messages and rows, `None` if
    /// the server stops.
    fn round(
        &self,
        history: &dyn History,
        retention: &HistoryRetention,
        claim: &RetentionClaim,
    ) -> Result<Option<u64>, StoreError> {
        let (mut after, mut gone, mut claimed) = (ConversationId::from_column(i64::MIN), 0, Instant::now());
        loop {
            let begun = Instant::now();
            if begun.duration_since(claimed) > LEASE / 4 {
                claimed = begun;
                // Another node does the rest.
                if !history.claim_retention(claim)? {
                    return Ok(Some(0));
                }
            }
            let step = history.retire(retention, after)?;
            self.parts.metrics.retention(RetentionEvent::Retired, step.retired);
            self.parts.metrics.retention(RetentionEvent::Deleted, step.deleted);
            gone += step.retired.max(step.deleted);
            if self.stop.wait((begun.elapsed() * PAUSE_FACTOR).clamp(PAUSE_MIN, PAUSE_MAX)) {
                return Ok(None);
            }
            match step.next {
                Some(next) => after = next,
                None => return Ok(Some(gone)),
            }
        }
    }
}

/// The bounds of the messages that are deleted at this time, ms.
fn retention(rules: RetentionRules, now: i64) -> HistoryRetention {
    let ago = |days: u32| now.saturating_sub(i64::from(days) * millis(DAY));
    HistoryRetention {
        before: if rules.days > 0 { ago(rules.days) } else { i64::MIN },
        newest: if rules.newest > 0 { rules.newest.into() } else { i64::MAX },
        ids_before: ago(rules.id_days),
    }
}

/// The time, ms since 1970, when the last due night began.
fn last_night(now: &ZonedDateTime) -> i64 {
    let night = |day: &ZonedDateTime| day.start_of_day().and_then(|day| day.checked_add(NIGHT_HOUR.hours()));
    let tonight = night(now).ok().filter(|tonight| tonight <= now);
    let yesterday = || now.checked_sub(1.day()).and_then(|day| night(&day)).ok();
    tonight.or_else(yesterday).map_or(i64::MIN, |night| night.timestamp().as_millisecond())
}

fn wall_clock() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

const DAY: Duration = Duration::from_hours(24);
/// The hour of the day at which retention is due, by the clock of this machine.
const NIGHT_HOUR: i64 = 3;
/// The delay after a start before missed work is done.
const START_DELAY: Duration = Duration::from_secs(3);
/// The interval between checks, each a read by primary key.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long other nodes wait for one that has stopped.
const LEASE: Duration = Duration::from_secs(600);
/// A pause lasts this many times as long as the step before it, within these bounds.
const PAUSE_FACTOR: u32 = 4;
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_begins_at_three() {
        for (now, expected) in [
            ("2026-03-10T02:59:59+01:00[Europe/Berlin]", "2026-03-09T03:00:00+01:00[Europe/Berlin]"),
            ("2026-03-10T03:00:00+01:00[Europe/Berlin]", "2026-03-10T03:00:00+01:00[Europe/Berlin]"),
            ("2026-03-10T23:59:59+00:00[UTC]", "2026-03-10T03:00:00+00:00[UTC]"),
            ("2026-01-01T00:00:00+00:00[UTC]", "2025-12-31T03:00:00+00:00[UTC]"),
        ] {
            let (now, expected): (ZonedDateTime, ZonedDateTime) = (now.parse().unwrap(), expected.parse().unwrap());
            assert_eq!(last_night(&now), expected.timestamp().as_millisecond(), "{now}");
        }
    }

    #[test]
    fn ids_are_kept_for_their_time_whatever_becomes_of_the_messages() {
        let rules = RetentionRules { days: 1, newest: 0, id_days: 7 };
        let day = millis(DAY);
        let kept = retention(rules, 10 * day);
        assert_eq!(kept, HistoryRetention { before: 9 * day, newest: i64::MAX, ids_before: 3 * day });
        let kept = retention(RetentionRules { days: 0, newest: 5, ..rules }, 10 * day);
        assert_eq!(kept, HistoryRetention { before: i64::MIN, newest: 5, ids_before: 3 * day });
    }

    #[test]
    fn without_a_setting_everything_is_kept() {
        let mut config = Config::with_defaults("127.0.0.1:0".parse().unwrap());
        assert_eq!(rules(&config), None);
        config.history_days = crate::config::Limit(Some(30));
        assert_eq!(rules(&config), Some(RetentionRules { days: 30, newest: 0, id_days: 7 }));
    }
}
