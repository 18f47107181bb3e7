//! Chat: 4 chat, 5 friend request, 9 group chat, 100 the old alias of 4. On success there is no
//! answer.

use std::borrow::Cow;
use std::sync::Arc;

use net::Flow;

use crate::protocol::level2::RECORDED_MAX;
use crate::protocol::{self, BadRequest, Forward, FrameKind, GroupId, Id, Sender, UserId};
use crate::session::phase::{Awaited, Finding, Phase};
use crate::session::{Effect, Effects, Job, Recipients, Session, SessionFacts, ToRecord, members_at_once};
use crate::store::history::EntryKind;

impl Session {
    pub(crate) fn chat<'f>(
        &mut self,
        from: Option<Sender>,
        to: Id,
        text: Forward<'f>,
        known: &dyn SessionFacts,
        effects: &mut Effects<'f>,
    ) -> Flow {
        let allowed = match from {
            // The reference server ignores the sender.
            _ if self.is_compat() => Ok(()),
            None => self.may_ask(),
            Some(Sender::Claimed(id)) => self.may_act_as(id),
            Some(Sender::Malformed) => Err(protocol::BAD_REQUEST),
        };
        match allowed {
            Ok(()) => self.deliver(from, to, text, known, effects),
            Err(reply) => self.reply(reply, effects),
        }
    }

    pub(crate) fn old_chat<'f>(
        &mut self,
        from: Id,
        to: Result<Id, BadRequest>,
        text: Forward<'f>,
        known: &dyn SessionFacts,
        effects: &mut Effects<'f>,
    ) -> Flow {
        match to {
            _ if !self.is_logged_in() => self.reply(protocol::NO_METHOD, effects),
            _ if !self.is(from) => self.reply(protocol::NOT_YOU, effects),
            Ok(to) => self.deliver(Some(Sender::Claimed(from)), to, text, known, effects),
            Err(BadRequest) => self.reply(protocol::BAD_REQUEST, effects),
        }
    }

    #[inline]
    fn deliver<'f>(
        &mut self,
        from: Option<Sender>,
        to: Id,
        text: Forward<'f>,
        known: &dyn SessionFacts,
        effects: &mut Effects<'f>,
    ) -> Flow {
        let (text, to) = (text.text(), to.user_or_nobody());
        if !known.is_plain() {
            return self.deliver_specially(from, to, text, known, effects);
        }
        let id = self.count_unsettled(text.len());
        effects.push(Effect::Deliver { id, to, text });
        Flow::Taken
    }

    /// Forwards a frame when somebody uses level 2, or has blocked somebody.
    #[inline(never)]
    fn deliver_specially<'f>(
        &mut self,
        from: Option<Sender>,
        to: UserId,
        text: Cow<'f, str>,
        known: &dyn SessionFacts,
        effects: &mut Effects<'f>,
    ) -> Flow {
        let sender = self.sender(from);
        if known.is_blocked(sender, to) {
            return self.reply(protocol::BLOCKED, effects);
        }
        let recorded_by = sender.filter(|_| known.is_recorded(sender, to));
        if recorded_by.is_some() && text.len() > RECORDED_MAX {
            return self.reply(protocol::TOO_LONG_TO_RECORD, effects);
        }
        let id = self.count_unsettled(text.len());
        let is_request = self.frame_kind == FrameKind::FRIEND_REQUEST;
        match recorded_by {
            Some(sender) => {
                let kind = if is_request { EntryKind::Other } else { EntryKind::Message };
                let to = Recipients::User(to);
                effects.push(Effect::Record(Box::new(ToRecord { id, sender, to, kind, text })));
            }
            None => {
                if let Some(from) = sender.filter(|_| is_request && known.notes_requests()) {
                    effects.push(Effect::NoteRequest { from, to });
                }
                effects.push(Effect::Deliver { id, to, text });
            }
        }
        Flow::Taken
    }

    /// The sender shown to others: a user whom the client is logged in as.
    fn sender(&self, from: Option<Sender>) -> Option<UserId> {
        match from {
            Some(Sender::Claimed(id)) if self.is(id) => id.user(),
            Some(_) | None => self.user(),
        }
    }

    pub(crate) fn group_chat<'f>(
        &mut self,
        from: Id,
        group: Id,
        text: Forward<'f>,
        known: &dyn SessionFacts,
        effects: &mut Effects<'f>,
    ) -> Flow {
        if let Err(reply) = self.may_act_as(from) {
            return self.reply(reply, effects);
        }
        let (sender, group) = (from.user_or_nobody(), group.group_or_none());
        match self.members(group, sender, known, effects) {
            GroupMembers::Unknown => Flow::Later,
            GroupMembers::Refused(reply) => {
                let flow = self.reply(reply.clone(), effects);
                if flow == Flow::Later {
                    self.found = Some(Box::new(Finding::Refusal(reply)));
                }
                flow
            }
            // The group does not exist.
            GroupMembers::Known(members) if members.is_empty() => Flow::Taken,
            GroupMembers::Known(members) if members.binary_search(&sender).is_err() && !self.is_compat() => {
                self.reply(protocol::NOT_A_MEMBER, effects)
            }
            GroupMembers::Known(members) => {
                let text = text.text();
                let is_recorded = known.is_recorded_for(&members) && self.is(from);
                if is_recorded && text.len() > RECORDED_MAX {
                    return self.reply(protocol::TOO_LONG_TO_RECORD, effects);
                }
                let id = self.count_unsettled(text.len());
                if is_recorded {
                    let (to, kind) = (Recipients::Group(group, members), EntryKind::Message);
                    effects.push(Effect::Record(Box::new(ToRecord { id, sender, to, kind, text })));
                    return Flow::Taken;
                }
                if members.len() > members_at_once(text.len()) {
                    self.phase = Phase::Spreading;
                }
                effects.push(Effect::DeliverAll { id, group, to: members, except: sender, text });
                Flow::Taken
            }
        }
    }

    /// The members of a group: cached, read while the frame waited, or to be read while it keeps
    /// waiting.
    fn members(
        &mut self,
        group: GroupId,
        sender: UserId,
        known: &dyn SessionFacts,
        effects: &mut Effects<'_>,
    ) -> GroupMembers {
        match self.found.take().map(|found| *found) {
            Some(Finding::Members(found, members)) if found == group => return GroupMembers::Known(members),
            Some(Finding::Refusal(reply)) => return GroupMembers::Refused(reply),
            Some(Finding::Members(..)) | None => {}
        }
        let is_plausible = |members: &Arc<[UserId]>| {
            members.binary_search(&sender).is_ok() || self.is_compat() || !known.groups_change_elsewhere()
        };
        if let Some(members) = known.members(group).filter(is_plausible) {
            return GroupMembers::Known(members);
        }
        if !self.is_compat() && known.is_stranger(sender, group) {
            return GroupMembers::Refused(protocol::NOT_A_MEMBER.into());
        }
        let job = Job::Members { group, sender: (!self.is_compat()).then_some(sender) };
        self.submit(job, Awaited::Members(group), effects);
        GroupMembers::Unknown
    }
}

enum GroupMembers {
    Known(Arc<[UserId]>),
    Unknown,
    Refused(Cow<'static, str>),
}
