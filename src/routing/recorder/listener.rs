//! Hands messages that other nodes have committed in groups to the devices of the members. This has
//! its own thread, because the members of a group may have to be read first, and no commit may wait
//! for that.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use pool::{Lanes, Standing};
use rustc_hash::FxHashMap;

use super::news_room::{NewsRoom, weight};
use super::parts::RecorderParts;
use super::traced;
use crate::base::threads::Threads;
use crate::base::trace::{Hop, Step};
use crate::bus::news::CommittedFrame;
use crate::delivery::{ClientLink, Posted};
use crate::protocol::{GroupId, UserId};

/// The thread, and its queue.
pub(super) struct Listener {
    lanes: Arc<Lanes<CommittedFrame>>,
}

impl Listener {
    /// Starts it, and lets it receive the messages of other nodes.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start(parts: &Arc<RecorderParts>, threads: &mut impl Threads) -> io::Result<Listener> {
        let (waiting, parts) = (Arc::new(NewsRoom::new(WAITING_BYTES_MAX)), parts.clone());
        let (room, router) = (waiting.clone(), parts.router.clone());
        let hand_on = move |(): &mut (), batch: Vec<CommittedFrame>| {
            room.give_back(&batch);
            hand_on(&batch, &parts);
            None
        };
        let lanes = Arc::new(threads.lanes("listener", 1, AT_ONCE, |_, _| ((), None), hand_on)?);
        let listening = lanes.clone();
        router.give_group_messages_to(move |messages| hear(&listening, &waiting, messages));
        Ok(Listener { lanes })
    }

    /// Ends the thread, at `by` at the latest.
    pub(super) fn close(&self, by: Instant) {
        self.lanes.close(by);
    }
}

/// Queues messages. Those of a sender who has too many in the queue are dropped, and the sweep
/// finds them.
fn hear(lanes: &Lanes<CommittedFrame>, waiting: &NewsRoom, messages: Vec<CommittedFrame>) {
    for message in messages {
        if waiting.take(&message) {
            let (key, bytes) = (message.conv.column() as u64, weight(&message));
            // If the server stops, nobody waits for it any more.
            drop(lanes.submit(key, Standing::of(key), message, bytes));
        }
    }
}

fn hand_on(batch: &[CommittedFrame], parts: &RecorderParts) {
    parts.read_members(batch.iter().filter_map(|message| message.conv.group()));
    let (mut news, mut groups) = (Vec::new(), FxHashMap::<GroupId, Arc<[UserId]>>::default());
    for message in batch {
        let Some(group) = message.conv.group() else { continue };
        // If the members cannot be read, the sweep finds the message.
        let members = groups.entry(group).or_insert_with(|| parts.members(group).unwrap_or_default());
        for user in members.iter().filter(|user| parts.audience.has(**user)) {
            let links = parts.router.attendance().devices(*user, |_| true);
            if !links.is_empty() {
                let heard = || Step { to: user.0, number: links.len() as u32, ..traced::told(message, Hop::Heard) };
                parts.tracer.note(heard);
            }
            for link in links {
                news.push((link, Posted::Pump(message.push())));
            }
        }
    }
    ClientLink::post_all(news);
}

/// The messages that are handed on together.
const AT_ONCE: usize = 512;
/// The most bytes of queued messages.
const WAITING_BYTES_MAX: usize = 16 << 20;
