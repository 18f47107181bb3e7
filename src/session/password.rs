//! Passwords: hashing, checking and, for a while, remembering them.
//!
//! Stored passwords are argon2id in PHC strings
//! (`$argon2id$v=19$m=19456,t=2,p=1,keyid=aGV4$salt$hash`). Two forms of a password are right for
//! one account, see [`form`]: the hash is over the canonical form, and `keyid` says so. Two kinds
//! of older values are accepted, and reported as worth an upgrade: hashes without `keyid`, which
//! are over the password as sent, and rows of the reference server, which contain plain text in
//! either form.
//!
//! Every failed check by [`Passwords::verify`] costs one argon2 computation, so its duration
//! reveals nothing about the account. While there are older hashes, the check of a plain-text
//! password costs two, because both forms have to be tried.
//!
//! [`Passwords::recognises`] saves a returning client that computation: for each recently verified
//! password it has a tag, under a key that exists only in this process. The password itself is
//! never stored. With the tag goes a [`Stamp`] of the stored value at that time, so that a change
//! in the database can be noticed.

use std::error::Error;
use std::fmt;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{self, PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use blake2::Blake2sMac256;
use blake2::digest::{KeyInit, Mac};
use parking_lot::Mutex;

mod form;
mod memory;
mod stamp;

pub use form::ClientKind;
use form::{canonical, mark, marked_by};
pub use memory::Forgotten;
use memory::{Memory, PasswordTag, RememberedPassword};
pub use stamp::Stamp;

use crate::base::disabled::is_disabled;
use crate::base::made_by_jwt::{behind_mark, has_mark};
use crate::protocol::UserId;

/// Hashes and checks passwords at one configured cost, and remembers recently verified ones. Shared
/// by all threads.
pub struct Passwords {
    argon2: Argon2<'static>,
    key: [u8; 32],
    remember_for: Duration,
    /// Recently verified passwords. A leaf lock, held for a lookup only.
    memory: Mutex<Memory>,
    /// Whether there are older hashes, whose check costs two computations for a plain-text
    /// password. Once there are, every other failed check costs two as well.
    has_older: AtomicBool,
}

/// A password that is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RightPassword {
    /// The account's kind of client.
    pub client: ClientKind,
    /// The stamp of the stored value that it was checked against.
    pub stamp: Stamp,
    /// The user's count from before that value was read.
    pub forgotten: Forgotten,
}

#[cfg(test)]
impl RightPassword {
    /// The right password of a client that is not the usual one.
    pub(crate) const OTHER: RightPassword =
        RightPassword { client: ClientKind::Other, stamp: Stamp(0), forgotten: Forgotten::NEVER };
}

/// The result of [`Passwords::verify`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PasswordVerdict {
    /// An unknown user, or a wrong password.
    Wrong,
    /// The right password.
    Right {
        /// The kind of client that uses the account: the usual one if the password ever came in its
        /// form, as far as is known.
        client: ClientKind,
        /// The stored value should be replaced, see [`Passwords::upgraded`].
        upgrade: Option<Upgrade>,
    },
}

/// The upgrade that a stored value needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upgrade {
    /// The value is plain text.
    Hash,
    /// The value is the hash of a password as it was sent.
    Rehash,
    /// The hash is right, but its mark is missing or does not name the usual client, which now uses
    /// it.
    Mark,
}

