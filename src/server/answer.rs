//! [`JobReply`]: returns the result of a thread to the session that waits for it.

use std::borrow::Cow;
use std::mem;
use std::sync::Arc;

use crate::delivery::{ClientLink, Posted};
use crate::protocol;
use crate::session::Outcome;

/// Posts the outcome of a job to a session. If the job is dropped or panics, the session learns
/// that the server is busy.
pub(super) struct JobReply {
    link: Option<Arc<ClientLink>>,
    or_else: Cow<'static, str>,
}

impl JobReply {
    /// A reply to this session.
    pub(super) fn to(link: &Arc<ClientLink>) -> JobReply {
        JobReply::or_else(link, protocol::BUSY)
    }

    /// The same, with another outcome if the job is dropped.
    pub(super) fn or_else(link: &Arc<ClientLink>, reply: impl Into<Cow<'static, str>>) -> JobReply {
        JobReply { link: Some(link.clone()), or_else: reply.into() }
    }

    /// Posts the outcome of the job.
    pub(super) fn send(mut self, outcome: Outcome) {
        if let Some(link) = self.link.take() {
            link.post(Posted::Outcome(outcome));
        }
    }
}

impl Drop for JobReply {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            link.post(Posted::Outcome(Outcome::Refused(mem::take(&mut self.or_else))));
        }
    }
}
