//! The user's own account: 60, 67, 68, 69, and 66.

use std::borrow::Cow;

use super::parts::{AfterReply, Arranged, Arrangements, Asker, ProofVerdict, nonce};
use crate::base::made_by_jwt::{has_mark, with_password};
use crate::devices::entry::WRONG;
use crate::protocol::level2::AccountProof;
use crate::protocol::level2::frames::Refusal;
use crate::protocol::level2::replies;
use crate::protocol::{Id, UserId};
use crate::server::jobs::conversations::TokenEnd;
use crate::server::jobs::logins::changes_all_the_time;
use crate::session::password::PasswordVerdict;
use crate::session::{NAME_MAX, PASSWORD_MAX};
use crate::store::StoreError;
use crate::store::community::{AccountDeletion, BlockOutcome, Community, Deletion, PasswordChange, Swapped};
use crate::store::history::DeviceId;

impl Arrangements {
    /// The stored password of a user, and the latest end of a new token, if the proof is right.
    fn prove(&self, user: UserId, proof: &AccountProof<'_>) -> Result<Option<(String, TokenEnd)>, StoreError> {
        match proof {
            AccountProof::Password(password) => {
                let stored = self.parts.accounts.get()?.credential(user)?;
                let verdict = self.parts.passwords.verify(stored.as_deref(), password);
                Ok(stored.filter(|_| verdict != PasswordVerdict::Wrong).map(|stored| (stored, TokenEnd::AsSet)))
            }
            AccountProof::Jwt(jwt) => {
                let opened = self.parts.jwt.prove(user, jwt)?;
                Ok(opened.map(|opened| (opened.stored, TokenEnd::WithJwt(opened.expires))))
            }
        }
    }

    /// Runs `act` if the proof is right. `act` is repeated if the stored password was replaced
    /// meanwhile, perhaps by an upgrade of the same password.
    fn proven<T>(
        &self,
        user: UserId,
        proof: &AccountProof<'_>,
        act: impl Fn(&str) -> Result<Swapped<T>, StoreError>,
    ) -> Result<Option<(T, TokenEnd)>, StoreError> {
        for _ in 0..PROOFS_MAX {
            let Some((stored, end)) = self.prove(user, proof)? else { return Ok(None) };
            if let Swapped::Done(done) = act(&stored)? {
                return Ok(Some((done, end)));
            }
        }
        Err(changes_all_the_time())
    }

    /// 60.
    pub(super) fn change_password(
        &self,
        community: &dyn Community,
        asker: &Asker,
        proof: &AccountProof<'_>,
        new: &str,
    ) -> Result<Arranged, StoreError> {
        if new.chars().count() > PASSWORD_MAX {
            return Ok(Arranged::of(replies::refused(60, BAD_PASSWORD, asker.rid.as_ref())));
        }
        let (user, kept) = (asker.user, asker.device.as_ref().map(|identity| identity.device));
        let new = if self.parts.accounts.get()?.fits_hashes() {
            Cow::Owned(self.parts.passwords.hash(new).map_err(|error| StoreError::Failed(Box::new(error)))?)
        } else {
            Cow::Borrowed(new)
        };
        let secret = nonce()?;
        let changed = self.proven(user, proof, |old| {
            let new = if has_mark(old) { with_password(old, &new) } else { new.clone().into_owned() };
            let keep = kept.map(|device| (device, secret));
            let change = PasswordChange { user, old: old.to_owned(), new: new.clone(), keep };
            Ok(match community.change_password(&change)? {
                Swapped::Done(forgotten) => Swapped::Done((forgotten, new)),
                Swapped::Stale => Swapped::Stale,
            })
        })?;
        let Some(((forgotten, new), end)) = changed else { return Ok(self.wrong_proof(asker, 60)) };
        self.parts.passwords.forget(user);
        self.parts.stamps.changed(user, self.parts.passwords.stamp(&new), &asker.link);
        self.parts.conversations.revoke(user, &forgotten, None);
        let reply = match kept {
            Some(device) => {
                let (token, expires) = self.parts.conversations.token_of(user, (device, secret), end)?;
                replies::password_changed(&token, expires, asker.rid.as_ref())
            }
            None => replies::done(60, asker.rid.as_ref()),
        };
        Ok(Arranged { proof: Some(ProofVerdict::Right), ..Arranged::of(reply) })
    }

    /// 69.
    pub(super) fn delete_account(
        &self,
        community: &dyn Community,
        asker: &Asker,
        proof: &AccountProof<'_>,
    ) -> Result<Arranged, StoreError> {
        let (user, hooked, nonce) = (asker.user, self.hooked(), nonce()?);
        let deleted = self
            .proven(user, proof, |stored| community.delete_account(&AccountDeletion { user, stored, hooked, nonce }))?;
        let Some((deletion, _)) = deleted else { return Ok(self.wrong_proof(asker, 69)) };
        let own = asker.device.as_ref().map(|identity| identity.device);
        self.account_deleted(user, &deletion, own);
        let reply = replies::done(69, asker.rid.as_ref());
        Ok(Arranged { reply, proof: Some(ProofVerdict::Right), after: AfterReply::End })
    }

