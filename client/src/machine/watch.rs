//! [`Watch`]: whether the server is still there.
//!
//! The kernel of a frozen server, or of a frozen proxy in front of it, keeps accepting connections
//! and acknowledging bytes. Only missing answers show the fault, so a login and a ping have a
//! deadline. On a slow network, or with a busy server, an answer may need longer than that. So each
//! silence doubles the deadlines of the next connections until they are long, and a connection that
//! has lasted makes them short again.

use std::time::{Duration, Instant};

/// The time since the server was last heard.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The silence after which the server is pinged.
    ping_after: Duration,
    begun: Instant,
    heard: Instant,
    pinged: Option<Instant>,
    /// The connections that have ended in silence since one has lasted.
    silences: u32,
}

/// The steps that silence leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Silence {
    Short,
    Ping,
    End,
}

/// The silence after which the server is pinged. A client with several addresses loses nothing if
/// it goes on to the next one, so it looks sooner.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_AFTER_OF_SEVERAL: Duration = Duration::from_secs(6);

/// The time for the answer to a ping: at first, and at most.
const PONG_WITHIN: [Duration; 2] = [Duration::from_secs(6), Duration::from_secs(20)];

/// The time for the answer to a login: at first, and at most.
const LOGIN_WITHIN: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];

/// A connection has lasted when the server is heard this long after its beginning.
const LASTS_FROM: Duration = Duration::from_secs(60);

impl Watch {
    /// `addresses`: the number of addresses that the client may connect to.
    pub(crate) fn new(addresses: usize, now: Instant) -> Watch {
        let ping_after = if addresses > 1 { PING_AFTER_OF_SEVERAL } else { PING_AFTER };
        Watch { ping_after, begun: now, heard: now, pinged: None, silences: 0 }
    }

    /// Begins a connection.
    pub(crate) fn begin(&mut self, now: Instant) {
        (self.begun, self.heard, self.pinged) = (now, now, None);
    }

    pub(crate) fn heard(&mut self, now: Instant) {
        (self.heard, self.pinged) = (now, None);
        if now >= self.begun + LASTS_FROM {
            self.silences = 0;
        }
    }

    pub(crate) fn pinged(&mut self, now: Instant) {
        self.pinged = Some(now);
    }

    /// Notes that the connection ends because an answer is missing.
    pub(crate) fn gave_up(&mut self) {
        self.silences = self.silences.saturating_add(1);
    }

    /// The end of the time for the answer to a login.
    pub(crate) fn login_deadline(&self) -> Instant {
        self.begun + self.patience(LOGIN_WITHIN)
    }

    /// The next time at which silence leads to something.
    pub(crate) fn deadline(&self) -> Instant {
        match self.pinged {
            None => self.heard + self.ping_after,
            Some(pinged) => pinged + self.patience(PONG_WITHIN),
        }
    }

    pub(crate) fn silence(&self, now: Instant) -> Silence {
        match self.pinged {
            _ if now < self.deadline() => Silence::Short,
            None => Silence::Ping,
            Some(_) => Silence::End,
        }
    }

    fn patience(&self, [first, longest]: [Duration; 2]) -> Duration {
        (first * (1 << self.silences.min(5))).min(longest)
    }
}
