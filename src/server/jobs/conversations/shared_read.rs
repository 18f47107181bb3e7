//! [`SharedRead`]: when a whole table that other nodes change as well is read again.

use std::time::{Duration, Instant};

/// See the [module](self). However large the table is, reading it takes at most one part in
/// [`SHARE`] of the time, of this thread and of the database. A read that took long because the
/// database did not answer delays the next one by [`PAUSE_MAX`] at most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SharedRead {
    /// The time of the next read; `None` if it was never read.
    next: Option<Instant>,
}

impl SharedRead {
    /// Whether the table must be read now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// Notes that the table was read.
    pub(super) fn ended(&mut self, begun: Instant, now: Instant) {
        let pause = now.saturating_duration_since(begun).saturating_mul(SHARE - 1);
        self.next = Some(now + pause.min(PAUSE_MAX));
    }
}

const SHARE: u32 = 20;
const PAUSE_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_table_is_read_seldom() {
        let (mut read, begun) = (SharedRead::default(), Instant::now());
        assert!(read.is_due(begun));
        let ended = begun + Duration::from_secs(3);
        read.ended(begun, ended);
        let next = begun + Duration::from_secs(60);
        assert!(!read.is_due(next - Duration::from_millis(1)) && read.is_due(next));
        let thawed = next + Duration::from_hours(1);
        read.ended(next, thawed);
        assert!(read.is_due(thawed + PAUSE_MAX));
    }
}
