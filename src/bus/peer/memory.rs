//! A transport in memory, for tests. It shows everything that another transport needs: a
//! [`BusTransport`], its [`PeerLine`], a [`Connector`], and its own `Register`, `ReferenceNodes`
//! and `BusHealth`.

mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{
    BusTransport, Connector, Deaf, NotSent, PeerLine, PeerNews, PeerShared, PeerThread, Publication, Reached, Topic,
    TransportEvent,
};
use crate::base::loads::PoolUse;
use crate::bus::{BusHealth, Neighbours, Node, ReferenceNodes, Register, Unreachable};
use crate::delivery::Delivery;
use crate::protocol::UserId;

/// The connections of all nodes, by the names of the nodes.
#[derive(Default)]
struct Hub {
    mailboxes: Mutex<BTreeMap<String, Mailbox>>,
    /// Whether it refuses connections.
    is_down: AtomicBool,
    /// Whether the next publication fails after it was sent.
    fails_once: AtomicBool,
}

/// The subscriptions of a connection, and its unread events.
#[derive(Default)]
struct Mailbox {
    wanted: BTreeSet<String>,
    unheard: VecDeque<Note>,
    bell: Arc<Bell>,
}

enum Note {
    Said(String, Vec<u8>),
    Listening(String),
    Ignoring(UserId),
    Silence,
}

/// Wakes the thread of a node.
#[derive(Default)]
struct Bell {
    has_rung: Mutex<bool>,
    rings: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.has_rung.lock() = true;
        self.rings.notify_all();
    }

    fn wait(&self, until: Instant) {
        let mut has_rung = self.has_rung.lock();
        while !*has_rung && !self.rings.wait_until(&mut has_rung, until).timed_out() {}
        *has_rung = false;
    }
}

impl Hub {
    /// Returns the number of connections that receive it; `None` if this node has no connection.
    fn publish(&self, from: &str, topic: Topic<&str>, payload: &[u8]) -> Option<u32> {
        let (topic, mut mailboxes, mut count) = (topic.to_string(), self.mailboxes.lock(), 0);
        mailboxes.get(from)?;
        for mailbox in mailboxes.values_mut().filter(|mailbox| mailbox.wanted.contains(&topic)) {
            mailbox.unheard.push_back(Note::Said(topic.clone(), payload.to_vec()));
            mailbox.bell.ring();
            count += 1;
        }
        Some(count)
    }

    /// Drops the connection of a node, and everything on its way there.
    fn cut(&self, node: &str) {
        let mailbox = self.mailboxes.lock().remove(node).expect("it is connected");
        mailbox.bell.ring();
    }
}

/// The connection of one node.
struct MemoryLine {
    hub: Arc<Hub>,
    node: String,
    heard: Option<Note>,
    is_doubted: bool,
}

impl MemoryLine {
    fn change(&self, change: impl FnOnce(&mut Mailbox)) {
        if let Some(mailbox) = self.hub.mailboxes.lock().get_mut(&self.node) {
            change(mailbox);
            mailbox.bell.ring();
        }
    }
}

/// The hub has dropped the connection.
#[derive(Debug)]
struct Dropped;

impl From<Deaf> for Dropped {
    fn from(Deaf: Deaf) -> Dropped {
        Dropped
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it has dropped the connection")
    }
}

impl PeerLine for MemoryLine {
    type Broken = Dropped;

    fn listen(&mut self, topics: &[Topic<&str>]) {
        self.change(|mailbox| {
            for topic in topics {
                mailbox.wanted.insert(topic.to_string());
                mailbox.unheard.push_back(Note::Listening(topic.to_string()));
            }
        });
    }

    fn ignore(&mut self, users: &[UserId]) {
        self.change(|mailbox| {
            for user in users {
                mailbox.wanted.remove(&Topic::<&str>::User(*user).to_string());
                mailbox.unheard.push_back(Note::Ignoring(*user));
            }
        });
    }

    fn ignore_all(&mut self) {
        self.change(|mailbox| {
            mailbox.wanted.clear();
            mailbox.unheard.push_back(Note::Silence);
        });
    }

    fn say(&mut self, topic: Topic<&str>, payload: &[u8]) {
        self.hub.publish(&self.node, topic, payload);
    }

    fn next_event(&mut self) -> Result<Option<TransportEvent<'_>>, Dropped> {
        self.heard = self.hub.mailboxes.lock().get_mut(&self.node).ok_or(Dropped)?.unheard.pop_front();
        let topic = |topic| Topic::parse(topic).expect("it was written by a node");
        Ok(self.heard.as_ref().map(|note| match note {
            Note::Said(about, payload) => TransportEvent::Said(topic(about), payload),
            Note::Listening(about) => TransportEvent::Listening(topic(about)),
            Note::Ignoring(user) => TransportEvent::Ignoring(*user),
            Note::Silence => TransportEvent::Silence,
        }))
    }

    fn take_doubt(&mut self) -> Option<Dropped> {
        self.is_doubted.then_some(Dropped)
    }

    fn on_news(&mut self, _: PeerNews) {}
}

