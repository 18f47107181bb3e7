//! The router with real links on loops without threads, lanes that note what they are given, and a
//! bus that notes what it is told.

mod groups;
mod returned;

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::time::Duration;

use net::simulation::{ManualLoop, SimulatedSocket};
use net::{Flow, Handler, Incoming, Preface, Settings};
use parking_lot::Mutex;
use pool::{Lanes, ManualLane};

use super::*;
use crate::admission::berths::{Berth, Berths};
use crate::admission::{Payer, Source};
use crate::bus::{DeviceNews, Envelope, Exchange, Frames, Node, Published, Publisher, Receipt, Register, Unreachable};
use crate::config::RecordingScope;
use crate::delivery;
use crate::delivery::{ClientLink, Spread};
use crate::protocol::GroupId;
use crate::routing::audience::Audience;
use crate::routing::fan_out::{self, GroupFrame};
use crate::routing::groups::GroupCache;
use crate::routing::label::is_for;
use crate::routing::outbox::OutItem;
use crate::routing::watchers::Watchers;
use crate::session::{Outcome, Settled, members_at_once};
use crate::store::{Role, UserState};

mod losses;

/// A client's end of a connection: it takes what there is room for, and acknowledges what it is
/// told to.
#[derive(Debug, Default)]
struct Wire(Mutex<WireState>);

#[derive(Debug)]
struct WireState {
    written: Vec<u8>,
    room: usize,
    acknowledged: usize,
    acknowledges: bool,
}

impl Default for WireState {
    fn default() -> WireState {
        WireState { written: Vec::new(), room: usize::MAX, acknowledged: 0, acknowledges: true }
    }
}

impl SimulatedSocket for Wire {
    fn read(&self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn peek(&self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        let count = bytes.len().min(state.room);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.room -= count;
        state.written.extend(&bytes[..count]);
        if state.acknowledges {
            state.acknowledged = state.written.len();
        }
        Ok(count)
    }
    fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        Ok(())
    }
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 1).into())
    }
    fn receive_buffer_bytes(&self) -> usize {
        64 * 1024
    }
    fn unacknowledged(&self) -> usize {
        let state = self.0.lock();
        state.written.len() - state.acknowledged
    }
    fn register(&self, _: usize) {}
    fn deregister(&self) {}
}

/// Notes the links that open and what they are posted.
#[derive(Clone, Default)]
struct Notes {
    opened: Arc<Mutex<Vec<Arc<ClientLink>>>>,
    posted: Arc<Mutex<Vec<Posted>>>,
}

impl Handler for Notes {
    type Conn = ();
    type Arrival = ();
    type Message = Posted;

    fn on_arrival(&mut self, _: &mut Turn<Posted>, _: SocketAddr, _: Preface) -> Result<(), &'static [u8]> {
        Ok(())
    }
    fn on_introduced(&mut self, _: &mut Turn<Posted>, (): (), _: SocketAddr) -> Result<(), &'static [u8]> {
        Ok(())
    }
    fn on_open(&mut self, _: &mut Turn<Posted>, link: &Arc<ClientLink>, (): ()) {
        self.opened.lock().push(link.clone());
    }
    fn on_incoming(&mut self, _: &mut Turn<Posted>, _: &Arc<ClientLink>, (): &mut (), _: Incoming<'_>) -> Flow {
        Flow::Taken
    }
    fn on_message(&mut self, _: &mut Turn<Posted>, _: &Arc<ClientLink>, (): &mut (), message: Posted) {
        self.posted.lock().push(message);
    }
}

/// A bus that notes what it is told.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Publisher for Told {
    fn publish(&self, _: &[Envelope]) -> Vec<Published> {
        unreachable!("the router publishes nothing itself")
    }
}

impl Exchange for Told {
    fn is_alone(&self) -> bool {
        false
    }
    fn start(&self, _: Arc<dyn Node>) -> io::Result<()> {
        Ok(())
    }
    fn hush(&self) {}
    fn stop(&self, _: Instant) {}
    fn subscribe(&self, user: UserId, _: Option<&Arc<ClientLink>>) {
        self.0.lock().push(format!("subscribe {user}"));
    }
    fn unsubscribe(&self, user: UserId) {
        self.0.lock().push(format!("unsubscribe {user}"));
    }
    fn refuse(&self, receipt: Receipt, delivered: usize) {
        self.0.lock().push(format!("refuse {} after {delivered}", receipt.sequence));
    }
    fn tell_devices(&self, _: &[DeviceNews]) -> bool {
        true
    }
    fn own_name(&self) -> &str {
        "told"
    }
    fn group_changed(&self, _: GroupId) {}
}

