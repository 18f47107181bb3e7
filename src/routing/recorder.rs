//! [`Recorder`]: commits messages of conversations, and then hands them to everybody.
//!
//! ```text
//!   loops ──▶ lane of the conversation ──▶ one transaction ──▶ devices of level 2, connections of level 1
//!                                                          └─▶ the answer to the sender
//! ```
//! All messages of a conversation pass one lane, so those of one sender keep their order. A push is
//! only a hint to its connection, which reads what it has missed; so nothing is kept for devices
//! here.
//!
//! # Failures
//! While the database is away, sends of level 2 are refused, and their clients repeat them. After a
//! refusal, later sends of the same connection to the same conversation are refused too, until the
//! first one comes again: they were read before their client knew. A message of level 1 goes on
//! without being recorded, as if nobody used level 2.

mod failed_sends;
mod lane;
mod parts;
mod posts;
mod recording;
mod refusals;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pool::{Lanes, LanesWatch, Standing};

use self::lane::RecorderLane;
pub use self::parts::RecorderParts;
pub use self::recording::{RECORDING_BYTES, RecordOwner, RecordedFor, RecorderItem, Recording, SendOwed};
pub use self::refusals::AWAY;
use crate::base::threads::Threads;
use crate::bus::news::CommittedFrame;

/// The lanes. Any loop submits.
pub struct Recorder {
    lanes: Arc<Lanes<RecorderItem>>,
}

impl Recorder {
    /// Starts the lanes.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(parts: RecorderParts, lanes: usize, threads: &mut impl Threads) -> io::Result<Recorder> {
        let (router, heard) = (parts.router.clone(), Arc::<AtomicUsize>::default());
        let (parts, waiting) = (Arc::new(parts), heard.clone());
        let begin = |_, panicked: Option<RecorderLane>| (panicked.unwrap_or_default(), None);
        let handle = move |lane: &mut RecorderLane, batch: Vec<RecorderItem>| {
            let heard = batch.iter().filter(|item| matches!(item, RecorderItem::Heard(_))).count();
            waiting.fetch_sub(heard, Relaxed);
            lane.handle(batch, &parts)
        };
        let lanes = Arc::new(threads.lanes("recorder", lanes, BATCH_MAX, begin, handle)?);
        let recorder = Recorder { lanes: lanes.clone() };
        router.give_group_messages_to(move |messages| hear(&lanes, &heard, messages));
        Ok(recorder)
    }

    /// Commits a message. If the server stops, its sender is told that it has failed.
    pub fn submit(&self, recording: Recording) {
        let (key, bytes) = (recording.entry.conv.column() as u64, recording.entry.text.len() + RECORDING_BYTES);
        let standing = Standing::of(recording.berth.holder().payer.share());
        let item = RecorderItem::Commit(Box::new(recording));
        // Dropped, it has failed, and its sender is told so.
        drop(self.lanes.submit(key, standing, item, bytes));
    }

    /// How another thread sees the lanes.
    pub fn watch(&self) -> LanesWatch<RecorderItem> {
        self.lanes.watch()
    }

    /// Finishes what was submitted, until `by` at most. Returns how much is left.
    pub fn close(&self, by: std::time::Instant) -> usize {
        self.lanes.close(by)
    }
}

/// Queues messages that another node has committed in groups. Beyond a number of them, the sweep finds
/// them.
fn hear(lanes: &Lanes<RecorderItem>, waiting: &AtomicUsize, messages: Vec<CommittedFrame>) {
    for message in messages {
        if waiting.fetch_add(1, Relaxed) >= HEARD_MAX {
            waiting.fetch_sub(1, Relaxed);
            return;
        }
        let (key, bytes) = (message.conv.column() as u64, message.frame.len());
        if lanes.submit(key, Standing::of(key), RecorderItem::Heard(message), bytes).is_err() {
            waiting.fetch_sub(1, Relaxed);
        }
    }
}

/// The most messages of other nodes that wait.
const HEARD_MAX: usize = 10_000;
/// The most messages of one transaction.
const BATCH_MAX: usize = 2048;
