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
    /// The number of the login that was written last: a later login has a higher one.
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
    /// What the client has proved. Nothing is written unless it still holds.
    pub proof: LoginProof,
    /// A random number, by which an attempt whose answer was lost is known again.
    pub nonce: u32,
    /// The secret of a device that is new: random bytes.
    pub secret: [u8; 16],
    /// The most devices of a user; at least 1.
    pub devices_max: usize,
}

/// What a client has proved, as the database has it.
#[derive(Clone)]
pub enum LoginProof {
    /// The user's password: the stored value that it was checked against.
    Password(String),
    /// A token of this device: the secret that it was made with.
    Token(DeviceId, [u8; 16]),
}

/// Without secrets.
impl std::fmt::Debug for LoginProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LoginProof::Password(_) => "Password",
            LoginProof::Token(..) => "Token",
        })
    }
}

impl DeviceLogin {
    /// The number of this login, of a device whose last login has the number `before`. The lower bits
    /// are random.
    pub(in crate::store) fn number_after(&self, before: i64) -> i64 {
        ((before >> NONCE_BITS) + 1) << NONCE_BITS | i64::from(self.nonce) & ((1 << NONCE_BITS) - 1)
    }
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

const NONCE_BITS: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_login_has_a_higher_number_whatever_is_random_in_it() {
        let proof = LoginProof::Password("secret".to_owned());
        let login = |nonce| DeviceLogin {
            user: UserId(1),
            name: "d".to_owned(),
            proof: proof.clone(),
            nonce,
            secret: [0; 16],
            devices_max: 1,
        };
        let first = login(u32::MAX).number_after(0);
        let second = login(0).number_after(first);
        assert!(0 < first && first < second && second < login(7).number_after(second));
        assert_ne!(login(1).number_after(first), login(2).number_after(first));
        assert!(!format!("{:?}", login(1)).contains("secret\""), "no password in a log");
    }
}
