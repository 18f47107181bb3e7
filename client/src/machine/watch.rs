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
    patience: Patience,
    /// The part of the silence before a ping that is added to it. It differs from connection to
    /// connection: clients that hear the same message do not all ping at the same moment.
    spread: f64,
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

/// How long a client waits, in seconds.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// The silence before a ping.
    ping: u64,
    /// For the answer to a ping: at first, and at most.
    pong: [u64; 2],
    /// For the answer to a login: at first, and at most.
    login: [u64; 2],
}

/// A client with one address has nowhere else to go, and would only repeat its login at a server
/// that is busy.
const WITH_ONE_ADDRESS: Patience = Patience { ping: 30, pong: [20, 20], login: [60, 60] };
const WITH_SEVERAL_ADDRESSES: Patience = Patience { ping: 6, pong: [6, 20], login: [10, 60] };

/// The most of the silence before a ping that is added to it.
const SPREAD_MAX: f64 = 0.2;

/// A connection has lasted when the server is heard this long after its beginning.
const LASTS_FROM: Duration = Duration::from_secs(60);

impl Watch {
    /// `addresses`: the number of addresses that the client may connect to.
    pub(crate) fn new(addresses: usize, now: Instant) -> Watch {
        let patience = if addresses > 1 { WITH_SEVERAL_ADDRESSES } else { WITH_ONE_ADDRESS };
        Watch { patience, spread: 0.0, begun: now, heard: now, pinged: None, silences: 0 }
    }

    /// Begins a connection. `chance` is random, from 0 to 1.
    pub(crate) fn begin(&mut self, now: Instant, chance: f64) {
        (self.begun, self.heard, self.pinged) = (now, now, None);
        self.spread = SPREAD_MAX * chance;
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
        self.begun + self.grown(self.patience.login)
    }

    /// The next time at which silence leads to something.
    pub(crate) fn deadline(&self) -> Instant {
        match self.pinged {
            None => self.heard + Duration::from_secs(self.patience.ping).mul_f64(1.0 + self.spread),
            Some(pinged) => pinged + self.grown(self.patience.pong),
        }
    }

    pub(crate) fn silence(&self, now: Instant) -> Silence {
        match self.pinged {
            _ if now < self.deadline() => Silence::Short,
            None => Silence::Ping,
            Some(_) => Silence::End,
        }
    }

    fn grown(&self, [first, longest]: [u64; 2]) -> Duration {
        Duration::from_secs((first << self.silences.min(5)).min(longest))
    }
}
