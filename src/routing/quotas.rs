//! [`Quotas`]: the limits of stored messages for each user who does not fetch, and each sender's
//! part.
//!
//! A mailbox is counted only after this node has put in a sixteenth of its quota; then its size is
//! queried once. So an ordinary message costs a lookup and no query. From there on, each account
//! and address has its share of the free space: one sender fills half of a mailbox, and others find
//! room in the other half. A group counts as one such sender, no matter which member writes to it,
//! and all groups together have at most four fifths. So a busy group leaves room for its dormant
//! members' friends.
//!
//! This node does not see what other nodes store and delete. Before a sender is refused, the size
//! is queried again, first after a second, and less often while the mailbox stays full. So no
//! sender is refused for long because of messages that are gone. A mailbox to which several nodes
//! write exceeds its quota by a sixteenth for each of them and by what they store between two
//! queries.
//!
//! A group may have thousands of dormant members, whose mailboxes fill at the same time, and each
//! size takes a query. So at most a tenth of the time is spent on queries, and none while the
//! database is unreachable. A mailbox whose size cannot be queried is counted a little later, from
//! what this node has put in.
//!
//! However many mailboxes one client writes to, the amounts in other mailboxes are not forgotten:
//! uncounted mailboxes share a fixed number of sums ([`SUMS`]), by a secret hash. Mailboxes that
//! share a sum are counted earlier than each alone would be. A query subtracts the size of the
//! mailbox from the sum, but at least a sixteenth of the sum, because messages that were fetched
//! since are still in it. So there is at most one query for each 256th of a quota that is stored. A
//! client that wants to shrink another user's sum by as much must write to [`SUMS`] mailboxes on
//! average. A counted mailbox is forgotten after [`COUNTED_MAX`] others have been counted; then
//! it is counted anew.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxBuildHasher;

use crate::admission::{Holder, NestedShares};
use crate::base::clock::Clock;
use crate::base::recent::Recent;
use crate::delivery::Delivery;
use crate::protocol::UserId;
use crate::store::ROW_BYTES;

/// The fullness of mailboxes, as far as it matters.
pub struct Quotas {
    bytes_max: usize,
    /// Secret, so that no client can choose mailboxes that share a sum with another user's.
    hasher: RandomState,
    /// A leaf lock, not held during a query.
    known: Mutex<KnownSizes>,
}

/// The result for a batch.
#[derive(Debug, Default)]
pub struct QuotaOutcome {
    /// The messages to be stored.
    pub fits: Vec<Delivery>,
    /// The messages without room.
    pub full: Vec<Delivery>,
    /// Users whose mailboxes have refused a message for the first time.
    pub filled: Vec<UserId>,
}

/// Queries the bytes stored for a user; `None` if that is impossible now.
pub type Size<'a> = &'a dyn Fn(UserId) -> Option<usize>;

/// The known sizes of mailboxes.
struct KnownSizes {
    /// For each sum: the bytes that this node has stored in its uncounted mailboxes since the sum
    /// was last reduced.
    sums: Box<[usize]>,
    counted: Recent<UserId, Counted, FxBuildHasher>,
    /// The earliest time of the next query.
    next_question: Option<Instant>,
}

/// A mailbox that was asked about, or that could not be asked about for too long.
struct Counted {
    /// The amount that each sender has put in, apart from `others`.
    shares: NestedShares,
    put_in: usize,
    /// The earliest time of the next query, and the pause after that.
    ask_at: Instant,
    pause: Duration,
    /// Whether it has refused a message and that was logged.
    has_refused: bool,
}

impl Quotas {
    /// Each mailbox may hold this number of bytes, counted as the text and [`ROW_BYTES`] for each
    /// message.
    pub fn new(bytes_max: usize) -> Quotas {
        let (sums, counted) = (vec![0; SUMS].into(), Recent::new(COUNTED_MAX));
        let known = Mutex::new(KnownSizes { sums, counted, next_question: None });
        Quotas { bytes_max, hasher: RandomState::new(), known }
    }

    /// Splits a batch that is going to be stored into the messages that fit and those that do not.
    /// Without `size` nothing is queried, because the database is unreachable. Messages without a
    /// sender always fit.
    pub fn admit(&self, deliveries: Vec<Delivery>, clock: &Clock, size: Option<Size<'_>>) -> QuotaOutcome {
        let mut known = self.known.lock();
        let mut now = clock.now();
        // Nearly always all of them fit.
        let mut admitted = QuotaOutcome { fits: Vec::with_capacity(deliveries.len()), ..QuotaOutcome::default() };
        for delivery in deliveries {
            let to = delivery.to;
            match self.is_admitted(&mut known, &delivery, &admitted.fits, clock, &mut now, size) {
                true => admitted.fits.push(delivery),
                false => {
                    admitted.full.push(delivery);
                    let counted = known.counted.get_mut(&to);
                    if counted.is_some_and(|counted| !std::mem::replace(&mut counted.has_refused, true)) {
                        admitted.filled.push(to);
                    }
                }
            }
        }
        admitted
    }

