//! [`AuditTrail`]: the log lines about logins, failed logins and registrations, with the client's
//! address. They answer "why can user 17 not log in?".
//!
//! Every line is at level `info` under the name [`TARGET`], and is logged whatever `log_level` is:
//! only `log_level=info,audit=off` leaves them out. Lines of a client that fails without end would
//! hide those of others and fill the disk. So each address has [`LINES_AN_HOUR`] lines for
//! failures, as many for logins, and as many for changes of accounts: a client that finally guesses
//! a password is still seen to log in. A line once a minute reports how many more there were.
//! Passwords and tokens are never in a line.

use std::fmt;
use std::time::Instant;

use net::Complaints;
use parking_lot::Mutex;

use super::Source;
use super::allowance::Allowance;
use crate::base::trace::Incident;
use crate::config::Limit;
use crate::protocol::{Id, UserId};

/// The trail. Any thread may note an event.
#[derive(Debug)]
pub struct AuditTrail {
    lines: Mutex<[Allowance; EventKind::COUNT]>,
    left_out: Mutex<Complaints>,
}

/// The kinds of events whose lines do not take each other's room.
#[derive(Clone, Copy, Debug)]
enum EventKind {
    Failure,
    Login,
    Change,
}

impl EventKind {
    const COUNT: usize = 3;
}

/// An event that the audit trail notes.
#[derive(Clone, Copy, Debug)]
pub enum AuditEvent<'e> {
    /// A user has logged in at level 1.
    LoggedIn(UserId),
    /// A user has logged in at level 2, with this device.
    DeviceLoggedIn(UserId, &'e str),
    /// A password was wrong, or nobody has this id. A negative one stands for an unknown name.
    WrongPassword(Id),
    /// A password was not checked: the server was busy, or the database unavailable.
    NotChecked(Id),
    /// A token was wrong, revoked or too old.
    WrongToken,
    /// A JSON web token was refused for this reason.
    WrongJwt(&'e str),
    /// A login has to wait this many seconds after wrong passwords.
    MustWait(Id, u32),
    /// There is a new account with this name.
    Registered(&'e str),
    /// A user has changed the password.
    PasswordChanged(UserId),
    /// A user has deleted their account.
    Deleted(UserId),
    /// The key of the administration was wrong.
    WrongAdminKey,
}

impl AuditEvent<'_> {
    fn kind(&self) -> EventKind {
        match self {
            AuditEvent::LoggedIn(_) | AuditEvent::DeviceLoggedIn(..) => EventKind::Login,
            AuditEvent::Registered(_) | AuditEvent::PasswordChanged(_) | AuditEvent::Deleted(_) => EventKind::Change,
            AuditEvent::WrongPassword(_)
            | AuditEvent::NotChecked(_)
            | AuditEvent::WrongToken
            | AuditEvent::WrongJwt(_)
            | AuditEvent::WrongAdminKey
            | AuditEvent::MustWait(..) => EventKind::Failure,
        }
    }

    /// The user of this event and the incident to remember, if the operator may ask about that
    /// user.
    pub(super) fn incident(&self) -> Option<(UserId, Incident)> {
        match *self {
            AuditEvent::LoggedIn(user) => Some((user, Incident::LoggedIn(1))),
            AuditEvent::DeviceLoggedIn(user, _) => Some((user, Incident::LoggedIn(2))),
            AuditEvent::WrongPassword(id) => Some((id.user()?, Incident::WrongPassword)),
            AuditEvent::MustWait(id, _) => Some((id.user()?, Incident::MustWait)),
            _ => None,
        }
    }

    /// Its name for programs that read the log.
    fn name(&self) -> &'static str {
        match self {
            AuditEvent::LoggedIn(_) | AuditEvent::DeviceLoggedIn(..) => "login",
            AuditEvent::WrongPassword(_) => "wrong_password",
            AuditEvent::NotChecked(_) => "not_checked",
            AuditEvent::WrongToken => "wrong_token",
            AuditEvent::WrongJwt(_) => "wrong_jwt",
            AuditEvent::MustWait(..) => "must_wait",
            AuditEvent::Registered(_) => "registration",
            AuditEvent::PasswordChanged(_) => "password_change",
            AuditEvent::Deleted(_) => "account_deletion",
            AuditEvent::WrongAdminKey => "wrong_admin_key",
        }
    }

    /// The id that it is about, if there is one.
    fn user(&self) -> Option<i64> {
        match *self {
            AuditEvent::LoggedIn(user)
            | AuditEvent::DeviceLoggedIn(user, _)
            | AuditEvent::PasswordChanged(user)
            | AuditEvent::Deleted(user) => Some(user.0.into()),
            AuditEvent::WrongPassword(id) | AuditEvent::NotChecked(id) | AuditEvent::MustWait(id, _) => {
                Some(id.0).filter(|id| *id >= 0)
            }
            AuditEvent::WrongToken
            | AuditEvent::WrongJwt(_)
            | AuditEvent::WrongAdminKey
            | AuditEvent::Registered(_) => None,
        }
    }
}

