//! A composed reply as the outcome of a job.

use std::borrow::Cow;

use crate::session::Outcome;

pub(super) fn reply(reply: String) -> Outcome {
    Outcome::Reply(Cow::Owned(reply))
}
