//! [`LoginFailures`]: recent failed logins, and how long clients have to wait before the next
//! attempt.
//!
//! Failures are counted for each pair of account and address. The first few cause no delay; then
//! every failure doubles the time until the next attempt. Clients from other addresses do not wait,
//! so an attacker cannot lock the owner out. An address may also have only a number of failures
//! within an hour, for all accounts together.
//!
//! An attempt that is being checked counts as a failure until it is known not to be one; otherwise
//! many concurrent ones would be free. But as long as none has failed, several times the free
//! number may be checked at the same time.

use std::time::{Duration, Instant};

use super::Source;
use super::allowance::Allowance;
use crate::base::recent::Recent;
use crate::config::Limit;
use crate::metrics::Hit;
use crate::protocol::Id;

/// Recent failed logins, and logins that are being checked.
#[derive(Debug)]
pub struct LoginFailures {
    free: Limit,
    failures: Recent<(Id, Source), RecentFailures>,
    of_address: Allowance,
}

#[derive(Clone, Copy, Debug)]
struct RecentFailures {
    count: u32,
    pending: u32,
    /// Earliest time of the next attempt, set by failures only. It is never derived from when an
    /// attempt began, because loops read the clock at different moments.
    until: Option<Instant>,
    /// The time of the last change.
    at: Instant,
}

impl LoginFailures {
    /// `free` failures of an account from an address without delay, and `an_hour` failures of an
    /// address within an hour.
    pub fn new(free: Limit, an_hour: Limit) -> LoginFailures {
        LoginFailures { free, failures: Recent::new(FAILURES_MAX), of_address: Allowance::new(an_hour) }
    }

    /// The time that the next attempt has to wait, and the limit that causes it; `None` if it may
    /// be made now.
    pub fn wait(&self, id: Id, source: Source, now: Instant) -> Option<(Hit, Duration)> {
        if let Some(wait) = self.of_address.wait(source, now) {
            return Some((Hit::LoginFailuresPerAddress, wait));
        }
        let free = self.free.0?;
        let failures = self.failures.get(&(id, source)).filter(|failures| !failures.is_over(now))?;
        let wait = failures.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        // Until one attempt is wrong, many connections may log in as one user at the same time.
        let trusted = failures.count == 0 && failures.pending < free.saturating_mul(AT_ONCE_FACTOR);
        let in_turn = failures.count + failures.pending <= free || failures.pending == 0 || trusted;
        match wait.is_zero() {
            false => Some((Hit::LoginFailures, wait)),
            true if in_turn => None,
            true => Some((Hit::LoginFailures, DELAY_MIN)),
        }
    }

    /// Begins an attempt; [`LoginFailures::end`] ends it.
    pub fn begin(&mut self, id: Id, source: Source, now: Instant) {
        self.of_address.take(source, now);
        if self.free.0.is_some() {
            let mut failures = self.of(id, source, now);
            failures.pending += 1;
            self.failures.insert((id, source), failures);
        }
    }

    /// Ends an attempt. `right`: whether the password was right, `None` if it was not checked.
    pub fn end(&mut self, id: Id, source: Source, right: Option<bool>, now: Instant) {
        if right != Some(false) {
            self.of_address.give_back(source, now);
        }
        let Some(free) = self.free.0 else { return };
        let mut failures = self.of(id, source, now);
        failures.pending = failures.pending.saturating_sub(1);
        failures.at = now;
        match right {
            Some(true) => (failures.count, failures.until) = (0, None),
            Some(false) => {
                failures.count += 1;
                failures.until = delay(failures.count.saturating_sub(free)).map(|delay| now + delay);
            }
            None => {}
        }
        if failures.count == 0 && failures.pending == 0 {
            self.failures.remove(&(id, source));
        } else {
            self.failures.insert((id, source), failures);
        }
    }

