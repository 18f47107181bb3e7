//! The devices of users of level 2.

use crate::protocol::UserId;

/// The key of a device. It is never given again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DeviceId(pub i64);

/// A device of a user, which has logged in at level 2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its key.
    pub id: DeviceId,
    /// Its user.
    pub user: UserId,
    /// The client's name of it.
    pub name: String,
    /// The login that was written last.
    pub login: i64,
    /// What its tokens are made with.
    pub secret: [u8; 16],
    /// When it was last seen, ms.
    pub seen: i64,
}

/// A login of a device.
#[derive(Clone, Debug)]
pub struct DeviceLogin {
    /// Its user.
    pub user: UserId,
    /// The client's name of the device: 1 to 64 ASCII characters.
    pub name: String,
    /// A random number.
    pub login: i64,
    /// The secret of a device that is new: random bytes.
    pub secret: [u8; 16],
    /// The most devices of a user; at least 1.
    pub devices_max: usize,
}

/// A device that is logged in, and those that had to go for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoggedIn {
    /// The device, with the new login.
    pub device: Device,
    /// The login before, if the device was known.
    pub replaced: Option<i64>,
    /// Devices that were seen least recently, and are gone now with their cursors.
    pub forgotten: Vec<Device>,
}
