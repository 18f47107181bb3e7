//! [`Trend`]: the numbers of the last hour, one sample every ten seconds.
//!
//! It takes a fixed amount of memory: 360 samples of 35 numbers of four bytes, 50 KB, and 61
//! numbers for each event loop. A sample has values of one moment, and differences of counters
//! since the previous one. The time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use super::series::{SERIES, Series, TrendPoint};

/// A bounded past.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Trend {
    samples: VecDeque<TrendPoint>,
    /// The share of a core that each loop used, for the newest samples; empty where they are
    /// missing.
    loops: VecDeque<Vec<f32>>,
    /// The number of the ten-second interval in which the newest sample was taken.
    newest: Option<u64>,
}

impl Trend {
    /// A trend without samples. It will not grow.
    pub(super) fn new() -> Trend {
        let (samples, loops) = (VecDeque::with_capacity(SAMPLES), VecDeque::with_capacity(LOOP_SAMPLES));
        Trend { samples, loops, newest: None }
    }

    /// Adds a sample taken at this time since the start, and the work of each loop. If the process
    /// stood still, samples are missing.
    pub(super) fn add(&mut self, at: Duration, sample: TrendPoint, loops: Vec<f32>) {
        let nth = at.as_secs() / EVERY.as_secs();
        let missed = self.newest.map_or(0, |newest| nth.saturating_sub(newest + 1));
        for _ in 0..missed.min(SAMPLES as u64) {
            self.push([f32::NAN; SERIES], Vec::new());
        }
        self.push(sample, loops);
        self.newest = Some(nth);
    }

    fn push(&mut self, sample: TrendPoint, loops: Vec<f32>) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        if self.loops.len() == LOOP_SAMPLES {
            self.loops.pop_front();
        }
        self.loops.push_back(loops);
    }

    /// The past of a series, the oldest number first; missing ones are NaN.
    pub(super) fn of(&self, series: Series) -> impl DoubleEndedIterator<Item = f32> {
        self.samples.iter().map(move |sample| sample[series as usize])
    }

    /// The newest number.
    pub(super) fn last(&self, series: Series) -> f64 {
        self.of(series).next_back().filter(|number| number.is_finite()).unwrap_or_default().into()
    }

    /// The sum over the last `time`.
    pub(super) fn sum(&self, series: Series, time: Duration) -> f64 {
        self.sum_before(0, series, time)
    }

    /// The sum over `time`, up to this number of samples ago.
    fn sum_before(&self, ago: usize, series: Series, time: Duration) -> f64 {
        let numbers = self.of(series).rev().skip(ago).take(samples_in(time));
        numbers.filter(|number| number.is_finite()).map(f64::from).sum()
    }

    /// Whether the sum over `window` was above this bound at each moment of the last `time`, as
    /// with `for` in a rule of Prometheus.
    pub(super) fn stays_above(&self, series: Series, bound: f64, window: Duration, time: Duration) -> bool {
        self.throughout(time, |ago| self.sum_before(ago, series, window) > bound)
    }

    /// Whether a condition has held at each moment of the last `time`.
    pub(super) fn has_held(&self, series: Series, time: Duration) -> bool {
        self.throughout(time, |ago| self.of(series).nth_back(ago).is_some_and(|number| number > 0.5))
    }

    /// A loop whose share of a core, on average over `window`, was above this bound at each moment
    /// of the last `time`.
    pub(super) fn busy_loop(&self, bound: f32, window: Duration, time: Duration) -> Option<usize> {
        let count = self.loops.iter().map(Vec::len).max().unwrap_or_default();
        let wanted = samples_in(window);
        let share = |nth: usize, ago: usize| {
            let newest = self.loops.iter().rev().skip(ago).take(wanted);
            newest.filter_map(|shares| shares.get(nth)).sum::<f32>() / wanted as f32
        };
        (0..count).find(|nth| self.throughout(time, |ago| share(*nth, ago) > bound))
    }

    /// Whether this holds for each sample of the last `time`, given its age in samples. There is a
    /// sample at the beginning of the time, and one at its end.
    fn throughout(&self, time: Duration, holds: impl Fn(usize) -> bool) -> bool {
        let samples = (samples_in(time) + 1).min(SAMPLES);
        self.samples.len() >= samples && (0..samples).all(holds)
    }
}

fn samples_in(time: Duration) -> usize {
    (time.as_secs() / EVERY.as_secs()) as usize
}

