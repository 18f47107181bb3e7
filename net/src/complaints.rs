//! [`Complaints`]: prevents clients from flooding the log with repeated events.

use std::time::{Duration, Instant};

/// One kind of complaint, of which at most one line a minute is logged.
#[derive(Debug, Default)]
pub struct Complaints {
    last: Option<Instant>,
    unsaid: usize,
}

impl Complaints {
    /// Whether to log this complaint now, and if so the number of suppressed ones before it.
    pub fn raise(&mut self, now: Instant) -> Option<usize> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < COMPLAIN_EVERY) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_few_and_counted() {
        let (mut complaints, start) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.raise(start), Some(0));
        for seconds in 1..60 {
            assert_eq!(complaints.raise(start + Duration::from_secs(seconds)), None);
        }
        assert_eq!(complaints.raise(start + Duration::from_secs(60)), Some(59));
        assert_eq!(complaints.raise(start + Duration::from_secs(120)), Some(0));
    }
}
