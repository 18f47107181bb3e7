//! [`BusTransport`] and [`PeerLine`] define what carries messages between nodes.
//!
//! A transport delivers each message on a topic to every node that is subscribed to it. It keeps
//! the order of one line, and may lose messages. A type that implements [`BusTransport`] is a bus:
//! it gets `Publisher` and `Exchange` from `exchange.rs`.

use std::io;
use std::sync::Arc;

use super::echo::Deaf;
use super::shared::PeerShared;
use super::topic::Topic;
use crate::bus::Node;
use crate::protocol::UserId;

/// Connects a node to the others. Any thread may call it.
pub(crate) trait BusTransport: Send + Sync + 'static {
    /// The state that callers of the bus share with the thread that drives the peer.
    fn peer(&self) -> &Arc<PeerShared>;

    /// Starts the thread that drives the peer of this node. Returns when messages arrive, or when
    /// that takes too long.
    ///
    /// # Errors
    ///
    /// If the system cannot start a thread.
    fn drive(&self, node: Arc<dyn Node>) -> io::Result<()>;

    /// Publishes these posts in order, and returns the result of each. Blocks, for a few seconds at
    /// most. A failure is also reported to [`PeerShared::on_failure`], unless only some of the
    /// topics are concerned.
    ///
    /// # Errors
    ///
    /// If none of them was sent.
    fn post(&self, posts: &[Publication<'_>]) -> Result<Vec<Reached>, NotSent>;
}

/// One connection to the other nodes, for publishing and receiving. It does not block: bytes that
/// cannot be sent yet wait in it. [`PeerLine::next_event`] reports a failed
/// connection, sooner or later.
pub(crate) trait PeerLine {
    /// The reason why the connection has ended.
    type Broken: From<Deaf>;

    /// Subscribes to these topics; for each, [`TransportEvent::Listening`] follows.
    fn listen(&mut self, topics: &[Topic<&str>]);

    /// Unsubscribes these users; for each, [`TransportEvent::Ignoring`] follows.
    fn ignore(&mut self, users: &[UserId]);

    /// Unsubscribes everything. [`TransportEvent::Ignoring`] follows for each user, and then
    /// [`TransportEvent::Silence`].
    fn ignore_all(&mut self);

    /// Publishes a message to all nodes that are subscribed to the topic, including this one.
    fn say(&mut self, topic: Topic<&str>, payload: &[u8]);

    /// The next event; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// If the connection can no longer be used.
    fn next_event(&mut self) -> Result<Option<TransportEvent<'_>>, Self::Broken>;

    /// Takes the reason why the transport no longer trusts this connection, if there is one.
    /// Events that had arrived before are handled first.
    fn take_doubt(&mut self) -> Option<Self::Broken>;

    /// Hands the transport news that it needs itself.
    fn on_news(&mut self, news: PeerNews);
}

/// An event of a [`PeerLine`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TransportEvent<'e> {
    /// A message has arrived on this topic.
    Said(Topic<&'e str>, &'e [u8]),
    /// The topic is subscribed.
    Listening(Topic<&'e str>),
    /// The user is unsubscribed.
    Ignoring(UserId),
    /// The user is no longer subscribed, though nobody has asked for that: messages may have been
    /// missed.
    Missed(UserId),
    /// Everything is unsubscribed.
    Silence,
    /// A message for a user, from a node of the reference server.
    Bare(UserId, &'e str),
    /// An event that does not concern a peer.
    Other,
}

/// News about the transport's own connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PeerNews {
    /// A probe has just come back.
    Heard,
    /// Publishing to the other nodes is possible: all subscriptions are confirmed, and the first
    /// probe has come back.
    Up {
        /// The number of the connection, counted from 1.
        session: u64,
    },
    /// Publishing is possible again, after a command had failed.
    Resumed,
    /// No more messages arrive.
    Hushed,
}

/// The nodes that get a post.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reached {
    /// This number of nodes.
    Nodes(u32),
    /// The transport failed meanwhile: some nodes may have got it.
    Unknown,
    /// None, because the transport failed before it was sent, though others were sent.
    Unsent,
}

/// Nothing was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotSent;

/// One publication.
#[derive(Debug)]
pub(crate) struct Publication<'e> {
    /// The topic that it is published on.
    pub(crate) topic: Topic<&'e str>,
    /// The payload.
    pub(crate) payload: Vec<u8>,
}