impl Register for Told {
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
    fn elsewhere(&self, _: &[UserId]) -> Result<Vec<UserId>, Unreachable> {
        Ok(Vec::new())
    }
}

struct Scene {
    router: Router,
    bus: Arc<Told>,
    berths: Arc<Berths>,
    event_loop: ManualLoop<Notes>,
    notes: Notes,
    lane: Box<dyn ManualLane>,
    queued: Arc<Mutex<Vec<OutItem>>>,
    turn: Turn<Posted>,
    sender: Arc<ClientLink>,
}

/// One connection.
struct Client {
    link: Arc<ClientLink>,
    wire: Arc<Wire>,
}

impl Scene {
    fn new() -> Scene {
        Scene::with_room(1 << 20)
    }

    /// With this number of bytes of room in the lanes.
    fn with_room(lane_bytes_max: usize) -> Scene {
        let (bus, berths, now) = (Arc::new(Told::default()), Berths::new(lane_bytes_max), Instant::now());
        let watchers = Arc::new(Watchers::new(false));
        let states = StateWriter::new(Role::none(), bus.clone(), watchers.clone());
        let parts = RouterParts {
            bus: bus.clone(),
            berths: berths.clone(),
            groups: Arc::new(GroupCache::new(None)),
            states: Role::none(),
            audience: Arc::new(Audience::new(RecordingScope::OfLevel2)),
            blocks: Arc::default(),
            watchers,
            metrics: Arc::new(Metrics::new(1)),
            tracer: Arc::default(),
        };
        let queued = Arc::new(Mutex::new(Vec::new()));
        let all = queued.clone();
        let note = move |(): &mut (), batch: Vec<OutItem>| {
            all.lock().extend(batch);
            None
        };
        let (outbox, mut lanes) = Lanes::manual(1, 4096, |_, _| ((), None), note);
        let keep = |(): &mut (), _: Vec<LaneItem>| unreachable!("all goes by the other nodes first");
        let (keepers, _) = Lanes::manual(1, 4096, |_, _| ((), None), keep);
        let router = Router::new(parts, Ways::new(Some(Arc::new(outbox)), Arc::new(keepers)), states);
        let notes = Notes::default();
        let settings = Settings {
            frame_bytes_max: 1000,
            frame_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(1000),
            output_bytes_max: OUTPUT_MAX,
            drain_timeout: Duration::from_secs(10),
            pace: None,
        };
        let event_loop = ManualLoop::new(notes.clone(), settings, now).expect("descriptors");
        let sender = net::simulation::link_to_nowhere().expect("descriptors");
        let (lane, turn) = (lanes.pop().expect("one"), Turn::at(now));
        Scene { router, bus, berths, event_loop, notes, lane, queued, turn, sender }
    }

    fn connect(&mut self) -> Client {
        let wire = Arc::new(Wire::default());
        self.event_loop.assign(wire.clone(), (Ipv4Addr::LOCALHOST, 1).into(), Preface::None);
        self.event_loop.turn(self.turn.now(), &[]);
        Client { link: self.notes.opened.lock().pop().expect("it is open"), wire }
    }

    /// A connection on which the user has logged in.
    fn log_in(&mut self, user: UserId) -> Client {
        let client = self.connect();
        self.router.attendance().attach(&mut self.turn, user, &client.link);
        client
    }

    fn send(&mut self, to: UserId, text: &str) -> Routed {
        let provenance = Provenance { sender: &self.sender, id: FrameId::first_of(1), holder: holder(1) };
        let routed = self.router.deliver(&mut self.turn, to, text, provenance);
        self.turn.flush();
        routed
    }

    /// Sends a frame of this user to a group; it is the second one of the sender's connection.
    fn send_all(&mut self, frame: &GroupFrame<'_>, user: i32) -> Routed {
        let provenance = Provenance { sender: &self.sender, id: FrameId::first_of(1).next(), holder: holder(user) };
        fan_out::deliver_all(&self.router, &mut self.turn, frame, provenance)
    }

