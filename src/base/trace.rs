//! [`Tracer`]: the hops of messages on this node, and recent incidents of users, in a fixed amount
//! of memory. It answers an operator's question where a message went.
//!
//! It stores no text of a message, only ids, numbers, times and lengths.
//!
//! # Bounds
//! - Steps: as many as have room in `trace_size`. They are in [`SLICES`] rings by conversation, or
//!   by recipient where there is none, so that a flood in one conversation pushes out the steps of
//!   a 64th of the others. A flood to 64 and more recipients may push out all: nothing is counted
//!   by sender.
//! - [Incidents](incident): 4,096, of which a user has the 8 latest.
//!
//! While tracing is off, a message pays one relaxed load at each hop, and there is no memory for
//! steps.

pub mod incident;
mod sampling;
mod search;
pub mod step;

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use self::incident::Incidents;
pub use self::incident::{Happened, Incident};
pub use self::sampling::Sampling;
pub use self::search::{FoundSteps, Wanted};
pub use self::step::{Hop, Step};
use crate::base::ids::UserId;

/// Any thread may call it. Each lock is a leaf, held only to copy.
#[derive(Debug)]
pub struct Tracer {
    /// The sampling: 0 means off, `n` means one key in `n`.
    one_in: AtomicU32,
    /// Steps in each slice.
    slice_max: usize,
    /// Made when tracing is first on.
    slices: OnceLock<Box<[Mutex<Slice>]>>,
    /// Since when the same share is traced, ms since 1970.
    sampled_at: AtomicI64,
    incidents: Incidents,
}

/// One ring.
#[derive(Debug, Default)]
struct Slice {
    /// Oldest first.
    steps: VecDeque<Step>,
    /// The time of the newest step that was dropped for lack of room; 0 if none was.
    gone_at: i64,
}

impl Tracer {
    /// A tracer with this many bytes for steps.
    pub fn new(sampling: Sampling, bytes: usize) -> Tracer {
        let tracer = Tracer {
            one_in: AtomicU32::new(0),
            slice_max: (bytes / size_of::<Step>() / SLICES).max(1),
            slices: OnceLock::new(),
            sampled_at: AtomicI64::new(now()),
            incidents: Incidents::default(),
        };
        tracer.sample(sampling);
        tracer
    }

    /// Traces this share of the messages from now on.
    pub fn sample(&self, sampling: Sampling) {
        if sampling.0 > 0 {
            let slice = |_| Mutex::new(Slice { steps: VecDeque::with_capacity(self.slice_max), gone_at: 0 });
            self.slices.get_or_init(|| (0..SLICES).map(slice).collect());
        }
        if sampling != self.sampling() {
            // Before this moment, other steps were left out.
            self.sampled_at.store(now(), Relaxed);
        }
        self.one_in.store(sampling.0, Relaxed);
    }

    /// The share of the messages that are traced.
    pub fn sampling(&self) -> Sampling {
        Sampling(self.one_in.load(Relaxed))
    }

    /// Whether anything is traced.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.one_in.load(Relaxed) != 0
    }

    /// Notes a step. `step` is called only if tracing is on.
    #[inline]
    pub fn note(&self, step: impl FnOnce() -> Step) {
        if self.is_on() {
            self.write(step());
        }
    }

    #[cold]
    fn write(&self, step: Step) {
        let key = mixed(step.key());
        let one_in = self.one_in.load(Relaxed);
        let Some(slices) = self.slices.get().filter(|_| one_in != 0 && key.is_multiple_of(one_in.into())) else {
            return;
        };
        let mut slice = slices[slice_of(key)].lock();
        if slice.steps.len() >= self.slice_max
            && let Some(gone) = slice.steps.pop_front()
        {
            slice.gone_at = gone.at;
        }
        slice.steps.push_back(Step { at: now(), ..step });
    }

    /// The time, in ms since 1970, since which every step with this [key](Step::key) is remembered;
    /// `None` if they are not traced.
    fn complete_since(&self, key: i64) -> Option<i64> {
        let (key, one_in) = (mixed(key), self.one_in.load(Relaxed));
        let slices = self.slices.get().filter(|_| one_in != 0 && key.is_multiple_of(one_in.into()))?;
        let gone_at = slices[slice_of(key)].lock().gone_at;
        // Others of the same millisecond may be gone, too.
        Some(self.sampled_at.load(Relaxed).max(gone_at.saturating_add(1)))
    }

    /// Notes that something has happened to a user.
    pub fn happened(&self, user: UserId, incident: Incident) {
        self.incidents.add(user, now(), incident);
    }

    /// The latest incidents of a user, oldest first.
    pub fn incidents(&self, user: UserId) -> Vec<Happened> {
        self.incidents.of(user)
    }
}

