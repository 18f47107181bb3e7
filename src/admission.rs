//! [`Admission`]: the clients that may connect, how often and how fast. The server asks it about
//! clients; the server, routing, deliveries and the spool take room from it.
//!
//! Limits apply to a connection ([`Meter`]), to an address ([`Source`]), or to an account from an
//! address ([`LoginFailures`]). Each is a setting, each can be off, and each counts its refusals.
//! Their state is plain data that gets the time as an argument. The locks around it are here; they
//! are leaf locks, taken once for a connection, a login or a registration, never for a message.
//!
//! Room is shared fairly among accounts and addresses ([`NestedShares`]): in the lanes
//! ([`berths`]), for requests that wait for the store ([`requests`]), and for replies with stored
//! messages ([`fetches`]).

mod allowance;
pub mod audit;
pub mod berths;
pub mod fetches;
mod frame_memory;
mod job_duration;
mod login_failures;
mod meter;
mod payer;
pub mod requests;
mod seat;
mod seats;
mod shares;
mod source;
mod strangers;
mod turns;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use net::{Complaints, Foreign};
use parking_lot::Mutex;

pub use self::allowance::Allowance;
use self::audit::{AuditEvent, AuditTrail};
pub use self::frame_memory::FrameMemory;
pub use self::job_duration::JobDuration;
pub use self::login_failures::LoginFailures;
pub use self::meter::{Excess, Meter, RateRefusal, Rates};
pub use self::payer::{Holder, Payer};
pub use self::seat::Seat;
pub use self::seats::{Crowd, Seats};
pub use self::shares::{NestedShares, Shares};
pub use self::source::Source;
pub use self::strangers::{StrangerId, Strangers};
pub use self::turns::Turns;
use crate::base::clock::Clock;
use crate::base::trace::Tracer;
use crate::config::{Config, Networks};
use crate::metrics::{Hit, Metrics};
use crate::protocol::Id;

/// The limits of one server. Any thread may call them.
#[derive(Debug)]
pub struct Admission {
    rates: Rates,
    seats: Mutex<Seats<Weak<dyn Guest>>>,
    /// The memory of unfinished frames.
    kept: Mutex<FrameMemory>,
    /// The proxies, from whose addresses many clients may come.
    proxies: Networks,
    login_timeout: Option<Duration>,
    logins: Mutex<LoginFailures>,
    registrations: Mutex<Allowance>,
    /// Places in the queue of the hashers.
    hashing: Mutex<Shares<Source>>,
    /// The complaints of each limit, so that a flood against one does not hide another.
    complaints: Mutex<[Complaints; Hit::COUNT]>,
    audit: AuditTrail,
    metrics: Arc<Metrics>,
    tracer: Arc<Tracer>,
    clock: Clock,
}

/// A connection that may have to leave.
pub trait Guest: fmt::Debug + Send + Sync {
    /// Asks the connection to leave because others need its descriptor, unless it has logged in
    /// meanwhile.
    fn make_room(&self);
}

/// A place in the queue of the hashers or at one of them, released when dropped.
#[derive(Debug)]
pub struct HasherSlot {
    admission: Arc<Admission>,
    source: Source,
}

/// A login that is being checked. If dropped without an outcome, it is not counted, unless the
/// password differed from the remembered one: then it counts as a failure.
#[derive(Debug)]
pub struct LoginAttempt {
    admission: Arc<Admission>,
    id: Id,
    source: Source,
    right: Option<bool>,
    /// Whether the password was compared.
    is_checked: bool,
    /// Whether the audit trail gets a line about a failure.
    is_noted: bool,
}

/// An account that is being created. If dropped without an outcome, it is not counted: the failure
/// was not the client's.
#[derive(Debug)]
pub struct Registration {
    admission: Arc<Admission>,
    source: Source,
    counts: bool,
}

impl Admission {
    /// The limits from the settings, with this number of descriptors for clients.
    pub fn new(config: &Config, descriptors: usize, metrics: Arc<Metrics>, clock: Clock) -> Admission {
        let rates = Rates { frames: config.frames_per_second, bytes: config.bytes_per_second, epoch: clock.now() };
        Admission {
            rates,
            seats: Mutex::new(Seats::new(config.connections_max, config.connections_per_address, descriptors)),
            kept: Mutex::new(FrameMemory::new(kept_bytes_max(config))),
            proxies: config.proxy_from.clone(),
            login_timeout: Some(config.login_timeout).filter(|time| !time.is_zero()),
            logins: Mutex::new(LoginFailures::new(config.login_failures, config.login_failures_per_address)),
            registrations: Mutex::new(Allowance::new(config.registrations_per_address)),
            hashing: Mutex::new(Shares::new(places(config))),
            complaints: Mutex::default(),
            audit: AuditTrail::default(),
            metrics,
            tracer: Arc::default(),
            clock,
        }
    }

