//! [`Seats`]: the number of connections, in all and for each address, and which ones make room if
//! there are too many.
//!
//! ```text
//!   0 ────────────────────────────── ¾ ─────────── room     connections
//!       everybody may come             strangers and addresses with many make room
//! ```
//! The room is `max_connections`, or the number of descriptors for clients if that is smaller. When
//! three quarters of it are taken,
//! - there may be no more connections without a login than free places: otherwise the oldest of
//!   them leaves, from the address that has most;
//! - an address may have no more connections than there are free descriptors: otherwise its own
//!   oldest without a login leaves, or the newcomer is refused.
//!
//! So neither silent connections nor one address can keep others out, and no connection is closed
//! while there is enough room.

use std::collections::HashMap;
use std::time::Instant;

use super::Source;
use super::strangers::{StrangerId, Strangers};
use crate::config::Limit;
use crate::metrics::Hit;

/// The open connections. `W` is a handle to notify one that must make room.
#[derive(Debug)]
pub struct Seats<W> {
    max: Limit,
    max_of_address: Limit,
    /// Descriptors for clients.
    descriptors: usize,
    taken: usize,
    /// The connections whose client's address is not known yet.
    unintroduced: usize,
    of_address: HashMap<Source, u32>,
    strangers: Strangers<W>,
}

/// How an address is treated when descriptors run short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crowd {
    /// An address of a few clients.
    Usual,
    /// The address of a proxy, which all clients may share: it leaves just enough for others.
    Proxy,
}

impl<W> Seats<W> {
    /// `max` connections in all, `max_of_address` per address, and this number of descriptors for
    /// clients.
    pub fn new(max: Limit, max_of_address: Limit, descriptors: usize) -> Seats<W> {
        let (of_address, strangers) = (HashMap::new(), Strangers::new());
        Seats { max, max_of_address, descriptors, taken: 0, unintroduced: 0, of_address, strangers }
    }

    /// Admits a connection, from this address if it is known. Returns the connection that has to
    /// make room for it, and the limit that is the reason.
    ///
    /// # Errors
    ///
    /// The limit that it exceeds; it is not counted then.
    pub fn take(&mut self, source: Option<Source>, crowd: Crowd) -> Result<Option<(W, Hit)>, Hit> {
        source.map_or(Ok(()), |source| self.check_address(source))?;
        let leaves = self.make_room(source, crowd)?;
        match source {
            Some(source) => *self.of_address.entry(source).or_default() += 1,
            None => self.unintroduced += 1,
        }
        self.taken += 1;
        Ok(leaves)
    }

    /// Notes that an admitted connection is from this address. Returns the connection that has to
    /// make room for it, and the limit that is the reason.
    ///
    /// # Errors
    ///
    /// The limit that it exceeds; it is not counted for the address then.
    pub fn assign(&mut self, source: Source, crowd: Crowd) -> Result<Option<(W, Hit)>, Hit> {
        self.check_address(source)?;
        let leaves = self.room_of_address(self.held(source), crowd, Some(source))?;
        *self.of_address.entry(source).or_default() += 1;
        self.unintroduced -= 1;
        Ok(leaves)
    }

    /// Adds a connection of this address that is open or has logged out: it makes room for others
    /// if necessary.
    pub fn insert_stranger(&mut self, source: Source, who: W, now: Instant) -> StrangerId {
        self.strangers.insert(source, who, now)
    }

    /// Removes a connection that has logged in or has closed.
    pub fn remove_stranger(&mut self, source: Source, id: StrangerId) {
        self.strangers.remove(source, id);
    }

    /// The time at which it became a stranger; `None` if it has to make room.
    pub fn stranger_since(&self, source: Source, id: StrangerId) -> Option<Instant> {
        self.strangers.since(source, id)
    }

    /// Releases the place of a connection that has closed, with its address if that was known.
    pub fn give_back(&mut self, source: Option<Source>) {
        self.taken -= 1;
        let Some(source) = source else {
            self.unintroduced -= 1;
            return;
        };
        let of_address = self.of_address.get_mut(&source).expect("it was counted when it came in");
        *of_address -= 1;
        if *of_address == 0 {
            self.of_address.remove(&source);
        }
    }

    fn make_room(&mut self, source: Option<Source>, crowd: Crowd) -> Result<Option<(W, Hit)>, Hit> {
        let max = self.max.0.map_or(usize::MAX, |max| max as usize);
        let (room, scarce) =
            if max < self.descriptors { (max, Hit::MaxConnections) } else { (self.descriptors, Hit::Descriptors) };
        let free = room.saturating_sub(self.taken);
        if free > room / 4 {
            return Ok(None);
        }
        let held = source.map_or(self.unintroduced, |source| self.held(source));
        // An address that has too many already does not push out the few of others.
        let strangers_max = if self.has_too_many(held, crowd) { (room / 4).max(1) } else { free };
        if self.strangers.len() >= strangers_max
            && let Some(leaves) = self.strangers.take_oldest()
        {
            return Ok(Some((leaves, scarce)));
        }
        match self.room_of_address(held, crowd, source)? {
            None if free == 0 => Err(scarce),
            leaves => Ok(leaves),
        }
    }

