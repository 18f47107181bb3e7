//! [`JwtLogins`]: the accounts that JSON web tokens open, and new ones for their users.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::admission::Registration;
use crate::base::disabled::is_disabled;
use crate::base::made_by_jwt::JwtMarks;
use crate::devices::entry::{NamedUser, id_of_name};
use crate::protocol::{Id, UserId};
use crate::session::NAME_MAX;
use crate::session::jwt::{JwtRefusal, JwtUser, JwtVerifier, VerifiedJwt};
use crate::store::history::{History, HistoryRole, SharedKey};
use crate::store::{Accounts, Role, StoreError, User};

/// Opens accounts with JSON web tokens.
pub struct JwtLogins {
    verifier: Option<Arc<JwtVerifier>>,
    accounts: Role<dyn Accounts>,
    history: HistoryRole,
    /// The marks with each key that the cluster has had, the present one first.
    keys: Mutex<Vec<([u8; 32], Arc<JwtMarks>)>>,
}

/// An account that a token opens.
pub struct OpenedAccount {
    /// The account.
    pub account: User,
    /// Its stored password.
    pub stored: String,
    /// The time at which the token expires, in ms since 1970.
    pub expires: i64,
    /// Whether the token has just made the account.
    pub is_new: bool,
}

/// The reason why a token opens no account.
pub enum JwtDenial {
    /// It is wrong.
    Refused(JwtRefusal),
    /// It is right, but its address has made too many accounts. The client may try again after this
    /// number of seconds.
    Later(u32),
}

impl JwtLogins {
    /// Without a verifier, no token is right.
    pub fn new(
        verifier: Option<Arc<JwtVerifier>>,
        (accounts, history): (Role<dyn Accounts>, HistoryRole),
    ) -> JwtLogins {
        JwtLogins { verifier, accounts, history, keys: Mutex::default() }
    }

    /// Whether users may log in with JSON web tokens.
    pub fn is_on(&self) -> bool {
        self.verifier.is_some()
    }

    /// The id under which failures with this token are counted: that of the user whom it claims to
    /// be for, or one that stands for the claimed name. So wrong tokens make no other user wait.
    pub fn counted_as(&self, jwt: &str) -> Id {
        match self.verifier.as_ref().and_then(|verifier| verifier.claimed(jwt)) {
            Some(JwtUser::Id(id)) => id,
            Some(JwtUser::Name(name)) => id_of_name(&name),
            None => id_of_name(""),
        }
    }

    /// The account that this token opens for a client that names this user. The account is made if
    /// the settings say so and `register` allows it. Blocks.
    ///
    /// # Errors
    /// The store does not answer.
    pub fn open(
        &self,
        jwt: &str,
        who: &NamedUser,
        register: impl Fn() -> Result<Registration, u32>,
    ) -> Result<Result<OpenedAccount, JwtDenial>, StoreError> {
        let denied = |refusal| Ok(Err(JwtDenial::Refused(refusal)));
        let Some(verifier) = &self.verifier else { return denied(JwtRefusal::UnknownKey) };
        let VerifiedJwt { user, expires } = match verifier.verify(jwt) {
            Ok(verified) => verified,
            Err(refusal) => return denied(refusal),
        };
        let mut is_new = false;
        for _ in 0..ATTEMPTS_MAX {
            match self.find(&user)? {
                FoundAccount::Account(account, stored) => {
                    let may_open = !verifier.registers() || self.is_made_by_jwt(&account.name, &stored)?;
                    if !may_open || is_disabled(&stored) || who.is_another(account.id, &account.name) {
                        return denied(JwtRefusal::OtherAccount);
                    }
                    return Ok(Ok(OpenedAccount { account, stored, expires, is_new }));
                }
                FoundAccount::New(name) if verifier.registers() && who.may_be_new(name) => {
                    let registration = match register() {
                        Ok(registration) => registration,
                        Err(seconds) => return Ok(Err(JwtDenial::Later(seconds))),
                    };
                    match self.make(name) {
                        // Another login of this user has made it meanwhile.
                        Err(StoreError::NameTaken) => {}
                        made => {
                            made?;
                            registration.end();
                            is_new = true;
                        }
                    }
                }
                FoundAccount::New(_) | FoundAccount::Nobody => return denied(JwtRefusal::OtherAccount),
            }
        }
        Err(StoreError::Unavailable("the account changes all the time".into()))
    }