    /// The same limits, which also note what happens to users in `tracer`.
    #[must_use]
    pub fn traced_by(self, tracer: Arc<Tracer>) -> Admission {
        Admission { tracer, ..self }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The rates at which each connection may send.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// Notes in the audit trail what a client at this address has done.
    pub fn note(&self, event: AuditEvent<'_>, from: Source, now: Instant) {
        if let Some((user, incident)) = event.incident() {
            self.tracer.happened(user, incident);
        }
        self.audit.note(event, from, now);
    }

    /// Seconds that a login has to wait before it may be tried; `None` if it may be tried now. A
    /// login that has to wait is not checked, so the answer reveals nothing about its password.
    pub fn login_wait(&self, id: Id, source: Source, now: Instant) -> Option<u32> {
        let (hit, wait) = self.logins.lock().wait(id, source, now)?;
        self.complain(hit, format_args!("a login as user {} from {source}", id.0), now);
        let wait = seconds(wait);
        self.note(AuditEvent::MustWait(id, wait), source, now);
        Some(wait)
    }

    /// Begins the check of a login. `differs` means that its password is not the remembered one. A
    /// client that gets any other answer than "right" has learnt that, so the attempt counts as
    /// wrong even if it is never checked.
    pub fn attempt(self: &Arc<Admission>, id: Id, source: Source, differs: bool, now: Instant) -> LoginAttempt {
        self.logins.lock().begin(id, source, now);
        LoginAttempt {
            admission: self.clone(),
            id,
            source,
            right: differs.then_some(false),
            is_checked: false,
            is_noted: true,
        }
    }

    /// Notes that a password was right, without the need of a check.
    pub fn recognised(&self, id: Id, source: Source) {
        self.logins.lock().succeeded(id, source);
    }

    /// Begins the creation of an account.
    ///
    /// # Errors
    ///
    /// The seconds to wait if the address has created too many.
    pub fn register(self: &Arc<Admission>, source: Source, now: Instant) -> Result<Registration, u32> {
        let taken = self.registrations.lock().take_if_any(source, now);
        match taken {
            Ok(()) => Ok(Registration { admission: self.clone(), source, counts: false }),
            Err(wait) => {
                self.complain(Hit::RegistrationsPerAddress, format_args!("a registration from {source}"), now);
                Err(seconds(wait))
            }
        }
    }

    /// Takes a place for a password that is going to be hashed. One address never has all places of
    /// the queue.
    pub fn queue(self: &Arc<Admission>, source: Source) -> Option<HasherSlot> {
        self.hashing.lock().take(source, 1).then(|| HasherSlot { admission: self.clone(), source })
    }

    /// Counts a login or a registration that found no place in the queue of the hashers.
    pub fn no_room(&self, source: Source, now: Instant) {
        self.complain(Hit::LoginsMax, format_args!("a login or registration from {source}"), now);
    }

    /// Counts a client that was refused because it spoke another protocol, and logs at most one
    /// line a minute about it.
    pub fn speaks(&self, foreign: Foreign, source: Source, now: Instant) {
        let (hit, protocol) = match foreign {
            Foreign::Tls => (Hit::Tls, "TLS"),
            Foreign::Plain { .. } => (Hit::Plain, "no TLS"),
        };
        self.metrics.refused(hit);
        log::debug!("closed a connection from {source}: it speaks {protocol}");
        let advice = match foreign {
            Foreign::Plain { .. } => "tls=require; have the client connect with TLS, or set tls=on",
            Foreign::Tls => "it is not set up here; set tls_cert, or have the client connect without it",
        };
        let raised = self.complaints.lock()[hit as usize].raise(now);
        match raised {
            Some(0) => log::warn!("closed a connection from {source} that speaks {protocol}: {advice}"),
            Some(unsaid) => {
                log::warn!("closed a connection from {source} that speaks {protocol}, and {unsaid} before it: {advice}")
            }
            None => {}
        }
    }

    /// Counts a refusal, and logs at most one line a minute about it.
    fn complain(&self, hit: Hit, whom: fmt::Arguments<'_>, now: Instant) {
        self.metrics.refused(hit);
        let key = hit.key();
        log::debug!("turned away {whom}: the limit {key} is reached");
        let raised = self.complaints.lock()[hit as usize].raise(now);
        let remedy = hit.remedy();
        match raised {
            Some(0) => log::warn!("turned away {whom}: the limit {key} is reached{remedy}"),
            Some(unsaid) => {
                log::warn!("turned away {whom}, and {unsaid} before it: the limit {key} is reached{remedy}")
            }
            None => {}
        }
    }
}

impl Drop for HasherSlot {
    fn drop(&mut self) {
        self.admission.hashing.lock().give_back(self.source, 1);
    }
}

impl LoginAttempt {
    /// The same attempt, whose failure the caller notes in the audit trail.
    #[must_use]
    pub fn noted_by_caller(mut self) -> LoginAttempt {
        self.is_noted = false;
        self
    }

