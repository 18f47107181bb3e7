//! [`PeerTasks`]: what the rest of a node wants of the thread that talks to the other nodes.

use crate::bus::Receipt;
use crate::protocol::UserId;

/// What a [`Peer`](super::Peer) is to do. `W` is who waits for it.
#[derive(Debug)]
pub(crate) enum PeerTask<W> {
    /// A user has come to this node.
    Subscribe(UserId, Option<W>),
    /// The user has left it.
    Unsubscribe(UserId),
    /// So many messages of this envelope found their user.
    Refuse(Receipt, usize),
    /// A command has failed: see whether a message of this node still comes back.
    Probe,
}

/// Tasks in the order in which they came, until they are taken. There are no more than there are users and envelopes that
/// have come.
#[derive(Debug)]
pub(crate) struct PeerTasks<W> {
    /// Subscriptions are being kept, so waiting for one has a point.
    is_connected: bool,
    list: Vec<PeerTask<W>>,
}

impl<W> PeerTasks<W> {
    /// Nothing is to be done, and there is no connection.
    pub(crate) fn new() -> PeerTasks<W> {
        PeerTasks { is_connected: false, list: Vec::new() }
    }

    /// Adds a task; true if it is the only one.
    pub(crate) fn add(&mut self, task: PeerTask<W>) -> bool {
        self.list.push(task);
        self.list.len() == 1
    }

    /// Has a user subscribed to; true if that is the only task.
    ///
    /// # Errors
    /// The waiter, when there is no connection: nobody can say when there will be one, and everybody who is here by then is
    /// subscribed to.
    pub(crate) fn subscribe(&mut self, user: UserId, waiter: Option<W>) -> Result<bool, Option<W>> {
        if self.is_connected { Ok(self.add(PeerTask::Subscribe(user, waiter))) } else { Err(waiter) }
    }

    /// There is a connection from now on. Returns older tasks, which are no longer to be done.
    pub(super) fn connect(&mut self) -> Vec<PeerTask<W>> {
        self.is_connected = true;
        self.take()
    }

    /// There is none any more. Returns tasks that cannot be done.
    pub(super) fn disconnect(&mut self) -> Vec<PeerTask<W>> {
        self.is_connected = false;
        self.take()
    }

    pub(super) fn take(&mut self) -> Vec<PeerTask<W>> {
        std::mem::take(&mut self.list)
    }

    /// Whether there is nothing to do.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_with_a_connection_a_subscription_is_waited_for() {
        let mut tasks = PeerTasks::new();
        assert_eq!(tasks.subscribe(UserId(1), Some("first")), Err(Some("first")));
        assert!(tasks.add(PeerTask::Unsubscribe(UserId(2))));
        assert_eq!(tasks.connect().len(), 1, "an old task is not left");
        assert_eq!(tasks.subscribe(UserId(1), Some("second")), Ok(true));
        assert_eq!(tasks.subscribe(UserId(1), Some("third")), Ok(false), "whoever does the first does both");
        assert_eq!(tasks.disconnect().len(), 2);
        assert!(tasks.is_empty() && tasks.subscribe(UserId(1), Some("fourth")).is_err());
    }
}
