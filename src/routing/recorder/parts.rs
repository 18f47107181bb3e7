//! [`RecorderParts`]: the parts that the lanes work with.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::recording::{RECORDING_BYTES, RecordedFor, Recording};
use crate::base::clock::Clock;
use crate::base::trace::Tracer;
use crate::bus::Exchange;
use crate::metrics::Metrics;
use crate::protocol::{GroupId, UserId};
use crate::routing::audience::Audience;
use crate::routing::groups::GroupCache;
use crate::routing::level1_seen::Level1Seen;
use crate::routing::router::{Keeps, Router};
use crate::session::Recipients;
use crate::store::history::{CommitRules, HistoryRole, NewEntry};
use crate::store::hooks::HookRole;
use crate::store::outages::Outages;
use crate::store::{Contacts, Role, StoreError};

/// Decides which messages join the queue of the hook.
#[derive(Clone)]
pub struct HookedMessages {
    hooks: Option<HookRole>,
}

impl HookedMessages {
    /// Those for users of level 2, if there is a hook.
    pub fn new(is_configured: bool, hooks: &HookRole) -> HookedMessages {
        HookedMessages { hooks: is_configured.then(|| hooks.clone()) }
    }

    /// Whether there is a hook, and a queue for it.
    pub fn are_any(&self) -> bool {
        self.hooks.as_ref().is_some_and(|hooks| matches!(hooks.get(), Ok(Some(_))))
    }
}

/// The parts that the lanes work with.
pub struct RecorderParts {
    /// Conversations.
    pub history: HistoryRole,
    /// The members of groups as they are stored.
    pub contacts: Role<dyn Contacts>,
    /// The members that this node has cached.
    pub groups: Arc<GroupCache>,
    /// The users of level 2.
    pub audience: Arc<Audience>,
    /// The users who still use level 1.
    pub level1_seen: Arc<Level1Seen>,
    /// Connections.
    pub router: Arc<Router>,
    /// The other nodes.
    pub bus: Arc<dyn Exchange>,
    /// The failing kinds of calls.
    pub outages: Arc<Outages>,
    /// The time.
    pub clock: Clock,
    /// The rule for the messages that join the hook's queue.
    pub hooked: HookedMessages,
    /// The limits of messages.
    pub rules: CommitRules,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Traces the ways of messages.
    pub tracer: Arc<Tracer>,
}

impl RecorderParts {
    /// Notes which of these messages join the queue of the hook: those for users of level 2 other
    /// than the sender.
    pub(super) fn note_hooked<'p>(&self, entries: &mut [NewEntry], to: impl Iterator<Item = &'p RecordedFor>) {
        if !self.hooked.are_any() {
            return;
        }
        for (entry, to) in entries.iter_mut().zip(to) {
            let is_due = |user: &UserId| *user != entry.sender && self.audience.has(*user);
            entry.is_hooked = self.recipients(to, entry).iter().any(is_due);
        }
    }

    /// Whether a recorded message is stored for a user without a connection of level 1 here that
    /// can take it. A user of both levels finds it at either; in a cluster another node may have
    /// such a connection.
    pub(super) fn keeps(&self, user: UserId) -> Keeps {
        let is_here = || self.router.is_alone() && !self.router.attendance().devices(user, |_| true).is_empty();
        let has_it = self.audience.has(user) && (is_here() || !self.level1_seen.uses(user));
        if has_it { Keeps::No } else { Keeps::Yes }
    }

    /// Reads in one query which of the recipients still use level 1.
    pub(super) fn learn_who_uses_level1<'p>(&self, entries: &[NewEntry], to: impl Iterator<Item = &'p RecordedFor>) {
        let mut users = FxHashSet::default();
        for (entry, to) in entries.iter().zip(to) {
            users.extend(self.recipients(to, entry).iter().filter(|user| self.audience.has(**user)));
        }
        self.level1_seen.learn(users);
    }

    /// The weight of a message in its lane: its text, and the users it is handed to.
    pub(super) fn weight(&self, recording: &Recording) -> usize {
        let members = match (&recording.to, recording.entry.conv.group()) {
            (RecordedFor::Known(Recipients::Group(_, members)), _) => members.len(),
            (RecordedFor::Conversation, Some(group)) => self.groups.size(group).unwrap_or(UNKNOWN_MEMBERS),
            (RecordedFor::Known(Recipients::User(_)), _) | (RecordedFor::Conversation, None) => 1,
        };
        recording.entry.text.len() + RECORDING_BYTES + members * MEMBER_WEIGHT
    }

    /// The users to whom a committed message is shown: the current members of the group. A user who
    /// has joined during the commit learns of the message from nobody else.
    pub(super) fn shown_to(&self, entry: &NewEntry, recipients: &Arc<[UserId]>) -> Arc<[UserId]> {
        let now = entry.conv.group().and_then(|group| self.members(group).ok());
        now.unwrap_or_else(|| recipients.clone())
    }

    /// The members of a group, as they are cached or stored.
    pub(super) fn members(&self, group: GroupId) -> Result<Arc<[UserId]>, StoreError> {
        let now = self.clock.now();
        match self.groups.members(group, now) {
            Some(members) => Ok(members),
            None => self.groups.load(group, now, self.contacts.get()?),
        }
    }

    /// Reads in one query the members of all groups of a batch that are not cached. A group whose
    /// members cannot be read is retried alone.
    pub(super) fn read_members(&self, groups: impl Iterator<Item = GroupId>) {
        let now = self.clock.now();
        let unknown: FxHashSet<GroupId> = groups.filter(|group| self.groups.members(*group, now).is_none()).collect();
        if unknown.len() > 1
            && let Ok(contacts) = self.contacts.get()
        {
            let unknown: Vec<GroupId> = unknown.into_iter().collect();
            let read = self.groups.load_each(&unknown, now, contacts);
            self.outages.note("reading members of groups", read.as_ref().err());
        }
    }

    /// The recipients: the partner alone in a conversation of two, all members in a group.
    pub(super) fn recipients(&self, to: &RecordedFor, entry: &NewEntry) -> Arc<[UserId]> {
        match to {
            RecordedFor::Known(Recipients::User(user)) => [*user].into(),
            RecordedFor::Known(Recipients::Group(_, members)) => members.clone(),
            RecordedFor::Conversation => match (entry.conv.group(), entry.conv.users()) {
                (Some(group), _) => self.members(group).unwrap_or_default(),
                (None, Some((low, high))) => [if low == entry.sender { high } else { low }].into(),
                (None, None) => [].into(),
            },
        }
    }
}

/// The weight of a member of a group: one batch notifies about 30,000.
const MEMBER_WEIGHT: usize = 32;
/// The assumed number of members of a group that is not cached, if it exists at all: reading them
/// makes others wait.
const UNKNOWN_MEMBERS: usize = 2048;
