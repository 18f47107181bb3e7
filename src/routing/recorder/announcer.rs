//! [`Announcer`]: announces committed messages to the other nodes. It has its own thread, because
//! Redis may be slow and no commit may wait for it.
//!
//! The senders and their addresses share the room for messages that wait. So neither a sender nor
//! an address with many senders that commit more than Redis can take makes others' messages wait
//! for the sweep of the other nodes, which comes every ten seconds.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use pool::{Lanes, Standing};

use super::news_room::weight;
use super::traced;
use crate::admission::{Holder, NestedShares};
use crate::base::threads::Threads;
use crate::base::trace::{Hop, Tracer};
use crate::bus::news::CommittedFrame;
use crate::bus::{DeviceNews, Exchange};
use crate::protocol::UserId;

/// A message, and the holder of the share that it counts against.
pub(super) type SentFrame = (Holder, CommittedFrame);

/// The thread, and its queue.
pub(super) struct Announcer {
    lanes: Lanes<Announcement>,
    /// A leaf lock.
    waiting: Arc<Mutex<NestedShares>>,
    tracer: Arc<Tracer>,
}

/// The news of a batch for other nodes.
#[derive(Default)]
struct Announcement {
    news: Vec<DeviceNews>,
    /// The room that its messages take.
    room: Vec<(Holder, usize)>,
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
        let waiting = Arc::new(Mutex::new(NestedShares::new(WAITING_BYTES_MAX)));
        let (shares, noted) = (waiting.clone(), tracer.clone());
        let tell = move |(): &mut (), batch: Vec<Announcement>| {
            let (news, room): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.news, one.room)).unzip();
            give_back(&shares, room.into_iter().flatten());
            let news: Vec<DeviceNews> = news.into_iter().flatten().collect();
            let hop = if bus.tell_devices(&news) { Hop::Published } else { Hop::Unpublished };
            traced::announced(&noted, &news, hop);
            None
        };
        let lanes = threads.lanes("announcer", 1, AT_ONCE, |_, _| ((), None), tell)?;
        Ok(Announcer { lanes, waiting, tracer })
    }

    /// Queues news of messages: of conversations of two, for the devices of a user, and of groups.
    /// Never blocks. Messages of a holder who has too many in the queue are left out: the sweep of
    /// the other nodes finds them.
    pub(super) fn tell(&self, all: impl IntoIterator<Item = (Option<UserId>, Vec<SentFrame>)>) {
        let (mut announcement, mut left_out) = (Announcement::default(), Vec::new());
        for (to, messages) in all {
            let news = |messages| match to {
                Some(user) => DeviceNews::Messages(user, messages),
                None => DeviceNews::GroupMessages(messages),
            };
            let (fitting, others) = self.admit(messages, &mut announcement.room);
            announcement.news.extend(parcels(fitting).map(news));
            left_out.extend((!others.is_empty()).then(|| news(others)));
        }
        if !left_out.is_empty() {
            traced::announced(&self.tracer, &left_out, Hop::Unpublished);
            log::debug!("other nodes are not notified of some messages, because the bus is slow");
        }
        if !announcement.news.is_empty() {
            let bytes = announcement.room.iter().map(|(_, bytes)| bytes).sum();
            // If the server stops, the other nodes find the messages themselves.
            drop(self.lanes.submit(0, Standing::of(0), announcement, bytes));
        }
    }

    /// Takes room for messages. Returns those for which there is room, and the others.
    fn admit(
        &self,
        messages: Vec<SentFrame>,
        room: &mut Vec<(Holder, usize)>,
    ) -> (Vec<CommittedFrame>, Vec<CommittedFrame>) {
        let mut waiting = self.waiting.lock();
        let (mut fitting, mut others) = (Vec::with_capacity(messages.len()), Vec::new());
        for (holder, message) in messages {
            let bytes = weight(&message);
            if waiting.take(holder, bytes) {
                room.push((holder, bytes));
                fitting.push(message);
            } else {
                others.push(message);
            }
        }
        (fitting, others)
    }

    /// Announces the rest, until `by` at most. Returns how much is left.
    pub(super) fn close(&self, by: Instant) -> usize {
        self.lanes.close(by)
    }
}

