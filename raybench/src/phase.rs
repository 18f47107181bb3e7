//! The phases of a run: a warm-up that is not measured, the measured time, and the last phase, in
//! which nothing more is sent.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Shared by all threads of a run.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    measured: OnceLock<Instant>,
    last: OnceLock<Instant>,
}

impl Phase {
    /// Begins the measured time, and returns the instant.
    pub(crate) fn begin_measured(&self) -> Instant {
        *self.measured.get_or_init(Instant::now)
    }

    /// Ends the measured time, and returns the instant.
    pub(crate) fn begin_last(&self) -> Instant {
        *self.last.get_or_init(Instant::now)
    }

    /// Whether the last phase has begun.
    pub(crate) fn is_last(&self) -> bool {
        self.last.get().is_some()
    }

    pub(crate) fn last_since(&self) -> Option<Instant> {
        self.last.get().copied()
    }

    /// Whether an instant is in the measured time.
    pub(crate) fn is_measured(&self, instant: Instant) -> bool {
        self.measured.get().is_some_and(|since| instant >= *since) && self.last.get().is_none_or(|last| instant < *last)
    }

    /// The time from the beginning of the measured time to an instant; `None` if the instant is
    /// before or after it.
    pub(crate) fn measured_at(&self, instant: Instant) -> Option<Duration> {
        self.measured.get().filter(|_| self.is_measured(instant)).map(|since| instant - *since)
    }
}

/// The work of one thread of this program in the measured time. It is measured between the turns in
/// which the thread noticed the beginning and the end of that time.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    begin: Option<Look>,
    end: Option<Look>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    cpu: Duration,
    done: u64,
}

impl Watch {
    /// Called in each turn of a loop; `done` returns the loop's work so far.
    pub(crate) fn look(&mut self, phase: &Phase, done: impl FnOnce() -> u64) {
        if self.begin.is_none() && phase.measured.get().is_some() {
            self.begin = Look::now(done());
        } else if self.end.is_none() && phase.is_last() {
            self.end = Look::now(done());
        }
    }

    /// The share of the time in which the thread was on a processor.
    pub(crate) fn busy(&self) -> Option<f64> {
        let (begin, end) = self.begin.zip(self.end)?;
        Some(end.cpu.saturating_sub(begin.cpu).as_secs_f64() / (end.at - begin.at).as_secs_f64())
    }

    /// Like [`Watch::busy`], for a thread that ends with the measured time.
    pub(crate) fn busy_until_now(&mut self) -> Option<f64> {
        self.end = self.end.or_else(|| Look::now(0));
        self.busy()
    }

    /// The work done per second.
    pub(crate) fn rate(&self) -> Option<f64> {
        let (begin, end) = self.begin.zip(self.end)?;
        Some((end.done - begin.done) as f64 / (end.at - begin.at).as_secs_f64())
    }
}

impl Look {
    fn now(done: u64) -> Option<Look> {
        let cpu = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?;
        Some(Look { at: Instant::now(), cpu: cpu.into(), done })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_between_begin_and_end_is_measured() {
        let phase = Phase::default();
        let before = Instant::now();
        assert_eq!(phase.measured_at(before), None);
        let begin = phase.begin_measured();
        assert_eq!(phase.measured_at(begin), Some(Duration::ZERO));
        assert_eq!(phase.measured_at(begin - Duration::from_nanos(1)), None);
        let end = phase.begin_last();
        assert_eq!(phase.measured_at(end), None);
        assert_eq!(phase.measured_at(begin), Some(Duration::ZERO), "what was due in it stays measured afterwards");
    }

    #[test]
    fn a_watch_sees_what_its_thread_did() {
        let (phase, mut watch) = (Phase::default(), Watch::default());
        watch.look(&phase, || 5);
        assert_eq!((watch.busy(), watch.rate()), (None, None));
        phase.begin_measured();
        watch.look(&phase, || 10);
        let cpu = || Look::now(0).map(|look| look.cpu);
        let before = cpu();
        while cpu() == before {}
        phase.begin_last();
        watch.look(&phase, || 30);
        assert!(watch.busy() > Some(0.0) && watch.rate() > Some(0.0));
    }
}
