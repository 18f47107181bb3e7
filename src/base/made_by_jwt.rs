//! Accounts that a JSON web token has made, marked by a prefix of the stored password. Behind it are
//! random characters, which no password matches: not on this server, and not on a C++ server, where
//! a client would have to guess them. If the user sets a password, its hash takes their place.

use super::disabled::enabled;

/// Whether a JSON web token has made the account with this stored password. The account may be
/// disabled.
pub fn is_made_by_jwt(stored: &str) -> bool {
    enabled(stored).starts_with(JWT_MARK)
}

/// The stored password of a new account, with these random bytes.
pub fn without_password(random: &[u8; 32]) -> String {
    use base64::Engine as _;
    format!("{JWT_MARK}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random))
}

/// The stored password of such an account whose user has set a password with this hash.
pub fn with_password(hash: &str) -> String {
    format!("{JWT_MARK}{hash}")
}

/// The part behind the mark; `None` without a mark, and for a disabled account.
pub fn behind_mark(stored: &str) -> Option<&str> {
    stored.strip_prefix(JWT_MARK)
}

/// The prefix. It looks like a PHC string of an algorithm that does not exist.
const JWT_MARK: &str = "$jwt$";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disabled::disabled;

    #[test]
    fn the_mark_outlives_a_password_and_a_disabled_account() {
        let stored = without_password(&[7; 32]);
        assert!(is_made_by_jwt(&stored) && is_made_by_jwt(&disabled(&stored)));
        assert!(is_made_by_jwt(&with_password("$argon2id$x")));
        assert!(!is_made_by_jwt("secret") && !is_made_by_jwt(&disabled("secret")));
        assert_eq!((behind_mark(&disabled(&stored)), behind_mark("secret")), (None, None));
        assert_eq!(behind_mark(&with_password("$argon2id$x")), Some("$argon2id$x"));
        assert_ne!(without_password(&[8; 32]), stored);
    }
}
