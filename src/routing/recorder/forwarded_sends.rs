//! [`ForwardedSends`]: the sends of level 2 that this node has forwarded to level 1, so that a
//! retry is not forwarded again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::base::recent::Recent;
use crate::delivery::Acknowledgement;
use crate::protocol::UserId;
use crate::store::history::{Cid, NewEntry};

/// The latest sends of a lane that owe an acknowledgement for a recipient at level 1.
pub(super) struct ForwardedSends(Recent<(UserId, Cid), NotedSend>);

struct NotedSend {
    acknowledgement: Weak<Acknowledgement>,
    /// Whether the recipient did not get it; only for messages of an operator, who is told so and
    /// may repeat it.
    is_lost: Option<Arc<AtomicBool>>,
}

/// The outcome of the first of two equal sends.
pub(super) enum ForwardedSend {
    /// Its acknowledgement is not settled yet.
    UnderWay(Arc<Acknowledgement>),
    /// Its acknowledgement is settled.
    Settled,
    /// Unknown: another node has committed it, or this one before a restart. That process may have
    /// died before it forwarded the message. Or the recipient did not get it.
    Unknown,
}

impl Default for ForwardedSends {
    fn default() -> ForwardedSends {
        ForwardedSends(Recent::new(REMEMBERED_MAX))
    }
}

impl ForwardedSends {
    pub(super) fn note(&mut self, entry: &NewEntry, answer: &Arc<Acknowledgement>, is_lost: Option<Arc<AtomicBool>>) {
        let noted = NotedSend { acknowledgement: Arc::downgrade(answer), is_lost };
        self.0.insert((entry.sender, entry.cid.clone()), noted);
    }

    pub(super) fn find(&self, entry: &NewEntry) -> ForwardedSend {
        let Some(noted) = self.0.get(&(entry.sender, entry.cid.clone())) else { return ForwardedSend::Unknown };
        match noted.acknowledgement.upgrade() {
            Some(answer) => ForwardedSend::UnderWay(answer),
            None if noted.is_lost.as_ref().is_some_and(|lost| lost.load(Ordering::Acquire)) => ForwardedSend::Unknown,
            None => ForwardedSend::Settled,
        }
    }
}

/// The least number of sends that a lane remembers, and at most twice as many; 80 bytes each.
const REMEMBERED_MAX: usize = 20_000;
