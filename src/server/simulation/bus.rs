//! [`SimBus`]: a node's path to the [`Wires`]. The protocol between nodes is the server's own
//! (`bus/peer`).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use net::Turn;
use parking_lot::{Mutex, MutexGuard};

use super::Mutation;
use super::wires::{Heard, Hearer, Order, Wires, owned};
use crate::base::clock::Clock;
use crate::base::loads::PoolUse;
use crate::bus::peer::{
    BusStage, BusTransport, Deaf, NotSent, Pauses, PeerDriver, PeerLine, PeerNews, PeerRules, PeerShared, Publication,
    Reached, Topic, TransportEvent,
};
use crate::bus::{BusHealth, Neighbours, Node, ReferenceNodes, Register, Unreachable};
use crate::delivery::Delivery;
use crate::protocol::UserId;

/// A node's connection.
struct SimLine<'w> {
    node: &'w str,
    wires: &'w Mutex<Wires>,
    state: &'w Mutex<SimState>,
    /// The event that was read last.
    heard: Option<Heard>,
    /// The number of events that may still be read in this turn.
    left: usize,
}

impl SimLine<'_> {
    fn order(&self, orders: impl Iterator<Item = Order>) {
        if let Some(hearer) = self.wires.lock().hearers.get_mut(self.node) {
            hearer.orders.extend(orders);
        }
    }
}

impl PeerLine for SimLine<'_> {
    type Broken = SimBroken;

    fn listen(&mut self, topics: &[Topic<&str>]) {
        self.order(topics.iter().map(|topic| Order::Listen(owned(*topic))));
    }

    fn ignore(&mut self, users: &[UserId]) {
        self.order(users.iter().copied().map(Order::Ignore));
    }

    fn ignore_all(&mut self) {
        self.order([Order::IgnoreAll, Order::Ping].into_iter());
    }

    fn say(&mut self, topic: Topic<&str>, payload: &[u8]) {
        if let Some(hearer) = self.wires.lock().hearers.get_mut(self.node).filter(|hearer| !hearer.is_cut_off) {
            hearer.said.push_back((owned(topic), payload.to_vec()));
        }
    }

    fn next_event(&mut self) -> Result<Option<TransportEvent<'_>>, Self::Broken> {
        let mut wires = self.wires.lock();
        let hearer = wires.hearers.get_mut(self.node).ok_or(SimBroken)?;
        self.heard = if self.left > 0 { hearer.heard.pop_front() } else { None };
        self.left = self.left.saturating_sub(1);
        Ok(self.heard.as_ref().map(|heard| match heard {
            Heard::Said(topic, payload) => TransportEvent::Said(topic.as_ref(), payload),
            Heard::Listening(topic) => TransportEvent::Listening(topic.as_ref()),
            Heard::Ignoring(user) => TransportEvent::Ignoring(*user),
            Heard::Pong => TransportEvent::Silence,
        }))
    }

    fn take_doubt(&mut self) -> Option<SimBroken> {
        std::mem::take(&mut self.state.lock().is_doubted).then_some(SimBroken)
    }

    fn on_news(&mut self, _: PeerNews) {}
}

/// The connection must be given up.
#[derive(Debug)]
struct SimBroken;

impl From<Deaf> for SimBroken {
    fn from(Deaf: Deaf) -> SimBroken {
        SimBroken
    }
}

/// A node's way to Redis.
pub(super) struct SimBus {
    peer: Arc<PeerShared>,
    wires: Arc<Mutex<Wires>>,
    clock: Clock,
    rules: PeerRules,
    state: Mutex<SimState>,
    driver: Mutex<Option<PeerDriver>>,
}

/// The state of a node's connection.
struct SimState {
    is_connected: bool,
    /// Whether the node no longer trusts its connection.
    is_doubted: bool,
    /// Whether nothing that it publishes leaves it.
    is_mute: bool,
    /// The time of its next attempt to connect.
    connect_at: Instant,
    pauses: Pauses,
}

impl SimBus {
    pub(super) fn new(name: &str, wires: Arc<Mutex<Wires>>, clock: Clock) -> SimBus {
        let (is_connected, is_doubted, connect_at) = (false, false, clock.now());
        let state = SimState { is_connected, is_doubted, is_mute: false, connect_at, pauses: Pauses::default() };
        let mut rules = PeerRules::default();
        if wires.lock().mutation == Some(Mutation::ForgetsElsewhere) {
            rules.elsewhere_for = Duration::ZERO;
        }
        // The world polls for work.
        let peer = Arc::new(PeerShared::new(name, || {}));
        SimBus { peer, wires, clock, rules, state: Mutex::new(state), driver: Mutex::default() }
    }

    pub(super) fn name(&self) -> &str {
        self.peer.node()
    }

