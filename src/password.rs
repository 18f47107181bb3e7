//! Passwords: how they are hashed, checked and, for a while, remembered.
//!
//! Stored passwords are argon2id in PHC strings (`$argon2id$v=19$m=19456,t=2,p=1$salt$hash`). Rows of the reference server
//! hold plain text; they are accepted and reported as worth an upgrade. Whatever the outcome, a check by [`Passwords::verify`]
//! that fails costs one argon2 computation, so that its duration tells nothing about the account.
//!
//! [`Passwords::recognises`] spares a returning client that computation: it knows, under a key that dies with the process,
//! a tag of each password verified lately. A password itself is never kept.

use std::error::Error;
use std::fmt;
use std::hint::black_box;
#[cfg(test)]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{self, PasswordHasher, PasswordVerifier, try_generate_salt};
use argon2::{Algorithm, Argon2, Params, Version};
use blake2::Blake2sMac256;
use blake2::digest::{KeyInit, Mac};
use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;

use crate::protocol::UserId;
use crate::recent::Recent;

/// Hashes and checks passwords at one configured cost, and remembers those verified lately. Shared by all threads.
pub struct Passwords {
    argon2: Argon2<'static>,
    key: [u8; 32],
    remember_for: Duration,
    /// A leaf lock, held for a lookup only: what was verified lately.
    memory: Mutex<Memory>,
    /// Checks that have cost one computation of argon2.
    #[cfg(test)]
    computations: AtomicUsize,
}

/// What [`Passwords::verify`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// No such user, or another password.
    Wrong,
    /// The password of the stored hash.
    Right,
    /// The password, which stands in the database as plain text: hash it and replace it there.
    RightUpgrade,
}

impl Passwords {
    /// `memory_kib`, `passes` and `lanes` are argon2's cost for new hashes and for checks that must only take time; stored
    /// hashes bring their own. A verified password is remembered for `remember_for`, zero for never.
    ///
    /// # Errors
    /// [`PasswordError::Cost`] when argon2 does not allow these numbers, [`PasswordError::Random`] without a random source.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32, remember_for: Duration) -> Result<Passwords, PasswordError> {
        let params = Params::new(memory_kib, passes, lanes, None).map_err(PasswordError::Cost)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        Ok(Passwords {
            argon2,
            key: random_key()?,
            remember_for,
            memory: Mutex::default(),
            #[cfg(test)]
            computations: AtomicUsize::new(0),
        })
    }

    /// The PHC string of `password` under a fresh random salt. Takes as long as the cost says: for jobs only.
    ///
    /// # Errors
    /// When the random source or argon2 fails; nothing that another password would change.
    pub fn hash(&self, password: &str) -> Result<String, PasswordError> {
        let hash = self.argon2.hash_password(password.as_bytes()).map_err(PasswordError::Hash)?;
        Ok(hash.to_string())
    }

    /// Checks `password` against what the store holds, `None` for an unknown user. For jobs only.
    ///
    /// A stored value that [`is_malformed`] says cannot be read is [`Verdict::Wrong`]; the caller should log it.
    pub fn verify(&self, stored: Option<&str>, password: &str) -> Verdict {
        let verdict = match stored {
            None => None,
            Some(phc) if claims_phc(phc) => {
                match parse(phc).map(|hash| self.compute(|| self.argon2.verify_password(password.as_bytes(), &hash))) {
                    Some(Ok(())) => Some(Verdict::Right),
                    Some(Err(password_hash::Error::PasswordInvalid)) => Some(Verdict::Wrong),
                    Some(Err(_)) | None => None,
                }
            }
            Some(plain) => self.is_same(plain, password).then_some(Verdict::RightUpgrade),
        };
        verdict.unwrap_or_else(|| {
            self.take_time(password);
            Verdict::Wrong
        })
    }

    /// Notes at the time `now` that `password` was verified as `user`'s.
    pub fn remember(&self, user: UserId, password: &str, now: Instant) {
        if !self.remember_for.is_zero() {
            let hash: [u8; 32] = self.tag_of(user, password).finalize().into_bytes().into();
            let (tag, _) = hash.split_first_chunk().expect("it is longer");
            self.memory.lock().insert(user, *tag, now, self.remember_for);
        }
    }

    /// Whether `password` was verified as `user`'s not longer ago than it is remembered. About a microsecond, never waits:
    /// may be called by a loop.
    pub fn recognises(&self, user: UserId, password: &str, now: Instant) -> bool {
        let known = self.memory.lock().tag(user, now, self.remember_for);
        known.is_some_and(|tag| self.tag_of(user, password).verify_truncated_left(&tag).is_ok())
    }

    /// Whether a password of `user` is remembered, so that another one would not be recognised.
    pub fn remembers(&self, user: UserId, now: Instant) -> bool {
        self.memory.lock().tag(user, now, self.remember_for).is_some()
    }

    /// The keyed hash of a password. It covers the user, so that equal passwords do not show.
    fn tag_of(&self, user: UserId, password: &str) -> Blake2sMac256 {
        Blake2sMac256::new(&self.key.into()).chain_update(user.0.to_le_bytes()).chain_update(password)
    }

    /// Compares in a time that depends on neither text's content: keyed hashes of both, in constant time.
    fn is_same(&self, a: &str, b: &str) -> bool {
        let nobody = UserId(0);
        self.tag_of(nobody, a).verify(&self.tag_of(nobody, b).finalize().into_bytes()).is_ok()
    }

    /// Runs one argon2 computation.
    fn compute<T>(&self, computation: impl FnOnce() -> T) -> T {
        #[cfg(test)]
        self.computations.fetch_add(1, Ordering::Relaxed);
        computation()
    }

    /// One argon2 computation at the configured cost whose result is of no interest.
    fn take_time(&self, password: &str) {
        let mut out = [0; Params::DEFAULT_OUTPUT_LEN];
        let done = self.compute(|| self.argon2.hash_password_into(password.as_bytes(), b"nobody's own salt", &mut out));
        let _ = black_box((done, out));
    }
}

