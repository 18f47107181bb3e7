//! [`Shares`]: the part of a bounded resource that each holder may have.
//!
//! A holder may have no more than is free (the dynamic thresholds of Choudhury and Hahne, 1998): at
//! most half when it is alone, and each of n holders the (n + 1)th part. So a newcomer finds room,
//! however much others take.
//!
//! [`NestedShares`] does this for accounts inside addresses. A whole office may share one address,
//! so an address may have four times what is free: at most four fifths. An account may have no more
//! than is free within its address. So neither many connections of one account nor many accounts at
//! one address take the room of others, there or elsewhere.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;

use super::{Holder, Payer, Source};

/// The amount that each holder has. The owner decides what is counted: places in a queue, or bytes.
///
/// If keys come from outside, the hasher must have a secret, as this one has. It costs a stored
/// message a tenth of what the standard library's costs.
#[derive(Debug)]
pub struct Shares<K, S = RandomState> {
    max: usize,
    used: usize,
    held: HashMap<K, usize, S>,
}

impl<K: Eq + Hash, S: BuildHasher + Default> Shares<K, S> {
    /// `max` in all, all of it free.
    pub fn new(max: usize) -> Shares<K, S> {
        Shares { max, used: 0, held: HashMap::default() }
    }

    /// Takes `weight` for `key`; false if that would exceed its share. A holder of nothing may take
    /// all that is free.
    pub fn take(&mut self, key: K, weight: usize) -> bool {
        let fits = self.would_take(&key, weight);
        if fits {
            self.take_anyway(key, weight);
        }
        fits
    }

    /// Whether `key` may have `weight` more.
    pub fn would_take(&self, key: &K, weight: usize) -> bool {
        self.held(key).saturating_add(weight) <= self.free()
    }

    /// Takes `weight` even if it is more than is free: for items that were accepted, and limited,
    /// before.
    pub fn take_anyway(&mut self, key: K, weight: usize) {
        if weight > 0 {
            *self.held.entry(key).or_default() += weight;
            self.used += weight;
        }
    }

    /// Releases `weight` of what `key` has taken.
    ///
    /// # Panics
    ///
    /// If `key` holds less.
    pub fn give_back(&mut self, key: K, weight: usize) {
        if weight == 0 {
            return;
        }
        let Entry::Occupied(mut held) = self.held.entry(key) else { unreachable!("it was counted when it was taken") };
        *held.get_mut() -= weight;
        if *held.get() == 0 {
            held.remove();
        }
        self.used -= weight;
    }

    /// Sets the total; holders keep what they have.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// The free amount.
    pub fn free(&self) -> usize {
        self.max.saturating_sub(self.used)
    }

    /// The amount that `key` holds.
    pub fn held(&self, key: &K) -> usize {
        self.held.get(key).copied().unwrap_or(0)
    }
}

/// Shares of accounts and of addresses together. See the [module](self).
#[derive(Debug)]
pub struct NestedShares {
    payers: Shares<Payer>,
    sources: Shares<Source>,
}

impl NestedShares {
    /// `max` in all, all of it free.
    pub fn new(max: usize) -> NestedShares {
        NestedShares { payers: Shares::new(max), sources: Shares::new(max) }
    }

    /// Takes `weight` for `holder`; false if that would exceed the share of its payer or of its
    /// address. If nothing is held, the first holder gets all that it wants, even more than the
    /// total.
    pub fn take(&mut self, holder: Holder, weight: usize) -> bool {
        let fits = self.payers.used == 0 || {
            let free = self.payers.free();
            let of_address = free.saturating_mul(ADDRESS_FACTOR).saturating_sub(self.sources.held(&holder.source));
            self.payers.held(&holder.payer).saturating_add(weight) <= free.min(of_address)
        };
        if fits {
            self.take_anyway(holder, weight);
        }
        fits
    }

    /// Takes `weight` even if it is more than is free: for items that were accepted, and limited,
    /// before.
    pub fn take_anyway(&mut self, holder: Holder, weight: usize) {
        self.payers.take_anyway(holder.payer, weight);
        self.sources.take_anyway(holder.source, weight);
    }