    /// The user leaves a connection, as when it closes.
    fn leave(&mut self, user: UserId, client: &Client) {
        client.link.hang_up();
        self.router.attendance().detach(&mut self.turn, user, &client.link);
        self.turn.flush();
    }

    fn group<'f>(members: &'f [UserId], except: i32, text: &'f str) -> GroupFrame<'f> {
        GroupFrame { group: GroupId(1), members, except: UserId(except), text }
    }

    /// The items that have come into the lanes since the last call.
    fn items(&mut self) -> Vec<LaneItem> {
        if self.lane.take(false) {
            self.lane.handle();
        }
        let item = |item| match item {
            OutItem::Lane(item) => item,
            OutItem::Confirmed(..) | OutItem::Refused(..) => unreachable!("no other node says anything"),
        };
        self.queued.lock().drain(..).map(item).collect()
    }

    /// The same in words. Answers are given.
    fn lane(&mut self) -> Vec<String> {
        let word = |item| match item {
            LaneItem::Delivery(Delivery { to, text, origin, .. }) => match origin {
                DeliveryOrigin::Returned(_, Comeback::InOrder) => format!("{text} for {to} returned"),
                DeliveryOrigin::Returned(_, Comeback::Late) => format!("{text} for {to} returned late"),
                DeliveryOrigin::Returned(_, Comeback::Elsewhere) => format!("{text} for {to} returned elsewhere"),
                DeliveryOrigin::Sender(..)
                | DeliveryOrigin::Group(_)
                | DeliveryOrigin::Recorded(_)
                | DeliveryOrigin::Spooled(..) => {
                    format!("{text} for {to}")
                }
            },
            LaneItem::Work(user, _) => format!("work for {user}"),
            LaneItem::Answer(user, answer) => {
                answer();
                format!("answer about {user}")
            }
        };
        self.items().into_iter().map(word).collect()
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.bus.0.lock())
    }

    /// The kernel is asked what these have acknowledged, and so much time passes that they count as
    /// gone.
    fn pass(&mut self, silent: &[&Client]) {
        silent.iter().for_each(|client| assert!(!client.link.doubt(&mut self.turn)));
        self.turn.begin(self.turn.now() + LONG);
    }
}

impl Client {
    /// Its socket takes nothing more.
    fn blocks(&self) {
        self.wire.0.lock().room = 0;
    }

    /// Its peer is gone without a word: what is written is not acknowledged.
    fn is_silent(&self) {
        self.wire.0.lock().acknowledges = false;
    }

    fn got(&self) -> String {
        String::from_utf8(self.wire.0.lock().written.clone()).expect("text")
    }
}

fn holder(user: i32) -> Holder {
    Holder { payer: Payer::Account(UserId(user)), source: Source::of([192, 0, 2, 1].into()) }
}

/// Connections take two frames that they cannot write.
const OUTPUT_MAX: usize = 4;
const USER: UserId = UserId(1);
/// Longer than a peer may owe an acknowledgement.
const LONG: Duration = Duration::from_secs(2);

#[test]
fn nobody_has_the_id_0() {
    let mut scene = Scene::new();
    assert_eq!(scene.send(UserId(0), "{a}"), Routed::DONE);
    assert_eq!(scene.router.parts.metrics.unknown_recipients_so_far(), 1);
    assert_eq!(scene.send(USER, "{a}"), Routed::OnItsWay);
    assert_eq!(scene.lane(), ["{a} for 1"]);
}

#[test]
fn a_logout_of_a_user_who_is_not_here_is_answered_at_once() {
    let mut scene = Scene::new();
    let waiter = scene.connect();
    let is_told = |scene: &mut Scene| {
        scene.event_loop.turn(scene.turn.now(), &[]);
        let posted = scene.notes.posted.lock().pop();
        matches!(posted, Some(Posted::Outcome(Outcome::Shown(USER, UserState::Offline))))
    };
    assert_eq!(scene.router.attendance().log_out(&mut scene.turn, USER, Some(&waiter.link)).len(), 0);
    assert!(is_told(&mut scene));
    scene.log_in(USER);
    assert_eq!(scene.router.attendance().log_out(&mut scene.turn, USER, Some(&waiter.link)).len(), 1);
    assert!(!is_told(&mut scene), "it is when it is written");
}

