//! A transport in memory, and nodes that talk through it. It shows that a transport needs only
//! [`Line`] and [`Courier`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use net::Turn;
use parking_lot::Mutex;

use super::driver::NodeTasks;
use super::{Courier, Event, Line, NotSent, PeerDriver, PeerNews, PeerRules, PeerTask, PeerTasks, Post, Topic, offer};
use crate::base::ids::FrameId;
use crate::bus::{Envelope, Node, Place, Published, Receipt};
use crate::delivery::{Delivery, Origin, Posted};
use crate::protocol::{GroupId, UserId};

/// The subscriptions of each node, and its unread events.
#[derive(Default)]
struct Hub(Mutex<BTreeMap<usize, Mailbox>>);

#[derive(Default)]
struct Mailbox {
    wanted: BTreeSet<String>,
    unheard: VecDeque<Note>,
}

enum Note {
    Said(String, Vec<u8>),
    Listening(String),
    Ignoring(UserId),
    Silence,
}

impl Hub {
    fn publish(&self, topic: Topic<&str>, payload: &[u8]) -> u32 {
        let topic = topic.to_string();
        let mut count = 0;
        for mailbox in self.0.lock().values_mut().filter(|mailbox| mailbox.wanted.contains(&topic)) {
            mailbox.unheard.push_back(Note::Said(topic.clone(), payload.to_vec()));
            count += 1;
        }
        count
    }
}

/// The connection of one node.
struct MemoryLine {
    hub: Arc<Hub>,
    number: usize,
    heard: Option<Note>,
    is_up: Arc<Mutex<bool>>,
}

impl MemoryLine {
    fn open(hub: &Arc<Hub>, number: usize) -> MemoryLine {
        hub.0.lock().insert(number, Mailbox::default());
        MemoryLine { hub: hub.clone(), number, heard: None, is_up: Arc::default() }
    }

    fn change(&self, change: impl FnOnce(&mut Mailbox)) {
        if let Some(mailbox) = self.hub.0.lock().get_mut(&self.number) {
            change(mailbox);
        }
    }
}

/// The hub has dropped the connection.
#[derive(Debug)]
struct Dropped;

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
        self.hub.publish(topic, payload);
    }

    fn next_event(&mut self) -> Result<Option<Event<'_>>, Dropped> {
        self.heard = self.hub.0.lock().get_mut(&self.number).ok_or(Dropped)?.unheard.pop_front();
        let topic = |topic| Topic::parse(topic).expect("it was written by a node");
        Ok(self.heard.as_ref().map(|note| match note {
            Note::Said(about, payload) => Event::Said(topic(about), payload),
            Note::Listening(about) => Event::Listening(topic(about)),
            Note::Ignoring(user) => Event::Ignoring(*user),
            Note::Silence => Event::Silence,
        }))
    }

    fn on_news(&mut self, news: PeerNews) {
        *self.is_up.lock() |= matches!(news, PeerNews::Up { .. });
    }
}

/// Publishes for one node.
struct MemoryCourier {
    hub: Arc<Hub>,
    is_up: Arc<Mutex<bool>>,
}

impl Courier for MemoryCourier {
    fn is_open(&self) -> bool {
        *self.is_up.lock()
    }

    fn post(&self, posts: &[Post<'_>]) -> Result<Vec<Published>, NotSent> {
        Ok(posts.iter().map(|post| Published::to(self.hub.publish(post.topic, &post.payload))).collect())
    }
}

/// A node that records its events. Users are here as long as they are in the list.
#[derive(Default)]
struct Diary {
    here: Mutex<Vec<UserId>>,
    lines: Mutex<Vec<String>>,
}

impl Diary {
    fn write(&self, line: String) {
        self.lines.lock().push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock())
    }
}

impl Node for Diary {
    fn on_envelope(&self, _: &mut Turn<Posted>, to: UserId, frames: &str, _: &dyn Fn() -> Receipt) -> bool {
        self.write(format!("for {to}: {frames}"));
        self.here.lock().contains(&to)
    }

