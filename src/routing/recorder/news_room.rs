//! [`NewsRoom`]: the room for messages of other nodes that wait for the listener.
//!
//! The senders share it. So a sender who commits more than the listener can handle does not make
//! others' messages wait for the sweep, which comes every ten seconds. Their addresses are not
//! known here, so an address with many accounts has the shares of all of them.

use parking_lot::Mutex;

use crate::admission::Shares;
use crate::bus::news::CommittedFrame;
use crate::protocol::UserId;

/// See the [module](self).
pub(super) struct NewsRoom(Mutex<Shares<UserId>>);

impl NewsRoom {
    /// Room for messages of this number of bytes.
    pub(super) fn new(bytes_max: usize) -> NewsRoom {
        NewsRoom(Mutex::new(Shares::new(bytes_max)))
    }

    /// Takes room for a message; false if its sender has no more.
    pub(super) fn take(&self, message: &CommittedFrame) -> bool {
        self.0.lock().take(message.from, weight(message))
    }

    /// Releases the room of messages that wait no longer.
    pub(super) fn give_back<'m>(&self, messages: impl IntoIterator<Item = &'m CommittedFrame>) {
        let mut room = self.0.lock();
        messages.into_iter().for_each(|message| room.give_back(message.from, weight(message)));
    }
}

/// The memory that a waiting message takes.
pub(super) fn weight(message: &CommittedFrame) -> usize {
    message.frame.len() + size_of::<CommittedFrame>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::conversation::{ConversationId, Tag};
    use crate::protocol::level2::frames::Committed;

    #[test]
    fn a_sender_who_fills_the_room_leaves_some_to_others() {
        let message = |from: i32| CommittedFrame {
            conv: ConversationId::between(UserId(from), UserId(9)),
            at: Committed { seq: 1, tag: Tag(1), time: 1 },
            before: None,
            from: UserId(from),
            frame: "x".repeat(1000).into(),
        };
        let (greedy, quiet) = (message(7), message(8));
        let room = NewsRoom::new(100 * weight(&greedy));
        let taken = (0..1000).filter(|_| room.take(&greedy)).count();
        assert_eq!(taken, 50);
        assert!((0..20).all(|_| room.take(&quiet)), "the quiet one finds room");
        room.give_back(vec![&greedy; taken]);
        room.give_back(vec![&quiet; 20]);
        assert_eq!((0..1000).filter(|_| room.take(&greedy)).count(), 50, "all of it is free again");
    }
}
