//! Kept messages: 14 fetch. They are deleted when the peer's kernel has acknowledged the reply that holds them, and not before.

use std::time::Instant;

use net::Flow;

use crate::protocol::{Id, UserId};
use crate::session::{Awaited, Effect, Effects, Job, MAILBOX_PATIENCE, Phase, Session};
use crate::store::MessageId;

impl Session {
    pub(crate) fn fetch(&mut self, id: Id, effects: &mut Effects<'_>) -> Flow {
        if let Err(reply) = self.may_act_as(id) {
            return self.reply(reply, effects);
        }
        let user = id.user_or_nobody();
        self.remind(effects);
        self.submit(Job::Fetch { user }, Awaited::Messages(user), effects)
    }

    pub(crate) fn fetched(&mut self, user: UserId, reply: String, ids: Vec<MessageId>, effects: &mut Effects<'_>) {
        if ids.is_empty() || self.hung_up {
            effects.push(Effect::ReleaseMailbox(user));
            effects.push(Effect::Reply(reply.into()));
            return;
        }
        effects.push(Effect::ReplyAndReport(reply));
        self.phase = Phase::Sending { user, ids, wanted: None };
    }

    pub(crate) fn not_fetched(&mut self, user: UserId, reply: &'static str, effects: &mut Effects<'_>) {
        effects.push(Effect::ReleaseMailbox(user));
        effects.push(Effect::Reply(reply.into()));
    }

    pub(crate) fn on_sent(&mut self, effects: &mut Effects<'_>) -> Flow {
        match std::mem::replace(&mut self.phase, Phase::Ready) {
            Phase::Sending { user, ids, .. } => {
                self.submit(Job::Delete { user, ids }, Awaited::Deletion(user), effects)
            }
            // The connection broke in the same moment, and the mailbox was released: they stay.
            phase => {
                self.phase = phase;
                Flow::Taken
            }
        }
    }

    /// A fetch takes long: perhaps another connection of the user has fetched and does not read its reply.
    pub(crate) fn on_reminder(&mut self, effects: &mut Effects<'_>) -> Flow {
        self.reminder_set = false;
        if let Phase::Waiting(Awaited::Messages(user)) = self.phase {
            effects.push(Effect::WantMailbox(user));
            self.remind(effects);
        }
        Flow::Taken
    }

    fn remind(&mut self, effects: &mut Effects<'_>) {
        if !std::mem::replace(&mut self.reminder_set, true) {
            effects.push(Effect::Remind);
        }
    }

    /// Another connection waits. A client that has taken nothing of its reply for a while gives way: most likely it is gone,
    /// and the other one is the same client, connected again.
    pub(crate) fn on_mailbox_wanted(&mut self, now: Instant, undelivered: usize, effects: &mut Effects<'_>) -> Flow {
        if let Phase::Sending { wanted, .. } = &mut self.phase {
            match *wanted {
                Some((since, _)) if now - since < MAILBOX_PATIENCE => {}
                Some((_, before)) if undelivered >= before => effects.push(Effect::HangUp),
                Some(_) | None => *wanted = Some((now, undelivered)),
            }
        }
        Flow::Taken
    }

    pub(crate) fn deleted(&mut self, user: UserId, effects: &mut Effects<'_>) {
        effects.push(Effect::ReleaseMailbox(user));
    }
}
