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

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::base::clock::Clock;
use crate::bus::peer::{KnownPlaces, confirmed_by};
use crate::bus::{Envelope, Place, Published, Publisher};
use crate::delivery::{Delivery, LaneItem, Origin};
use crate::protocol::UserId;

/// An input.
pub enum OutItem {
    /// A message for a user who is not on this node, or work on a user's stored messages. Both are
    /// passed to the store after earlier ones, unless another node takes the message.
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
    /// For the store.
    pub keep: Vec<LaneItem>,
    /// Confirmed by their nodes.
    pub delivered: Vec<Delivery>,
    /// The number of messages that other nodes have taken now.
    pub published: usize,
    /// The number of messages that were taken earlier and not confirmed in time.
    pub unconfirmed: usize,
    /// When to call it again if nothing else happens.
    pub again: Option<Duration>,
}

/// See the [module](self).
pub struct Outbox {
    /// The most text in one envelope, unless a single message is longer.
    envelope_bytes_max: usize,
    sequence: u64,
    users: FxHashMap<UserId, RecipientLine>,
    places: KnownPlaces,
    /// For each sequence the user and the deadline of its envelope; ascending in both.
    in_flight: VecDeque<(u64, UserId, Instant)>,
}

/// The messages on their way to one user.
#[derive(Default)]
struct RecipientLine {
    /// Offered to other nodes, oldest first, and taken by at least one.
    in_flight: VecDeque<Flight>,
    /// The newest envelope of which a message was delivered.
    newest_delivered: u64,
    /// A message that was in flight is being stored; no later one may overtake it.
    has_kept: bool,
    /// Messages not offered since an earlier one came back, and work; they wait behind those in
    /// flight.
    waiting: Vec<LaneItem>,
}

/// An envelope that other nodes have taken, or that has come back.
struct Flight {
    sequence: u64,
    deliveries: Vec<Delivery>,
    /// The number of its messages that were delivered and removed from it.
    delivered: usize,
    holders: Holders,
    /// If it comes back, it is stored and not offered again.
    is_last_try: bool,
    /// The place it was addressed to.
    place: Option<Place>,
    /// Whether a dead connection has returned it.
    is_returned: bool,
    /// When it was offered to all nodes that want it, if exactly one took it.
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
    /// What is left when one of them has refused.
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
}

impl Outbox {
    /// An empty outbox, whose envelopes contain at most this much text unless a single message is
    /// longer. The server passes [`ENVELOPE_BYTES_MAX`].
    pub fn new(envelope_bytes_max: usize) -> Outbox {
        Outbox {
            envelope_bytes_max,
            sequence: 0,
            users: FxHashMap::default(),
            places: KnownPlaces::default(),
            in_flight: VecDeque::new(),
        }
    }

