//! [`Arrangements`]: carries out 60 to 69, and the requests of level 1 that change groups and
//! friendships, if the tables have level 2.
//!
//! `accounts` handles the user's own account, `groups` groups and friends. `orders` carries out
//! administrators' orders, which concern any account. `telling` shows connections what was
//! recorded.

mod accounts;
mod groups;
mod orders;
mod parts;
mod telling;

pub use self::orders::{GroupOrder, Ordered};
pub use self::parts::{
    AfterReply, Arranged, ArrangementParts, Arrangements, Asker, CommunityRules, GroupDoor, ProofVerdict, refused,
};
use super::conversations::refusal_of;
use crate::protocol::level2::{Account, replies};
use crate::store::StoreError;

impl Arrangements {
    /// Carries out the request, and composes the reply. Blocks.
    pub fn run(&self, asker: &Asker, request: &Account<'_>) -> Arranged {
        let done = self.try_run(asker, request);
        self.parts.outages.note("arranging accounts and groups", done.as_ref().err());
        done.unwrap_or_else(|error| Arranged::of(refused(asker, request, refusal_of(&error))))
    }

    fn try_run(&self, asker: &Asker, request: &Account<'_>) -> Result<Arranged, StoreError> {
        let community = self.community()?;
        let rid = asker.rid.as_ref();
        match request {
            Account::ChangePassword { proof, new } => self.change_password(community, asker, proof, new),
            Account::Delete { proof } => self.delete_account(community, asker, proof),
            Account::Own { name, receipts } => {
                self.own_account(community, asker, name.as_deref(), *receipts).map(Arranged::of)
            }
            Account::Devices { revoke } => self.devices(asker, revoke.as_deref()),
            Account::Block { user, block } => {
                let done = self.block(community, asker.user, *user, *block)?;
                Ok(Arranged::of(
                    done.map_or_else(|refusal| refused(asker, request, refusal), |()| replies::done(66, rid)),
                ))
            }
            Account::Blocked => Ok(Arranged::of(replies::blocked(&community.blocked_by(asker.user)?, rid))),
            Account::Members { group } => {
                let members = self.members(community, asker.user, *group)?;
                // At level 1 a reply is one frame, however long.
                let bytes_max = if asker.device.is_some() { replies::MEMBERS_BYTES } else { usize::MAX };
                let reply = |list: Vec<_>| replies::members(&list, bytes_max, rid);
                Ok(Arranged::of(members.map_or_else(|refusal| refused(asker, request, refusal), reply)))
            }
            Account::Leave { .. } | Account::Member { .. } | Account::ChangeGroup { .. } | Account::Dissolve { .. } => {
                let done = self.change_group(community, asker.user, request)?;
                let reply = |()| replies::done(request.msg_type(), rid);
                Ok(Arranged::of(done.map_or_else(|refusal| refused(asker, request, refusal), reply)))
            }
        }
    }
}
