//! [`Wires`]: a Redis between simulated nodes, and [`SimBus`], a node's way to it.
//!
//! As in the real one, a node has a connection that hears, one that says, and others that publish and wait for the answer.
//! What goes through one of them keeps its order; between them nothing does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use net::Turn;
use parking_lot::{Mutex, MutexGuard};

use super::Mutation;
use super::dice::Dice;
use crate::bus::waiting::Waiting;
use crate::bus::{Bus, Envelope, Node, Place, Published, Receipt, Unreachable};
use crate::clock::Clock;
use crate::delivery::{ClientLink, Posted};
use crate::outbox::PLACE_LEASE;
use crate::protocol::{GroupId, UserId};
use crate::session::Outcome;

/// What Redis holds: who hears what, and what is on its way.
pub(super) struct Wires {
    pub(super) is_up: bool,
    /// Publishing fails in the middle once in so many times; never if 0.
    pub(super) fails_once_in: usize,
    pub(super) faults: usize,
    hearers: BTreeMap<String, Hearer>,
    /// How many connections there have been: each makes a node another place.
    sessions: u64,
    /// How many connections Redis has held for longer than their nodes.
    left: u64,
    dice: Dice,
    mutation: Option<Mutation>,
}

/// A node, as Redis knows it.
#[derive(Default)]
struct Hearer {
    place: Option<Place>,
    wanted: BTreeSet<UserId>,
    /// From the node: on the connection that hears, and on the one that says.
    commands: VecDeque<Command>,
    said: VecDeque<(Whom, Heard)>,
    /// To the node.
    heard: VecDeque<Heard>,
    /// Nothing reaches the node any more, and Redis does not know it.
    is_cut_off: bool,
}

/// Whose channel something is said on.
enum Whom {
    Node(String),
    WhoHas(UserId),
}

enum Command {
    Subscribe(UserId),
    Unsubscribe(UserId),
    UnsubscribeAll,
    Ping,
}

#[derive(Clone)]
enum Heard {
    Envelope {
        to: UserId,
        sender: String,
        sequence: u64,
        frames: String,
    },
    /// The same, returned by a dead connection.
    Returned {
        to: UserId,
        sender: String,
        sequence: u64,
        frames: String,
    },
    /// The same for a user who is nowhere else.
    Addressed {
        to: UserId,
        sender: String,
        sequence: u64,
        frames: String,
    },
    Hello(UserId, Place),
    Confirmed(Option<Place>, Vec<u64>),
    Refused(u64, usize),
    GroupChanged(GroupId),
    Subscribed(UserId),
    Unsubscribed(UserId),
    Pong,
}

impl Wires {
    pub(super) fn new(seed: u64, mutation: Option<Mutation>) -> Wires {
        let dice = Dice::new(seed ^ 0xb05);
        Wires {
            is_up: true,
            fails_once_in: 0,
            faults: 0,
            hearers: BTreeMap::new(),
            sessions: 0,
            left: 0,
            dice,
            mutation,
        }
    }

    /// Redis ends: everything that is on its way is gone.
    pub(super) fn end(&mut self) {
        self.is_up = false;
        self.hearers.clear();
        self.faults += 1;
    }

    /// Nothing reaches this node any more, but Redis goes on sending to it.
    pub(super) fn cut_off(&mut self, node: &str) {
        if let Some(hearer) = self.hearers.get_mut(node) {
            (hearer.is_cut_off, hearer.heard) = (true, VecDeque::new());
            self.faults += 1;
        }
    }

    /// A node gives its connection up, and Redis may notice that late: what goes there is taken, and comes nowhere.
    fn leave(&mut self, node: &str) {
        let Some(Hearer { place, wanted, .. }) = self.hearers.remove(node) else { return };
        if self.dice.one_in(2) {
            self.left += 1;
            let hearer = Hearer { place, wanted, is_cut_off: true, ..Hearer::default() };
            self.hearers.insert(format!("{node}, left as number {}", self.left), hearer);
        }
    }