    /// The lane's next state after a panic, which may have left this one half changed, and
    /// everything that was on its way: the caller has the store keep that, including messages that
    /// another node has taken and not confirmed. Sequences go on, because answers to earlier ones
    /// may still come.
    pub fn begin_again(self) -> (Outbox, Vec<LaneItem>) {
        let next = Outbox { sequence: self.sequence, ..Outbox::new(self.envelope_bytes_max) };
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
            // An answer does not wait for messages in flight, because two nodes would wait for
            // each other. But it must not be sent before the returned messages are settled.
            (item @ LaneItem::Answer(..), _) => {
                self.publish_first(user, offers, clock, bus, sorted);
                match self.users.get_mut(&user) {
                    Some(line) if line.has_returned() => line.waiting.push(item),
                    Some(_) | None => sorted.keep.push(item),
                }
            }
            // A message that came back late from a connection is older than those that others
            // send to the user's next connection, perhaps at another node, and must not arrive
            // after them.
            (LaneItem::Delivery(delivery), _) if matches!(delivery.origin, Origin::Returned { late: true, .. }) => {
                self.publish_first(user, offers, clock, bus, sorted);
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

    /// The number of unconfirmed envelopes.
    pub fn in_flight(&self) -> usize {
        self.users.values().map(|line| line.in_flight.len()).sum()
    }

    /// An envelope has arrived: its messages are settled.
    fn confirm(&mut self, sequence: u64, place: Option<&Place>, released: &mut Vec<LaneItem>, sorted: &mut Sorted) {
        let Some((user, at)) = self.find(sequence) else { return };
        let line = self.users.get_mut(&user).expect("it was found there");
        let flight = line.in_flight.remove(at).expect("it was found there");
        line.newest_delivered = line.newest_delivered.max(sequence);
        if let (Some(place), Some(published)) = (place, flight.alone_since) {
            self.places.learn(user, place, published);
        }
        sorted.delivered.extend(flight.deliveries);
        self.tidy(user, released, sorted);
    }

    /// A node did not find the user, after this number of messages. If no other node has the
    /// envelope, the rest comes back.
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
    /// the user may have moved to another node. But first the fate of all later ones must be known:
    /// if one of them was delivered or is stored, this one is stored as well. When nothing is in
    /// flight any more, the waiting messages continue, and do not overtake either.
    fn tidy(&mut self, user: UserId, released: &mut Vec<LaneItem>, sorted: &mut Sorted) {
        let Some(line) = self.users.get_mut(&user) else { return };
        while let Some(flight) = line.in_flight.front().filter(|flight| flight.has_come_back()) {
            let again = !flight.is_last_try && !line.has_kept && flight.sequence >= line.newest_delivered;
            if again && line.in_flight.iter().any(|flight| !flight.has_come_back()) {
                break;
            }
            let flight = line.in_flight.pop_front().expect("it is there");
            line.has_kept |= !again;
            // An envelope addressed to a place has not been offered to others.
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
        // One user's messages take one path, so that they keep their order: no place expires in
        // between.
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
            let holders = match published {
                Published::ToOne => Holders::Nodes(1),
                Published::Taken(nodes) => Holders::Nodes(nodes),
                Published::InDoubt => Holders::Unknown,
                Published::ToNobody if envelope.place.is_some() => {
                    self.places.forget(envelope.to, None);
                    missed.push(Envelope { place: None, ..envelope });
                    continue;
                }
                // It has come back immediately, and waits in its position: if the user has just
                // logged in, later messages are taken.
                Published::ToNobody if self.users.contains_key(&envelope.to) => Holders::None,
                Published::ToNobody => {
                    sorted.keep.extend(envelope.deliveries.into_iter().map(LaneItem::Delivery));
                    continue;
                }
            };
            let Envelope { to, place, sequence, is_returned, deliveries } = envelope;
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
    /// Whether an older message may arrive after a new one that is published now.
    fn must_wait(&self) -> bool {
        self.has_kept || !self.waiting.is_empty() || self.in_flight.iter().any(Flight::has_come_back)
    }

    /// Whether messages that came back from a connection of this node are not settled.
    fn has_returned(&self) -> bool {
        self.waiting.iter().any(came_back) || self.in_flight.iter().any(|flight| flight.is_returned)
    }
}

fn came_back(item: &LaneItem) -> bool {
    matches!(item, LaneItem::Delivery(Delivery { origin: Origin::Returned { .. }, .. }))
}

/// Messages to be published together: one envelope for each user, or several for a user with many
/// messages.
struct Offers {
    envelope_bytes_max: usize,
    envelopes: Vec<Envelope>,
    /// The last envelope of each user, and its length.
    by_user: FxHashMap<UserId, (usize, usize)>,
}

impl Offers {
    fn new(envelope_bytes_max: usize) -> Offers {
        Offers { envelope_bytes_max, envelopes: Vec::new(), by_user: FxHashMap::default() }
    }

    fn add(&mut self, delivery: Delivery) {
        let (to, bytes, is_returned) = (delivery.to, delivery.text.len(), delivery.follows_its_user());
        let (at, held) = self.by_user.entry(to).or_insert((usize::MAX, 0));
        let fits =
            |envelope: &Envelope| envelope.is_returned == is_returned && *held + bytes <= self.envelope_bytes_max;
        if !self.envelopes.get(*at).is_some_and(fits) {
            (*at, *held) = (self.envelopes.len(), 0);
            self.envelopes.push(Envelope { to, place: None, sequence: 0, is_returned, deliveries: Vec::new() });
        }
        *held += bytes;
        self.envelopes[*at].deliveries.push(delivery);
    }

    fn has(&self, user: UserId) -> bool {
        self.by_user.contains_key(&user)
    }

    /// Whether the newest gathered message for this user comes from a sender, and not from a dead
    /// connection.
    fn ends_sent(&self, user: UserId) -> bool {
        self.by_user.get(&user).is_some_and(|(at, _)| !self.envelopes[*at].is_returned)
    }
}

/// The shortest pause between batches that only look for late envelopes.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// The most text in one of the server's envelopes, unless a single message is longer.
pub const ENVELOPE_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::*;
    use crate::base::ids::FrameId;
    use crate::bus::peer::UNKNOWN_FOR;
    use crate::bus::{CONFIRMED_WITHIN, PLACE_LEASE};
    use crate::store::spool::SpoolId;

    /// A short limit on envelopes, so that some users have several.
    const LITTLE: usize = 200;

    /// A bus that answers as told, and records what it was offered.
    #[derive(Default)]
    struct Script {
        answers: Mutex<VecDeque<Published>>,
        offered: Mutex<Vec<(u64, UserId, Vec<String>)>>,
        places: Mutex<Vec<Option<Place>>>,
        /// The time after a publication, if the bus is slow.
        stands_still: Mutex<Option<(Clock, Instant)>>,
    }

    impl Publisher for Script {
        fn publish(&self, envelopes: &[Envelope]) -> Vec<Published> {
            if let Some((clock, until)) = self.stands_still.lock().take() {
                clock.set(until);
            }
            let mut answers = self.answers.lock();
            let mut published = Vec::new();
            for envelope in envelopes {
                let texts = envelope.deliveries.iter().map(|delivery| delivery.text.to_string()).collect();
                self.offered.lock().push((envelope.sequence, envelope.to, texts));
                self.places.lock().push(envelope.place.clone());
                published.push(match answers.pop_front() {
                    Some(Published::Taken(nodes)) => envelope.published_to(nodes),
                    answer => answer.unwrap_or(Published::ToNobody),
                });
            }
            published
        }
    }

    struct Tester {
        outbox: Outbox,
        bus: Script,
        now: Instant,
    }

    impl Tester {
        fn new() -> Tester {
            let now = Instant::now();
            Tester { outbox: Outbox::new(LITTLE), bus: Script::default(), now }
        }

        /// Returns the messages stored and those delivered by a batch.
        fn handle(&mut self, batch: Vec<OutItem>, answers: &[Published]) -> (Vec<String>, Vec<String>) {
            self.bus.answers.lock().extend(answers);
            let sorted = self.outbox.handle(batch, &Clock::standing_at(self.now), &self.bus);
            assert_eq!(sorted.again.is_some(), self.outbox.in_flight() > 0, "late envelopes are looked for");
            let keep = sorted.keep.into_iter().map(text).collect();
            (keep, sorted.delivered.into_iter().map(|delivery| delivery.text.to_string()).collect())
        }

        fn offered(&self) -> Vec<(u64, UserId, Vec<String>)> {
            std::mem::take(&mut *self.bus.offered.lock())
        }
    }

    fn text(item: LaneItem) -> String {
        match item {
            LaneItem::Delivery(delivery) => delivery.text.to_string(),
            LaneItem::Work(user, _) => format!("work for {user}"),
            LaneItem::Answer(user, _) => format!("answer about {user}"),
        }
    }

    fn message(to: i32, text: &str) -> OutItem {
        came_back(to, text, Origin::Spooled(SpoolId(1)))
    }

    fn work(user: i32) -> OutItem {
        OutItem::Lane(LaneItem::Work(UserId(user), Box::new(|_| ())))
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn returned(to: i32, text: &str, late: bool) -> OutItem {
        came_back(to, text, Origin::Returned { late, elsewhere: false })
    }

    fn followed(to: i32, text: &str) -> OutItem {
        came_back(to, text, Origin::Returned { late: false, elsewhere: true })
    }

    fn came_back(to: i32, text: &str, origin: Origin) -> OutItem {
        let (id, to) = (FrameId::UNNAMED, UserId(to));
        OutItem::Lane(LaneItem::Delivery(Delivery { id, to, text: text.into(), origin, was_refused: false }))
    }

    const TAKEN: Published = Published::Taken(1);
    const NOBODY: Published = Published::ToNobody;

    #[test]
    fn envelopes_for_nobody_are_stored_and_taken_ones_wait_for_their_confirmation() {
        let mut tester = Tester::new();
        let batch = vec![message(1, "a"), message(2, "b"), message(1, "c")];
        assert_eq!(tester.handle(batch, &[TAKEN, NOBODY]), (strings(&["b"]), vec![]));
        let offered = [(1, UserId(1), strings(&["a", "c"])), (2, UserId(2), strings(&["b"]))];
        assert_eq!(tester.offered(), offered, "one envelope for each user");
        assert_eq!(tester.handle(vec![OutItem::Confirmed(None, vec![1, 2, 9])], &[]), (vec![], strings(&["a", "c"])));
        assert_eq!(tester.handle(vec![OutItem::Confirmed(None, vec![1])], &[]), (vec![], vec![]), "once is enough");
    }

    #[test]
    fn an_envelope_that_is_not_confirmed_in_time_is_stored() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a")], &[TAKEN]);
        tester.now += CONFIRMED_WITHIN / 2;
        tester.handle(vec![message(1, "b"), message(2, "c")], &[Published::InDoubt, TAKEN]);
        tester.now += CONFIRMED_WITHIN / 2;
        assert_eq!(tester.handle(vec![], &[]), (strings(&["a"]), vec![]));
        tester.now += CONFIRMED_WITHIN / 2;
        let late = tester.handle(vec![OutItem::Confirmed(None, vec![3])], &[]);
        assert_eq!(late, (strings(&["b"]), strings(&["c"])), "a confirmation that has come counts");
        assert_eq!(tester.handle(vec![OutItem::Confirmed(None, vec![1, 2])], &[]), (vec![], vec![]), "too late");
    }

    #[test]
    fn returned_messages_follow_their_user_to_another_node_and_are_stored_if_that_has_something_newer() {
        let answer = || OutItem::Lane(LaneItem::Answer(UserId(1), Box::new(|| ())));
        let mut tester = Tester::new();
        let batch = vec![followed(1, "a"), followed(1, "b"), answer(), message(1, "c")];
        // The node itself receives it as well.
        assert_eq!(tester.handle(batch, &[Published::Taken(2)]), (vec![], vec![]));
        assert_eq!(tester.offered(), [(1, UserId(1), strings(&["a", "b"]))], "in one envelope, before anything newer");
        assert_eq!(
            tester.handle(vec![OutItem::Refused(1, 0)], &[]),
            (vec![], vec![]),
            "the node itself does not want it"
        );
        let settled = tester.handle(vec![OutItem::Confirmed(None, vec![1])], &[TAKEN]);
        assert_eq!(settled, (strings(&["answer about 1"]), strings(&["a", "b"])));
        assert_eq!(tester.offered(), [(2, UserId(1), strings(&["c"]))]);

        let mut tester = Tester::new();
        tester.handle(vec![followed(1, "a"), followed(1, "b"), message(1, "c")], &[TAKEN, TAKEN]);
        let offered = [(1, UserId(1), strings(&["a", "b"])), (2, UserId(1), strings(&["c"]))];
        assert_eq!(tester.offered(), offered, "what is newer follows at once");
        let refused = tester.handle(vec![OutItem::Refused(1, 1)], &[]);
        assert_eq!(refused, (strings(&["b"]), strings(&["a"])), "it is not offered again");
        assert_eq!(tester.handle(vec![OutItem::Confirmed(None, vec![2])], &[]), (vec![], strings(&["c"])));

        let mut tester = Tester::new();
        assert_eq!(
            tester.handle(vec![followed(1, "a"), answer()], &[NOBODY]),
            (strings(&["a", "answer about 1"]), vec![])
        );
        tester.handle(vec![followed(1, "b")], &[TAKEN]);
        tester.now += CONFIRMED_WITHIN;
        assert_eq!(tester.handle(vec![], &[]), (strings(&["b"]), vec![]), "nothing confirms it");
    }

    #[test]
    fn unwanted_messages_stay_behind_those_in_flight() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a")], &[TAKEN]);
        assert_eq!(tester.handle(vec![message(1, "b")], &[NOBODY]), (vec![], vec![]));
        tester.offered();
        assert_eq!(tester.handle(vec![message(1, "c")], &[TAKEN]), (vec![], vec![]));
        assert_eq!(tester.offered(), [], "it must not overtake the one that waits");
        tester.now += CONFIRMED_WITHIN;
        assert_eq!(tester.handle(vec![], &[]), (strings(&["a", "b", "c"]), vec![]));
    }

    #[test]
    fn messages_that_waited_behind_a_confirmed_envelope_are_offered_again() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a")], &[TAKEN]);
        tester.handle(vec![message(1, "b")], &[NOBODY]);
        tester.offered();
        let confirmed = vec![message(1, "c"), OutItem::Confirmed(None, vec![1])];
        assert_eq!(tester.handle(confirmed, &[NOBODY]), (strings(&["b", "c"]), strings(&["a"])));
        assert_eq!(tester.offered(), [(3, UserId(1), strings(&["b", "c"]))]);
    }

    #[test]
    fn an_unwanted_message_is_not_sent_after_one_that_was_taken_behind_it() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "in flight")], &[TAKEN]);
        let long = |text: &str| text.repeat(LITTLE);
        let two = vec![message(1, &long("a")), message(1, &long("b"))];
        assert_eq!(tester.handle(two, &[NOBODY, TAKEN]), (vec![], vec![]), "the user comes in between");
        tester.offered();
        let confirmed = vec![OutItem::Confirmed(None, vec![1]), OutItem::Confirmed(None, vec![3])];
        let delivered = strings(&["in flight", &long("b")]);
        assert_eq!(tester.handle(confirmed, &[TAKEN]), (strings(&[&long("a")]), delivered));
        assert_eq!(tester.offered(), []);
    }

    #[test]
    fn work_comes_after_the_messages_before_it_and_before_those_after() {
        let mut tester = Tester::new();
        let batch = vec![message(1, "a"), message(2, "b"), work(1), message(1, "c"), work(3)];
        let (kept, _) = tester.handle(batch, &[]);
        assert_eq!(kept, strings(&["a", "b", "work for 1", "work for 3", "c"]));
    }

    #[test]
    fn returned_messages_are_stored_and_not_sent_after_newer_ones() {
        let mut tester = Tester::new();
        let batch = vec![message(1, "before"), returned(1, "came back", true), message(1, "after")];
        assert_eq!(tester.handle(batch, &[NOBODY, TAKEN]), (strings(&["before", "came back"]), vec![]));
        let offered: Vec<_> = tester.offered().into_iter().map(|(_, _, texts)| texts).collect();
        assert_eq!(offered, [strings(&["before"]), strings(&["after"])]);
    }

    #[test]
    fn returned_messages_are_stored_after_those_sent_before_their_user_came() {
        let answer = || OutItem::Lane(LaneItem::Answer(UserId(1), Box::new(|| ())));
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "to another node")], &[TAKEN]);
        let batch = vec![returned(1, "came back", false), answer(), message(1, "after")];
        assert_eq!(tester.handle(batch, &[]), (vec![], vec![]));
        tester.now += CONFIRMED_WITHIN;
        let kept = strings(&["to another node", "came back", "answer about 1", "after"]);
        assert_eq!(tester.handle(vec![], &[]), (kept, vec![]));

        let mut tester = Tester::new();
        tester.handle(vec![message(1, "to another node")], &[TAKEN]);
        tester.handle(vec![returned(1, "came back", false), answer(), message(1, "after")], &[]);
        let confirmed = tester.handle(vec![OutItem::Confirmed(None, vec![1])], &[TAKEN]);
        assert_eq!(confirmed, (strings(&["came back", "answer about 1"]), strings(&["to another node"])));
    }

    #[test]
    fn messages_that_return_late_wait_for_nothing() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "newer")], &[TAKEN]);
        assert_eq!(tester.handle(vec![returned(1, "came back", true)], &[]), (strings(&["came back"]), vec![]));
    }

    #[test]
    fn a_refused_envelope_is_stored_unless_another_node_has_it() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a"), message(1, "b"), message(2, "c")], &[TAKEN, Published::Taken(2)]);
        let refused = vec![OutItem::Refused(1, 1), OutItem::Refused(2, 0)];
        assert_eq!(tester.handle(refused, &[]), (strings(&["b"]), strings(&["a"])), "one of them was delivered");
        assert_eq!(tester.handle(vec![OutItem::Confirmed(None, vec![2])], &[]), (vec![], strings(&["c"])));
        assert_eq!(tester.handle(vec![OutItem::Refused(1, 0), OutItem::Refused(7, 3)], &[]), (vec![], vec![]));
    }

    #[test]
    fn a_refused_envelope_is_offered_once_more_and_no_more() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a")], &[TAKEN]);
        tester.handle(vec![message(1, "b")], &[NOBODY]);
        tester.offered();
        assert_eq!(tester.handle(vec![OutItem::Refused(1, 0), message(1, "c")], &[TAKEN]), (vec![], vec![]));
        assert_eq!(tester.offered(), [(3, UserId(1), strings(&["a", "b", "c"]))], "the user has gone to another node");
        let refused = tester.handle(vec![OutItem::Refused(3, 1), message(1, "d")], &[TAKEN]);
        assert_eq!(refused, (strings(&["b", "c"]), strings(&["a"])));
    }

    #[test]
    fn a_refused_envelope_does_not_arrive_after_newer_ones() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a")], &[TAKEN]);
        tester.handle(vec![message(1, "b")], &[TAKEN]);
        assert_eq!(tester.handle(vec![OutItem::Refused(1, 0)], &[]), (vec![], vec![]));
        assert_eq!(tester.handle(vec![message(1, "c")], &[]), (vec![], vec![]));
        let confirmed = tester.handle(vec![OutItem::Confirmed(None, vec![2])], &[]);
        assert_eq!(confirmed, (strings(&["a", "c"]), strings(&["b"])));
    }

    #[test]
    fn envelopes_refused_one_after_the_other_are_offered_again_together() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a")], &[TAKEN]);
        tester.handle(vec![message(1, "b")], &[TAKEN]);
        assert_eq!(tester.handle(vec![OutItem::Refused(1, 0)], &[]), (vec![], vec![]));
        assert_eq!(tester.handle(vec![message(1, "c")], &[]), (vec![], vec![]));
        tester.offered();
        assert_eq!(tester.handle(vec![OutItem::Refused(2, 0)], &[TAKEN]), (vec![], vec![]));
        assert_eq!(tester.offered(), [(3, UserId(1), strings(&["a", "b", "c"]))]);
    }

    fn place(name: &str) -> Option<Place> {
        Some(name.into())
    }

    /// The places of the envelopes offered since the last call.
    fn places(tester: &Tester) -> Vec<Option<Place>> {
        std::mem::take(&mut *tester.bus.places.lock())
    }

    #[test]
    fn a_place_that_confirms_alone_is_addressed_until_it_refuses() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a"), message(2, "b")], &[TAKEN, Published::Taken(2)]);
        tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![1, 2])], &[]);
        tester.handle(vec![message(1, "c"), message(2, "d")], &[TAKEN, TAKEN]);
        assert_eq!(places(&tester), [None, None, place("x-1"), None], "two nodes had the other one");
        tester.handle(vec![OutItem::Refused(3, 0)], &[TAKEN]);
        assert_eq!(places(&tester), [None], "and it is offered again");
        tester.handle(vec![OutItem::Confirmed(place("y-1"), vec![5])], &[]);
        tester.handle(vec![message(1, "e")], &[TAKEN]);
        assert_eq!(places(&tester), [None], "for a while nothing is believed");
        tester.now += UNKNOWN_FOR;
        tester.handle(vec![OutItem::Confirmed(place("y-1"), vec![6]), message(1, "f")], &[TAKEN]);
        tester.handle(vec![OutItem::Confirmed(place("y-1"), vec![7])], &[]);
        tester.handle(vec![message(1, "g")], &[TAKEN]);
        assert_eq!(places(&tester), [None, place("y-1")]);
        tester.now += PLACE_LEASE;
        tester.handle(vec![OutItem::Confirmed(place("y-1"), vec![8]), message(1, "h")], &[TAKEN]);
        assert_eq!(places(&tester), [None], "now and then it is asked for");
    }

    #[test]
    fn a_place_is_learned_only_from_a_node_that_was_alone_when_the_envelope_was_offered() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a")], &[Published::Taken(2)]);
        tester.handle(vec![OutItem::Refused(1, 0), OutItem::Confirmed(place("x-1"), vec![1])], &[]);
        tester.handle(vec![message(1, "b")], &[TAKEN]);
        assert_eq!(places(&tester), [None, None], "the other one was just arriving");
    }

    #[test]
    fn a_place_that_confirms_nothing_is_forgotten_for_all_its_users() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a"), message(2, "b")], &[TAKEN, TAKEN]);
        tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![1, 2])], &[]);
        tester.handle(vec![message(1, "c")], &[TAKEN]);
        tester.now += CONFIRMED_WITHIN;
        assert_eq!(tester.handle(vec![message(2, "d")], &[TAKEN]), (strings(&["c"]), vec![]));
        assert_eq!(places(&tester), [None, None, place("x-1"), None]);
    }

    #[test]
    fn a_place_that_refuses_costs_no_try() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a")], &[TAKEN]);
        tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![1])], &[]);
        tester.handle(vec![message(1, "b")], &[TAKEN]);
        tester.handle(vec![OutItem::Refused(2, 0)], &[TAKEN]);
        assert_eq!(
            tester.handle(vec![OutItem::Refused(3, 0)], &[TAKEN]),
            (vec![], vec![]),
            "the user is just arriving"
        );
        assert_eq!(tester.handle(vec![OutItem::Refused(4, 0)], &[]), (strings(&["b"]), vec![]));
    }

    #[test]
    fn an_envelope_to_a_place_that_is_gone_is_offered_to_all_at_once() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a"), message(2, "b")], &[TAKEN, TAKEN]);
        tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![1, 2])], &[]);
        tester.offered();
        let answers = [NOBODY, NOBODY, TAKEN, NOBODY];
        assert_eq!(tester.handle(vec![message(1, "c"), message(2, "d")], &answers), (strings(&["d"]), vec![]));
        assert_eq!(places(&tester), [None, None, place("x-1"), place("x-1"), None, None]);
        tester.handle(vec![OutItem::Confirmed(place("y-1"), vec![5]), message(2, "e")], &[NOBODY]);
        assert_eq!(places(&tester), [None], "a place that is gone costs one try only");
        tester.handle(vec![message(1, "f")], &[TAKEN]);
        assert_eq!(places(&tester), [place("y-1")], "the next place is learned");
    }

    #[test]
    fn a_place_is_not_learned_again_from_an_envelope_that_was_addressed_to_it() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a")], &[TAKEN]);
        tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![1]), message(1, "b")], &[TAKEN]);
        tester.handle(vec![message(1, "c")], &[NOBODY, TAKEN]);
        assert_eq!(places(&tester), [None, place("x-1"), place("x-1"), None], "the place has gone meanwhile");
        tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![2]), message(1, "d")], &[TAKEN]);
        assert_eq!(places(&tester), [None]);
    }

    #[test]
    fn a_place_is_not_learned_from_returned_messages() {
        let mut tester = Tester::new();
        tester.handle(vec![followed(1, "a")], &[TAKEN]);
        tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![1])], &[]);
        tester.handle(vec![message(1, "b")], &[TAKEN]);
        assert_eq!(places(&tester), [None, None], "the user is just moving");
    }

    #[test]
    fn an_envelope_has_no_more_text_than_the_limit_allows() {
        let mut tester = Tester::new();
        let texts = ["a", "b", "c"].map(|text| text.repeat(LITTLE / 2));
        tester.handle(texts.iter().map(|text| message(1, text)).collect(), &[TAKEN, TAKEN]);
        let offered: Vec<_> = tester.offered().into_iter().map(|(_, _, texts)| texts).collect();
        assert_eq!(offered, [texts[..2].to_vec(), texts[2..].to_vec()]);
    }

    #[test]
    fn two_nodes_that_deliver_a_part_each_do_not_make_a_whole() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a"), message(1, "b"), message(1, "c")], &[Published::Taken(2)]);
        assert_eq!(tester.handle(vec![OutItem::Refused(1, 1)], &[]), (vec![], strings(&["a"])));
        assert_eq!(tester.handle(vec![OutItem::Refused(1, 2)], &[]), (strings(&["c"]), strings(&["b"])));
    }

    #[test]
    fn a_fetch_waits_for_what_is_on_its_way_and_an_answer_to_another_node_does_not() {
        let mut tester = Tester::new();
        let answer = || OutItem::Lane(LaneItem::Answer(UserId(1), Box::new(|| ())));
        let batch = vec![message(1, "a"), work(1), answer(), message(1, "b")];
        assert_eq!(tester.handle(batch, &[TAKEN]), (strings(&["answer about 1"]), vec![]));
        tester.now += CONFIRMED_WITHIN;
        assert_eq!(tester.handle(vec![], &[]), (strings(&["a", "work for 1", "b"]), vec![]));
    }

    #[test]
    fn a_refused_envelope_is_stored_after_those_in_flight_before_it() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a")], &[TAKEN]);
        tester.handle(vec![message(1, "b")], &[TAKEN]);
        tester.handle(vec![message(1, "c")], &[NOBODY]);
        assert_eq!(tester.handle(vec![OutItem::Refused(2, 0)], &[]), (vec![], vec![]));
        assert_eq!(tester.handle(vec![OutItem::Refused(1, 0)], &[]), (strings(&["a", "b", "c"]), vec![]));
    }

    #[test]
    fn only_time_settles_what_is_in_doubt_and_refused() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a")], &[Published::InDoubt]);
        assert_eq!(tester.handle(vec![OutItem::Refused(1, 0)], &[]), (vec![], vec![]));
        tester.now += CONFIRMED_WITHIN;
        assert_eq!(tester.handle(vec![], &[]), (strings(&["a"]), vec![]));
    }

    #[test]
    fn envelopes_that_a_frozen_bus_leaves_in_doubt_are_settled_within_the_usual_time() {
        let millis = Duration::from_millis;
        for (took, left) in [(0, 2000), (1500, 1500), (2500, 1000)] {
            let (took, left) = (millis(took), millis(left));
            let mut tester = Tester::new();
            tester.bus.answers.lock().push_back(Published::InDoubt);
            let clock = Clock::standing_at(tester.now);
            *tester.bus.stands_still.lock() = Some((clock.clone(), tester.now + took));
            tester.outbox.handle(vec![message(1, "a")], &clock, &tester.bus);
            tester.now += took + left - millis(1);
            assert_eq!(tester.handle(vec![], &[]), (vec![], vec![]), "{took:?}");
            tester.now += millis(1);
            assert_eq!(tester.handle(vec![], &[]), (strings(&["a"]), vec![]), "{took:?}");
        }
    }

    #[test]
    fn one_envelope_does_not_grow_without_bound() {
        let mut tester = Tester::new();
        let long = "x".repeat(LITTLE / 2 + 1);
        tester.handle(vec![message(1, &long), message(1, &long), message(1, "y")], &[TAKEN, TAKEN]);
        let lengths: Vec<_> = tester.offered().iter().map(|(_, _, texts)| texts.len()).collect();
        assert_eq!(lengths, [1, 2]);
    }

    #[test]
    fn the_next_look_is_when_the_oldest_envelope_is_late_and_not_at_once() {
        let mut tester = Tester::new();
        let begun = tester.now;
        let again = |tester: &mut Tester, batch| {
            tester.bus.answers.lock().push_back(TAKEN);
            tester.outbox.handle(batch, &Clock::standing_at(tester.now), &tester.bus).again
        };
        assert_eq!(again(&mut tester, vec![message(1, "a")]), Some(CONFIRMED_WITHIN));
        tester.now = begun + CONFIRMED_WITHIN / 2;
        assert_eq!(again(&mut tester, vec![message(2, "b")]), Some(CONFIRMED_WITHIN / 2), "the first one");
        tester.now = begun + CONFIRMED_WITHIN - Duration::from_millis(1);
        assert_eq!(again(&mut tester, vec![]), Some(SHORTEST_PAUSE));
    }

    #[test]
    fn every_message_of_an_envelope_that_nobody_confirms_is_counted() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a"), message(1, "b")], &[TAKEN]);
        tester.now += CONFIRMED_WITHIN;
        let sorted = tester.outbox.handle(vec![], &Clock::standing_at(tester.now), &tester.bus);
        assert_eq!((sorted.unconfirmed, sorted.keep.len()), (2, 2));
    }

    #[test]
    fn three_nodes_that_deliver_more_and_more_of_an_envelope_deliver_no_message_twice() {
        let mut tester = Tester::new();
        let batch = ["a", "b", "c", "d"].map(|text| message(1, text)).into();
        tester.handle(batch, &[Published::Taken(3)]);
        assert_eq!(tester.handle(vec![OutItem::Refused(1, 1)], &[]), (vec![], strings(&["a"])));
        assert_eq!(tester.handle(vec![OutItem::Refused(1, 2)], &[]), (vec![], strings(&["b"])));
        assert_eq!(tester.handle(vec![OutItem::Refused(1, 3)], &[]), (strings(&["d"]), strings(&["c"])));
    }

    #[test]
    fn a_refused_envelope_is_stored_when_a_single_newer_message_was_delivered() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a")], &[TAKEN]);
        tester.handle(vec![message(1, "b"), message(1, "c")], &[Published::Taken(2)]);
        assert_eq!(tester.handle(vec![OutItem::Refused(2, 1)], &[]), (vec![], strings(&["b"])));
        tester.offered();
        assert_eq!(tester.handle(vec![OutItem::Refused(1, 0)], &[TAKEN]), (strings(&["a"]), vec![]));
        assert_eq!(tester.offered(), [], "it would come after the newer one");
    }

    #[test]
    fn messages_that_follow_their_user_wait_for_those_in_flight_and_are_offered_to_all_nodes() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a")], &[TAKEN]);
        tester.offered();
        assert_eq!(tester.handle(vec![followed(1, "b")], &[TAKEN]), (vec![], vec![]));
        assert_eq!(tester.offered(), [], "what was sent before may come back");
        tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![1])], &[TAKEN]);
        assert_eq!(tester.offered().len(), 1);
        tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![2]), message(1, "c")], &[TAKEN]);
        tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![3]), followed(1, "d")], &[TAKEN]);
        assert_eq!(places(&tester), [None, None, place("x-1"), None], "the place may not be the newest");
    }

    #[test]
    fn messages_that_follow_their_user_wait_for_refused_ones_and_those_offered_with_them() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a")], &[TAKEN]);
        tester.offered();
        assert_eq!(
            tester.handle(vec![OutItem::Refused(1, 0), followed(1, "b")], &[NOBODY, TAKEN]),
            (strings(&["a", "b"]), vec![]),
            "a is stored, and b must not be delivered before it"
        );
        tester.handle(vec![message(1, "c"), followed(1, "d"), followed(1, "e")], &[TAKEN]);
        assert_eq!(tester.offered().pop(), Some((3, UserId(1), strings(&["c"]))));
        tester.handle(vec![OutItem::Confirmed(None, vec![3])], &[TAKEN]);
        assert_eq!(tester.offered(), [(4, UserId(1), strings(&["d", "e"]))], "they go on together");
    }

    #[test]
    fn messages_left_by_a_panic_are_stored_in_order_and_their_answers_settle_nothing_newer() {
        let mut tester = Tester::new();
        tester.handle(vec![message(1, "a")], &[TAKEN]);
        tester.handle(vec![message(1, "b"), work(1)], &[TAKEN]);
        let (outbox, left) = tester.outbox.begin_again();
        tester.outbox = outbox;
        let texts: Vec<_> = left.into_iter().map(text).collect();
        assert_eq!(texts, ["a", "b", "work for 1"]);
        tester.handle(vec![message(1, "c")], &[TAKEN]);
        assert_eq!(tester.handle(vec![OutItem::Confirmed(None, vec![1, 2])], &[]), (vec![], vec![]));
        assert_eq!(tester.handle(vec![OutItem::Confirmed(None, vec![3])], &[]), (vec![], strings(&["c"])));
    }

    #[derive(Clone, Debug)]
    enum Act {
        Send(i32),
        /// A message that was sent on this node meanwhile comes back.
        Return(i32),
        Confirm(usize),
        Refuse(usize),
        Wait,
    }

    proptest! {
        /// Every message comes out once for any behaviour of the bus, and messages stored for a
        /// user come out in the order sent.
        #[test]
        fn nothing_is_lost_doubled_or_overtaken(
            acts in prop::collection::vec(
                prop_oneof![
                    8 => (1..4).prop_map(Act::Send),
                    2 => (1..4).prop_map(Act::Return),
                    3 => (0_usize..4).prop_map(Act::Confirm),
                    2 => (0_usize..4).prop_map(Act::Refuse),
                    1 => Just(Act::Wait),
                ],
                0..80,
            ),
            answers in prop::collection::vec(prop::sample::select(vec![TAKEN, NOBODY, Published::InDoubt]), 80),
        ) {
            let mut tester = Tester::new();
            tester.bus.answers.lock().extend(answers);
            let (mut sent, mut kept, mut delivered) = (0, Vec::new(), Vec::new());
            let mut in_flight: Vec<u64> = Vec::new();
            for act in acts.into_iter().chain([Act::Wait, Act::Wait]) {
                let batch = match act {
                    Act::Send(to) => {
                        sent += 1;
                        vec![message(to, &format!("{to} {sent:03}"))]
                    }
                    Act::Return(to) => {
                        sent += 1;
                        vec![returned(to, &format!("{to} {sent:03}"), false)]
                    }
                    Act::Confirm(nth) if nth < in_flight.len() => {
                        vec![OutItem::Confirmed(place("x-1"), vec![in_flight.remove(nth)])]
                    }
                    Act::Refuse(nth) if nth < in_flight.len() => vec![OutItem::Refused(in_flight.remove(nth), 0)],
                    Act::Confirm(_) | Act::Refuse(_) => vec![],
                    Act::Wait => {
                        tester.now += CONFIRMED_WITHIN;
                        vec![]
                    }
                };
                let (keep, done) = tester.handle(batch, &[]);
                kept.extend(keep);
                delivered.extend(done);
                in_flight.extend(tester.offered().into_iter().map(|(sequence, ..)| sequence));
            }
            prop_assert_eq!(tester.outbox.in_flight(), 0);
            for user in ["1 ", "2 ", "3 "] {
                let of_user: Vec<_> = kept.iter().filter(|text| text.starts_with(user)).collect();
                prop_assert!(of_user.is_sorted(), "{:?}", of_user);
            }
            let mut all: Vec<_> = kept.into_iter().chain(delivered).collect();
            prop_assert_eq!(all.len(), sent);
            all.sort();
            all.dedup();
            prop_assert_eq!(all.len(), sent);
        }
    }
}
