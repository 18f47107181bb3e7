//! [`World`]: clients, nodes and what befalls them, one step after the other as the seed says.

mod checks;
mod client;
mod faults;
mod requests;
mod rest;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::hash::Hasher;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHasher;

use self::client::{Client, Life};
use super::Mutation;
use super::dice::Dice;
use super::ledger::Ledger;
use super::node::{Machine, Part};
use super::socket::Pipe;
use super::spool::Disk;
use super::store::Tables;
use super::wires::Wires;
use crate::base::clock::Clock;
use crate::config::{Auth, Config, PasswordCost};
use crate::protocol::UserId;

pub(super) struct World {
    dice: Dice,
    start: Instant,
    now: Instant,
    clock: Clock,
    config: Config,
    mutation: Option<Mutation>,
    kind: Kind,
    tables: Arc<Mutex<Tables>>,
    wires: Arc<Mutex<Wires>>,
    nodes: Vec<NodeSlot>,
    clients: Vec<Client>,
    ledger: Ledger,
    /// The nodes on which a user's messages were fetched: two fetches at the same time return the
    /// same messages.
    fetchers: BTreeMap<UserId, BTreeSet<usize>>,
    step: usize,
    /// Steps in which something failed.
    faults: usize,
    /// Whether a node or Redis has failed: until everything is mended, not every node with a user
    /// need be known.
    is_torn: bool,
    /// The number of connections to Redis that nodes had given up at the last check.
    given_up: usize,
    /// The last step at which something was so late that a login, or a confirmation, may not have
    /// waited for it.
    disturbed_at: usize,
    trace: bool,
    lines: VecDeque<String>,
    digest: FxHasher,
}

/// The faults that may happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    /// No faults: only the order of events is random.
    Calm,
    /// Connections end in every way.
    Connections,
    /// Nodes, the database and Redis fail as well.
    Everything,
}

/// The slot of one node: its machine, if it runs, and its disk.
struct NodeSlot {
    machine: Option<Machine>,
    disk: Arc<Mutex<Disk>>,
    /// The number of its present life.
    life: usize,
}

impl World {
    pub(super) fn new(seed: u64, mutation: Option<Mutation>, trace: bool) -> World {
        let mut dice = Dice::new(seed);
        let start = Instant::now();
        let clock = Clock::standing_at(start);
        let config = config(&mut dice, mutation);
        let kind = match dice.range(0..4) {
            _ if mutation == Some(Mutation::AcknowledgesEarly) => Kind::Connections,
            _ if mutation.is_some() => Kind::Calm,
            0 => Kind::Calm,
            1 => Kind::Connections,
            _ => Kind::Everything,
        };
        let groups = vec![(1..4).map(UserId).collect(), vec![UserId(1), UserId(2)]];
        let tables = Arc::new(Mutex::new(Tables::new(USERS, &groups, seed, mutation)));
        let wires = Arc::new(Mutex::new(Wires::new(seed, mutation)));
        let count = *dice.pick(&[1, 2, 3, 3]);
        let mut world = World {
            dice,
            start,
            now: start,
            clock,
            config,
            mutation,
            kind,
            tables,
            wires,
            nodes: (0..count).map(|_| NodeSlot { machine: None, disk: Arc::default(), life: 0 }).collect(),
            clients: Vec::new(),
            ledger: Ledger::default(),
            fetchers: BTreeMap::new(),
            step: 0,
            faults: 0,
            is_torn: false,
            given_up: 0,
            disturbed_at: 0,
            trace,
            lines: VecDeque::new(),
            digest: FxHasher::default(),
        };
        world.note(|world| format!("{:?}, {count} nodes, {} loops each", world.kind, world.config.loops));
        for node in 0..count {
            world.nodes[node].disk.lock().room = *world.dice.pick(&[0, 5, 1000]);
            world.start_node(node);
        }
        world
    }

    pub(super) fn run(&mut self) {
        let steps = 200 + self.dice.range(0..400);
        for _ in 0..steps {
            self.step += 1;
            match self.dice.range(0..100) {
                0..34 => self.act(),
                34..92 => self.work(),
                92..98 => self.pass_time(),
                _ => self.fail(),
            }
            self.observe();
        }
        self.come_to_rest();
    }

    /// All that has happened, in one number.
    pub(super) fn digest(&self) -> u64 {
        self.digest.finish()
    }