    /// Redis notices that a node is gone.
    pub(super) fn forget(&mut self, node: &str) {
        self.hearers.remove(node);
    }

    pub(super) fn forget_cut_off(&mut self) {
        self.hearers.retain(|_, hearer| !hearer.is_cut_off);
    }

    /// Whether something is on its way from this node.
    pub(super) fn has_work(&self, node: &str) -> bool {
        self.hearers.get(node).is_some_and(|hearer| !hearer.commands.is_empty() || !hearer.said.is_empty())
    }

    fn has_heard(&self, node: &str) -> bool {
        self.hearers.get(node).is_some_and(|hearer| !hearer.heard.is_empty())
    }

    /// Redis does one thing for this node.
    pub(super) fn step(&mut self, node: &str) {
        let Some(hearer) = self.hearers.get_mut(node) else { return };
        let says = !hearer.said.is_empty() && (hearer.commands.is_empty() || self.dice.one_in(2));
        if says {
            let (whom, heard) = hearer.said.pop_front().expect("it is there");
            match whom {
                Whom::Node(node) => self.send(&node, heard),
                Whom::WhoHas(user) => self.who_wants(user).iter().for_each(|node| self.send(node, heard.clone())),
            }
            return;
        }
        let Some(command) = hearer.commands.pop_front() else { return };
        let answers = match command {
            Command::Subscribe(user) => {
                hearer.wanted.insert(user);
                vec![Heard::Subscribed(user)]
            }
            Command::Unsubscribe(user) => {
                hearer.wanted.remove(&user);
                vec![Heard::Unsubscribed(user)]
            }
            Command::UnsubscribeAll => {
                std::mem::take(&mut hearer.wanted).into_iter().map(Heard::Unsubscribed).collect()
            }
            Command::Ping => vec![Heard::Pong],
        };
        answers.into_iter().for_each(|answer| self.send(node, answer));
    }

    /// What other nodes say and ask for comes between the commands of a pipeline.
    fn step_between(&mut self) {
        let nodes: Vec<_> = self.hearers.keys().cloned().collect();
        if !nodes.is_empty() && self.dice.one_in(2) {
            let node = self.dice.pick(&nodes).clone();
            self.step(&node);
        }
    }

    fn send(&mut self, node: &str, heard: Heard) {
        let Some(hearer) = self.hearers.get_mut(node).filter(|hearer| !hearer.is_cut_off) else { return };
        hearer.heard.push_back(heard);
        let len = hearer.heard.len();
        if self.mutation == Some(Mutation::BusReorders) && len > 1 && self.dice.one_in(2) {
            hearer.heard.swap(len - 1, len - 2);
        }
    }

    /// Returns how many nodes hear it.
    fn publish(&mut self, sender: &str, envelope: &Envelope) -> u32 {
        let frames: Vec<&str> = envelope.deliveries.iter().map(|delivery| &*delivery.text).collect();
        let mut to = envelope.to;
        let nodes = match &envelope.place {
            None => self.who_wants(to),
            place => {
                let there = self.hearers.iter().find(|(_, hearer)| hearer.place == *place);
                there.map(|(node, _)| node.clone()).into_iter().collect()
            }
        };
        if self.mutation == Some(Mutation::BusMisdelivers) && self.dice.one_in(4) {
            let others = nodes.iter().filter_map(|node| self.hearers[node].wanted.iter().find(|user| **user != to));
            to = others.copied().next().unwrap_or(to);
        }
        for node in &nodes {
            let (sender, sequence, frames) = (sender.to_owned(), envelope.sequence, frames.join("\n"));
            let heard = match envelope.place {
                None if envelope.is_returned => Heard::Returned { to, sender, sequence, frames },
                None => Heard::Envelope { to, sender, sequence, frames },
                Some(_) => Heard::Addressed { to, sender, sequence, frames },
            };
            self.send(node, heard);
        }
        nodes.len() as u32
    }

