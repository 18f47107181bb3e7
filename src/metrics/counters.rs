//! Counters that all threads share.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::families::Sample;

/// A counter for events that happen once per batch or rarely.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

/// A counter that all threads use frequently: each adds to its own part.
#[derive(Debug, Default)]
pub(super) struct Sharded([CounterShard; SHARDS]);

#[derive(Debug, Default)]
#[repr(align(128))]
struct CounterShard(AtomicU64);

/// A histogram of batch sizes.
#[derive(Debug, Default)]
pub(super) struct Batches {
    by_size: [Count; BATCH_BOUNDS.len() + 1],
    items: Count,
}

impl Count {
    /// Replaces one thread's part of a gauge.
    pub(super) fn change(&self, before: usize, now: usize) {
        self.0.fetch_add((now as u64).wrapping_sub(before as u64), Ordering::Relaxed);
    }

    pub(super) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn sample(&self) -> Sample {
        Sample::number(self.value())
    }
}

impl Sharded {
    pub(super) fn add(&self, n: usize) {
        self.0[MY_SHARD.get()].0.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum()
    }
}

impl Batches {
    pub(super) fn add(&self, items: usize) {
        let place = BATCH_BOUNDS.iter().position(|bound| items <= *bound).unwrap_or(BATCH_BOUNDS.len());
        self.by_size[place].add(1);
        self.items.add(items);
    }

    pub(super) fn sample(&self) -> Sample {
        let counts: Vec<u64> = self.by_size.iter().map(Count::value).collect();
        Sample::histogram(BATCH_BOUNDS.iter().map(|bound| *bound as f64), &counts, self.items.value() as f64)
    }
}

/// The number of parts of a counter; if there are more threads, some share a part.
pub(super) const SHARDS: usize = 16;
/// The upper bounds of the batch sizes.
const BATCH_BOUNDS: [usize; 7] = [1, 4, 16, 64, 256, 1024, 4096];

thread_local! {
    static MY_SHARD: Cell<usize> = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        Cell::new(THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS)
    };
}
