//! Disabled accounts, marked by a prefix of the stored password. No password matches such a value,
//! on any node or on a C++ server. The value behind the prefix is kept, so the account can be
//! enabled again.

/// Whether an account with this stored password is disabled.
pub fn is_disabled(stored: &str) -> bool {
    stored.starts_with(DISABLED_MARK)
}

/// The stored password of a disabled account.
pub fn disabled(stored: &str) -> String {
    if is_disabled(stored) { stored.to_owned() } else { format!("{DISABLED_MARK}{stored}") }
}

/// The stored password of an account that is not disabled.
pub fn enabled(stored: &str) -> String {
    stored.strip_prefix(DISABLED_MARK).unwrap_or(stored).to_owned()
}

/// The prefix. It looks like a PHC string of an algorithm that does not exist.
pub const DISABLED_MARK: &str = "$disabled$";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_disabled_twice_is_enabled_at_once() {
        let stored = "$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA";
        let twice = disabled(&disabled(stored));
        assert!(is_disabled(&twice) && !is_disabled(stored));
        assert_eq!((enabled(&twice).as_str(), enabled(stored).as_str()), (stored, stored));
    }
}
