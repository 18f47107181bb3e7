//! [`Echo`]: the probe that a node sends to itself to check that it receives.

use std::time::{Duration, Instant};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Echo {
    /// The number of the last probe; 0 before the first.
    number: u64,
    /// Whether that probe has not come back yet.
    is_under_way: bool,
    /// The time by which it must have come back. If it has, the next one is sent then.
    due: Instant,
}

/// The next step for the probe of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EchoDue {
    /// Do nothing yet.
    Wait,
    /// Send the next probe.
    Send,
    /// Nothing has come back for too long.
    Deaf,
}

/// Nothing published comes back, so the connection is useless.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Deaf;

impl Echo {
    /// A node that has not sent a probe yet. The first one must be sent within the time that a
    /// probe may take.
    pub(super) fn new(now: Instant) -> Echo {
        Echo { number: 0, is_under_way: true, due: now + PROBE_PATIENCE }
    }

    /// Whether a probe was ever sent.
    pub(super) fn has_begun(&self) -> bool {
        self.number > 0
    }

    /// Whether the last probe has come back.
    pub(super) fn is_back(&self) -> bool {
        self.has_begun() && !self.is_under_way
    }

    /// Returns the number of the probe to send now.
    pub(super) fn send(&mut self, now: Instant) -> u64 {
        *self = Echo { number: self.number + 1, is_under_way: true, due: now + PROBE_PATIENCE };
        self.number
    }

    /// A probe has come back; true if it is the expected one.
    pub(super) fn on_back(&mut self, number: u64, now: Instant) -> bool {
        let is_awaited = number == self.number && self.is_under_way;
        if is_awaited {
            (self.is_under_way, self.due) = (false, now + PROBE_EVERY);
        }
        is_awaited
    }

    pub(super) fn look(&self, now: Instant) -> EchoDue {
        match self.due <= now {
            false => EchoDue::Wait,
            true if self.is_under_way => EchoDue::Deaf,
            true => EchoDue::Send,
        }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }
}

/// The interval between probes, and the longest time that one may take.
const PROBE_EVERY: Duration = Duration::from_secs(2);
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// The greatest age of the last probe that came back; beyond it, the next one is missing.
pub(in crate::bus) const PROBE_AGE_MAX: Duration = Duration::from_millis(4500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_deaf_when_its_last_probe_does_not_come_back() {
        let start = Instant::now();
        let mut echo = Echo::new(start);
        assert_eq!(echo.look(start + PROBE_PATIENCE), EchoDue::Deaf, "it cannot even subscribe");
        assert_eq!(echo.send(start), 1);
        assert_eq!(echo.send(start), 2);
        assert!(!echo.on_back(1, start) && !echo.is_back(), "an older one says nothing");
        assert_eq!(echo.look(start + PROBE_PATIENCE), EchoDue::Deaf);
        assert!(echo.on_back(2, start) && echo.is_back());
        assert!(!echo.on_back(2, start), "it comes once");
        assert_eq!(echo.look(start + PROBE_EVERY / 2), EchoDue::Wait);
        assert_eq!(echo.look(start + PROBE_EVERY), EchoDue::Send);
    }
}
