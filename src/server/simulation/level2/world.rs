//! [`World`]: devices, clients of level 1, nodes and their faults, one step after the other in the
//! order that the seed determines.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::hash::Hasher as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use net::simulation::SimulatedSocket as _;
use parking_lot::Mutex;
use rustc_hash::FxHasher;

use super::Broken;
use super::device::{Device, Wire};
use super::old::{OldClient, OldMessages};
use super::tally::Tally;
use crate::base::clock::Clock;
use crate::base::conversation::ConversationId;
use crate::config::{Config, PasswordCost};
use crate::protocol::UserId;
use crate::server::simulation::dice::Dice;
use crate::server::simulation::node::{Machine, Part};
use crate::server::simulation::socket::Pipe;
use crate::server::simulation::spool::Disk;
use crate::server::simulation::store::{Backup, Tables};
use crate::server::simulation::wires::Wires;
use crate::store::history::Cid;
use crate::store::memory::Flaw;

pub(super) struct World {
    pub(super) dice: Dice,
    start: Instant,
    pub(super) now: Instant,
    clock: Clock,
    config: Config,
    pub(super) kind: Kind,
    pub(super) broken: Option<Broken>,
    pub(super) tables: Arc<Mutex<Tables>>,
    pub(super) wires: Arc<Mutex<Wires>>,
    pub(super) nodes: Vec<NodeSlot>,
    pub(super) devices: Vec<Device>,
    pub(super) olds: Vec<OldClient>,
    /// Connections that their clients have given up, and the bytes still on their way to the nodes.
    pub(super) ghosts: Vec<Ghost>,
    connections: u16,
    /// The messages that were acknowledged: device, id, conversation and number.
    pub(super) acknowledged: Vec<(usize, String, ConversationId, i64)>,
    /// The messages that clients of level 1 have sent, by number.
    pub(super) old_messages: OldMessages,
    pub(super) backup: Option<Backup>,
    pub(super) was_restored: bool,
    /// The messages that the database lost when it fell back to the backup.
    pub(super) lost: Lost,
    /// Whether a call of the database has failed, so that messages of level 1 may have been
    /// forwarded unrecorded.
    pub(super) database_failed: bool,
    pub(super) tally: Tally,
    /// The number of messages at the last check.
    pub(super) looked_at: usize,
    pub(super) step: usize,
    trace: bool,
    lines: VecDeque<String>,
    digest: FxHasher,
}

/// The faults that may happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    /// No faults: only the order of events is random, and nobody sweeps.
    Calm,
    /// Connections end in every way.
    Connections,
    /// Nodes, the database and Redis fail as well.
    Everything,
    /// The same, and once the database is restored from a backup, while the nodes are stopped.
    Restored,
    /// The same, and once the database loses its end, while nodes and connections stay.
    FailedOver,
}

impl Kind {
    /// The kind of the run of a seed, or of one that must find this mistake.
    fn of_seed(broken: Option<Broken>, dice: &mut Dice) -> Kind {
        match (broken, dice.range(0..6)) {
            // Only after failures is anything retried, or must be searched for.
            (Some(Broken::NobodySweeps | Broken::Store(Flaw::IdsNotChecked)), _) => Kind::Everything,
            // Clients that come later miss something.
            (Some(Broken::HeadsFirst), _) => Kind::Connections,
            (Some(Broken::TagsAreRemembered), _) => Kind::FailedOver,
            (Some(_), _) | (None, 0) => Kind::Calm,
            (None, 1) => Kind::Connections,
            (None, 2 | 3) => Kind::Everything,
            (None, 4) => Kind::Restored,
            (None, _) => Kind::FailedOver,
        }
    }
}

/// The node and the loop that a connection is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Home {
    pub(super) node: usize,
    /// The number of the node's life.
    pub(super) life: usize,
    pub(super) of_loop: usize,
}

/// The slot of one node: its machine, if it runs, and its disk.
pub(super) struct NodeSlot {
    pub(super) machine: Option<Machine>,
    pub(super) disk: Arc<Mutex<Disk>>,
    pub(super) life: usize,
}

/// Messages that the database has lost while nodes were running.
#[derive(Default)]
pub(super) struct Lost {
    /// Their senders and ids.
    pub(super) ids: BTreeSet<(UserId, Cid)>,
    /// Their places.
    pub(super) places: BTreeSet<(ConversationId, i64, u32)>,
    /// The numbers that they had, those included which went while no connection was open.
    pub(super) numbers: BTreeSet<(ConversationId, i64)>,
}