    fn on_returned(&self, _: &mut Turn<Posted>, to: UserId, frames: &str, _: &dyn Fn() -> Receipt) -> bool {
        self.write(format!("returned for {to}: {frames}"));
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

/// A node with its connection.
struct Station {
    name: &'static str,
    node: Arc<Diary>,
    tasks: Mutex<NodeTasks>,
    driver: PeerDriver,
    line: MemoryLine,
}

impl Station {
    fn open(hub: &Arc<Hub>, name: &'static str, number: usize, now: Instant) -> Station {
        let node = Arc::new(Diary::default());
        let driver = PeerDriver::new(name, PeerRules::default(), node.clone(), Turn::at(now));
        let line = MemoryLine::open(hub, number);
        let mut station = Station { name, node, tasks: Mutex::new(PeerTasks::new()), driver, line };
        station.driver.open(&mut station.line, &station.tasks, now);
        station
    }

    fn turn(&mut self, now: Instant) {
        self.driver.begin(now);
        self.driver.hear(&mut self.line, now).expect("it is there");
        self.driver.do_tasks(&mut self.line, &self.tasks, now);
        self.driver.tick(&mut self.line, now).expect("it hears itself");
    }

    fn arrive(&mut self, user: UserId) {
        self.node.here.lock().push(user);
        self.tasks.lock().subscribe(user, None).expect("it is connected");
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
        let courier = MemoryCourier { hub: self.line.hub.clone(), is_up: self.line.is_up.clone() };
        offer(&courier, self.name, &[envelope])[0]
    }
}

/// Lets all nodes receive everything that was published.
fn settle(stations: &mut [Station], now: Instant) {
    for _ in 0..6 {
        stations.iter_mut().for_each(|station| station.turn(now));
    }
}

#[test]
fn nodes_talk_through_any_transport() {
    let (hub, mut now, user) = (Arc::new(Hub::default()), Instant::now(), UserId(7));
    let mut stations = [("a", 1), ("b", 2), ("c", 3)].map(|(name, number)| Station::open(&hub, name, number, now));
    assert_eq!(stations[0].send(user, None, 1, "early"), Published::ToNobody, "it is not up yet");
    settle(&mut stations, now);
    assert_eq!(stations[0].send(user, None, 1, "{}"), Published::ToNobody);
    stations[1].arrive(user);
    settle(&mut stations, now);
    assert_eq!(stations[0].send(user, None, 2, "{}"), Published::Taken(1));
    now += Duration::from_millis(1);
    settle(&mut stations, now);
    assert_eq!(stations[1].node.take(), ["for 7: {}"]);
    assert_eq!(stations[0].node.take(), ["confirmed at b-1: [2]"]);
    // What a dead connection has returned is known as such, and confirmed like everything else.
    assert_eq!(stations[0].send_returned(user, 7, "{}"), Published::Taken(1));
    now += Duration::from_millis(1);
    settle(&mut stations, now);
    assert_eq!(stations[1].node.take(), ["returned for 7: {}"]);
    assert_eq!(stations[0].node.take(), ["confirmed at b-1: [7]"]);
    // To the one place, until the user logs in at another one as well.
    assert_eq!(stations[0].send(user, Some("b-1"), 3, "[]"), Published::Taken(1));
    stations[2].arrive(user);
    now += Duration::from_millis(1);
    settle(&mut stations, now);
    assert_eq!(stations[1].node.take(), ["for 7: []", "7 is elsewhere"]);
    stations[0].node.take();
    stations[0].send(user, Some("b-1"), 4, "[]");
    assert_eq!(stations[0].send(user, None, 5, "{}"), Published::Taken(2));
    now += Duration::from_millis(1);
    settle(&mut stations, now);
    assert_eq!(stations[1].node.take(), ["for 7: {}"]);
    let mut heard = stations[0].node.take();
    heard.sort();
    assert_eq!(heard, ["confirmed at c-1: [5]", "confirmed at several: [5]", "refused: 4 after 0"]);
    // The node itself refuses a user who has left, and then receives nothing more for them.
    stations[2].node.here.lock().clear();
    stations[2].tasks.lock().add(PeerTask::Unsubscribe(user));
    settle(&mut stations, now);
    assert_eq!(stations[2].node.take(), ["for 7: {}", "7 has left"]);
    stations[1].driver.hush(&mut stations[1].line, now);
    settle(&mut stations, now);
    assert_eq!(stations[0].send(user, None, 6, "{}"), Published::ToNobody, "nobody listens any more");
}
