//! [`Incidents`]: the latest events of each user: logins, endings and errors.
//!
//! A table of [`SETS`] times [`WAYS`] entries. A user's id chooses the set, where a new entry
//! replaces the oldest. So a user has at most the latest [`WAYS`] entries, and a client that makes
//! errors without end pushes out those of one user in 512.

use parking_lot::Mutex;

use crate::base::ids::UserId;

/// A kind of incident.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Incident {
    /// The user has logged in, at this level.
    LoggedIn(u8),
    /// A password was wrong.
    WrongPassword,
    /// A login had to wait after wrong passwords.
    MustWait,
    /// A connection has ended, for this reason.
    Closed(&'static str),
    /// A reply to the user had this `errno`.
    Refused(u16),
    /// A connection did not take its messages and was closed.
    SlowConsumer,
    /// This number of messages came back from a connection that ended.
    Returned(u32),
}

/// An incident of a user, and its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Happened {
    /// Ms since 1970.
    pub at: i64,
    /// The user.
    pub user: UserId,
    /// Its kind.
    pub what: Incident,
    /// The number of times in a row.
    pub times: u32,
}

#[derive(Debug)]
pub(super) struct Incidents(Box<[Mutex<Vec<Happened>>]>);

impl Incidents {
    pub(super) fn add(&self, user: UserId, at: i64, what: Incident) {
        let mut set = self.0[set_of(user)].lock();
        let last = set.iter().rposition(|happened| happened.user == user);
        let times = match last.filter(|last| set[*last].what == what) {
            // The latest is at the end, for the oldest goes first.
            Some(same) => set.remove(same).times.saturating_add(1),
            None => 1,
        };
        if set.len() >= WAYS {
            set.remove(0);
        }
        set.push(Happened { at, user, what, times });
    }

    pub(super) fn of(&self, user: UserId) -> Vec<Happened> {
        self.0[set_of(user)].lock().iter().filter(|happened| happened.user == user).copied().collect()
    }
}

impl Default for Incidents {
    fn default() -> Incidents {
        Incidents((0..SETS).map(|_| Mutex::default()).collect())
    }
}

/// Ids are assigned consecutively.
fn set_of(user: UserId) -> usize {
    user.0.cast_unsigned() as usize % SETS
}

/// The sets, and the entries of each.
const SETS: usize = 512;
/// The most incidents of a user that are known.
pub const WAYS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_errors_of_one_user_leave_those_of_others() {
        let incidents = Incidents::default();
        let (quiet, greedy) = (UserId(1), UserId(2));
        incidents.add(quiet, 1, Incident::Closed("idle"));
        for at in 0..10_000 {
            incidents.add(greedy, at, Incident::Refused(if at % 2 == 0 { 403 } else { 404 }));
        }
        assert_eq!(incidents.of(quiet).len(), 1);
        let latest: Vec<i64> = incidents.of(greedy).iter().map(|happened| happened.at).collect();
        assert_eq!(latest, (9_992..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_repeated_incident_is_the_latest() {
        let incidents = Incidents::default();
        let (first, second) = (UserId(1), UserId(1 + SETS as i32));
        incidents.add(first, 1, Incident::SlowConsumer);
        (2..=WAYS as i64).for_each(|at| incidents.add(second, at, Incident::Refused(at as u16)));
        incidents.add(first, 100, Incident::SlowConsumer);
        incidents.add(second, 101, Incident::SlowConsumer);
        let known = incidents.of(first);
        assert_eq!(known, [Happened { at: 100, user: first, what: Incident::SlowConsumer, times: 2 }]);
        assert_eq!(incidents.of(second).first().map(|happened| happened.at), Some(3), "the oldest of the set is gone");
    }

    #[test]
    fn the_same_again_is_counted() {
        let incidents = Incidents::default();
        (1..=3).for_each(|at| incidents.add(UserId(1), at, Incident::Refused(429)));
        incidents.add(UserId(1 + SETS as i32), 4, Incident::SlowConsumer);
        incidents.add(UserId(1), 5, Incident::Refused(429));
        let known = incidents.of(UserId(1));
        assert_eq!(known, [Happened { at: 5, user: UserId(1), what: Incident::Refused(429), times: 4 }]);
    }
}
