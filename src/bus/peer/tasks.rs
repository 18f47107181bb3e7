//! [`PeerTasks`]: tasks from the rest of a node for the thread that talks to the other nodes.

use crate::bus::Receipt;
use crate::protocol::UserId;

/// A task of a [`Peer`](super::Peer). `W` is the waiter for it.
#[derive(Debug)]
pub(crate) enum PeerTask<W> {
    /// A user has logged in at this node.
    Subscribe(UserId, Option<W>),
    /// The user has left this node.
    Unsubscribe(UserId),
    /// The user was found for only this number of messages of the envelope.
    Refuse(Receipt, usize),
    /// A command has failed: check with a probe whether messages still come back.
    Probe,
}

/// Queued tasks, in order. Their number is limited by the users and by the envelopes that have
/// arrived.
#[derive(Debug)]
pub(crate) struct PeerTasks<W> {
    /// Whether there is a connection, so that a subscription can succeed.
    is_connected: bool,
    list: Vec<PeerTask<W>>,
}

impl<W> PeerTasks<W> {
    /// No tasks, and no connection.
    pub(crate) fn new() -> PeerTasks<W> {
        PeerTasks { is_connected: false, list: Vec::new() }
    }

    /// Adds a task; true if it is the only one.
    pub(crate) fn add(&mut self, task: PeerTask<W>) -> bool {
        self.list.push(task);
        self.list.len() == 1
    }

    /// Queues a subscription; true if it is the only task.
    ///
    /// # Errors
    ///
    /// The waiter, if there is no connection: nobody knows when there will be one, and then all
    /// users here are subscribed anyway.
    pub(crate) fn subscribe(&mut self, user: UserId, waiter: Option<W>) -> Result<bool, Option<W>> {
        if self.is_connected { Ok(self.add(PeerTask::Subscribe(user, waiter))) } else { Err(waiter) }
    }

    /// Notes a new connection. Returns older tasks, which need not be done any more.
    pub(super) fn connect(&mut self) -> Vec<PeerTask<W>> {
        self.is_connected = true;
        self.take()
    }

    /// Notes that the connection has ended. Returns the tasks that cannot be done.
    pub(super) fn disconnect(&mut self) -> Vec<PeerTask<W>> {
        self.is_connected = false;
        self.take()
    }

    pub(super) fn take(&mut self) -> Vec<PeerTask<W>> {
        std::mem::take(&mut self.list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<W> PeerTasks<W> {
        /// Whether there is nothing to do.
        pub(crate) fn is_empty(&self) -> bool {
            self.list.is_empty()
        }
    }

    #[test]
    fn only_with_a_connection_a_subscription_is_waited_for() {
        let mut tasks = PeerTasks::new();
        assert_eq!(tasks.subscribe(UserId(1), Some("first")), Err(Some("first")));
        assert!(tasks.add(PeerTask::Unsubscribe(UserId(2))));
        assert_eq!(tasks.connect().len(), 1, "an old task is not left");
        assert_eq!(tasks.subscribe(UserId(1), Some("second")), Ok(true));
        assert_eq!(
            tasks.subscribe(UserId(1), Some("third")),
            Ok(false),
            "the caller that does the first subscription does both"
        );
        assert_eq!(tasks.disconnect().len(), 2);
        assert!(tasks.is_empty() && tasks.subscribe(UserId(1), Some("fourth")).is_err());
    }
}