    /// Notes that messages of this user were deleted: the size is queried when it matters.
    pub fn deleted(&self, user: UserId) {
        self.known.lock().counted.remove(&user);
    }

    /// `fits`: the messages that are stored together with it.
    fn is_admitted(
        &self,
        known: &mut MutexGuard<'_, KnownSizes>,
        delivery: &Delivery,
        fits: &[Delivery],
        clock: &Clock,
        now: &mut Instant,
        size: Option<Size<'_>>,
    ) -> bool {
        let mut is_asked = false;
        loop {
            let verdict = self.add(known, delivery, *now);
            let may_wait = match verdict {
                QuotaVerdict::Fits => return true,
                QuotaVerdict::Full => return false,
                QuotaVerdict::AskFirst { may_wait } => may_wait,
                QuotaVerdict::AskAgain => false,
            };
            match size.filter(|_| !is_asked && known.next_question.is_none_or(|at| at <= *now)) {
                Some(size) => {
                    is_asked = true;
                    let asked_at = clock.now();
                    let answer = MutexGuard::unlocked(known, || size(delivery.to));
                    *now = clock.now();
                    known.next_question = Some(*now + REST * now.saturating_duration_since(asked_at));
                    // The answer does not show what waits to be stored with this one.
                    let pending: usize = fits.iter().filter(|other| other.to == delivery.to).map(weight).sum();
                    self.note(known, delivery.to, answer.map(|size| size + pending), *now);
                }
                None if verdict == QuotaVerdict::AskAgain => return false,
                None if may_wait => {
                    *self.sum(known, delivery.to) += weight(delivery);
                    return true;
                }
                None => self.note(known, delivery.to, None, *now),
            }
        }
    }

    fn sum<'k>(&self, known: &'k mut KnownSizes, user: UserId) -> &'k mut usize {
        let at = self.hasher.hash_one(user) % known.sums.len() as u64;
        &mut known.sums[at as usize]
    }

    fn add(&self, known: &mut KnownSizes, delivery: &Delivery, now: Instant) -> QuotaVerdict {
        let (holder, bytes) = (delivery.payer_of_mailbox(), weight(delivery));
        if let Some(counted) = known.counted.get_mut(&delivery.to) {
            return holder.map_or(QuotaVerdict::Fits, |holder| counted.take(holder, bytes, now));
        }
        let sum = self.sum(known, delivery.to);
        let uncounted = *sum + bytes;
        if holder.is_some() && uncounted > self.bytes_max / UNCOUNTED {
            return QuotaVerdict::AskFirst { may_wait: uncounted <= self.bytes_max / UNASKED };
        }
        *sum = uncounted;
        QuotaVerdict::Fits
    }

    fn note(&self, known: &mut KnownSizes, user: UserId, size: Option<usize>, now: Instant) {
        match (known.counted.get_mut(&user), size) {
            // Nothing was removed, and others may have added something.
            (Some(counted), Some(size)) if size >= counted.put_in => {
                counted.shares.set_max(self.bytes_max.saturating_sub(size - counted.put_in));
                counted.put_off(now);
            }
            (Some(counted), None) => counted.put_off(now),
            (Some(counted), Some(size)) => *counted = Counted::new(self.bytes_max.saturating_sub(size), now),
            (None, size) => {
                let sum = self.sum(known, user);
                // Without an answer from the store, the sum stands in for the size. The spool has a
                // bound of its own.
                let used = size.unwrap_or(*sum);
                *sum -= size.unwrap_or(0).max(*sum / SHRINKS_BY).min(*sum);
                let mut counted = Counted::new(self.bytes_max.saturating_sub(used), now);
                if size.is_none() {
                    counted.put_off(now);
                }
                known.counted.insert(user, counted);
            }
        }
    }
}

fn weight(delivery: &Delivery) -> usize {
    delivery.text.len() + ROW_BYTES
}

impl Counted {
    fn new(free: usize, now: Instant) -> Counted {
        let shares = NestedShares::new(free);
        Counted { shares, put_in: 0, ask_at: now + PAUSE_MIN, pause: PAUSE_MIN, has_refused: false }
    }

