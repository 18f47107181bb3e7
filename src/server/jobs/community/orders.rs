//! Administrators' orders, which change other users' accounts and groups and need no proof.
//!
//! A group is changed in the name of its creator, because the event (57) names a user. If there is
//! no creator, the event names a member.

use super::accounts::PROOFS_MAX;
use super::parts::{Arrangements, nonce};
use crate::base::disabled::{disabled, enabled, is_disabled};
use crate::base::made_by_jwt::has_mark;
use crate::bus::DeviceNews;
use crate::protocol::{GroupId, UserId};
use crate::server::jobs::conversations::Visitor;
use crate::server::jobs::logins::changes_all_the_time;
use crate::session::password::is_plain;
use crate::store::StoreError;
use crate::store::community::{
    AccountDeletion, Deed, GroupAct, GroupChanged, GroupMember, GroupRefusal, GroupRole, PasswordChange, Right, Swapped,
};
use crate::store::history::{DeviceId, History};

/// The outcome of an order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ordered<T> {
    /// It is done.
    Done(T),
    /// There is no such user, or the user has no password and so cannot log in.
    NoSuchUser,
    /// The tables lack the necessary parts.
    NotThere,
    /// A JSON web token has made the account.
    MadeByJwt,
}

/// A change of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupOrder {
    /// A member is removed.
    Remove(UserId),
    /// A member becomes the creator.
    Transfer(UserId),
    /// The group is dissolved.
    Dissolve,
}

/// A stored password, before and after the change.
struct Replaced {
    is_changed: bool,
    forgotten: Vec<DeviceId>,
}

impl Arrangements {
    /// Gives a user another password, and logs the user out everywhere. A disabled account stays
    /// disabled. If a JSON web token has made the account, only its user can set a password.
    /// Blocks.
    ///
    /// # Errors
    /// Those of the store.
    pub fn set_password(&self, user: UserId, new: &str) -> Result<Ordered<()>, StoreError> {
        let new = match self.parts.accounts.get()?.fits_hashes() {
            true => self.hashed(new)?,
            false => new.to_owned(),
        };
        let stored = self.parts.accounts.get()?.credential(user)?;
        if stored.is_some_and(|stored| has_mark(&stored)) {
            return Ok(Ordered::MadeByJwt);
        }
        let change = |old: &str| Ok(if is_disabled(old) { disabled(&new) } else { new.clone() });
        let Some(replaced) = self.replace_stored(user, change)? else { return Ok(Ordered::NoSuchUser) };
        self.end_everything(user, &replaced.forgotten);
        Ok(Ordered::Done(()))
    }

    /// Disables or enables an account, and logs the user out everywhere unless it was already
    /// enabled. Returns whether the account was changed. Blocks.
    ///
    /// # Errors
    /// Those of the store.
    pub fn set_disabled(&self, user: UserId, is_to_be: bool) -> Result<Ordered<bool>, StoreError> {
        if !self.parts.accounts.get()?.fits_hashes() {
            return Ok(Ordered::NotThere);
        }
        let change = |old: &str| match is_to_be {
            // The stored value must not reveal the password either.
            true if is_plain(old) => self.hashed(old).map(|hash| disabled(&hash)),
            true => Ok(disabled(old)),
            false => Ok(enabled(old)),
        };
        let Some(replaced) = self.replace_stored(user, change)? else { return Ok(Ordered::NoSuchUser) };
        // A repeated order to disable an account completes one that failed half-way.
        if replaced.is_changed || is_to_be {
            self.end_everything(user, &replaced.forgotten);
        }
        Ok(Ordered::Done(replaced.is_changed))
    }

    /// Logs a user out everywhere: all tokens and all connections end, on every node. Blocks.
    ///
    /// # Errors
    /// Those of the store.
    pub fn log_out_everywhere(&self, user: UserId) -> Result<Ordered<usize>, StoreError> {
        if self.parts.accounts.get()?.user(user)?.is_none() {
            return Ok(Ordered::NoSuchUser);
        }
        let forgotten = self.parts.conversations.forget_all(user)?;
        self.end_everything(user, &forgotten);
        Ok(Ordered::Done(forgotten.len()))
    }

    /// Deletes an account, as its user can. Blocks.
    ///
    /// # Errors
    /// Those of the store.
    pub fn delete(&self, user: UserId) -> Result<Ordered<()>, StoreError> {
        let Some(community) = self.parts.community.get()? else { return Ok(Ordered::NotThere) };
        let (hooked, nonce) = (self.hooked(), nonce()?);
        for _ in 0..PROOFS_MAX {
            let Some(stored) = self.parts.accounts.get()?.credential(user)? else {
                // This may be the repeat of an order whose result was lost.
                self.end_everything(user, &[]);
                return Ok(Ordered::NoSuchUser);
            };
            let request = AccountDeletion { user, stored: &stored, hooked, nonce };
            if let Swapped::Done(deletion) = community.delete_account(&request)? {
                self.account_deleted(user, &deletion, None);
                self.end_everything(user, &[]);
                return Ok(Ordered::Done(()));
            }
        }
        Err(changes_all_the_time())
    }

    /// A token that does not expire, for a device of a user. A new device of this name is made, or
    /// an existing one loses its tokens. `None` if the account is disabled. Blocks.
    ///
    /// # Errors
    /// Those of the store.
    pub fn lasting_token(&self, user: UserId, device: &str) -> Result<Ordered<Option<String>>, StoreError> {
        if self.parts.conversations.are_there().is_err() {
            return Ok(Ordered::NotThere);
        }
        let accounts = self.parts.accounts.get()?;
        let (Some(account), Some(stored)) = (accounts.user(user)?, accounts.credential(user)?) else {
            return Ok(Ordered::NoSuchUser);
        };
        if is_disabled(&stored) {
            return Ok(Ordered::Done(None));
        }
        let visitor = Visitor { device: device.into(), ping: 60, rid: None };
        let token = self.parts.conversations.lasting_token(&account, self.parts.passwords.stamp(&stored), &visitor)?;
        Ok(Ordered::Done(token))
    }

