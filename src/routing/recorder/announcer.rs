//! [`Announcer`]: announces committed messages to the other nodes. It has its own thread, because
//! Redis may be slow and no commit may wait for it.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use pool::{Lanes, Standing};

use super::news_room::{NewsRoom, weight};
use super::traced;
use crate::base::threads::Threads;
use crate::base::trace::{Hop, Tracer};
use crate::bus::news::CommittedFrame;
use crate::bus::{DeviceNews, Exchange};

/// The thread, and its queue.
pub(super) struct Announcer {
    /// Each item: the news of a batch for other nodes.
    lanes: Lanes<Vec<DeviceNews>>,
    waiting: Arc<NewsRoom>,
    tracer: Arc<Tracer>,
}

impl Announcer {
    /// Starts it.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start(
        bus: Arc<dyn Exchange>,
        tracer: Arc<Tracer>,
        threads: &mut impl Threads,
    ) -> io::Result<Announcer> {
        let waiting = Arc::new(NewsRoom::new(WAITING_BYTES_MAX));
        let (room, noted) = (waiting.clone(), tracer.clone());
        let tell = move |(): &mut (), batch: Vec<Vec<DeviceNews>>| {
            let news: Vec<DeviceNews> = batch.into_iter().flatten().collect();
            room.give_back(news.iter().flat_map(messages_of));
            let hop = if bus.tell_devices(&news) { Hop::Published } else { Hop::Unpublished };
            traced::announced(&noted, &news, hop);
            None
        };
        let lanes = threads.lanes("announcer", 1, AT_ONCE, |_, _| ((), None), tell)?;
        Ok(Announcer { lanes, waiting, tracer })
    }

    /// Queues news of messages. Never blocks. Messages of a sender who has too many in the queue are left out:
    /// the sweep of the other nodes finds them.
    pub(super) fn tell(&self, mut news: Vec<DeviceNews>) {
        let left_out: Vec<DeviceNews> = news.iter_mut().filter_map(|news| self.leave_out(news)).collect();
        if !left_out.is_empty() {
            traced::announced(&self.tracer, &left_out, Hop::Unpublished);
            let count = left_out.iter().flat_map(messages_of).count();
            log::debug!("other nodes are not notified of {count} messages, because the bus is slow");
            news.retain(|news| match news {
                DeviceNews::Messages(_, messages) | DeviceNews::GroupMessages(messages) => !messages.is_empty(),
                _ => true,
            });
        }
        if news.is_empty() {
            return;
        }
        let bytes = news.iter().flat_map(messages_of).map(weight).sum();
        // If the server stops, the other nodes find the messages themselves.
        drop(self.lanes.submit(0, Standing::of(0), news, bytes));
    }

    /// Takes room for the messages of this news, and removes those for which there is none.
    fn leave_out(&self, news: &mut DeviceNews) -> Option<DeviceNews> {
        let no_room = |messages: &mut Vec<CommittedFrame>| -> Vec<CommittedFrame> {
            messages.extract_if(.., |message| !self.waiting.take(message)).collect()
        };
        let left_out = match news {
            DeviceNews::Messages(user, messages) => DeviceNews::Messages(*user, no_room(messages)),
            DeviceNews::GroupMessages(messages) => DeviceNews::GroupMessages(no_room(messages)),
            _ => return None,
        };
        (!messages_of(&left_out).is_empty()).then_some(left_out)
    }

    /// Announces the rest, until `by` at most. Returns how much is left.
    pub(super) fn close(&self, by: Instant) -> usize {
        self.lanes.close(by)
    }
}

fn messages_of(news: &DeviceNews) -> &[CommittedFrame] {
    match news {
        DeviceNews::Messages(_, messages) | DeviceNews::GroupMessages(messages) => messages,
        _ => &[],
    }
}

/// The announcements that are published together.
const AT_ONCE: usize = 64;
/// The most bytes of queued messages.
const WAITING_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::base::conversation::{ConversationId, Tag};
    use crate::protocol::UserId;
    use crate::protocol::level2::frames::Committed;

    fn message(from: i32, seq: i64) -> CommittedFrame {
        let conv = ConversationId::between(UserId(from), UserId(9));
        let at = Committed { seq, tag: Tag(1), time: 1 };
        CommittedFrame { conv, at, before: None, from: UserId(from), frame: "x".repeat(64 * 1024).into() }
    }

    #[test]
    fn a_sender_whose_news_fill_the_queue_leaves_room_for_another_ones() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let all = told.clone();
        let tell = move |(): &mut (), batch: Vec<Vec<DeviceNews>>| {
            all.lock().extend(batch.into_iter().flatten());
            None
        };
        // Nothing leaves the queue until the lane is turned.
        let (lanes, mut by_hand) = Lanes::manual(1, AT_ONCE, |_, _| ((), None), tell);
        let waiting = Arc::new(NewsRoom::new(WAITING_BYTES_MAX));
        let announcer = Announcer { lanes, waiting, tracer: Arc::default() };
        for seq in 1..=40 {
            let flood = (0..20).map(|n| message(7, 20 * seq + n)).collect();
            announcer.tell(vec![DeviceNews::GroupMessages(flood)]);
        }
        announcer.tell(vec![DeviceNews::Messages(UserId(9), vec![message(7, 1000), message(8, 1)])]);
        while by_hand[0].take(false) {
            by_hand[0].handle();
        }
        let told = told.lock();
        let bytes: usize = told.iter().flat_map(messages_of).map(|message| message.frame.len()).sum();
        assert!(bytes < WAITING_BYTES_MAX, "{bytes}");
        assert_eq!(told.last(), Some(&DeviceNews::Messages(UserId(9), vec![message(8, 1)])));
    }
}
