//! Reaching other nodes.
//!
//! [`Bus`] is the seam between one node and the others. Who is where is known to the bus alone: a node tells it whose
//! messages it wants, and a message that is published comes to every node that wants it. The bus is fast and forgets; so
//! a message that it has taken stays with the sending node until the receiving node confirms it (`outbox.rs`).
//!
//! What nodes say to each other is in `peer`, whatever carries it. [`redis`] does; [`local`] is the bus of a node that is
//! alone. Another carrier is another file with the traits of this one, and with `Line` and `Courier` of `peer`.

pub mod local;
pub(crate) mod peer;
pub mod redis;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use net::Turn;

use crate::base::loads::PoolUse;
use crate::delivery::{ClientLink, Delivery, Posted};
use crate::protocol::{GroupId, UserId};

/// All ways to the other nodes of the cluster. A caller takes the one that it uses. Unless a method says that it blocks, any
/// thread may call it.
pub trait Bus: Exchange + Register + ReferenceNodes + BusHealth {}

impl<B: Exchange + Register + ReferenceNodes + BusHealth> Bus for B {}

/// Publishes messages for users of other nodes.
pub trait Publisher: Send + Sync + 'static {
    /// Offers each envelope to the nodes that want it. Blocks, for at most a few seconds.
    fn publish(&self, envelopes: &[Envelope]) -> Vec<Published>;
}

/// Exchanges messages with other nodes.
pub trait Exchange: Publisher {
    /// Whether there can be no other node. Then nothing is published or subscribed to.
    fn is_alone(&self) -> bool;

    /// Begins to receive for `node`, and to keep its subscriptions.
    ///
    /// # Errors
    /// When the system has no thread left.
    fn start(&self, node: Arc<dyn Node>) -> io::Result<()>;

    /// Has nothing more sent here. When it returns, what was sent before has come, if that was possible in time. Blocks.
    fn hush(&self);

    /// Says the last, and forgets the node. Blocks until it no longer calls it, or until `by` and a second or so: what waits for
    /// another program then goes on until the process ends.
    fn stop(&self, by: Instant);

    /// From now on this node wants the messages for `user`. When they come, and other places that have the user know that
    /// they are not alone, or when it is known that this cannot be, the waiter is posted the outcome
    /// [`Placed`](crate::session::Outcome::Placed).
    fn subscribe(&self, user: UserId, waiter: Option<&Arc<ClientLink>>);

    /// This node no longer wants them. [`Node::on_left`] is called when none will come any more.
    fn unsubscribe(&self, user: UserId);

    /// Tells the node that sent an envelope that not all of it has found its user here, but only so many of its messages.
    fn refuse(&self, receipt: Receipt, delivered: usize);

    /// Tells all nodes that a group has other members now. Blocks.
    fn group_changed(&self, group: GroupId);
}

/// The register of which user is on which node, as all nodes know it.
pub trait Register: Send + Sync + 'static {
    /// Whether no other node is there, so that whoever is marked online is not. Blocks.
    fn is_first(&self) -> bool;

    /// Notes for the other nodes that these users are on this node: should it die, they see to their states. Blocks.
    ///
    /// # Errors
    /// When that is not possible just now.
    fn claim(&self, users: &[UserId]) -> Result<(), Unreachable>;

    /// They have left it, and their states are written. Blocks.
    ///
    /// # Errors
    /// As for [`Register::claim`].
    fn disclaim(&self, users: &[UserId]) -> Result<(), Unreachable>;

    /// All have left it: the other nodes need not look after anybody. Blocks.
    fn say_goodbye(&self);

    /// Which of these users other nodes want messages for. Blocks.
    ///
    /// # Errors
    /// When that cannot be known.
    fn elsewhere(&self, users: &[UserId]) -> Result<Vec<UserId>, Unreachable>;
}

/// Nodes of the reference server.
pub trait ReferenceNodes: Send + Sync + 'static {
    /// Whether any are there, as far as is known. Does not block.
    fn has_neighbours(&self) -> bool;

    /// Offers messages to them, if there are any: they take what is for a user who is online with them. `online` says whose
    /// state says so. Returns what they did not take, in the order given. Blocks.
    fn publish_to_neighbours(&self, deliveries: Vec<Delivery>, online: &dyn Fn(&[UserId]) -> Vec<UserId>)
    -> Neighbours;
}

