//! Accounts of users.

use super::recorded::Recorded;
use crate::protocol::UserId;
use crate::store::history::{Device, DeviceId};

/// What others see of a user, and what the user sees of others.
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
    /// The device that goes on, and the new secret of its tokens.
    pub keep: Option<(DeviceId, [u8; 16])>,
}

/// The outcome of a change that is made only where the stored password is still the one that was
/// checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Swapped<T> {
    /// It is made.
    Done(T),
    /// The password was changed meanwhile, or the account deleted.
    Stale,
}

/// What the deletion of an account has changed.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Deletion {
    /// In the groups that the user has left.
    pub groups: Vec<Recorded>,
    /// The user's devices.
    pub devices: Vec<Device>,
}

/// Without the stored values.
impl std::fmt::Debug for PasswordChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let device = self.keep.map(|(device, _)| device);
        f.debug_struct("PasswordChange").field("user", &self.user).field("keep", &device).finish_non_exhaustive()
    }
}