    /// Whether an address with `held` connections may have another one, and which of its own makes
    /// room for it.
    fn room_of_address(&mut self, held: usize, crowd: Crowd, source: Option<Source>) -> Result<Option<(W, Hit)>, Hit> {
        if !self.has_too_many(held, crowd) {
            return Ok(None);
        }
        let leaves = source.and_then(|source| self.strangers.take_oldest_of(source));
        leaves.map(|leaves| Some((leaves, Hit::Descriptors))).ok_or(Hit::Descriptors)
    }

    /// Whether an address with `held` connections has its share of the descriptors.
    fn has_too_many(&self, held: usize, crowd: Crowd) -> bool {
        let free = self.descriptors.saturating_sub(self.taken);
        let left = match crowd {
            Crowd::Usual => (self.descriptors / 4).min(LEFT_BY_ADDRESS),
            Crowd::Proxy => (self.descriptors / 16).min(LEFT_BY_PROXY),
        };
        free <= left && held >= free.max(1)
    }

    fn held(&self, source: Source) -> usize {
        self.of_address.get(&source).map_or(0, |held| *held as usize)
    }

    /// Checks the limit of connections per address.
    fn check_address(&self, source: Source) -> Result<(), Hit> {
        let is_full = self.max_of_address.0.is_some_and(|max| self.held(source) >= max as usize);
        if is_full { Err(Hit::ConnectionsPerAddress) } else { Ok(()) }
    }
}

