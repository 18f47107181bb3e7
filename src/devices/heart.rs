//! [`Heart`]: checks whether the client is still alive.

use std::time::{Duration, Instant};

/// The heartbeat of a connection. A silent client is sent a 53, and closed if it stays silent.
/// There is one reminder at a time.
#[derive(Debug)]
pub(super) struct Heart {
    ping: Duration,
    heard: Instant,
    asked: Option<Instant>,
    due: Instant,
}

/// The work to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beat {
    /// Check again after this time.
    Wait(Duration),
    /// Send a 53, and check again after this time.
    Ask(Duration),
    /// Close the connection.
    Stop,
}

impl Heart {
    pub(super) fn new(ping: Duration, now: Instant) -> Heart {
        Heart { ping, heard: now, asked: None, due: now + ping }
    }

    /// The time until the first check.
    pub(super) fn first(&self) -> Duration {
        self.ping
    }

    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.asked = None;
    }

    /// Checks the client; `None` if it is too early. `takes`: whether the client is still receiving
    /// output, so that its answer may be late.
    pub(super) fn beat(&mut self, now: Instant, takes: bool) -> Option<Beat> {
        if now < self.due {
            return None;
        }
        let beat = match self.asked {
            Some(_) if takes => Beat::Wait(self.ping),
            Some(asked) if now >= asked + self.ping => Beat::Stop,
            Some(asked) => Beat::Wait(asked + self.ping - now),
            None if now >= self.heard + self.ping => {
                self.asked = Some(now);
                Beat::Ask(self.ping)
            }
            None => Beat::Wait(self.heard + self.ping - now),
        };
        if let Beat::Wait(after) | Beat::Ask(after) = beat {
            self.due = now + after;
        }
        Some(beat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_client_is_asked_and_then_closed_unless_it_is_still_taking() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut heart = Heart::new(20 * second, start);
        assert_eq!(heart.beat(start + 19 * second, false), None);
        heart.hear(start + 5 * second);
        assert_eq!(heart.beat(start + 20 * second, false), Some(Beat::Wait(5 * second)));
        assert_eq!(heart.beat(start + 25 * second, false), Some(Beat::Ask(20 * second)));
        assert_eq!(heart.beat(start + 45 * second, true), Some(Beat::Wait(20 * second)));
        assert_eq!(heart.beat(start + 65 * second, false), Some(Beat::Stop));
        heart.hear(start + 65 * second);
        assert_eq!(heart.beat(start + 66 * second, false), Some(Beat::Wait(19 * second)));
    }
}
