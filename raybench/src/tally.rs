//! The books of a run: which messages were sent, and which arrived, how often, in which order and
//! when.

use std::collections::BTreeSet;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::target::{Measured, Usage};

/// The messages that one receiver has got from one sender.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    next: u64,
    /// Smaller numbers that have not come yet.
    missing: BTreeSet<u64>,
}

/// The result of checking a message that has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    InOrder,
    /// It arrived after one that was sent later.
    Late,
    Twice,
}

impl Received {
    pub(crate) fn note(&mut self, number: u64) -> Arrival {
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
            Arrival::InOrder
        } else if self.missing.remove(&number) {
            Arrival::Late
        } else {
            Arrival::Twice
        }
    }

    /// The number of messages among the first `sent` that never came.
    pub(crate) fn lost(&self, sent: u64) -> u64 {
        self.missing.len() as u64 + sent.saturating_sub(self.next)
    }
}

/// The counts of a run or of a part of it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Counts {
    /// Messages handed to the server.
    pub(crate) sent: u64,
    /// Messages that arrived at each receiver, during the whole run.
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Frames that no sender of the run has sent: errors, or broken ones.
    pub(crate) foreign: u64,
    /// Connections that the server closed.
    pub(crate) closed: u64,
}

impl Counts {
    pub(crate) fn note(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::InOrder => self.delivered += 1,
            Arrival::Late => {
                self.delivered += 1;
                self.reordered += 1;
            }
            Arrival::Twice => self.duplicated += 1,
        }
    }

    pub(crate) fn add(&mut self, other: Counts) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        self.closed += other.closed;
    }

    /// Whether everything that was sent arrived once and in order, and nothing else arrived.
    pub(crate) fn is_complete(&self) -> bool {
        let Counts { sent: _, delivered: _, lost, duplicated, reordered, foreign, closed } = *self;
        lost + duplicated + reordered + foreign + closed == 0
    }
}

/// One value of a result, and the unit of comparisons.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    /// The kind of a percentile, such as "delivery"; empty for other figures.
    pub(crate) of: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

impl Figure {
    /// The name with the kind, for people.
    pub(crate) fn title(&self) -> String {
        if self.of.is_empty() { self.name.to_owned() } else { format!("{}, {}", self.of, self.name) }
    }
}

/// Times, in nanoseconds.
pub(crate) type Times = Histogram<u64>;

/// An empty histogram from a nanosecond to two days, longer than any run, with a precision of a
/// thousandth.
pub(crate) fn times() -> Times {
    Histogram::new_with_bounds(1, 2 * 86_400 * 1_000_000_000, 3).expect("these bounds are allowed")
}

pub(crate) fn record(times: &mut Times, time: Duration) {
    // 64 bits of nanoseconds last for centuries.
    times.saturating_record((time.as_nanos() as u64).max(1));
}

/// The length of the time for one point of the throughput plot.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// The work done in each [`SLICE`] of the measured time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slices {
    counts: Vec<u64>,
    /// The last slice was cut short by the end of the measurement.
    last_is_partial: bool,
}

impl Slices {
    /// Adds `count` at this offset into the measured time.
    pub(crate) fn note(&mut self, at: Duration, count: u64) {
        let slice = (at.as_nanos() / SLICE.as_nanos()) as usize;
        self.reach(slice + 1);
        self.counts[slice] += count;
    }

    pub(crate) fn add(&mut self, other: &Slices) {
        self.reach(other.counts.len());
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, more)| *sum += more);
    }

    /// Ends the series after `elapsed`; slices without work until then are zeros.
    pub(crate) fn end(&mut self, elapsed: Duration) {
        self.reach(elapsed.as_nanos().div_ceil(SLICE.as_nanos()) as usize);
        self.last_is_partial = elapsed < SLICE * self.counts.len() as u32;
    }

    pub(crate) fn all(&self) -> &[u64] {
        &self.counts
    }

    /// The slices of full length.
    pub(crate) fn whole(&self) -> &[u64] {
        &self.counts[..self.counts.len() - usize::from(self.last_is_partial && !self.counts.is_empty())]
    }

    fn reach(&mut self, len: usize) {
        if self.counts.len() < len {
            self.counts.resize(len, 0);
        }
    }
}

/// The findings of one thread.
#[derive(Debug)]
pub(crate) struct Findings {
    /// Counts of the whole run.
    pub(crate) counts: Counts,
    /// Deliveries, or counted answers, that arrived within the measured time.
    pub(crate) measured: u64,
    /// Times of the messages that were due in the measured time, whenever they arrived; one
    /// histogram for each kind.
    pub(crate) times: Vec<Times>,
    pub(crate) slices: Slices,
    /// The first unexpected frame, or the first error, in words.
    pub(crate) first_trouble: Option<String>,
    /// The share of the measured time in which the thread was on a processor.
    pub(crate) busy: Option<f64>,
    /// Messages sent in each second of the measured time.
    pub(crate) sent_rate: Option<f64>,
}

