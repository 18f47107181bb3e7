//! [`AccessGuard`]: admits requests to the administration. A request needs the key, and a `Host`
//! that is not the name of a foreign page.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use ring::hmac;

use super::api::ApiAnswer;
use super::http::HttpRequest;
use crate::admission::audit::{AuditEvent, AuditTrail};
use crate::admission::{LoginFailures, Source};
use crate::config::{AdminKey, HostName, Hosts, Limit};
use crate::metrics::{Hit, Metrics};
use crate::protocol::Id;

/// Admits requests. Any thread may call it.
pub struct AccessGuard {
    /// The key for comparing hashes of keys, so that the duration reveals nothing about the right
    /// one.
    comparing: hmac::Key,
    /// The hash of the right key, if there is one.
    tag: RwLock<Option<hmac::Tag>>,
    hosts: RwLock<Hosts>,
    /// Wrong keys of each address.
    failures: Mutex<LoginFailures>,
    /// The numbers of requests being answered: those that may wait, and the others.
    working: [AtomicUsize; 2],
    audit: AuditTrail,
    metrics: Arc<Metrics>,
}

/// A request that is being answered.
pub(super) struct Working<'a>(&'a AtomicUsize);

impl AccessGuard {
    /// A guard with this key.
    ///
    /// # Errors
    /// The system provides no random bytes.
    pub fn new(key: &AdminKey, hosts: &Hosts, metrics: Arc<Metrics>) -> Result<AccessGuard, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let guard = AccessGuard {
            comparing: hmac::Key::new(hmac::HMAC_SHA256, &random),
            tag: RwLock::default(),
            hosts: RwLock::default(),
            failures: Mutex::new(LoginFailures::new(Limit(Some(FREE_FAILURES)), Limit(Some(FAILURES_AN_HOUR)))),
            working: Default::default(),
            audit: AuditTrail::default(),
            metrics,
        };
        guard.change(key, hosts);
        Ok(guard)
    }

    /// Changes the key and the names.
    pub fn change(&self, key: &AdminKey, hosts: &Hosts) {
        *self.tag.write() = key.0.as_ref().map(|key| hmac::sign(&self.comparing, key.expose().as_bytes()));
        *self.hosts.write() = hosts.clone();
    }

    /// Whether the request names this port by one of its own names, and not by that of a foreign
    /// page.
    pub(super) fn is_called_by_name(&self, request: &HttpRequest) -> bool {
        let host = request.host.as_deref().and_then(HostName::parse);
        host.is_some_and(|host| host.is_fixed() || self.hosts.read().contain(&host))
    }

    /// Whether the request may be answered. The right key is always accepted, so a client that
    /// guesses keys at the same address, such as 127.0.0.1, locks nobody out.
    ///
    /// # Errors
    /// The answer instead. An address that sends wrong keys has to wait, which bounds its lines
    /// in the log. This does not slow down guessing, because the right key is accepted meanwhile:
    /// the protection is the length of the key.
    pub(super) fn check(&self, request: &HttpRequest, from: IpAddr, now: Instant) -> Result<(), ApiAnswer> {
        if !self.is_called_by_name(request) {
            return Err(ApiAnswer::refused(421, WRONG_HOST));
        }
        let Some(tag) = *self.tag.read() else { return Err(ApiAnswer::refused(403, NO_KEY)) };
        let Some(given) = given_key(request) else { return Err(ApiAnswer::refused(401, KEY_MISSING)) };
        let is_right = hmac::verify(&self.comparing, given.as_bytes(), tag.as_ref()).is_ok();
        let source = Source::of(from);
        let mut failures = self.failures.lock();
        if is_right {
            failures.succeeded(ANYBODY, source);
            return Ok(());
        }
        if let Some((_, wait)) = failures.wait(ANYBODY, source, now) {
            self.metrics.refused(Hit::AdminKey);
            return Err(later(429, "too many wrong keys from this address, wait", wait));
        }
        failures.begin(ANYBODY, source, now);
        failures.end(ANYBODY, source, Some(false), now);
        drop(failures);
        self.metrics.refused(Hit::AdminKey);
        self.audit.note(AuditEvent::WrongAdminKey, source, now);
        Err(ApiAnswer::refused(401, "the key is wrong; it is the one in admin_key"))
    }

    /// Begins to answer a request for this path, until the result is dropped.
    ///
    /// # Errors
    /// The answer instead, if there is no room: each request has a thread, and may wait for the
    /// database or the disk. Requests that need neither have separate places.
    pub(super) fn begin(&self, path: &str) -> Result<Working<'_>, ApiAnswer> {
        let may_wait = MAY_WAIT.iter().any(|of_these| path.starts_with(of_these));
        let working = &self.working[usize::from(!may_wait)];
        if working.fetch_add(1, Ordering::AcqRel) >= AT_ONCE_MAX {
            working.fetch_sub(1, Ordering::AcqRel);
            return Err(self.too_many());
        }
        Ok(Working(working))
    }

    /// The answer to a request without a place.
    pub(super) fn too_many(&self) -> ApiAnswer {
        self.metrics.refused(Hit::AdminRequests);
        later(503, TOO_MANY, Duration::from_secs(1))
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for AccessGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("has_key", &self.tag.read().is_some()).finish_non_exhaustive()
    }
}

