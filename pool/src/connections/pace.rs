//! [`AttemptPace`]: the backoff between attempts to connect.

use std::time::{Duration, Instant};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct AttemptPace {
    /// The number of attempts that have failed since the last success.
    failures: u32,
    /// The time of the last failure, and the random part of the backoff that is used after it.
    last: Option<(Instant, f64)>,
    cause: String,
}

impl AttemptPace {
    /// Notes that an attempt has succeeded: the next ones need not wait.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.last = None;
    }

    /// Notes that an attempt has failed: the next one waits, longer than this one.
    pub(super) fn failed(&mut self, now: Instant, cause: &str) {
        self.failures = self.failures.saturating_add(1);
        // A factor between a half and one.
        let share = 0.5 + f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX) / 2.0;
        self.last = Some((now, share));
        cause.clone_into(&mut self.cause);
    }

    /// Lets the next attempt begin without waiting.
    pub(super) fn skip_pause(&mut self) {
        self.last = None;
    }

    /// The number of attempts that have failed since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The reason of the last failure.
    pub(super) fn cause(&self) -> &str {
        &self.cause
    }

    /// The time at which the next attempt may begin; `None` means now. The backoff is longer while
    /// no call waits.
    pub(super) fn due(&self, has_waiting: bool) -> Option<Instant> {
        let (at, share) = self.last?;
        let pause = FIRST_PAUSE * (1 << self.failures.saturating_sub(1).min(16));
        Some(at + pause.min(if has_waiting { PAUSE_MAX } else { IDLE_PAUSE_MAX }).mul_f64(share))
    }
}

/// The backoff after the first failure. It doubles with each further failure: up to the first
/// maximum while calls wait, and up to the second while none does.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
const IDLE_PAUSE_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_longer_when_nobody_waits() {
        let now = Instant::now();
        let mut pace = AttemptPace::default();
        assert_eq!(pace.due(true), None);
        let mut pause = |waits| {
            pace.failed(now, "full");
            pace.due(waits).unwrap() - now
        };
        assert!((FIRST_PAUSE / 2..=FIRST_PAUSE).contains(&pause(true)));
        for _ in 0..40 {
            pause(true);
        }
        assert!((PAUSE_MAX / 2..=PAUSE_MAX).contains(&pause(true)));
        assert!((IDLE_PAUSE_MAX / 2..=IDLE_PAUSE_MAX).contains(&pause(false)));
        pace.succeeded();
        assert_eq!(pace.due(false), None);
    }
}