    /// Ends the check. `right`: whether the password was right.
    pub fn end(mut self, right: bool) {
        self.right = Some(right);
        self.is_checked = true;
    }
}

impl Drop for LoginAttempt {
    fn drop(&mut self) {
        let LoginAttempt { ref admission, id, source, right, is_checked, is_noted } = *self;
        let now = admission.clock.now();
        admission.logins.lock().end(id, source, right, now);
        match (is_checked, right) {
            _ if !is_noted => {}
            (false, _) => admission.note(AuditEvent::NotChecked(id), source, now),
            (true, Some(false)) => admission.note(AuditEvent::WrongPassword(id), source, now),
            (true, _) => {}
        }
    }
}

impl Registration {
    /// Ends the creation: the account exists, or its failure is the client's fault.
    pub fn end(mut self) {
        self.counts = true;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if !self.counts {
            self.admission.registrations.lock().give_back(self.source, self.admission.clock.now());
        }
    }
}

/// The number of passwords that may wait or be hashed.
pub fn places(config: &Config) -> usize {
    config.logins_max + config.hashers
}

/// The bytes of unfinished frames: half of the memory for clients, but room for a few of the
/// longest frames.
fn kept_bytes_max(config: &Config) -> usize {
    (config.memory_bytes_max / 2).max(FRAMES_KEPT_MIN * config.frame_bytes_max)
}

/// The time in whole seconds, rounded up.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1)
}

/// A client that is not logged in may have a quarter of the memory for unfinished frames, and the
/// buffer of a frame may be twice as long as the frame.
const FRAMES_KEPT_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limit;

    #[test]
    fn seconds_are_never_too_few() {
        for (millis, expected) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
            assert_eq!(seconds(Duration::from_millis(millis)), expected);
        }
        assert_eq!(seconds(Duration::new(1, 1)), 2);
    }

    #[test]
    fn an_attempt_that_is_dropped_has_not_happened() {
        let config = Config::with_defaults("127.0.0.1:0".parse().unwrap());
        let admission = Arc::new(Admission::new(&config, usize::MAX, Arc::new(Metrics::new(1)), Clock::default()));
        let (source, now) = (Source::of([192, 0, 2, 1].into()), Instant::now());
        for _ in 0..1000 {
            drop(admission.attempt(Id(1), source, false, now));
        }
        assert_eq!(admission.login_wait(Id(1), source, now), None);
        while admission.login_wait(Id(1), source, now).is_none() {
            admission.attempt(Id(1), source, false, now).end(false);
        }
    }

    #[test]
    fn an_attempt_that_is_dropped_was_wrong_if_another_password_is_remembered() {
        let mut config = Config::with_defaults("127.0.0.1:0".parse().unwrap());
        config.login_failures = Limit(Some(3));
        let admission = Arc::new(Admission::new(&config, usize::MAX, Arc::new(Metrics::new(1)), Clock::default()));
        let (source, now) = (Source::of([192, 0, 2, 1].into()), Instant::now());
        admission.attempt(Id(1), source, true, now).end(true);
        for _ in 0..4 {
            assert_eq!(admission.login_wait(Id(1), source, now), None);
            drop(admission.attempt(Id(1), source, true, now));
        }
        assert!(admission.login_wait(Id(1), source, now).is_some());
    }
}
