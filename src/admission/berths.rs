//! [`Berths`]: room in the lanes for messages on their way to other nodes and to the store.
//!
//! A message takes room when it is accepted and releases it when it is settled: when another node
//! has confirmed it, or the store or the spool has it. So one bound covers all lanes together and
//! the messages that other nodes have not confirmed yet. Each account and address has its share of
//! the room: one that sends more than the store takes is refused, and others notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::admission::{Holder, NestedShares};

/// The total room.
#[derive(Debug)]
pub struct Berths {
    /// A leaf lock, held for a lookup.
    shares: Mutex<NestedShares>,
}

/// The room of one message, released when dropped.
#[derive(Debug)]
pub struct Berth {
    berths: Arc<Berths>,
    holder: Holder,
    bytes: AtomicUsize,
}

impl Berths {
    /// Room for this number of bytes.
    pub fn new(bytes_max: usize) -> Arc<Berths> {
        Arc::new(Berths { shares: Mutex::new(NestedShares::new(bytes_max)) })
    }

    /// Takes room for `holder`; `None` if that would exceed its share.
    pub fn take(self: &Arc<Berths>, holder: Holder, bytes: usize) -> Option<Berth> {
        let taken = self.shares.lock().take(holder, bytes);
        taken.then(|| Berth { berths: self.clone(), holder, bytes: AtomicUsize::new(bytes) })
    }

    /// The free bytes.
    pub fn free(&self) -> usize {
        self.shares.lock().free()
    }
}

impl Berth {
    /// The owner of the share.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// Takes more room for the same message; false if that would exceed the holder's share.
    pub fn widen(&self, bytes: usize) -> bool {
        let taken = self.berths.shares.lock().take(self.holder, bytes);
        if taken {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        taken
    }

    /// Takes over the room of another message of the same holder, so that both are released
    /// together. Room of another holder is released now.
    pub fn join(&mut self, mut other: Berth) {
        if other.holder == self.holder {
            *self.bytes.get_mut() += std::mem::take(other.bytes.get_mut());
        }
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        if bytes > 0 {
            self.berths.shares.lock().give_back(self.holder, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Payer, Source};
    use crate::protocol::UserId;

    #[test]
    fn room_is_given_back_once_also_when_it_was_widened_or_joined() {
        let berths = Berths::new(1000);
        let holder = |user| Holder { payer: Payer::Account(UserId(user)), source: Source::of([192, 0, 2, 1].into()) };
        let mut first = berths.take(holder(1), 300).expect("there is room");
        assert!(first.widen(200));
        assert!(!first.widen(1), "it has half of all");
        assert!(berths.take(holder(1), 1).is_none());
        let second = berths.take(holder(2), 100).expect("others find room");
        assert_eq!(berths.free(), 400);
        first.join(second);
        assert_eq!(berths.free(), 500, "another holder's is given back at once");
        drop(first);
        let (mut first, second) = (berths.take(holder(1), 10).unwrap(), berths.take(holder(1), 20).unwrap());
        first.join(second);
        assert_eq!(berths.free(), 970);
        drop(first);
        assert_eq!(berths.free(), 1000);
    }
}
