//! [`Clock`]: the time, for everything that depends on it. A simulation has a clock of its own.

use std::time::Instant;

/// The system's clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// If present, the time stands still at this value. Exists in tests only, so that the server's
    /// clock stays one call without a branch.
    #[cfg(test)]
    simulated: Option<std::sync::Arc<parking_lot::Mutex<Instant>>>,
}

impl Clock {
    /// Now.
    pub fn now(&self) -> Instant {
        #[cfg(test)]
        if let Some(simulated) = &self.simulated {
            return *simulated.lock();
        }
        Instant::now()
    }
}

#[cfg(test)]
impl Clock {
    /// A clock that stands still, and its copies with it, until it is [`set`](Clock::set).
    pub(crate) fn standing_at(now: Instant) -> Clock {
        Clock { simulated: Some(std::sync::Arc::new(parking_lot::Mutex::new(now))) }
    }

    /// Sets the time.
    pub(crate) fn set(&self, now: Instant) {
        *self.simulated.as_ref().expect("only a standing clock is set").lock() = now;
    }
}