    /// The account of this user, if a token has made it and this one opens it. Blocks.
    ///
    /// # Errors
    /// The store does not answer.
    pub fn prove(&self, user: UserId, jwt: &str) -> Result<Option<OpenedAccount>, StoreError> {
        let Some(Ok(verified)) = self.verifier.as_ref().map(|verifier| verifier.verify(jwt)) else { return Ok(None) };
        let FoundAccount::Account(account, stored) = self.find(&verified.user)? else { return Ok(None) };
        let is_made_by_jwt = self.is_made_by_jwt(&account.name, &stored)?;
        let opens = account.id == user && is_made_by_jwt && !is_disabled(&stored);
        Ok(opens.then_some(OpenedAccount { account, stored, expires: verified.expires, is_new: false }))
    }

    fn find<'u>(&self, user: &'u JwtUser) -> Result<FoundAccount<'u>, StoreError> {
        let accounts = self.accounts.get()?;
        let account = match user {
            JwtUser::Id(id) => match id.user() {
                Some(id) => accounts.user(id)?,
                None => None,
            },
            JwtUser::Name(name) => accounts.user_named(name)?,
        };
        let Some(account) = account else {
            return Ok(match user {
                JwtUser::Name(name) if (1..=NAME_MAX).contains(&name.chars().count()) => FoundAccount::New(name),
                JwtUser::Name(_) | JwtUser::Id(_) => FoundAccount::Nobody,
            });
        };
        // Names are found without regard to case and accents, but the issuer may have a user of
        // each spelling.
        if matches!(user, JwtUser::Name(name) if *name != account.name) {
            return Ok(FoundAccount::Nobody);
        }
        Ok(match accounts.credential(account.id)? {
            Some(stored) => FoundAccount::Account(account, stored),
            None => FoundAccount::Nobody,
        })
    }

    fn make(&self, name: &str) -> Result<UserId, StoreError> {
        let stored = self.marks()?.without_password(name, &random()?);
        self.accounts.get()?.register(name, &stored)
    }

    /// Whether a JSON web token has made the account with this name and stored password.
    fn is_made_by_jwt(&self, name: &str, stored: &str) -> Result<bool, StoreError> {
        let proves = |keys: &[([u8; 32], Arc<JwtMarks>)]| keys.iter().any(|(_, marks)| marks.prove(name, stored));
        self.marks()?;
        if proves(&self.keys.lock()) {
            return Ok(true);
        }
        // The database may have lost the key of this mark, and another server has written it back.
        let Some(earlier) = self.history()?.stored_key(SharedKey::EarlierJwtMarks)? else { return Ok(false) };
        let mut keys = self.keys.lock();
        if keys.iter().all(|(key, _)| *key != earlier) {
            keys.truncate(KEYS_MAX - 1);
            keys.push((earlier, Arc::new(JwtMarks::new(&earlier))));
        }
        Ok(proves(&keys))
    }

    /// The marks with the cluster's present key. The first server that finds that the database has
    /// lost the key writes it back. If another server has made a new one before, both are valid.
    fn marks(&self) -> Result<Arc<JwtMarks>, StoreError> {
        let known = self.keys.lock().first().map(|(key, _)| *key);
        let history = self.history()?;
        let stored = history.shared_key(SharedKey::JwtMarks, known.map_or_else(random, Ok)?)?;
        if let Some(known) = known.filter(|known| *known != stored) {
            history.shared_key(SharedKey::EarlierJwtMarks, known)?;
        }
        let mut keys = self.keys.lock();
        match keys.iter().position(|(key, _)| *key == stored) {
            Some(at) => keys[..=at].rotate_right(1),
            None => {
                keys.truncate(KEYS_MAX - 1);
                keys.insert(0, (stored, Arc::new(JwtMarks::new(&stored))));
            }
        }
        Ok(keys[0].1.clone())
    }

    fn history(&self) -> Result<&dyn History, StoreError> {
        self.history.get()?.ok_or_else(|| StoreError::Failed("the tables have no level 2".into()))
    }
}

/// The result of the search for the user of a token.
enum FoundAccount<'u> {
    /// The account, and its stored password.
    Account(User, String),
    /// There is no account with this name, which is possible.
    New(&'u str),
    /// There is no such account, or one with a similar name.
    Nobody,
}

fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Failed(error.to_string().into()))?;
    Ok(bytes)
}

/// The most searches for an account that is made or deleted meanwhile.
const ATTEMPTS_MAX: usize = 3;
/// The most keys of marks that are remembered. There is more than one only after the database has
/// lost the key.
const KEYS_MAX: usize = 4;