/// Nothing is traced.
impl Default for Tracer {
    fn default() -> Tracer {
        Tracer::new(Sampling::OFF, 0)
    }
}

/// The number that stands here for a name, or for the sender's id of a message. Every node computes
/// the same.
pub fn hash(bytes: &[u8]) -> u64 {
    // FNV-1a; 0 stands for none.
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash.max(1)
}

/// The time, in ms since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Mixes the bits, since conversations of one user differ in few.
fn mixed(key: i64) -> u64 {
    let key = key.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    key ^ key >> 32
}

fn slice_of(key: u64) -> usize {
    // The lower bits decide what is traced.
    (key >> 40) as usize % SLICES
}

/// The rings that share the memory.
pub const SLICES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::conversation::ConversationId;

    fn step(conv: i64, seq: i64) -> Step {
        Step { conv, seq, ..Step::of(Hop::Stored) }
    }

    fn at(conv: i64, seq: i64) -> Wanted {
        Wanted { place: Some((ConversationId::from_column(conv), seq)), ..Wanted::default() }
    }

    #[test]
    fn nothing_is_kept_while_it_is_off() {
        let tracer = Tracer::new(Sampling::OFF, 1 << 20);
        tracer.note(|| unreachable!("nobody makes a step"));
        assert!(tracer.find(&at(5, 1), 10).steps.is_empty());
        tracer.sample(Sampling::ALL);
        tracer.note(|| step(5, 1));
        assert_eq!(tracer.find(&at(5, 1), 10).steps.len(), 1);
        tracer.sample(Sampling::OFF);
        tracer.note(|| step(5, 1));
        assert_eq!(tracer.find(&at(5, 1), 10).steps.len(), 1, "what was noted before stays");
    }

    #[test]
    fn a_flood_in_one_conversation_leaves_the_steps_of_another() {
        let tracer = Tracer::new(Sampling::ALL, 64 * SLICES * size_of::<Step>());
        let (quiet, greedy) = (7 << 32 | 9, 3);
        assert_ne!(slice_of(mixed(quiet)), slice_of(mixed(greedy)));
        tracer.note(|| step(quiet, 1));
        (0..100_000).for_each(|seq| tracer.note(|| step(greedy, seq)));
        assert_eq!(tracer.find(&at(quiet, 1), 10).steps.len(), 1);
        let kept = tracer.slices.get().expect("it is on").iter().map(|slice| slice.lock().steps.len()).sum::<usize>();
        assert_eq!(kept, 64 + 1, "and the memory has a bound");
    }

    #[test]
    fn of_a_sampled_conversation_every_step_is_kept() {
        let tracer = Tracer::new(Sampling(10), 1 << 24);
        let convs: Vec<i64> = (1..=1000).collect();
        for conv in &convs {
            (1..=3).for_each(|seq| tracer.note(|| step(*conv, seq)));
        }
        let kept = |conv: &i64| (1..=3).map(|seq| tracer.find(&at(*conv, seq), 10).steps.len()).sum::<usize>();
        let traced: Vec<usize> = convs.iter().map(kept).filter(|kept| *kept > 0).collect();
        assert!(traced.iter().all(|kept| *kept == 3) && (50..200).contains(&traced.len()), "{}", traced.len());
    }

    #[test]
    fn a_message_without_a_number_is_found_by_recipient_and_time() {
        let tracer = Tracer::new(Sampling::ALL, 1 << 20);
        tracer.note(|| Step { from: 7, to: 9, ..Step::of(Hop::Written) });
        tracer.note(|| Step { to: 9, ..Step::of(Hop::Kept) });
        tracer.note(|| Step { from: 8, to: 9, ..Step::of(Hop::Written) });
        let wanted = Wanted { to: Some(UserId(9)), from: Some(UserId(7)), until: i64::MAX, ..Wanted::default() };
        let hops: Vec<Hop> = tracer.find(&wanted, 10).steps.iter().map(|step| step.hop).collect();
        assert_eq!(hops, [Hop::Written, Hop::Kept]);
        assert!(tracer.find(&Wanted { until: 0, ..wanted }, 10).steps.is_empty());
    }
}
