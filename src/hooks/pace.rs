//! [`Pace`]: how many messages the next request has, and when it may be sent.

use std::time::Duration;

/// The pace of one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pace {
    /// The requests that have failed since the last success.
    failures: u32,
    /// The most messages of the next request.
    messages_max: usize,
}

impl Pace {
    /// The pace while nothing fails.
    pub(super) fn new() -> Pace {
        Pace { failures: 0, messages_max: MESSAGES_MAX }
    }

    /// The most messages of the next request.
    pub(super) fn messages_max(&self) -> usize {
        self.messages_max
    }

    /// A request was answered with success.
    pub(super) fn worked(&mut self) {
        self.failures = 0;
        self.messages_max = (self.messages_max * 2).min(MESSAGES_MAX);
    }

    /// A request has failed. Returns the pause; `dice` is from 0 to 1.
    ///
    /// The next request has half as many messages: the web server may refuse one of them, or all
    /// may be too much for it. In the end each message is alone, and only the refused one waits.
    pub(super) fn failed(&mut self, dice: f64) -> Duration {
        let pause = pause_after(self.failures, dice);
        self.failures = self.failures.saturating_add(1);
        self.refused();
        pause
    }

    /// The web server refuses the messages of many senders in a row. Returns the pause, which does
    /// not grow: all of them may be at fault, and others must not wait long for them. A web server
    /// that refuses everything gets one or two requests a second.
    pub(super) fn refused_many(&mut self, dice: f64) -> Duration {
        self.refused();
        pause_after(0, dice)
    }

    /// The web server works, but refuses a message of the request. The next request has half as
    /// many, without a pause, until the message is alone.
    pub(super) fn refused(&mut self) {
        self.messages_max = (self.messages_max / 2).max(1);
    }
}

/// The pause after a failure with this number of failures before; `dice` is from 0 to 1.
pub(super) fn pause_after(failures: u32, dice: f64) -> Duration {
    let longest = PAUSE_FIRST.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX);
    longest.mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0)
}

/// The most messages of a request.
pub(super) const MESSAGES_MAX: usize = 256;
/// The longest pause after the first failure; each further one doubles it.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let mut pace = Pace::new();
        let pauses: Vec<u64> = (0..12).map(|_| pace.failed(1.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        for _ in 0..100_000 {
            pace.failed(0.5);
        }
        assert_eq!(pace.failed(1.0), PAUSE_MAX);
        pace.worked();
        assert_eq!(pace.failed(1.0), PAUSE_FIRST, "a success ends the outage");
    }

    #[test]
    fn refusals_of_many_pause_for_a_second_and_make_no_later_pause_longer() {
        let mut pace = Pace::new();
        let pauses: Vec<u64> = (0..6).map(|_| pace.refused_many(1.0).as_secs()).collect();
        assert_eq!(pauses, [1; 6]);
        assert_eq!(pace.messages_max(), 4);
        assert_eq!([pace.failed(1.0), pace.failed(1.0)].map(|pause| pause.as_secs()), [1, 2], "they are not counted");
    }

    #[test]
    fn pauses_differ_between_nodes_by_half() {
        for dice in [0.0, 0.3, 1.0] {
            let pause = Pace::new().failed(dice);
            assert!(pause >= PAUSE_FIRST / 2 && pause <= PAUSE_FIRST, "{pause:?}");
        }
    }

    #[test]
    fn failures_halve_the_messages_down_to_one_and_successes_double_them() {
        let mut pace = Pace::new();
        let fewer: Vec<usize> = (0..10)
            .map(|_| {
                pace.failed(0.0);
                pace.messages_max()
            })
            .collect();
        assert_eq!(fewer, [128, 64, 32, 16, 8, 4, 2, 1, 1, 1]);
        let more: Vec<usize> = (0..9)
            .map(|_| {
                pace.worked();
                pace.messages_max()
            })
            .collect();
        assert_eq!(more, [2, 4, 8, 16, 32, 64, 128, 256, 256]);
    }
}
