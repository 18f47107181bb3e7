//! [`Stop`]: the progress of a loop's shutdown.

use std::time::{Duration, Instant};
use std::vec;

use crate::slots::ConnId;

/// Whether the loop should stop.
#[derive(Debug)]
pub(crate) enum Stop {
    No,
    /// These connections are told to end one after the other; the next one at this time.
    Telling {
        left: vec::IntoIter<ConnId>,
        next: Instant,
        pause: Duration,
        timeout: Duration,
    },
    /// All connections were told to end: everything is broken off at this time.
    By(Instant),
}

impl Stop {
    /// Begins to tell these connections to end, the first one immediately. `timeout` after the last
    /// one, everything ends.
    pub(crate) fn begin(ids: Vec<ConnId>, now: Instant, pause: Duration, timeout: Duration) -> Stop {
        Stop::Telling { left: ids.into_iter(), next: now, pause, timeout }
    }

    pub(crate) fn has_begun(&self) -> bool {
        !matches!(self, Stop::No)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self {
            Stop::No => None,
            Stop::Telling { next: at, .. } | Stop::By(at) => Some(*at),
        }
    }

    /// The connection to tell now, if there is one. If it was open, call [`Stop::pause`].
    pub(crate) fn next(&mut self, now: Instant) -> Option<ConnId> {
        let Stop::Telling { left, next, timeout, .. } = self else { return None };
        if *next > now {
            return None;
        }
        let id = left.next();
        if id.is_none() {
            *self = Stop::By(now + *timeout);
        }
        id
    }

    /// Makes the next connection wait for the pause.
    pub(crate) fn pause(&mut self) {
        if let Stop::Telling { next, pause, .. } = self {
            *next += *pause;
        }
    }

    /// Whether the time of the shutdown is over.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        matches!(self, Stop::By(by) if *by <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_told_one_after_the_other_and_then_there_is_an_end() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let id = |index| ConnId { index, generation: 0 };
        let mut stop = Stop::begin(vec![id(1), id(2), id(3)], start, second, 10 * second);
        assert_eq!(stop.next(start), Some(id(1)));
        stop.pause();
        assert_eq!((stop.next(start), stop.next_deadline()), (None, Some(start + second)));
        assert_eq!(stop.next(start + second), Some(id(2)), "it is gone: there is no pause");
        assert_eq!(stop.next(start + second), Some(id(3)));
        stop.pause();
        assert_eq!(stop.next(start + 2 * second), None);
        assert_eq!(stop.next_deadline(), Some(start + 12 * second));
        assert!(!stop.is_due(start + 11 * second) && stop.is_due(start + 12 * second));
    }
}
