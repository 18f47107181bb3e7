//! [`Ledger`]: every message that clients have sent, and its fate for each of its recipients.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::bus::CONFIRMED_WITHIN;
use crate::protocol::UserId;

/// Names a connection of a client, for ever.
pub(super) type ConnNo = usize;

/// A message that a client has sent, and its fate.
pub(super) struct SentMessage {
    pub(super) from: ConnNo,
    /// Its number among the messages of its connection.
    pub(super) nth: u32,
    /// The barriers of its connection between which it was sent.
    pub(super) window: (ConnNo, u32),
    /// The number of bytes that the server has read once it has read this message.
    pub(super) ends_at: usize,
    pub(super) sent_at: usize,
    pub(super) sent: Instant,
    pub(super) forged: bool,
    /// Whether the client has got the answer to a later request, so that this message is settled.
    pub(super) acknowledged: bool,
    pub(super) copies: BTreeMap<UserId, Copy>,
}

/// The fate of a message for one recipient.
#[derive(Default)]
pub(super) struct Copy {
    /// The numbers of times that it was stored in the database, and deleted there.
    pub(super) stored: usize,
    pub(super) deleted: usize,
    /// The number of spools that hold it, and the number of times that it was put into one.
    pub(super) spooled: usize,
    pub(super) ever_spooled: usize,
    /// The connections it was written to, and those whose client has it.
    pub(super) written: BTreeSet<ConnNo>,
    pub(super) received: BTreeSet<ConnNo>,
    /// The number of replies to fetches with it that clients have got.
    pub(super) fetched: usize,
    /// The connections to which it must be written, each the newest of its user on its node.
    pub(super) owed: BTreeSet<ConnNo>,
    /// Whether a node that may have held it has crashed.
    pub(super) excused: bool,
    /// Whether it may be stored later than messages sent after it: the database failed while it was
    /// on its way, or a connection had it when something newer was stored that had gone another
    /// way.
    pub(super) late: bool,
    /// Whether a failure may have doubled it.
    pub(super) in_doubt: bool,
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) messages: Vec<SentMessage>,
    /// Errors that were written to the sender, by window.
    pub(super) errors: BTreeMap<(ConnNo, u32), usize>,
    /// The last message of a connection that a recipient has fetched.
    fetched: BTreeMap<(UserId, ConnNo), u32>,
    /// Whether a node has begun to stop.
    has_stopped: bool,
}

impl Copy {
    /// Whether the recipient has it, or it waits in the database.
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

    /// Notes that a client has got the reply to a fetch.
    pub(super) fn fetched(&mut self, user: UserId, numbers: &[u32], no_faults: bool) {
        for &number in numbers {
            let copy = self.copy(number, user);
            copy.fetched += 1;
            assert!(
                (copy.fetched == 1 && copy.received.is_empty()) || copy.in_doubt || !no_faults,
                "message {number} came twice to user {user}, though nothing had failed"
            );
            // One that is kept twice may come first at one of its places.
            let SentMessage { from, nth, ref copies, .. } = self.messages[number as usize];
            let copy = &copies[&user];
            let is_first = copy.fetched == 1 && copy.stored == 1 && !self.may_be_late(copy);
            if is_first {
                let last = self.fetched.entry((user, from)).or_insert(0);
                assert!(*last < nth, "message {number} was fetched out of order by user {user}: {nth} after {last}");
                *last = nth;
            }
        }
    }

    /// Excuses connections from messages that they have not written yet. `is_excused` gets the
    /// message, its user and the connection.
    pub(super) fn owe_no_more(&mut self, is_excused: impl Fn(&SentMessage, UserId, ConnNo) -> bool) {
        for message in &mut self.messages {
            let mut copies = std::mem::take(&mut message.copies);
            for (user, copy) in &mut copies {
                let Copy { owed, written, .. } = copy;
                owed.retain(|no| written.contains(no) || !is_excused(message, *user, *no));
            }
            message.copies = copies;
        }
    }

    /// Notes that the database fails.
    pub(super) fn note_outage(&mut self) {
        for copy in self.messages.iter_mut().flat_map(|message| message.copies.values_mut()) {
            copy.late |= !copy.is_there();
        }
    }

    /// Notes that the database was given a message, and which older messages of its sender may
    /// therefore be stored later. This is allowed if the newer one came back from another
    /// connection, or no node confirmed it in time. It needs one of two causes. Either the older
    /// message's connection is not yet known to be dead, or is known to be so on another node only
    /// (`is_apart`). Or the older one is on its way through another node, refused or in doubt,
    /// while the newer one was delivered there (`on_other_node`).
    pub(super) fn note_stored(
        &mut self,
        number: u32,
        to: UserId,
        now: Instant,
        is_apart: impl Fn(ConnNo, &BTreeSet<ConnNo>) -> bool,
        on_other_node: impl Fn(ConnNo, ConnNo) -> bool,
    ) {
        self.copy(number, to).stored += 1;
        let (before, rest) = self.messages.split_at_mut(number as usize);
        let (from, sent, newer) = (rest[0].from, rest[0].sent, &rest[0].copies[&to]);
        let was_given_up = newer.written.is_empty() && now - sent >= CONFIRMED_WITHIN;
        let came_through_other = newer.written.iter().any(|no| on_other_node(*no, from));
        let known_by = if was_given_up { BTreeSet::from([from]) } else { newer.written.clone() };
        for older in before.iter_mut().filter(|older| !known_by.is_empty() && older.from == from) {
            if let Some(older) = older.copies.get_mut(&to) {
                let is_other = older.written.is_disjoint(&newer.written) && !older.is_there();
                older.late |= is_other && older.written.iter().any(|no| is_apart(*no, &known_by));
                older.late |= came_through_other && older.written.is_empty() && !older.is_there();
            }
        }
    }

    /// Notes that a node begins to stop. A message that it writes to a connection comes back only
    /// when the connection ends without an acknowledgement. By then the user has left, and other
    /// nodes may have stored something newer.
    pub(super) fn note_stop(&mut self) {
        self.has_stopped = true;
    }

    /// Whether this copy may be stored later than messages that were sent after it.
    fn may_be_late(&self, copy: &Copy) -> bool {
        copy.late || (self.has_stopped && !copy.written.is_empty())
    }

    /// Checks that the messages left in the database will be fetched in order. If a late
    /// confirmation had a message stored twice, one copy in its place is enough.
    pub(super) fn check_kept(&self, user: UserId, numbers: impl Iterator<Item = u32>) {
        let mut by_sender: BTreeMap<ConnNo, Vec<u32>> = BTreeMap::new();
        for number in numbers {
            let SentMessage { from, nth, copies, .. } = &self.messages[number as usize];
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

    /// Checks everything after it has come to rest.
    pub(super) fn check_end(&self, is_required: impl Fn(&SentMessage) -> bool, no_faults: bool) {
        let mut missing: BTreeMap<(ConnNo, u32), Vec<usize>> = BTreeMap::new();
        for (number, message) in self.messages.iter().enumerate() {
            let was_told = self.errors.contains_key(&message.window);
            for (user, copy) in &message.copies {
                let unwritten: Vec<_> = copy.owed.difference(&copy.written).collect();
                assert!(
                    unwritten.is_empty() || was_told || message.forged || !is_required(message),
                    "message {number} has not come to every node that has user {user}: clients {unwritten:?} wait for it"
                );
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
