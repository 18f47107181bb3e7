//! The logout of a member.

use std::time::{Duration, Instant};

use super::Member;
use crate::devices::effects::{MemberEffect, MemberEffects};
use crate::devices::in_turn::Does;
use crate::devices::stage::Stage;
use crate::devices::tasks::MemberTask;
use crate::history::answers::Ticket;
use crate::protocol::level2::Rid;
use crate::protocol::level2::replies::Reason;

impl Member {
    /// Logs the device out when the turn of this 3 comes.
    pub(super) fn on_log_out(&mut self, rid: Option<Rid>, effects: &mut MemberEffects) {
        let ticket = self.replies.open();
        self.logout = Some(ticket);
        self.do_in_turn(ticket, Does::Change, MemberTask::LogOut(ticket, rid), effects);
    }

    /// Whether a 3 waits for its reply, or has succeeded. Nothing is read meanwhile, so nothing
    /// behind the 3 can be waiting when it succeeds.
    pub(super) fn is_logging_out(&self) -> bool {
        matches!(self.stage, Stage::LoggedOut(_)) || self.logout.is_some_and(|ticket| !self.replies.has_left(ticket))
    }

    /// Answers the 3: the device is logged out.
    pub(super) fn on_logged_out(&mut self, ticket: Ticket, text: String, now: Instant, effects: &mut MemberEffects) {
        self.stage = Stage::LoggedOut(now + LOGS_OUT_WITHIN);
        effects.push(MemberEffect::Remind(LOGS_OUT_WITHIN));
        self.settle(ticket, text, effects);
    }

    /// Ends the connection on behalf of others. A revocation during a logout is ignored: its cause
    /// may be the logout itself, which must not cost the sends before it their 41s. If the logout
    /// fails, the next sweep finds a device that was revoked.
    pub(super) fn on_end(&mut self, reason: Reason, effects: &mut MemberEffects) {
        let is_at_work = self.logout.is_some_and(|ticket| self.tasks.is_under_way(ticket));
        let logs_out = is_at_work || matches!(self.stage, Stage::LoggedOut(_));
        if !(reason == Reason::Revoked && logs_out) {
            self.end(reason, effects);
        }
    }

    /// Ends the connection after a logout, when every send has its 41.
    pub(super) fn end_after_logout(&mut self, effects: &mut MemberEffects) {
        if matches!(self.stage, Stage::LoggedOut(_)) && self.pump.open_sends() == 0 {
            self.end(Reason::Logout, effects);
        }
    }
}

/// How long a logout waits for the 41s of the sends before it.
pub(super) const LOGS_OUT_WITHIN: Duration = Duration::from_secs(5);