impl Findings {
    /// Empty findings with this number of kinds of times.
    pub(crate) fn new(kinds: usize) -> Findings {
        Findings {
            counts: Counts::default(),
            measured: 0,
            times: vec![times(); kinds],
            slices: Slices::default(),
            first_trouble: None,
            busy: None,
            sent_rate: None,
        }
    }

    pub(crate) fn trouble(&mut self, text: impl FnOnce() -> String) {
        self.first_trouble.get_or_insert_with(text);
    }
}

/// The findings of a round.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) counts: Counts,
    pub(crate) figures: Vec<Figure>,
    /// Times with the name of each kind, such as "delivery".
    pub(crate) times: Vec<(&'static str, Times)>,
    pub(crate) slices: Slices,
    pub(crate) first_trouble: Option<String>,
    /// Problems that make the figures doubtful, though nothing is missing.
    pub(crate) warnings: Vec<String>,
    /// The load of each thread of this program, as a share of the measured time.
    pub(crate) generator_threads: Vec<f64>,
    /// For an open loop: the messages per second that it should have sent, and those it sent.
    pub(crate) rates: Option<Rates>,
    /// The run was interrupted before its end.
    pub(crate) is_interrupted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Rates {
    pub(crate) asked: f64,
    pub(crate) reached: f64,
}

/// If a thread is busier than this, the figures may measure the generator instead of the target.
const BUSY_MAX: f64 = 0.9;

impl Outcome {
    /// Joins the findings of threads; `times_of` names the kinds of their times.
    pub(crate) fn of(findings: Vec<Findings>, times_of: &[&'static str]) -> Outcome {
        let mut outcome = Outcome { times: times_of.iter().map(|of| (*of, times())).collect(), ..Outcome::default() };
        for one in findings {
            outcome.counts.add(one.counts);
            for ((_, sum), more) in outcome.times.iter_mut().zip(&one.times) {
                *sum += more;
            }
            outcome.slices.add(&one.slices);
            outcome.first_trouble = outcome.first_trouble.or(one.first_trouble);
            outcome.generator_threads.extend(one.busy.filter(|busy| busy.is_finite()));
        }
        outcome
    }

    /// Whether everything expected arrived, and nothing else did.
    pub(crate) fn is_complete(&self) -> bool {
        self.counts.is_complete() && self.first_trouble.is_none() && !self.is_interrupted
    }

    pub(crate) fn trouble(&mut self, text: impl FnOnce() -> String) {
        self.first_trouble.get_or_insert_with(text);
    }

    /// Adds a figure, unless it is not finite: a ratio to zero is left out.
    pub(crate) fn push(&mut self, name: &'static str, value: f64, unit: &'static str) {
        self.push_of(name, "", value, unit);
    }

    fn push_of(&mut self, name: &'static str, of: &'static str, value: f64, unit: &'static str) {
        if value.is_finite() {
            self.figures.push(Figure { name, of, value, unit });
        }
    }

    /// Adds the rate in the measured time, and the cost of each unit for the target.
    pub(crate) fn push_rate(&mut self, what: What, count: u64, measured: &Measured) {
        let seconds = measured.elapsed.as_secs_f64();
        self.push("rate", count as f64 / seconds, what.per_second());
        if let Some(used) = self.used(measured) {
            self.push("per CPU-second", count as f64 / used.cpu, what.name());
            self.push("CPU for each", used.cpu * 1e6 / count as f64, "µs");
            self.push("CPU used", used.cpu / seconds * 100.0, "%");
            self.push("memory", used.resident as f64 / 1024.0 / 1024.0, "MiB");
            self.push("own memory", used.own as f64 / 1024.0 / 1024.0, "MiB");
        }
    }

    /// Returns what the target used; adds a warning if a process has ended and its usage is
    /// unknown.
    pub(crate) fn used(&mut self, measured: &Measured) -> Option<Usage> {
        match &measured.used {
            Ok(used) => *used,
            Err(error) => {
                self.warnings.push(format!("no processor time and memory: {error}"));
                None
            }
        }
    }

    /// Adds percentiles in milliseconds, except those that a sample of this size cannot tell from
    /// the maximum.
    pub(crate) fn push_times(&mut self) {
        for (of, times) in std::mem::take(&mut self.times) {
            for (name, quantile, least) in
                [("p50", 0.5, 2), ("p90", 0.9, 10), ("p99", 0.99, 100), ("p99.9", 0.999, 1_000), ("max", 1.0, 1)]
            {
                if times.len() >= least {
                    self.push_of(name, of, times.value_at_quantile(quantile) as f64 / 1e6, "ms");
                }
            }
            self.times.push((of, times));
        }
        if self.counts.lost > 0 {
            self.warnings.push("what was lost is in no percentile".to_owned());
        }
    }

    /// Adds how busy this program was, and warns if it was too busy to send what it should.
    pub(crate) fn push_generator(&mut self) {
        let busiest = self.generator_threads.iter().copied().fold(f64::NAN, f64::max);
        self.push("generator CPU", busiest * 100.0, "%");
        if busiest > BUSY_MAX {
            self.warnings.push(format!(
                "a thread of raybench was busy for {:.0} % of the time and may be what is measured (pairs, cross, \
                 group and acked take --threads)",
                busiest * 100.0
            ));
        }
    }

    /// Adds the rate that an open loop should have reached, and the one it reached.
    pub(crate) fn push_rates(&mut self, rates: Rates, elapsed: Duration) {
        let Rates { asked, reached } = rates;
        self.rates = Some(rates);
        self.push("rate asked", asked, What::Messages.per_second());
        self.push("rate sent", reached, What::Messages.per_second());
        // Each thread may be in the middle of one message.
        let threads = self.generator_threads.len() as f64;
        if reached < asked * 0.99 - threads / elapsed.as_secs_f64() {
            self.warnings.push(format!(
                "could not keep the rate: {asked:.0} messages a second asked, {reached:.0} sent; what was due and not sent \
                 is in no percentile"
            ));
        }
    }
}

/// The unit that is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Acknowledgements,
    Deliveries,
    Logins,
    Messages,
}

impl What {
    pub(crate) fn name(self) -> &'static str {
        match self {
            What::Acknowledgements => "acknowledgements",
            What::Deliveries => "deliveries",
            What::Logins => "logins",
            What::Messages => "messages",
        }
    }

    pub(crate) fn per_second(self) -> &'static str {
        match self {
            What::Acknowledgements => "acknowledgements/s",
            What::Deliveries => "deliveries/s",
            What::Logins => "logins/s",
            What::Messages => "messages/s",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(numbers: &[u64]) -> (Counts, Received) {
        let (mut counts, mut received) = (Counts::default(), Received::default());
        for number in numbers {
            counts.note(received.note(*number));
        }
        (counts, received)
    }

    #[test]
    fn messages_in_order_are_complete() {
        let (counts, received) = notes(&[0, 1, 2, 3]);
        assert!(counts.is_complete());
        assert_eq!((counts.delivered, received.lost(4)), (4, 0));
    }

    #[test]
    fn a_stall_at_the_end_is_zeros() {
        let mut slices = Slices::default();
        slices.note(Duration::from_millis(10), 3);
        slices.note(Duration::from_millis(199), 4);
        slices.end(Duration::from_millis(410));
        assert_eq!(slices.all(), [3, 4, 0, 0, 0]);
        assert_eq!(slices.whole(), [3, 4, 0, 0], "the last one is not whole");
        slices.end(Duration::from_millis(500));
        assert_eq!(slices.whole(), [3, 4, 0, 0, 0]);
    }

    #[test]
    fn a_value_that_is_not_a_number_is_not_a_figure() {
        let mut outcome = Outcome::default();
        let measured = Measured { elapsed: Duration::from_secs(1), used: Ok(Some(Usage::default())) };
        outcome.push_rate(What::Messages, 0, &measured);
        assert!(outcome.figures.iter().all(|figure| figure.value.is_finite()), "{:?}", outcome.figures);
        assert!(!outcome.figures.iter().any(|figure| figure.name == "CPU for each"));
        outcome.push_generator();
        assert!(!outcome.figures.iter().any(|figure| figure.name == "generator CPU"));
    }

    #[test]
    fn a_missed_rate_is_reported() {
        let second = Duration::from_secs(1);
        for (reached, is_kept) in [(1000.0, true), (995.0, true), (900.0, false)] {
            let mut outcome = Outcome::default();
            outcome.push_rates(Rates { asked: 1000.0, reached }, second);
            assert_eq!(outcome.warnings.is_empty(), is_kept, "{reached}");
        }
    }

    #[test]
    fn a_percentile_is_of_enough_times() {
        for (count, names) in [(0, vec![]), (1, vec!["max"]), (99, vec!["p50", "p90", "max"])] {
            let mut outcome = Outcome { times: vec![("fetch", times())], ..Outcome::default() };
            (0..count).for_each(|_| record(&mut outcome.times[0].1, Duration::from_millis(1)));
            outcome.push_times();
            assert_eq!(outcome.figures.iter().map(|figure| figure.name).collect::<Vec<_>>(), names);
        }
    }

    #[test]
    fn times_longer_than_a_minute_are_reported_unchanged() {
        let mut times = times();
        record(&mut times, Duration::from_secs(3_600));
        assert!(times.max() >= 3_600_000_000_000);
    }

    #[test]
    fn losses_duplicates_and_disorder_are_told_apart() {
        let (counts, received) = notes(&[0, 3, 2, 2, 0, 5]);
        assert_eq!((counts.delivered, counts.reordered, counts.duplicated), (4, 1, 2));
        assert_eq!(received.lost(8), 4, "1, 4, 6 and 7");
    }
}
