//! [`HttpClient`]: what a loop knows of a connection that speaks HTTP.

use std::time::Instant;

use super::posting::Posting;

/// A connection that speaks HTTP.
pub(super) struct HttpClient {
    /// When it last sent a request.
    pub(super) asked: Instant,
    /// A reminder will come that closes it if it asks for nothing more.
    pub(super) is_watched: bool,
    /// The message in the body that follows, or that is being committed.
    pub(super) posting: Option<Posting>,
}

impl HttpClient {
    /// One that has just sent a request.
    pub(super) fn new(now: Instant) -> HttpClient {
        HttpClient { asked: now, is_watched: false, posting: None }
    }
}
