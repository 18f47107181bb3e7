//! Accounts of users.

use super::recorded::Recorded;
use crate::protocol::UserId;
use crate::store::history::{Device, DeviceId};
use crate::store::hooks::Hooked;

/// The user's view of an account: the name that others see, and the user's own choices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnAccount {
    /// The name.
    pub name: String,
    /// Whether the user shows marks and is shown those of others.
    pub receipts: bool,
}

/// A new password.
#[derive(Clone)]
pub struct PasswordChange {
    /// Its user.
    pub user: UserId,
    /// The stored value against which the old password was checked.
    pub old: String,
    /// The value to be stored.
    pub new: String,
    /// The device to keep, and the new secret of its tokens.
    pub keep: Option<(DeviceId, [u8; 16])>,
}

/// The outcome of a change that requires the stored password to be the one that was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Swapped<T> {
    /// The change is made.
    Done(T),
    /// The password was changed, or the account deleted, after the check.
    Stale,
}

/// A request to delete an account.
#[derive(Clone, Copy)]
pub struct AccountDeletion<'a> {
    /// Its user.
    pub user: UserId,
    /// The stored password against which the proof was checked.
    pub stored: &'a str,
    /// Whether the entries in groups join the queue of the hook.
    pub hooked: Hooked,
    /// Random bytes, the same for a retry of the request.
    pub nonce: [u8; 16],
}

/// The changes made by the deletion of an account.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Deletion {
    /// The entries in the groups that the user has left.
    pub groups: Vec<Recorded>,
    /// The user's devices.
    pub devices: Vec<Device>,
}

/// Leaves out the stored values.
impl std::fmt::Debug for PasswordChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let device = self.keep.map(|(device, _)| device);
        f.debug_struct("PasswordChange").field("user", &self.user).field("keep", &device).finish_non_exhaustive()
    }
}

/// Leaves out the stored value.
impl std::fmt::Debug for AccountDeletion<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccountDeletion")
            .field("user", &self.user)
            .field("hooked", &self.hooked)
            .finish_non_exhaustive()
    }
}
