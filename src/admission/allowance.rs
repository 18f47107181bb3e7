//! [`Allowance`]: how often an address may do something within an hour.
//!
//! A token bucket that holds an hour's worth, by the generic cell rate algorithm: for each address
//! only the time at which its bucket will be full again is stored, and nothing if it is full.

use std::time::{Duration, Instant};

use super::Source;
use crate::base::recent::Recent;
use crate::config::Limit;

/// The use of each address.
#[derive(Debug)]
pub struct Allowance {
    an_hour: Limit,
    full_at: Recent<Source, Instant>,
}

impl Allowance {
    /// Allows this number of uses an hour.
    pub fn new(an_hour: Limit) -> Allowance {
        Allowance { an_hour, full_at: Recent::new(SOURCES_MAX) }
    }

    /// The time until the next use is allowed; `None` if it is allowed now.
    pub fn wait(&self, source: Source, now: Instant) -> Option<Duration> {
        let interval = self.interval()?;
        let full_at = self.full_at.get(&source).filter(|at| **at > now)?;
        let empty_for = (*full_at + interval).checked_duration_since(now + HOUR)?;
        (!empty_for.is_zero()).then_some(empty_for)
    }

    /// Takes one if that is allowed.
    ///
    /// # Errors
    ///
    /// The time until it is allowed.
    pub fn take_if_any(&mut self, source: Source, now: Instant) -> Result<(), Duration> {
        self.wait(source, now).map_or(Ok(()), Err)?;
        self.take(source, now);
        Ok(())
    }

    /// Counts one use.
    pub fn take(&mut self, source: Source, now: Instant) {
        if let Some(interval) = self.interval() {
            let full_at = self.full_at.get(&source).map_or(now, |at| (*at).max(now));
            self.full_at.insert(source, full_at + interval);
        }
    }

    /// Takes back one use that has not happened after all.
    pub fn give_back(&mut self, source: Source, now: Instant) {
        let Some(interval) = self.interval() else { return };
        // An address that was forgotten in between may still give back.
        let Some(full_at) = self.full_at.get_mut(&source) else { return };
        match full_at.checked_sub(interval) {
            Some(earlier) if earlier > now => *full_at = earlier,
            _ => self.full_at.remove(&source),
        }
    }

    fn interval(&self) -> Option<Duration> {
        self.an_hour.0.map(|count| HOUR / count)
    }
}

const HOUR: Duration = Duration::from_secs(60 * 60);
/// The number of addresses that are remembered; about 10 MB at most.
const SOURCES_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into())
    }

    #[test]
    fn an_hours_worth_at_once_and_then_one_at_a_time() {
        let (mut allowance, start) = (Allowance::new(Limit(Some(4))), Instant::now());
        for _ in 0..4 {
            assert_eq!(allowance.wait(source(1), start), None);
            allowance.take(source(1), start);
        }
        assert_eq!(allowance.wait(source(1), start), Some(HOUR / 4));
        assert_eq!(allowance.wait(source(2), start), None, "another address");
        assert_eq!(allowance.wait(source(1), start + HOUR / 4 - Duration::from_secs(1)), Some(Duration::from_secs(1)));
        assert_eq!(allowance.wait(source(1), start + HOUR / 4), None);
        allowance.take(source(1), start + HOUR / 4);
        assert!(allowance.wait(source(1), start + HOUR / 4).is_some());
        allowance.give_back(source(1), start + HOUR / 4);
        assert_eq!(allowance.wait(source(1), start + HOUR / 4), None);
        for _ in 0..4 {
            allowance.take(source(1), start + 10 * HOUR);
        }
        assert!(allowance.wait(source(1), start + 10 * HOUR).is_some(), "it holds no more than an hour's worth");
    }

    #[test]
    fn an_account_that_has_given_all_back_leaves_nothing_behind() {
        let (mut allowance, start) = (Allowance::new(Limit(Some(4))), Instant::now());
        for last in 0..10 {
            (0..3).for_each(|_| allowance.take(source(last), start));
            (0..2).for_each(|_| allowance.give_back(source(last), start));
        }
        assert_eq!(allowance.full_at.len(), 10);
        (0..10).for_each(|last| allowance.give_back(source(last), start));
        assert_eq!(allowance.full_at.len(), 0);
        // Meanwhile time has filled the bucket.
        (0..2).for_each(|_| allowance.take(source(1), start));
        allowance.give_back(source(1), start + HOUR / 2);
        allowance.give_back(source(1), start + HOUR / 2);
        assert_eq!(allowance.full_at.len(), 0);
    }

    #[test]
    fn off_is_without_end() {
        let (mut allowance, now) = (Allowance::new(Limit(None)), Instant::now());
        (0..1000).for_each(|_| allowance.take(source(1), now));
        assert_eq!(allowance.wait(source(1), now), None);
    }
}
