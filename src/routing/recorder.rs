//! [`Recorder`]: commits messages of conversations, and then hands them to everybody.
//!
//! ```text
//!   loops ──▶ lane of the conversation ──▶ one transaction ──▶ devices of level 2, connections of level 1
//!                                                          └─▶ the answer to the sender
//! ```
//! All messages of a conversation pass one lane, so those of one sender keep their order. A push is
//! only a hint: a connection reads from the store what it has missed, so nothing is kept for
//! devices here.
//!
//! News from and to other nodes have threads of their own (`listener`, `announcer`). So no commit
//! waits for Redis, or for reading the members of a group of which another node has news.
//!
//! # Repeats
//! A repeat of a committed send is handed to devices again, which ignore it. It is forwarded to
//! level 1 again only if this node does not remember having forwarded it (`forwarded_sends`): the
//! node that committed it may have died before forwarding it.
//!
//! # Failures
//! While the database is unavailable, sends of level 2 are refused, and their clients retry them.
//! After a refusal, later sends of the same connection to the same conversation are refused too,
//! until the first one is retried: the client sent them before it knew of the refusal. A message of
//! level 1 is forwarded without being recorded, as if nobody used level 2.

mod announcer;
mod failed_sends;
mod forwarded_sends;
mod lane;
mod listener;
mod news_room;
mod parts;
mod posts;
mod recording;
mod refusals;
mod traced;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use pool::{BatchMax, Lanes, LanesWatch, Standing};

use self::announcer::Announcer;
use self::lane::RecorderLane;
use self::listener::Listener;
pub use self::parts::{HookedMessages, RecorderParts};
pub use self::recording::{OperatorOwed, RECORDING_BYTES, RecordOwner, RecordedFor, RecorderItem, Recording, SendOwed};
pub use self::refusals::AWAY;
use super::router::Keeps;
use crate::base::threads::Threads;
use crate::protocol::UserId;
use crate::store::history::HistoryRole;

/// The lanes. Any loop may submit.
pub struct Recorder {
    parts: Arc<RecorderParts>,
    lanes: Lanes<RecorderItem>,
    /// The threads for other nodes; `None` on a node that is alone.
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
            false => Some((
                Arc::new(Announcer::start(parts.bus.clone(), parts.tracer.clone(), threads)?),
                Listener::start(&parts, threads)?,
            )),
        };
        let announcer = to_nodes.as_ref().map(|(announcer, _)| announcer.clone());
        let begin =
            |_, panicked: Option<RecorderLane>| (panicked.map(RecorderLane::after_panic).unwrap_or_default(), None);
        let of_lane = parts.clone();
        let handle =
            move |lane: &mut RecorderLane, batch: Vec<RecorderItem>| lane.handle(batch, &of_lane, announcer.as_deref());
        let lanes = threads.lanes("recorder", lanes, BATCH_MAX, begin, handle)?;
        Ok(Recorder { parts, lanes, to_nodes })
    }

    /// Commits a message. If the server stops, its sender is notified of the failure.
    pub fn submit(&self, recording: Recording) {
        let (key, weight) = (recording.entry.conv.column() as u64, self.parts.weight(&recording));
        let standing = Standing::of(recording.berth.holder().payer.share());
        // A recording that the lane does not take is dropped, which notifies its sender.
        drop(self.lanes.submit(key, standing, RecorderItem(Box::new(recording)), weight));
    }

    /// Whether a recorded message is stored for a user without a connection of level 1 here that
    /// can take it.
    pub fn keeps(&self, user: UserId) -> Keeps {
        self.parts.keeps(user)
    }

    /// The conversations.
    pub fn history(&self) -> &HistoryRole {
        &self.parts.history
    }

    /// Another thread's view of the lanes.
    pub fn watch(&self) -> LanesWatch<RecorderItem> {
        self.lanes.watch()
    }

    /// Finishes what was submitted, until `by` at most. Returns how much is left.
    pub fn close(&self, by: Instant) -> usize {
        let left = self.lanes.close(by);
        if let Some((announcer, listener)) = &self.to_nodes {
            // The other nodes' sweep finds the remaining messages.
            announcer.close(by);
            listener.close(by);
        }
        left
    }
}

/// The most messages of one transaction, and the most weight: of text, and of members to notify.
/// The messages of others wait meanwhile.
const BATCH_MAX: BatchMax = BatchMax { items: 2048, bytes: 1 << 20 };
