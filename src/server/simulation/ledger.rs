//! [`Ledger`]: every message that clients have sent, and what has become of it for each of its recipients.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::UserId;

/// Names a connection of a client, for ever.
pub(super) type ConnNo = usize;

pub(super) struct Message {
    pub(super) from: ConnNo,
    /// Which of its connection's messages it is.
    pub(super) nth: u32,
    /// Between which two barriers of its connection it was sent.
    pub(super) window: (ConnNo, u32),
    /// Up to where the server must have read to have read it.
    pub(super) ends_at: usize,
    pub(super) sent_at: usize,
    pub(super) forged: bool,
    /// The client has got the answer to a later request: it is settled.
    pub(super) acknowledged: bool,
    pub(super) copies: BTreeMap<UserId, Copy>,
}

/// What has become of a message for one recipient.
#[derive(Default)]
pub(super) struct Copy {
    /// How often the database was given it, and how often it was deleted there.
    pub(super) stored: usize,
    pub(super) deleted: usize,
    /// In how many spools it is, and how often it was put into one.
    pub(super) spooled: usize,
    pub(super) ever_spooled: usize,
    /// The connections it was written to, and those whose client has it.
    pub(super) written: BTreeSet<ConnNo>,
    pub(super) received: BTreeSet<ConnNo>,
    /// How often the replies to a fetch held it that clients have got.
    pub(super) fetched: usize,
    /// A node that may have held it has crashed.
    pub(super) excused: bool,
    /// The database failed while it was on its way: it may be kept later than what was sent after it by another node.
    pub(super) late: bool,
    /// Something has failed that may have doubled it.
    pub(super) in_doubt: bool,
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) messages: Vec<Message>,
    /// Errors that were written to the sender, by window.
    pub(super) errors: BTreeMap<(ConnNo, u32), usize>,
    /// The last message of a connection that a recipient has fetched.
    fetched: BTreeMap<(UserId, ConnNo), u32>,
    /// A node has begun to stop.
    has_stopped: bool,
}

impl Copy {
    /// The recipient has it, or it waits in the database.
    pub(super) fn is_there(&self) -> bool {
        !self.received.is_empty() || self.fetched > 0 || self.stored > self.deleted || self.spooled > 0
    }
}

impl Ledger {
    pub(super) fn copy(&mut self, number: u32, user: UserId) -> &mut Copy {
        let message =
            self.messages.get_mut(number as usize).unwrap_or_else(|| panic!("message {number} was never sent"));
        assert!(!message.forged, "somebody was let in: message {number}, sent in another's name, was let through");
        message
            .copies
            .get_mut(&user)
            .unwrap_or_else(|| panic!("message {number} went to user {user}, a stranger to it"))
    }

    /// A client has got the reply to a fetch.
    pub(super) fn fetched(&mut self, user: UserId, numbers: &[u32], no_faults: bool) {
        for &number in numbers {
            let copy = self.copy(number, user);
            copy.fetched += 1;
            assert!(
                (copy.fetched == 1 && copy.received.is_empty()) || copy.in_doubt || !no_faults,
                "message {number} came twice to user {user}, though nothing had failed"
            );
            // One that is kept twice may come first at one of its places.
            let Message { from, nth, ref copies, .. } = self.messages[number as usize];
            let copy = &copies[&user];
            let is_first = copy.fetched == 1 && copy.stored == 1 && !self.may_be_late(copy);
            if is_first {
                let last = self.fetched.entry((user, from)).or_insert(0);
                assert!(*last < nth, "message {number} was fetched out of order by user {user}: {nth} after {last}");
                *last = nth;
            }
        }
    }

    /// The database fails.
    pub(super) fn note_outage(&mut self) {
        for copy in self.messages.iter_mut().flat_map(|message| message.copies.values_mut()) {
            copy.late |= !copy.is_there();
        }
    }

    /// A node begins to stop. What it writes to a connection comes back only when that has ended without acknowledging it, and
    /// others may keep something newer for the user, who has left by then.
    pub(super) fn note_stop(&mut self) {
        self.has_stopped = true;
    }

    /// Whether it may be kept later than what was sent after it.
    fn may_be_late(&self, copy: &Copy) -> bool {
        copy.late || (self.has_stopped && !copy.written.is_empty())
    }

    /// What is left in the database will be fetched in order. Of one that is kept twice, a confirmation having come too late,
    /// it is enough that one copy is where it belongs.
    pub(super) fn check_kept(&self, user: UserId, numbers: impl Iterator<Item = u32>) {
        let mut by_sender: BTreeMap<ConnNo, Vec<u32>> = BTreeMap::new();
        for number in numbers {
            let Message { from, nth, copies, .. } = &self.messages[number as usize];
            if copies[&user].fetched == 0 && !self.may_be_late(&copies[&user]) {
                by_sender.entry(*from).or_default().push(*nth);
            }
        }
        for (from, kept) in by_sender {
            let last = self.fetched.get(&(user, from)).copied().unwrap_or(0);
            let mut rest = kept.as_slice();
            for nth in kept.iter().collect::<BTreeSet<_>>() {
                let at = rest.iter().position(|other| other == nth);
                let (true, Some(at)) = (last < *nth, at) else {
                    panic!("messages of client {from} are kept out of order for user {user}: {kept:?} after {last}");
                };
                rest = &rest[at + 1..];
            }
        }
    }

    /// Everything has come to rest.
    pub(super) fn check_end(&self, is_required: impl Fn(&Message) -> bool, no_faults: bool) {
        let mut missing: BTreeMap<(ConnNo, u32), Vec<usize>> = BTreeMap::new();
        for (number, message) in self.messages.iter().enumerate() {
            for (user, copy) in &message.copies {
                let places = copy.received.len() + copy.fetched + copy.stored - copy.deleted;
                assert!(
                    places <= 1 || copy.in_doubt || !no_faults || copy.received.len() == places,
                    "message {number} is with user {user} twice, though nothing had failed: {places} times"
                );
            }
            if !message.forged
                && is_required(message)
                && message.copies.values().any(|copy| !copy.is_there() && !copy.excused)
            {
                missing.entry(message.window).or_default().push(number);
            }
        }
        for (window, numbers) in missing {
            let errors = self.errors.get(&window).copied().unwrap_or(0);
            assert!(numbers.len() <= errors, "messages {numbers:?} are lost, and {errors} errors told of it");
        }
    }
}
