//! [`Caused`]: a fault that was caused, the [`Part`]s that it hit, and the messages that it may
//! have affected.

use std::time::Duration;

use crate::books::{Books, Moment, Place, Way};
use crate::schedule::Kind;

/// A fault that was caused.
#[derive(Clone, Debug)]
pub struct Caused {
    pub kind: Kind,
    pub begun: Moment,
    /// When the fault was complete. A process that is killed goes on serving for some milliseconds
    /// after `begun`.
    pub complete: Moment,
    pub over: Moment,
    /// The time from the fault's beginning until messages of level 2 arrived that were sent when it
    /// was complete; measured where another part takes over while the fault lasts.
    pub delivered_after: Option<Duration>,
    /// The time from the fault's end until all nodes concerned were ready.
    pub ready_after: Option<Duration>,
    /// The parts that failed.
    pub parts: Vec<Part>,
    /// The number of messages in the spool of the node that was killed.
    pub spooled: usize,
}

/// One part that failed.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub party: Party,
    pub begun: Moment,
    /// When the part served again and all nodes concerned had noticed. For a client: when every
    /// node had noticed that it has gone.
    pub well: Moment,
}

/// The parts that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    Node(usize),
    Database,
    Redis,
    Nginx,
    /// A client, by its user id.
    Client(i64),
}

impl Caused {
    /// Whether the fault can affect messages from or to this client.
    pub fn concerns(&self, books: &Books) -> bool {
        self.parts.iter().any(|part| part.concerns(books))
    }

    /// Whether the fault can have affected this message; `sender` and `recipient` are the books of
    /// the users.
    pub fn touches(&self, way: &Way, sender: &Books, recipient: &Books) -> bool {
        self.parts.iter().any(|part| part.touches(way, sender, recipient))
    }
}

impl Part {
    pub fn concerns(&self, books: &Books) -> bool {
        match self.party {
            Party::Node(node) => books.places(self.begun, self.well).any(|place| place.may_be(node)),
            Party::Nginx => books.used_nginx(self.begun, self.well),
            Party::Client(user) => user == books.user,
            Party::Database | Party::Redis => true,
        }
    }

    /// Whether this part can have affected this message. It must have failed between the sending
    /// and the last arrival, at a place where the message was or may have been: the sender's node,
    /// the recipient, the recipient's nodes, the path between these, or the database if it was
    /// stored. While the database fails, it also counts if the recipient gives a connection up: a
    /// request is not answered, so the node keeps the connection, and writes to it. A frozen node
    /// still knows the recipients that it had at first, and writes to them what has come meanwhile.
    pub fn touches(&self, way: &Way, sender: &Books, recipient: &Books) -> bool {
        if way.sent > self.well || way.until < self.begun {
            return false;
        }
        let source = sender.connections.get(way.connection).map_or(Place::Nginx, |connection| connection.place);
        let since = if self.party.node().is_some() { way.sent.min(self.begun) } else { way.sent };
        let mut places = recipient.places(since, way.until);
        match self.party {
            Party::Node(node) => source.may_be(node) || places.any(|place| place.may_be(node)),
            Party::Database => way.stored || recipient.gave_up(self.begun, self.well),
            Party::Redis => source == Place::Nginx || places.any(|place| place != source),
            Party::Nginx => source == Place::Nginx || places.any(|place| place == Place::Nginx),
            // A fault of the sender's connection does not make a server repeat a message.
            Party::Client(user) => user == way.to,
        }
    }
}

impl Party {
    /// The number of the node, if this is a node.
    pub fn node(self) -> Option<usize> {
        match self {
            Party::Node(node) => Some(node),
            Party::Database | Party::Redis | Party::Nginx | Party::Client(_) => None,
        }
    }
}
