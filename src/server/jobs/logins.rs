//! [`LoginJobs`]: registering users, checking their passwords, and upgrading stored passwords.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pool::Workers;

use super::reply::reply;
use crate::base::clock::Clock;
use crate::bus::Exchange;
use crate::protocol::{self, UserId};
use crate::server::stamps::AccountStamps;
use crate::session::Outcome;
use crate::session::password::{self, PasswordVerdict, Passwords, RightPassword, Upgrade};
use crate::store::{Accounts, Role, StoreError};

/// Registers and checks users.
pub struct LoginJobs {
    /// The accounts as they are stored.
    pub store: Role<dyn Accounts>,
    bus: Arc<dyn Exchange>,
    clock: Clock,
    /// The time when this server was started.
    started: Instant,
    /// Hashes passwords, and remembers verified ones.
    pub passwords: Arc<Passwords>,
    /// The stored passwords of connected users.
    pub stamps: Arc<AccountStamps>,
    /// Upgrades stored passwords to the current form; `None` once it is closed.
    pub upgrader: Mutex<Option<Workers>>,
}

impl LoginJobs {
    /// Without an `upgrader`, passwords stay as they are stored.
    pub fn new(
        store: Role<dyn Accounts>,
        bus: Arc<dyn Exchange>,
        clock: Clock,
        (passwords, stamps): (Arc<Passwords>, Arc<AccountStamps>),
        upgrader: Option<Workers>,
    ) -> LoginJobs {
        let started = clock.now();
        LoginJobs { store, bus, clock, started, passwords, stamps, upgrader: Mutex::new(upgrader) }
    }

    /// Checks a password. An unknown user takes as long as a wrong password.
    pub(super) fn check(&self, user: Option<UserId>, password: &str) -> Result<Option<RightPassword>, StoreError> {
        for _ in 0..CHECKS_MAX {
            let checked = self.check_once(user, password)?;
            match (user, checked) {
                // Another login has found another stored password. If that was the older one, it is
                // no reason to log the user out.
                (Some(user), Some((right, _))) if self.is_outdated(user, right)? => {}
                (Some(user), Some((right, upgrade))) => {
                    let Some(right) = self.remember(user, password, right)? else { continue };
                    self.stamps.verified(user, right.stamp);
                    // This comes last: an upgrade that completes earlier would leave the stamp of
                    // the old value, and the user would be logged out because of it.
                    if let Some((stored, upgrade)) = upgrade {
                        self.upgrade(user, stored, password, upgrade);
                    }
                    return Ok(Some(right));
                }
                _ => return Ok(None),
            }
        }
        Err(changes_all_the_time())
    }

    /// Remembers a right password; `None` if the stored value was replaced since it was read. The
    /// user may have been logged out of everything meanwhile, because the account is disabled.
    fn remember(
        &self,
        user: UserId,
        password: &str,
        mut right: RightPassword,
    ) -> Result<Option<RightPassword>, StoreError> {
        for _ in 0..CHECKS_MAX {
            if self.passwords.remember(user, password, right, self.clock.now()) {
                return Ok(Some(right));
            }
            right.forgotten = self.passwords.forgotten(user);
            let stored = self.store.get()?.credential(user)?;
            if stored.is_none_or(|stored| self.passwords.stamp(&stored) != right.stamp) {
                return Ok(None);
            }
        }
        Err(changes_all_the_time())
    }

    /// Whether the stored value was replaced after the password was checked against it.
    fn is_outdated(&self, user: UserId, right: RightPassword) -> Result<bool, StoreError> {
        if self.stamps.stamp(user, self.clock.now()).is_none_or(|noted| noted == right.stamp) {
            return Ok(false);
        }
        let stored = self.store.get()?.credential(user)?;
        Ok(stored.is_none_or(|stored| self.passwords.stamp(&stored) != right.stamp))
    }

    /// A right password, and the stored value with its upgrade if it needs one.
    fn check_once(&self, user: Option<UserId>, password: &str) -> Result<Option<CheckedPassword>, StoreError> {
        // Read before the stored value, so that any replacement of that value is noticed.
        let forgotten = user.map(|user| self.passwords.forgotten(user)).unwrap_or_default();
        let stored = match user {
            Some(user) => self.store.get()?.credential(user)?,
            None => None,
        };
        let verdict = self.passwords.verify(stored.as_deref(), password);
        let (Some(user), Some(stored)) = (user, stored) else { return Ok(None) };
        match verdict {
            PasswordVerdict::Wrong => {
                if password::is_malformed(&stored) {
                    log::error!("the stored password of user {user} is damaged: nobody can log in as this user");
                }
                Ok(None)
            }
            PasswordVerdict::Right { client, upgrade } => {
                let stamp = self.passwords.stamp(&stored);
                let upgrade = upgrade.filter(|upgrade| self.may_upgrade(*upgrade)).map(|upgrade| (stored, upgrade));
                Ok(Some((RightPassword { client, stamp, forgotten }, upgrade)))
            }
        }
    }

    /// Whether the stored value may be upgraded. During a rolling update, some nodes may still
    /// compare a password as sent with its hash. They would refuse a plain-text password once its
    /// hash is over the canonical form. A hash over digits is the same for both, and plain text is
    /// stored only if no node has hashed it before.
    fn may_upgrade(&self, upgrade: Upgrade) -> bool {
        let fits = self.fits_hashes();
        match upgrade {
            Upgrade::Hash | Upgrade::Mark => fits,
            Upgrade::Rehash => {
                fits && (self.bus.is_alone()
                    || self.clock.now().saturating_duration_since(self.started) >= ROLLING_UPDATE)
            }
        }
    }

    /// Whether hashes fit. A client that logs in before this is known would fail anyway.
    fn fits_hashes(&self) -> bool {
        self.store.get().map_or(true, |store| store.fits_hashes())
    }

