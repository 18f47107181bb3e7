//! [`Limiter`]: prevents any place in the program from flooding the log.
//!
//! Otherwise a line that one client can cause repeatedly would fill the disk, and hide other lines
//! from the operator. Each place that logs has a token bucket: a burst of [`BURST`] lines, then one
//! every [`INTERVAL`]. Suppressed lines are counted, and the counts are logged every
//! [`REPORT_EVERY`]. Debug and trace lines are not limited: they are off unless an operator turns
//! them on.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use log::Level;
use parking_lot::Mutex;

/// The recent lines of each place. Any thread may call it; the lock is a leaf.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    places: Mutex<HashMap<CodeLine, LineBucket>>,
}

/// A place in the source: file and line.
pub(super) type CodeLine = (&'static str, u32);

#[derive(Debug)]
struct LineBucket {
    /// The time at which the bucket will be full again (the generic cell rate algorithm).
    full_at: Instant,
    left_out: u64,
}

impl Limiter {
    /// Whether a line of this place may be logged now. If not, it is counted.
    pub(super) fn allows(&self, place: CodeLine, level: Level, now: Instant) -> bool {
        if level > Level::Info {
            return true;
        }
        let mut places = self.places.lock();
        let bucket = places.entry(place).or_insert(LineBucket { full_at: now, left_out: 0 });
        let full_at = bucket.full_at.max(now) + INTERVAL;
        if full_at > now + INTERVAL * BURST {
            bucket.left_out += 1;
            return false;
        }
        bucket.full_at = full_at;
        true
    }

    /// The places whose lines were suppressed since the last call, with their numbers.
    pub(super) fn take_left_out(&self) -> Vec<(CodeLine, u64)> {
        let mut places = self.places.lock();
        let mut left_out: Vec<_> = places
            .iter_mut()
            .filter(|(_, bucket)| bucket.left_out > 0)
            .map(|(place, bucket)| (*place, std::mem::take(&mut bucket.left_out)))
            .collect();
        left_out.sort_unstable();
        left_out
    }
}

/// The burst of lines of one place.
pub(super) const BURST: u32 = 50;
/// The interval of further lines.
const INTERVAL: Duration = Duration::from_millis(500);
/// The interval at which the log reports suppressed lines.
pub(super) const REPORT_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: CodeLine = ("here.rs", 1);
    const THERE: CodeLine = ("there.rs", 2);

    fn allowed(limiter: &Limiter, place: CodeLine, tries: u32, now: Instant) -> u32 {
        (0..tries).map(|_| u32::from(limiter.allows(place, Level::Error, now))).sum()
    }

    #[test]
    fn a_place_that_floods_leaves_the_log_to_the_others() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        assert_eq!(allowed(&limiter, HERE, 10_000, start), BURST);
        assert_eq!(allowed(&limiter, THERE, 3, start), 3);
        assert_eq!(limiter.take_left_out(), [(HERE, 10_000 - u64::from(BURST))]);
        assert_eq!(limiter.take_left_out(), []);
        assert_eq!(allowed(&limiter, HERE, 100, start + INTERVAL * 4), 4);
        assert_eq!(allowed(&limiter, HERE, 100, start + INTERVAL * 1000), BURST);
    }

    #[test]
    fn lines_that_an_operator_has_asked_for_are_not_limited() {
        let (limiter, now) = (Limiter::default(), Instant::now());
        assert!((0..10_000).all(|_| limiter.allows(HERE, Level::Debug, now)));
    }
}
