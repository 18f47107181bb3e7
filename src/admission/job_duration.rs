//! [`JobDuration`]: the recent duration of jobs. From it follows how long a client should wait that
//! a full queue has refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The recent duration of jobs of one kind. Any thread may call it.
#[derive(Debug)]
pub struct JobDuration {
    threads: usize,
    mean_micros: AtomicU64,
}

impl JobDuration {
    /// For jobs that this number of threads run.
    pub fn new(threads: usize) -> JobDuration {
        JobDuration { threads, mean_micros: AtomicU64::new(0) }
    }

    /// Notes the duration of a job.
    pub fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / 16);
        // Concurrent notes may overwrite each other: it is an estimate.
        let mean = match self.mean_micros.load(Ordering::Relaxed) {
            0 => took,
            mean => mean - mean / 8 + took / 8,
        };
        self.mean_micros.store(mean.max(1), Ordering::Relaxed);
    }

    /// The seconds until this number of waiting jobs is done, at least one, and at most what a
    /// client will wait.
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
        let pace = JobDuration::new(2);
        assert_eq!(pace.seconds_for(1000), 1, "nothing is known yet");
        (0..100).for_each(|_| pace.note(Duration::from_millis(40)));
        assert_eq!(pace.seconds_for(0), 1);
        assert_eq!(pace.seconds_for(256), 6);
        assert_eq!(pace.seconds_for(1_000_000), SECONDS_MAX);
        (0..100).for_each(|_| pace.note(Duration::from_millis(400)));
        assert!((50..=52).contains(&pace.seconds_for(256)), "{}", pace.seconds_for(256));
    }
}
