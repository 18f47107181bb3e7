//! A transport in memory, and nodes that talk through it. It shows all that another transport
//! needs: a [`Transport`], its [`Line`], a [`Connector`], and what it knows for `Register`,
//! `ReferenceNodes` and `BusHealth`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use net::Turn;
use parking_lot::{Condvar, Mutex};

use super::{
    BusStage, Connector, Deaf, Event, Line, NotSent, PeerNews, PeerShared, PeerThread, Post, Reached, Topic, Transport,
};
use crate::base::ids::FrameId;
use crate::base::loads::PoolUse;
use crate::bus::Unreachable;
use crate::bus::{
    Bus, BusHealth, Envelope, Exchange, Frames, Neighbours, Node, Place, Published, Receipt, ReferenceNodes, Register,
};
use crate::delivery::{Delivery, Origin, Posted};
use crate::protocol::{GroupId, UserId};

/// The connections of all nodes, by the names of the nodes.
#[derive(Default)]
struct Hub {
    mailboxes: Mutex<BTreeMap<String, Mailbox>>,
    /// Whether it accepts no connections.
    is_down: AtomicBool,
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
    /// The number of connections that hear it; `None` if this node has no connection.
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

impl Line for MemoryLine {
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

    fn next_event(&mut self) -> Result<Option<Event<'_>>, Dropped> {
        self.heard = self.hub.mailboxes.lock().get_mut(&self.node).ok_or(Dropped)?.unheard.pop_front();
        let topic = |topic| Topic::parse(topic).expect("it was written by a node");
        Ok(self.heard.as_ref().map(|note| match note {
            Note::Said(about, payload) => Event::Said(topic(about), payload),
            Note::Listening(about) => Event::Listening(topic(about)),
            Note::Ignoring(user) => Event::Ignoring(*user),
            Note::Silence => Event::Silence,
        }))
    }

