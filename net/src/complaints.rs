//! [`Complaints`]: keeps the log from being flooded by what somebody outside can repeat at will.

use std::time::{Duration, Instant};

/// One kind of complaint, of which the log gets a line a minute at most.
#[derive(Debug, Default)]
pub struct Complaints {
    last: Option<Instant>,
    unsaid: usize,
}

impl Complaints {
    /// Whether to complain aloud now, and if so how often that was not done before.
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
