//! [`Echo`]: the message of a node to itself, which shows that it hears what is said.

use std::time::{Duration, Instant};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Echo {
    /// Of the probe that was sent last; 0 before the first.
    number: u64,
    /// It is not back yet.
    is_under_way: bool,
    /// It must be back by then; if it is back, the next one is sent then.
    due: Instant,
}

/// What a node does about its probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EchoDue {
    /// Nothing yet.
    Wait,
    /// It sends the next one.
    Send,
    /// It has heard nothing for too long.
    Deaf,
}

impl Echo {
    /// No probe was sent yet. The first one is sent before the time is over that one may take.
    pub(super) fn new(now: Instant) -> Echo {
        Echo { number: 0, is_under_way: true, due: now + PROBE_PATIENCE }
    }

    /// Whether a probe was ever sent.
    pub(super) fn has_begun(&self) -> bool {
        self.number > 0
    }

    /// Whether the probe that was sent last is back.
    pub(super) fn is_back(&self) -> bool {
        self.has_begun() && !self.is_under_way
    }

    /// The number of the probe that is to be sent now.
    pub(super) fn send(&mut self, now: Instant) -> u64 {
        *self = Echo { number: self.number + 1, is_under_way: true, due: now + PROBE_PATIENCE };
        self.number
    }

    /// A probe has come; true if it is the one that was waited for.
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

/// How often a node writes to itself, and how long that may take.
const PROBE_EVERY: Duration = Duration::from_secs(2);
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// A probe that came back longer ago should have been followed by another.
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