    fn who_wants(&self, user: UserId) -> Vec<String> {
        let who = self.hearers.iter().filter(|(_, hearer)| hearer.wanted.contains(&user));
        who.map(|(node, _)| node.clone()).collect()
    }
}

/// A node's way to Redis.
pub(super) struct SimBus {
    name: String,
    wires: Arc<Mutex<Wires>>,
    clock: Clock,
    state: Mutex<State>,
    node: Mutex<Option<Arc<dyn Node>>>,
    turn: Mutex<Turn<Posted>>,
}

struct State {
    /// The node knows a connection, and keeps its subscriptions.
    connected: bool,
    up: bool,
    tasks: Vec<Task>,
    waiting: Waiting<Arc<ClientLink>>,
    leaving: BTreeSet<UserId>,
    /// Users who have come to another place, or left this one, and when.
    elsewhere: BTreeMap<UserId, Instant>,
    /// Answers to come until all users are subscribed to.
    initial: usize,
    /// When the connection is tried again, or is found to be deaf.
    connect_at: Instant,
    deaf_at: Option<Instant>,
    hushing: bool,
    hushed: bool,
}

/// Envelopes to confirm, by the node that sent them and by whether their users are here alone.
type Receipts = BTreeMap<(String, bool), Vec<u64>>;

enum Task {
    Subscribe(UserId, Option<Arc<ClientLink>>),
    Unsubscribe(UserId),
    Refuse(Receipt, usize),
    Check,
}

impl SimBus {
    pub(super) fn new(name: String, wires: Arc<Mutex<Wires>>, clock: Clock) -> SimBus {
        let now = clock.now();
        let state = State {
            connected: false,
            up: false,
            tasks: Vec::new(),
            waiting: Waiting::new(),
            leaving: BTreeSet::new(),
            elsewhere: BTreeMap::new(),
            initial: 0,
            connect_at: now,
            deaf_at: None,
            hushing: false,
            hushed: false,
        };
        let turn = Mutex::new(Turn::at(now));
        SimBus { name, wires, clock, state: Mutex::new(state), node: Mutex::default(), turn }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock()
    }

