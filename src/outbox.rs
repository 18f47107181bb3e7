//! [`Outbox`]: messages on their way to other nodes.
//!
//! A message that another node has taken stays here until that node confirms it. If no confirmation comes in time, the
//! node has died or the bus has lost the message, and it is kept in the store. So no failure of another node or of the
//! bus costs a message, and nothing is written to a disk while all goes well.
//!
//! ```text
//!            published                     confirmed
//!   message ───────────▶ in flight ───────────────────────▶ settled
//!      │  nobody wants it    │ not confirmed in time
//!      └──▶ store ◀──────────┘
//! ```
//! While something for a user is in flight, a message that nobody wants any more waits behind it: the user has just left
//! or a node has just died, and what is in flight may have to go to the store first. That keeps the order.
//!
//! A state machine without I/O of its own, run by one lane: batches go in with the time, what is to be kept comes out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::bus::{Bus, Envelope, Published};
use crate::delivery::{Delivery, LaneItem, Origin};
use crate::protocol::UserId;

/// What comes in.
pub enum OutItem {
    /// A message for a user who is not on this node, or work on a user's kept messages.
    Lane(LaneItem),
    /// These envelopes have reached their users, or a store.
    Confirmed(Vec<u64>),
}

/// What goes out of the [`Outbox`], in this order.
#[derive(Default)]
pub struct Sorted {
    /// For the store.
    pub keep: Vec<LaneItem>,
    /// Confirmed by their nodes.
    pub delivered: Vec<Delivery>,
    /// When to come again if nothing else happens.
    pub again: Option<Duration>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Outbox {
    sequence: u64,
    users: FxHashMap<UserId, Line>,
    /// Whose envelope has which sequence, and when it is given up; ascending in both.
    in_flight: VecDeque<(u64, UserId, Instant)>,
}

/// What is on its way to one user.
#[derive(Debug, Default)]
struct Line {
    /// Taken by other nodes, oldest first.
    in_flight: VecDeque<Envelope>,
    /// Not wanted by any when it was offered; behind what is in flight.
    waiting: Vec<Delivery>,
}

impl Outbox {
    /// Takes a batch. Blocks while the bus publishes.
    pub fn handle(&mut self, batch: Vec<OutItem>, now: Instant, bus: &dyn Bus) -> Sorted {
        let mut sorted = Sorted::default();
        let mut offers = Offers::default();
        // Confirmations that have come are looked at before any envelope is found to be late.
        for item in &batch {
            if let OutItem::Confirmed(sequences) = item {
                for sequence in sequences {
                    self.confirm(*sequence, &mut offers, &mut sorted);
                }
            }
        }
        self.expire(now, &mut sorted);
        for item in batch {
            match item {
                OutItem::Lane(LaneItem::Delivery(delivery)) => {
                    let user = delivery.to;
                    let is_remote = matches!(delivery.origin, Origin::Remote(_));
                    // It has been sent once and came too late: sent again, it could go round in circles.
                    if is_remote && offers.has(user) {
                        self.publish(std::mem::take(&mut offers), now, bus, &mut sorted);
                    }
                    match self.users.get_mut(&user) {
                        _ if !is_remote => self.offer(delivery, &mut offers),
                        Some(line) => line.waiting.push(delivery),
                        None => sorted.keep.push(LaneItem::Delivery(delivery)),
                    }
                }
                OutItem::Lane(LaneItem::Work(user, work)) => {
                    // What was sent to the user before must be kept before.
                    if offers.has(user) {
                        self.publish(std::mem::take(&mut offers), now, bus, &mut sorted);
                    }
                    sorted.keep.push(LaneItem::Work(user, work));
                }
                OutItem::Confirmed(_) => {}
            }
        }
        self.publish(offers, now, bus, &mut sorted);
        sorted.again = self.in_flight.front().map(|(_, _, by)| by.saturating_duration_since(now).max(SHORTEST_PAUSE));
        self.check_invariants();
        sorted
    }

    /// How many envelopes are not confirmed yet.
    pub fn in_flight(&self) -> usize {
        self.users.values().map(|line| line.in_flight.len()).sum()
    }

    fn offer(&mut self, delivery: Delivery, offers: &mut Offers) {
        match self.users.get_mut(&delivery.to) {
            Some(line) if !line.waiting.is_empty() => line.waiting.push(delivery),
            Some(_) | None => offers.add(delivery),
        }
    }