impl Passwords {
    /// `memory_kib`, `passes` and `lanes` are argon2's cost for new hashes and for checks that must
    /// only take time; stored hashes contain their own. A verified password is remembered for
    /// `remember_for`, zero for never.
    ///
    /// # Errors
    ///
    /// [`PasswordError::Cost`] if argon2 does not allow these numbers, [`PasswordError::Random`]
    /// without a random source.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32, remember_for: Duration) -> Result<Passwords, PasswordError> {
        let params = Params::new(memory_kib, passes, lanes, None).map_err(PasswordError::Cost)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        Ok(Passwords {
            argon2,
            key: random_key()?,
            remember_for,
            memory: Mutex::new(Memory::new(getrandom::u64().map_err(PasswordError::Random)?)),
            has_older: AtomicBool::new(false),
        })
    }

    /// The PHC string of `password` with a new random salt. Slow by design: for jobs only.
    ///
    /// # Errors
    ///
    /// If the random source or argon2 fails; another password would not help.
    pub fn hash(&self, password: &str) -> Result<String, PasswordError> {
        self.hash_for(password, ClientKind::of(password))
    }

    fn hash_for(&self, password: &str, client: ClientKind) -> Result<String, PasswordError> {
        let hash = self.argon2.hash_password(canonical(password).as_bytes()).map_err(PasswordError::Hash)?;
        marked(hash, client)
    }

    /// Checks `password` against the stored value, `None` for an unknown user. For jobs only.
    ///
    /// If the stored value cannot be parsed ([`is_malformed`]), the result is
    /// [`PasswordVerdict::Wrong`]; the caller should log it.
    pub fn verify(&self, stored: Option<&str>, password: &str) -> PasswordVerdict {
        let (verdict, _) = self.verify_at_cost(stored, password);
        verdict
    }

    /// Like [`Passwords::verify`], with the number of argon2 computations of the check.
    fn verify_at_cost(&self, stored: Option<&str>, password: &str) -> (PasswordVerdict, u32) {
        let form = canonical(password);
        let (verdict, computed) = match stored {
            Some(stored) if is_disabled(stored) => (None, 0),
            Some(stored) if has_mark(stored) => match behind_mark(stored).and_then(parse) {
                Some(hash) => self.verify_hash_of_jwt_account(&hash, password, &form),
                // The user has set no password.
                None => (None, 0),
            },
            Some(phc) if claims_phc(phc) => match parse(phc) {
                Some(hash) => self.verify_hash(&hash, password, &form),
                None => (None, 0),
            },
            Some(plain) => (self.verify_plain(plain, password, &form), 0),
            None => (None, 0),
        };
        if let Some(verdict) = verdict {
            return (verdict, computed);
        }
        let both_forms = ClientKind::of(password) == ClientKind::Other && self.has_older.load(Ordering::Relaxed);
        let spent: u32 = (computed..1 + u32::from(both_forms)).map(|_| self.take_time(password)).sum();
        (PasswordVerdict::Wrong, computed + spent)
    }

    fn verify_plain(&self, stored: &str, password: &str, form: &str) -> Option<PasswordVerdict> {
        let client = ClientKind::of(stored).or(ClientKind::of(password));
        let right = PasswordVerdict::Right { client, upgrade: Some(Upgrade::Hash) };
        self.is_same(&canonical(stored), form).then_some(right)
    }

    /// The same for the hash behind the mark of an account that a JSON web token has made. It is
    /// always a current one, and is never replaced by an upgrade, which would lose the mark.
    fn verify_hash_of_jwt_account(
        &self,
        hash: &PasswordHash,
        password: &str,
        form: &str,
    ) -> (Option<PasswordVerdict>, u32) {
        match self.verify_hash(hash, password, form) {
            (Some(PasswordVerdict::Right { client, .. }), computed) => {
                (Some(PasswordVerdict::Right { client, upgrade: None }), computed)
            }
            other => other,
        }
    }

    /// The verdict if the password is right, and the number of computations.
    fn verify_hash(&self, hash: &PasswordHash, password: &str, form: &str) -> (Option<PasswordVerdict>, u32) {
        let is_right = |text: &str| {
            let result = self.argon2.verify_password(text.as_bytes(), hash);
            (result.is_ok(), u32::from(matches!(result, Ok(()) | Err(password_hash::Error::PasswordInvalid))))
        };
        let sent_by = ClientKind::of(password);
        if let Some(client) = marked_by(hash) {
            let upgrade = (client != sent_by && sent_by == ClientKind::Usual).then_some(Upgrade::Mark);
            let (right, computed) = is_right(form);
            return (right.then_some(PasswordVerdict::Right { client: client.or(sent_by), upgrade }), computed);
        }
        self.has_older.store(true, Ordering::Relaxed);
        let upgrade = if sent_by == ClientKind::Usual { Upgrade::Mark } else { Upgrade::Rehash };
        let (right, computed) = is_right(password);
        if right || sent_by == ClientKind::Usual {
            return (right.then_some(PasswordVerdict::Right { client: sent_by, upgrade: Some(upgrade) }), computed);
        }
        let (right, again) = is_right(form);
        let verdict = PasswordVerdict::Right { client: ClientKind::Usual, upgrade: Some(Upgrade::Mark) };
        (right.then_some(verdict), computed + again)
    }

    /// The value to be stored instead of `stored`, for which `password` is right. For jobs only.
    ///
    /// # Errors
    /// As [`Passwords::hash`].
    pub fn upgraded(&self, stored: &str, password: &str, upgrade: Upgrade) -> Result<String, PasswordError> {
        let invalid = || PasswordError::Hash(password_hash::Error::EncodingInvalid);
        match upgrade {
            Upgrade::Hash => self.hash_for(password, ClientKind::of(stored).or(ClientKind::of(password))),
            Upgrade::Mark => marked(parse(stored).ok_or_else(invalid)?, ClientKind::Usual),
            Upgrade::Rehash => {
                // The salt is kept, so that other nodes see the same password, see [`Stamp`].
                let salt = parse(stored).and_then(|hash| hash.salt).ok_or_else(invalid)?;
                let hash = self.argon2.hash_password_with_salt(canonical(password).as_bytes(), &salt);
                marked(hash.map_err(PasswordError::Hash)?, ClientKind::of(password))
            }
        }
    }

    /// The stamp that identifies this stored value.
    pub fn stamp(&self, stored: &str) -> Stamp {
        let salt = if claims_phc(stored) { parse(stored).and_then(|hash| hash.salt) } else { None };
        let part = salt.as_ref().map_or(stored.as_bytes(), |salt| salt.as_ref());
        let hash: [u8; 32] = self.keyed(UserId(0)).chain_update(part).finalize().into_bytes().into();
        let (stamp, _) = hash.split_first_chunk().expect("it is longer");
        Stamp(u32::from_le_bytes(*stamp))
    }

    /// Remembers that `password` was verified as `user`'s at the time `now`. Returns whether it is
    /// still valid: if the user was forgotten meanwhile, the stored value has to be read again, and
    /// nothing is remembered.
    #[must_use]
    pub fn remember(&self, user: UserId, password: &str, right: RightPassword, now: Instant) -> bool {
        let RightPassword { client, stamp, forgotten } = right;
        let hash: [u8; 32] = self.tag_of(user, password).finalize().into_bytes().into();
        let (tag, _) = hash.split_first_chunk::<{ size_of::<PasswordTag>() }>().expect("it is longer");
        let mut memory = self.memory.lock();
        let holds = memory.forgotten(user) == forgotten;
        if holds && !self.remember_for.is_zero() {
            memory.insert(user, RememberedPassword { tag: *tag, stamp, client }, now, self.remember_for);
        }
        holds
    }

    /// If `password`, in either form, is remembered as `user`'s: the account's kind of client, and
    /// the stamp. Takes about a microsecond and never waits, so a loop may call it.
    pub fn recognises(&self, user: UserId, password: &str, now: Instant) -> Option<RightPassword> {
        let (known, forgotten) = {
            let memory = self.memory.lock();
            (memory.get(user, now, self.remember_for)?, memory.forgotten(user))
        };
        self.tag_of(user, password).verify_truncated_left(&known.tag).ok()?;
        let client = ClientKind::of(password);
        if client.or(known.client) != known.client
            && let Some(known) = self.memory.lock().get_mut(user)
        {
            known.client = client;
        }
        Some(RightPassword { client: known.client.or(client), stamp: known.stamp, forgotten })
    }

    /// Whether a password of `user` is remembered, so that no other one would be recognised.
    pub fn remembers(&self, user: UserId, now: Instant) -> bool {
        self.memory.lock().get(user, now, self.remember_for).is_some()
    }

    /// Notes that the stored value of `user` was replaced by another one of the same password.
    pub fn restamp(&self, user: UserId, from: Stamp, to: Stamp) {
        if let Some(known) = self.memory.lock().get_mut(user).filter(|known| known.stamp == from) {
            known.stamp = to;
        }
    }

    /// Forgets the password of `user`: it must be verified again, even for a login under way.
    /// Connections must be logged out after this, not before.
    pub fn forget(&self, user: UserId) {
        self.memory.lock().forget(user);
    }

    /// The same, if it was verified against another stored value than that with this stamp.
    pub fn forget_other(&self, user: UserId, stamp: Stamp) {
        let mut memory = self.memory.lock();
        if memory.get_mut(user).is_some_and(|known| known.stamp != stamp) {
            memory.forget(user);
        }
    }

    /// How often `user`, or another user of the same shard, was forgotten.
    pub fn forgotten(&self, user: UserId) -> Forgotten {
        self.memory.lock().forgotten(user)
    }

    /// The keyed hash of a password in its canonical form. The hash covers the user too, so that
    /// equal passwords have different tags.
    fn tag_of(&self, user: UserId, password: &str) -> Blake2sMac256 {
        self.keyed(user).chain_update(canonical(password).as_bytes())
    }

    fn keyed(&self, user: UserId) -> Blake2sMac256 {
        Blake2sMac256::new(&self.key.into()).chain_update(user.0.to_le_bytes())
    }

    /// Compares keyed hashes of both texts in constant time, so the duration reveals nothing about
    /// them.
    fn is_same(&self, a: &str, b: &str) -> bool {
        let tag = |text: &str| self.keyed(UserId(0)).chain_update(text.as_bytes());
        tag(a).verify(&tag(b).finalize().into_bytes()).is_ok()
    }

    /// Runs one argon2 computation at the configured cost and ignores its result. Returns 1,
    /// or 0 if the computation failed.
    fn take_time(&self, password: &str) -> u32 {
        let mut out = [0; Params::DEFAULT_OUTPUT_LEN];
        let done = self.argon2.hash_password_into(password.as_bytes(), b"nobody's own salt", &mut out);
        let (done, _) = black_box((done, out));
        u32::from(done.is_ok())
    }
}