/// A connection whose client has gone.
pub(super) struct Ghost {
    pub(super) wire: Wire,
    /// Whether nobody knows that it has gone.
    pub(super) is_silent: bool,
}

impl World {
    pub(super) fn new(seed: u64, broken: Option<Broken>, trace: bool) -> World {
        let mut dice = Dice::new(seed ^ 0x1e7e12);
        let start = Instant::now();
        let clock = Clock::standing_at(start);
        let config = config(&mut dice);
        let kind = Kind::of_seed(broken, &mut dice);
        let flaw = if let Some(Broken::Store(flaw)) = broken { Some(flaw) } else { None };
        let groups = vec![(1..4).map(UserId).collect(), vec![UserId(1), UserId(2), UserId(4)]];
        let tables = Tables::new(USERS, &groups, seed, None);
        let tables = tables.with_history(&clock, flaw, broken == Some(Broken::HeadsFirst));
        let count = *dice.pick(&[1, 2, 2, 3]);
        let devices = [(1, "a"), (1, "b"), (2, "a"), (3, "a"), (3, "b")];
        let mut world = World {
            dice,
            start,
            now: start,
            clock,
            config,
            kind,
            broken,
            tables: Arc::new(Mutex::new(tables)),
            wires: Arc::new(Mutex::new(Wires::new(seed, None))),
            nodes: (0..count).map(|_| NodeSlot { machine: None, disk: Arc::default(), life: 0 }).collect(),
            devices: devices.map(|(user, name)| Device::new(UserId(user), name)).into(),
            // The one uses both levels, the other only level 1.
            olds: vec![OldClient::new(UserId(3)), OldClient::new(UserId(4))],
            ghosts: Vec::new(),
            connections: 0,
            acknowledged: Vec::new(),
            old_messages: OldMessages::default(),
            backup: None,
            was_restored: false,
            lost: Lost::default(),
            database_failed: false,
            tally: Tally::default(),
            looked_at: 0,
            step: 0,
            trace,
            lines: VecDeque::new(),
            digest: FxHasher::default(),
        };
        world.note(|world| format!("{:?}, {count} nodes, {} loops each", world.kind, world.config.loops));
        if broken == Some(Broken::PushesAreTaken) {
            world.wires.lock().overheard = Some(Vec::new());
        }
        for node in 0..count {
            world.nodes[node].disk.lock().room = 1000;
            world.start_node(node);
        }
        // The nodes find each other.
        world.settle(Duration::from_secs(3), true);
        world
    }

    pub(super) fn run(&mut self) {
        let steps = 550 + self.dice.range(0..500);
        for no in 0..self.devices.len() {
            // Those of a broken server come when there is something to be missed.
            if self.broken.is_none() && !self.dice.one_in(3) {
                self.connect(no);
            }
        }
        for step in 0..steps {
            self.step += 1;
            match self.dice.range(0..100) {
                0..34 => self.act(),
                34..40 => self.act_of_old(),
                40..94 => self.work(),
                94..98 => self.pass_time(),
                _ => self.fail(),
            }
            if self.kind >= Kind::Restored && (step == steps / 3 || step == 2 * steps / 3) {
                self.back_up_or_restore();
            }
            self.observe();
        }
        self.come_to_rest();
    }

    /// A hash of everything that has happened.
    pub(super) fn digest(&self) -> u64 {
        self.digest.finish()
    }