    /// Logs out one device of a user: its connections end and its tokens become invalid. `false` if
    /// there is no device of this name. Blocks.
    ///
    /// # Errors
    /// Those of the store.
    pub fn log_out_device(&self, user: UserId, device: &str) -> Result<Ordered<bool>, StoreError> {
        if self.parts.accounts.get()?.user(user)?.is_none() {
            return Ok(Ordered::NoSuchUser);
        }
        self.parts.conversations.forget_named(user, device).map(Ordered::Done)
    }

    /// The names of a user's devices, and when each was last seen. Blocks.
    ///
    /// # Errors
    /// Those of the store.
    pub fn devices_of(&self, user: UserId) -> Result<Vec<(String, i64)>, StoreError> {
        self.parts.conversations.devices_of(user)
    }

    /// At most `limit` logged-in users with ids above `after`, on any node, by ascending id.
    /// Blocks.
    ///
    /// # Errors
    /// Those of the store.
    pub fn logged_in_after(&self, after: UserId, limit: usize) -> Result<Vec<UserId>, StoreError> {
        self.parts.conversations.online_after(after, limit)
    }

    /// The conversations in the database, if its tables have any.
    ///
    /// # Errors
    /// Those of the store.
    pub(in crate::server::jobs) fn history(&self) -> Result<Option<&dyn History>, StoreError> {
        self.parts.conversations.stored()
    }

    /// The members of a group, for an administrator; none if there is no such group. Blocks.
    ///
    /// # Errors
    /// Those of the store.
    pub fn members_for_order(&self, group: GroupId, ids: &[UserId]) -> Result<Vec<GroupMember>, StoreError> {
        let (Some(community), Some(first)) = (self.parts.community.get()?, ids.first()) else { return Ok(Vec::new()) };
        Ok(community.members_of(group, *first)?.unwrap_or_default())
    }

    /// Changes a group with these members. Blocks.
    ///
    /// # Errors
    /// Those of the store.
    pub fn order_group(
        &self,
        group: GroupId,
        ids: &[UserId],
        order: GroupOrder,
    ) -> Result<Ordered<Result<(), GroupRefusal>>, StoreError> {
        let Some(community) = self.parts.community.get()? else { return Ok(Ordered::NotThere) };
        let by = in_whose_name(&self.members_for_order(group, ids)?);
        let deed = match order {
            GroupOrder::Remove(user) => Deed::Remove(user),
            GroupOrder::Transfer(user) => Deed::Transfer(user),
            GroupOrder::Dissolve => Deed::Dissolve,
        };
        let outcome = community.act(&GroupAct {
            group,
            by,
            right: Right::Administrator,
            deed,
            hooked: self.hooked(),
            nonce: nonce()?,
        })?;
        match &outcome {
            Ok(GroupChanged { recorded: Some(recorded), .. }) => self.group_changed(recorded, None),
            // Without an event, for example because there was no member to see one.
            Ok(_) => {
                self.parts.groups.changed(group);
                self.parts.bus.group_changed(group);
            }
            Err(_) => {}
        }
        Ok(Ordered::Done(outcome.map(drop)))
    }

    fn hashed(&self, password: &str) -> Result<String, StoreError> {
        self.parts.passwords.hash(password).map_err(|error| StoreError::Failed(Box::new(error)))
    }

    /// Replaces a stored password, which forgets all devices. `None` if there is no such user.
    fn replace_stored(
        &self,
        user: UserId,
        change: impl Fn(&str) -> Result<String, StoreError>,
    ) -> Result<Option<Replaced>, StoreError> {
        let accounts = self.parts.accounts.get()?;
        for _ in 0..PROOFS_MAX {
            let Some(old) = accounts.credential(user)? else { return Ok(None) };
            let new = change(&old)?;
            if new == old {
                return Ok(Some(Replaced { is_changed: false, forgotten: Vec::new() }));
            }
            let Some(community) = self.parts.community.get()? else {
                accounts.replace_credential(user, &old, &new)?;
                if accounts.credential(user)?.as_ref() == Some(&new) {
                    return Ok(Some(Replaced { is_changed: true, forgotten: Vec::new() }));
                }
                continue;
            };
            if let Swapped::Done(forgotten) =
                community.change_password(&PasswordChange { user, old, new, keep: None })?
            {
                return Ok(Some(Replaced { is_changed: true, forgotten }));
            }
        }
        Err(changes_all_the_time())
    }

    /// Ends all connections of a user on every node, and makes every node forget the remembered
    /// password.
    fn end_everything(&self, user: UserId, forgotten: &[DeviceId]) {
        self.parts.passwords.forget(user);
        self.parts.conversations.revoke(user, forgotten, None);
        self.parts.stamps.log_out(user);
        if !self.parts.bus.is_alone() {
            self.parts.bus.tell_devices(&[DeviceNews::LoggedOut(user)]);
        }
    }
}

/// The creator. If there is none, a member, preferably one who has an account; nobody if there are
/// no members.
fn in_whose_name(members: &[GroupMember]) -> UserId {
    let creator = members.iter().find(|member| member.role == GroupRole::Creator);
    let found = creator.or_else(|| members.iter().find(|member| member.name.is_some())).or(members.first());
    found.map_or(UserId(0), |member| member.user)
}
