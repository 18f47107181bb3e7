//! [`Outbox`]: messages on their way to other nodes.
//!
//! After another node has taken a message, the message stays here until that node confirms it. If
//! no confirmation comes in time, the node has died or the bus has lost the message, and the
//! message is stored. So no failure of another node or of the bus loses a message, and nothing is
//! written to a disk while everything works.
//!
//! ```text
//!            published                     confirmed
//!   message ───────────▶ in flight ───────────────────────▶ settled
//!      │  nobody wants it    │ refused, or not confirmed in time
//!      └──▶ store ◀──────────┘
//! ```
//! While a message for a user is in flight, a later message that no node takes waits behind it: the
//! user has just left or a node has just died, and the message in flight may have to be stored
//! first. That preserves the order. Messages that came back from a connection of this node wait as
//! well: while the user had that connection, nothing was published for the user here.
//!
//! If a dead connection of this node has returned messages and its user has since logged in at
//! another node, they are published as well. That node delivers them if the user's connection there
//! has received nothing newer; otherwise, or without a confirmation, they are stored.
//!
//! A node that confirms an envelope has a connection of the user. If no other node was offered the
//! envelope, the user is only there. That place is remembered for a while, and the next messages
//! are addressed to it: the bus sends all messages for one place together, with a text for many
//! users once. A place that no longer exists takes nothing. A place at which the user is not, or
//! not only, refuses. Then the message is offered to all nodes that want it, as if no place were
//! known.
//!
//! A state machine without I/O of its own, run by one lane: batches and the time go in, messages to
//! be stored come out.

mod offers;
mod traced;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use self::offers::Offers;
use crate::base::clock::Clock;
use crate::base::trace::{Hop, Tracer};
use crate::bus::peer::{KnownPlaces, confirmed_by};
use crate::bus::{Envelope, Place, Published, Publisher};
use crate::delivery::{Comeback, Delivery, DeliveryOrigin, LaneItem};
use crate::protocol::UserId;

/// An input.
pub enum OutItem {
    /// A message for a user who is not on this node, or work on a user's stored messages. Either
    /// goes to the store after earlier items, unless another node takes the message.
    Lane(LaneItem),
    /// These envelopes have reached their users, at this place if one is given.
    Confirmed(Option<Place>, Vec<u64>),
    /// A node has delivered this number of messages of the envelope, and did not find the user for
    /// the rest.
    Refused(u64, usize),
}

/// The output of the [`Outbox`], in this order.
#[derive(Default)]
pub struct Sorted {
    /// Items for the store.
    pub keep: Vec<LaneItem>,
    /// Messages confirmed by their nodes.
    pub delivered: Vec<Delivery>,
    /// The number of messages that other nodes have just taken.
    pub published: usize,
    /// The number of messages that were taken earlier and not confirmed in time.
    pub unconfirmed: usize,
    /// The time until the next call if nothing else happens.
    pub again: Option<Duration>,
}

/// See the [module](self).
pub struct Outbox {
    /// The most text in one envelope, unless a single message is longer.
    envelope_bytes_max: usize,
    tracer: Option<Arc<Tracer>>,
    sequence: u64,
    users: FxHashMap<UserId, RecipientLine>,
    places: KnownPlaces,
    /// For each sequence the user and the deadline of its envelope; ascending in both.
    in_flight: VecDeque<(u64, UserId, Instant)>,
}

/// The messages on their way to one user.
#[derive(Default)]
struct RecipientLine {
    /// Envelopes offered to other nodes and taken by at least one, oldest first.
    in_flight: VecDeque<Flight>,
    /// The newest envelope of which a message was delivered.
    newest_delivered: u64,
    /// Whether a message that was in flight is being stored: no later one may overtake it.
    has_kept: bool,
    /// Work, and messages that were not offered because an earlier one has come back. They wait
    /// behind those in flight.
    waiting: Vec<LaneItem>,
}

