//! [`Quotas`]: how much may be stored for each user who does not fetch, and how much of that one sender may have.
//!
//! A mailbox is counted only from the moment in which this node has put a sixteenth of its quota in, and then its size is asked
//! once. So an ordinary message costs a lookup, and no query. From there on each account and address has its share of what
//! is left: one sender fills half of a mailbox, and others find room in the other half.
//!
//! What other nodes store and delete is not seen. Before a sender is refused, the size is asked again, once a second at
//! most. So nobody is refused for long for what is gone, and a mailbox that several nodes write to exceeds its quota by a
//! sixteenth for each of them and by what they store within a second.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;

use crate::admission::{Holder, NestedShares};
use crate::delivery::Delivery;
use crate::protocol::UserId;
use crate::recent::Recent;

/// The mailboxes that were written to lately.
pub struct Quotas {
    bytes_max: usize,
    /// A leaf lock, not held while anything is asked.
    known: Mutex<Known>,
}

struct Known {
    mailboxes: Recent<UserId, Mailbox, FxBuildHasher>,
    batches: u64,
}

struct Mailbox {
    /// What this node has put in, as long as nothing else is known.
    added: usize,
    /// In which batch that was the last time: what was asked before the batch is stored does not show it.
    batch: u64,
    shares: Option<Box<Shared>>,
}

struct Shared {
    /// How much each sender has put in, of what is not in `others`.
    shares: NestedShares,
    put_in: usize,
    asked: Instant,
}

impl Quotas {
    /// Each mailbox may hold so many bytes, each message with [`MESSAGE_BYTES`] beside its text.
    pub fn new(bytes_max: usize) -> Quotas {
        Quotas { bytes_max, known: Mutex::new(Known { mailboxes: Recent::new(KNOWN_MAX), batches: 0 }) }
    }

    /// Parts a batch that is going to be stored into what fits and what does not. `size` asks how many bytes are stored for
    /// a user; `None` if that cannot be known now. What has no sender always fits.
    pub fn admit(
        &self,
        deliveries: Vec<Delivery>,
        now: Instant,
        size: impl Fn(UserId) -> Option<usize>,
    ) -> (Vec<Delivery>, Vec<Delivery>) {
        let mut known = self.known.lock();
        known.batches += 1;
        let batch = known.batches;
        let mut full = Vec::new();
        let mut fits = |delivery: &Delivery| {
            let bytes = delivery.text.len() + MESSAGE_BYTES;
            match self.add(&mut known, delivery, bytes, batch, now) {
                Verdict::Fits => return true,
                Verdict::Full => return false,
                Verdict::Ask => {}
            }
            let size = parking_lot::MutexGuard::unlocked(&mut known, || size(delivery.to));
            self.note(&mut known, delivery.to, size, batch, now);
            self.add(&mut known, delivery, bytes, batch, now) == Verdict::Fits
        };
        // Nearly always all of them fit.
        let mut kept = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            if fits(&delivery) { &mut kept } else { &mut full }.push(delivery);
        }
        (kept, full)
    }

    /// Messages of this user were deleted: what is left is asked when it matters.
    pub fn deleted(&self, user: UserId) {
        self.known.lock().mailboxes.remove(&user);
    }

    fn add(&self, known: &mut Known, delivery: &Delivery, bytes: usize, batch: u64, now: Instant) -> Verdict {
        let Some(mailbox) = known.mailboxes.get_mut(&delivery.to) else {
            known.mailboxes.insert(delivery.to, Mailbox { added: 0, batch: 0, shares: None });
            return self.add(known, delivery, bytes, batch, now);
        };
        let verdict = match (&mut mailbox.shares, delivery.holder()) {
            (None, holder) if holder.is_none() || mailbox.added + bytes <= self.bytes_max / UNCOUNTED => Verdict::Fits,
            (None, _) => Verdict::Ask,
            (Some(_), None) => Verdict::Fits,
            (Some(shared), Some(holder)) => shared.take(holder, bytes, mailbox.batch != batch, now),
        };
        if verdict == Verdict::Fits {
            mailbox.added += bytes;
            mailbox.batch = batch;
        }
        verdict
    }

    fn note(&self, known: &mut Known, user: UserId, size: Option<usize>, batch: u64, now: Instant) {
        let Some(mailbox) = known.mailboxes.get_mut(&user) else { return };
        let pending = if mailbox.batch == batch { mailbox.added } else { 0 };
        let Some(size) = size.map(|size| size + pending) else {
            // What is known must do. The spool is bounded by itself.
            let others = mailbox.added;
            let new = || Box::new(Shared::new(self.bytes_max.saturating_sub(others), now));
            mailbox.shares.get_or_insert_with(new).asked = now;
            return;
        };
        match &mut mailbox.shares {
            // Nothing was taken away, and others may have put something in.
            Some(shared) if size >= shared.put_in => {
                shared.shares.set_max(self.bytes_max.saturating_sub(size - shared.put_in));
                shared.asked = now;
            }
            shares => {
                *shares = Some(Box::new(Shared::new(self.bytes_max.saturating_sub(size), now)));
                mailbox.added = 0;
            }
        }
    }
}