/// Whether `stored` looks like an argon2 string but cannot be one: a row that somebody damaged, which nobody can log in to.
pub fn is_malformed(stored: &str) -> bool {
    claims_phc(stored) && parse(stored).is_none()
}

/// The reference's client sends hexadecimal digits only, so plain text never starts like this.
fn claims_phc(stored: &str) -> bool {
    stored.starts_with("$argon2")
}

/// A PHC string that argon2 can check: known algorithm, lawful cost, salt and hash present.
fn parse(phc: &str) -> Option<PasswordHash> {
    let hash = PasswordHash::new(phc).ok()?;
    Algorithm::try_from(hash.algorithm.as_str()).ok()?;
    Params::try_from(&hash).ok()?;
    (hash.salt.is_some() && hash.hash.is_some()).then_some(hash)
}

/// 32 bytes from the system's random source, by way of the crate that draws the salts.
fn random_key() -> Result<[u8; 32], PasswordError> {
    let mut key = [0; 32];
    for half in key.chunks_exact_mut(16) {
        let drawn = try_generate_salt().map_err(|cause| PasswordError::Random(cause.into()))?;
        half.copy_from_slice(&drawn);
    }
    Ok(key)
}

/// The tags of the passwords that were verified last. Ids are the store's own, so they need no hasher with a secret.
struct Memory {
    tags: Recent<UserId, (Tag, Instant), FxBuildHasher>,
    /// When the young table was begun. Until that is too long ago, the old one may hold what is valid.
    aged: Option<Instant>,
}

/// Half of a hash: nobody finds a password by chance for 128 bits either, and there is one for every user.
type Tag = [u8; 16];

impl Memory {
    fn insert(&mut self, user: UserId, tag: Tag, now: Instant, valid_for: Duration) {
        let aged = self.aged.get_or_insert(now);
        if now.saturating_duration_since(*aged) >= valid_for {
            *aged = now;
            self.tags.age();
        }
        if self.tags.insert(user, (tag, now)) {
            self.aged = Some(now);
        }
    }

