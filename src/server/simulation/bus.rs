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
use crate::bus::peer::driver::{self, NodeTasks};
use crate::bus::peer::{
    Courier, Event, Line, NotSent, PeerDriver, PeerNews, PeerRules, PeerTask, PeerTasks, Post, Topic, announce_group,
    offer,
};
use crate::bus::{BusHealth, Envelope, Exchange, Neighbours, Node, Published, Publisher, Receipt, ReferenceNodes};
use crate::bus::{Register, Unreachable};
use crate::delivery::{ClientLink, Delivery};
use crate::protocol::{GroupId, UserId};

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

impl Line for SimLine<'_> {
    type Broken = std::convert::Infallible;

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

    fn next_event(&mut self) -> Result<Option<Event<'_>>, Self::Broken> {
        let mut wires = self.wires.lock();
        let hearer = wires.hearers.get_mut(self.node).filter(|_| self.left > 0);
        self.heard = hearer.and_then(|hearer| hearer.heard.pop_front());
        self.left = self.left.saturating_sub(1);
        Ok(self.heard.as_ref().map(|heard| match heard {
            Heard::Said(topic, payload) => Event::Said(topic.as_ref(), payload),
            Heard::Listening(topic) => Event::Listening(topic.as_ref()),
            Heard::Ignoring(user) => Event::Ignoring(*user),
            Heard::Pong => Event::Silence,
        }))
    }

    fn on_news(&mut self, news: PeerNews) {
        let mut state = self.state.lock();
        match news {
            PeerNews::Heard => {}
            PeerNews::Up { .. } | PeerNews::Resumed => state.is_up = true,
            PeerNews::Hushed => state.is_hushed = true,
        }
    }
}

/// A node's way to Redis.
pub(super) struct SimBus {
    name: String,
    wires: Arc<Mutex<Wires>>,
    clock: Clock,
    rules: PeerRules,
    tasks: Mutex<NodeTasks>,
    state: Mutex<SimState>,
    driver: Mutex<Option<PeerDriver>>,
}

/// The state of a node's connection.
struct SimState {
    is_connected: bool,
    /// Whether published messages arrive, as far as the node knows.
    is_up: bool,
    /// Whether the node no longer trusts its connection.
    is_doubted: bool,
    /// When it reconnects.
    connect_at: Instant,
    hushes: bool,
    has_begun_to_hush: bool,
    is_hushed: bool,
}

impl SimBus {
    pub(super) fn new(name: String, wires: Arc<Mutex<Wires>>, clock: Clock) -> SimBus {
        let state = SimState {
            is_connected: false,
            is_up: false,
            is_doubted: false,
            connect_at: clock.now(),
            hushes: false,
            has_begun_to_hush: false,
            is_hushed: false,
        };
        let mut rules = PeerRules::default();
        if wires.lock().mutation == Some(Mutation::ForgetsElsewhere) {
            rules.elsewhere_for = Duration::ZERO;
        }
        let (tasks, state) = (Mutex::new(PeerTasks::new()), Mutex::new(state));
        SimBus { name, wires, clock, rules, tasks, state, driver: Mutex::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock()
    }

    /// When it has work if nothing happens. A due probe does not count; otherwise the world would
    /// never rest.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let mut driver = self.driver.lock();
        let driver = driver.as_mut()?;
        let state = self.state.lock();
        let connect_at = (!state.is_connected && !state.hushes).then_some(state.connect_at);
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
        let has_tasks = !self.tasks.lock().is_empty();
        if !state.is_connected {
            let connects = wires.is_up && state.connect_at <= now && !state.hushes;
            return has_tasks || connects || driver.next_errand().is_some_and(|due| due <= now);
        }
        let is_due = driver.next_due().is_some_and(|due| due <= now);
        let is_probe_due = driver.next_probe().is_some_and(|(due, _)| due <= now);
        let must_hush = state.hushes && !state.has_begun_to_hush;
        !wires.hearers.contains_key(&self.name)
            || wires.has_heard(&self.name)
            || (has_tasks || is_due || is_probe_due || must_hush || state.is_doubted)
    }

    /// One turn of the thread that owns the connections.
    pub(super) fn turn(&self) {
        let mut driver = self.driver.lock();
        let Some(driver) = driver.as_mut() else { return };
        let now = self.clock.now();
        driver.begin(now);
        let mut line =
            SimLine { node: &self.name, wires: &self.wires, state: &self.state, heard: None, left: HEARD_AT_ONCE };
        if !self.state.lock().is_connected {
            driver.close(&self.tasks);
            if self.connects(now) {
                driver.open(&mut line, &self.tasks, now);
            }
            return;
        }
        let is_broken = !self.wires.lock().hearers.contains_key(&self.name);
        if is_broken || self.go_on(driver, &mut line, now).is_none() {
            self.let_go(driver, now);
        }
    }