impl fmt::Display for AuditEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuditEvent::LoggedIn(user) => write!(f, "user {} has logged in", user.0),
            AuditEvent::DeviceLoggedIn(user, device) => write!(f, "user {} has logged in on device {device:?}", user.0),
            AuditEvent::WrongPassword(id) if id.0 < 0 => f.write_str("wrong login as an unknown name"),
            AuditEvent::WrongPassword(id) => write!(f, "wrong password for user {}", id.0),
            AuditEvent::NotChecked(id) => write!(f, "the password of user {} was not checked", id.0.max(0)),
            AuditEvent::WrongToken => f.write_str("wrong or expired token"),
            AuditEvent::WrongJwt(why) => write!(f, "a JWT was refused, because {why};"),
            AuditEvent::MustWait(id, seconds) => {
                write!(f, "a login as user {} has to wait {seconds} s after wrong passwords", id.0)
            }
            AuditEvent::Registered(name) => write!(f, "new account {name:?}"),
            AuditEvent::PasswordChanged(user) => write!(f, "user {} has changed the password", user.0),
            AuditEvent::Deleted(user) => write!(f, "user {} has deleted their account", user.0),
            AuditEvent::WrongAdminKey => f.write_str("wrong key of the administration"),
        }
    }
}

impl AuditTrail {
    /// Notes an event that a client at this address has caused.
    pub fn note(&self, event: AuditEvent<'_>, from: Source, now: Instant) {
        if !log::log_enabled!(target: TARGET, log::Level::Info) {
            return;
        }
        if self.lines.lock()[event.kind() as usize].take_if_any(from, now).is_ok() {
            match event.user() {
                Some(user) => {
                    log::info!(target: TARGET, event = event.name(), user, from:% = from; "{event} from {from}");
                }
                None => log::info!(target: TARGET, event = event.name(), from:% = from; "{event} from {from}"),
            }
            return;
        }
        let raised = self.left_out.lock().raise(now);
        if let Some(before) = raised {
            let count = before + 1;
            log::warn!(
                target: TARGET,
                "{count} more lines like these, the last from {from}, were left out: an address has {LINES_AN_HOUR} of each kind an hour"
            );
        }
    }
}

impl Default for AuditTrail {
    fn default() -> AuditTrail {
        let lines = || Allowance::new(Limit(Some(LINES_AN_HOUR)));
        AuditTrail { lines: Mutex::new([lines(), lines(), lines()]), left_out: Mutex::default() }
    }
}

/// The name of the trail in the log.
pub const TARGET: &str = "audit";
/// The lines of one address for each kind of event within an hour. Behind a proxy that does not
/// tell addresses, these are the lines of all its clients.
const LINES_AN_HOUR: u32 = 1000;
