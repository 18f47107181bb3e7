//! [`Heart`]: checks whether the client is still alive.

use std::time::{Duration, Instant};

/// The heartbeat of a connection. A silent client is sent a 53, and closed if it stays silent.
/// There is one reminder at a time.
#[derive(Debug)]
pub(super) struct Heart {
    ping: Duration,
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
        Heart { ping, asked: None, due: now + ping }
    }

    /// The time until the first check.
    pub(super) fn first(&self) -> Duration {
        self.ping
    }

    /// Checks the client; `None` if it is too early. `heard`: the time at which bytes last arrived
    /// from it. `takes`: whether the client is still receiving output, so that its answer may be
    /// late.
    pub(super) fn beat(&mut self, now: Instant, heard: Instant, takes: bool) -> Option<Beat> {
        if now < self.due {
            return None;
        }
        self.asked = self.asked.filter(|asked| heard < *asked);
        let beat = match self.asked {
            Some(_) if takes => Beat::Wait(self.ping),
            Some(asked) if now >= asked + self.ping => Beat::Stop,
            Some(asked) => Beat::Wait(asked + self.ping - now),
            None if now >= heard + self.ping => {
                self.asked = Some(now);
                Beat::Ask(self.ping)
            }
            None => Beat::Wait(heard + self.ping - now),
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
        // The time, the time at which bytes last arrived, whether the client is still taking.
        for (now, heard, takes, beat) in [
            (19, 0, false, None),
            (20, 5, false, Some(Beat::Wait(5 * second))),
            (25, 5, false, Some(Beat::Ask(20 * second))),
            (45, 5, true, Some(Beat::Wait(20 * second))),
            (65, 64, false, Some(Beat::Wait(19 * second))),
            (84, 64, false, Some(Beat::Ask(20 * second))),
            // The client is not read, so it may have sent something.
            (104, 104, false, Some(Beat::Wait(20 * second))),
            (124, 104, false, Some(Beat::Ask(20 * second))),
            (144, 104, false, Some(Beat::Stop)),
        ] {
            assert_eq!(heart.beat(start + now * second, start + heard * second, takes), beat, "{now}");
        }
    }
}
