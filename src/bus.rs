//! Reaching other nodes. `main.rs` chooses the bus; routing, operation and the server call it.
//!
//! [`Bus`] is the seam between one node and the others. Only the bus knows on which nodes users
//! are: a node subscribes to the users whose messages it wants, and a published message reaches
//! every node that is subscribed. The bus is fast and stores nothing, so the sending node holds a
//! message until the receiving node confirms it (`routing/outbox.rs`).
//!
//! The protocol between nodes is in `peer`, independent of the transport. [`redis`] is such a
//! transport, with one Redis or a Redis Cluster; [`local`] is the bus of a node that is alone. A
//! new transport is one more file, with a `BusTransport`, its `PeerLine` and, for a thread of its
//! own, a `Connector` (`peer`). [`Publisher`] and [`Exchange`] come from there; the transport
//! implements the other traits itself. `peer/memory.rs` is the shortest one.

pub mod local;
pub mod news;
pub(crate) mod peer;
pub mod redis;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use net::Turn;

pub use self::news::{CommittedFrame, DeviceNews};
pub use self::peer::{CONFIRMED_WITHIN, Frames, PLACE_LEASE};
use crate::base::loads::PoolUse;
use crate::delivery::{ClientLink, Delivery, Posted};
use crate::protocol::{GroupId, UserId};

/// All ways to the other nodes of the cluster. A caller takes only the trait that it uses. Unless a
/// method says that it blocks, any thread may call it.
pub trait Bus: Exchange + Register + ReferenceNodes + BusHealth {}

impl<B: Exchange + Register + ReferenceNodes + BusHealth> Bus for B {}

/// Publishes messages for users of other nodes.
pub trait Publisher: Send + Sync + 'static {
    /// Offers each envelope to the nodes that want it. Blocks, for at most a few seconds.
    fn publish(&self, envelopes: &[Envelope]) -> Vec<Published>;
}

/// Exchanges messages with other nodes.
pub trait Exchange: Publisher {
    /// Whether there cannot be other nodes. Then nothing is published or subscribed.
    fn is_alone(&self) -> bool;

    /// Begins to receive for `node`, and maintains its subscriptions.
    ///
    /// # Errors
    ///
    /// If the system cannot start a thread.
    fn start(&self, node: Arc<dyn Node>) -> io::Result<()>;

    /// Makes the other nodes stop sending here. Returns when everything that they sent before has
    /// arrived, or when its time is up. Blocks.
    fn hush(&self);

    /// Sends the last messages, and drops the node. Blocks until the bus no longer calls it, or
    /// until `by` and about a second more: a thread that waits for another program then ends with
    /// the process.
    fn stop(&self, by: Instant);

    /// Subscribes this node to the messages for `user`. The waiter is posted the outcome
    /// [`Placed`](crate::session::Outcome::Placed) when messages arrive here and the user's other
    /// places know that they are not alone, or when that turns out to be impossible.
    fn subscribe(&self, user: UserId, waiter: Option<&Arc<ClientLink>>);

    /// Unsubscribes this node. [`Node::on_left`] is called when no more messages will arrive.
    fn unsubscribe(&self, user: UserId);

    /// Notifies the sender of an envelope that the user was found here for only this number of its
    /// messages.
    fn refuse(&self, receipt: Receipt, delivered: usize);

    /// Notifies all nodes that the members of a group have changed. Blocks.
    fn group_changed(&self, group: GroupId);

    /// Tells the other nodes news for connections of level 2. Blocks. Returns whether the bus
    /// reports that all of it was passed on.
    fn tell_devices(&self, news: &[DeviceNews]) -> bool;

    /// The name of this node in [`Receipt::node`] and in places; empty if it is alone.
    fn own_name(&self) -> &str;
}

/// The register of which user is on which node, as all nodes know it.
pub trait Register: Send + Sync + 'static {
    /// Whether no other node runs, so that users marked online are not. Blocks.
    fn is_first(&self) -> bool;

    /// Registers these users as users of this node: if it dies, the other nodes correct their
    /// states. Blocks.
    ///
    /// # Errors
    ///
    /// If the register cannot be reached now.
    fn claim(&self, users: &[UserId]) -> Result<(), Unreachable>;

    /// Removes users whose states are written from the register. Blocks.
    ///
    /// # Errors
    /// As for [`Register::claim`].
    fn disclaim(&self, users: &[UserId]) -> Result<(), Unreachable>;

    /// Removes this node and all its users from the register. Blocks.
    fn say_goodbye(&self);

    /// Returns which of these users other nodes want messages for. Blocks.
    ///
    /// # Errors
    ///
    /// If the register cannot be reached.
    fn elsewhere(&self, users: &[UserId]) -> Result<Vec<UserId>, Unreachable>;
}

/// Nodes of the reference server.
pub trait ReferenceNodes: Send + Sync + 'static {
    /// Whether any run, as far as is known. Does not block.
    fn has_neighbours(&self) -> bool;

    /// Offers messages to them, if there are any: they take those for users who are online with
    /// them. `online` returns the users whose state says online. Returns the messages that they did
    /// not take, in the order given. Blocks.
    fn publish_to_neighbours(&self, deliveries: Vec<Delivery>, online: &dyn Fn(&[UserId]) -> Vec<UserId>)
    -> Neighbours;
}