    fn take_doubt(&mut self) -> Option<Dropped> {
        None
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

impl Transport for MemoryBus {
    fn peer(&self) -> &Arc<PeerShared> {
        &self.peer
    }

    fn drive(&self, node: Arc<dyn Node>) -> io::Result<()> {
        let (hub, bell) = (self.hub.clone(), self.bell.clone());
        PeerThread::start(MemoryConnector { hub, node: self.peer.node().to_owned(), bell }, &self.peer, node)?;
        self.peer.wait_until_open(Instant::now() + PATIENCE);
        Ok(())
    }

    fn post(&self, posts: &[Post<'_>]) -> Result<Vec<Reached>, NotSent> {
        let publish = |post: &Post<'_>| self.hub.publish(self.peer.node(), post.topic, &post.payload);
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
        Ok(MemoryLine { hub: self.hub.clone(), node: self.node.clone(), heard: None })
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

/// A node that records its events. Users are here as long as they are in the list.
#[derive(Default)]
struct Diary {
    here: Mutex<Vec<UserId>>,
    lines: Mutex<Vec<String>>,
    written: Condvar,
}

impl Diary {
    fn write(&self, line: String) {
        self.lines.lock().push(line);
        self.written.notify_all();
    }

    /// Waits until this line is written, and removes it.
    fn wait_for_one(&self, awaited: &str) {
        let before = self.wait_for(awaited);
        self.lines.lock().splice(0..0, before);
    }

    /// Waits until this line is written, and takes it and the lines before it, which it returns.
    fn wait_for(&self, awaited: &str) -> Vec<String> {
        let (mut lines, by) = (self.lines.lock(), Instant::now() + PATIENCE);
        loop {
            if let Some(at) = lines.iter().position(|line| line == awaited) {
                let rest = lines.split_off(at + 1);
                let mut before = std::mem::replace(&mut *lines, rest);
                before.pop();
                return before;
            }
            assert!(!self.written.wait_until(&mut lines, by).timed_out(), "{awaited}: only {lines:?} came");
        }
    }
}

impl Node for Diary {
    fn on_envelope(&self, _: &mut Turn<Posted>, to: UserId, frames: Frames<'_>, _: &dyn Fn() -> Receipt) -> bool {
        self.write(format!("for {to}: {}", frames.collect::<String>()));
        self.here.lock().contains(&to)
    }

    fn on_returned(&self, _: &mut Turn<Posted>, to: UserId, frames: Frames<'_>, _: &dyn Fn() -> Receipt) -> bool {
        self.write(format!("returned for {to}: {}", frames.collect::<String>()));
        self.here.lock().contains(&to)
    }

    fn on_bare(&self, _: &mut Turn<Posted>, to: UserId, frame: &str) {
        self.write(format!("bare for {to}: {frame}"));
    }

    fn on_confirmed(&self, place: Option<Place>, sequences: Vec<u64>) {
        self.write(format!("confirmed at {}: {sequences:?}", place.as_deref().unwrap_or("several")));
    }

    fn on_refused(&self, sequence: u64, delivered: usize) {
        self.write(format!("refused: {sequence} after {delivered}"));
    }

    fn on_left(&self, user: UserId) {
        self.write(format!("{user} has left"));
    }

    fn on_elsewhere(&self, _: &mut Turn<Posted>, user: UserId) {
        self.write(format!("{user} is elsewhere"));
    }

    fn on_died(&self, _: &[UserId]) -> bool {
        true
    }

    fn online_after(&self, _: UserId, _: usize) -> Option<Vec<UserId>> {
        None
    }

    fn on_group_changed(&self, group: GroupId) {
        self.write(format!("group {group} has changed"));
    }

    fn on_rejoined(&self) -> Vec<UserId> {
        self.here.lock().clone()
    }
}

/// A node that has started.
struct Station {
    node: Arc<Diary>,
    bus: Arc<dyn Bus>,
}

impl Station {
    fn start(hub: &Arc<Hub>, name: &str) -> Station {
        let (node, bus): (_, Arc<dyn Bus>) = (Arc::new(Diary::default()), Arc::new(MemoryBus::new(hub, name)));
        assert!(!bus.is_ready());
        bus.start(node.clone()).expect("a thread");
        assert!(bus.is_ready(), "a start waits for the first probe");
        Station { node, bus }
    }

    fn arrive(&self, user: UserId) {
        self.node.here.lock().push(user);
        self.bus.subscribe(user, None);
    }

    fn leave(&self, user: UserId) {
        self.node.here.lock().retain(|other| *other != user);
        self.bus.unsubscribe(user);
    }

    fn send(&self, to: UserId, place: Option<&str>, sequence: u64, text: &str) -> Published {
        self.offer(to, place, sequence, text, false)
    }

    /// Sends on what a dead connection of the user here has returned.
    fn send_returned(&self, to: UserId, sequence: u64, text: &str) -> Published {
        self.offer(to, None, sequence, text, true)
    }

    fn offer(&self, to: UserId, place: Option<&str>, sequence: u64, text: &str, is_returned: bool) -> Published {
        let delivery = Delivery {
            id: FrameId::UNNAMED,
            to,
            text: text.into(),
            origin: Origin::Spooled(crate::store::spool::SpoolId(1)),
            was_refused: false,
        };
        let envelope =
            Envelope { to, place: place.map(Place::from), sequence, is_returned, deliveries: vec![delivery] };
        self.bus.publish(&[envelope])[0]
    }

    /// Offers messages until nodes take one like this. Returns its sequence.
    fn send_until(&self, to: UserId, first: u64, expected: Published) -> u64 {
        let by = Instant::now() + PATIENCE;
        let mut sequences = first..;
        loop {
            let sequence = sequences.next().expect("there are enough");
            let published = self.send(to, None, sequence, "{}");
            if published == expected {
                return sequence;
            }
            assert!(Instant::now() < by, "{published:?}, and not {expected:?}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        self.bus.stop(Instant::now() + PATIENCE);
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
const USER: UserId = UserId(7);

#[test]
fn nodes_talk_through_any_transport() {
    let hub = Arc::new(Hub::default());
    let [a, b, c] = ["a", "b", "c"].map(|name| Station::start(&hub, name));
    assert_eq!(a.send(USER, None, 1, "{}"), Published::ToNobody);
    b.arrive(USER);
    let found = a.send_until(USER, 2, Published::ToOne);
    b.node.wait_for("for 7: {}");
    a.node.wait_for(&format!("confirmed at b-1: [{found}]"));
    // What a dead connection has returned is known as such, and confirmed like everything else.
    assert_eq!(a.send_returned(USER, 1001, "{}"), Published::Taken(1));
    b.node.wait_for("returned for 7: {}");
    a.node.wait_for("confirmed at b-1: [1001]");
    // To the one place, until the user logs in at another one as well.
    assert_eq!(a.send(USER, Some("b-1"), 1002, "[]"), Published::Taken(1));
    b.node.wait_for("for 7: []");
    a.node.wait_for("confirmed at b-1: [1002]");
    c.arrive(USER);
    b.node.wait_for("7 is elsewhere");
    assert_eq!(a.send(USER, Some("b-1"), 1003, "[]"), Published::Taken(1));
    a.node.wait_for("refused: 1003 after 0");
    assert_eq!(a.send(USER, None, 1004, "{}"), Published::Taken(2));
    b.node.wait_for("for 7: {}");
    // Both confirm, in any order; the new place does not know that the user is elsewhere too.
    for confirmation in ["confirmed at c-1: [1004]", "confirmed at several: [1004]"] {
        a.node.wait_for_one(confirmation);
    }
    // Nothing more arrives for a user who has left.
    c.leave(USER);
    assert_eq!(c.node.wait_for("7 has left"), ["for 7: {}"]);
    assert_eq!(a.bus.elsewhere(&[USER]), Ok(vec![USER]), "the user is at the other node");
    a.bus.group_changed(GroupId(9));
    b.node.wait_for("group 9 has changed");
    b.bus.hush();
    assert_eq!(a.send(USER, None, 1005, "{}"), Published::ToNobody, "nobody listens any more");
    assert_eq!(a.bus.elsewhere(&[USER]), Ok(vec![]));
}

#[test]
fn a_node_whose_connection_is_lost_comes_back_as_another_place_with_its_users() {
    let hub = Arc::new(Hub::default());
    let [a, b] = ["a", "b"].map(|name| Station::start(&hub, name));
    a.arrive(UserId(8));
    b.arrive(USER);
    let found = a.send_until(USER, 1, Published::ToOne);
    a.node.wait_for(&format!("confirmed at b-1: [{found}]"));
    hub.cut("b");
    let found = a.send_until(USER, 1001, Published::ToOne);
    a.node.wait_for(&format!("confirmed at b-2: [{found}]"));
    assert_eq!(a.send(USER, Some("b-1"), 2001, "{}"), Published::ToNobody, "the place is gone");
    // A node that cannot publish notices that itself, and tells nobody that its users are offline.
    hub.cut("a");
    assert_eq!(a.send(USER, None, 2002, "{}"), Published::ToNobody);
    let found = a.send_until(USER, 2003, Published::ToOne);
    a.node.wait_for(&format!("confirmed at b-2: [{found}]"));
    b.node.wait_for("8 is elsewhere");
    let place = b.send_until(UserId(8), 1, Published::ToOne);
    b.node.wait_for(&format!("confirmed at a-2: [{place}]"));
}

#[test]
fn a_node_that_cannot_connect_hushes_and_stops() {
    let hub = Arc::new(Hub::default());
    let (node, bus) = (Arc::new(Diary::default()), MemoryBus::new(&hub, "a"));
    bus.start(node.clone()).expect("a thread");
    node.here.lock().push(USER);
    bus.subscribe(USER, None);
    hub.is_down.store(true, Ordering::Release);
    hub.cut("a");
    bus.unsubscribe(USER);
    node.wait_for("7 has left");
    bus.peer.advance(BusStage::Hushing);
    bus.peer.wake();
    assert!(bus.peer.wait_for(BusStage::Hushed, Instant::now() + PATIENCE), "nothing arrives any more");
    bus.stop(Instant::now() + PATIENCE);
    assert!(!bus.is_ready());
}

/// Nobody waits until the patience with others is over, and the thread does not spin meanwhile.
#[test]
fn a_node_that_shuts_down_before_its_thread_looks_hushes_at_once() {
    let bus = MemoryBus::new(&Arc::default(), "a");
    bus.peer.advance(BusStage::Hushing);
    bus.start(Arc::new(Diary::default())).expect("a thread");
    assert!(bus.peer.wait_for(BusStage::Hushed, Instant::now() + PATIENCE), "nothing arrives any more");
    bus.stop(Instant::now() + PATIENCE);
}
