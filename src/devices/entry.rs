//! [`PendingLogin`]: a login at level 2 until it is complete.
//!
//! ```text
//!   name ──▶ id ──▶ password or token is right ──▶ row of the device ──▶ other nodes send here ──▶ 40
//! ```
//! Each arrow is work of a thread or of the bus. The steps are decided here; the caller carries
//! them out and reports their results. A refusal at any step ends the entry.

use std::hash::BuildHasher as _;

use rustc_hash::FxBuildHasher;

use super::tasks::Identity;
use crate::base::collation::fold;
use crate::protocol::level2::frames::Refusal;
use crate::protocol::level2::{Have, Login, Proof, Rid, Who};
use crate::protocol::{Id, UserId};

/// A login that is under way.
#[derive(Debug)]
pub struct PendingLogin {
    /// The client's name for the device.
    pub device: Box<str>,
    /// The seconds between heartbeats.
    pub ping: u32,
    /// The messages that the client holds, as cursors.
    pub have: Have<'static>,
    /// The most messages of each run.
    pub resume: u32,
    /// The id of the login request.
    pub rid: Option<Rid>,
    who: Option<Who<'static>>,
    proof: Proof<'static>,
    /// The number of password checks so far.
    checks: u32,
}

/// The first step of an entry.
#[derive(Debug)]
pub enum FirstStep {
    /// Find the user with this name, and continue with [`FirstStep::Check`].
    Find(String),
    /// Check the password of this user.
    Check(Id, String),
    /// Check the token.
    Verify(String),
    /// Check the JSON web token.
    VerifyJwt(String),
    /// Refuse the login.
    Refuse(Refusal),
}

/// The result of a thread's work for a pending login.
#[derive(Debug)]
pub enum EntryNews {
    /// The user with the name, if any.
    Found(Option<UserId>),
    /// The row of the device is written, or the login is refused.
    Admitted(Result<Box<AdmittedDevice>, Refusal>),
    /// The stored password was replaced while the client's was checked against it. Nothing is
    /// written, and the password is checked again.
    Outdated,
}

/// A device whose row is written, and the reply for its client.
#[derive(Debug)]
pub struct AdmittedDevice {
    /// Its user and device.
    pub identity: Identity,
    /// The 40.
    pub welcome: String,
}

impl PendingLogin {
    /// Begins the login of a client, and returns its first step.
    pub fn begin(login: Login<'_>, rid: Option<Rid>) -> (PendingLogin, FirstStep) {
        let Login { who, proof, device, ping, have, resume } = login.into_owned();
        let step = match (&proof, &who) {
            (Proof::Password(password), Some(Who::Id(id))) => FirstStep::Check(*id, password.to_string()),
            (Proof::Password(_), Some(Who::Name(name))) => FirstStep::Find(name.to_string()),
            (Proof::Token(token), _) => FirstStep::Verify(token.to_string()),
            (Proof::Jwt(jwt), _) => FirstStep::VerifyJwt(jwt.to_string()),
            // The parser accepts no password without a user.
            (Proof::Password(_), None) => FirstStep::Refuse(WRONG),
        };
        (PendingLogin { device: device.into(), ping, have, resume, rid, who, proof, checks: 0 }, step)
    }

    /// The password, for another check. `None` if there is none, or if it was checked too often
    /// because the stored password keeps changing.
    pub fn password_to_check(&mut self) -> Option<String> {
        self.checks += 1;
        match &self.proof {
            Proof::Password(password) if self.checks <= CHECKS_MAX => Some(password.to_string()),
            Proof::Password(_) | Proof::Token(_) | Proof::Jwt(_) => None,
        }
    }

    /// Whether the login is refused because of its token.
    pub fn has_wrong_token(&self, refusal: &Refusal) -> bool {
        matches!(self.proof, Proof::Token(_)) && refusal.errno == WRONG.errno
    }

    /// The client's name of its user.
    pub fn who(&self) -> NamedUser {
        NamedUser(self.who.clone())
    }

    /// The id under which wrong passwords for an unknown name are counted: no user's id, and always
    /// the same for the same name.
    pub fn id_of_unknown_name(&self) -> Id {
        let Some(Who::Name(name)) = &self.who else { return Id(0) };
        id_of_name(name)
    }
}

/// The id under which failed logins with a name are counted that stands for no known user.
pub fn id_of_name(name: &str) -> Id {
    let hash = FxBuildHasher.hash_one(fold(name));
    Id(-1 - (hash >> 2) as i64)
}

/// The user whom a client names beside its token or JSON web token, if any.
#[derive(Debug)]
pub struct NamedUser(Option<Who<'static>>);

impl NamedUser {
    /// Whether the client names another user than this one.
    pub fn is_another(&self, user: UserId, name: &str) -> bool {
        match &self.0 {
            Some(Who::Id(id)) => id.user() != Some(user),
            Some(Who::Name(given)) => fold(given) != fold(name),
            None => false,
        }
    }

    /// Whether the client names its user by name, and not by id.
    pub fn is_name(&self) -> bool {
        matches!(self.0, Some(Who::Name(_)))
    }

    /// Whether the client may mean a user with this name who has no account yet.
    pub fn may_be_new(&self, name: &str) -> bool {
        match &self.0 {
            Some(Who::Id(_)) => false,
            Some(Who::Name(given)) => fold(given) == fold(name),
            None => true,
        }
    }
}

/// The most checks of one login. The upgrade of another node may replace a stored password once
/// while it is checked.
const CHECKS_MAX: u32 = 4;
/// The refusal of every wrong proof.
pub const WRONG: Refusal = Refusal::forever(302, "this user, password or token is wrong, or the token has expired");
