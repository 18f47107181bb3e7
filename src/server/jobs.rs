//! The work of jobs, on worker threads: they query the store, hash passwords, and compose the
//! reply.

mod community;
mod conversations;
mod directory;
mod group_room;
mod inquiry;
mod jwt_logins;
mod logins;
mod mail;
mod reply;

use std::sync::Arc;

pub use self::community::{
    AfterReply, Arranged, ArrangementParts, Arrangements, Asker, CommunityRules, GroupDoor, GroupOrder, Ordered,
    ProofVerdict, refused,
};
pub use self::conversations::{
    ConversationParts, Conversations, DeviceRules, Import, ImportStep, Postbox, SeenDevices, TokenEnd, Visitor,
    refusal_of,
};
pub use self::directory::{Directory, Limits};
pub use self::group_room::GroupRoom;
pub use self::inquiry::{Behind, DeviceFacts, Lag, MessageFacts, RecipientFacts, Sought, UserFacts};
pub use self::jwt_logins::{JwtDenial, JwtLogins, OpenedAccount};
pub use self::logins::LoginJobs;
pub use self::mail::{Mail, Waiting};
use crate::metrics::{LoginOutcome, Metrics};
use crate::protocol;
use crate::session::{Job, Outcome};
use crate::store::StoreError;
use crate::store::outages::Outages;

/// The parts that jobs use. Shared by all threads.
pub struct Jobs {
    /// The failing kinds of jobs.
    pub outages: Arc<Outages>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Logins and registrations.
    pub logins: LoginJobs,
    /// The accounts that JSON web tokens open.
    pub jwt: Arc<JwtLogins>,
    /// Friends and groups.
    pub directory: Directory,
    /// Whether a user may come into another group.
    pub group_room: GroupRoom,
    /// Accounts and groups of level 2.
    pub arrangements: Arc<Arrangements>,
    /// Stored messages.
    pub mail: Mail,
}

impl Jobs {
    /// Does one job. Blocks.
    pub fn run(&self, job: Job) -> Outcome {
        let register = matches!(job, Job::Register { .. });
        let login = matches!(job, Job::CheckPassword { .. });
        let what = job.what();
        let outcome = self.try_run(job);
        self.outages.note(what, outcome.as_ref().err());
        if login {
            self.metrics.login(match outcome {
                Ok(Outcome::Password(Some(_))) => LoginOutcome::Accepted,
                Ok(_) => LoginOutcome::Wrong,
                Err(_) => LoginOutcome::Refused,
            });
        }
        match outcome {
            Ok(outcome) => outcome,
            Err(StoreError::Unavailable(_)) => {
                Outcome::Refused(if register { protocol::SERVER_ERROR } else { protocol::BUSY }.into())
            }
            // For example, a name that does not fit: unlike an unavailable store, that is the
            // client's own fault.
            Err(_) if register => Outcome::Reply(protocol::SERVER_ERROR.into()),
            Err(_) => Outcome::Refused(protocol::SERVER_ERROR.into()),
        }
    }

    fn try_run(&self, job: Job) -> Result<Outcome, StoreError> {
        let Jobs { logins, directory, arrangements, mail, .. } = self;
        match job {
            Job::CheckPassword { id, password } => logins.check(id.user(), &password).map(Outcome::Password),
            Job::Register { name, password } => logins.register(&name, &password),
            Job::AddFriends { a, b } => match arrangements.befriend(a, b)? {
                Some(made) => Ok(Outcome::Friends(made)),
                None => directory.add_friends(a, b),
            },
            Job::RemoveFriend { user, friend } => directory.remove_friend(user, friend),
            Job::Contacts { user } => directory.contacts_of(user),
            Job::Members { group, sender } => directory.members(group, sender),
            Job::JoinGroup { user, group, asked } => {
                if !self.group_room.for_joining(user, group)? {
                    return Ok(reply::reply(protocol::too_many_groups_to_join(asked.into())));
                }
                match arrangements.join(user, group, asked.into())? {
                    Some(answer) => Ok(reply::reply(answer)),
                    None => directory.join(user, group, asked.into()),
                }
            }
            // `Dispatch` runs these, because they need their connection.
            Job::Account { .. } => Ok(Outcome::Refused(protocol::NO_METHOD.into())),
            Job::GroupsOf { user } => directory.groups_of(user),
            Job::CreateGroup { owner, name, description } => {
                if !self.group_room.for_new(owner)? {
                    return Ok(Outcome::Reply(protocol::TOO_MANY_GROUPS.into()));
                }
                match arrangements.found_group(owner, &name, &description)? {
                    Some(group) => Ok(reply::reply(protocol::group_created(group, &name))),
                    None => directory.create_group(owner, &name, &description),
                }
            }
            Job::GroupsNamed { name } => directory.groups_named(&name),
            Job::Search { keyword, by_name } => directory.search(&keyword, by_name),
            Job::Fetch { user } => mail.fetch(user),
            Job::FetchFrame { user } => mail.fetch_frame(user),
            Job::Delete { user, ids } => mail.delete(user, &ids),
        }
    }
}

impl Job {
    /// The kind of job, for the log.
    fn what(&self) -> &'static str {
        match self {
            Job::CheckPassword { .. } => "checking passwords",
            Job::Register { .. } => "registering users",
            Job::AddFriends { .. } => "adding friends",
            Job::RemoveFriend { .. } => "removing friends",
            Job::Contacts { .. } => "listing friends and groups",
            Job::Members { .. } => "reading the members of groups",
            Job::JoinGroup { .. } => "joining groups",
            Job::Account { .. } => "arranging accounts and groups",
            Job::GroupsOf { .. } => "listing groups",
            Job::CreateGroup { .. } => "creating groups",
            Job::GroupsNamed { .. } | Job::Search { .. } => "searching",
            Job::Fetch { .. } | Job::FetchFrame { .. } => "fetching stored messages",
            Job::Delete { .. } => "deleting fetched messages",
        }
    }
}