    /// Releases `weight` of what the holder has taken.
    ///
    /// # Panics
    ///
    /// If the holder has less.
    pub fn give_back(&mut self, holder: Holder, weight: usize) {
        self.payers.give_back(holder.payer, weight);
        self.sources.give_back(holder.source, weight);
    }

    /// The amount that the payer and the address both hold.
    pub fn held(&self, holder: &Holder) -> usize {
        self.payers.held(&holder.payer).min(self.sources.held(&holder.source))
    }

    /// Sets the total; holders keep what they have.
    pub fn set_max(&mut self, max: usize) {
        self.payers.set_max(max);
        self.sources.set_max(max);
    }

    /// The free amount.
    pub fn free(&self) -> usize {
        self.payers.free()
    }
}

/// An address may hold this many times what is free.
const ADDRESS_FACTOR: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::UserId;

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into())
    }

    fn fill(shares: &mut Shares<u8>, from: u8) -> usize {
        std::iter::from_fn(|| shares.take(from, 1).then_some(())).count()
    }

    /// Takes pieces of ten for an account until it is refused. Returns the total.
    fn fill_account(shares: &mut NestedShares, user: i32, from: u8) -> usize {
        let holder = holder(user, from);
        10 * std::iter::from_fn(|| shares.take(holder, 10).then_some(())).count()
    }

    fn holder(user: i32, from: u8) -> Holder {
        Holder { payer: Payer::Account(UserId(user)), source: source(from) }
    }

    #[test]
    fn one_holder_has_half_and_leaves_room_for_others() {
        let mut shares = Shares::<u8>::new(256);
        assert_eq!([1, 2, 3].map(|from| fill(&mut shares, from)), [128, 64, 32]);
        shares.give_back(1, 64);
        assert_eq!(fill(&mut shares, 4), 48);
        assert!(!shares.take(1, 1), "it has more than is free");
        for (from, count) in [(1, 64), (2, 64), (3, 32), (4, 48)] {
            shares.give_back(from, count);
        }
        assert_eq!((shares.free(), shares.held.len()), (256, 0));
    }

    #[test]
    fn the_smallest_queue_takes_somebody() {
        let mut shares = Shares::<u8>::new(2);
        assert_eq!(fill(&mut shares, 1), 1);
        assert_eq!(fill(&mut shares, 2), 1);
        shares.give_back(1, 1);
        assert_eq!(fill(&mut shares, 3), 1);
    }

    #[test]
    fn weights_count_and_a_holder_of_nothing_may_have_all_that_is_free() {
        let mut shares = Shares::<u8>::new(100);
        assert!(shares.take(1, 60));
        assert!(!shares.take(1, 1));
        assert!(!shares.take(2, 41));
        assert!(shares.take(2, 40));
        shares.take_anyway(3, 25);
        assert_eq!((shares.free(), shares.held(&3)), (0, 25));
        for (from, weight) in [(1, 60), (2, 40), (3, 25)] {
            shares.give_back(from, weight);
        }
        assert_eq!((shares.free(), shares.held.len()), (100, 0));
    }

    #[test]
    fn a_greedy_account_leaves_room_for_another_one_at_its_address() {
        let mut shares = NestedShares::new(10_000);
        assert_eq!(fill_account(&mut shares, 1, 1), 5000);
        // The account has no more from another address.
        assert_eq!(fill_account(&mut shares, 1, 2), 0);
        assert!(fill_account(&mut shares, 2, 1) >= 2000);
    }

    #[test]
    fn many_accounts_of_one_address_leave_a_fifth_for_others_and_some_for_their_own() {
        let mut shares = NestedShares::new(1_000_000);
        let held: usize = (1..=100).map(|user| fill_account(&mut shares, user, 1)).sum();
        assert!((790_000..=800_000).contains(&held), "{held}");
        assert!(fill_account(&mut shares, 1000, 2) >= 90_000);
        shares.give_back(holder(1, 1), 10_000);
        assert!(shares.take(holder(1001, 2), 1));
    }

    #[test]
    fn something_larger_than_all_passes_while_nobody_holds_anything() {
        let mut shares = NestedShares::new(100);
        assert!(shares.take(holder(1, 1), 1000));
        assert!(!shares.take(holder(2, 2), 1));
        shares.give_back(holder(1, 1), 1000);
        assert!(shares.take(holder(2, 2), 1));
    }
}
