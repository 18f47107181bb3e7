//! The devices of users of level 2.

use crate::protocol::UserId;

/// The key of a device, which is never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DeviceId(pub i64);

/// A device of a user, which has logged in at level 2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its key.
    pub id: DeviceId,
    /// Its user.
    pub user: UserId,
    /// The client's name for it.
    pub name: String,
    /// The number of its last login. Later logins have higher ones.
    pub login: i64,
    /// The key of its tokens.
    pub secret: [u8; 16],
    /// The time when it was last seen, ms.
    pub seen: i64,
}

/// A login of a device.
#[derive(Clone, Debug)]
pub struct NewDeviceLogin {
    /// Its user.
    pub user: UserId,
    /// The client's name of the device: 1 to 64 ASCII characters.
    pub name: String,
    /// The proof of the client. Nothing is written unless it is still valid.
    pub proof: LoginProof,
    /// A random number that identifies a retry after a lost answer.
    pub nonce: u32,
    /// The secret for a new device: random bytes.
    pub secret: [u8; 16],
    /// Whether a known device gets this secret as well, which invalidates all its tokens.
    pub renews_secret: bool,
    /// The most devices of a user; at least 1.
    pub devices_max: usize,
}

/// The proof of a client, as the database has it.
#[derive(Clone)]
pub enum LoginProof {
    /// The user's password: the stored value that it was checked against.
    Password(String),
    /// A token of this device: the secret that it was made with.
    Token(DeviceId, [u8; 16]),
}

/// Leaves out secrets.
impl std::fmt::Debug for LoginProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LoginProof::Password(_) => "Password",
            LoginProof::Token(..) => "Token",
        })
    }
}

impl NewDeviceLogin {
    /// The next secret of a known device that has had this one.
    pub(in crate::store) fn secret_of_known(&self, before: [u8; 16]) -> [u8; 16] {
        if self.renews_secret { self.secret } else { before }
    }

    /// The number of this login, for a device whose last login has the number `before`. The lower
    /// bits are random.
    pub(in crate::store) fn number_after(&self, before: i64) -> i64 {
        ((before >> NONCE_BITS) + 1) << NONCE_BITS | i64::from(self.nonce) & ((1 << NONCE_BITS) - 1)
    }
}

/// A device that is logged in, and the devices that it has displaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoggedIn {
    /// The device, with the new login.
    pub device: Device,
    /// The name of its user.
    pub user_name: String,
    /// The stored password of its user.
    pub password: String,
    /// The number of the previous login, if the device was known.
    pub replaced: Option<i64>,
    /// The least recently seen devices, which are forgotten with their cursors.
    pub forgotten: Vec<Device>,
}

const NONCE_BITS: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_login_has_a_higher_number_whatever_is_random_in_it() {
        let proof = LoginProof::Password("secret".to_owned());
        let login = |nonce| NewDeviceLogin {
            user: UserId(1),
            name: "d".to_owned(),
            proof: proof.clone(),
            nonce,
            secret: [0; 16],
            renews_secret: false,
            devices_max: 1,
        };
        let first = login(u32::MAX).number_after(0);
        let second = login(0).number_after(first);
        assert!(0 < first && first < second && second < login(7).number_after(second));
        assert_ne!(login(1).number_after(first), login(2).number_after(first));
        assert!(!format!("{:?}", login(1)).contains("secret\""), "no password in a log");
    }
}