/// The samples of an hour.
pub(super) const SAMPLES: usize = 360;
/// The samples for an average over five minutes at each moment of five minutes.
const LOOP_SAMPLES: usize = 61;
/// The interval between samples.
pub(super) const EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(users: f32) -> TrendPoint {
        let mut sample = [0.0; SERIES];
        sample[Series::Users as usize] = users;
        sample
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Users, one sample after the other.
    fn past(users: impl IntoIterator<Item = f32>) -> Trend {
        let mut trend = Trend::new();
        for (n, users) in users.into_iter().enumerate() {
            trend.add(EVERY * n as u32, sample(users), Vec::new());
        }
        trend
    }

    #[test]
    fn it_remembers_an_hour_in_the_memory_that_its_head_says() {
        let mut trend = Trend::new();
        let capacities = |trend: &Trend| (trend.samples.capacity(), trend.loops.capacity());
        let before = capacities(&trend);
        for n in 0..10_000_u64 {
            trend.add(EVERY * n as u32, sample(n as f32), vec![0.5; 2]);
            assert_eq!(trend.samples.len(), SAMPLES.min(n as usize + 1));
        }
        assert_eq!(capacities(&trend), before, "it does not grow");
        assert_eq!(before.0 * size_of::<TrendPoint>(), 50_400);
        assert_eq!(trend.loops.iter().map(Vec::len).sum::<usize>(), 2 * LOOP_SAMPLES);
        assert_eq!(EVERY * SAMPLES as u32, seconds(3600));
        let users: Vec<f32> = trend.of(Series::Users).collect();
        assert_eq!((users[0], users[SAMPLES - 1]), (9_640.0, 9_999.0));
        assert_eq!(trend.last(Series::Users), 9_999.0);
    }

    #[test]
    fn where_the_process_stood_still_samples_are_missing() {
        let mut trend = Trend::new();
        for at in [0, 10, 21, 50] {
            trend.add(seconds(at), sample(at as f32), Vec::new());
        }
        let users: Vec<f32> = trend.of(Series::Users).collect();
        assert_eq!(
            users.iter().map(|users| users.is_nan()).collect::<Vec<_>>(),
            [false, false, false, true, true, false]
        );
        assert_eq!(trend.sum(Series::Users, seconds(40)), 71.0);
        assert!(!trend.has_held(Series::Users, seconds(20)), "nobody knows");
        trend.add(seconds(1_000_000), sample(1.0), Vec::new());
        assert_eq!(trend.samples.len(), SAMPLES);
        assert_eq!(trend.of(Series::Users).filter(|users| users.is_nan()).count(), SAMPLES - 1);
    }

    #[test]
    fn sums_and_conditions_are_over_the_time_that_is_asked_for() {
        let trend = past([9.0, 0.0, 2.0, 3.0]);
        for (time, sum, has_held) in
            [(0, 0.0, true), (10, 3.0, true), (20, 5.0, false), (30, 5.0, false), (40, 14.0, false), (50, 14.0, false)]
        {
            assert_eq!(trend.sum(Series::Users, seconds(time)), sum, "{time} s");
            assert_eq!(trend.has_held(Series::Users, seconds(time)), has_held, "{time} s");
        }
        assert!(!past([1.0; 4]).has_held(Series::Users, seconds(40)), "there are only 30 seconds");
        assert!(past([1.0; 5]).has_held(Series::Users, seconds(40)));
        assert!(past([1.0; 500]).has_held(Series::Users, seconds(3600)));
    }

    #[test]
    fn a_lasting_condition_holds_at_each_moment() {
        let minute = |n: u64| seconds(60 * n);
        let refusals = |at: &[usize]| past((0..=60).map(|n| f32::from(u8::from(at.contains(&n)))));
        let stays = |trend: Trend| trend.stays_above(Series::Users, 0.0, minute(5), minute(5));
        assert!(!stays(refusals(&[1, 60])), "two of them, nine minutes apart");
        assert!(stays(refusals(&[1, 30, 60])));
        assert!(stays(refusals(&[30, 31])), "the second came five minutes ago, before the first was forgotten");
        assert!(!stays(refusals(&[31])), "five minutes have not passed");
    }

    #[test]
    fn a_loop_is_busy_if_it_is_the_same_one_all_the_time() {
        let minutes = |n: u64| seconds(60 * n);
        let with = |samples: u32, shares: fn(u32) -> Vec<f32>| {
            let mut trend = Trend::new();
            (0..samples).for_each(|n| trend.add(EVERY * n, sample(0.0), shares(n)));
            trend.busy_loop(0.9, minutes(5), minutes(5))
        };
        assert_eq!(with(60, |_| vec![0.1, 0.95]), Some(1));
        assert_eq!(with(500, |_| vec![0.1, 0.95]), Some(1));
        assert_eq!(with(50, |_| vec![0.1, 0.95]), None, "five minutes of five minutes have not passed");
        assert_eq!(with(500, |n| if n % 2 == 0 { vec![0.95, 0.0] } else { vec![0.0, 0.95] }), None, "in turns");
        assert_eq!(with(500, |_| vec![0.89]), None);
        assert_eq!(with(0, |_| vec![]), None);
    }
}