/// An address is limited when fewer descriptors than this, or than a quarter, are free: it may then
/// have no more connections than are free. Before that, one address may use up a large limit alone,
/// as load tests do.
const LEFT_BY_ADDRESS: usize = 512;
/// The same for the address of a proxy, which is limited at this number or a sixteenth.
const LEFT_BY_PROXY: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    use Crowd::Usual;

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into())
    }

    /// Connections that arrive: they are numbered, and stay strangers or log in.
    struct Room {
        seats: Seats<u32>,
        next: u32,
    }

    impl Room {
        fn of(descriptors: usize) -> Room {
            Room { seats: Seats::new(Limit(None), Limit(None), descriptors), next: 0 }
        }

        /// A connection arrives. Returns the one that leaves for it, whose seat is released
        /// immediately.
        fn come(&mut self, from: u8, logs_in: bool) -> Result<Option<u32>, Hit> {
            self.come_through(from, logs_in, Usual)
        }

        fn come_through(&mut self, from: u8, logs_in: bool, crowd: Crowd) -> Result<Option<u32>, Hit> {
            let leaves = self.seats.take(Some(source(from)), crowd)?.map(|(leaves, _)| leaves);
            self.next += 1;
            if !logs_in {
                self.seats.insert_stranger(source(from), self.next, Instant::now());
            }
            Ok(leaves)
        }

        /// Fills with `count` connections; those that are told to leave release their seats.
        fn fill(&mut self, from: u8, count: usize, logs_in: bool) -> (usize, usize) {
            let (mut left, mut refused) = (0, 0);
            for _ in 0..count {
                match self.come(from, logs_in) {
                    Ok(Some(_)) => {
                        left += 1;
                        self.seats.give_back(Some(source(from)));
                    }
                    Ok(None) => {}
                    Err(hit) => {
                        assert_eq!(hit, Hit::Descriptors);
                        refused += 1;
                    }
                }
            }
            (left, refused)
        }
    }

    #[test]
    fn both_limits_hold_and_one_that_leaves_makes_room() {
        let mut seats: Seats<()> = Seats::new(Limit(Some(3)), Limit(Some(2)), usize::MAX);
        let take = |seats: &mut Seats<()>, last| seats.take(Some(source(last)), Usual);
        assert_eq!(take(&mut seats, 1), Ok(None));
        assert_eq!(take(&mut seats, 1), Ok(None));
        assert_eq!(take(&mut seats, 1), Err(Hit::ConnectionsPerAddress));
        assert_eq!(take(&mut seats, 2), Ok(None));
        assert_eq!(take(&mut seats, 3), Err(Hit::MaxConnections));
        seats.give_back(Some(source(1)));
        assert_eq!(take(&mut seats, 1), Ok(None));
        for n in [1, 1, 2] {
            seats.give_back(Some(source(n)));
        }
        assert!(seats.of_address.is_empty(), "nothing is kept of who has left");
    }

    #[test]
    fn a_client_without_an_address_counts_in_all_and_later_for_its_address() {
        let mut seats: Seats<()> = Seats::new(Limit(Some(3)), Limit(Some(1)), usize::MAX);
        (0..3).for_each(|_| assert_eq!(seats.take(None, Usual), Ok(None)));
        assert_eq!(seats.take(None, Usual), Err(Hit::MaxConnections));
        assert_eq!(seats.take(Some(source(1)), Usual), Err(Hit::MaxConnections));
        assert_eq!(seats.assign(source(1), Usual), Ok(None));
        assert_eq!(seats.assign(source(1), Usual), Err(Hit::ConnectionsPerAddress));
        seats.give_back(None);
        assert_eq!(seats.take(Some(source(2)), Usual), Ok(None));
        for source in [Some(source(1)), None, Some(source(2))] {
            seats.give_back(source);
        }
        assert_eq!((seats.taken, seats.unintroduced, seats.of_address.len()), (0, 0, 0));
    }

    #[test]
    fn off_is_without_end() {
        let mut seats: Seats<()> = Seats::new(Limit(None), Limit(None), usize::MAX);
        assert!((0..100_000).all(|_| seats.take(Some(source(1)), Usual) == Ok(None)));
    }

    #[test]
    fn strangers_make_room_for_each_other_and_leave_a_quarter() {
        let mut room = Room::of(1000);
        assert_eq!(room.fill(1, 1100, false), (350, 0), "three quarters stay, and the oldest go");
        // A quiet client from another address is admitted, and is not the one that leaves.
        assert_eq!(room.come(2, false), Ok(Some(351)));
        room.seats.give_back(Some(source(1)));
        assert_eq!(room.fill(1, 100, false), (100, 0));
        assert_eq!(room.seats.held(source(2)), 1);
    }

    #[test]
    fn strangers_make_room_because_of_the_limit_that_is_lower() {
        for (max, descriptors, limit) in [(4, 1000, Hit::MaxConnections), (1000, 4, Hit::Descriptors)] {
            let mut room = Room { seats: Seats::new(Limit(Some(max)), Limit(None), descriptors), next: 0 };
            assert_eq!(room.fill(1, 3, false), (0, 0));
            assert_eq!(room.seats.take(Some(source(2)), Usual), Ok(Some((1, limit))));
        }
    }

    #[test]
    fn the_oldest_stranger_leaves_for_a_user_of_another_address() {
        let mut room = Room::of(1000);
        assert_eq!(room.fill(1, 750, false), (0, 0));
        for n in 1..=500 {
            assert_eq!(room.come(2, true), Ok(Some(n)));
            room.seats.give_back(Some(source(1)));
        }
    }

    #[test]
    fn an_address_of_users_leaves_a_quarter_to_others_and_each_of_those_its_part() {
        let mut room = Room::of(1000);
        assert_eq!(room.fill(1, 1000, true), (0, 250));
        assert_eq!(room.fill(2, 1000, true), (0, 875));
        assert_eq!(room.fill(3, 1000, true), (0, 937));
        assert_eq!(room.come(1, true), Err(Hit::Descriptors), "it has more than is free");
        // A client that has just arrived does not leave for those either.
        assert_eq!(room.come(4, false), Ok(None));
        assert_eq!(room.come(1, false), Err(Hit::Descriptors));
        assert_eq!(room.come(5, true), Ok(None));
    }

    #[test]
    fn an_address_beyond_its_share_makes_room_itself() {
        let mut room = Room::of(1000);
        assert_eq!(room.fill(1, 700, true), (0, 0));
        assert_eq!(room.fill(1, 50, false), (0, 0));
        assert_eq!(room.come(2, false), Ok(None));
        assert_eq!(room.come(1, true), Ok(Some(701)), "its own oldest stranger leaves");
    }

    #[test]
    fn one_address_may_have_all_but_few_of_many_descriptors_and_a_proxy_all_but_fewer() {
        let mut room = Room::of(20_000);
        assert_eq!(room.fill(1, 20_000, true), (0, 512));
        let mut room = Room::of(1000);
        let taken = (0..1000).filter(|_| room.come_through(1, true, Crowd::Proxy).is_ok()).count();
        assert_eq!(taken, 938);
        assert_eq!(room.come(2, false), Ok(None));
    }

    #[test]
    fn the_very_last_place_is_for_somebody_new() {
        let mut room = Room::of(4);
        assert_eq!(room.fill(1, 4, true), (0, 1));
        assert_eq!(room.come(2, true), Ok(None));
        assert_eq!(room.come(3, true), Err(Hit::Descriptors), "there is none");
    }

    #[test]
    fn those_of_no_address_yet_are_a_holder_too() {
        let mut seats: Seats<()> = Seats::new(Limit(None), Limit(None), 1000);
        let taken = (0..1000).filter(|_| seats.take(None, Usual).is_ok()).count();
        assert_eq!(taken, 750);
        assert_eq!(seats.take(Some(source(1)), Usual), Ok(None));
    }
}