/// An envelope that other nodes have taken, or that has come back.
struct Flight {
    sequence: u64,
    deliveries: Vec<Delivery>,
    /// The number of its messages that were delivered and removed from it.
    delivered: usize,
    holders: Holders,
    /// Whether it is stored and not offered again if it comes back.
    is_last_try: bool,
    /// The place that it was addressed to.
    place: Option<Place>,
    /// Whether a dead connection has returned it.
    is_returned: bool,
    /// The time at which it was offered to all nodes that want it, if exactly one took it.
    alone_since: Option<Instant>,
}

/// The nodes that may still confirm an envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holders {
    /// None: it has come back, and is stored after everything in flight before it.
    None,
    /// This number of nodes, at least one.
    Nodes(u32),
    /// Any number of nodes, so only a confirmation or the deadline settles it.
    Unknown,
}

impl Holders {
    /// The remaining holders when one has refused.
    fn without_one(self) -> Holders {
        match self {
            Holders::None | Holders::Nodes(0 | 1) => Holders::None,
            Holders::Nodes(nodes) => Holders::Nodes(nodes - 1),
            Holders::Unknown => Holders::Unknown,
        }
    }
}

impl Flight {
    /// Whether no node has it any more.
    fn has_come_back(&self) -> bool {
        self.holders == Holders::None
    }

    /// The envelope's number, its remaining messages, and the number of messages before them.
    fn left(&self) -> (u64, &[Delivery], usize) {
        (self.sequence, &self.deliveries, self.delivered)
    }
}

impl Outbox {
    /// An empty outbox, whose envelopes contain at most this much text unless a single message is
    /// longer. The server passes [`ENVELOPE_BYTES_MAX`].
    pub fn new(envelope_bytes_max: usize) -> Outbox {
        Outbox {
            envelope_bytes_max,
            tracer: None,
            sequence: 0,
            users: FxHashMap::default(),
            places: KnownPlaces::default(),
            in_flight: VecDeque::new(),
        }
    }

    /// The same outbox, which notes the steps of messages in `tracer`.
    #[must_use]
    pub fn traced_by(self, tracer: Arc<Tracer>) -> Outbox {
        Outbox { tracer: Some(tracer), ..self }
    }

    /// The lane's next state after a panic, which may have left this one half changed, and
    /// everything that was on its way. The caller has the store keep all of that, including
    /// messages that another node has taken and not confirmed. Sequences go on, because answers to
    /// earlier ones may still come.
    pub fn begin_again(self) -> (Outbox, Vec<LaneItem>) {
        let Outbox { sequence, tracer, .. } = self;
        let next = Outbox { sequence, tracer, ..Outbox::new(self.envelope_bytes_max) };
        let of_line = |RecipientLine { in_flight, waiting, .. }| {
            let deliveries = in_flight.into_iter().flat_map(|flight: Flight| flight.deliveries);
            deliveries.map(LaneItem::Delivery).chain(waiting)
        };
        (next, self.users.into_values().flat_map(of_line).collect())
    }

    /// Takes a batch. Blocks while the bus publishes.
    pub fn handle(&mut self, batch: Vec<OutItem>, clock: &Clock, bus: &dyn Publisher) -> Sorted {
        let now = clock.now();
        let mut sorted = Sorted::default();
        // Answers are processed before any envelope is declared late.
        let mut released = Vec::new();
        let mut items = Vec::new();
        for item in batch {
            match item {
                OutItem::Confirmed(place, sequences) => {
                    let place = place.as_ref();
                    sequences.iter().for_each(|sequence| self.confirm(*sequence, place, &mut released, &mut sorted));
                }
                OutItem::Refused(sequence, delivered) => {
                    self.refuse(sequence, delivered, now, &mut released, &mut sorted);
                }
                OutItem::Lane(item) => items.push(item),
            }
        }
        self.expire(now, &mut released, &mut sorted);
        let mut offers = Offers::new(self.envelope_bytes_max);
        for item in released.into_iter().chain(items) {
            self.gather(item, &mut offers, clock, bus, &mut sorted);
        }
        self.publish(offers, clock, bus, &mut sorted);
        sorted.again = self.in_flight.front().map(|(_, _, by)| by.saturating_duration_since(now).max(SHORTEST_PAUSE));
        self.check_invariants();
        sorted
    }