/// How the bus is. Nothing of this blocks.
pub trait BusHealth: Send + Sync + 'static {
    /// One word or two for the log: which bus this is.
    fn describe(&self) -> String;

    /// Whether messages to other nodes arrive there, as far as is known.
    fn is_ready(&self) -> bool;

    /// How long ago the last message of this node to itself came back; `None` for a bus that needs no such probe, or
    /// when none has come yet.
    fn probe_age(&self) -> Option<Duration>;

    /// How the connections for commands are used, if there are any.
    fn connections(&self) -> Option<PoolUse>;
}

/// What the bus calls, from threads of its own. Nothing of it may block, unless it says so.
pub trait Node: Send + Sync + 'static {
    /// Takes messages for a user from another node, one on each line. True when all are with the user's connection.
    /// Otherwise [`Exchange::refuse`] follows, once all that was here for the user before is kept: the sender keeps the rest
    /// after it.
    fn on_envelope(&self, turn: &mut Turn<Posted>, to: UserId, frames: &str, receipt: &dyn Fn() -> Receipt) -> bool;

    /// The same of messages that a dead connection to another node had not taken, for a user who has come here since: all
    /// that the user's connection here has got must be older.
    fn on_returned(&self, turn: &mut Turn<Posted>, to: UserId, frames: &str, receipt: &dyn Fn() -> Receipt) -> bool;

    /// Takes a message for a user from a node of the reference server.
    fn on_bare(&self, turn: &mut Turn<Posted>, to: UserId, frame: &str);

    /// These envelopes of this node are with their users, at this place.
    fn on_confirmed(&self, place: Option<Place>, sequences: Vec<u64>);

    /// A node has delivered so many messages of this envelope, and found nobody for the rest.
    fn on_refused(&self, sequence: u64, delivered: usize);

    /// Nothing will come any more for a user whom this node wanted messages for.
    fn on_left(&self, user: UserId);

    /// A user has come to another node, and may have lost the connections to this one.
    fn on_elsewhere(&self, turn: &mut Turn<Posted>, user: UserId);

    /// A node that had these users has died. Blocks until their states are written; false if they cannot be.
    fn on_died(&self, users: &[UserId]) -> bool;

    /// The users after this one whose `User.state` says online, in order, at most so many; `None` if that cannot be known
    /// now. Blocks.
    fn online_after(&self, user: UserId, limit: usize) -> Option<Vec<UserId>>;

    /// A group has other members now.
    fn on_group_changed(&self, group: GroupId);

    /// The bus is there again, after a time in which anything may have been missed. Returns everybody whose messages
    /// this node wants.
    fn on_rejoined(&self) -> Vec<UserId>;
}

/// A node, as long as it hears all that other nodes say about its users. One that may have missed something is another
/// place afterwards.
pub type Place = Arc<str>;

/// How long a sender believes that a user is at one place alone, after it has offered a message to all who want it.
pub const PLACE_LEASE: Duration = Duration::from_secs(30);

/// Messages for one user on their way to another node.
#[derive(Debug)]
pub struct Envelope {
    /// Whom they are for.
    pub to: UserId,
    /// Where the user is: nobody else gets it, and nobody if that place is no more. Otherwise whoever wants it does.
    pub place: Option<Place>,
    /// Tells it from all others of this node.
    pub sequence: u64,
    /// A dead connection of the user has returned the messages, see [`Node::on_returned`].
    pub is_returned: bool,
    /// The messages, in order.
    pub deliveries: Vec<Delivery>,
}

/// What became of an envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published {
    /// No node wants it.
    ToNobody,
    /// So many nodes get it, at least one.
    Taken(u32),
    /// The bus failed in the middle: perhaps a node got it.
    InDoubt,
}

impl Published {
    /// So many nodes get it.
    pub(crate) fn to(nodes: u32) -> Published {
        if nodes == 0 { Published::ToNobody } else { Published::Taken(nodes) }
    }
}

/// What became of messages that were offered to nodes of the reference server.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// Gone to such a node, which confirms nothing.
    pub taken: Vec<Delivery>,
    /// For nobody there.
    pub untaken: Vec<Delivery>,
}

/// An envelope that has come, and who sent it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Receipt {
    /// The node that sent the envelope.
    pub node: Box<str>,
    /// Which of its envelopes.
    pub sequence: u64,
}

/// The other nodes cannot be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreachable;
