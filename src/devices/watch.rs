//! [`Watch`]: the users whom a connection watches. The reply to a 52 comes before their states.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::history::answers::Ticket;
use crate::protocol::UserId;

/// The watch of a connection. While a 52 is under way, requests are not read.
#[derive(Debug)]
pub(super) struct Watch {
    users: Arc<[UserId]>,
    under_way: Option<WatchUnderWay>,
    /// The states that wait for a reply: the last one of each user.
    held: BTreeMap<UserId, bool>,
}

/// A 52 whose states are not shown yet.
#[derive(Debug)]
struct WatchUnderWay {
    /// Of its reply.
    ticket: Ticket,
    /// All states are here.
    is_known: bool,
}

impl Default for Watch {
    fn default() -> Watch {
        Watch { users: [].into(), under_way: None, held: BTreeMap::new() }
    }
}

impl Watch {
    /// These are watched from now on. Returns those before.
    pub(super) fn begin(&mut self, ticket: Ticket, users: Arc<[UserId]>) -> Arc<[UserId]> {
        self.under_way = Some(WatchUnderWay { ticket, is_known: false });
        std::mem::replace(&mut self.users, users)
    }

    /// It has failed: those before are watched still.
    pub(super) fn undo(&mut self, before: Arc<[UserId]>) {
        self.users = before;
        self.known();
    }

    /// All states of a 52 are here.
    pub(super) fn known(&mut self) {
        if let Some(under_way) = &mut self.under_way {
            under_way.is_known = true;
        }
    }

    /// A user is online, or not. Returns whether that may be shown now.
    pub(super) fn shows(&mut self, user: UserId, online: bool) -> bool {
        if self.under_way.is_some() {
            self.held.insert(user, online);
        }
        self.under_way.is_none()
    }

    /// The states that have waited for their reply, if they need not any more.
    pub(super) fn release(&mut self, has_left: impl Fn(Ticket) -> bool) -> BTreeMap<UserId, bool> {
        match self.under_way.take_if(|under_way| under_way.is_known && has_left(under_way.ticket)) {
            Some(_) => std::mem::take(&mut self.held),
            None => BTreeMap::new(),
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    pub(super) fn users(&self) -> &[UserId] {
        &self.users
    }
}