    /// Queues the upgrade of a stored password. The login does not wait for it: on the day when
    /// this server replaces the reference server, all users log in at the same time. If too many
    /// are queued, or the upgrade fails, the next login tries again.
    fn upgrade(&self, user: UserId, stored: String, password: &str, upgrade: Upgrade) {
        let (store, passwords, password) = (self.store.clone(), self.passwords.clone(), password.to_owned());
        let stamps = self.stamps.clone();
        let work = move || {
            let upgraded = match passwords.upgraded(&stored, &password, upgrade) {
                Ok(hash) => store
                    .get()
                    .and_then(|store| {
                        store.replace_credential(user, &stored, &hash)?;
                        store.credential(user)
                    })
                    .map_err(|error| error.to_string())
                    .map(|now| {
                        // Another node may have upgraded it first, with another salt. If the
                        // password matches that hash too, the account is the same. Otherwise the
                        // stamp stays, and the change is noticed.
                        let is_same = |now: &String| {
                            *now == hash
                                || matches!(passwords.verify(Some(now), &password), PasswordVerdict::Right { .. })
                        };
                        if let Some(now) = now.filter(is_same) {
                            let (from, to) = (passwords.stamp(&stored), passwords.stamp(&now));
                            passwords.restamp(user, from, to);
                            stamps.restamp(user, from, to);
                        }
                    }),
                Err(error) => Err(error.to_string()),
            };
            stamps.upgraded(user);
            if let Err(error) = upgraded {
                log::warn!("the password of user {user} is still stored as it was: {error}");
            }
        };
        if upgrade == Upgrade::Hash {
            self.stamps.upgrading(user, self.clock.now() + UPGRADE_PATIENCE);
        }
        let upgrader = self.upgrader.lock();
        if upgrader.as_ref().is_none_or(|upgrader| upgrader.submit(work).is_err()) {
            self.stamps.upgraded(user);
            log::debug!("the password of user {user} is stored as it was until the next login");
        }
    }

    /// Creates an account. Blocks.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`] when the name is in use.
    pub fn make(&self, name: &str, password: &str) -> Result<UserId, StoreError> {
        let credential = if self.fits_hashes() {
            Cow::Owned(self.passwords.hash(password).map_err(|error| StoreError::Failed(Box::new(error)))?)
        } else {
            Cow::Borrowed(password)
        };
        self.store.get()?.register(name, &credential)
    }

    pub(super) fn register(&self, name: &str, password: &str) -> Result<Outcome, StoreError> {
        match self.make(name, password) {
            Err(StoreError::NameTaken) => Ok(Outcome::Reply(protocol::SERVER_ERROR.into())),
            result => Ok(reply(protocol::registered(result?))),
        }
    }
}

/// A right password, and the stored value that is to be upgraded in this way.
type CheckedPassword = (RightPassword, Option<(String, Upgrade)>);

/// Not a wrong password: a later login may succeed.
pub(super) fn changes_all_the_time() -> StoreError {
    StoreError::Unavailable("the stored password changes all the time".into())
}

/// The most checks of a password whose stored value is replaced meanwhile.
const CHECKS_MAX: usize = 3;
/// How long an upgrade may wait before the account is compared with the database nevertheless.
const UPGRADE_PATIENCE: Duration = Duration::from_secs(30);
/// How long after the start of a node other nodes may run an older build, because a cluster is
/// updated node by node.
const ROLLING_UPDATE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use parking_lot::RwLock;

    use super::*;
    use crate::base::rows::User;
    use crate::bus::local::LocalBus;

    /// One account. Each time it is read, somebody is logged out of everything.
    struct Busy {
        stored: RwLock<String>,
        passwords: Arc<Passwords>,
        /// Is given another password each time.
        is_changing: bool,
    }

    impl Accounts for Busy {
        fn fits_hashes(&self) -> bool {
            true
        }
        fn credential(&self, user: UserId) -> Result<Option<String>, StoreError> {
            let stored = self.stored.read().clone();
            self.passwords.forget(user);
            if self.is_changing {
                *self.stored.write() = self.passwords.hash("secret").unwrap();
            }
            Ok(Some(stored))
        }
        fn register(&self, _: &str, _: &str) -> Result<UserId, StoreError> {
            unreachable!()
        }
        fn replace_credential(&self, _: UserId, _: &str, _: &str) -> Result<(), StoreError> {
            Ok(())
        }
        fn user(&self, _: UserId) -> Result<Option<User>, StoreError> {
            unreachable!()
        }
        fn user_named(&self, _: &str) -> Result<Option<User>, StoreError> {
            unreachable!()
        }
    }

    fn check(is_changing: bool) -> Result<Option<RightPassword>, StoreError> {
        let passwords = Arc::new(Passwords::new(8, 1, 1, Duration::from_secs(60)).unwrap());
        let stored = RwLock::new(passwords.hash("secret").unwrap());
        let store = Role::of(Arc::new(Busy { stored, passwords: passwords.clone(), is_changing }) as Arc<dyn Accounts>);
        let clock = Clock::default();
        let stamps = Arc::new(AccountStamps::new(clock.clone()));
        let jobs = LoginJobs::new(store, Arc::new(LocalBus), clock, (passwords, stamps), None);
        jobs.check(Some(UserId(7)), "secret")
    }

    /// Found by a review: it was called wrong, and counted as a guess.
    #[test]
    fn a_right_password_that_cannot_be_settled_may_be_tried_again() {
        assert!(matches!(check(true), Err(StoreError::Unavailable(_))), "it is replaced all the time");
        assert!(
            matches!(check(false), Err(StoreError::Unavailable(_))),
            "others of the shard are logged out all the time"
        );
    }
}