    /// When it has something to do if nothing happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        let connect_at = (!state.connected && !state.hushing).then_some(state.connect_at);
        let dues = [state.waiting.next_due(), state.deaf_at, connect_at, self.turn.lock().next_errand()];
        // What is overdue is done as soon as there is a connection, or is nobody's any more.
        dues.into_iter().flatten().filter(|due| *due > self.clock.now()).min()
    }

    /// Whether a turn would do something now.
    pub(super) fn has_work(&self) -> bool {
        let now = self.clock.now();
        let (mut state, wires) = (self.state.lock(), self.wires.lock());
        let hears = wires.hearers.get(&self.name);
        let errand = self.turn.lock().next_errand().is_some_and(|due| due <= now);
        match state.connected {
            true => {
                hears.is_none()
                    || wires.has_heard(&self.name)
                    || !state.tasks.is_empty()
                    || (state.initial == 0 && !state.up)
                    || errand
                    || state.waiting.next_due().is_some_and(|by| by <= now)
                    || state.deaf_at.is_some_and(|at| at <= now)
                    || (state.deaf_at.is_none() && hears.is_some_and(|hearer| hearer.is_cut_off))
            }
            false => errand || !state.tasks.is_empty() || (wires.is_up && state.connect_at <= now && !state.hushing),
        }
    }

    /// One turn of the thread that has the connections.
    pub(super) fn turn(&self) {
        let Some(node) = self.node.lock().clone() else { return };
        let now = self.clock.now();
        self.turn.lock().begin(now);
        self.turn.lock().run_errands();
        if !self.state.lock().connected {
            self.connect(&*node, now);
            return;
        }
        if self.is_lost(now) {
            self.let_go(&*node, now);
            return;
        }
        let receipts = self.hear(&*node);
        if self.do_tasks() {
            self.let_go(&*node, now);
            return;
        }
        for ((sender, is_resident), sequences) in receipts {
            let place = self.place().filter(|_| is_resident);
            self.say(Whom::Node(sender), Heard::Confirmed(place, sequences));
        }
        self.look_at_clock(&*node, now);
    }

    fn is_lost(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        match self.wires.lock().hearers.get(&self.name) {
            None => true,
            Some(hearer) if hearer.is_cut_off => *state.deaf_at.get_or_insert(now + PROBED_WITHIN) <= now,
            Some(_) => false,
        }
    }

    fn connect(&self, node: &dyn Node, now: Instant) {
        let mut state = self.state.lock();
        let old = std::mem::take(&mut state.tasks);
        let connects = !state.hushing && state.connect_at <= now && self.wires.lock().is_up;
        state.connected = connects;
        drop(state);
        self.drop_tasks(node, old);
        if !connects {
            return;
        }
        let users = node.on_rejoined();
        let mut wires = self.wires.lock();
        wires.sessions += 1;
        let place = Some(format!("{}-{}", self.name, wires.sessions).into());
        let commands = users.iter().copied().map(Command::Subscribe).collect();
        wires.hearers.insert(self.name.clone(), Hearer { place, commands, ..Hearer::default() });
        drop(wires);
        let mut state = self.state.lock();
        state.initial = users.len();
        state.elsewhere.clear();
    }

    /// Hands on what has come, and returns what is to be confirmed to whom.
    fn hear(&self, node: &dyn Node) -> Receipts {
        let mut turn = self.turn.lock();
        let (mut receipts, mut confirmed) = (Receipts::new(), Vec::new());
        for _ in 0..HEARD_AT_ONCE {
            let heard = self.wires.lock().hearers.get_mut(&self.name).and_then(|hearer| hearer.heard.pop_front());
            let Some(heard) = heard else { break };
            match heard {
                Heard::Envelope { sender, sequence, .. } | Heard::Returned { sender, sequence, .. }
                    if sender == self.name =>
                {
                    node.on_refused(sequence, 0);
                }
                Heard::Returned { to, sender, sequence, frames } => {
                    let receipt = || Receipt { node: sender.as_str().into(), sequence };
                    if node.on_returned(&mut turn, to, &frames, &receipt) {
                        receipts.entry((sender, !self.is_elsewhere(to))).or_default().push(sequence);
                    }
                }
                Heard::Envelope { to, sender, sequence, frames } => {
                    let receipt = || Receipt { node: sender.as_str().into(), sequence };
                    if node.on_envelope(&mut turn, to, &frames, &receipt) {
                        receipts.entry((sender, !self.is_elsewhere(to))).or_default().push(sequence);
                    }
                }
                Heard::Addressed { to, sender, sequence, frames } => {
                    let receipt = Receipt { node: sender.as_str().into(), sequence };
                    if self.is_elsewhere(to) {
                        self.add(Task::Refuse(receipt, 0));
                    } else if node.on_envelope(&mut turn, to, &frames, &|| receipt.clone()) {
                        receipts.entry((sender, !self.is_elsewhere(to))).or_default().push(sequence);
                    }
                }
                Heard::Hello(user, place) => {
                    let is_own = self.place() == Some(place);
                    let mut state = self.state.lock();
                    if is_own {
                        post_placed(state.waiting.take(user));
                    } else if !self.ignores_hellos() {
                        state.elsewhere.insert(user, self.clock.now());
                        drop(state);
                        node.on_elsewhere(&mut turn, user);
                    }
                }
                Heard::Confirmed(place, sequences) => confirmed.push((place, sequences)),
                Heard::Refused(sequence, delivered) => node.on_refused(sequence, delivered),
                Heard::GroupChanged(group) => node.on_group_changed(group),
                Heard::Subscribed(user) => {
                    let mut state = self.state.lock();
                    state.initial = state.initial.saturating_sub(1);
                    drop(state);
                    if let Some(place) = self.place() {
                        self.say(Whom::WhoHas(user), Heard::Hello(user, place));
                    }
                }
                Heard::Unsubscribed(user) => {
                    self.state.lock().leaving.remove(&user);
                    node.on_left(user);
                }
                Heard::Pong => self.state.lock().hushed = true,
            }
        }
        turn.flush();
        drop(turn);
        for (place, sequences) in confirmed {
            node.on_confirmed(place, sequences);
        }
        receipts
    }

    /// True if the connections are to be given up.
    fn do_tasks(&self) -> bool {
        let tasks = std::mem::take(&mut self.state.lock().tasks);
        let mut in_doubt = false;
        for task in tasks {
            match task {
                Task::Subscribe(user, waiter) => {
                    self.command(Command::Subscribe(user));
                    if let Some(waiter) = waiter {
                        self.state.lock().waiting.add(user, waiter, self.clock.now());
                    }
                }
                Task::Unsubscribe(user) => {
                    let mut state = self.state.lock();
                    state.leaving.insert(user);
                    state.elsewhere.insert(user, self.clock.now());
                    drop(state);
                    self.command(Command::Unsubscribe(user));
                }
                Task::Refuse(receipt, delivered) => {
                    self.say(Whom::Node(receipt.node.into()), Heard::Refused(receipt.sequence, delivered));
                }
                Task::Check => in_doubt = true,
            }
        }
        in_doubt
    }

    fn look_at_clock(&self, node: &dyn Node, now: Instant) {
        let mut state = self.state.lock();
        post_placed(state.waiting.take_late(now));
        if state.initial == 0 && !state.up {
            state.up = true;
            drop(state);
            node.on_rejoined();
        }
    }

    fn command(&self, command: Command) {
        if let Some(hearer) = self.wires.lock().hearers.get_mut(&self.name) {
            hearer.commands.push_back(command);
        }
    }

    fn say(&self, whom: Whom, heard: Heard) {
        if let Some(hearer) = self.wires.lock().hearers.get_mut(&self.name).filter(|hearer| !hearer.is_cut_off) {
            hearer.said.push_back((whom, heard));
        }
    }

    /// Whether the user may be somewhere else as well, without all others knowing that.
    fn is_elsewhere(&self, user: UserId) -> bool {
        let now = self.clock.now();
        self.state.lock().elsewhere.get(&user).is_some_and(|since| now - *since < ELSEWHERE_FOR)
    }

    fn ignores_hellos(&self) -> bool {
        self.wires.lock().mutation == Some(Mutation::IgnoresHellos)
    }

    fn place(&self) -> Option<Place> {
        self.wires.lock().hearers.get(&self.name)?.place.clone()
    }

    /// The connections are given up.
    fn let_go(&self, node: &dyn Node, now: Instant) {
        self.wires.lock().leave(&self.name);
        let mut state = self.state.lock();
        (state.connected, state.up, state.deaf_at) = (false, false, None);
        state.connect_at = now + PAUSE;
        let tasks = std::mem::take(&mut state.tasks);
        post_placed(state.waiting.take_all());
        let leaving = std::mem::take(&mut state.leaving);
        state.hushed |= state.hushing;
        drop(state);
        leaving.into_iter().for_each(|user| node.on_left(user));
        self.drop_tasks(node, tasks);
    }

    fn drop_tasks(&self, node: &dyn Node, tasks: Vec<Task>) {
        for task in tasks {
            match task {
                Task::Subscribe(_, waiter) => post_placed(waiter.into_iter().collect()),
                Task::Unsubscribe(user) => node.on_left(user),
                Task::Refuse(..) | Task::Check => {}
            }
        }
    }

    /// Nothing more shall come. The end is [`SimBus::is_hushed`].
    pub(super) fn begin_to_hush(&self) {
        let mut state = self.state.lock();
        state.hushing = true;
        state.hushed = !state.connected;
        drop(state);
        self.command(Command::UnsubscribeAll);
        self.command(Command::Ping);
    }

    pub(super) fn is_hushed(&self) -> bool {
        self.state.lock().hushed
    }

    /// All that was to be said is said.
    pub(super) fn is_silent(&self) -> bool {
        self.state.lock().tasks.is_empty() && !self.wires.lock().has_work(&self.name)
    }

    /// The node does not trust its connections any more.
    pub(super) fn doubt(&self) {
        let mut state = self.state.lock();
        if state.connected {
            state.up = false;
            state.tasks.push(Task::Check);
        }
    }

    /// The node is no more. `silently`: Redis does not notice.
    pub(super) fn end(&self, silently: bool) {
        *self.node.lock() = None;
        let mut wires = self.wires.lock();
        if silently { wires.cut_off(&self.name) } else { wires.forget(&self.name) }
    }

    fn add(&self, task: Task) {
        self.state.lock().tasks.push(task);
    }
}

