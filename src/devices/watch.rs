//! [`StateWatch`]: the users that a connection watches. The reply to a 52 comes before their
//! states.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::history::answers::Ticket;
use crate::protocol::{Id, UserId};

/// The watch of a connection. While a 52 is under way, requests are not read.
#[derive(Debug)]
pub(super) struct StateWatch {
    users: Arc<[UserId]>,
    under_way: Option<WatchUnderWay>,
    /// The states that wait for a reply: the latest one of each user.
    held: BTreeMap<UserId, bool>,
}

/// A 52 whose states are not shown yet.
#[derive(Debug)]
struct WatchUnderWay {
    /// The ticket of its reply.
    ticket: Ticket,
    /// Ids that no user ever has. They look offline.
    nobody: Vec<Id>,
    /// Whether all states have come.
    is_known: bool,
}

impl Default for StateWatch {
    fn default() -> StateWatch {
        StateWatch { users: [].into(), under_way: None, held: BTreeMap::new() }
    }
}

impl StateWatch {
    /// Watches these users from now on, and shows once that `nobody` is online. Returns those
    /// watched before.
    pub(super) fn begin(&mut self, ticket: Ticket, users: Arc<[UserId]>, nobody: Vec<Id>) -> Arc<[UserId]> {
        self.under_way = Some(WatchUnderWay { ticket, nobody, is_known: false });
        std::mem::replace(&mut self.users, users)
    }

    /// Undoes a 52 that has failed: the users before are still watched.
    pub(super) fn undo(&mut self, before: Arc<[UserId]>) {
        self.users = before;
        if let Some(under_way) = &mut self.under_way {
            under_way.nobody.clear();
        }
        self.known();
    }

    /// Notes that all states of a 52 have come.
    pub(super) fn known(&mut self) {
        if let Some(under_way) = &mut self.under_way {
            under_way.is_known = true;
        }
    }

    /// Notes that a user is online or offline. Returns whether that may be shown now.
    pub(super) fn shows(&mut self, user: UserId, online: bool) -> bool {
        if self.under_way.is_some() {
            self.held.insert(user, online);
        }
        self.under_way.is_none()
    }

    /// Takes the states whose reply has left.
    pub(super) fn release(&mut self, has_left: impl Fn(Ticket) -> bool) -> Vec<(Id, bool)> {
        match self.under_way.take_if(|under_way| under_way.is_known && has_left(under_way.ticket)) {
            Some(WatchUnderWay { nobody, .. }) => {
                let held = std::mem::take(&mut self.held).into_iter();
                let known = held.map(|(user, online)| (Id(user.0.into()), online));
                known.chain(nobody.into_iter().map(|id| (id, false))).collect()
            }
            None => Vec::new(),
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    pub(super) fn users(&self) -> &[UserId] {
        &self.users
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::answers::Answers;

    #[test]
    fn states_wait_until_all_are_known_and_the_reply_has_left() {
        let (mut watch, ticket) = (StateWatch::default(), Answers::<()>::default().open());
        watch.begin(ticket, [UserId(9)].into(), vec![Id(1 << 40)]);
        assert!(!watch.shows(UserId(9), false) && !watch.shows(UserId(9), true));
        assert_eq!(watch.release(|_| true), [], "another state may be on its way");
        watch.known();
        assert_eq!(watch.release(|_| false), []);
        assert_eq!(watch.release(|_| true), [(Id(9), true), (Id(1 << 40), false)], "the last one");
        assert!(watch.shows(UserId(9), false) && !watch.is_under_way());
    }
}
