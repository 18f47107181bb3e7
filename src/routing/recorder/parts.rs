//! [`RecorderParts`]: what the lanes work with.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashSet;

use super::recording::{RECORDING_BYTES, RecordedFor, Recording};
use crate::base::clock::Clock;
use crate::bus::Exchange;
use crate::metrics::Metrics;
use crate::protocol::{GroupId, UserId};
use crate::routing::audience::Audience;
use crate::routing::groups::GroupCache;
use crate::routing::level1_seen::Level1Seen;
use crate::routing::router::{Keeps, Router};
use crate::session::Recipients;
use crate::store::history::{HistoryRole, NewEntry};
use crate::store::outages::Outages;
use crate::store::{Contacts, Role, StoreError};

/// The parts that it uses.
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
    /// How long after its time a message may be edited or recalled.
    pub edit_window: Duration,
    /// The counters.
    pub metrics: Arc<Metrics>,
}

impl RecorderParts {
    /// Whether a recorded message waits for a user whom no connection of level 1 takes here. One who
    /// uses both levels finds it at either; in a cluster another node may have the connection.
    pub(super) fn keeps(&self, user: UserId) -> Keeps {
        let is_here = || self.router.is_alone() && !self.router.attendance().devices(user, |_| true).is_empty();
        let has_it = self.audience.has(user) && (is_here() || !self.level1_seen.uses(user));
        if has_it { Keeps::No } else { Keeps::Yes }
    }

    /// Reads at once who of the recipients still uses level 1.
    pub(super) fn learn_who_uses_level1<'p>(&self, entries: &[NewEntry], to: impl Iterator<Item = &'p RecordedFor>) {
        let mut users = FxHashSet::default();
        for (entry, to) in entries.iter().zip(to) {
            users.extend(self.recipients(to, entry).iter().filter(|user| self.audience.has(**user)));
        }
        self.level1_seen.learn(users);
    }

    /// What a message weighs in its lane: its text, and those whom it is handed to.
    pub(super) fn weight(&self, recording: &Recording) -> usize {
        let members = match (&recording.to, recording.entry.conv.group()) {
            (RecordedFor::Known(Recipients::Group(_, members)), _) => members.len(),
            (RecordedFor::Conversation, Some(group)) => self.groups.size(group).unwrap_or(UNKNOWN_MEMBERS),
            (RecordedFor::Known(Recipients::User(_)), _) | (RecordedFor::Conversation, None) => 1,
        };
        recording.entry.text.len() + RECORDING_BYTES + members * MEMBER_WEIGHT
    }

    /// Those who are shown a committed message: the members of a group as they are now. Somebody may
    /// have joined while it was committed, and hears of it from nobody else.
    pub(super) fn shown_to(&self, entry: &NewEntry, recipients: &Arc<[UserId]>) -> Arc<[UserId]> {
        let now = entry.conv.group().and_then(|group| self.members(group).ok());
        now.unwrap_or_else(|| recipients.clone())
    }

    /// The members of a group: as far as they are cached or can be read.
    pub(super) fn members(&self, group: GroupId) -> Result<Arc<[UserId]>, StoreError> {
        let now = self.clock.now();
        match self.groups.members(group, now) {
            Some(members) => Ok(members),
            None => self.groups.load(group, now, self.contacts.get()?),
        }
    }

    /// Reads at once the members of those groups of a batch that are not cached. What cannot be read
    /// is tried again by itself.
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

    /// The recipients: of a conversation of two the partner alone, of a group all members.
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

/// What a member of a group weighs: some 30,000 are told of one batch.
const MEMBER_WEIGHT: usize = 32;
/// The members of a group that is not cached, if it is there at all: they are read while others wait.
const UNKNOWN_MEMBERS: usize = 2048;
