//! [`Heart`]: whether the client is still there.

use std::time::{Duration, Instant};

/// The heartbeat of a connection. A client that says nothing for a while is sent a 53, and closed if
/// nothing follows. One reminder at a time.
#[derive(Debug)]
pub(super) struct Heart {
    ping: Duration,
    heard: Instant,
    asked: Option<Instant>,
    due: Instant,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beat {
    /// Look again after this time.
    Wait(Duration),
    /// Send a 53, and look again after this time.
    Ask(Duration),
    /// Close the connection.
    Stop,
}

impl Heart {
    pub(super) fn new(ping: Duration, now: Instant) -> Heart {
        Heart { ping, heard: now, asked: None, due: now + ping }
    }

    /// The time until it first has to be looked at.
    pub(super) fn first(&self) -> Duration {
        self.ping
    }

    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.asked = None;
    }

    /// `takes`: the client has not taken everything yet, so that its answer may be late. `None` if it
    /// is not time to look.
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
