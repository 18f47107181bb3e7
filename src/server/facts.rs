//! [`Facts`]: the facts that the sessions of a loop may read at once, without querying the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dispatch::begin_pace;
use super::wiring::ServerParts;
use crate::admission::Source;
use crate::delivery::ClientLink;
use crate::metrics::LoginOutcome;
use crate::protocol::{GroupId, Id, UserId};
use crate::session::password::Forgotten;
use crate::session::{STATE_PATIENCE, SessionFacts};

/// The facts that the sessions of a loop may query without blocking.
pub(super) struct Facts<'a> {
    pub(super) shared: &'a ServerParts,
    pub(super) link: &'a ClientLink,
    pub(super) source: Source,
    pub(super) now: Instant,
}

impl SessionFacts for Facts<'_> {
    fn members(&self, group: GroupId) -> Option<Arc<[UserId]>> {
        self.shared.groups.members(group, self.now)
    }

    fn is_stranger(&self, user: UserId, group: GroupId) -> bool {
        self.shared.groups.is_stranger(user, group, self.now)
    }

    fn groups_change_elsewhere(&self) -> bool {
        self.shared.groups.may_be_stale()
    }

    fn is_plain(&self) -> bool {
        self.shared.audience.is_empty() && self.shared.blocks.is_empty()
    }

    fn notes_requests(&self) -> bool {
        self.shared.jobs.arrangements.notes_requests()
    }

    fn is_blocked(&self, sender: Option<UserId>, to: UserId) -> bool {
        sender.is_some_and(|sender| self.shared.blocks.has(to, sender))
    }

    fn is_recorded(&self, sender: Option<UserId>, to: UserId) -> bool {
        sender.is_some_and(|sender| self.shared.audience.records(sender, to))
    }

    fn is_recorded_for(&self, members: &[UserId]) -> bool {
        self.shared.audience.records_for(members)
    }

    fn has_level2(&self) -> bool {
        self.shared.jobs.arrangements.are_there()
    }

    fn login_wait(&self, id: Id) -> Option<u32> {
        let wait = self.shared.admission.login_wait(id, self.source, self.now);
        if wait.is_some() {
            self.shared.metrics.login(LoginOutcome::Delayed);
        }
        wait
    }

    fn recognises(&self, user: UserId, password: &str) -> Option<Forgotten> {
        let recognised = self.shared.jobs.logins.passwords.recognises(user, password, self.now);
        if let Some(right) = recognised {
            self.shared.jobs.logins.stamps.remembered(user, right.stamp);
            begin_pace(self.shared.dispatch.paced, right.client, self.link);
            self.shared.metrics.login(LoginOutcome::Remembered);
            self.shared.admission.recognised(Id(user.0.into()), self.source);
        }
        recognised.map(|right| right.forgotten)
    }

    fn is_connected(&self, user: UserId) -> bool {
        self.shared.router.attendance().is_connected(user)
    }

    fn is_here(&self, user: UserId) -> bool {
        self.shared.router.attendance().is_here(user)
    }

    fn pace(&self) -> Option<Duration> {
        self.link.is_paced().then_some(self.shared.pace)
    }

    fn shown_by(&self) -> Option<Instant> {
        self.shared.reference_nodes.has_neighbours().then(|| self.now + STATE_PATIENCE)
    }
}
