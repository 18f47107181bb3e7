//! The forms in which one password may come, and the mark of the form in a stored hash.
//!
//! The usual client (Qt) logs in with the SHA-224 of the password in hexadecimal digits, but when
//! it reconnects automatically, it sends the password as it was typed. Both are right for one
//! account: the *canonical* form, which is the same for both, is hashed and remembered.

use std::borrow::Cow;
use std::fmt::Write;

use argon2::KeyId;
use argon2::password_hash::phc::PasswordHash;
use sha2::{Digest, Sha224};

/// The kind of client that uses an account, judged by the form of its password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientKind {
    /// The usual one: only this client sends the SHA-224 in hexadecimal digits.
    Usual,
    /// Any other.
    Other,
}

impl ClientKind {
    /// The kind that sends a password in this form.
    pub(super) fn of(password: &str) -> ClientKind {
        if is_digest(password) { ClientKind::Usual } else { ClientKind::Other }
    }

    /// The usual kind if either is.
    pub(super) fn or(self, other: ClientKind) -> ClientKind {
        if self == ClientKind::Usual { self } else { other }
    }

    /// The mark of a hash over the canonical form: argon2's `keyid`, which is not part of the
    /// computation. A server that ignores the mark can still check the hash if it is sent the
    /// canonical form.
    fn mark(self) -> &'static str {
        match self {
            ClientKind::Usual => "hex",
            ClientKind::Other => "text",
        }
    }
}

/// The form of a password that is hashed and remembered: 56 lower-case hexadecimal digits
/// unchanged, anything else as the SHA-224 of its bytes in such digits.
pub(super) fn canonical(password: &str) -> Cow<'_, str> {
    if is_digest(password) {
        return Cow::Borrowed(password);
    }
    let mut digits = String::with_capacity(DIGITS);
    for byte in Sha224::digest(password.as_bytes()) {
        let _ = write!(digits, "{byte:02x}");
    }
    Cow::Owned(digits)
}

/// Whether the password looks like a SHA-224 in the hexadecimal digits of the usual client.
fn is_digest(password: &str) -> bool {
    password.len() == DIGITS && password.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The mark of a hash over the canonical form; `None` for an older hash, which is over the password
/// as sent.
pub(super) fn marked_by(hash: &PasswordHash) -> Option<ClientKind> {
    let keyid: KeyId = hash.params.get_str("keyid")?.parse().ok()?;
    [ClientKind::Usual, ClientKind::Other].into_iter().find(|client| client.mark().as_bytes() == keyid.as_bytes())
}

/// The same hash with this mark; `None` if it does not fit, which is impossible.
pub(super) fn mark(mut hash: PasswordHash, client: ClientKind) -> Option<PasswordHash> {
    let mut params = argon2::password_hash::phc::ParamsString::new();
    for (name, value) in hash.params.iter().filter(|(name, _)| name.as_str() != "keyid") {
        params.add_str(name, value).ok()?;
    }
    params.add_b64_bytes("keyid", client.mark().as_bytes()).ok()?;
    hash.params = params;
    Some(hash)
}

const DIGITS: usize = 56;

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's example, and the empty text.
    #[test]
    fn the_canonical_form_is_the_sha224_or_what_looks_like_one() {
        let abc = "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7";
        assert_eq!(canonical("abc"), abc);
        assert_eq!(canonical(abc), abc);
        assert_eq!(canonical(""), "d14a028c2a3a2bc9476102bb288234c415a2b01f828ea62ac5b3e42f");
        for other in [&abc[1..], &abc.to_uppercase(), &format!("{abc}0"), &abc.replace('2', "g")] {
            assert_ne!(canonical(other), other);
            assert_eq!(canonical(other).len(), DIGITS);
        }
    }
}
