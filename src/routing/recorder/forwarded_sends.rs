//! [`ForwardedSends`]: the sends of level 2 that this node has forwarded to level 1, so that a repeat is
//! not forwarded again.

use std::sync::{Arc, Weak};

use crate::base::recent::Recent;
use crate::delivery::Acknowledgement;
use crate::protocol::UserId;
use crate::store::history::{Cid, NewEntry};

/// The latest sends of a lane for which something was promised to a recipient at level 1.
pub(super) struct ForwardedSends(Recent<(UserId, Cid), Weak<Acknowledgement>>);

/// What became of the first one of two equal sends.
pub(super) enum ForwardedSend {
    /// What it promises is not settled yet.
    UnderWay(Arc<Acknowledgement>),
    /// It is.
    Settled,
    /// Nobody knows: another node has committed it, or this one before it was started again. It may
    /// have died before it forwarded the message.
    Unknown,
}

impl Default for ForwardedSends {
    fn default() -> ForwardedSends {
        ForwardedSends(Recent::new(REMEMBERED_MAX))
    }
}

impl ForwardedSends {
    pub(super) fn note(&mut self, entry: &NewEntry, answer: &Arc<Acknowledgement>) {
        self.0.insert((entry.sender, entry.cid.clone()), Arc::downgrade(answer));
    }

    pub(super) fn find(&self, entry: &NewEntry) -> ForwardedSend {
        match self.0.get(&(entry.sender, entry.cid.clone())) {
            Some(answer) => answer.upgrade().map_or(ForwardedSend::Settled, ForwardedSend::UnderWay),
            None => ForwardedSend::Unknown,
        }
    }
}

/// At least this number is remembered by a lane, and at most twice as many; 70 bytes each.
const REMEMBERED_MAX: usize = 20_000;