    /// Gathers a message to be offered, has it wait, or has it stored.
    fn gather(&mut self, item: LaneItem, offers: &mut Offers, clock: &Clock, bus: &dyn Publisher, sorted: &mut Sorted) {
        let user = item.user();
        match (item, self.users.get_mut(&user)) {
            // An answer does not wait for messages in flight, because two nodes would wait for each
            // other. But it must not be sent before the returned messages are settled.
            (item @ LaneItem::Answer(..), _) => {
                self.publish_first(user, offers, clock, bus, sorted);
                match self.users.get_mut(&user) {
                    Some(line) if line.has_returned() => line.waiting.push(item),
                    Some(_) | None => sorted.keep.push(item),
                }
            }
            // A message that came back late from a connection is older than those that others
            // send to the user's next connection, perhaps at another node, and must not arrive
            // after them. It is also older than those that were gathered: they were sent after the
            // user had left, when an answer published what had been gathered until then.
            (LaneItem::Delivery(delivery), _)
                if matches!(delivery.origin, DeliveryOrigin::Returned(_, Comeback::Late)) =>
            {
                sorted.keep.push(LaneItem::Delivery(delivery));
            }
            // The user has since logged in at another node. Messages about to be offered for
            // the first time are older, so their fate must be known first.
            (LaneItem::Delivery(delivery), None) if delivery.follows_its_user() && !offers.ends_sent(user) => {
                offers.add(delivery);
            }
            // Messages sent to the user before this work, or before the connection that
            // returned this message existed, must be settled first.
            (item, _) if came_back(&item) || matches!(item, LaneItem::Work(..)) => {
                self.publish_first(user, offers, clock, bus, sorted);
                match self.users.get_mut(&user) {
                    Some(line) => line.waiting.push(item),
                    None => sorted.keep.push(item),
                }
            }
            (item @ LaneItem::Delivery(_), Some(line)) if line.must_wait() => line.waiting.push(item),
            (LaneItem::Delivery(delivery), _) => offers.add(delivery),
            (LaneItem::Work(..), _) => unreachable!("it was looked at above"),
        }
    }

    /// Publishes the gathered messages if some are for this user.
    fn publish_first(
        &mut self,
        user: UserId,
        offers: &mut Offers,
        clock: &Clock,
        bus: &dyn Publisher,
        sorted: &mut Sorted,
    ) {
        if offers.has(user) {
            let gathered = std::mem::replace(offers, Offers::new(self.envelope_bytes_max));
            self.publish(gathered, clock, bus, sorted);
        }
    }

    /// The number of envelopes that are not confirmed yet.
    pub fn in_flight(&self) -> usize {
        self.users.values().map(|line| line.in_flight.len()).sum()
    }

    /// Settles the messages of an envelope that has arrived.
    fn confirm(&mut self, sequence: u64, place: Option<&Place>, released: &mut Vec<LaneItem>, sorted: &mut Sorted) {
        let Some((user, at)) = self.find(sequence) else { return };
        let line = self.users.get_mut(&user).expect("it was found there");
        let flight = line.in_flight.remove(at).expect("it was found there");
        line.newest_delivered = line.newest_delivered.max(sequence);
        traced::answered(self.tracer.as_deref(), Hop::Confirmed, flight.left(), place);
        if let (Some(place), Some(published)) = (place, flight.alone_since) {
            self.places.learn(user, place, published);
        }
        sorted.delivered.extend(flight.deliveries);
        self.tidy(user, released, sorted);
    }

