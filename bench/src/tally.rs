//! The books of a run: what was sent, what came, how often, in which order, and when.

use std::collections::BTreeSet;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// What one receiver has got of one sender.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    next: u64,
    /// Smaller numbers that have not come yet.
    missing: BTreeSet<u64>,
}

/// What a message turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    InOrder,
    /// Behind one that was sent after it.
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

    /// How many of the first `sent` never came.
    pub(crate) fn lost(&self, sent: u64) -> u64 {
        self.missing.len() as u64 + sent.saturating_sub(self.next)
    }
}

/// What a run, or a part of it, has seen.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Counts {
    /// Messages handed to the server.
    pub(crate) sent: u64,
    /// Messages that arrived, at each receiver, from the first second to the last.
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Frames that nobody sent: errors, or broken ones.
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

    /// Whether all that was sent came once, in order, and nothing else did.
    pub(crate) fn is_complete(&self) -> bool {
        let Counts { sent: _, delivered: _, lost, duplicated, reordered, foreign, closed } = *self;
        lost + duplicated + reordered + foreign + closed == 0
    }
}

/// One value of a result; what a comparison compares.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

/// Times, in nanoseconds.
pub(crate) type Times = Histogram<u64>;

/// An empty histogram: from a nanosecond to a minute, within a thousandth.
pub(crate) fn times() -> Times {
    let mut times = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are allowed");
    times.auto(true);
    times
}

/// What a run found.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) counts: Counts,
    pub(crate) figures: Vec<Figure>,
    /// What the percentiles are of: "delivery", say.
    pub(crate) times_of: &'static str,
    pub(crate) times: Times,
    /// What was done in each [`SLICE`] of the measured time.
    pub(crate) slices: Vec<u64>,
    /// The first frame that nobody sent, or the first error, in words.
    pub(crate) first_trouble: Option<String>,
}

/// How long a point of the throughput plot is.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

impl Outcome {
    /// An outcome without figures.
    pub(crate) fn new(times_of: &'static str) -> Outcome {
        Outcome {
            counts: Counts::default(),
            figures: Vec::new(),
            times_of,
            times: times(),
            slices: Vec::new(),
            first_trouble: None,
        }
    }

    pub(crate) fn push(&mut self, name: &'static str, value: f64, unit: &'static str) {
        self.figures.push(Figure { name, value, unit });
    }

    /// Percentiles as figures, in milliseconds.
    pub(crate) fn push_times(&mut self) {
        if self.times.is_empty() {
            return;
        }
        for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            self.push(name, self.times.value_at_quantile(quantile) as f64 / 1e6, "ms");
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
    fn what_comes_in_order_is_complete() {
        let (counts, received) = notes(&[0, 1, 2, 3]);
        assert!(counts.is_complete());
        assert_eq!((counts.delivered, received.lost(4)), (4, 0));
    }

    #[test]
    fn what_does_not_is_told_apart() {
        let (counts, received) = notes(&[0, 3, 2, 2, 0, 5]);
        assert_eq!((counts.delivered, counts.reordered, counts.duplicated), (4, 1, 2));
        assert_eq!(received.lost(8), 4, "1, 4, 6 and 7");
    }
}
