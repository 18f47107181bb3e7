//! [`Shares`]: how much of a queue each address may hold.
//!
//! No more than is left free (the dynamic thresholds of Choudhury and Hahne, 1998): one address alone may hold half of the
//! queue, and each of n the (n + 1)th part. So who comes from elsewhere finds a place, however hard one address tries.

use std::collections::HashMap;

use super::Source;

/// The places in a queue, and who holds them.
#[derive(Debug)]
pub struct Shares {
    free: usize,
    of_address: HashMap<Source, usize>,
}

impl Shares {
    /// So many places.
    pub fn new(places: usize) -> Shares {
        Shares { free: places, of_address: HashMap::new() }
    }

    /// Takes a place; false if the address has its share.
    pub fn take(&mut self, source: Source) -> bool {
        let held = self.of_address.get(&source).copied().unwrap_or(0);
        if held >= self.free {
            return false;
        }
        self.of_address.insert(source, held + 1);
        self.free -= 1;
        true
    }

    /// A place is free again.
    pub fn give_back(&mut self, source: Source) {
        let held = self.of_address.get_mut(&source).expect("it was counted when it was taken");
        *held -= 1;
        if *held == 0 {
            self.of_address.remove(&source);
        }
        self.free += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into())
    }

    fn fill(shares: &mut Shares, from: u8) -> usize {
        std::iter::from_fn(|| shares.take(source(from)).then_some(())).count()
    }

    #[test]
    fn one_address_has_half_and_leaves_room_for_others() {
        let mut shares = Shares::new(256);
        assert_eq!([1, 2, 3].map(|from| fill(&mut shares, from)), [128, 64, 32]);
        (0..64).for_each(|_| shares.give_back(source(1)));
        assert_eq!(fill(&mut shares, 4), 48);
        assert!(!shares.take(source(1)), "it has more than is free");
        for (from, count) in [(1, 64), (2, 64), (3, 32), (4, 48)] {
            (0..count).for_each(|_| shares.give_back(source(from)));
        }
        assert_eq!((shares.free, shares.of_address.len()), (256, 0));
    }

    #[test]
    fn the_smallest_queue_takes_somebody() {
        let mut shares = Shares::new(2);
        assert_eq!(fill(&mut shares, 1), 1);
        assert_eq!(fill(&mut shares, 2), 1);
        shares.give_back(source(1));
        assert_eq!(fill(&mut shares, 3), 1);
    }
}
