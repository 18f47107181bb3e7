//! How long nodes wait for each other.

use std::time::{Duration, Instant};

/// The deadline of an envelope that was published between `begun` and `now`. A slow publication
/// shortens it, because the messages have waited already.
pub(crate) fn confirmed_by(begun: Instant, now: Instant) -> Instant {
    (begun + SETTLED_WITHIN).clamp(now + CONFIRMED_WITHIN_AT_LEAST, now + CONFIRMED_WITHIN)
}

/// The time within which a node must confirm an envelope.
pub const CONFIRMED_WITHIN: Duration = Duration::from_secs(2);
/// The same limit including the time for publishing, and the least time that a node gets.
const SETTLED_WITHIN: Duration = Duration::from_secs(3);
const CONFIRMED_WITHIN_AT_LEAST: Duration = Duration::from_secs(1);
/// How long a node that shuts down waits for messages that others are just sending, and for its own
/// last messages to be sent.
pub(super) const HUSH_PATIENCE: Duration = Duration::from_secs(1);