/// A bus through the hub.
struct MemoryBus {
    hub: Arc<Hub>,
    peer: Arc<PeerShared>,
    bell: Arc<Bell>,
}

impl MemoryBus {
    fn new(hub: &Arc<Hub>, node: &str) -> MemoryBus {
        let bell = Arc::<Bell>::default();
        let rung = bell.clone();
        MemoryBus { hub: hub.clone(), peer: Arc::new(PeerShared::new(node, move || rung.ring())), bell }
    }
}

impl BusTransport for MemoryBus {
    fn peer(&self) -> &Arc<PeerShared> {
        &self.peer
    }

    fn drive(&self, node: Arc<dyn Node>) -> io::Result<()> {
        let (hub, bell) = (self.hub.clone(), self.bell.clone());
        PeerThread::start(MemoryConnector { hub, node: self.peer.node().to_owned(), bell }, &self.peer, node)?;
        self.peer.wait_until_open(Instant::now() + PATIENCE);
        Ok(())
    }

    fn post(&self, posts: &[Publication<'_>]) -> Result<Vec<Reached>, NotSent> {
        if self.hub.fails_once.swap(false, Ordering::AcqRel) {
            self.peer.on_failure();
            return Ok(vec![Reached::Unknown; posts.len()]);
        }
        let publish = |post: &Publication<'_>| self.hub.publish(self.peer.node(), post.topic, &post.payload);
        let reached = posts.iter().map(|post| publish(post).map(Reached::Nodes)).collect::<Option<_>>();
        reached.ok_or_else(|| {
            self.peer.on_failure();
            NotSent
        })
    }
}

struct MemoryConnector {
    hub: Arc<Hub>,
    node: String,
    bell: Arc<Bell>,
}

impl Connector for MemoryConnector {
    type Line = MemoryLine;

    fn name(&self) -> String {
        "the hub".into()
    }

    fn connect(&mut self) -> Result<MemoryLine, Dropped> {
        if self.hub.is_down.load(Ordering::Acquire) {
            return Err(Dropped);
        }
        self.hub.mailboxes.lock().insert(self.node.clone(), Mailbox { bell: self.bell.clone(), ..Mailbox::default() });
        Ok(MemoryLine { hub: self.hub.clone(), node: self.node.clone(), heard: None, is_doubted: false })
    }

    fn wait(&mut self, _: &mut MemoryLine, until: Instant) -> Result<(), Dropped> {
        self.bell.wait(until);
        Ok(())
    }

    fn flush(&mut self, _: &mut MemoryLine) -> Result<bool, Dropped> {
        Ok(true)
    }

    fn rest(&mut self, until: Instant) {
        self.bell.wait(until);
    }
}

impl Register for MemoryBus {
    fn is_first(&self) -> bool {
        false
    }

    fn claim(&self, _: &[UserId]) -> Result<(), Unreachable> {
        Ok(())
    }

    fn disclaim(&self, _: &[UserId]) -> Result<(), Unreachable> {
        Ok(())
    }

    fn say_goodbye(&self) {}

    fn elsewhere(&self, users: &[UserId]) -> Result<Vec<UserId>, Unreachable> {
        let mailboxes = self.hub.mailboxes.lock();
        let is_wanted = |user: &UserId| {
            let topic = Topic::<&str>::User(*user).to_string();
            mailboxes.values().any(|mailbox| mailbox.wanted.contains(&topic))
        };
        Ok(users.iter().copied().filter(is_wanted).collect())
    }
}

impl ReferenceNodes for MemoryBus {
    fn has_neighbours(&self) -> bool {
        false
    }

    fn publish_to_neighbours(&self, untaken: Vec<Delivery>, _: &dyn Fn(&[UserId]) -> Vec<UserId>) -> Neighbours {
        Neighbours { taken: Vec::new(), untaken }
    }
}

impl BusHealth for MemoryBus {
    fn describe(&self) -> String {
        format!("in memory, node {}", self.peer.node())
    }

    fn is_ready(&self) -> bool {
        self.peer.gate().is_open()
    }

    fn probe_age(&self) -> Option<Duration> {
        None
    }

    fn connections(&self) -> Option<PoolUse> {
        None
    }
}

/// How long a start waits for its connection, and how long a test waits for a condition.
const PATIENCE: Duration = Duration::from_secs(20);