fn give_back(waiting: &Mutex<NestedShares>, room: impl Iterator<Item = (Holder, usize)>) {
    let mut waiting = waiting.lock();
    room.for_each(|(holder, bytes)| waiting.give_back(holder, bytes));
}

/// Splits messages into pieces that one publication can hold.
fn parcels(messages: Vec<CommittedFrame>) -> impl Iterator<Item = Vec<CommittedFrame>> {
    let mut rest = messages.into_iter().peekable();
    std::iter::from_fn(move || {
        let (mut parcel, mut bytes) = (vec![rest.next()?], 0);
        while let Some(next) = rest.next_if(|next| {
            bytes += next.frame.len();
            bytes < PARCEL_BYTES_MAX
        }) {
            parcel.push(next);
        }
        Some(parcel)
    })
}

/// The most text in one publication, unless a single message is longer.
const PARCEL_BYTES_MAX: usize = 256 * 1024;
/// The announcements that are published together.
const AT_ONCE: usize = 64;
/// The most bytes of queued messages.
const WAITING_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Payer, Source};
    use crate::base::conversation::{ConversationId, Tag};
    use crate::protocol::level2::frames::Committed;

    /// A long message of this user, from an address with this last number.
    fn message(from: i32, address: u8, seq: i64) -> SentFrame {
        let conv = ConversationId::between(UserId(from), UserId(9));
        let at = Committed { seq, tag: Tag(1), time: 1 };
        let holder = Holder { payer: Payer::Account(UserId(from)), source: Source::of([192, 0, 2, address].into()) };
        let frame = CommittedFrame { conv, at, before: None, from: UserId(from), frame: "x".repeat(64 * 1024).into() };
        (holder, frame)
    }

    fn messages_of(news: &DeviceNews) -> &[CommittedFrame] {
        match news {
            DeviceNews::Messages(_, messages) | DeviceNews::GroupMessages(messages) => messages,
            _ => &[],
        }
    }

    /// One sender, or an address with many senders, floods the queue. Others find room.
    #[test]
    fn greedy_senders_leave_room_for_another_one() {
        for (greedy, own) in [(1, 400), (400, 2)] {
            let told = Arc::new(Mutex::new(Vec::new()));
            let waiting = Arc::new(Mutex::new(NestedShares::new(WAITING_BYTES_MAX)));
            let (all, shares) = (told.clone(), waiting.clone());
            let tell = move |(): &mut (), batch: Vec<Announcement>| {
                for one in batch {
                    give_back(&shares, one.room.into_iter());
                    all.lock().extend(one.news);
                }
                None
            };
            // Nothing leaves the queue until the lane is turned.
            let (lanes, mut by_hand) = Lanes::manual(1, AT_ONCE, |_, _| ((), None), tell);
            let announcer = Announcer { lanes, waiting, tracer: Arc::default() };
            for seq in 0..own {
                announcer.tell([(None, (0..greedy).map(|n| message(100 + n, 1, seq)).collect())]);
            }
            // A greedy one is refused, and a quiet one finds room for many.
            let quiet = (1..=20).map(|seq| message(8, 2, seq));
            announcer.tell([(Some(UserId(9)), quiet.chain([message(100, 1, own)]).collect())]);
            while by_hand[0].take(false) {
                by_hand[0].handle();
            }
            let told = told.lock();
            let bytes: usize = told.iter().flat_map(messages_of).map(|message| message.frame.len()).sum();
            assert!((WAITING_BYTES_MAX / 2..WAITING_BYTES_MAX).contains(&bytes), "{greedy}: {bytes}");
            let to_user = told.iter().filter(|news| matches!(news, DeviceNews::Messages(..))).flat_map(messages_of);
            let seqs: Vec<_> = to_user.map(|message| (message.from, message.at.seq)).collect();
            assert_eq!(seqs, (1..=20).map(|seq| (UserId(8), seq)).collect::<Vec<_>>(), "{greedy}");
            assert_eq!(announcer.waiting.lock().free(), WAITING_BYTES_MAX, "all of it is free again");
        }
    }
}