/// Whether `stored` looks like an argon2 string but is not valid: a damaged row, with which no
/// login succeeds.
pub fn is_malformed(stored: &str) -> bool {
    claims_phc(stored) && parse(stored).is_none()
}

/// Whether `stored` is a password as it was sent, not hashed yet by a server of this kind.
pub fn is_plain(stored: &str) -> bool {
    !claims_phc(stored) && !is_disabled(stored) && !has_mark(stored)
}

/// The reference's client sends hexadecimal digits only, so plain text never starts like this.
fn claims_phc(stored: &str) -> bool {
    stored.starts_with("$argon2")
}

/// Parses a PHC string that argon2 can check: known algorithm, allowed cost, salt and hash present.
fn parse(phc: &str) -> Option<PasswordHash> {
    let hash = PasswordHash::new(phc).ok()?;
    Algorithm::try_from(hash.algorithm.as_str()).ok()?;
    Params::try_from(&hash).ok()?;
    (hash.salt.is_some() && hash.hash.is_some()).then_some(hash)
}

/// The PHC string of a hash over the canonical form.
fn marked(hash: PasswordHash, client: ClientKind) -> Result<String, PasswordError> {
    match mark(hash, client) {
        Some(hash) => Ok(hash.to_string()),
        None => Err(PasswordError::Hash(password_hash::Error::ParamsInvalid)),
    }
}