#[test]
fn a_user_who_comes_is_subscribed_once() {
    let mut scene = Scene::new();
    scene.log_in(USER);
    assert_eq!(scene.told(), ["subscribe 1"]);
    scene.log_in(USER);
    let third = scene.connect();
    scene.router.attendance().join(UserId(2), &third.link);
    assert_eq!(scene.router.on_rejoined().len(), 2, "the one who is about to come as well");
    scene.router.attendance().attach(&mut scene.turn, UserId(2), &third.link);
    assert_eq!(scene.told(), ["subscribe 2"]);
}

#[test]
fn a_user_who_has_come_again_meanwhile_stays_subscribed() {
    let mut scene = Scene::new();
    let client = scene.log_in(USER);
    client.blocks();
    scene.send(USER, "{a}");
    scene.leave(USER, &client);
    scene.log_in(USER);
    scene.told();
    assert_eq!(scene.lane(), ["{a} for 1 returned", "answer about 1"]);
    assert_eq!(scene.told(), [""; 0]);
}

#[test]
fn a_frame_has_the_id_that_its_sender_gave_it_wherever_it_goes() {
    let mut scene = Scene::new();
    let ids = |items: Vec<LaneItem>| -> Vec<FrameId> {
        let id = |item| if let LaneItem::Delivery(delivery) = item { Some(delivery.frame()) } else { None };
        items.into_iter().filter_map(id).collect()
    };
    let (first, second) = (FrameId::first_of(1), FrameId::first_of(1).next());
    scene.send(USER, "{a}");
    assert_eq!(ids(scene.items()), [first], "the user is offline");

    let (silent, next) = (scene.log_in(USER), scene.connect());
    silent.is_silent();
    scene.send(USER, "{a}");
    scene.send_all(&Scene::group(&[USER], 2, "{b}"), 2);
    scene.turn.flush();
    next.is_silent();
    scene.router.attendance().attach(&mut scene.turn, USER, &next.link);
    scene.leave(USER, &next);
    scene.leave(USER, &silent);
    assert_eq!(ids(scene.items()), [first, second], "they came back from both");

    let again = scene.log_in(USER);
    again.is_silent();
    scene.send(USER, "{a}");
    scene.turn.flush();
    scene.router.attendance().detach(&mut scene.turn, USER, &again.link);
    scene.router.attendance().attach(&mut scene.turn, USER, &again.link);
    scene.leave(USER, &again);
    assert_eq!(ids(scene.items()), [first], "its user has left in between");
}

#[test]
fn another_node_hears_how_much_of_its_envelope_was_delivered() {
    let mut scene = Scene::new();
    let receipt = || Receipt { node: "x".into(), sequence: 5 };
    assert!(!scene.router.on_envelope(&mut scene.turn, USER, Frames::of("{a}\n{b}"), &receipt));
    assert_eq!((scene.lane(), scene.told()), (vec!["answer about 1".to_owned()], vec!["refuse 5 after 0".to_owned()]));

    let client = scene.log_in(USER);
    client.blocks();
    scene.told();
    assert!(!scene.router.on_returned(&mut scene.turn, USER, Frames::of("{a}\n{b}\n{c}"), &receipt));
    assert_eq!(scene.told(), ["refuse 5 after 2"], "the connection takes no more");
    client.wire.0.lock().room = usize::MAX;
    assert!(client.link.take_back(|label| is_for(label, USER)).len() == 2);
}

#[test]
fn a_message_recorded_by_another_node_comes_back_as_recorded() {
    let mut scene = Scene::new();
    let receipt = || Receipt { node: "x".into(), sequence: 5 };
    let client = scene.log_in(USER);
    client.is_silent();
    for frames in [Frames::of("{a}").recorded(), Frames::of("{b}")] {
        assert!(scene.router.on_envelope(&mut scene.turn, USER, frames, &receipt));
    }
    scene.turn.flush();
    scene.leave(USER, &client);
    let id = |item| if let LaneItem::Delivery(delivery) = item { Some(delivery.frame()) } else { None };
    let ids: Vec<_> = scene.items().into_iter().filter_map(id).collect();
    assert_eq!(ids, [FrameId::RECORDED, FrameId::UNNAMED]);
}