    pub(super) fn last_steps(&self) -> String {
        self.lines.iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{line}");
            text
        })
    }

    /// Notes an event, without its random parts: tags, tokens and the like.
    pub(super) fn note(&mut self, line: impl FnOnce(&World) -> String) {
        let line = line(self);
        self.digest.write(line.as_bytes());
        self.show(line);
    }

    /// Notes an event that may be random.
    pub(super) fn show(&mut self, line: String) {
        let line = format!("{:>5} {:>8.3} s  {line}", self.step, (self.now - self.start).as_secs_f64());
        if self.trace {
            println!("{line}");
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(super) fn start_node(&mut self, node: usize) {
        let seat = &mut self.nodes[node];
        seat.life += 1;
        let name = format!("n{node}.{}", seat.life);
        seat.machine = Some(Machine::start(name, &self.config, &self.clock, &self.tables, &seat.disk, &self.wires));
        self.tally.starts += 1;
        self.note(|_| format!("node {node} starts"));
    }

    fn work(&mut self) {
        // Most parts have nothing to do.
        for _ in 0..24 {
            let node = self.dice.range(0..self.nodes.len());
            let Some(machine) = &self.nodes[node].machine else { continue };
            let parts = machine.parts();
            let part = *self.dice.pick(&parts);
            if part == Part::Sweep && !self.may_sweep() {
                continue;
            }
            if self.step_part(node, part) {
                return;
            }
        }
    }

    /// Without faults no sweep is needed.
    pub(super) fn may_sweep(&self) -> bool {
        let would_hide_it = matches!(self.broken, Some(Broken::NobodySweeps | Broken::HeadsFirst));
        self.kind > Kind::Calm && !would_hide_it
    }

    pub(super) fn step_part(&mut self, node: usize, part: Part) -> bool {
        let life = self.nodes[node].life;
        // Collected before the machine is borrowed.
        let pipes: Vec<Arc<Pipe>> = match part {
            Part::Loop(of_loop) => self.wires_of(Home { node, life, of_loop }).collect(),
            _ => Vec::new(),
        };
        let NodeSlot { machine: Some(machine), .. } = &mut self.nodes[node] else { return false };
        let done = machine.step(part, &|_| pipes.clone(), &mut self.dice);
        if machine.is_stopped() {
            self.nodes[node].machine = None;
            self.note(|_| format!("node {node} has stopped"));
        } else if done {
            self.note(|_| format!("node {node}: {part:?}"));
        }
        if self.broken == Some(Broken::PushesAreTaken) {
            self.take_pushes(node);
        }
        done
    }

    fn wires_of(&self, home: Home) -> impl Iterator<Item = Arc<Pipe>> {
        let of_devices = self.devices.iter().filter_map(|device| device.link.as_ref()).map(|link| &link.wire);
        let of_olds = self.olds.iter().filter_map(|old| old.wire.as_ref());
        let all = of_devices.chain(of_olds).chain(self.ghosts.iter().map(|ghost| &ghost.wire));
        all.filter(move |wire| wire.home == home).map(|wire| wire.pipe.clone())
    }

    /// Makes a broken node use the messages that another one has announced.
    fn take_pushes(&mut self, node: usize) {
        let overheard = self.wires.lock().overheard.as_mut().map(std::mem::take).unwrap_or_default();
        for (user, payload) in overheard {
            let frames: Vec<&str> = payload.lines().skip(1).filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
            for device in self.devices.iter().filter(|device| device.user == user && device.is_synced()) {
                let Some(link) = device.link.as_ref().filter(|link| link.wire.home.node != node) else { continue };
                if !link.wire.pipe.is_starved() {
                    for frame in &frames {
                        let _ = link.wire.pipe.write(format!("{frame}\n").as_bytes());
                    }
                }
            }
        }
    }

    /// A new connection to this node, if it runs.
    pub(super) fn connect_to(&mut self, node: usize) -> Option<Wire> {
        let NodeSlot { machine: Some(machine), life, .. } = &self.nodes[node] else { return None };
        if !machine.is_running() {
            return None;
        }
        let home = Home { node, life: *life, of_loop: self.dice.range(0..machine.loops()) };
        self.connections += 1;
        let peer = SocketAddr::from(([127, 0, 0, 1], 1000 + self.connections));
        let pipe = Arc::new(Pipe::new(peer, *self.dice.pick(&[400, 2000, 64 * 1024]), false));
        machine.assign(home.of_loop, &pipe, peer);
        Some(Wire::new(pipe, home))
    }

    fn pass_time(&mut self) {
        let pause = match self.dice.range(0..20) {
            _ if self.kind == Kind::Calm => Duration::from_millis(3),
            0 => Duration::from_secs(11),
            1 => Duration::from_millis(2100),
            2 | 3 => Duration::from_millis(600),
            4..9 => Duration::from_millis(60),
            _ => Duration::from_millis(3),
        };
        self.set_time(self.now + pause);
    }

    pub(super) fn set_time(&mut self, now: Instant) {
        self.now = now;
        self.clock.set(now);
    }
}

/// Settings with small bounds.
fn config(dice: &mut Dice) -> Config {
    Config {
        loops: 1 + dice.range(0..2),
        password_cost: PasswordCost { memory_kib: 8, passes: 1, lanes: 1 },
        password_memory: Duration::from_secs(3600),
        frame_timeout: Duration::from_secs(3600),
        output_bytes_max: *dice.pick(&[2400, 16 * 1024, 1 << 20]),
        fetch_bytes_max: *dice.pick(&[300, 1 << 20]),
        ..Config::with_defaults(SocketAddr::from(([127, 0, 0, 1], 1)))
    }
}

pub(super) const USERS: usize = 4;
/// Lines that are kept for a report.
const LINES_MAX: usize = 80;
