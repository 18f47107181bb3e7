//! [`Pings`]: checks with `PING`s whether a primary still answers. A frozen one closes no
//! connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::bus::peer::Deaf;

/// The `PING`s on both connections to one primary. They also keep Redis from closing these as idle.
pub(super) struct Pings {
    unanswered: Option<Sign>,
    /// The time of the next ones, without a doubt.
    due: Instant,
    doubt: Arc<Doubt>,
}

/// The `PING`s that were sent last.
struct Sign {
    at: Instant,
    missing: u8,
    /// Whether they were sent because of a doubt.
    settles_doubt: bool,
}

/// Whether a command to a primary has failed, and no `PING` that was sent after that is answered
/// yet. Meanwhile no other command is sent there.
#[derive(Default)]
pub(super) struct Doubt(AtomicBool);

impl Doubt {
    pub(super) fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn settle(&self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Pings {
    pub(super) fn new(doubt: Arc<Doubt>, now: Instant) -> Pings {
        Pings { unanswered: None, due: now + PING_EVERY, doubt }
    }

    /// Whether they must be sent now. `may_be_answered` says that not everything that has arrived
    /// was read.
    ///
    /// # Errors
    ///
    /// If earlier ones are not answered in time.
    pub(super) fn are_due(&mut self, now: Instant, may_be_answered: bool) -> Result<bool, Deaf> {
        if let Some(sign) = &self.unanswered {
            let is_late = now.saturating_duration_since(sign.at) >= PING_PATIENCE;
            return if is_late && !may_be_answered { Err(Deaf) } else { Ok(false) };
        }
        let settles_doubt = self.doubt.is_raised();
        if !settles_doubt && self.due > now {
            return Ok(false);
        }
        self.due = now + PING_EVERY;
        self.unanswered = Some(Sign { at: now, missing: 2, settles_doubt });
        Ok(true)
    }

    /// One is answered.
    pub(super) fn on_pong(&mut self) {
        let Some(sign) = &mut self.unanswered else { return };
        sign.missing -= 1;
        if sign.missing == 0 {
            if sign.settles_doubt {
                self.doubt.settle();
            }
            self.unanswered = None;
        }
    }

    /// The time at which to look again.
    pub(super) fn due(&self) -> Instant {
        self.unanswered.as_ref().map_or(self.due, |sign| sign.at + PING_PATIENCE)
    }
}

/// The interval of checks: Redis may close a connection that is idle for a second (`timeout`).
const PING_EVERY: Duration = Duration::from_millis(800);
/// The longest time until a `PING` is answered.
const PING_PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_is_deaf_when_everything_is_read_and_no_answer_is_among_it() {
        let begun = Instant::now();
        let mut pings = Pings::new(Arc::default(), begun);
        assert_eq!(pings.are_due(begun, false), Ok(false));
        assert_eq!(pings.due(), begun + PING_EVERY);
        let sent = pings.due();
        assert_eq!(pings.are_due(sent, false), Ok(true));
        assert_eq!(pings.are_due(sent, false), Ok(false), "they are on their way");
        assert_eq!(pings.due(), sent + PING_PATIENCE);
        // This node was busy for long. The answers may be among the bytes that it has not read.
        assert_eq!(pings.are_due(sent + PING_PATIENCE, true), Ok(false));
        pings.on_pong();
        assert_eq!(pings.are_due(sent + PING_PATIENCE, false), Err(Deaf), "one connection does not answer");
        pings.on_pong();
        assert_eq!(pings.are_due(sent + PING_PATIENCE, false), Ok(true));
    }

    #[test]
    fn a_doubt_is_settled_by_pings_that_were_sent_after_it() {
        let now = Instant::now();
        let doubt = Arc::<Doubt>::default();
        let mut pings = Pings::new(doubt.clone(), now);
        assert_eq!(pings.are_due(now + PING_EVERY, false), Ok(true));
        doubt.raise();
        pings.on_pong();
        pings.on_pong();
        assert!(doubt.is_raised(), "these were sent before the failure");
        assert_eq!(pings.are_due(now + PING_EVERY, false), Ok(true), "others follow at once");
        pings.on_pong();
        assert!(doubt.is_raised(), "one connection has not answered");
        pings.on_pong();
        assert!(!doubt.is_raised());
    }
}