    fn connects(&self, now: Instant) -> bool {
        let (mut state, mut wires) = (self.state.lock(), self.wires.lock());
        state.is_connected = !state.hushes && state.connect_at <= now && wires.is_up;
        if state.is_connected {
            wires.hearers.insert(self.name.clone(), Hearer::default());
        }
        state.is_connected
    }

    /// `None` if the connection must be given up.
    fn go_on(&self, driver: &mut PeerDriver, line: &mut SimLine<'_>, now: Instant) -> Option<()> {
        let Ok(()) = driver.hear(line, now);
        driver.do_tasks(line, &self.tasks, now);
        if std::mem::take(&mut self.state.lock().is_doubted) {
            driver.confirm(line, now);
            return None;
        }
        driver.tick(line, now).ok()?;
        let mut state = self.state.lock();
        if state.hushes && !std::mem::replace(&mut state.has_begun_to_hush, true) {
            drop(state);
            driver.hush(line, now);
        }
        Some(())
    }

    /// Gives up the connections.
    fn let_go(&self, driver: &mut PeerDriver, now: Instant) {
        self.wires.lock().leave(&self.name);
        let mut state = self.state.lock();
        (state.is_connected, state.is_up, state.is_doubted) = (false, false, false);
        state.connect_at = now + PAUSE;
        state.is_hushed |= state.hushes;
        drop(state);
        driver.close(&self.tasks);
    }

    /// Begins to stop receiving. [`SimBus::is_hushed`] tells when it is done.
    pub(super) fn begin_to_hush(&self) {
        let mut state = self.state.lock();
        state.hushes = true;
        state.is_hushed |= !state.is_connected;
    }

    pub(super) fn is_hushed(&self) -> bool {
        self.state.lock().is_hushed
    }

    /// Whether everything has been published.
    pub(super) fn is_silent(&self) -> bool {
        self.tasks.lock().is_empty() && !self.wires.lock().has_work(&self.name)
    }

    /// Stops trusting the connections.
    pub(super) fn doubt(&self) {
        let mut state = self.state.lock();
        if state.is_connected {
            (state.is_up, state.is_doubted) = (false, true);
        }
    }

    /// The node has died. `silently`: Redis does not notice.
    pub(super) fn end(&self, silently: bool) {
        *self.driver.lock() = None;
        let mut wires = self.wires.lock();
        if silently { wires.cut_off(&self.name) } else { wires.forget(&self.name) }
    }
}

impl Courier for SimBus {
    fn is_open(&self) -> bool {
        self.state.lock().is_up
    }

    fn post(&self, posts: &[Post<'_>]) -> Result<Vec<Published>, NotSent> {
        let mut wires = self.wires.lock();
        let is_connected = wires.is_up && wires.hearers.contains_key(&self.name);
        let once_in = wires.fails_once_in;
        if !is_connected || (once_in > 0 && wires.dice.one_in(once_in)) {
            // It fails in the middle: some envelopes have arrived, and the node does not know
            // which.
            wires.faults += 1;
            let through = if is_connected { wires.dice.range(0..posts.len() + 1) } else { 0 };
            for Post { topic, payload, .. } in &posts[..through] {
                wires.publish(&self.name, &owned(*topic), payload);
            }
            drop(wires);
            self.state.lock().is_up = false;
            self.tasks.lock().add(PeerTask::Probe);
            return Ok(vec![Published::InDoubt; posts.len()]);
        }
        let publish = |Post { topic, payload, .. }: &Post<'_>| {
            wires.step_between();
            Published::to(wires.publish(&self.name, &owned(*topic), payload))
        };
        Ok(posts.iter().map(publish).collect())
    }
}

impl Publisher for SimBus {
    fn publish(&self, envelopes: &[Envelope]) -> Vec<Published> {
        offer(self, &self.name, envelopes)
    }
}

impl Exchange for SimBus {
    fn is_alone(&self) -> bool {
        false
    }

    fn start(&self, node: Arc<dyn Node>) -> io::Result<()> {
        let turn = Turn::at(self.clock.now());
        *self.driver.lock() = Some(PeerDriver::new(&self.name, self.rules, node, turn));
        Ok(())
    }

    /// See [`SimBus::begin_to_hush`].
    fn hush(&self) {}

    /// See [`SimBus::end`].
    fn stop(&self, _: Instant) {}

    fn subscribe(&self, user: UserId, waiter: Option<&Arc<ClientLink>>) {
        driver::subscribe(&self.tasks, user, waiter);
    }

    fn unsubscribe(&self, user: UserId) {
        self.tasks.lock().add(PeerTask::Unsubscribe(user));
    }

    fn refuse(&self, receipt: Receipt, delivered: usize) {
        self.tasks.lock().add(PeerTask::Refuse(receipt, delivered));
    }

    fn group_changed(&self, group: GroupId) {
        announce_group(self, group);
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
        self.is_open()
    }

    fn probe_age(&self) -> Option<Duration> {
        None
    }

    fn connections(&self) -> Option<PoolUse> {
        None
    }
}

/// The pause before it reconnects.
const PAUSE: Duration = Duration::from_millis(100);
const HEARD_AT_ONCE: usize = 8;
