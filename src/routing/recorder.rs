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
//! What other nodes say and are told has threads of its own (`listener`, `announcer`): no commit waits
//! for Redis, or for the members of a group of which another node has spoken.
//!
//! # Repeats
//! A repeat of a send that was committed is handed to devices again, which pass it over. It is
//! forwarded to level 1 again only if this node does not remember that it was (`forwarded_sends`): the
//! node that committed it may have died before it forwarded it.
//!
//! # Failures
//! While the database is away, sends of level 2 are refused, and their clients repeat them. After a
//! refusal, later sends of the same connection to the same conversation are refused too, until the
//! first one comes again: they were read before their client knew. A message of level 1 goes on
//! without being recorded, as if nobody used level 2.

mod announcer;
mod failed_sends;
mod forwarded_sends;
mod lane;
mod listener;
mod parts;
mod posts;
mod recording;
mod refusals;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use pool::{BatchMax, Lanes, LanesWatch, Standing};

use self::announcer::Announcer;
use self::lane::RecorderLane;
use self::listener::Listener;
pub use self::parts::RecorderParts;
pub use self::recording::{RECORDING_BYTES, RecordOwner, RecordedFor, RecorderItem, Recording, SendOwed};
pub use self::refusals::AWAY;
use super::router::Keeps;
use crate::base::threads::Threads;
use crate::protocol::UserId;

/// The lanes. Any loop submits.
pub struct Recorder {
    parts: Arc<RecorderParts>,
    lanes: Lanes<RecorderItem>,
    /// `None` on a node that is alone.
    to_nodes: Option<(Arc<Announcer>, Listener)>,
}

impl Recorder {
    /// Starts the lanes.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(parts: RecorderParts, lanes: usize, threads: &mut impl Threads) -> io::Result<Recorder> {
        let parts = Arc::new(parts);
        let to_nodes = match parts.bus.is_alone() {
            true => None,
            false => Some((Arc::new(Announcer::start(parts.bus.clone(), threads)?), Listener::start(&parts, threads)?)),
        };
        let announcer = to_nodes.as_ref().map(|(announcer, _)| announcer.clone());
        let begin = |_, panicked: Option<RecorderLane>| (panicked.unwrap_or_default(), None);
        let of_lane = parts.clone();
        let handle =
            move |lane: &mut RecorderLane, batch: Vec<RecorderItem>| lane.handle(batch, &of_lane, announcer.as_deref());
        let lanes = threads.lanes("recorder", lanes, BATCH_MAX, begin, handle)?;
        Ok(Recorder { parts, lanes, to_nodes })
    }

    /// Commits a message. If the server stops, its sender is told that it has failed.
    pub fn submit(&self, recording: Recording) {
        let (key, weight) = (recording.entry.conv.column() as u64, self.parts.weight(&recording));
        let standing = Standing::of(recording.berth.holder().payer.share());
        // Dropped, it has failed, and its sender is told so.
        drop(self.lanes.submit(key, standing, RecorderItem(Box::new(recording)), weight));
    }

    /// Whether a recorded message waits for a user whom no connection of level 1 takes here.
    pub fn keeps(&self, user: UserId) -> Keeps {
        self.parts.keeps(user)
    }

    /// How another thread sees the lanes.
    pub fn watch(&self) -> LanesWatch<RecorderItem> {
        self.lanes.watch()
    }

    /// Finishes what was submitted, until `by` at most. Returns how much is left.
    pub fn close(&self, by: Instant) -> usize {
        let left = self.lanes.close(by);
        if let Some((announcer, listener)) = &self.to_nodes {
            // What is left is found by the sweep of the other nodes.
            announcer.close(by);
            listener.close(by);
        }
        left
    }
}

/// The most messages of one transaction, and what they weigh together: text, and members who are told.
/// The messages of others wait meanwhile.
const BATCH_MAX: BatchMax = BatchMax { items: 2048, bytes: 1 << 20 };