    /// An envelope has arrived: its messages are settled, and what waited behind the last one is offered again.
    fn confirm(&mut self, sequence: u64, offers: &mut Offers, sorted: &mut Sorted) {
        let Ok(at) = self.in_flight.binary_search_by_key(&sequence, |(sequence, ..)| *sequence) else { return };
        let user = self.in_flight[at].1;
        // It was given up, and has arrived all the same.
        let Some(line) = self.users.get_mut(&user) else { return };
        let Some(at) = line.in_flight.iter().position(|envelope| envelope.sequence == sequence) else { return };
        let envelope = line.in_flight.remove(at).expect("it was found there");
        sorted.delivered.extend(envelope.deliveries);
        if line.in_flight.is_empty() {
            let line = self.users.remove(&user).expect("it was found");
            line.waiting.into_iter().for_each(|delivery| offers.add(delivery));
        }
    }

    /// Gives up envelopes that were not confirmed in time.
    fn expire(&mut self, now: Instant, sorted: &mut Sorted) {
        while let Some(&(sequence, user, by)) = self.in_flight.front() {
            let line = self.users.get_mut(&user);
            let is_first = |line: &&mut Line| line.in_flight.front().is_some_and(|first| first.sequence == sequence);
            let Some(line) = line.filter(is_first) else {
                // Confirmed meanwhile.
                self.in_flight.pop_front();
                continue;
            };
            if by > now {
                return;
            }
            self.in_flight.pop_front();
            let late = line.in_flight.pop_front().expect("it is the first").deliveries;
            sorted.keep.extend(late.into_iter().map(LaneItem::Delivery));
            if line.in_flight.is_empty() {
                let line = self.users.remove(&user).expect("it was found");
                sorted.keep.extend(line.waiting.into_iter().map(LaneItem::Delivery));
            }
        }
    }

    fn publish(&mut self, offers: Offers, now: Instant, bus: &dyn Bus, sorted: &mut Sorted) {
        if offers.envelopes.is_empty() {
            return;
        }
        let mut envelopes = offers.envelopes;
        for envelope in &mut envelopes {
            self.sequence += 1;
            envelope.sequence = self.sequence;
        }
        let published = bus.publish(&envelopes);
        assert_eq!(published.len(), envelopes.len(), "each envelope has an outcome");
        let by = now.max(Instant::now()) + CONFIRMED_WITHIN;
        for (envelope, published) in envelopes.into_iter().zip(published) {
            match published {
                Published::Taken | Published::InDoubt => {
                    self.in_flight.push_back((envelope.sequence, envelope.to, by));
                    self.users.entry(envelope.to).or_default().in_flight.push_back(envelope);
                }
                Published::ToNobody => match self.users.get_mut(&envelope.to) {
                    Some(line) => line.waiting.extend(envelope.deliveries),
                    None => sorted.keep.extend(envelope.deliveries.into_iter().map(LaneItem::Delivery)),
                },
            }
        }
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            assert!(self.in_flight.iter().zip(self.in_flight.iter().skip(1)).all(|(a, b)| a.0 < b.0 && a.2 <= b.2));
            for (user, line) in &self.users {
                assert!(!line.in_flight.is_empty(), "nothing waits for user {user} behind nothing");
                let is_known = |envelope: &Envelope| {
                    self.in_flight.binary_search_by_key(&envelope.sequence, |(sequence, ..)| *sequence).is_ok()
                };
                assert!(line.in_flight.iter().all(is_known));
            }
        }
    }
}

/// Messages to be published together: one envelope for each user, or several for one who gets much.
#[derive(Default)]
struct Offers {
    envelopes: Vec<Envelope>,
    /// The last envelope of each user, and how much it holds.
    by_user: FxHashMap<UserId, (usize, usize)>,
}

impl Offers {
    fn add(&mut self, delivery: Delivery) {
        let (to, bytes) = (delivery.to, delivery.text.len());
        let (at, held) = self.by_user.entry(to).or_insert((usize::MAX, 0));
        if *at == usize::MAX || *held + bytes > ENVELOPE_BYTES_MAX {
            (*at, *held) = (self.envelopes.len(), 0);
            self.envelopes.push(Envelope { to, sequence: 0, deliveries: Vec::new() });
        }
        *held += bytes;
        self.envelopes[*at].deliveries.push(delivery);
    }

    fn has(&self, user: UserId) -> bool {
        self.by_user.contains_key(&user)
    }
}

/// How long a node has to confirm an envelope.
pub const CONFIRMED_WITHIN: Duration = Duration::from_secs(2);
/// Batches that only look for late envelopes come no faster than this.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// Text in one envelope, unless a single message is longer.
const ENVELOPE_BYTES_MAX: usize = 256 * 1024;
