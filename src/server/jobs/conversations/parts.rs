//! [`Conversations`]: the parts that its tasks share.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustc_hash::FxHashSet;

use super::postbox::Postbox;
use super::shared_read::SharedRead;
use crate::base::clock::Clock;
use crate::base::trace::Tracer;
use crate::bus::{DeviceNews, Exchange};
use crate::config::PresenceShown;
use crate::delivery::ClientLink;
use crate::devices::token::TokenKey;
use crate::devices::typing::RecentTyping;
use crate::metrics::Metrics;
use crate::protocol::UserId;
use crate::protocol::level2::frames::{Committed, Message, Refusal};
use crate::routing::audience::Audience;
use crate::routing::blocks::Blocks;
use crate::routing::groups::GroupCache;
use crate::routing::recorder::AWAY;
use crate::routing::router::Router;
use crate::routing::watchers::Watchers;
use crate::server::stamps::AccountStamps;
use crate::session::password::Passwords;
use crate::store::community::CommunityRole;
use crate::store::history::{Denied, History, HistoryEntry, HistoryRole};
use crate::store::outages::Outages;
use crate::store::{Accounts, Contacts, Role, States, StoreError};

/// Reads and writes for connections of level 2.
pub struct Conversations {
    pub(super) parts: ConversationParts,
    /// The limits.
    pub(super) rules: DeviceRules,
    /// The key that signs tokens, once read.
    pub(super) key: OnceLock<TokenKey>,
    pub(super) typing: RecentTyping,
    blocks_read: Mutex<SharedRead>,
    router: OnceLock<Weak<Router>>,
}

/// The parts that the tasks use.
pub struct ConversationParts {
    /// The conversations.
    pub history: HistoryRole,
    /// The names of users, and their stored passwords.
    pub accounts: Role<dyn Accounts>,
    /// Shows whether a stored password is still the same.
    pub passwords: Arc<Passwords>,
    /// The stored passwords of connected users.
    pub stamps: Arc<AccountStamps>,
    /// The members of groups as they are stored.
    pub contacts: Role<dyn Contacts>,
    /// The members that this node has cached.
    pub groups: Arc<GroupCache>,
    /// The relations of users, which decide what they see of each other.
    pub community: CommunityRole,
    /// The pairs of a user and one whom the user has blocked.
    pub blocks: Arc<Blocks>,
    /// The users of level 2.
    pub audience: Arc<Audience>,
    /// The connections that watch which users come and go.
    pub watchers: Arc<Watchers>,
    /// The users whose `User.state` says online.
    pub states: Role<dyn States>,
    /// The other nodes.
    pub bus: Arc<dyn Exchange>,
    /// The time.
    pub clock: Clock,
    /// The failing kinds of calls.
    pub outages: Arc<Outages>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Traces the ways of messages.
    pub tracer: Arc<Tracer>,
    /// The messages that wait for offline users.
    pub postbox: Postbox,
}

/// The limits of devices.
#[derive(Clone, Copy, Debug)]
pub struct DeviceRules {
    /// The most devices of a user.
    pub devices_max: usize,
    /// How long a token is valid.
    pub token_lifetime: Duration,
    /// The most sends of a connection without an answer.
    pub inflight: usize,
    /// The longest frame of a client, in bytes.
    pub frame_max: usize,
    /// Whether partners see each other's marks.
    pub receipts: bool,
    /// The users who may see who is online.
    pub presence: PresenceShown,
    /// Whether the operator has switched level 2 off.
    pub is_off: bool,
}

impl Conversations {
    /// Has no way to connections before [`Conversations::attach`] is called.
    pub fn new(parts: ConversationParts, rules: DeviceRules) -> Conversations {
        Conversations {
            parts,
            rules,
            key: OnceLock::new(),
            typing: RecentTyping::default(),
            blocks_read: Mutex::default(),
            router: OnceLock::new(),
        }
    }

    /// Notifies connections of this node from now on.
    pub fn attach(&self, router: &Arc<Router>) {
        let _ = self.router.set(Arc::downgrade(router));
    }

    /// The stored passwords of connected users.
    pub fn stamps(&self) -> &Arc<AccountStamps> {
        &self.parts.stamps
    }

