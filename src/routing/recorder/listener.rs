//! What other nodes have committed in groups is handed to the devices of the members. That has a thread
//! of its own: the members of a group may have to be read first, and no commit waits for that.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use pool::{Lanes, Standing};
use rustc_hash::FxHashMap;

use super::parts::RecorderParts;
use crate::base::threads::Threads;
use crate::bus::news::CommittedFrame;
use crate::delivery::{ClientLink, Posted};
use crate::protocol::{GroupId, UserId};

/// The thread, and what it has heard.
pub(super) struct Listener {
    lanes: Arc<Lanes<CommittedFrame>>,
}

impl Listener {
    /// Starts it, and has it hear the other nodes.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start(parts: &Arc<RecorderParts>, threads: &mut impl Threads) -> io::Result<Listener> {
        let (waiting, parts) = (Arc::<AtomicUsize>::default(), parts.clone());
        let (counted, router) = (waiting.clone(), parts.router.clone());
        let hand_on = move |(): &mut (), batch: Vec<CommittedFrame>| {
            counted.fetch_sub(batch.len(), Relaxed);
            hand_on(&batch, &parts);
            None
        };
        let lanes = Arc::new(threads.lanes("listener", 1, AT_ONCE, |_, _| ((), None), hand_on)?);
        let listening = lanes.clone();
        router.give_group_messages_to(move |messages| hear(&listening, &waiting, messages));
        Ok(Listener { lanes })
    }

    /// Ends it, at `by` at the latest.
    pub(super) fn close(&self, by: Instant) {
        self.lanes.close(by);
    }
}

/// Queues messages. Beyond a number of them, the sweep finds them.
fn hear(lanes: &Lanes<CommittedFrame>, waiting: &AtomicUsize, messages: Vec<CommittedFrame>) {
    for message in messages {
        if waiting.fetch_add(1, Relaxed) >= WAITING_MAX {
            waiting.fetch_sub(1, Relaxed);
            return;
        }
        let (key, bytes) = (message.conv.column() as u64, message.frame.len());
        if lanes.submit(key, Standing::of(key), message, bytes).is_err() {
            waiting.fetch_sub(1, Relaxed);
        }
    }
}

fn hand_on(batch: &[CommittedFrame], parts: &RecorderParts) {
    parts.read_members(batch.iter().filter_map(|message| message.conv.group()));
    let (mut news, mut groups) = (Vec::new(), FxHashMap::<GroupId, Arc<[UserId]>>::default());
    for message in batch {
        let Some(group) = message.conv.group() else { continue };
        // If they cannot be read, the sweep finds the message.
        let members = groups.entry(group).or_insert_with(|| parts.members(group).unwrap_or_default());
        for user in members.iter().filter(|user| parts.audience.has(**user)) {
            for link in parts.router.attendance().devices(*user, |_| true) {
                news.push((link, Posted::Pump(message.push())));
            }
        }
    }
    ClientLink::post_all(news);
}

/// The messages that are handed on together.
const AT_ONCE: usize = 512;
/// The most messages that wait.
const WAITING_MAX: usize = 10_000;