impl Shared {
    fn new(free: usize, asked: Instant) -> Shared {
        Shared { shares: NestedShares::new(free), put_in: 0, asked }
    }

    fn take(&mut self, holder: Holder, bytes: usize, may_ask: bool, now: Instant) -> Verdict {
        if self.shares.free() > 0 && self.shares.take(holder, bytes) {
            self.put_in += bytes;
            return Verdict::Fits;
        }
        let is_old = now.saturating_duration_since(self.asked) >= ASKED_EVERY;
        if may_ask && is_old { Verdict::Ask } else { Verdict::Full }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Fits,
    Full,
    /// The mailbox's size is to be asked first.
    Ask,
}

/// What a message weighs beside its text.
pub const MESSAGE_BYTES: usize = 64;
/// Mailboxes that are remembered at least; some 10 MB at most.
const KNOWN_MAX: usize = 100_000;
/// Which part of its quota a node puts into a mailbox before it is counted.
const UNCOUNTED: usize = 16;
const ASKED_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use super::*;
    use crate::admission::{Payer, Source};
    use crate::berths::Berths;
    use crate::delivery::Origin;

    const MAX: usize = 16_000;

    struct Scene {
        quotas: Quotas,
        stored: Cell<usize>,
        asked: Cell<usize>,
        now: Instant,
    }

    impl Scene {
        fn new() -> Scene {
            Scene { quotas: Quotas::new(MAX), stored: Cell::new(0), asked: Cell::new(0), now: Instant::now() }
        }

        /// Stores messages of 100 bytes each in one batch; how many fit.
        fn store(&self, from: i32, count: usize) -> usize {
            let berths = Berths::new(1 << 30);
            let source = Source::of([192, 0, 2, 1].into());
            let holder = Holder { payer: Payer::Account(UserId(from)), source };
            let delivery = |_| Delivery {
                to: UserId(9),
                text: Arc::from("x".repeat(100 - MESSAGE_BYTES)),
                origin: Origin::Weighed(berths.take(holder, 1).expect("room")),
                was_refused: false,
            };
            let (kept, full) = self.quotas.admit((0..count).map(delivery).collect(), self.now, |_| {
                self.asked.set(self.asked.get() + 1);
                Some(self.stored.get())
            });
            assert_eq!(kept.len() + full.len(), count);
            self.stored.set(self.stored.get() + 100 * kept.len());
            kept.len()
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
    fn what_others_stored_counts_and_what_is_fetched_makes_room() {
        let mut scene = Scene::new();
        scene.stored.set(MAX);
        assert_eq!(scene.store(1, 11), 10, "a sixteenth is not counted");
        assert_eq!((scene.store(1, 5), scene.asked.get()), (0, 1), "it is not asked again at once");
        // Another node deletes.
        scene.stored.set(0);
        scene.now += ASKED_EVERY;
        assert!(scene.store(1, 50) == 50);
        assert_eq!(scene.asked.get(), 2);
        // This node does.
        while scene.store(1, 1) > 0 {}
        scene.stored.set(0);
        scene.quotas.deleted(UserId(9));
        assert_eq!(scene.store(1, 50), 50);
    }
}