    /// Notes that a node did not find the user after this number of messages. If no other node has
    /// the envelope, the remaining messages come back.
    fn refuse(
        &mut self,
        sequence: u64,
        delivered: usize,
        now: Instant,
        released: &mut Vec<LaneItem>,
        sorted: &mut Sorted,
    ) {
        let Some((user, at)) = self.find(sequence) else { return };
        self.places.forget(user, Some(now));
        let line = self.users.get_mut(&user).expect("it was found there");
        let flight = &mut line.in_flight[at];
        flight.holders = flight.holders.without_one();
        // Another node may have delivered some of them already.
        let more = delivered.saturating_sub(flight.delivered).min(flight.deliveries.len());
        flight.delivered += more;
        sorted.delivered.extend(flight.deliveries.drain(..more));
        traced::answered(self.tracer.as_deref(), Hop::Declined, flight.left(), flight.place.as_ref());
        if delivered > 0 {
            line.newest_delivered = line.newest_delivered.max(sequence);
        }
        self.tidy(user, released, sorted);
    }

    /// Gives up envelopes that were not confirmed in time.
    fn expire(&mut self, now: Instant, released: &mut Vec<LaneItem>, sorted: &mut Sorted) {
        while let Some(&(sequence, user, by)) = self.in_flight.front() {
            if let Some((_, at)) = self.find(sequence) {
                if by > now {
                    return;
                }
                let flight = &mut self.users.get_mut(&user).expect("it was found there").in_flight[at];
                flight.is_last_try = true;
                if std::mem::replace(&mut flight.holders, Holders::None) != Holders::None {
                    sorted.unconfirmed += flight.deliveries.len();
                    traced::answered(self.tracer.as_deref(), Hop::Unconfirmed, flight.left(), flight.place.as_ref());
                    if let Some(place) = &flight.place {
                        self.places.forget_all(user, place);
                    }
                }
                self.tidy(user, released, sorted);
            }
            self.in_flight.pop_front();
        }
    }

    /// Settles the oldest envelope if it has come back. A refused one is offered once more, since
    /// the user may have moved to another node. But the fate of all later ones must be known first:
    /// if one of them was delivered or is stored, this one is stored as well. When nothing is in
    /// flight any more, the waiting messages continue, in order as well.
    fn tidy(&mut self, user: UserId, released: &mut Vec<LaneItem>, sorted: &mut Sorted) {
        let Some(line) = self.users.get_mut(&user) else { return };
        while let Some(flight) = line.in_flight.front().filter(|flight| flight.has_come_back()) {
            let again = !flight.is_last_try && !line.has_kept && flight.sequence >= line.newest_delivered;
            if again && line.in_flight.iter().any(|flight| !flight.has_come_back()) {
                break;
            }
            let flight = line.in_flight.pop_front().expect("it is there");
            line.has_kept |= !again;
            // An envelope addressed to a place was not offered to other nodes.
            let was_offered = flight.place.is_none();
            let items = flight.deliveries.into_iter().map(|delivery| {
                let was_refused = delivery.was_refused || was_offered;
                Delivery { was_refused, ..delivery }
            });
            if again { &mut *released } else { &mut sorted.keep }.extend(items.map(LaneItem::Delivery));
        }
        if line.in_flight.is_empty() {
            let RecipientLine { has_kept, waiting, .. } = self.users.remove(&user).expect("it was found");
            if has_kept { &mut sorted.keep } else { released }.extend(waiting);
        }
    }

    /// The user of this envelope, and its index among the user's envelopes; `None` if it is
    /// settled.
    fn find(&self, sequence: u64) -> Option<(UserId, usize)> {
        let at = self.in_flight.binary_search_by_key(&sequence, |(sequence, ..)| *sequence).ok()?;
        let user = self.in_flight[at].1;
        let line = self.users.get(&user)?;
        let at = line.in_flight.binary_search_by_key(&sequence, |flight| flight.sequence).ok()?;
        Some((user, at))
    }

