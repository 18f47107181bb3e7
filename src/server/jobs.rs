//! What jobs do, on worker threads: ask the store, hash passwords, and make the reply.

mod directory;
mod logins;
mod mail;

use std::borrow::Cow;
use std::sync::Arc;

pub use self::directory::{Directory, Limits};
pub use self::logins::Logins;
pub use self::mail::Mail;
use crate::admission::berths::Berths;
use crate::base::clock::Clock;
use crate::bus::Bus;
use crate::metrics::{Login, Metrics};
use crate::protocol;
use crate::session::{Job, Outcome};
use crate::store::outages::Outages;
use crate::store::spool::Spool;
use crate::store::{Kept, Message, Store, StoreError};

/// What jobs work with.
pub struct Services {
    /// The durable facts.
    pub store: Store,
    /// Where messages wait while the store is away.
    pub spool: Arc<dyn Spool>,
    /// The other nodes.
    pub bus: Arc<dyn Bus>,
    /// What time it is.
    pub clock: Clock,
    /// Logins: whether a client may come in.
    pub logins: Logins,
    /// Friends and groups.
    pub directory: Directory,
    /// What waits for users.
    pub mail: Mail,
    /// Room for what is on its way to other nodes and to the store.
    pub berths: Arc<Berths>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What fails of what is asked of the store and of the spool.
    pub outages: Outages,
}

impl Services {
    /// Does one job. Blocks.
    pub fn run(&self, job: Job) -> Outcome {
        let register = matches!(job, Job::Register { .. });
        let login = matches!(job, Job::CheckPassword { .. });
        let what = job.what();
        let outcome = self.try_run(job);
        self.outages.note(what, outcome.as_ref().err());
        if login {
            self.metrics.login(match outcome {
                Ok(Outcome::Password(Some(_))) => Login::Accepted,
                Ok(_) => Login::Wrong,
                Err(_) => Login::Refused,
            });
        }
        match outcome {
            Ok(outcome) => outcome,
            Err(StoreError::Unavailable(_)) => {
                Outcome::Refused(if register { protocol::SERVER_ERROR } else { protocol::BUSY }.into())
            }
            // A name that does not fit, for example: unlike a store that is away, it is the client's own doing.
            Err(_) if register => Outcome::Reply(protocol::SERVER_ERROR.into()),
            Err(_) => Outcome::Refused(protocol::SERVER_ERROR.into()),
        }
    }

    /// Has the store keep messages.
    ///
    /// # Errors
    /// The store's.
    pub fn appended(&self, messages: &[Message]) -> Result<Vec<Kept>, StoreError> {
        let result = self.store.messages.get().and_then(|store| store.append(messages));
        self.outages.note("storing messages", result.as_ref().err());
        result
    }

    fn try_run(&self, job: Job) -> Result<Outcome, StoreError> {
        let Services { logins, directory, mail, .. } = self;
        match job {
            Job::CheckPassword { id, password } => logins.check(id.user(), &password).map(Outcome::Password),
            Job::Register { name, password } => logins.register(&name, &password),
            Job::AddFriends { a, b } => directory.add_friends(a, b),
            Job::RemoveFriend { user, friend } => directory.remove_friend(user, friend),
            Job::Contacts { user } => directory.contacts_of(user),
            Job::Members { group, sender } => directory.members(group, sender),
            Job::JoinGroup { user, group, asked } => directory.join(user, group, asked.into()),
            Job::GroupsOf { user } => directory.groups_of(user),
            Job::CreateGroup { owner, name, description } => directory.create_group(owner, &name, &description),
            Job::GroupsNamed { name } => directory.groups_named(&name),
            Job::Search { keyword } => directory.search(&keyword),
            Job::Fetch { user } => mail.fetch(user),
            Job::FetchFrame { user } => mail.fetch_frame(user),
            Job::Delete { user, ids } => mail.delete(user, &ids),
        }
    }
}

impl Job {
    /// What is done, for the log.
    fn what(&self) -> &'static str {
        match self {
            Job::CheckPassword { .. } => "checking passwords",
            Job::Register { .. } => "registering users",
            Job::AddFriends { .. } => "adding friends",
            Job::RemoveFriend { .. } => "removing friends",
            Job::Contacts { .. } => "listing friends and groups",
            Job::Members { .. } => "reading the members of groups",
            Job::JoinGroup { .. } => "joining groups",
            Job::GroupsOf { .. } => "listing groups",
            Job::CreateGroup { .. } => "creating groups",
            Job::GroupsNamed { .. } | Job::Search { .. } => "searching",
            Job::Fetch { .. } | Job::FetchFrame { .. } => "fetching stored messages",
            Job::Delete { .. } => "deleting fetched messages",
        }
    }
}

fn reply(reply: String) -> Outcome {
    Outcome::Reply(Cow::Owned(reply))
}
