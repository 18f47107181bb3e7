//! The sends of a member.

use super::Member;
use crate::base::conversation::ConversationName;
use crate::devices::effects::{MemberEffect, MemberEffects, Outgoing};
use crate::devices::refusals::{NO_SUCH_GROUP, NO_SUCH_USER, NOT_YOU};
use crate::protocol::Sender;
use crate::protocol::level2::Send;
use crate::protocol::level2::frames::{self, Refusal};
use crate::store::history::Cid;

impl Member {
    pub(super) fn on_send(&mut self, send: Send<'_>, effects: &mut MemberEffects) {
        let (user, cid) = (self.identity.user, &*send.cid);
        let Some(name) = send.conv else {
            let refusal = if send.msg_type == 9 { NO_SUCH_GROUP } else { NO_SUCH_USER };
            return self.outlet.write(frames::send_refused(Some(cid), refusal).into(), effects);
        };
        let conv = name.for_user(user);
        let is_own = match send.from {
            None => true,
            Some(Sender::Claimed(id)) => id.user() == Some(user),
            Some(Sender::Malformed) => false,
        };
        if !is_own {
            return self.on_bad_send(Some(name), Some(cid), NOT_YOU, effects);
        }
        let Some(stored_cid) = Cid::of_client(cid) else { return };
        let Some(submission) = self.pump.on_send(conv, cid, &mut self.commands) else { return };
        let outgoing = Outgoing::of(&send, conv, submission, stored_cid);
        effects.push(MemberEffect::Send(Box::new(outgoing)));
    }

    pub(super) fn on_bad_send(
        &mut self,
        conv: Option<ConversationName>,
        cid: Option<&str>,
        refusal: Refusal,
        effects: &mut MemberEffects,
    ) {
        match conv {
            Some(name) => {
                let conv = name.for_user(self.identity.user);
                self.pump.on_bad_send(conv, cid, refusal, &mut self.commands);
            }
            None => self.outlet.write(frames::send_refused(cid, refusal).into(), effects),
        }
    }
}