impl Bus for SimBus {
    fn describe(&self) -> String {
        "a simulation".into()
    }

    fn is_alone(&self) -> bool {
        false
    }

    fn start(&self, node: Arc<dyn Node>) -> io::Result<()> {
        *self.node.lock() = Some(node);
        Ok(())
    }

    fn subscribe(&self, user: UserId, waiter: Option<&Arc<ClientLink>>) {
        if self.state.lock().connected {
            self.add(Task::Subscribe(user, waiter.cloned()));
        } else if let Some(waiter) = waiter {
            waiter.post(Posted::Outcome(Outcome::Placed));
        }
    }

    fn unsubscribe(&self, user: UserId) {
        self.add(Task::Unsubscribe(user));
    }

    fn refuse(&self, receipt: Receipt, delivered: usize) {
        self.add(Task::Refuse(receipt, delivered));
    }

    fn publish(&self, envelopes: &[Envelope]) -> Vec<Published> {
        let mut published = Vec::new();
        let mut wires = self.wires.lock();
        let (is_up, is_connected) = (self.state.lock().up, wires.is_up && wires.hearers.contains_key(&self.name));
        let once_in = wires.fails_once_in;
        let fails = !is_connected || (once_in > 0 && wires.dice.one_in(once_in));
        if is_up && fails {
            // It fails in the middle: some have got through, and nobody knows which.
            wires.faults += 1;
            let through = if is_connected { wires.dice.range(0..envelopes.len() + 1) } else { 0 };
            for envelope in &envelopes[..through] {
                wires.publish(&self.name, envelope);
            }
            drop(wires);
            let mut state = self.state.lock();
            state.up = false;
            state.tasks.push(Task::Check);
            return vec![Published::InDoubt; envelopes.len()];
        }
        for envelope in envelopes.iter().filter(|_| is_up) {
            wires.step_between();
            published.push(match wires.publish(&self.name, envelope) {
                0 => Published::ToNobody,
                count => Published::Taken(count),
            });
        }
        published.resize(envelopes.len(), Published::ToNobody);
        published
    }

    fn elsewhere(&self, _: &[UserId]) -> Result<Vec<UserId>, Unreachable> {
        Ok(Vec::new())
    }

    fn group_changed(&self, group: GroupId) {
        let mut wires = self.wires.lock();
        let nodes: Vec<String> = wires.hearers.keys().cloned().collect();
        if self.state.lock().up {
            nodes.iter().for_each(|node| wires.send(node, Heard::GroupChanged(group)));
        }
    }
}

fn post_placed(waiters: Vec<Arc<ClientLink>>) {
    let posts = waiters.into_iter().map(|link| (link, Posted::Outcome(Outcome::Placed)));
    ClientLink::post_all(posts.collect());
}

/// As in the real one: how long a user who has come elsewhere is thought to be there, how long until a node notices that it
/// is deaf, and a pause before it connects again.
const ELSEWHERE_FOR: Duration = PLACE_LEASE.saturating_mul(2);
const PROBED_WITHIN: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(100);
const HEARD_AT_ONCE: usize = 8;
