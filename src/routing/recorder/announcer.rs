//! [`Announcer`]: tells the other nodes what was committed. It has a thread of its own, because Redis
//! may be slow, and no commit waits for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use pool::{Lanes, Standing};

use crate::base::threads::Threads;
use crate::bus::{DeviceNews, Exchange};

/// The thread, and what it has to tell.
pub(super) struct Announcer {
    lanes: Lanes<Announcement>,
    /// The bytes of frames that wait.
    waiting: Arc<AtomicUsize>,
}

/// What other nodes are told of a batch.
struct Announcement {
    news: Vec<DeviceNews>,
    bytes: usize,
}

impl Announcer {
    /// Starts it.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start(bus: Arc<dyn Exchange>, threads: &mut impl Threads) -> io::Result<Announcer> {
        let waiting = Arc::<AtomicUsize>::default();
        let counted = waiting.clone();
        let tell = move |(): &mut (), batch: Vec<Announcement>| {
            counted.fetch_sub(batch.iter().map(|announcement| announcement.bytes).sum(), Relaxed);
            let news: Vec<DeviceNews> = batch.into_iter().flat_map(|announcement| announcement.news).collect();
            bus.tell_devices(&news);
            None
        };
        let lanes = threads.lanes("announcer", 1, AT_ONCE, |_, _| ((), None), tell)?;
        Ok(Announcer { lanes, waiting })
    }

    /// Tells this, with frames of `bytes` together. Never blocks. Beyond a number of bytes nobody is
    /// told: the sweep of the other nodes finds the messages.
    pub(super) fn tell(&self, news: Vec<DeviceNews>, bytes: usize) {
        if self.waiting.fetch_add(bytes, Relaxed) > WAITING_BYTES_MAX {
            self.waiting.fetch_sub(bytes, Relaxed);
            log::debug!("other nodes are not told of {} messages, because the bus is slow", news.len());
            return;
        }
        // The server stops: the other nodes find out.
        drop(self.lanes.submit(0, Standing::of(0), Announcement { news, bytes }, bytes));
    }

    /// Tells the rest, until `by` at most. Returns how much is left.
    pub(super) fn close(&self, by: Instant) -> usize {
        self.lanes.close(by)
    }
}

/// The announcements that are published together.
const AT_ONCE: usize = 64;
/// The most bytes of frames that wait for the bus.
const WAITING_BYTES_MAX: usize = 16 << 20;