    /// Reads the users of level 2. Returns whether the database has answered. Blocks.
    pub fn read_audience(&self) -> bool {
        let read = || -> Result<(), StoreError> {
            let Some(history) = self.parts.history.get()? else { return Ok(()) };
            let mut last = UserId(0);
            loop {
                let users = history.level2_users_after(last, AUDIENCE_PAGE)?;
                users.iter().for_each(|user| self.parts.audience.add(*user));
                match users.last() {
                    Some(user) if users.len() == AUDIENCE_PAGE => last = *user,
                    _ => return Ok(()),
                }
            }
        };
        let read = read();
        self.parts.outages.note("reading who uses level 2", read.as_ref().err());
        read.is_ok()
    }

    /// Ends the watch of a connection over these users.
    pub fn stop_watching(&self, link: &ClientLink, watched: &[UserId]) {
        self.parts.watchers.forget(link, watched);
    }

    /// Reads the blocked users, unless that is not due. Returns whether the database has answered.
    /// Blocks.
    pub fn read_blocks(&self) -> bool {
        let begun = self.parts.clock.now();
        if !self.blocks_read.lock().is_due(begun) {
            return true;
        }
        let read = || -> Result<_, StoreError> {
            let (mut all, mut last) = (FxHashSet::default(), (UserId(0), UserId(0)));
            let Some(community) = self.parts.community.get()? else { return Ok(all) };
            loop {
                let pairs = community.blocks_after(last, BLOCKS_PAGE)?;
                last = pairs.last().copied().unwrap_or(last);
                let is_last = pairs.len() < BLOCKS_PAGE;
                all.extend(pairs);
                if is_last {
                    return Ok(all);
                }
            }
        };
        let new = self.parts.blocks.reread(read);
        if new.is_ok() {
            self.blocks_read.lock().ended(begun, self.parts.clock.now());
        }
        self.parts.outages.note("reading who is blocked", new.as_ref().err());
        for (user, other) in new.iter().flatten() {
            self.parts.watchers.part(*user, *other);
        }
        new.is_ok()
    }

    /// Whether a client may log in at level 2.
    ///
    /// # Errors
    /// The answer to the client if it may not.
    pub fn are_there(&self) -> Result<(), Refusal> {
        match self.parts.history.get() {
            Ok(Some(_)) => Ok(()),
            Ok(None) if self.rules.is_off => Err(SWITCHED_OFF),
            Ok(None) => Err(NOT_MIGRATED),
            Err(_) => Err(AWAY),
        }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.parts.clock.now()
    }

    pub(super) fn history(&self) -> Result<&dyn History, StoreError> {
        self.parts.history.get()?.ok_or_else(|| StoreError::Failed("the tables have no conversations".into()))
    }

    pub(super) fn router(&self) -> Option<Arc<Router>> {
        self.router.get().and_then(Weak::upgrade)
    }

    /// Notifies the other nodes, if there can be any. Blocks.
    pub(super) fn tell_nodes(&self, news: &[DeviceNews]) {
        if !self.parts.bus.is_alone() {
            self.parts.bus.tell_devices(news);
        }
    }

    /// The user with this name. Blocks.
    ///
    /// # Errors
    /// The refusal that the client gets.
    pub fn find(&self, name: &str) -> Result<Option<UserId>, Refusal> {
        let found = self.parts.accounts.get().and_then(|accounts| accounts.user_named(name));
        self.parts.outages.note("reading names", found.as_ref().err());
        found.map(|found| found.map(|user| user.id)).map_err(|error| refusal_of(&error))
    }
}

/// A message as a member sees it.
pub(super) fn shown(entry: &HistoryEntry) -> Message<'_> {
    Message {
        at: Committed { seq: entry.seq, tag: entry.tag, time: entry.time },
        from: entry.from,
        frame: entry.text.as_deref(),
        edited: entry.edited,
        recalled: entry.recalled,
        imported: entry.is_imported,
    }
}

pub(super) fn denied(denied: Denied) -> Refusal {
    match denied {
        Denied::NotYours => Refusal::forever(403, "this is not your conversation"),
        Denied::Unknown => Refusal::forever(404, "there is no such user or group"),
    }
}

pub fn refusal_of(error: &StoreError) -> Refusal {
    match error {
        StoreError::Unavailable(_) => AWAY,
        StoreError::Failed(_) | StoreError::NameTaken => {
            Refusal::forever(500, "the database refuses, see the log of the server")
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn wall_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The pairs that one statement reads.
const BLOCKS_PAGE: usize = 10_000;
/// The users that one statement reads.
const AUDIENCE_PAGE: usize = 10_000;
const SWITCHED_OFF: Refusal = Refusal::forever(501, "this server keeps no conversations: log in without level");
const NOT_MIGRATED: Refusal = Refusal::forever(
    501,
    "this server has no conversations, its tables are those of an older server: log in without level",
);