/// 32 bytes from the system's random source.
fn random_key() -> Result<[u8; 32], PasswordError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(PasswordError::Random)?;
    Ok(key)
}

/// The reason why a password could not be hashed.
#[derive(Debug)]
pub enum PasswordError {
    /// argon2 does not allow the configured cost; the operator must change it.
    Cost(argon2::Error),
    /// The system provided no random bytes.
    Random(getrandom::Error),
    /// argon2 or the random source failed.
    Hash(password_hash::Error),
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PasswordError::Cost(cause) => write!(f, "the cost of passwords is not possible: {cause}"),
            PasswordError::Random(cause) => write!(f, "no random bytes: {cause}"),
            PasswordError::Hash(cause) => write!(f, "the password could not be hashed: {cause}"),
        }
    }
}

impl Error for PasswordError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            PasswordError::Cost(cause) => Some(cause),
            PasswordError::Random(cause) => Some(cause),
            PasswordError::Hash(cause) => Some(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disabled::disabled;

    const HOUR: Duration = Duration::from_secs(3600);
    /// The SHA-224 of `secret` in the digits that the usual client sends.
    const DIGITS: &str = "95c7fbca92ac5083afda62a564a3d014fc3b72c9140e3cb99ea6bf12";
    const OTHER: &str = "d14a028c2a3a2bc9476102bb288234c415a2b01f828ea62ac5b3e42f";

    fn cheap() -> Passwords {
        Passwords::new(8, 1, 1, HOUR).unwrap()
    }

    /// The form in which earlier servers stored passwords: the hash of what they were sent.
    fn older(passwords: &Passwords, sent: &str) -> String {
        passwords.argon2.hash_password(sent.as_bytes()).unwrap().to_string()
    }

    fn right(client: ClientKind, upgrade: Option<Upgrade>) -> PasswordVerdict {
        PasswordVerdict::Right { client, upgrade }
    }

    #[test]
    fn no_password_fits_a_disabled_account_not_even_what_is_stored() {
        let passwords = cheap();
        for before in [passwords.hash("secret").unwrap(), "secret".to_owned(), DIGITS.to_owned()] {
            let stored = disabled(&before);
            for tried in ["secret", DIGITS, stored.as_str(), &canonical(&stored)] {
                assert_eq!(passwords.verify_at_cost(Some(&stored), tried), (PasswordVerdict::Wrong, 1), "{tried}");
            }
            assert!(!is_malformed(&stored), "it is no damage");
            assert_ne!(passwords.stamp(&stored), passwords.stamp(&before), "connected users are logged out");
        }
    }

    #[test]
    fn a_hash_verifies_its_password_in_both_forms_and_no_other() {
        let passwords = cheap();
        for password in ["secret", "", "pässwörd 🔑", "nul\0inside", &"x".repeat(65536), &DIGITS.to_uppercase()] {
            let stored = passwords.hash(password).unwrap();
            assert!(stored.starts_with("$argon2id$v=19$m=8,t=1,p=1,keyid=dGV4dA$"), "{stored}");
            assert_eq!(passwords.verify_at_cost(Some(&stored), password), (right(ClientKind::Other, None), 1));
            let usual = right(ClientKind::Usual, Some(Upgrade::Mark));
            assert_eq!(passwords.verify_at_cost(Some(&stored), &canonical(password)), (usual, 1));
            assert_eq!(passwords.verify_at_cost(Some(&stored), "other"), (PasswordVerdict::Wrong, 1));
        }
        let stored = passwords.hash(DIGITS).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=8,t=1,p=1,keyid=aGV4$"), "{stored}");
        for form in [DIGITS, "secret"] {
            assert_eq!(passwords.verify_at_cost(Some(&stored), form), (right(ClientKind::Usual, None), 1), "{form}");
        }
        for wrong in ["Secret", OTHER, &DIGITS.to_uppercase(), &DIGITS[1..], ""] {
            assert_eq!(passwords.verify_at_cost(Some(&stored), wrong), (PasswordVerdict::Wrong, 1), "{wrong}");
        }
    }

    #[test]
    fn older_hashes_verify_in_both_forms_and_are_upgraded_under_the_same_stamp() {
        let passwords = cheap();
        for (sent_then, sent, client, upgrade, computations) in [
            (DIGITS, DIGITS, ClientKind::Usual, Upgrade::Mark, 1),
            (DIGITS, "secret", ClientKind::Usual, Upgrade::Mark, 2),
            ("secret", "secret", ClientKind::Other, Upgrade::Rehash, 1),
        ] {
            let stored = older(&passwords, sent_then);
            let found = (right(client, Some(upgrade)), computations);
            assert_eq!(passwords.verify_at_cost(Some(&stored), sent), found, "{sent_then} {sent}");
            let upgraded = passwords.upgraded(&stored, sent, upgrade).unwrap();
            assert!(!is_malformed(&upgraded) && upgraded.len() <= 255, "{upgraded}");
            assert_eq!(passwords.stamp(&upgraded), passwords.stamp(&stored), "others see that it is the same");
            for form in [DIGITS, "secret"] {
                let known = ClientKind::of(form).or(client);
                let mark = (known != client).then_some(Upgrade::Mark);
                assert_eq!(passwords.verify_at_cost(Some(&upgraded), form), (right(known, mark), 1));
            }
            if let Upgrade::Mark = upgrade {
                let as_before = passwords.argon2.verify_password(DIGITS.as_bytes(), &parse(&upgraded).unwrap());
                assert_eq!(as_before, Ok(()), "a node of an older build checks the digits as before");
            }
        }
    }

    #[test]
    fn a_hash_of_an_account_that_the_usual_client_uses_now_is_marked() {
        let passwords = cheap();
        let stored = passwords.hash("secret").unwrap();
        let upgraded = passwords.upgraded(&stored, DIGITS, Upgrade::Mark).unwrap();
        assert_eq!(upgraded, stored.replace("keyid=dGV4dA", "keyid=aGV4"));
        assert_eq!(passwords.verify(Some(&upgraded), "secret"), right(ClientKind::Usual, None));
    }

    #[test]
    fn every_hash_has_its_own_salt_and_stamp() {
        let passwords = cheap();
        let (one, other) = (passwords.hash("secret").unwrap(), passwords.hash("secret").unwrap());
        assert_ne!(one, other);
        assert_ne!(passwords.stamp(&one), passwords.stamp(&other));
        assert_ne!(passwords.stamp("secret"), passwords.stamp("Secret"));
        assert_ne!(passwords.stamp("secret"), cheap().stamp("secret"), "it is keyed");
    }

    #[test]
    fn a_hash_of_another_cost_verifies() {
        let stored = Passwords::new(16, 2, 2, HOUR).unwrap().hash("secret").unwrap();
        assert_eq!(cheap().verify(Some(&stored), "secret"), right(ClientKind::Other, None));
        assert_eq!(cheap().verify(Some(&stored), "Secret"), PasswordVerdict::Wrong);
    }

    #[test]
    fn plain_text_is_accepted_in_both_forms_and_asks_for_an_upgrade() {
        let passwords = cheap();
        for plain in ["", "$", "$2b$12$abc", "naïve", &DIGITS.to_uppercase()] {
            assert_eq!(passwords.verify(Some(plain), plain), right(ClientKind::Other, Some(Upgrade::Hash)));
            assert_eq!(passwords.verify(Some(plain), &canonical(plain)), right(ClientKind::Usual, Some(Upgrade::Hash)));
            assert_eq!(passwords.verify(Some(plain), "other"), PasswordVerdict::Wrong);
        }
        for form in [DIGITS, "secret"] {
            assert_eq!(passwords.verify(Some(DIGITS), form), right(ClientKind::Usual, Some(Upgrade::Hash)));
            let upgraded = passwords.upgraded(DIGITS, form, Upgrade::Hash).unwrap();
            assert_eq!(passwords.verify(Some(&upgraded), "secret"), right(ClientKind::Usual, None));
        }
        assert_eq!(passwords.verify(Some(DIGITS), &DIGITS[..55]), PasswordVerdict::Wrong);
    }

    #[test]
    fn an_unknown_user_is_wrong() {
        assert_eq!(cheap().verify(None, "secret"), PasswordVerdict::Wrong);
        assert_eq!(cheap().verify(None, ""), PasswordVerdict::Wrong);
    }

    #[test]
    fn a_malformed_string_is_wrong_even_for_its_own_text() {
        let passwords = cheap();
        let good = passwords.hash("secret").unwrap();
        let mut malformed: Vec<String> =
            ["$argon2", "$argon2id", "$argon2id$", "$argon2x$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA"]
                .map(String::from)
                .to_vec();
        malformed.push(good.replace("m=8", "m=1"));
        malformed.push(good.replace("m=8", "m=99999999999"));
        malformed.push(good[..good.rfind('$').unwrap()].to_owned());
        for stored in &malformed {
            assert!(is_malformed(stored), "{stored}");
            assert_eq!(passwords.verify(Some(stored), "secret"), PasswordVerdict::Wrong, "{stored}");
            assert_eq!(passwords.verify(Some(stored), stored), PasswordVerdict::Wrong, "{stored}");
        }
        assert!(!is_malformed(&good) && !is_malformed(DIGITS));
    }

    #[test]
    fn any_cut_of_a_hash_is_refused_without_a_panic() {
        let passwords = cheap();
        let good = passwords.hash("secret").unwrap();
        for end in "$argon2".len()..good.len() {
            assert_eq!(passwords.verify(Some(&good[..end]), "secret"), PasswordVerdict::Wrong, "{end}");
        }
    }

    /// argon2 dominates the time, so its computations are counted instead of measuring time.
    #[test]
    fn every_failed_check_costs_as_much_as_a_wrong_password() {
        let passwords = cheap();
        let (stored, older) = (passwords.hash("secret").unwrap(), older(&passwords, "secret"));
        let all = [Some(stored.as_str()), None, Some(DIGITS), Some("$argon2id$broken")];
        for (wrong, computations) in [("wrong", 1), (OTHER, 1)] {
            for stored in all {
                assert_eq!(
                    passwords.verify_at_cost(stored, wrong),
                    (PasswordVerdict::Wrong, computations),
                    "{stored:?} {wrong}"
                );
            }
        }
        for (wrong, computations) in [("wrong", 2), (OTHER, 1)] {
            assert_eq!(passwords.verify_at_cost(Some(&older), wrong), (PasswordVerdict::Wrong, computations));
            for stored in all {
                let cost = passwords.verify_at_cost(stored, wrong);
                assert_eq!(cost, (PasswordVerdict::Wrong, computations), "with older hashes: {stored:?} {wrong}");
            }
        }
    }

    #[test]
    fn impossible_costs_are_refused() {
        for (memory_kib, passes, lanes) in [(0, 1, 1), (8, 0, 1), (8, 1, 0), (8, 1, 2)] {
            let refused = Passwords::new(memory_kib, passes, lanes, HOUR);
            assert!(matches!(refused, Err(PasswordError::Cost(_))), "{memory_kib} {passes} {lanes}");
        }
    }

    fn recognised(client: ClientKind, stamp: Stamp) -> Option<RightPassword> {
        Some(RightPassword { client, stamp, forgotten: Forgotten::NEVER })
    }

    fn remember(
        passwords: &Passwords,
        user: UserId,
        password: &str,
        (client, stamp): (ClientKind, Stamp),
        now: Instant,
    ) {
        let forgotten = passwords.forgotten(user);
        assert!(passwords.remember(user, password, RightPassword { client, stamp, forgotten }, now));
    }

    #[test]
    fn a_password_of_another_stored_value_is_forgotten() {
        let (passwords, now, user) = (cheap(), Instant::now(), UserId(7));
        let [old, new] = ["old", "new"].map(|stored| passwords.stamp(stored));
        remember(&passwords, user, "secret", (ClientKind::Usual, old), now);
        passwords.forget_other(user, old);
        assert!(passwords.remembers(user, now));
        let before = passwords.forgotten(user);
        passwords.forget_other(user, new);
        assert!(!passwords.remembers(user, now));
        assert_ne!(passwords.forgotten(user), before, "a login under way is checked again");
    }

    #[test]
    fn a_remembered_password_is_recognised_in_both_forms_until_it_expires() {
        let (passwords, start) = (cheap(), Instant::now());
        let (user, stamp) = (UserId(7), passwords.stamp("stored"));
        let knows = |user, password, now| passwords.recognises(user, password, now).is_some();
        assert!(!knows(user, "secret", start) && !passwords.remembers(user, start));
        remember(&passwords, user, "secret", (ClientKind::Other, stamp), start);
        assert!(passwords.remembers(user, start) && !passwords.remembers(UserId(8), start));
        assert_eq!(passwords.recognises(user, "secret", start), recognised(ClientKind::Other, stamp));
        assert_eq!(passwords.recognises(user, DIGITS, start), recognised(ClientKind::Usual, stamp));
        assert_eq!(
            passwords.recognises(user, "secret", start),
            recognised(ClientKind::Usual, stamp),
            "it was used since"
        );
        for wrong in ["Secret", OTHER, &DIGITS[1..]] {
            assert!(!knows(user, wrong, start), "{wrong}");
        }
        assert!(!knows(UserId(8), "secret", start));
        assert!(knows(user, "secret", start + HOUR - Duration::from_millis(1)));
        assert!(!knows(user, "secret", start + HOUR) && !passwords.remembers(user, start + HOUR));
    }

    #[test]
    fn a_remembered_password_follows_the_stored_value_and_can_be_forgotten() {
        let (passwords, now, user) = (cheap(), Instant::now(), UserId(7));
        let stamps = ["old", "new", "other"].map(|stored| passwords.stamp(stored));
        remember(&passwords, user, DIGITS, (ClientKind::Usual, stamps[0]), now);
        passwords.restamp(user, stamps[2], stamps[1]);
        assert_eq!(passwords.recognises(user, "secret", now), recognised(ClientKind::Usual, stamps[0]));
        passwords.restamp(user, stamps[0], stamps[1]);
        assert_eq!(passwords.recognises(user, "secret", now), recognised(ClientKind::Usual, stamps[1]));
        passwords.forget(user);
        assert_eq!(passwords.recognises(user, "secret", now), None);
    }

    #[test]
    fn a_password_of_a_user_who_was_forgotten_meanwhile_is_not_remembered() {
        for hours in [HOUR, Duration::ZERO] {
            let (passwords, now) = (Passwords::new(8, 1, 1, hours).unwrap(), Instant::now());
            let [user, other] = [7, 8].map(UserId);
            let checked = |user| RightPassword { forgotten: passwords.forgotten(user), ..RightPassword::OTHER };
            let (before, of_other) = (checked(user), checked(other));
            passwords.forget(user);
            assert!(!passwords.remember(user, "secret", before, now), "the check began before that");
            assert_eq!(passwords.recognises(user, "secret", now), None);
            assert!(passwords.remember(other, "secret", of_other, now), "nobody else is concerned");
            assert!(passwords.remember(user, "secret", checked(user), now), "a check from after that");
        }
    }

    #[test]
    fn a_new_password_replaces_the_remembered_one() {
        let (passwords, now) = (cheap(), Instant::now());
        let stamp = passwords.stamp("stored");
        remember(&passwords, UserId(7), "old", (ClientKind::Other, stamp), now);
        remember(&passwords, UserId(7), "new", (ClientKind::Other, stamp), now);
        assert_eq!(passwords.recognises(UserId(7), "old", now), None);
        assert!(passwords.recognises(UserId(7), "new", now).is_some());
    }

    #[test]
    fn zero_remembers_nothing() {
        let (passwords, now) = (Passwords::new(8, 1, 1, Duration::ZERO).unwrap(), Instant::now());
        remember(&passwords, UserId(7), "secret", (ClientKind::Other, passwords.stamp("stored")), now);
        assert_eq!(passwords.recognises(UserId(7), "secret", now), None);
        assert!(passwords.memory.lock().get(UserId(7), now, HOUR).is_none());
    }
}