/// The key in a request.
pub(super) fn given_key(request: &HttpRequest) -> Option<&str> {
    request.authorization.as_deref().and_then(bearer)
}

/// The token of `Bearer TOKEN`.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn later(status: u16, why: &str, wait: Duration) -> ApiAnswer {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    ApiAnswer { retry_after: Some(seconds.max(1)), ..ApiAnswer::refused(status, why) }
}

/// There is only one key, so all attempts of an address count together.
const ANYBODY: Id = Id(0);
/// The wrong keys of an address that cause no delay.
const FREE_FAILURES: u32 = 5;
const FAILURES_AN_HOUR: u32 = 200;
/// The prefixes of paths whose answers may wait for the database or the disk.
const MAY_WAIT: [&str; 5] = ["/v1/users", "/v1/groups", "/v1/reload", "/v1/announcements", "/v1/trace"];
/// The most requests of each kind that are answered at the same time.
const AT_ONCE_MAX: usize = 4;
/// `server admin` knows it, and asks again.
pub(in crate::operation) const TOO_MANY: &str =
    "nothing was done, because other administrators have as many requests under way as may be: try again in a second";
pub(super) const WRONG_HOST: &str =
    "call this port by an address or localhost, or name the host of the request in the setting admin_hosts";
const NO_KEY: &str = "there is no administration: set admin_key in server.cnf, or RAYBOX_ADMIN_KEY, and send SIGHUP";
const KEY_MISSING: &str = "send the key: Authorization: Bearer KEY, with the one in admin_key";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Secret};

    const KEY: &str = "0123456789abcdef0123456789abcdef-right";

    fn guard() -> AccessGuard {
        let config = Config::with_defaults(([127, 0, 0, 1], 0).into());
        AccessGuard::new(&AdminKey(Some(Secret::new(KEY))), &config.admin_hosts, Arc::new(Metrics::new(1))).unwrap()
    }

    fn request(host: &str, authorization: &str) -> HttpRequest {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        HttpRequest { host: some(host), authorization: some(authorization), ..HttpRequest::default() }
    }

    fn status(guard: &AccessGuard, request: &HttpRequest, last: u8, now: Instant) -> u16 {
        guard.check(request, [192, 0, 2, last].into(), now).map_or_else(|answer| answer.status, |()| 200)
    }

    #[test]
    fn the_key_and_the_host_must_be_right() {
        let (guard, now) = (guard(), Instant::now());
        let right = format!("Bearer {KEY}");
        for (host, authorization, expected) in [
            ("127.0.0.1:9600", right.as_str(), 200),
            ("[::1]:9600", &right, 200),
            ("localhost", &right.replace("Bearer", "bearer"), 200),
            ("evil.example", &right, 421),
            ("127.0.0.1.evil.example", &right, 421),
            ("", &right, 421),
            ("localhost", "", 401),
            ("localhost", &right.replace("Bearer", "Basic"), 401),
            ("localhost", "Bearer 0123456789abcdef0123456789abcdef-wrong", 401),
            ("localhost", &right[..right.len() - 1], 401),
        ] {
            assert_eq!(status(&guard, &request(host, authorization), 1, now), expected, "{host} {authorization}");
        }
        guard.change(&AdminKey(None), &Hosts::default());
        assert_eq!(status(&guard, &request("localhost", &right), 1, now), 403, "no key opens nothing");
    }

    #[test]
    fn an_address_that_guesses_waits_and_one_that_has_the_key_does_not() {
        let (guard, now) = (guard(), Instant::now());
        let (right, wrong) = (request("localhost", &format!("Bearer {KEY}")), request("localhost", "Bearer wrong"));
        for _ in 0..=FREE_FAILURES {
            assert_eq!(status(&guard, &wrong, 1, now), 401);
        }
        assert_eq!(status(&guard, &wrong, 1, now), 429);
        assert_eq!(status(&guard, &wrong, 2, now), 401, "another address");
        assert_eq!(status(&guard, &wrong, 1, now + Duration::from_secs(2)), 401);
        // The guesser's address is that of the administrator.
        for _ in 0..1000 {
            assert_ne!(status(&guard, &wrong, 1, now), 200);
            assert_eq!(status(&guard, &right, 1, now), 200);
        }
    }

    #[test]
    fn only_some_requests_are_answered_at_once() {
        let guard = guard();
        let status = |path| guard.begin(path).err().map(|answer| answer.status);
        let working: Vec<_> = (0..AT_ONCE_MAX).map(|_| guard.begin("/v1/users/7").ok().unwrap()).collect();
        assert_eq!((status("/v1/groups"), status("/v1/reload")), (Some(503), Some(503)));
        // These do not wait, even if requests for the database do.
        let others: Vec<_> = (0..AT_ONCE_MAX).map(|_| guard.begin("/v1/drain").ok().unwrap()).collect();
        assert_eq!(status("/v1/node"), Some(503));
        drop(working);
        assert_eq!((status("/v1/users"), status("/v1/node")), (None, Some(503)));
        drop(others);
        assert_eq!(status("/v1/node"), None);
    }
}