    /// Notifies the groups of a deleted account, and ends the connections of its devices except
    /// `own`.
    pub(super) fn account_deleted(&self, user: UserId, deletion: &Deletion, own: Option<DeviceId>) {
        self.parts.passwords.forget(user);
        for left in &deletion.groups {
            self.group_changed(left, None);
        }
        let devices: Vec<DeviceId> = deletion.devices.iter().map(|device| device.id).collect();
        self.parts.conversations.revoke(user, &devices, own);
    }

    fn wrong_proof(&self, asker: &Asker, msg_type: u16) -> Arranged {
        let reply = replies::refused(msg_type, WRONG, asker.rid.as_ref());
        Arranged { proof: Some(ProofVerdict::Wrong), ..Arranged::of(reply) }
    }

    /// Ends all remaining connections of a user whose account is deleted, including the
    /// requester's.
    pub fn log_out(&self, user: UserId) {
        self.parts.stamps.log_out(user);
    }

    /// 67.
    pub(super) fn own_account(
        &self,
        community: &dyn Community,
        asker: &Asker,
        name: Option<&str>,
        receipts: Option<bool>,
    ) -> Result<String, StoreError> {
        let refused = |refusal| replies::refused(67, refusal, asker.rid.as_ref());
        if name.is_some_and(|name| !(1..=NAME_MAX).contains(&name.chars().count())) {
            return Ok(refused(BAD_NAME));
        }
        if let Some(name) = name
            && self.has_fixed_name(community, asker.user, name)?
        {
            return Ok(refused(NAME_OF_JWT));
        }
        let found = match (name, receipts) {
            (None, None) => community.own(asker.user),
            (name, receipts) => community.change_own(asker.user, name, receipts),
        };
        Ok(match found {
            Err(StoreError::NameTaken) => refused(NAME_TAKEN),
            found => match found? {
                Some(own) => replies::account(asker.user, &own.name, own.receipts, asker.rid.as_ref()),
                None => refused(super::groups::NO_SUCH_USER),
            },
        })
    }

    /// Whether a JSON web token has made the account, and so finds it by its name, and `name` is
    /// another one. With a new name, the account would be open to the token of another user.
    fn has_fixed_name(&self, community: &dyn Community, user: UserId, name: &str) -> Result<bool, StoreError> {
        let stored = self.parts.accounts.get()?.credential(user)?;
        if !stored.is_some_and(|stored| has_mark(&stored)) {
            return Ok(false);
        }
        Ok(community.own(user)?.is_some_and(|own| own.name != name))
    }

    /// 68.
    pub(super) fn devices(&self, asker: &Asker, revoke: Option<&str>) -> Result<Arranged, StoreError> {
        let own = asker.device.as_ref().map(|identity| identity.device);
        let (reply, is_own_revoked) =
            self.parts.conversations.list_devices(asker.user, own, revoke, asker.rid.as_ref())?;
        let after = if is_own_revoked { AfterReply::End } else { AfterReply::Nothing };
        Ok(Arranged { after, ..Arranged::of(reply) })
    }

    /// 66.
    pub(super) fn block(
        &self,
        community: &dyn Community,
        user: UserId,
        other: Id,
        block: bool,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let Some(other) = other.user() else { return Ok(Err(super::groups::NO_SUCH_USER)) };
        if other == user {
            return Ok(Err(NOT_YOURSELF));
        }
        let outcome = if block { community.block(user, other)? } else { community.unblock(user, other)? };
        Ok(match outcome {
            BlockOutcome::Done => {
                self.parts.conversations.note_block(user, other, block);
                Ok(())
            }
            BlockOutcome::NoSuchUser => Err(super::groups::NO_SUCH_USER),
            BlockOutcome::TooMany => Err(TOO_MANY_BLOCKED),
        })
    }
}

/// The most attempts. Another node's upgrade replaces a stored password once.
pub(super) const PROOFS_MAX: usize = 3;
const BAD_PASSWORD: Refusal = Refusal::forever(400, "new must have at most 56 characters");
const BAD_NAME: Refusal = Refusal::forever(400, "name must have 1 to 50 characters");
const NAME_TAKEN: Refusal = Refusal::forever(409, "another user has this name");
const NAME_OF_JWT: Refusal = Refusal::forever(403, "the name of this account is that of your JWT and stays");
const NOT_YOURSELF: Refusal = Refusal::forever(400, "you cannot block yourself");
const TOO_MANY_BLOCKED: Refusal = Refusal::forever(403, "you have blocked 1000 users, which is the most");
