//! Fetches stored messages for a session: it claims the mailbox, waits for memory, and then for a
//! worker.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::answer::JobReply;
use super::jobs::Jobs;
use super::places::place;
use crate::admission::Holder;
use crate::admission::fetches::Fetches;
use crate::admission::requests::{RequestKind, Requests};
use crate::config::Config;
use crate::delivery::{ClientLink, MailboxState, Posted};
use crate::metrics::Metrics;
use crate::protocol::{self, UserId};
use crate::routing::mailboxes::Mailboxes;
use crate::routing::router::Router;
use crate::session::{Job, Outcome};

/// A connection that fetches messages, and the owner of the workers and memory that the fetch
/// takes.
#[derive(Clone, Debug)]
pub(super) struct Fetcher {
    pub(super) link: Arc<ClientLink>,
    pub(super) holder: Holder,
}

/// The claimed mailboxes, and the memory for their messages. Any loop may call it.
pub(super) struct Fetching {
    mailboxes: Mailboxes<Fetcher>,
    fetches: Fetches<Fetcher>,
    router: Arc<Router>,
    requests: Arc<Requests>,
    jobs: Arc<Jobs>,
    metrics: Arc<Metrics>,
}

impl Fetching {
    /// Uses half of the memory for clients, because the texts and the reply made from them are in
    /// memory at the same time.
    pub(super) fn new(
        config: &Config,
        router: Arc<Router>,
        requests: Arc<Requests>,
        jobs: Arc<Jobs>,
        metrics: Arc<Metrics>,
    ) -> Fetching {
        let fetches = Fetches::new(config.memory_bytes_max / 2, 2 * config.fetch_bytes_max);
        Fetching { mailboxes: Mailboxes::new(), fetches, router, requests, jobs, metrics }
    }

    /// Fetches messages for a connection, once it has the mailbox.
    pub(super) fn begin(&self, user: UserId, fetcher: Fetcher) {
        if self.mailboxes.claim(user, &fetcher) {
            self.fetch(user, &fetcher);
        }
    }

    /// Fetches messages for a connection that has claimed the mailbox, once there is memory for the
    /// reply.
    fn fetch(&self, user: UserId, fetcher: &Fetcher) {
        if self.fetches.begin(user, fetcher.holder.source, fetcher) {
            self.submit_fetch(user, fetcher);
        }
    }

    /// Notes that the reply of a fetch is complete.
    pub(super) fn fetched(&self, fetcher: &Fetcher, bytes: usize) {
        self.fetches.made(fetcher, bytes);
        self.fetch_on();
    }

    /// Releases the mailbox of a connection, or ends its wait for it.
    pub(super) fn release(&self, user: UserId, fetcher: &Fetcher) {
        // While it waits for another connection of the user, it neither holds memory nor waits for
        // any.
        self.fetches.end(fetcher);
        if let Some(next) = self.mailboxes.release(user, fetcher) {
            self.fetch(user, &next);
        }
        self.fetch_on();
    }

    /// Asks, for a fetch that takes long, the connections that it waits for whether their clients
    /// still read.
    pub(super) fn ask_for(&self, user: UserId, fetcher: &Fetcher) {
        match self.mailboxes.other_holder(user, fetcher) {
            Some(other) => other.link.post(Posted::MailboxWanted),
            None => {
                self.fetches.in_the_way(fetcher).iter().for_each(|other| other.link.post(Posted::MailboxWanted));
                self.fetch_on();
            }
        }
    }

    /// Continues fetches for which memory has become free.
    fn fetch_on(&self) {
        while let Some((user, fetcher)) = self.fetches.next() {
            self.submit_fetch(user, &fetcher);
        }
    }

    /// The lane only reports when all messages on their way to the user are stored; a worker does
    /// the fetch, so that messages of others do not wait for it. A paced client gets as many
    /// messages as fit one frame.
    fn submit_fetch(&self, user: UserId, fetcher: &Fetcher) {
        let answer = JobReply::to(&fetcher.link);
        let Some(place) = place(&self.requests, fetcher.holder, &self.metrics) else { return };
        let (link, jobs, requests) = (fetcher.link.clone(), self.jobs.clone(), self.requests.clone());
        let work = Box::new(move |mailbox| match mailbox {
            MailboxState::Whole => requests.submit(RequestKind::Short, place, move || {
                // A closed connection has released the mailbox.
                if !link.is_sealed() {
                    let job = if link.is_paced() { Job::FetchFrame { user } } else { Job::Fetch { user } };
                    answer.send(jobs.run(job));
                }
            }),
            // A part of the stored messages would be out of order.
            MailboxState::InParts => answer.send(Outcome::Refused(protocol::BUSY.into())),
        });
        self.router.submit(user, work);
    }
}

impl PartialEq for Fetcher {
    fn eq(&self, other: &Fetcher) -> bool {
        self.link == other.link
    }
}

impl Eq for Fetcher {}

impl Hash for Fetcher {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.link).hash(state);
    }
}
