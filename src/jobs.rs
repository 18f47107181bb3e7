//! What jobs do, on worker threads: ask the store, hash passwords, and make the reply.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pool::Workers;

use crate::accounts::Accounts;
use crate::berths::Berths;
use crate::bus::Bus;
use crate::clock::Clock;
use crate::groups::GroupCache;
use crate::metrics::{Hit, Login, Metrics};
use crate::outages::Outages;
use crate::password::{self, Client, Passwords, Upgrade, Verdict};
use crate::protocol::{self, GroupId, UserId};
use crate::quotas::Quotas;
use crate::session::{Job, Outcome};
use crate::spool::Spool;
use crate::store::{Joined, Kept, Membership, Message, Store, StoreError};

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
    /// When this server was started.
    pub started: Instant,
    /// Hashing, and the memory of verified passwords.
    pub passwords: Arc<Passwords>,
    /// What was stored for those who are connected.
    pub accounts: Arc<Accounts>,
    /// Replaces stored passwords that are not as they would be stored today, until it is closed.
    pub upgrader: Mutex<Option<Workers>>,
    /// The members of groups.
    pub groups: GroupCache,
    /// Room for what is on its way to other nodes and to the store.
    pub berths: Arc<Berths>,
    /// How much may be stored for each user.
    pub quotas: Quotas,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Most text that one fetch returns, in bytes.
    pub fetch_bytes_max: usize,
    /// Most groups that one search returns.
    pub search_results_max: usize,
    /// Most members of a group.
    pub group_members_max: usize,
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
        let Services { store, .. } = self;
        Ok(match job {
            Job::CheckPassword { id, password } => Outcome::Password(self.check_password(id.user(), &password)?),
            Job::Register { name, password } => self.register(&name, &password)?,
            Job::AddFriends { a, b } => Outcome::Friends(store.contacts.get()?.add_friends(a, b)?),
            Job::RemoveFriend { user, friend } => {
                store.contacts.get()?.remove_friend(user, friend)?;
                Outcome::Reply(protocol::ACK.into())
            }
            Job::Contacts { user } => reply(protocol::contacts(
                &store.contacts.get()?.friends(user)?,
                &store.contacts.get()?.groups_of(user)?,
            )),
            Job::Members { group, sender } => self.members(group, sender)?,
            Job::JoinGroup { user, group, asked } => {
                match store.contacts.get()?.join_group(user, group, self.group_members_max)? {
                    Joined::New(name) => {
                        self.group_changed(group);
                        reply(protocol::joined(group, &name))
                    }
                    // Nothing has changed, so nobody need hear of it.
                    Joined::Already(name) => reply(protocol::joined(group, &name)),
                    Joined::NoSuchGroup => reply(protocol::no_such_group(asked.into())),
                    Joined::Full => {
                        self.metrics.refused(Hit::GroupMembersMax);
                        reply(protocol::group_full(asked.into()))
                    }
                }
            }
            Job::GroupsOf { user } => reply(protocol::groups(&store.contacts.get()?.groups_of(user)?)),
            Job::CreateGroup { owner, name, description } => {
                let group = store.contacts.get()?.create_group(owner, &name, &description)?;
                // Another node knows nothing of it that could be wrong.
                self.groups.changed(group);
                reply(protocol::group_created(group, &name))
            }
            Job::GroupsNamed { name } => {
                reply(protocol::groups(&store.contacts.get()?.groups_named(&name, self.search_results_max)?))
            }
            Job::Search { keyword } => self.search(&keyword)?,
            Job::Fetch { user } => {
                let messages = store.messages.get()?.fetch(user, self.fetch_bytes_max)?;
                let ids = messages.iter().map(|message| message.id).collect();
                Outcome::Messages { reply: protocol::messages(&messages), ids }
            }
            Job::FetchFrame { user } => {
                let mut messages =
                    store.messages.get()?.fetch(user, self.fetch_bytes_max.min(net::JOINED_BYTES_MAX))?;
                messages.truncate(protocol::fit_a_frame(&messages));
                let ids = messages.iter().map(|message| message.id).collect();
                Outcome::Messages { reply: protocol::messages(&messages), ids }
            }
            Job::Delete { user, ids } => {
                store.messages.get()?.delete(user, &ids)?;
                self.quotas.deleted(user);
                Outcome::Deleted
            }
        })
    }

    /// One row says whether the sender may write to the group; all are read only then.
    fn members(&self, group: GroupId, sender: Option<UserId>) -> Result<Outcome, StoreError> {
        let now = self.clock.now();
        if let Some(sender) = sender.filter(|sender| !self.groups.was_member(*sender, group)) {
            let changes = self.groups.changes();
            match self.store.contacts.get()?.membership(sender, group)? {
                Membership::Member => {}
                Membership::NoSuchGroup => return Ok(Outcome::Members([].into())),
                Membership::Stranger => {
                    self.groups.note_stranger(sender, group, now, changes);
                    return Ok(Outcome::Refused(protocol::NOT_A_MEMBER.into()));
                }
            }
        }
        Ok(Outcome::Members(self.groups.load(group, now, self.store.contacts.get()?)?))
    }

    /// Before the reply: whoever hears from the client that it has joined finds it in the group.
    fn group_changed(&self, group: GroupId) {
        self.groups.changed(group);
        self.bus.group_changed(group);
    }

    /// An unknown user takes as long as a wrong password.
    fn check_password(&self, user: Option<UserId>, password: &str) -> Result<Option<Client>, StoreError> {
        let stored = match user {
            Some(user) => self.store.accounts.get()?.credential(user)?,
            None => None,
        };
        let verdict = self.passwords.verify(stored.as_deref(), password);
        let (Some(user), Some(stored)) = (user, stored) else { return Ok(None) };
        match verdict {
            Verdict::Wrong => {
                if password::is_malformed(&stored) {
                    log::error!("the stored password of user {user} is damaged: nobody can log in as this user");
                }
                Ok(None)
            }
            Verdict::Right { client, upgrade } => {
                let stamp = self.passwords.stamp(&stored);
                self.passwords.remember(user, password, client, stamp, self.clock.now());
                self.accounts.verified(user, stamp);
                if let Some(upgrade) = upgrade.filter(|upgrade| self.may_upgrade(*upgrade)) {
                    self.upgrade(user, stored, password, upgrade);
                }
                Ok(Some(client))
            }
        }
    }

    /// While a cluster is updated node by node, some nodes may still check what they are sent against a hash over the same:
    /// they would refuse a password in plain once its hash is over the canonical form. A hash over digits is the same for
    /// both, and plain text stands only where no node has hashed before.
    fn may_upgrade(&self, upgrade: Upgrade) -> bool {
        let fits = self.store.fits_hashes();
        match upgrade {
            Upgrade::Hash | Upgrade::Mark => fits,
            Upgrade::Rehash => {
                fits && (self.bus.is_alone()
                    || self.clock.now().saturating_duration_since(self.started) >= ROLLING_UPDATE)
            }
        }
    }

    /// Has a stored password replaced by what would be stored today, after the login, which does not wait for it: on the day
    /// this server takes the place of the reference server, everybody comes at once. With too many of them, or if it fails,
    /// the next login tries again.
    fn upgrade(&self, user: UserId, stored: String, password: &str, upgrade: Upgrade) {
        let (store, passwords, password) = (self.store.accounts.clone(), self.passwords.clone(), password.to_owned());
        let accounts = self.accounts.clone();
        let work = move || {
            let upgraded = match passwords.upgraded(&stored, &password, upgrade) {
                Ok(hash) => store
                    .get()
                    .and_then(|store| {
                        store.replace_credential(user, &stored, &hash)?;
                        store.credential(user)
                    })
                    .map_err(|error| error.to_string())
                    .map(|now| {
                        // Another node may have been faster, with another salt. If the password is right for its hash too,
                        // the account is the same; if not, the stamp stays, and the change is noticed.
                        let is_same = |now: &String| {
                            *now == hash || matches!(passwords.verify(Some(now), &password), Verdict::Right { .. })
                        };
                        if let Some(now) = now.filter(is_same) {
                            let (from, to) = (passwords.stamp(&stored), passwords.stamp(&now));
                            passwords.restamp(user, from, to);
                            accounts.restamp(user, from, to);
                        }
                    }),
                Err(error) => Err(error.to_string()),
            };
            accounts.upgraded(user);
            if let Err(error) = upgraded {
                log::warn!("the password of user {user} is still stored as it was: {error}");
            }
        };
        if upgrade == Upgrade::Hash {
            self.accounts.upgrading(user, self.clock.now() + UPGRADE_PATIENCE);
        }
        let upgrader = self.upgrader.lock();
        if upgrader.as_ref().is_none_or(|upgrader| upgrader.submit(work).is_err()) {
            self.accounts.upgraded(user);
            log::debug!("the password of user {user} is stored as it was until the next login");
        }
    }

    fn register(&self, name: &str, password: &str) -> Result<Outcome, StoreError> {
        let credential = if self.store.fits_hashes() {
            Cow::Owned(self.passwords.hash(password).map_err(|error| StoreError::Failed(Box::new(error)))?)
        } else {
            Cow::Borrowed(password)
        };
        match self.store.accounts.get()?.register(name, &credential) {
            Err(StoreError::NameTaken) => Ok(Outcome::Reply(protocol::SERVER_ERROR.into())),
            result => Ok(reply(protocol::registered(result?))),
        }
    }

    fn search(&self, keyword: &str) -> Result<Outcome, StoreError> {
        let all_digits = !keyword.is_empty() && keyword.bytes().all(|byte| byte.is_ascii_digit());
        let id = if all_digits { keyword.parse().unwrap_or(0) } else { 0 };
        let user = if id > 0 { self.store.accounts.get()?.user(UserId(id))? } else { None };
        let by_id = if id > 0 { self.store.contacts.get()?.group(GroupId(id))? } else { None };
        let mut named = self.store.contacts.get()?.groups_named(keyword, self.search_results_max)?;
        if let Some(group) = by_id {
            named.retain(|other| other.id != group.id);
            named.insert(0, group);
        }
        Ok(reply(protocol::search_results(user.as_ref(), &named)))
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

/// How long an upgrade may wait for its turn before the account is compared with the database all the same.
const UPGRADE_PATIENCE: Duration = Duration::from_secs(30);
/// How long after the start of a node there may be nodes of an older build, since a cluster is updated node by node.
const ROLLING_UPDATE: Duration = Duration::from_secs(3600);