    pub(super) fn last_steps(&self) -> String {
        self.lines.iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{line}");
            text
        })
    }

    fn note(&mut self, line: impl FnOnce(&World) -> String) {
        let line = line(self);
        self.digest.write(line.as_bytes());
        let line = format!("{:>5} {:>8.3} s  {line}", self.step, (self.now - self.start).as_secs_f64());
        if self.trace {
            println!("{line}");
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn start_node(&mut self, node: usize) {
        let seat = &mut self.nodes[node];
        seat.life += 1;
        let name = format!("n{node}.{}", seat.life);
        seat.machine = Some(Machine::start(name, &self.config, &self.clock, &self.tables, &seat.disk, &self.wires));
        self.note(|_| format!("node {node} starts"));
    }

    fn work(&mut self) {
        for _ in 0..6 {
            let node = self.dice.range(0..self.nodes.len());
            let Some(machine) = &self.nodes[node].machine else { continue };
            let parts = machine.parts();
            let part = *self.dice.pick(&parts);
            if self.step_part(node, part) {
                return;
            }
        }
    }

    fn step_part(&mut self, node: usize, part: Part) -> bool {
        let NodeSlot { machine: Some(machine), life, .. } = &mut self.nodes[node] else { return false };
        let (clients, life) = (&self.clients, *life);
        let pipes = |of_loop: usize| -> Vec<Arc<Pipe>> {
            let its = |client: &&Client| {
                client.home.node == node && client.home.life == life && client.home.of_loop == of_loop
            };
            clients.iter().filter(its).map(|client| client.pipe.clone()).collect()
        };
        let done = machine.step(part, &pipes, &mut self.dice);
        if machine.is_stopped() {
            let is_clean = machine.is_clean();
            self.nodes[node].machine = None;
            self.note(|_| format!("node {node} has stopped, all is done: {is_clean}"));
            if !is_clean {
                self.excuse(node, life);
            }
        } else if done {
            self.note(|_| format!("node {node}: {part:?}"));
        }
        done
    }

    /// Excuses the messages that a lost node may have held.
    fn excuse(&mut self, node: usize, life: usize) {
        let clients = &self.clients;
        for message in &mut self.ledger.messages {
            for (user, copy) in &mut message.copies {
                let was_here = |client: &Client| {
                    client.home.node == node
                        && client.home.life == life
                        && client.ever.contains(user)
                        && client.ended_at.is_none_or(|at| at + HELD_STEPS >= message.sent_at)
                };
                copy.excused |= !copy.is_there() && clients.iter().any(was_here);
            }
        }
    }

    fn crash(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let Some(machine) = self.nodes[node].machine.take() else { return };
        self.tear();
        let silently = self.dice.one_in(2);
        machine.bus.end(silently);
        let lost = machine.letters();
        self.note(|_| format!("node {node} crashes, silently: {silently}, {lost} letters are lost"));
        let its: Vec<_> = (0..self.clients.len()).filter(|no| self.is_of(*no, node, life)).collect();
        for no in its {
            self.clients[no].pipe.break_off();
            self.end_client(no, Life::Over);
        }
        drop(machine);
        self.excuse(node, life);
    }

    fn is_of(&self, no: usize, node: usize, life: usize) -> bool {
        self.clients[no].home.node == node && self.clients[no].home.life == life
    }

    fn pass_time(&mut self) {
        let pause = match self.dice.range(0..20) {
            // A confirmation that is late is a fault.
            _ if self.kind == Kind::Calm => Duration::from_millis(3),
            0 => Duration::from_millis(2100),
            1 | 2 => Duration::from_millis(600),
            3..8 => Duration::from_millis(60),
            _ => Duration::from_millis(3),
        };
        if pause >= LONG_PAUSE {
            self.disturb();
        }
        self.set_time(self.now + pause);
    }

    fn set_time(&mut self, now: Instant) {
        self.now = now;
        self.clock.set(now);
    }
}

const USERS: usize = 4;
const CLIENTS_MAX: usize = 6;
/// A pause after which a login, or another node, may have lost its patience.
const LONG_PAUSE: Duration = Duration::from_millis(500);
/// Lines that are kept for a report.
const LINES_MAX: usize = 60;
/// The number of steps for which a node may hold messages that an ended connection did not take.
const HELD_STEPS: usize = 10_000;

/// Settings with small bounds.
fn config(dice: &mut Dice, mutation: Option<Mutation>) -> Config {
    Config {
        loops: 1 + dice.range(0..2),
        auth: if mutation == Some(Mutation::LetsAnyoneIn) { Auth::Compat } else { Auth::Strict },
        password_cost: PasswordCost { memory_kib: 8, passes: 1, lanes: 1 },
        password_memory: if dice.one_in(2) { Duration::ZERO } else { Duration::from_secs(3600) },
        // A frame that does not complete is another story: half of one may wait for a long time
        // here.
        frame_timeout: Duration::from_secs(3600),
        output_bytes_max: *dice.pick(&[600, 4096, 1 << 20]),
        lane_bytes_max: *dice.pick(&[3000, 1 << 20]),
        fetch_bytes_max: *dice.pick(&[300, 1 << 20]),
        // With the smaller one a fetch often waits for others.
        memory_bytes_max: *dice.pick(&[1, 1 << 30]),
        ..Config::with_defaults(SocketAddr::from(([127, 0, 0, 1], 1)))
    }
}