/// The health of the bus. No method blocks.
pub trait BusHealth: Send + Sync + 'static {
    /// A name of one or two words for this bus, for the log.
    fn describe(&self) -> String;

    /// Whether messages to other nodes arrive, as far as is known.
    fn is_ready(&self) -> bool;

    /// The time since this node's last probe came back; `None` for a bus without probes, or before
    /// the first.
    fn probe_age(&self) -> Option<Duration>;

    /// The use of the connections for commands, if there are any.
    fn connections(&self) -> Option<PoolUse>;
}

/// Called by the bus, from its own threads. No method may block, unless it says so.
pub trait Node: Send + Sync + 'static {
    /// Takes messages for a user from another node. Returns true if all are
    /// written to the user's connection. Otherwise [`Exchange::refuse`] follows, once all earlier
    /// messages for the user on this node are stored: the sender then stores the rest after those.
    fn on_envelope(
        &self,
        turn: &mut Turn<Posted>,
        to: UserId,
        frames: Frames<'_>,
        receipt: &dyn Fn() -> Receipt,
    ) -> bool;

    /// Like [`Node::on_envelope`], for messages that a dead connection to another node had not
    /// taken, for a user who has since logged in here: everything that the user's connection here
    /// has received must be older.
    fn on_returned(
        &self,
        turn: &mut Turn<Posted>,
        to: UserId,
        frames: Frames<'_>,
        receipt: &dyn Fn() -> Receipt,
    ) -> bool;

    /// Takes a message for a user from a node of the reference server.
    fn on_bare(&self, turn: &mut Turn<Posted>, to: UserId, frame: &str);

    /// These envelopes of this node were delivered, at this place.
    fn on_confirmed(&self, place: Option<Place>, sequences: Vec<u64>);

    /// A node has delivered this number of messages of the envelope, and did not find the user for
    /// the rest.
    fn on_refused(&self, sequence: u64, delivered: usize);

    /// No more messages will arrive for a user whom this node has unsubscribed.
    fn on_left(&self, user: UserId);

    /// A user has logged in at another node, and may have lost the connections to this one.
    fn on_elsewhere(&self, turn: &mut Turn<Posted>, user: UserId);

    /// A node with these users has died. Blocks until their states are written; false if they
    /// cannot be written.
    fn on_died(&self, users: &[UserId]) -> bool;

    /// Up to `limit` users after this one whose `User.state` says online, in order; `None` if that
    /// cannot be read now. Blocks.
    fn online_after(&self, user: UserId, limit: usize) -> Option<Vec<UserId>>;

    /// The members of a group have changed.
    fn on_group_changed(&self, group: GroupId);

    /// Another node has news for connections of level 2.
    fn on_device_news(&self, news: DeviceNews);

    /// The bus is connected again, after a time in which any message may have been missed. Returns
    /// all users whose messages this node wants.
    fn on_rejoined(&self) -> Vec<UserId>;
}

/// A node for as long as it receives everything that other nodes announce about its users. After it
/// may have missed something, it is another place.
pub type Place = Arc<str>;

/// The node of a place.
pub fn node_of(place: &str) -> &str {
    place.rsplit_once('-').map_or(place, |(node, _)| node)
}

/// Messages for one user on their way to another node.
#[derive(Debug)]
pub struct Envelope {
    /// The user they are for.
    pub to: UserId,
    /// The user's only place: only that place gets the envelope, and no node if the place is no
    /// longer valid. Without it, every node that wants the envelope gets it.
    pub place: Option<Place>,
    /// Unique among the envelopes of this node.
    pub sequence: u64,
    /// Whether a dead connection of the user has returned the messages, see [`Node::on_returned`].
    pub is_returned: bool,
    /// Whether the messages are in their conversation already: where they are stored, they get a
    /// mark.
    pub is_recorded: bool,
    /// The messages, in order.
    pub deliveries: Vec<Delivery>,
}

/// The result of publishing an envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published {
    /// No node wants the envelope.
    ToNobody,
    /// It was offered to all nodes, and exactly one gets it: a place that confirms it is the user's
    /// only one.
    ToOne,
    /// This number of nodes get it, at least one. Others may have the user too.
    Taken(u32),
    /// The bus failed meanwhile: a node may have got it.
    InDoubt,
}

impl Envelope {
    /// The result if this number of nodes get it.
    pub(crate) fn published_to(&self, nodes: u32) -> Published {
        match nodes {
            0 => Published::ToNobody,
            // The user of returned messages is just moving.
            1 if self.place.is_none() && !self.is_returned => Published::ToOne,
            nodes => Published::Taken(nodes),
        }
    }
}

/// The result of offering messages to nodes of the reference server.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// Sent to such a node, which confirms nothing.
    pub taken: Vec<Delivery>,
    /// For users who are not online there.
    pub untaken: Vec<Delivery>,
}

/// An envelope that has arrived, and its sender.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Receipt {
    /// The node that sent the envelope.
    pub node: Box<str>,
    /// The number of the envelope at that node.
    pub sequence: u64,
}

/// The other nodes cannot be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreachable;
