//! [`Entry`]: a login at level 2 until it is complete.
//!
//! ```text
//!   name ──▶ id ──▶ password or token is right ──▶ row of the device ──▶ other nodes send here ──▶ 40
//! ```
//! Each arrow is work of a thread or of the bus. The steps are decided here; whoever calls carries
//! them out and says what became of them. A refusal at any step ends the entry.

use std::hash::BuildHasher as _;

use rustc_hash::FxBuildHasher;

use super::tasks::Identity;
use crate::base::collation::fold;
use crate::protocol::level2::frames::Refusal;
use crate::protocol::level2::{Have, Login, Proof, Rid, Who};
use crate::protocol::{Id, UserId};

/// A login that is under way.
#[derive(Debug)]
pub struct Entry {
    /// The device, as the client calls it.
    pub device: Box<str>,
    /// Seconds of the heartbeat.
    pub ping: u32,
    /// What the client holds.
    pub have: Have<'static>,
    /// The most messages of each run.
    pub resume: u32,
    /// Of the login.
    pub rid: Option<Rid>,
    who: Option<Who<'static>>,
    proof: Proof<'static>,
    /// How often the password was checked.
    checks: u32,
}

/// The first step of an entry.
#[derive(Debug)]
pub enum FirstStep {
    /// Find the user with this name, and go on with [`FirstStep::Check`].
    Find(String),
    /// Check the password of this user.
    Check(Id, String),
    /// Check the token.
    Verify(String),
    /// Refuse.
    Refuse(Refusal),
}

/// What a thread has found out for an entry.
#[derive(Debug)]
pub enum EntryNews {
    /// The user with the name, if there is one.
    Found(Option<UserId>),
    /// The row of the device is written, or the entry is refused.
    Admitted(Result<Box<Admitted>, Refusal>),
    /// The stored password is not the one any more that the client's was checked against: nothing is
    /// written, and the password is checked again.
    Outdated,
}

/// A device whose row is written, and what its client is told.
#[derive(Debug)]
pub struct Admitted {
    /// Its user and device.
    pub identity: Identity,
    /// The 40.
    pub welcome: String,
}

impl Entry {
    /// The login of a client, and what to do first.
    pub fn begin(login: Login<'_>, rid: Option<Rid>) -> (Entry, FirstStep) {
        let Login { who, proof, device, ping, have, resume } = login.into_owned();
        let step = match (&proof, &who) {
            (Proof::Password(password), Some(Who::Id(id))) => FirstStep::Check(*id, password.to_string()),
            (Proof::Password(_), Some(Who::Name(name))) => FirstStep::Find(name.to_string()),
            (Proof::Token(token), _) => FirstStep::Verify(token.to_string()),
            // The parser lets no password without a user through; JSON web tokens are not accepted.
            (Proof::Password(_), None) | (Proof::Jwt(_), _) => FirstStep::Refuse(WRONG),
        };
        (Entry { device: device.into(), ping, have, resume, rid, who, proof, checks: 0 }, step)
    }

    /// The password, for another check. `None` if there is none, or was checked often enough: it is
    /// being changed all the time.
    pub fn password_to_check(&mut self) -> Option<String> {
        self.checks += 1;
        match &self.proof {
            Proof::Password(password) if self.checks <= CHECKS_MAX => Some(password.to_string()),
            Proof::Password(_) | Proof::Token(_) | Proof::Jwt(_) => None,
        }
    }

    /// Whether the entry is refused because of its token.
    pub fn has_wrong_token(&self, refusal: &Refusal) -> bool {
        matches!(self.proof, Proof::Token(_) | Proof::Jwt(_)) && refusal.errno == WRONG.errno
    }

    /// How the client names its user.
    pub fn who(&self) -> NamedUser {
        NamedUser(self.who.clone())
    }

    /// Under which id wrong passwords for a name that nobody has are counted: no user's, and the same
    /// for the same name.
    pub fn id_of_unknown_name(&self) -> Id {
        let Some(Who::Name(name)) = &self.who else { return Id(0) };
        let hash = FxBuildHasher.hash_one(fold(name));
        Id(-1 - (hash >> 2) as i64)
    }
}

/// The user whom a client names beside its token, if it names one.
#[derive(Debug)]
pub struct NamedUser(Option<Who<'static>>);

impl NamedUser {
    /// Whether that is another one than this.
    pub fn is_another(&self, user: UserId, name: &str) -> bool {
        match &self.0 {
            Some(Who::Id(id)) => id.user() != Some(user),
            Some(Who::Name(given)) => fold(given) != fold(name),
            None => false,
        }
    }
}

/// A stored password may be replaced once while it is checked: by the upgrade of another node.
const CHECKS_MAX: u32 = 4;
/// Every wrong proof.
pub const WRONG: Refusal = Refusal::forever(302, "this user, password or token is wrong, or the token has expired");
