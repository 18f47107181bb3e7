//! Accounts that a JSON web token has made, marked by a prefix of the stored password:
//!
//! ```text
//!   $jwt$  proof  $  22 random characters, or a hash if the user has set a password
//! ```
//! The proof is a keyed hash of the account's name, which never changes. Only the servers of the
//! cluster know the key. So a program that lets a client write this column cannot make the mark: a
//! C++ server stores what a client sends as its password. No password matches the random
//! characters, on this server or on a C++ server.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use super::disabled::enabled;

/// Makes marks, and checks them.
pub struct JwtMarks {
    key: hmac::Key,
}

impl JwtMarks {
    /// With the key of the cluster.
    pub fn new(key: &[u8; 32]) -> JwtMarks {
        JwtMarks { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// The stored password of a new account with this name.
    pub fn without_password(&self, name: &str, random: &[u8; 16]) -> String {
        format!("{JWT_MARK}{}${}", self.proof(name), URL_SAFE_NO_PAD.encode(random))
    }

    /// Whether a JSON web token has made the account with this name and stored password. The
    /// account may be disabled.
    pub fn prove(&self, name: &str, stored: &str) -> bool {
        let enabled = enabled(stored);
        let Some((proof, _)) = enabled.strip_prefix(JWT_MARK).and_then(proof_in) else { return false };
        let Ok(proof) = URL_SAFE_NO_PAD.decode(proof) else { return false };
        let expected = hmac::sign(&self.key, name.as_bytes());
        let difference = expected.as_ref().iter().zip(&proof).fold(0, |all, (own, other)| all | (own ^ other));
        proof.len() == PROOF_BYTES && std::hint::black_box(difference) == 0
    }

    fn proof(&self, name: &str) -> String {
        URL_SAFE_NO_PAD.encode(&hmac::sign(&self.key, name.as_bytes()).as_ref()[..PROOF_BYTES])
    }
}

/// Whether this stored password has the mark, proven or not. The account may be disabled.
pub fn has_mark(stored: &str) -> bool {
    enabled(stored).starts_with(JWT_MARK)
}

/// The stored password of such an account whose user has set a password with this hash: with the
/// mark from before.
pub fn with_password(stored: &str, hash: &str) -> String {
    match stored.strip_prefix(JWT_MARK).and_then(proof_in) {
        Some((proof, _)) => format!("{JWT_MARK}{proof}${hash}"),
        // It proves nothing before, and does not after.
        None => format!("{JWT_MARK}{hash}"),
    }
}

/// The part behind the mark; `None` without a mark, and for a disabled account.
pub fn behind_mark(stored: &str) -> Option<&str> {
    let marked = stored.strip_prefix(JWT_MARK)?;
    Some(proof_in(marked).map_or(marked, |(_, rest)| rest))
}

/// The proof, and the part behind it; `None` if there is no proof.
fn proof_in(marked: &str) -> Option<(&str, &str)> {
    marked.split_once('$').filter(|(proof, _)| !proof.is_empty())
}

/// The prefix. It looks like a PHC string of an algorithm that does not exist.
const JWT_MARK: &str = "$jwt$";
/// The length of a proof: 128 bits.
const PROOF_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disabled::disabled;

    const HASH: &str = "$argon2id$x";

    fn marks() -> JwtMarks {
        JwtMarks::new(&[1; 32])
    }

    #[test]
    fn the_mark_outlives_a_password_and_a_disabled_account() {
        let stored = marks().without_password("ann", &[7; 16]);
        assert!(stored.len() <= 50, "the column of a C++ server has 50 characters: {stored}");
        for stored in [stored.clone(), disabled(&stored), with_password(&stored, HASH)] {
            assert!(has_mark(&stored) && marks().prove("ann", &stored), "{stored}");
        }
        assert!(!has_mark("secret") && !has_mark(&disabled("secret")));
        assert_eq!((behind_mark(&disabled(&stored)), behind_mark("secret")), (None, None));
        let twice = with_password(&with_password(&stored, "$argon2id$y"), HASH);
        assert_eq!((behind_mark(&twice), marks().prove("ann", &twice)), (Some(HASH), true));
        assert_ne!(marks().without_password("ann", &[8; 16]), stored);
    }

    #[test]
    fn nobody_without_the_key_makes_a_mark() {
        let stored = marks().without_password("ann", &[7; 16]);
        let of_bob = marks().without_password("bob", &[7; 16]);
        let other_key = JwtMarks::new(&[2; 32]).without_password("ann", &[7; 16]);
        let shorter = stored.replacen(&stored[5..27], &stored[5..9], 1);
        let forged = [
            "",
            "$jwt$",
            "$jwt$$",
            "$jwt$x",
            "$jwt$$argon2id$x",
            "$jwt$AAAA",
            "$jwt$!$x",
            "$jwt$AAAAAAAAAAAAAAAAAAAAAA$x",
        ];
        for forged in forged.into_iter().chain([&*of_bob, &*other_key, &*shorter, &stored[1..]]) {
            assert!(!marks().prove("ann", forged), "{forged}");
        }
        assert_eq!(behind_mark("$jwt$$argon2id$x"), Some(HASH), "its user may still log in by password");
        // Computed by another implementation: an update of the server must not close the accounts.
        assert!(marks().prove("ann", "$jwt$1rT-T7WlVure3nDGZ0Dzhw$x"));
    }
}