    fn put_off(&mut self, now: Instant) {
        self.pause = (2 * self.pause).min(PAUSE_MAX);
        self.ask_at = now + self.pause;
    }

    fn take(&mut self, holder: Holder, bytes: usize, now: Instant) -> QuotaVerdict {
        if self.shares.free() > 0 && self.shares.take(holder, bytes) {
            self.put_in += bytes;
            return QuotaVerdict::Fits;
        }
        if self.ask_at <= now { QuotaVerdict::AskAgain } else { QuotaVerdict::Full }
    }
}

/// Whether a message may be put into a mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum QuotaVerdict {
    Fits,
    Full,
    /// The size should be queried first, unless that can wait a little longer.
    AskFirst {
        may_wait: bool,
    },
    /// The mailbox is full, unless something was deleted since the query.
    AskAgain,
}

/// Sums of mailboxes that are not counted: 4 MiB.
const SUMS: usize = 1 << 19;
/// A query subtracts at least this part of a sum.
const SHRINKS_BY: usize = 16;
/// Counted mailboxes that are remembered at least, and at most twice as many: some tens of
/// megabytes.
const COUNTED_MAX: usize = 100_000;
/// The part of its quota that a node puts into a mailbox before it is counted.
const UNCOUNTED: usize = 16;
/// The same if there is no time to query its size.
const UNASKED: usize = 4;
/// The pause before the size of a full mailbox is queried again, at first and at most.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// After a query there is none for this many times its duration.
const REST: u32 = 9;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::admission::berths::Berths;
    use crate::admission::{Payer, Source};
    use crate::base::ids::FrameId;
    use crate::delivery::{DeliveryOrigin, Owed, Provenance};
    use crate::protocol::GroupId;

    const MAX: usize = 16_000;

    struct Scene {
        quotas: Quotas,
        stored: Cell<usize>,
        asked: Cell<usize>,
        clock: Clock,
        /// The duration of a query; `None` if queries are impossible.
        asking: Option<Duration>,
    }

    impl Scene {
        fn new() -> Scene {
            let clock = Clock::standing_at(Instant::now());
            let (stored, asked) = (Cell::new(0), Cell::new(0));
            Scene { quotas: Quotas::new(MAX), stored, asked, clock, asking: Some(Duration::ZERO) }
        }

        /// Stores messages of 100 bytes each in one batch. Returns how many fit.
        fn store(&self, from: i32, count: usize) -> usize {
            self.store_for(Payer::Account(UserId(from)), 9, count)
        }

        fn store_for(&self, payer: Payer, to: i32, count: usize) -> usize {
            self.store_to(payer, (0..count).map(|_| to))
        }

        /// Stores one message for each of these.
        fn store_to(&self, payer: Payer, to: impl ExactSizeIterator<Item = i32>) -> usize {
            let count = to.len();
            let berths = Berths::new(1 << 30);
            let address = if let Payer::Group(_) = payer { [0, 0, 0, 0] } else { [192, 0, 2, 1] };
            let holder = Holder { payer, source: Source::of(address.into()) };
            let sender = net::simulation::link_to_nowhere().expect("descriptors");
            let provenance = Provenance { sender: &sender, id: FrameId::UNNAMED, holder };
            let delivery = |to| {
                let origin = DeliveryOrigin::Sender(Owed::to(&provenance, 1), berths.take(holder, 1).expect("room"));
                Delivery::new(UserId(to), "x".repeat(100 - ROW_BYTES).into(), origin)
            };
            let size = |_| {
                self.asked.set(self.asked.get() + 1);
                self.pass(self.asking.unwrap_or_default());
                Some(self.stored.get())
            };
            let size = self.asking.map(|_| &size as Size<'_>);
            let admitted = self.quotas.admit(to.map(delivery).collect(), &self.clock, size);
            let kept = admitted.fits.len();
            assert_eq!(kept + admitted.full.len(), count);
            self.stored.set(self.stored.get() + 100 * kept);
            kept
        }

        fn pass(&self, time: Duration) {
            self.clock.set(self.clock.now() + time);
        }
    }

    #[test]
    fn a_few_messages_cost_no_query_and_one_sender_fills_half() {
        let scene = Scene::new();
        assert_eq!((scene.store(1, 10), scene.asked.get()), (10, 0));
        let greedy: usize = (0..300).map(|_| scene.store(1, 1)).sum();
        assert!((70..=80).contains(&greedy), "{greedy}");
        assert_eq!(scene.asked.get(), 1);
        assert_eq!(scene.store(2, 20), 20, "another sender finds room");
        assert!(scene.stored.get() <= MAX);
    }

    #[test]
    fn one_batch_does_not_exceed_it_either() {
        let scene = Scene::new();
        let greedy = scene.store(1, 1000);
        assert!((60..=90).contains(&greedy), "{greedy}");
        assert!(scene.store(2, 1000) >= 20);
        assert!(scene.stored.get() <= MAX);
    }

    #[test]
    fn messages_stored_by_earlier_batches_count_once() {
        let scene = Scene::new();
        scene.store(1, 5);
        // The size is asked in the middle of this batch: 500 bytes are stored, and 500 are about to
        // be.
        assert_eq!((scene.store(1, 1000), scene.asked.get()), (5 + 75, 1), "half of the other 15,000");
    }

    #[test]
    fn the_share_in_a_mailbox_is_not_forgotten_however_many_others_a_client_writes_to() {
        let scene = Scene::new();
        assert_eq!((scene.store(1, 10), scene.asked.get()), (10, 0), "a sixteenth");
        for first in [1000, 301_000] {
            scene.stored.set(0);
            let others = scene.store_to(Payer::Account(UserId(3)), first..first + 150_000);
            assert_eq!(others, 150_000);
        }
        let asked = scene.asked.get();
        assert!(asked < 20, "{asked} questions");
        scene.stored.set(1000);
        assert_eq!(scene.store(1, 3), 3);
        assert!(scene.asked.get() > asked, "it is counted now, and not when a sixteenth more is in it");
        let greedy: usize = (0..300).map(|_| scene.store(1, 1)).sum();
        assert!((65..=80).contains(&greedy), "{greedy}");
    }

    #[test]
    fn messages_stored_by_others_count_and_fetched_ones_make_room() {
        let scene = Scene::new();
        scene.stored.set(MAX);
        assert_eq!(scene.store(1, 11), 10, "a sixteenth is not counted");
        assert_eq!((scene.store(1, 5), scene.asked.get()), (0, 1), "it is not asked again at once");
        // Another node deletes.
        scene.stored.set(0);
        scene.pass(PAUSE_MIN);
        assert!(scene.store(1, 50) == 50);
        assert_eq!(scene.asked.get(), 2);
        // This node does.
        while scene.store(1, 1) > 0 {}
        scene.stored.set(0);
        scene.quotas.deleted(UserId(9));
        assert_eq!(scene.store(1, 50), 50);
    }

    #[test]
    fn a_mailbox_that_stays_full_is_asked_about_less_and_less() {
        let scene = Scene::new();
        scene.stored.set(MAX);
        for _ in 0..600 {
            scene.store(1, 20);
            scene.pass(Duration::from_secs(1));
        }
        let asked = scene.asked.get();
        assert!((10..=20).contains(&asked), "{asked} times in ten minutes");
    }

    #[test]
    fn thousands_of_mailboxes_that_fill_at_the_same_time_do_not_keep_the_lane() {
        const MEMBERS: i32 = 2000;
        let mut scene = Scene::new();
        scene.asking = Some(Duration::from_millis(10));
        let begun = scene.clock.now();
        // A group message every millisecond, to members whose mailboxes are all in the same state.
        for _ in 0..100 {
            for member in 0..MEMBERS {
                scene.store_for(Payer::Group(GroupId(1)), 100 + member, 1);
            }
            scene.pass(Duration::from_millis(1));
        }
        let (took, asked) = (scene.clock.now() - begun, scene.asked.get());
        assert!(asked > 0 && took < Duration::from_millis(130), "{asked} questions, {took:?}");
    }

    #[test]
    fn sizes_that_cannot_be_asked_for_are_counted_a_little_later() {
        let mut scene = Scene::new();
        scene.asking = None;
        let stored: usize = (0..300).map(|_| scene.store(1, 1)).sum();
        // A quarter that is not counted, and half of the rest.
        assert!((90..=105).contains(&stored), "{stored}");
        assert!(scene.store(2, 10) == 10 && scene.asked.get() == 0);
    }

    #[test]
    fn all_members_of_a_group_are_one_sender() {
        let scene = Scene::new();
        let [group, another] = [1, 2].map(|group| Payer::Group(GroupId(group)));
        let of_group: usize = (0..300).map(|_| scene.store_for(group, 9, 1)).sum();
        assert!((70..=90).contains(&of_group), "{of_group}");
        let of_another: usize = (0..300).map(|_| scene.store_for(another, 9, 1)).sum();
        assert!((30..=50).contains(&of_another), "{of_another}");
        assert_eq!(scene.store(1, 10), 10, "a friend finds room");
    }
}
