//! [`Pauses`]: the pauses of a node before it connects again.

use std::time::Duration;

/// The pauses between attempts to connect. They grow, so that nodes do not flood a transport that
/// is unavailable for long. Half of each pause is random, so that the nodes of a cluster do not all
/// come back at the same moment.
#[derive(Debug)]
pub(crate) struct Pauses {
    next: Duration,
}

impl Default for Pauses {
    /// Starts with the first pause, because the last connection worked.
    fn default() -> Pauses {
        Pauses { next: PAUSE_MIN }
    }
}

impl Pauses {
    /// The next pause. `random` is from 0 to 1.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let pause = self.next.mul_f64(0.5 + random);
        self.next = (self.next * 2).min(PAUSE_MAX);
        pause
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_are_spread() {
        let mut pauses = Pauses::default();
        let millis: Vec<u128> = (0..7).map(|_| pauses.next(0.5).as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1600, 2000, 2000]);
        let of_random = [0.0, 1.0].map(|random| Pauses::default().next(random).as_millis());
        assert_eq!(of_random, [50, 150]);
    }
}