    fn publish(&mut self, offers: Offers, clock: &Clock, bus: &dyn Publisher, sorted: &mut Sorted) {
        // One instant for all envelopes, so that no place expires between two messages of a user:
        // they take one path and keep their order.
        let (mut envelopes, now) = (offers.envelopes, clock.now());
        for envelope in envelopes.iter_mut().filter(|envelope| !envelope.is_returned) {
            envelope.place = self.places.of(envelope.to, now);
        }
        let missed = self.offer(envelopes, clock, bus, sorted);
        self.offer(missed, clock, bus, sorted);
    }

    /// Publishes envelopes. Returns those that were addressed to a place that no longer exists,
    /// without the place.
    fn offer(
        &mut self,
        mut envelopes: Vec<Envelope>,
        clock: &Clock,
        bus: &dyn Publisher,
        sorted: &mut Sorted,
    ) -> Vec<Envelope> {
        let mut missed = Vec::new();
        if envelopes.is_empty() {
            return missed;
        }
        for envelope in &mut envelopes {
            self.sequence += 1;
            envelope.sequence = self.sequence;
        }
        let begun = clock.now();
        let published = bus.publish(&envelopes);
        assert_eq!(published.len(), envelopes.len(), "each envelope has an outcome");
        let now = clock.now();
        let by = confirmed_by(begun, now);
        for (envelope, published) in envelopes.into_iter().zip(published) {
            traced::published(self.tracer.as_deref(), &envelope, published);
            let holders = match published {
                Published::ToOne => Holders::Nodes(1),
                Published::Taken(nodes) => Holders::Nodes(nodes),
                Published::InDoubt => Holders::Unknown,
                Published::ToNobody if envelope.place.is_some() => {
                    self.places.forget(envelope.to, None);
                    missed.push(Envelope { place: None, ..envelope });
                    continue;
                }
                // No node took it. It stays in its position in the user's line, because a later
                // message may be taken by a node on which the user has just logged in.
                Published::ToNobody if self.users.contains_key(&envelope.to) => Holders::None,
                Published::ToNobody => {
                    sorted.keep.extend(envelope.deliveries.into_iter().map(LaneItem::Delivery));
                    continue;
                }
            };
            let Envelope { to, place, sequence, is_returned, deliveries, .. } = envelope;
            sorted.published += if holders == Holders::None { 0 } else { deliveries.len() };
            self.in_flight.push_back((sequence, to, by));
            let is_last_try = is_returned || deliveries.iter().any(|delivery| delivery.was_refused);
            let alone_since = (published == Published::ToOne).then_some(now);
            let flight =
                Flight { sequence, deliveries, delivered: 0, holders, is_last_try, place, is_returned, alone_since };
            self.users.entry(to).or_default().in_flight.push_back(flight);
        }
        missed
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            assert!(self.in_flight.iter().zip(self.in_flight.iter().skip(1)).all(|(a, b)| a.0 < b.0 && a.2 <= b.2));
            for (user, line) in &self.users {
                assert!(!line.in_flight.is_empty(), "nothing waits for user {user} behind nothing");
                let is_known = |flight: &Flight| {
                    self.in_flight.binary_search_by_key(&flight.sequence, |(sequence, ..)| *sequence).is_ok()
                };
                assert!(!line.in_flight.iter().all(Flight::has_come_back), "what has come back is settled");
                assert!(line.in_flight.iter().all(is_known));
            }
        }
    }
}

impl RecipientLine {
    /// Whether a message that is published now could overtake an older one.
    fn must_wait(&self) -> bool {
        self.has_kept || !self.waiting.is_empty() || self.in_flight.iter().any(Flight::has_come_back)
    }

    /// Whether messages that came back from a connection of this node are not settled yet.
    fn has_returned(&self) -> bool {
        self.waiting.iter().any(came_back) || self.in_flight.iter().any(|flight| flight.is_returned)
    }
}

fn came_back(item: &LaneItem) -> bool {
    matches!(item, LaneItem::Delivery(Delivery { origin: DeliveryOrigin::Returned(..), .. }))
}

/// The shortest pause between batches that only look for late envelopes.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// The most text in one of the server's envelopes, unless a single message is longer.
pub const ENVELOPE_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests;
