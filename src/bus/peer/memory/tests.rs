//! Nodes that talk through the transport in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use net::Turn;
use parking_lot::{Condvar, Mutex};

use super::{Dropped, Hub, MemoryBus, MemoryConnector, MemoryLine, PATIENCE};
use crate::base::clock::Clock;
use crate::bus::peer::{BusStage, Connector, PeerDriver, PeerRules, PeerShared, Topic};
use crate::bus::{Bus, BusHealth, DeviceNews, Envelope, Exchange, Frames, Node, Place, Published, Receipt};
use crate::delivery::{Delivery, DeliveryOrigin, Posted};
use crate::protocol::{GroupId, UserId};

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

    fn on_device_news(&self, news: DeviceNews) {
        self.write(format!("{news:?}"));
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
        let delivery = Delivery::new(to, text.into(), DeliveryOrigin::Spooled(crate::store::spool::SpoolId(1), None));
        let envelope = Envelope {
            to,
            place: place.map(Place::from),
            sequence,
            is_returned,
            is_recorded: false,
            deliveries: vec![delivery],
        };
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
    // Messages that a dead connection has returned are known as such, and confirmed like all
    // others.
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

#[test]
fn a_failed_publication_shuts_the_way_until_a_probe_returns_on_the_same_connection() {
    let hub = Arc::new(Hub::default());
    let [a, b] = ["a", "b"].map(|name| Station::start(&hub, name));
    b.arrive(USER);
    a.arrive(UserId(8));
    a.send_until(USER, 1, Published::ToOne);
    hub.fails_once.store(true, Ordering::Release);
    assert_eq!(a.send(USER, None, 1001, "{}"), Published::InDoubt, "it may have arrived");
    a.send_until(USER, 1002, Published::ToOne);
    let found = b.send_until(UserId(8), 1, Published::ToOne);
    b.node.wait_for(&format!("confirmed at a-1: [{found}]"));
}

/// A node whose turns the test takes, at times that the test chooses.
struct ByHand {
    node: Arc<Diary>,
    driver: PeerDriver,
    line: MemoryLine,
    clock: Clock,
}

impl ByHand {
    /// A node with this user, whose probe has come back.
    fn up(hub: &Arc<Hub>, name: &str, user: UserId) -> ByHand {
        let (node, clock) = (Arc::new(Diary::default()), Clock::standing_at(Instant::now()));
        node.here.lock().push(user);
        let shared = Arc::new(PeerShared::new(name, || {}));
        let driver = PeerDriver::new(shared, PeerRules::default(), node.clone(), Turn::at(clock.now()));
        let (hub, bell) = (hub.clone(), Arc::default());
        let line = MemoryConnector { hub, node: name.to_owned(), bell }.connect().expect("the hub is up");
        let mut by_hand = ByHand { node, driver, line, clock };
        by_hand.driver.open(&mut by_hand.line, by_hand.clock.now());
        while !by_hand.driver.was_up() {
            by_hand.turn().expect("its probe comes back");
        }
        by_hand
    }

    fn turn(&mut self) -> Result<(), Dropped> {
        self.driver.turn(&mut self.line, &self.clock)
    }
}

#[test]
fn a_connection_in_doubt_is_given_up_after_what_has_arrived_is_confirmed() {
    let hub = Arc::new(Hub::default());
    let mut sender = ByHand::up(&hub, "a", UserId(8));
    let mut node = ByHand::up(&hub, "b", USER);
    // The first confirmation is sent at once, and the next one a little later.
    for payload in [&b"1 a 1\n{}"[..], b"1 a 2\n{}"] {
        node.line.hub.publish("a", Topic::User(USER), payload).expect("it is connected");
        node.line.is_doubted = payload.contains(&b'2');
        assert_eq!(node.turn().is_err(), node.line.is_doubted);
    }
    sender.turn().expect("it is connected");
    sender.node.wait_for("confirmed at b-1: [1, 2]");
}

#[test]
fn a_node_that_hears_nothing_gives_its_connection_up() {
    let hub = Arc::new(Hub::default());
    let mut node = ByHand::up(&hub, "a", USER);
    // The hub goes on as if it had the subscriptions.
    hub.mailboxes.lock().get_mut("a").expect("it is connected").wanted.clear();
    let start = node.clock.now();
    node.clock.set(start + Duration::from_secs(2));
    node.turn().expect("it sends its next probe");
    node.clock.set(start + Duration::from_secs(4));
    node.turn().expect_err("the probe has not come back");
}
