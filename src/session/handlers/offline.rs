//! Stored messages: 14 fetch. They are deleted only after the client's kernel has acknowledged the
//! reply.

use std::borrow::Cow;
use std::time::Instant;

use net::Flow;

use crate::protocol::{Id, Request, UserId};
use crate::session::phase::{Awaited, Phase};
use crate::session::{Effect, Effects, Job, MAILBOX_PATIENCE, Session, SessionFacts};
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
        self.phase = Phase::Sending { user, ids: ids.into(), wanted: None };
    }

    pub(crate) fn not_fetched(&mut self, user: UserId, reply: Cow<'static, str>, effects: &mut Effects<'_>) {
        effects.push(Effect::ReleaseMailbox(user));
        effects.push(Effect::Reply(reply));
    }

    pub(crate) fn on_sent(&mut self, effects: &mut Effects<'_>) -> Flow {
        match std::mem::replace(&mut self.phase, Phase::Ready) {
            Phase::Sending { user, ids, .. } => {
                let awaited = Awaited::Deletion(user, u32::try_from(ids.len()).unwrap_or(u32::MAX));
                self.submit(Job::Delete { user, ids: ids.into() }, awaited, effects)
            }
            // The connection broke at the same moment, and the mailbox was released: the messages
            // stay.
            phase => {
                self.phase = phase;
                Flow::Taken
            }
        }
    }

    /// Handles a fetch that takes long: another connection of the user may have fetched and not
    /// read its reply.
    pub(crate) fn on_mailbox_reminder(&mut self, known: &dyn SessionFacts, effects: &mut Effects<'_>) {
        self.reminder_set = false;
        if let Phase::Waiting(Awaited::Messages(user) | Awaited::MoreMessages(user)) = self.phase {
            effects.push(Effect::WantMailbox(user));
            self.remind(effects);
        }
        if let Some(user) = self.more.take() {
            self.fetch_more(user, known, effects);
        }
    }

    fn remind(&mut self, effects: &mut Effects<'_>) {
        if !std::mem::replace(&mut self.reminder_set, true) {
            effects.push(Effect::Remind(MAILBOX_PATIENCE));
        }
    }

    /// Retries messages that could not be fetched, because the client will not request the rest.
    pub(crate) fn fetch_more_later(&mut self, user: UserId, effects: &mut Effects<'_>) {
        effects.push(Effect::ReleaseMailbox(user));
        self.more = Some(user);
        effects.push(Effect::Remind(MAILBOX_PATIENCE));
    }

    /// Fetches more when the client has shown the messages it has received. Its requests meanwhile
    /// go first.
    fn fetch_more(&mut self, user: UserId, known: &dyn SessionFacts, effects: &mut Effects<'_>) {
        let Some(pace) = known.pace().filter(|_| !self.hung_up && self.may_act_as(Id(user.0.into())).is_ok()) else {
            return;
        };
        match self.phase {
            Phase::Ready if self.is_settled() => {
                self.remind(effects);
                self.submit(Job::Fetch { user }, Awaited::MoreMessages(user), effects);
            }
            Phase::Ended => {}
            _ => {
                self.more = Some(user);
                effects.push(Effect::Remind(pace));
            }
        }
    }

    /// Handles a logout while a frame with stored messages is on its way to a paced client. The
    /// answer does not wait for the frame, because the client waits only for the answer, and not
    /// for long.
    pub(crate) fn logout_only(&mut self, frame: &[u8], known: &dyn SessionFacts, effects: &mut Effects<'_>) -> Flow {
        match Request::parse(frame) {
            Ok((kind, Request::Logout { user })) if self.is_settled() => {
                self.note_kind(kind);
                self.logout(user, known, effects)
            }
            Ok(_) | Err(_) => Flow::Later,
        }
    }

    /// Handles that another connection waits. A client that has read almost nothing of its reply
    /// for a while gives way: most likely it has gone, and the other connection belongs to the same
    /// client.
    pub(crate) fn on_mailbox_wanted(&mut self, now: Instant, undelivered: usize, effects: &mut Effects<'_>) -> Flow {
        if let Phase::Sending { wanted, .. } = &mut self.phase {
            match wanted.as_deref() {
                Some((since, _)) if now - *since < MAILBOX_PATIENCE => {}
                Some((_, before)) if is_stuck(*before, undelivered) => effects.push(Effect::HangUp),
                Some(_) | None => *wanted = Some(Box::new((now, undelivered))),
            }
        }
        Flow::Taken
    }

    /// Sends a paced client the next few messages when it has shown the last ones.
    pub(crate) fn deleted(&mut self, user: UserId, count: u32, known: &dyn SessionFacts, effects: &mut Effects<'_>) {
        effects.push(Effect::ReleaseMailbox(user));
        if let Some(pace) = known.pace() {
            // Frames that others have sent meanwhile go first.
            effects.push(Effect::Remind(pace * (count + 1)));
            self.more = Some(user);
        }
    }
}

/// Whether a client has read almost nothing of what it had not received. Reading a byte now and
/// then counts as reading nothing.
fn is_stuck(before: usize, now: usize) -> bool {
    let taken = before.saturating_sub(now);
    taken == 0 || taken < before / PROGRESS_PART
}

/// The part of a full reply (`fetch_max`) that the slowest modem receives within
/// [`MAILBOX_PATIENCE`].
const PROGRESS_PART: usize = 128;
