//! [`SharedRead`]: when a whole table that other nodes change as well is read again.

use std::time::Instant;

/// See the [module](self). However large the table is, reading it takes at most one part in
/// [`SHARE`] of the time, of this thread and of the database.
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
        self.next = Some(now + now.saturating_duration_since(begun) * (SHARE - 1));
    }
}

const SHARE: u32 = 20;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_large_table_is_read_seldom() {
        let (mut read, begun) = (SharedRead::default(), Instant::now());
        assert!(read.is_due(begun));
        let ended = begun + Duration::from_secs(3);
        read.ended(begun, ended);
        let next = begun + Duration::from_secs(60);
        assert!(!read.is_due(next - Duration::from_millis(1)) && read.is_due(next));
    }
}
