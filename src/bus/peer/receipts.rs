//! [`Receipts`]: pending confirmations to other nodes, and the users who may also be elsewhere.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::rules::PeerRules;
use crate::protocol::UserId;

/// Envelopes that have reached their users here. See the [module](self).
#[derive(Debug)]
pub(super) struct Receipts {
    /// Envelopes of users who are only here, by the node that sent them. Empty on a transport that
    /// names no places: one confirmation then serves all users.
    of_residents: FxHashMap<Box<str>, Vec<u64>>,
    /// All other envelopes.
    of_others: FxHashMap<Box<str>, Vec<u64>>,
    /// The users who may be elsewhere, each with the time at which the user logged in at another
    /// place or left this one. Until an entry expires, envelopes for the user addressed to this
    /// place alone are refused: their sender may not know that the user has moved.
    elsewhere: FxHashMap<UserId, Instant>,
    rules: PeerRules,
    /// The earliest time of the next confirmations.
    due: Instant,
}

/// Confirmations for one node.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Confirmation {
    /// The node that sent the envelopes.
    pub(super) sender: Box<str>,
    /// Whether their users are only here, and the transport names places.
    pub(super) of_residents: bool,
    pub(super) sequences: Vec<u64>,
}

impl Receipts {
    /// Starts without envelopes, and without users known to be elsewhere. A user who logs in
    /// elsewhere counts as being there for as long as the rules say.
    pub(super) fn new(rules: PeerRules, now: Instant) -> Receipts {
        Receipts {
            of_residents: FxHashMap::default(),
            of_others: FxHashMap::default(),
            elsewhere: FxHashMap::default(),
            rules,
            due: now,
        }
    }

    /// Notes that these users have logged in at another place, or have left this one.
    pub(super) fn note_elsewhere(&mut self, users: impl Iterator<Item = UserId>, now: Instant) {
        self.elsewhere.extend(users.map(|user| (user, now)));
    }

    /// Whether the user may also be elsewhere without all other nodes knowing it.
    pub(super) fn is_elsewhere(&self, user: UserId, now: Instant) -> bool {
        let since = self.elsewhere.get(&user);
        since.is_some_and(|since| now.saturating_duration_since(*since) < self.rules.elsewhere_for)
    }

    /// Drops expired entries, so that the table does not grow.
    pub(super) fn forget_expired(&mut self, now: Instant) {
        self.elsewhere.retain(|_, since| now.saturating_duration_since(*since) < self.rules.elsewhere_for);
    }

    /// Notes that an envelope has reached its user.
    pub(super) fn note(&mut self, user: UserId, sender: &str, sequence: u64, now: Instant) {
        let is_resident = self.rules.names_places && !self.is_elsewhere(user, now);
        let receipts = if is_resident { &mut self.of_residents } else { &mut self.of_others };
        append(receipts, sender, std::iter::once(sequence));
    }

    /// Takes the pending confirmations. The next ones are due a little later, because each wakes
    /// three threads of the node that gets it.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Confirmation> {
        if self.is_empty() {
            return Vec::new();
        }
        self.due = now + CONFIRM_EVERY;
        let of_residents = self.of_residents.drain().map(|receipts| (true, receipts));
        let of_others = self.of_others.drain().map(|receipts| (false, receipts));
        let all = of_residents.chain(of_others);
        all.map(|(of_residents, (sender, sequences))| Confirmation { sender, of_residents, sequences }).collect()
    }

    /// The time of the next confirmations: immediate after a pause, delayed and together while many
    /// envelopes arrive. `None` if nothing is pending.
    pub(super) fn next_due(&self) -> Option<Instant> {
        (!self.is_empty()).then_some(self.due)
    }

    fn is_empty(&self) -> bool {
        self.of_residents.is_empty() && self.of_others.is_empty()
    }
}

/// Adds sequences under a name, which is copied only if it is new.
pub(super) fn append(by_name: &mut FxHashMap<Box<str>, Vec<u64>>, name: &str, sequences: impl Iterator<Item = u64>) {
    match by_name.get_mut(name) {
        Some(noted) => noted.extend(sequences),
        None => drop(by_name.insert(name.into(), sequences.collect())),
    }
}

/// The least interval between confirmations. Only a sender who asks whether everything has arrived
/// waits for one.
const CONFIRM_EVERY: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    impl Receipts {
        /// The number of users whose logins elsewhere it remembers.
        pub(in crate::bus::peer) fn remembered(&self) -> usize {
            self.elsewhere.len()
        }
    }

    #[test]
    fn confirmations_wait_for_each_other_only_while_many_come() {
        let start = Instant::now();
        let mut receipts =
            Receipts::new(PeerRules { elsewhere_for: Duration::from_secs(60), ..PeerRules::default() }, start);
        assert_eq!((receipts.next_due(), receipts.take(start)), (None, Vec::new()));
        receipts.note(UserId(1), "a", 7, start);
        assert_eq!(receipts.next_due(), Some(start), "at once after a pause");
        let taken = receipts.take(start);
        assert_eq!(taken, [Confirmation { sender: "a".into(), of_residents: true, sequences: vec![7] }]);
        receipts.note(UserId(1), "a", 8, start);
        receipts.note(UserId(2), "a", 9, start);
        assert_eq!(receipts.next_due(), Some(start + CONFIRM_EVERY));
        assert_eq!(receipts.take(start + CONFIRM_EVERY)[0].sequences, [8, 9]);
    }

    #[test]
    fn a_user_who_may_be_elsewhere_is_not_a_resident_until_that_expires() {
        let (start, lease) = (Instant::now(), Duration::from_secs(60));
        let mut receipts = Receipts::new(PeerRules { elsewhere_for: lease, ..PeerRules::default() }, start);
        receipts.note_elsewhere([UserId(1)].into_iter(), start);
        for (after, of_residents) in [(Duration::ZERO, false), (lease - CONFIRM_EVERY, false), (lease, true)] {
            receipts.note(UserId(1), "a", 1, start + after);
            assert_eq!(receipts.take(start)[0].of_residents, of_residents, "after {after:?}");
        }
        receipts.forget_expired(start + lease - CONFIRM_EVERY);
        assert!(receipts.is_elsewhere(UserId(1), start + lease - CONFIRM_EVERY));
        receipts.forget_expired(start + lease);
        assert!(receipts.elsewhere.is_empty());
    }
}
