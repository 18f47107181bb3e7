//! [`Pace`]: when somebody who was sent away from a full queue should come again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long jobs of one kind have taken lately. Any thread tells, any thread asks.
#[derive(Debug)]
pub struct Pace {
    threads: usize,
    mean_micros: AtomicU64,
}

impl Pace {
    /// So many threads do the jobs.
    pub fn new(threads: usize) -> Pace {
        Pace { threads, mean_micros: AtomicU64::new(0) }
    }

    /// A job took so long.
    pub fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / 16);
        // Threads that tell at once may overwrite each other: it is an estimate.
        let mean = match self.mean_micros.load(Ordering::Relaxed) {
            0 => took,
            mean => mean - mean / 8 + took / 8,
        };
        self.mean_micros.store(mean.max(1), Ordering::Relaxed);
    }

    /// Seconds until so many waiting jobs are done, at least one and no more than a client will wait.
    pub fn seconds_for(&self, waiting: usize) -> u32 {
        let micros =
            self.mean_micros.load(Ordering::Relaxed).saturating_mul(waiting as u64) / self.threads.max(1) as u64;
        u32::try_from(micros.div_ceil(1_000_000)).unwrap_or(SECONDS_MAX).clamp(1, SECONDS_MAX)
    }
}

const SECONDS_MAX: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_queue_times_the_mean_by_the_threads() {
        let pace = Pace::new(2);
        assert_eq!(pace.seconds_for(1000), 1, "nothing is known yet");
        (0..100).for_each(|_| pace.note(Duration::from_millis(40)));
        assert_eq!(pace.seconds_for(0), 1);
        assert_eq!(pace.seconds_for(256), 6);
        assert_eq!(pace.seconds_for(1_000_000), SECONDS_MAX);
        (0..100).for_each(|_| pace.note(Duration::from_millis(400)));
        assert!((50..=52).contains(&pace.seconds_for(256)), "{}", pace.seconds_for(256));
    }
}
