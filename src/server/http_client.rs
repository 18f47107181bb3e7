//! [`HttpClient`]: a loop's state of a connection that speaks HTTP.

use std::time::Instant;

use super::posting::Posting;

/// A connection that speaks HTTP.
pub(super) struct HttpClient {
    /// The time of its last request.
    pub(super) asked: Instant,
    /// Whether a reminder will come, which closes an idle connection.
    pub(super) is_watched: bool,
    /// The message in the body that follows, or that is being committed.
    pub(super) posting: Option<Posting>,
}

impl HttpClient {
    /// The state of a connection that has just sent a request.
    pub(super) fn new(now: Instant) -> HttpClient {
        HttpClient { asked: now, is_watched: false, posting: None }
    }
}
