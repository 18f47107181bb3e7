//! [`Pace`]: the backoff before a client reconnects.

use std::time::Duration;

/// The failures since the last success.
#[derive(Default, Debug)]
pub(crate) struct Pace {
    failures: u32,
}

impl Pace {
    /// The next backoff: the server's `retryAfter`, or a second that doubles up to a minute, plus
    /// up to half of that. `chance` is from 0 to 1.
    pub(crate) fn pause(&mut self, retry_after: Option<f64>, chance: f64) -> Duration {
        let seconds = retry_after.unwrap_or_else(|| f64::from(1_u32 << self.failures.min(6)).min(60.0));
        self.failures = self.failures.saturating_add(1);
        Duration::from_secs_f64(seconds * (1.0 + chance.clamp(0.0, 1.0) / 2.0))
    }

    /// Notes that the client is online.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_minute_and_are_spread() {
        let mut pace = Pace::default();
        let pauses: Vec<u64> = (0..9).map(|_| pace.pause(None, 0.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pace.pause(None, 1.0), Duration::from_secs(90));
        assert_eq!(pace.pause(Some(1.5), 0.5), Duration::from_secs_f64(1.875), "the server says when");
        pace.succeeded();
        assert_eq!(pace.pause(None, 0.0), Duration::from_secs(1));
    }
}