    /// Notes a right password for which no attempt had begun.
    pub fn succeeded(&mut self, id: Id, source: Source) {
        match self.failures.get_mut(&(id, source)) {
            Some(failures) if failures.pending > 0 => (failures.count, failures.until) = (0, None),
            Some(_) => self.failures.remove(&(id, source)),
            None => {}
        }
    }

    fn of(&self, id: Id, source: Source, now: Instant) -> RecentFailures {
        let failures = self.failures.get(&(id, source)).filter(|failures| !failures.is_over(now));
        failures.copied().unwrap_or(RecentFailures { count: 0, pending: 0, until: None, at: now })
    }
}

impl RecentFailures {
    /// Whether the failures are too old to count.
    fn is_over(&self, now: Instant) -> bool {
        self.pending == 0 && now.saturating_duration_since(self.at) >= FORGOTTEN_AFTER
    }
}

/// The delay after the nth failure that is not free.
fn delay(nth: u32) -> Option<Duration> {
    let doublings = nth.checked_sub(1)?.min(16);
    Some(DELAY_MIN.saturating_mul(1 << doublings).min(DELAY_MAX))
}

/// While none has failed, this many attempts per free failure may be checked at the same time: a
/// user may have many connections, which all reconnect at the same time.
const AT_ONCE_FACTOR: u32 = 8;
const DELAY_MIN: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(60);
/// Failures are forgotten if none has followed for this time.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// Pairs of account and address that are remembered; about 15 MB at most.
const FAILURES_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Id = Id(1);
    const BOB: Id = Id(2);

    struct Tester {
        logins: LoginFailures,
        now: Instant,
    }

    impl Tester {
        fn new(free: u32, an_hour: u32) -> Tester {
            Tester { logins: LoginFailures::new(Limit(Some(free)), Limit(Some(an_hour))), now: Instant::now() }
        }

        /// Makes an attempt that is checked immediately; returns the seconds to wait if it may not
        /// be made.
        fn attempt(&mut self, id: Id, from: u8, right: bool) -> Option<u64> {
            if let Some((_, wait)) = self.logins.wait(id, source(from), self.now) {
                return Some(wait.as_secs());
            }
            self.logins.begin(id, source(from), self.now);
            self.logins.end(id, source(from), Some(right), self.now);
            None
        }

        fn pass(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }
    }

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into())
    }

    #[test]
    fn the_clock_of_a_loop_that_is_behind_makes_nobody_wait() {
        let mut tester = Tester::new(3, 1000);
        let behind = tester.now;
        tester.now += Duration::from_millis(5);
        tester.logins.begin(ANN, source(1), tester.now);
        assert_eq!(tester.logins.wait(ANN, source(1), behind), None);
        tester.logins.end(ANN, source(1), Some(false), tester.now);
        assert_eq!(tester.logins.wait(ANN, source(1), behind), None, "it is free");
    }

    #[test]
    fn the_delay_grows_up_to_a_minute() {
        let mut tester = Tester::new(3, 1000);
        for _ in 0..3 {
            assert_eq!(tester.attempt(ANN, 1, false), None);
        }
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(tester.attempt(ANN, 1, false), None);
            assert_eq!(tester.attempt(ANN, 1, true), Some(seconds), "even if it is right");
            tester.pass(seconds - 1);
            assert_eq!(tester.attempt(ANN, 1, true), Some(1));
            tester.pass(1);
        }
    }

    #[test]
    fn other_addresses_and_other_accounts_are_not_concerned() {
        let mut tester = Tester::new(0, 1000);
        assert_eq!(tester.attempt(ANN, 1, false), None);
        assert_eq!(tester.attempt(ANN, 1, true), Some(1));
        assert_eq!(tester.attempt(ANN, 2, true), None);
        assert_eq!(tester.attempt(BOB, 1, true), None);
        assert_eq!(tester.attempt(ANN, 1, true), Some(1), "what others do does not help");
    }

    #[test]
    fn success_and_time_make_it_forget() {
        let mut tester = Tester::new(1, 1000);
        for _ in 0..2 {
            assert_eq!(tester.attempt(ANN, 1, false), None);
        }
        tester.pass(1);
        assert_eq!(tester.attempt(ANN, 1, true), None);
        assert_eq!(tester.attempt(ANN, 1, false), None);
        assert_eq!(tester.attempt(ANN, 1, false), None, "the first one was free again");
        assert_eq!(tester.attempt(ANN, 1, false), Some(1));
        tester.pass(FORGOTTEN_AFTER.as_secs());
        assert_eq!(tester.attempt(ANN, 1, false), None);
        assert_eq!(tester.attempt(ANN, 1, false), None);
    }

    #[test]
    fn many_at_once_are_bounded_and_after_a_failure_no_more_than_are_free() {
        let mut tester = Tester::new(2, 1000);
        let begin_all = |tester: &mut Tester, id| {
            let mut begun = 0;
            while tester.logins.wait(id, source(1), tester.now).is_none() {
                tester.logins.begin(id, source(1), tester.now);
                begun += 1;
            }
            begun
        };
        assert_eq!(tester.attempt(BOB, 1, false), None);
        assert_eq!(begin_all(&mut tester, BOB), 2);
        assert_eq!(begin_all(&mut tester, ANN), 16);
        (0..14).for_each(|_| tester.logins.end(ANN, source(1), Some(true), tester.now));
        // One attempt was not checked, one was right: there is no failure.
        tester.logins.end(ANN, source(1), None, tester.now);
        tester.logins.end(ANN, source(1), Some(true), tester.now);
        assert_eq!(tester.attempt(ANN, 1, true), None);
    }

    #[test]
    fn success_ends_the_wait_of_those_who_came_with_it() {
        let mut tester = Tester::new(1, 1000);
        (0..4).for_each(|_| tester.logins.begin(ANN, source(1), tester.now));
        (0..2).for_each(|_| tester.logins.end(ANN, source(1), Some(false), tester.now));
        assert!(tester.logins.wait(ANN, source(1), tester.now).is_some());
        tester.logins.end(ANN, source(1), Some(true), tester.now);
        assert_eq!(tester.logins.wait(ANN, source(1), tester.now), None, "another one is still being checked");
        tester.logins.end(ANN, source(1), Some(false), tester.now);
        assert_eq!(tester.logins.wait(ANN, source(1), tester.now), None, "it is free");
    }

    #[test]
    fn a_user_who_is_logged_in_leaves_nothing_behind() {
        let mut tester = Tester::new(3, 1000);
        for from in 0..10 {
            assert_eq!(tester.attempt(ANN, from, true), None);
            assert_eq!(tester.attempt(BOB, from, false), None);
            tester.logins.succeeded(BOB, source(from));
        }
        assert_eq!(tester.logins.failures.len(), 0);
    }

    #[test]
    fn an_address_may_fail_so_often_whatever_the_account() {
        let mut tester = Tester::new(100, 2);
        assert_eq!(tester.attempt(Id(10), 1, false), None);
        assert_eq!(tester.attempt(Id(11), 1, true), None, "a right one costs nothing");
        assert_eq!(tester.attempt(Id(12), 1, false), None);
        assert_eq!(tester.attempt(Id(13), 1, true), Some(1800));
        assert_eq!(tester.attempt(Id(13), 2, true), None);
        tester.pass(1800);
        assert_eq!(tester.attempt(Id(13), 1, true), None);
    }

    #[test]
    fn off_is_off() {
        let (mut logins, now) = (LoginFailures::new(Limit(None), Limit(None)), Instant::now());
        for _ in 0..1000 {
            assert_eq!(logins.wait(ANN, source(1), now), None);
            logins.begin(ANN, source(1), now);
            logins.end(ANN, source(1), Some(false), now);
        }
    }
}
