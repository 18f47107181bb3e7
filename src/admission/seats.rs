//! [`Seats`]: how many connections there are, in all and for each address.

use std::collections::HashMap;

use super::Source;
use crate::config::Limit;
use crate::metrics::Hit;

/// Who has come in and is still there.
#[derive(Debug)]
pub struct Seats {
    max: Limit,
    max_of_address: Limit,
    taken: u32,
    /// Empty where nobody counts them.
    of_address: HashMap<Source, u32>,
}

impl Seats {
    /// So many connections, and so many of one address.
    pub fn new(max: Limit, max_of_address: Limit) -> Seats {
        Seats { max, max_of_address, taken: 0, of_address: HashMap::new() }
    }

    /// A connection comes in, of this address if it is known.
    ///
    /// # Errors
    /// The limit that it is beyond; it is not counted then.
    pub fn take(&mut self, source: Option<Source>) -> Result<(), Hit> {
        if self.max.0.is_some_and(|max| self.taken >= max) {
            return Err(Hit::MaxConnections);
        }
        source.map_or(Ok(()), |source| self.assign(source))?;
        self.taken += 1;
        Ok(())
    }

    /// A connection that came in is of this address.
    ///
    /// # Errors
    /// The limit that it is beyond; it is not counted for the address then.
    pub fn assign(&mut self, source: Source) -> Result<(), Hit> {
        if let Some(max) = self.max_of_address.0 {
            let of_address = self.of_address.entry(source).or_default();
            if *of_address >= max {
                return Err(Hit::ConnectionsPerAddress);
            }
            *of_address += 1;
        }
        Ok(())
    }

    /// A connection that came in, and was of this address if it was known, is gone.
    pub fn give_back(&mut self, source: Option<Source>) {
        self.taken -= 1;
        if let Some(source) = source.filter(|_| self.max_of_address.0.is_some()) {
            let of_address = self.of_address.get_mut(&source).expect("it was counted when it came in");
            *of_address -= 1;
            if *of_address == 0 {
                self.of_address.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into())
    }

    #[test]
    fn both_limits_hold_and_who_leaves_makes_room() {
        let mut seats = Seats::new(Limit(Some(3)), Limit(Some(2)));
        let source = |last| Some(source(last));
        assert_eq!(seats.take(source(1)), Ok(()));
        assert_eq!(seats.take(source(1)), Ok(()));
        assert_eq!(seats.take(source(1)), Err(Hit::ConnectionsPerAddress));
        assert_eq!(seats.take(source(2)), Ok(()));
        assert_eq!(seats.take(source(3)), Err(Hit::MaxConnections));
        seats.give_back(source(1));
        assert_eq!(seats.take(source(1)), Ok(()));
        for n in [1, 1, 2] {
            seats.give_back(source(n));
        }
        assert!(seats.of_address.is_empty(), "nothing is kept of who has left");
    }

    #[test]
    fn who_is_not_known_yet_counts_in_all_and_then_for_an_address() {
        let mut seats = Seats::new(Limit(Some(3)), Limit(Some(1)));
        (0..3).for_each(|_| assert_eq!(seats.take(None), Ok(())));
        assert_eq!(seats.take(None), Err(Hit::MaxConnections));
        assert_eq!(seats.take(Some(source(1))), Err(Hit::MaxConnections));
        assert_eq!(seats.assign(source(1)), Ok(()));
        assert_eq!(seats.assign(source(1)), Err(Hit::ConnectionsPerAddress));
        seats.give_back(None);
        assert_eq!(seats.take(Some(source(2))), Ok(()));
        for source in [Some(source(1)), None, Some(source(2))] {
            seats.give_back(source);
        }
        assert_eq!((seats.taken, seats.of_address.len()), (0, 0));
    }

    #[test]
    fn off_is_without_end() {
        let mut seats = Seats::new(Limit(None), Limit(None));
        assert!((0..100_000).all(|_| seats.take(Some(source(1))).is_ok()));
        assert!(seats.of_address.is_empty());
    }
}