    fn tag(&self, user: UserId, now: Instant, valid_for: Duration) -> Option<Tag> {
        let (tag, since) = self.tags.get(&user)?;
        (now.saturating_duration_since(*since) < valid_for).then_some(*tag)
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory { tags: Recent::new(REMEMBERED_MAX), aged: None }
    }
}

/// Users who are remembered at least. Some 10 MB at most.
const REMEMBERED_MAX: usize = 100_000;

/// Why a password could not be hashed.
#[derive(Debug)]
pub enum PasswordError {
    /// The configured cost is outside what argon2 allows; the operator must change it.
    Cost(argon2::Error),
    /// The system gave no random bytes.
    Random(password_hash::Error),
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
            PasswordError::Random(cause) | PasswordError::Hash(cause) => Some(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const SHA224: &str = "d14a028c2a3a2bc9476102bb288234c415a2b01f828ea62ac5b3e42f";

    fn cheap() -> Passwords {
        Passwords::new(8, 1, 1, HOUR).unwrap()
    }

    #[test]
    fn a_hash_verifies_its_password_and_no_other() {
        let passwords = cheap();
        for password in ["secret", "", "pässwörd 🔑", "nul\0inside", &"x".repeat(65536)] {
            let stored = passwords.hash(password).unwrap();
            assert!(stored.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{stored}");
            assert_eq!(passwords.verify(Some(&stored), password), Verdict::Right);
            assert_eq!(passwords.verify(Some(&stored), "other"), Verdict::Wrong);
        }
    }

    #[test]
    fn every_hash_has_its_own_salt() {
        let passwords = cheap();
        assert_ne!(passwords.hash("secret").unwrap(), passwords.hash("secret").unwrap());
    }

    #[test]
    fn a_hash_of_another_cost_verifies() {
        let stored = Passwords::new(16, 2, 2, HOUR).unwrap().hash("secret").unwrap();
        assert_eq!(cheap().verify(Some(&stored), "secret"), Verdict::Right);
        assert_eq!(cheap().verify(Some(&stored), "Secret"), Verdict::Wrong);
    }

    #[test]
    fn plain_text_is_accepted_and_asks_for_an_upgrade() {
        let passwords = cheap();
        for plain in [SHA224, "", "$", "$2b$12$abc", "naïve"] {
            assert_eq!(passwords.verify(Some(plain), plain), Verdict::RightUpgrade);
            assert_eq!(passwords.verify(Some(plain), "other"), Verdict::Wrong);
        }
        assert_eq!(passwords.verify(Some(SHA224), &SHA224[..55]), Verdict::Wrong);
    }

    #[test]
    fn an_unknown_user_is_wrong() {
        assert_eq!(cheap().verify(None, "secret"), Verdict::Wrong);
        assert_eq!(cheap().verify(None, ""), Verdict::Wrong);
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
            assert_eq!(passwords.verify(Some(stored), "secret"), Verdict::Wrong, "{stored}");
            assert_eq!(passwords.verify(Some(stored), stored), Verdict::Wrong, "{stored}");
        }
        assert!(!is_malformed(&good) && !is_malformed(SHA224));
    }

    #[test]
    fn any_cut_of_a_hash_is_refused_without_a_panic() {
        let passwords = cheap();
        let good = passwords.hash("secret").unwrap();
        for end in "$argon2".len()..good.len() {
            assert_eq!(passwords.verify(Some(&good[..end]), "secret"), Verdict::Wrong, "{end}");
        }
    }

    /// What takes the time is one computation of argon2, so these are counted, not timed.
    #[test]
    fn every_failed_check_costs_as_much_as_a_wrong_password() {
        let passwords = cheap();
        let stored = passwords.hash("secret").unwrap();
        for stored in [Some(stored.as_str()), None, Some(SHA224), Some("$argon2id$broken")] {
            let before = passwords.computations.load(Ordering::Relaxed);
            assert_eq!(passwords.verify(stored, "wrong"), Verdict::Wrong);
            assert_eq!(passwords.computations.load(Ordering::Relaxed) - before, 1, "{stored:?}");
        }
    }

    #[test]
    fn impossible_costs_are_refused() {
        for (memory_kib, passes, lanes) in [(0, 1, 1), (8, 0, 1), (8, 1, 0), (8, 1, 2)] {
            let refused = Passwords::new(memory_kib, passes, lanes, HOUR);
            assert!(matches!(refused, Err(PasswordError::Cost(_))), "{memory_kib} {passes} {lanes}");
        }
    }

    #[test]
    fn a_remembered_password_is_recognised_until_it_expires() {
        let (passwords, start) = (cheap(), Instant::now());
        assert!(!passwords.recognises(UserId(7), "secret", start) && !passwords.remembers(UserId(7), start));
        passwords.remember(UserId(7), "secret", start);
        assert!(passwords.remembers(UserId(7), start) && !passwords.remembers(UserId(8), start));
        assert!(passwords.recognises(UserId(7), "secret", start));
        assert!(!passwords.recognises(UserId(7), "Secret", start));
        assert!(!passwords.recognises(UserId(8), "secret", start));
        assert!(passwords.recognises(UserId(7), "secret", start + HOUR - Duration::from_millis(1)));
        assert!(
            !passwords.recognises(UserId(7), "secret", start + HOUR) && !passwords.remembers(UserId(7), start + HOUR)
        );
    }

    #[test]
    fn a_new_password_replaces_the_remembered_one() {
        let (passwords, now) = (cheap(), Instant::now());
        passwords.remember(UserId(7), "old", now);
        passwords.remember(UserId(7), "new", now);
        assert!(!passwords.recognises(UserId(7), "old", now));
        assert!(passwords.recognises(UserId(7), "new", now));
    }

    #[test]
    fn zero_remembers_nothing() {
        let (passwords, now) = (Passwords::new(8, 1, 1, Duration::ZERO).unwrap(), Instant::now());
        passwords.remember(UserId(7), "secret", now);
        assert!(!passwords.recognises(UserId(7), "secret", now));
        assert_eq!(passwords.memory.lock().tags.len(), 0);
    }

    #[test]
    fn what_is_valid_stays_when_the_memory_is_full_just_before_time_has_it_age() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        let late = start + HOUR - Duration::from_secs(1);
        memory.insert(UserId(0), [1; 16], start, HOUR);
        let bound = REMEMBERED_MAX as i32;
        (1..=bound).for_each(|user| memory.insert(UserId(user), [1; 16], late, HOUR));
        memory.insert(UserId(0), [2; 16], start + HOUR, HOUR);
        assert!((2..=bound).all(|user| memory.tag(UserId(user), start + HOUR, HOUR).is_some()));
        memory.insert(UserId(0), [2; 16], late + HOUR, HOUR);
        memory.insert(UserId(0), [2; 16], late + 2 * HOUR, HOUR);
        assert_eq!(memory.tags.len(), 1, "and what has expired does not");
    }

    #[test]
    fn what_has_expired_gives_its_memory_back_within_as_long_again() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        let mut insert_100 = |from: i32, now| {
            (from..from + 100).for_each(|user| memory.insert(UserId(user), [1; 16], now, HOUR));
            memory.tags.len()
        };
        assert_eq!(insert_100(0, start), 100);
        assert_eq!(insert_100(100, start + HOUR / 2), 200);
        assert_eq!(insert_100(200, start + HOUR), 300);
        assert_eq!(insert_100(300, start + 2 * HOUR), 200);
        assert_eq!(memory.tag(UserId(299), start + 2 * HOUR - Duration::from_millis(1), HOUR), Some([1; 16]));
        assert_eq!(memory.tag(UserId(299), start + 2 * HOUR, HOUR), None);
    }
}
