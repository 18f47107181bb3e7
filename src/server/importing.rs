//! Moves stored messages of a user into conversations before a login at level 2 reads these.

use std::sync::Arc;

use super::jobs::{Conversations, Import, ImportStep};
use super::wiring::ServerParts;
use crate::admission::Holder;
use crate::admission::requests::{RequestKind, Requests, WorkerSlot};
use crate::protocol::UserId;

/// An import, and the work that follows it.
struct Importer<T> {
    conversations: Arc<Conversations>,
    requests: Arc<Requests>,
    holder: Holder,
    import: Import,
    then: T,
}

/// Imports the messages that wait for `user`, and then calls `then`. Messages on their way to the
/// user are stored first. The pieces take turns with other users' requests; `then` does not wait
/// for an import that another login has begun.
pub(super) fn import_first(
    shared: &ServerParts,
    user: UserId,
    (holder, place): (Holder, WorkerSlot),
    then: impl FnOnce() + Send + 'static,
) {
    let requests = shared.dispatch.requests.clone();
    let conversations = shared.conversations.clone();
    let Some(import) = conversations.begin_import(user) else {
        return requests.submit(RequestKind::Short, place, then);
    };
    let importer = Importer { conversations, requests: requests.clone(), holder, import, then };
    // If some of the messages wait on this node for the database, they are imported at the next
    // login.
    let work = Box::new(move |_| requests.submit(RequestKind::Short, place, move || importer.go_on()));
    shared.router.submit(user, work);
}

impl<T: FnOnce() + Send + 'static> Importer<T> {
    fn go_on(mut self) {
        let place = match self.conversations.import(&mut self.import) {
            ImportStep::More => self.requests.place(self.holder),
            ImportStep::Done => None,
        };
        match place {
            Some(place) => self.requests.clone().submit(RequestKind::Short, place, move || self.go_on()),
            None => {
                let Importer { import, then, .. } = self;
                // The next login may import again.
                drop(import);
                then();
            }
        }
    }
}