    pub(super) fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock()
    }

    /// The time of its next work if nothing happens. A due probe does not count; otherwise the
    /// world would never rest.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let mut driver = self.driver.lock();
        let driver = driver.as_mut()?;
        let state = self.state.lock();
        let connect_at = (!state.is_connected && self.may_connect()).then_some(state.connect_at);
        let probe = driver.next_probe().filter(|(_, is_under_way)| *is_under_way).map(|(due, _)| due);
        let dues = [driver.next_due(), probe, connect_at];
        // Overdue work is done once there is a connection, or is not needed any more.
        dues.into_iter().flatten().filter(|due| *due > self.clock.now()).min()
    }

    /// Whether a turn would do something now.
    pub(super) fn has_work(&self) -> bool {
        let now = self.clock.now();
        let mut driver = self.driver.lock();
        let Some(driver) = driver.as_mut() else { return false };
        let (state, wires) = (self.state.lock(), self.wires.lock());
        let has_tasks = self.peer.has_tasks();
        let must_hush = self.peer.stage() == BusStage::Hushing;
        if !state.is_connected {
            let connects = state.connect_at <= now && self.may_connect();
            return has_tasks || must_hush || connects || driver.next_errand().is_some_and(|due| due <= now);
        }
        let is_due = driver.next_due().is_some_and(|due| due <= now);
        let is_probe_due = driver.next_probe().is_some_and(|(due, _)| due <= now);
        !wires.hearers.contains_key(self.name())
            || wires.has_heard(self.name())
            || (has_tasks || is_due || is_probe_due || state.is_doubted || (must_hush && !driver.is_hushing()))
    }

    /// One turn of the thread that owns the connections.
    pub(super) fn turn(&self) {
        let mut driver = self.driver.lock();
        let Some(driver) = driver.as_mut() else { return };
        let mut line =
            SimLine { node: self.name(), wires: &self.wires, state: &self.state, heard: None, left: HEARD_AT_ONCE };
        if self.state.lock().is_connected {
            if driver.turn(&mut line, &self.clock).is_err() {
                self.let_go(driver);
            }
            return;
        }
        let now = self.clock.now();
        driver.rest(now);
        if self.connects(now) {
            driver.open(&mut line, now);
        }
    }

    fn may_connect(&self) -> bool {
        self.peer.stage() == BusStage::Running
    }

    /// Connects, if it is time.
    fn connects(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        if state.connect_at > now || !self.may_connect() {
            return false;
        }
        let mut wires = self.wires.lock();
        if wires.is_up {
            wires.hearers.insert(self.name().to_owned(), Hearer::default());
            state.is_connected = true;
        } else {
            state.connect_at = now + state.pauses.next(wires.dice.fraction());
        }
        state.is_connected
    }

    /// Gives up the connection.
    fn let_go(&self, driver: &mut PeerDriver) {
        let (mut state, mut wires) = (self.state.lock(), self.wires.lock());
        wires.leave(self.name());
        if driver.was_up() {
            state.pauses = Pauses::default();
        }
        (state.is_connected, state.is_doubted) = (false, false);
        state.connect_at = self.clock.now() + state.pauses.next(wires.dice.fraction());
        drop((state, wires));
        driver.close();
    }

    /// Begins to stop receiving. [`SimBus::is_hushed`] tells when it is done.
    pub(super) fn begin_to_hush(&self) {
        self.peer.advance(BusStage::Hushing);
    }

    pub(super) fn is_hushed(&self) -> bool {
        self.peer.stage() >= BusStage::Hushed
    }

    /// Whether everything has been published.
    pub(super) fn is_silent(&self) -> bool {
        !self.peer.has_tasks() && !self.wires.lock().has_work(self.name())
    }

    /// Loses everything published from now on: the node dies.
    pub(super) fn say_no_more(&self) {
        self.state.lock().is_mute = true;
    }

    /// Stops trusting the connections.
    pub(super) fn doubt(&self) {
        let mut state = self.state.lock();
        if state.is_connected {
            state.is_doubted = true;
            self.peer.on_doubt();
        }
    }

    /// Notes that the node has died. `silently`: Redis does not notice.
    pub(super) fn end(&self, silently: bool) {
        *self.driver.lock() = None;
        let mut wires = self.wires.lock();
        if silently { wires.cut_off(self.name()) } else { wires.forget(self.name()) }
    }
}

impl BusTransport for SimBus {
    fn peer(&self) -> &Arc<PeerShared> {
        &self.peer
    }

    /// The world gives it its turns.
    fn drive(&self, node: Arc<dyn Node>) -> io::Result<()> {
        let turn = Turn::at(self.clock.now());
        *self.driver.lock() = Some(PeerDriver::new(self.peer.clone(), self.rules, node, turn));
        Ok(())
    }

    fn post(&self, posts: &[Publication<'_>]) -> Result<Vec<Reached>, NotSent> {
        if self.state.lock().is_mute {
            return Err(NotSent);
        }
        let mut wires = self.wires.lock();
        let is_connected = wires.is_up && wires.hearers.contains_key(self.name());
        let once_in = wires.fails_once_in;
        if !is_connected || (once_in > 0 && wires.dice.one_in(once_in)) {
            wires.faults += 1;
            // It may fail before anything is sent, or in the middle: then some envelopes have
            // arrived, and the node does not know which.
            let is_sent = is_connected || wires.dice.one_in(2);
            let through = if is_connected { wires.dice.range(0..posts.len() + 1) } else { 0 };
            for Publication { topic, payload, .. } in &posts[..through] {
                wires.publish(self.name(), &owned(*topic), payload);
            }
            drop(wires);
            self.peer.on_failure();
            return if is_sent { Ok(vec![Reached::Unknown; posts.len()]) } else { Err(NotSent) };
        }
        let publish = |Publication { topic, payload, .. }: &Publication<'_>| {
            wires.step_between();
            Reached::Nodes(wires.publish(self.name(), &owned(*topic), payload))
        };
        Ok(posts.iter().map(publish).collect())
    }
}

/// States are not written in a simulation.
impl Register for SimBus {
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

impl ReferenceNodes for SimBus {
    fn has_neighbours(&self) -> bool {
        false
    }

    fn publish_to_neighbours(&self, untaken: Vec<Delivery>, _: &dyn Fn(&[UserId]) -> Vec<UserId>) -> Neighbours {
        Neighbours { taken: Vec::new(), untaken }
    }
}

impl BusHealth for SimBus {
    fn describe(&self) -> String {
        "a simulation".into()
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

/// The number of events that are read in one turn.
const HEARD_AT_ONCE: usize = 8;
