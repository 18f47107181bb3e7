//! [`World`]: clients, nodes and what befalls them, one step after the other as the seed says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::hash::Hasher;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHasher;

use super::bus::Wires;
use super::dice::Dice;
use super::ledger::{Copy, Ledger, Message};
use super::node::{Machine, Part};
use super::socket::Pipe;
use super::spool::{Change, Disk};
use super::store::{News, Tables};
use super::{Mutation, number_of};
use crate::clock::Clock;
use crate::config::{Auth, Config, PasswordCost};
use crate::outbox::PLACE_LEASE;
use crate::protocol::{
    ACK, BAD_REQUEST, BUSY, LOGIN_FIRST, NO_METHOD, NOT_A_MEMBER, NOT_KEPT, NOT_YOU, SERVER_ERROR, UserId, WRONG_LOGIN,
};

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
    nodes: Vec<Seat>,
    clients: Vec<Client>,
    ledger: Ledger,
    /// On which nodes a user's messages were fetched: two at the same time return the same.
    fetchers: BTreeMap<UserId, BTreeSet<usize>>,
    step: usize,
    /// Steps in which something failed.
    faults: usize,
    /// A node or Redis has failed: until all is mended, not every node that has a user need be known.
    is_torn: bool,
    /// When something last was so late that a login, or a confirmation, may not have waited for it.
    disturbed_at: usize,
    trace: bool,
    lines: VecDeque<String>,
    digest: FxHasher,
}

/// What may go wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    /// Nothing: only the order of things is left to chance.
    Calm,
    /// Connections end in every way.
    Connections,
    /// Nodes, the database and Redis fail as well.
    Everything,
}

/// Where a node runs, or has run.
struct Seat {
    machine: Option<Machine>,
    disk: Arc<Mutex<Disk>>,
    /// Which life of it this is.
    life: usize,
}

struct Client {
    pipe: Arc<Pipe>,
    node: usize,
    life: usize,
    of_loop: usize,
    line: bool,
    /// Who it logs in as at first.
    first: UserId,
    /// Bytes on their way to the node, and all bytes up to them.
    outgoing: VecDeque<u8>,
    sent: usize,
    state: Life,
    /// Since when it is not [`Life::Open`], and since when its node knows.
    ended_at: Option<usize>,
    gone_at: Option<usize>,
    stalled: bool,
    /// Whoever it may act as, as far as it knows.
    users: Vec<UserId>,
    /// Whom it receives for, by what the server has written; and whom it ever did.
    receives: BTreeSet<UserId>,
    ever: BTreeSet<UserId>,
    /// When its last login was sent, and whom the other nodes know to be here since.
    asked_at: usize,
    placed: BTreeSet<UserId>,
    expected: VecDeque<Expected>,
    windows: u32,
    messages: u32,
    /// Errors that it may still get for messages that were sent without a right.
    parsed: usize,
    partial: Vec<u8>,
    frames: VecDeque<(usize, Frame)>,
    last: BTreeMap<(usize, UserId), u32>,
    seen: BTreeSet<(u32, UserId)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Open,
    /// It has closed its side, and reads on.
    HalfClosed,
    /// It has closed, and takes nothing more.
    Closed,
    /// It answers nothing, and nobody knows.
    Silent,
    Over,
}

/// What the server owes a client.
#[derive(Clone, Debug)]
enum Expected {
    /// Nothing, or an error.
    Message(u32),
    Forged,
    Login(UserId),
    WrongLogin,
    Logout(UserId),
    Fetch(UserId),
    /// A reply that nothing else has, and that all before it is settled for.
    Barrier(u32),
    /// Some reply or other.
    Answer,
}

/// What the server has written.
#[derive(Clone, Debug)]
enum Frame {
    Push(u32),
    Friend,
    /// What followed from a reply, for when the client gets it.
    LoggedIn(UserId),
    Fetched(UserId, Vec<u32>),
    Settled(u32),
    Nothing,
}

impl World {
    pub(super) fn new(seed: u64, mutation: Option<Mutation>, trace: bool) -> World {
        let mut dice = Dice::new(seed);
        let start = Instant::now();
        let clock = Clock::standing_at(start);
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let config = Config {
            loops: 1 + dice.range(0..2),
            auth: if mutation == Some(Mutation::LetsAnyoneIn) { Auth::Compat } else { Auth::Strict },
            password_cost: PasswordCost { memory_kib: 8, passes: 1, lanes: 1 },
            password_memory: if dice.one_in(2) { Duration::ZERO } else { Duration::from_secs(3600) },
            // A frame that does not complete is another story: half of one may wait for a long time here.
            frame_timeout: Duration::from_secs(3600),
            output_bytes_max: *dice.pick(&[600, 4096, 1 << 20]),
            lane_bytes_max: *dice.pick(&[3000, 1 << 20]),
            fetch_bytes_max: *dice.pick(&[300, 1 << 20]),
            // With the smaller one a fetch often waits for others.
            memory_bytes_max: *dice.pick(&[1, 1 << 30]),
            ..Config::with_defaults(address)
        };
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
            nodes: (0..count).map(|_| Seat { machine: None, disk: Arc::default(), life: 0 }).collect(),
            clients: Vec::new(),
            ledger: Ledger::default(),
            fetchers: BTreeMap::new(),
            step: 0,
            faults: 0,
            is_torn: false,
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

    /// What has happened, in one number.
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

    // ---- Nodes ----

    fn start_node(&mut self, node: usize) {
        let seat = &mut self.nodes[node];
        seat.life += 1;
        let name = format!("n{node}.{}", seat.life);
        seat.machine =
            Some(Machine::start(name, &self.config, &self.clock, &self.tables, &seat.disk, &self.wires, true));
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
        let Seat { machine: Some(machine), life, .. } = &mut self.nodes[node] else { return false };
        let (clients, life) = (&self.clients, *life);
        let pipes = |of_loop: usize| -> Vec<Arc<Pipe>> {
            let its = |client: &&Client| client.node == node && client.life == life && client.of_loop == of_loop;
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

    /// A node is gone, and with it what it may have held.
    fn excuse(&mut self, node: usize, life: usize) {
        let clients = &self.clients;
        for message in &mut self.ledger.messages {
            for (user, copy) in &mut message.copies {
                let was_here = |client: &Client| {
                    client.node == node
                        && client.life == life
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
        self.clients[no].node == node && self.clients[no].life == life
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

    // ---- Faults ----

    fn fail(&mut self) {
        if self.kind == Kind::Calm {
            return;
        }
        if self.kind == Kind::Connections || self.dice.one_in(2) {
            self.fail_connection();
            return;
        }
        let node = self.dice.range(0..self.nodes.len());
        self.faults += 1;
        match self.dice.range(0..13) {
            0 => self.crash(node),
            1 | 2 => {
                let within = Duration::from_secs(10);
                if let Some(machine) = self.nodes[node].machine.as_mut().filter(|machine| machine.is_running()) {
                    machine.stop(within);
                    self.tear();
                    self.ledger.note_stop();
                    self.note(|_| format!("node {node} is told to stop"));
                }
            }
            3..5 if self.nodes[node].machine.is_none() => self.start_node(node),
            5 => {
                let is_up = {
                    let mut tables = self.tables.lock();
                    tables.is_up = !tables.is_up;
                    tables.is_up
                };
                self.note(|_| format!("the database is up: {is_up}"));
            }
            6 => {
                let once_in = if self.tables.lock().fails_once_in == 0 { 3 + self.dice.range(0..8) } else { 0 };
                self.tables.lock().fails_once_in = once_in;
                self.note(|_| format!("the database fails once in {once_in}"));
            }
            7 => {
                let is_up = self.wires.lock().is_up;
                self.tear();
                if is_up {
                    self.wires.lock().end()
                } else {
                    self.wires.lock().is_up = true
                }
                self.note(|_| format!("Redis is up: {}", !is_up));
            }
            8 => {
                let once_in = if self.wires.lock().fails_once_in == 0 { 3 + self.dice.range(0..8) } else { 0 };
                self.wires.lock().fails_once_in = once_in;
                self.tear();
                self.note(|_| format!("Redis fails once in {once_in}"));
            }
            9 => {
                if let Some(machine) = &self.nodes[node].machine {
                    machine.bus.wires().cut_off(machine.bus.name());
                    self.tear();
                    self.note(|_| format!("node {node} hears nothing any more"));
                }
            }
            10 => self.wires.lock().forget_cut_off(),
            12 => {
                if let Some(machine) = &self.nodes[node].machine {
                    machine.bus.doubt();
                    self.tear();
                    self.note(|_| format!("node {node} gives its connection to Redis up"));
                }
            }
            11 => {
                let is_broken = {
                    let mut disk = self.nodes[node].disk.lock();
                    disk.is_broken = !disk.is_broken;
                    disk.is_broken
                };
                self.note(|_| format!("the disk of node {node} is full: {is_broken}"));
            }
            _ => {}
        }
    }

    /// Messages may be kept that would have been confirmed in time, and logins answered before the other nodes know of them.
    fn disturb(&mut self) {
        self.disturbed_at = self.step;
        self.ledger.owe_no_more(|_, _, _| true);
    }

    /// A node or Redis fails: who is where may be unknown from now on.
    fn tear(&mut self) {
        self.disturb();
        self.is_torn = true;
        self.clients.iter_mut().for_each(|client| client.placed.clear());
    }

    fn fail_connection(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let no = self.dice.range(0..self.clients.len());
        match (self.dice.range(0..6), self.clients[no].state) {
            (_, Life::Over) => {}
            (_, Life::Silent) | (0, _) => {
                self.note(|_| format!("client {no} is reset"));
                self.clients[no].pipe.break_off();
                self.end_client(no, Life::Over);
            }
            (1, Life::Open) => {
                self.note(|_| format!("client {no} closes its side"));
                self.end_client(no, Life::HalfClosed);
            }
            (2, Life::Open) => {
                self.note(|_| format!("client {no} closes"));
                self.end_client(no, Life::Closed);
            }
            (3, Life::Open) => {
                self.note(|_| format!("client {no} falls silent"));
                self.end_client(no, Life::Silent);
            }
            _ => {
                let client = &mut self.clients[no];
                client.stalled = !client.stalled;
                let stalled = client.stalled;
                self.note(|_| format!("client {no} reads: {}", !stalled));
            }
        }
    }

    /// What it was sent and has not got may come to its user on another way as well.
    fn end_client(&mut self, no: usize, state: Life) {
        let client = &mut self.clients[no];
        client.state = state;
        client.ended_at.get_or_insert(self.step);
        client.placed.clear();
        let users = client.ever.clone();
        self.faults += 1;
        self.ledger.owe_no_more(|_, _, owed| owed == no);
        for message in &mut self.ledger.messages {
            for (user, copy) in &mut message.copies {
                copy.in_doubt |= users.contains(user);
            }
        }
    }

    // ---- Clients ----

    fn act(&mut self) {
        let open = self.clients.iter().filter(|client| client.state == Life::Open).count();
        if open == 0 || (open < CLIENTS_MAX && self.dice.one_in(12)) {
            let node = self.dice.range(0..self.nodes.len());
            if self.connect(node).is_some() {
                self.login(self.clients.len() - 1);
            }
            return;
        }
        let no = self.dice.range(0..self.clients.len());
        match self.dice.range(0..10) {
            0..3 => self.deliver(no, false),
            3..6 => self.receive(no, false),
            _ => self.ask(no),
        }
    }

    /// Connects a client to a node, if that runs.
    fn connect(&mut self, node: usize) -> Option<usize> {
        let Seat { machine: Some(machine), life, .. } = &self.nodes[node] else { return None };
        if !machine.is_running() {
            return None;
        }
        let (no, life) = (self.clients.len(), *life);
        let of_loop = self.dice.range(0..machine.loops());
        let room = *self.dice.pick(&[200, 1000, 64 * 1024]);
        let peer = SocketAddr::from(([127, 0, 0, 1], 1000 + no as u16));
        let pipe = Arc::new(Pipe::new(peer, room, self.mutation == Some(Mutation::AcknowledgesEarly)));
        machine.assign(of_loop, &pipe, peer);
        let line = self.dice.one_in(2);
        // Who is on several nodes is often written to from another one.
        let home = if node == 0 { 0..USERS / 2 } else { USERS / 2..USERS };
        let users = if self.dice.one_in(2) { home } else { 0..USERS };
        let first = UserId(1 + self.dice.range(users) as i32);
        self.clients.push(Client {
            pipe,
            node,
            life,
            of_loop,
            line,
            first,
            outgoing: VecDeque::new(),
            sent: 0,
            state: Life::Open,
            ended_at: None,
            gone_at: None,
            stalled: false,
            users: Vec::new(),
            receives: BTreeSet::new(),
            ever: BTreeSet::new(),
            asked_at: 0,
            placed: BTreeSet::new(),
            expected: VecDeque::new(),
            windows: 0,
            messages: 0,
            parsed: 0,
            partial: Vec::new(),
            frames: VecDeque::new(),
            last: Default::default(),
            seen: BTreeSet::new(),
        });
        self.note(|_| format!("client {no} connects to node {node}"));
        Some(no)
    }

    fn login(&mut self, no: usize) {
        // The last user is in no group, so that what comes for two users of one connection can be told apart.
        let Client { users, first, .. } = &self.clients[no];
        let user = if users.contains(first) { UserId(USERS as i32) } else { *first };
        if self.dice.one_in(12) {
            self.send(no, &format!(r#"{{"msgType":1,"USERID":{user},"password":"wrong"}}"#), Expected::WrongLogin);
        } else {
            self.login_as(no, user);
        }
    }

    fn login_as(&mut self, no: usize, user: UserId) {
        // From now on it may be the newest of its node, and what is sent from there need not leave it.
        let (clients, node) = (&self.clients, self.clients[no].node);
        self.ledger.owe_no_more(|message, to, owed| {
            let is_sent_here = clients[message.from].node == node && !message.acknowledged;
            to == user && ((clients[owed].node == node && owed != no) || is_sent_here)
        });
        self.clients[no].asked_at = self.step;
        self.send(no, &format!(r#"{{"msgType":1,"USERID":{user},"password":"secret"}}"#), Expected::Login(user));
    }

    fn logout(&mut self, no: usize, user: UserId) {
        self.clients[no].users.retain(|other| *other != user);
        self.clients[no].placed.remove(&user);
        self.ledger.owe_no_more(|_, to, owed| to == user && owed == no);
        self.send(no, &format!(r#"{{"msgType":3,"USERID":{user}}}"#), Expected::Logout(user));
    }

    fn send(&mut self, no: usize, frame: &str, expected: Expected) {
        let client = &mut self.clients[no];
        client.expected.push_back(expected);
        client.outgoing.extend(frame.as_bytes());
        client.sent += frame.len();
        if client.line {
            client.outgoing.push_back(b'\n');
            client.sent += 1;
        }
        self.note(|_| format!("client {no} sends {frame}"));
    }

    /// Sends something.
    fn ask(&mut self, no: usize) {
        let client = &self.clients[no];
        if client.state != Life::Open || client.expected.len() > 30 {
            return;
        }
        let waits =
            client.expected.iter().any(|expected| !matches!(expected, Expected::Message(_) | Expected::Barrier(_)));
        let user = client.users.first().copied();
        let Some(user) = user else {
            if !waits {
                self.login(no);
            }
            return;
        };
        match self.dice.range(0..20) {
            // Messages and barriers are not held up by a fetch that has not been answered.
            _ if waits
                && !matches!(
                    client.expected.back(),
                    Some(Expected::Fetch(_) | Expected::Message(_) | Expected::Barrier(_))
                ) => {}
            0..10 => {
                for _ in 0..1 + self.dice.range(0..4) {
                    self.write_message(no, user);
                }
            }
            10..13 => self.barrier(no),
            _ if waits => {}
            13..16 => {
                self.close_window(no);
                self.fetchers.entry(user).or_default().insert(self.clients[no].node);
                if self.fetchers[&user].len() > 1 {
                    let copies = self.ledger.messages.iter_mut().filter_map(|message| message.copies.get_mut(&user));
                    copies.for_each(|copy| copy.in_doubt = true);
                }
                self.send(no, &format!(r#"{{"msgType":14,"FROMID":{user}}}"#), Expected::Fetch(user));
            }
            16 => {
                self.close_window(no);
                let user = *self.dice.pick(&self.clients[no].users.clone());
                self.logout(no, user);
            }
            17 => {
                self.close_window(no);
                self.login(no);
            }
            _ => {
                self.close_window(no);
                let request = *self.dice.pick(&[
                    r#""msgType":8,"FROMID":"#,
                    r#""msgType":11,"FROMID":"#,
                    r#""msgType":10,"GROUPID":1,"FROMID":"#,
                    r#""msgType":6,"U2":2,"U1":"#,
                    r#""msgType":7,"TOID":2,"FROMID":"#,
                ]);
                // Whoever joins must be a member already: who is meant by a message is known from the start.
                if request.contains(":10,") && user.0 > 3 {
                    return;
                }
                self.send(no, &format!("{{{request}{user}}}"), Expected::Answer);
            }
        }
    }

    fn write_message(&mut self, no: usize, user: UserId) {
        let number = self.ledger.messages.len() as u32;
        let forged = self.dice.one_in(15);
        let users: Vec<UserId> = (1..=USERS as i32).map(UserId).collect();
        let from = if forged {
            let its = self.clients[no].may_receive();
            let others: Vec<_> = users.iter().filter(|other| !its.contains(other)).collect();
            **self.dice.pick(&others)
        } else {
            user
        };
        let pad = "x".repeat(self.dice.range(0..60));
        let group = self.dice.one_in(4) && !forged;
        let (frame, to) = if group {
            let (group, members) = if self.dice.one_in(2) { (1, 3) } else { (2, 2) };
            let is_member = user.0 <= members;
            let to = if is_member { (1..=members).map(UserId).filter(|to| *to != user).collect() } else { Vec::new() };
            (format!(r#"{{"msgType":9,"FROMID":{from},"GROUPID":{group},"n":{number},"msg":"{pad}"}}"#), to)
        } else {
            let to = UserId(1 + self.dice.range(0..USERS + 1) as i32);
            let known = to.0 <= USERS as i32;
            let frame = format!(r#"{{"msgType":4,"FROMID":{from},"TOID":{to},"n":{number},"msg":"{pad}"}}"#);
            (frame, if known { vec![to] } else { Vec::new() })
        };
        self.send_message(no, &frame, &to, forged);
    }

    /// Sends a message that has a number of its own.
    fn send_message(&mut self, no: usize, frame: &str, to: &[UserId], forged: bool) {
        let number = self.ledger.messages.len() as u32;
        let copies = to.iter().map(|to| (*to, self.begin_copy(no, *to))).collect();
        let client = &mut self.clients[no];
        client.messages += 1;
        self.ledger.messages.push(Message {
            from: no,
            nth: client.messages,
            window: (no, client.windows),
            ends_at: client.sent + frame.len(),
            sent_at: self.step,
            sent: self.now,
            forged,
            acknowledged: false,
            copies,
        });
        let expected = if forged { Expected::Forged } else { Expected::Message(number) };
        if forged {
            self.close_window(no);
            self.ledger.messages[number as usize].ends_at = usize::MAX;
        }
        self.send(no, frame, expected);
    }

    fn begin_copy(&self, from: usize, to: UserId) -> Copy {
        let is_fetched_twice = self.fetchers.get(&to).is_some_and(|nodes| nodes.len() > 1);
        let in_doubt = self.kind == Kind::Everything || is_fetched_twice;
        Copy { in_doubt, owed: self.owed(from, to), ..Copy::default() }
    }

    /// The connections that a message must come to: those of every other node that has the user, unless the sender's has.
    fn owed(&self, from: usize, to: UserId) -> BTreeSet<usize> {
        let here = &self.clients[from];
        let on_node = |node: usize| {
            let life = self.nodes[node].life;
            (0..self.clients.len()).filter(move |no| self.is_of(*no, node, life) && self.clients[*no].may_be_here(to))
        };
        if self.is_torn || on_node(here.node).next().is_some() {
            return BTreeSet::new();
        }
        // Which of two of one node is the newer is not known.
        let alone = |node: usize| on_node(node).next().filter(|_| on_node(node).count() == 1);
        (0..self.nodes.len()).filter_map(alone).filter(|no| self.clients[*no].placed.contains(&to)).collect()
    }

    /// What is answered in more than one way comes after a barrier.
    fn close_window(&mut self, no: usize) {
        if matches!(self.clients[no].expected.back(), Some(Expected::Message(_))) {
            self.barrier(no);
        }
    }

    fn barrier(&mut self, no: usize) {
        let window = self.clients[no].windows;
        self.clients[no].windows += 1;
        self.send(no, r#"{"msgType":404}"#, Expected::Barrier(window));
    }

    /// Bytes come to the node.
    fn deliver(&mut self, no: usize, all: bool) {
        let most = if all || self.dice.one_in(2) { usize::MAX } else { 1 + self.dice.range(0..80) };
        let client = &mut self.clients[no];
        match client.state {
            Life::Silent | Life::Over => return,
            Life::HalfClosed | Life::Closed if client.outgoing.is_empty() => {
                client.pipe.end();
                return;
            }
            Life::Open | Life::HalfClosed | Life::Closed => {}
        }
        let count = most.min(client.outgoing.len());
        if count > 0 {
            let bytes: Vec<u8> = client.outgoing.drain(..count).collect();
            client.pipe.arrive(&bytes);
            self.note(|_| format!("client {no}: {count} bytes come to the node"));
        }
    }

    /// Bytes come to the client's kernel, which acknowledges them.
    fn receive(&mut self, no: usize, all: bool) {
        let most = if all || self.dice.one_in(2) { usize::MAX } else { 1 + self.dice.range(0..80) };
        let client = &mut self.clients[no];
        let outstanding = client.pipe.outstanding();
        match client.state {
            Life::Silent | Life::Over => {}
            Life::Closed if outstanding > 0 => {
                client.pipe.break_off();
                client.state = Life::Over;
                self.note(|_| format!("client {no}, closed, answers with a reset"));
            }
            Life::Closed => {}
            Life::Open | Life::HalfClosed if client.stalled && !all => {}
            Life::Open | Life::HalfClosed if outstanding > 0 => {
                client.pipe.acknowledge(most);
                self.note(|_| format!("client {no} gets {} of {outstanding} bytes", most.min(outstanding)));
            }
            Life::Open | Life::HalfClosed => {
                if client.pipe.is_at_end() && client.state == Life::Open {
                    self.note(|_| format!("client {no} is at its end"));
                    self.end_client(no, Life::HalfClosed);
                }
            }
        }
    }

    // ---- What is seen ----

    fn observe(&mut self) {
        self.note_news();
        for client in self.clients.iter_mut().filter(|client| client.pipe.is_closed()) {
            client.gone_at.get_or_insert(self.step);
        }
        let parsed: Vec<_> = (0..self.clients.len()).map(|no| self.parse(no)).collect();
        // What was pushed before a reply counts when the reply is looked at, whichever is found first.
        for (no, frames) in parsed.iter().enumerate() {
            for (_, text) in frames {
                if let Some(number) = pushed(text) {
                    for user in self.clients[no].may_receive() {
                        if let Some(copy) = self
                            .ledger
                            .messages
                            .get_mut(number as usize)
                            .and_then(|message| message.copies.get_mut(&user))
                        {
                            copy.written.insert(no);
                        }
                    }
                }
            }
        }
        for (no, frames) in parsed.into_iter().enumerate() {
            for (end, text) in frames {
                let frame = self.on_written(no, text);
                self.clients[no].frames.push_back((end, frame));
            }
            self.take_received(no);
        }
        self.check_deletions();
        self.check_bounds();
    }

    /// The frames that were written since the last look.
    fn parse(&mut self, no: usize) -> Vec<(usize, String)> {
        let client = &mut self.clients[no];
        if client.pipe.written() == client.parsed {
            return Vec::new();
        }
        let start = client.parsed - client.partial.len();
        client.partial.extend(client.pipe.written_after(client.parsed));
        client.parsed = client.pipe.written();
        let mut frames = Vec::new();
        let mut done = 0;
        loop {
            let rest = &client.partial[done..];
            let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<serde::de::IgnoredAny>();
            match values.next() {
                Some(Ok(_)) => {
                    let len = values.byte_offset();
                    let text = String::from_utf8(rest[blank..len].to_vec()).expect("the server writes text");
                    frames.push((start + done + len, text));
                    done += len;
                }
                Some(Err(error)) if error.is_eof() => break,
                Some(Err(error)) => panic!("client {no} is sent what is no JSON: {error}"),
                None => break,
            }
        }
        client.partial.drain(..done);
        frames
    }

    fn on_written(&mut self, no: usize, text: String) -> Frame {
        self.note(|_| format!("client {no} is sent {text}"));
        if let Some(number) = pushed(&text) {
            self.on_push(no, number);
            return if self.mutation == Some(Mutation::LosesWritten) && self.dice.one_in(8) {
                Frame::Nothing
            } else {
                Frame::Push(number)
            };
        }
        if text.contains(r#""new":true"#) {
            return Frame::Friend;
        }
        self.on_reply(no, text)
    }

    fn on_push(&mut self, no: usize, number: u32) {
        let forged = self.ledger.messages.get(number as usize).is_some_and(|message| message.forged);
        assert!(!forged, "somebody was let in: message {number}, sent in another's name, was let through");
        let client = &mut self.clients[no];
        let copies =
            self.ledger.messages.get(number as usize).map(|message| message.copies.keys().copied().collect::<Vec<_>>());
        let copies = copies.unwrap_or_default();
        let user = copies.iter().copied().find(|user| client.receives.contains(user));
        let Some(user) = user else {
            panic!(
                "client {no}, who is {:?}, is sent message {number} for {copies:?}: a stranger to it",
                client.receives
            );
        };
        let Message { from, nth, .. } = self.ledger.messages[number as usize];
        assert!(client.seen.insert((number, user)), "message {number} came twice to user {user} on client {no}");
        let last = client.last.entry((from, user)).or_insert(0);
        assert!(*last < nth, "message {number} came out of order to client {no}: {nth} after {last} of client {from}");
        *last = nth;
    }

    fn on_reply(&mut self, no: usize, text: String) -> Frame {
        let seat = &self.nodes[self.clients[no].node];
        if text == BAD_REQUEST && seat.machine.as_ref().is_none_or(|machine| !machine.is_running()) {
            // A node that stops waits for the rest of no frame.
            return Frame::Nothing;
        }
        let client = &mut self.clients[no];
        let run = client.expected.iter().take_while(|expected| matches!(expected, Expected::Message(_))).count();
        let is_error = [NOT_KEPT, BUSY, SERVER_ERROR, NOT_A_MEMBER].contains(&text.as_str());
        if run > 0 && is_error {
            let window = client.expected.iter().find_map(|expected| match expected {
                Expected::Message(number) => Some(self.ledger.messages[*number as usize].window),
                _ => None,
            });
            let window = window.expect("there is a message");
            *self.ledger.errors.entry(window).or_default() += 1;
            assert!(
                self.kind != Kind::Calm || text == NOT_A_MEMBER || self.config.lane_bytes_max < 1 << 20,
                "client {no} is told {text}, though nothing has failed"
            );
            return Frame::Nothing;
        }
        let numbers: Vec<u32> = client
            .expected
            .drain(..run)
            .map(|expected| match expected {
                Expected::Message(number) => number,
                _ => unreachable!("a run of messages"),
            })
            .collect();
        let Some(expected) = client.expected.pop_front() else {
            panic!("client {no} is told {text} without having asked")
        };
        let failed = text == BUSY || text == SERVER_ERROR;
        let matches = match &expected {
            Expected::Message(_) => unreachable!("it was taken before"),
            Expected::Forged => [NOT_YOU, LOGIN_FIRST].contains(&text.as_str()),
            Expected::WrongLogin => text == WRONG_LOGIN || failed,
            Expected::Login(_) | Expected::Logout(_) => text == ACK || failed,
            Expected::Fetch(_) => text.contains(r#""msgType":14"#) || failed,
            Expected::Barrier(_) => text == NO_METHOD,
            Expected::Answer => ![NO_METHOD, BAD_REQUEST, NOT_YOU].contains(&text.as_str()),
        };
        if matches!(expected, Expected::Forged) && !matches {
            panic!("somebody was let in: client {no} is told {text}, and had asked in another's name");
        }
        assert!(matches, "client {no} is told {text}, and expected {expected:?}");
        self.check_settled(no, &numbers, &text);
        let client = &mut self.clients[no];
        match expected {
            Expected::Login(user) if !failed => {
                client.receives.insert(user);
                client.ever.insert(user);
                if client.asked_at > self.disturbed_at && !self.is_torn && client.state == Life::Open {
                    client.placed.insert(user);
                } else {
                    client.placed.remove(&user);
                }
                Frame::LoggedIn(user)
            }
            Expected::Logout(user) => {
                client.receives.remove(&user);
                Frame::Nothing
            }
            Expected::Fetch(user) if !failed => {
                let reply: serde_json::Value = serde_json::from_str(&text).expect("it was parsed before");
                let texts = reply["msgs"].as_array().expect("a list").iter().map(|text| text.as_str().expect("a text"));
                let texts: Vec<&str> = texts.collect();
                Frame::Fetched(user, texts.into_iter().filter_map(number_of).collect())
            }
            Expected::Barrier(window) => Frame::Settled(window),
            _ => Frame::Nothing,
        }
    }

    /// A reply was written: everything before it must be settled.
    fn check_settled(&mut self, no: usize, numbers: &[u32], reply: &str) {
        let Some(first) = numbers.first() else { return };
        let window = self.ledger.messages[*first as usize].window;
        let errors = self.ledger.errors.get(&window).copied().unwrap_or(0);
        let unsettled: Vec<u32> = numbers.iter().copied().filter(|number| !self.is_settled(*number)).collect();
        assert!(
            unsettled.len() <= errors,
            "client {no} is told {reply} early: messages {unsettled:?} are nowhere (lost, or not settled), {errors} errors"
        );
    }

    fn is_settled(&self, number: u32) -> bool {
        let message = &self.ledger.messages[number as usize];
        message.copies.iter().all(|(user, copy)| {
            // A connection that does not take what it is sent, or gives it back, holds it for a while.
            let may_hold = |client: &Client| {
                let leaves = |expected: &Expected| matches!(expected, Expected::Logout(other) if other == user);
                let gives_back = client.ended_at.is_some()
                    || client.pipe.is_starved()
                    || client.pipe.is_broken()
                    || !client.receives.contains(user)
                    || client.expected.iter().any(leaves);
                let gone_at = client.gone_at.max(client.ended_at);
                let was_there = client.pipe.is_registered() || gone_at.is_none_or(|at| at >= message.sent_at);
                client.may_receive().contains(user) && was_there && gives_back
            };
            copy.stored + copy.ever_spooled > 0
                || !copy.written.is_empty()
                || copy.excused
                || self.clients.iter().any(may_hold)
        })
    }

    /// What has come to the client's kernel.
    fn take_received(&mut self, no: usize) {
        let acknowledged = self.clients[no].pipe.acknowledged();
        while let Some((end, _)) = self.clients[no].frames.front()
            && *end <= acknowledged
        {
            let (_, frame) = self.clients[no].frames.pop_front().expect("it is there");
            let client = &mut self.clients[no];
            match frame {
                Frame::Push(number) => {
                    for user in client.ever.clone() {
                        if let Some(copy) = self.ledger.messages[number as usize].copies.get_mut(&user) {
                            copy.received.insert(no);
                        }
                    }
                }
                Frame::LoggedIn(user) => {
                    let leaves = |expected: &Expected| matches!(expected, Expected::Logout(other) if *other == user);
                    client.users.retain(|other| *other != user);
                    if client.receives.contains(&user) && !client.expected.iter().any(leaves) {
                        client.users.push(user);
                    }
                }
                Frame::Fetched(user, numbers) => self.ledger.fetched(user, &numbers, self.kind == Kind::Calm),
                Frame::Settled(window) => {
                    let its = self.ledger.messages.iter_mut().filter(|message| message.window == (no, window));
                    its.for_each(|message| message.acknowledged = true);
                }
                Frame::Friend | Frame::Nothing => {}
            }
        }
    }

    fn note_news(&mut self) {
        let mut tables = self.tables.lock();
        let (news, fails) = (std::mem::take(&mut tables.news), tables.is_failing());
        drop(tables);
        if fails {
            self.ledger.note_outage();
        }
        for node in 0..self.nodes.len() {
            let news = std::mem::take(&mut self.nodes[node].disk.lock().news);
            for (user, number, change) in news {
                self.note(|_| format!("message {number} for user {user} {change:?} on the disk of node {node}"));
                if user.0 > USERS as i32 {
                    // Nobody knows yet that there is no such user.
                    continue;
                }
                let copy = self.ledger.copy(number, user);
                match change {
                    Change::Came => (copy.spooled, copy.ever_spooled) = (copy.spooled + 1, copy.ever_spooled + 1),
                    Change::Went => copy.spooled -= 1,
                }
            }
        }
        for news in news {
            match news {
                News::Stored { to, number } => {
                    self.note(|_| format!("message {number} is stored for user {to}"));
                    let clients = &self.clients;
                    self.ledger.note_stored(number, to, self.now, |no, known_by| {
                        let is_there = |other: &usize| clients[*other].node == clients[no].node;
                        clients[no].gone_at.is_none() || !known_by.iter().any(is_there)
                    });
                }
                News::Refused { to, number } => {
                    self.note(|_| format!("message {number} for user {to} is refused for ever"));
                    if to.0 <= USERS as i32 {
                        self.ledger.copy(number, to).excused = true;
                    }
                }
                News::Deleted { of, number } => {
                    self.note(|_| format!("message {number} of user {of} is deleted"));
                    self.ledger.copy(number, of).deleted += 1;
                }
            }
        }
    }

    /// What is deleted must have been fetched.
    fn check_deletions(&self) {
        for (number, message) in self.ledger.messages.iter().enumerate() {
            for (user, copy) in &message.copies {
                assert!(
                    copy.deleted <= copy.fetched,
                    "message {number} of user {user} was deleted before a client had it"
                );
            }
        }
    }

    fn check_bounds(&self) {
        for seat in &self.nodes {
            if let Some(machine) = &seat.machine {
                // What is accepted already may exceed the bound by what connections had.
                let bound = self.config.lane_bytes_max + CLIENTS_MAX * (self.config.output_bytes_max + 64 * 1024);
                assert!(machine.lane_bytes() <= bound, "a lane holds {} bytes", machine.lane_bytes());
            }
        }
    }

    // ---- The end ----

    fn come_to_rest(&mut self) {
        self.note(|_| "everything is mended".to_owned());
        {
            let mut tables = self.tables.lock();
            (tables.is_up, tables.fails_once_in) = (true, 0);
            let mut wires = self.wires.lock();
            (wires.is_up, wires.fails_once_in) = (true, 0);
            wires.forget_cut_off();
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].disk.lock().is_broken = false;
            // What waits on its disk must find its way.
            if self.nodes[node].machine.is_none() {
                self.start_node(node);
            }
        }
        for no in 0..self.clients.len() {
            self.clients[no].stalled = false;
            if self.clients[no].state == Life::Silent {
                self.clients[no].pipe.break_off();
                self.end_client(no, Life::Over);
            }
        }
        self.settle();
        for no in 0..self.clients.len() {
            if self.clients[no].state == Life::Open {
                self.barrier(no);
            }
        }
        self.settle();
        for (no, client) in self.clients.iter().enumerate() {
            let waits = client.state == Life::Open && !client.expected.is_empty();
            assert!(!waits, "client {no} waits in vain for {:?}", client.expected);
        }
        for no in 0..self.clients.len() {
            if self.clients[no].state == Life::Open {
                self.clients[no].state = Life::HalfClosed;
            }
        }
        self.settle();
        self.check_recovery();
        for node in 0..self.nodes.len() {
            let waiting = self.nodes[node].disk.lock().waiting();
            if let Some(machine) = &mut self.nodes[node].machine {
                assert!(waiting == 0 || !machine.is_running(), "{waiting} messages stay on the disk of node {node}");
                assert!(machine.has_all_room(self.config.lane_bytes_max), "node {node} does not give room back");
                machine.stop(Duration::from_secs(10));
            }
        }
        self.settle();
        for (node, seat) in self.nodes.iter().enumerate() {
            assert!(seat.machine.is_none(), "node {node} does not stop");
        }
        for user in (1..=USERS as i32).map(UserId) {
            let tables = self.tables.lock();
            self.ledger.check_kept(user, tables.kept(user).filter_map(number_of));
        }
        let (clients, kind) = (&self.clients, self.kind);
        let is_required = |message: &Message| {
            let was_read = clients[message.from].pipe.bytes_read() >= message.ends_at;
            message.acknowledged || (was_read && kind != Kind::Everything)
        };
        self.ledger.check_end(is_required, self.kind == Kind::Calm);
    }

    /// All is mended: whatever has happened before, a user who comes and goes on all nodes but one is reached from that one
    /// wherever the user is.
    fn check_recovery(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].machine.is_none() {
                self.start_node(node);
            }
        }
        self.settle();
        (self.is_torn, self.disturbed_at) = (false, self.step);
        self.step += 1;
        let (sender, recipient) = (UserId(1), UserId(USERS as i32));
        let clients: Vec<_> = (0..self.nodes.len()).map(|node| self.connect(node).expect("it runs")).collect();
        let from = clients[self.dice.range(0..clients.len())];
        self.login_as(from, sender);
        for _ in 0..ROAMING_STEPS {
            let pause = *self.dice.pick(&[LONG_PAUSE, PLACE_LEASE]);
            match *self.dice.pick(&clients) {
                no if no == from => self.set_time(self.now + pause),
                no if self.clients[no].placed.contains(&recipient) => self.logout(no, recipient),
                no => self.login_as(no, recipient),
            }
            self.settle();
            if self.dice.one_in(2) {
                let number = self.ledger.messages.len();
                let frame = format!(r#"{{"msgType":4,"FROMID":{sender},"TOID":{recipient},"n":{number},"msg":""}}"#);
                self.send_message(from, &frame, &[recipient], false);
                let owed = self.ledger.messages[number].copies[&recipient].owed.len();
                let there = clients.iter().filter(|no| self.clients[**no].receives.contains(&recipient)).count();
                assert_eq!(owed, there, "of those who are logged in");
                self.settle();
            }
        }
        self.barrier(from);
        self.settle();
        clients.iter().for_each(|no| self.clients[*no].state = Life::HalfClosed);
        self.settle();
    }

    /// Goes on until nothing happens any more.
    fn settle(&mut self) {
        let until = self.now + REST;
        loop {
            let mut goes_on = false;
            self.step += 1;
            for no in 0..self.clients.len() {
                let before = (self.clients[no].outgoing.len(), self.clients[no].pipe.outstanding());
                if before != (0, 0)
                    || self.clients[no].state == Life::Closed
                    || self.clients[no].state == Life::HalfClosed
                {
                    self.deliver(no, true);
                    self.receive(no, true);
                    goes_on |= before != (self.clients[no].outgoing.len(), self.clients[no].pipe.outstanding());
                }
            }
            for node in 0..self.nodes.len() {
                let parts = self.nodes[node].machine.as_ref().map(Machine::parts).unwrap_or_default();
                for part in parts {
                    for _ in 0..4 {
                        if !self.step_part(node, part) {
                            break;
                        }
                        goes_on = true;
                    }
                }
            }
            self.observe();
            if goes_on {
                assert!(self.step < 100_000, "it comes to no rest");
                continue;
            }
            let machines = self.nodes.iter().filter_map(|seat| seat.machine.as_ref());
            match machines.filter_map(|machine| machine.next_due(self.now)).min() {
                Some(due) if due <= until => self.set_time(due),
                Some(_) | None => return,
            }
        }
    }
}

impl Client {
    /// Whether its node may have this user on it.
    fn may_be_here(&self, user: UserId) -> bool {
        let logs_in = |expected: &Expected| matches!(expected, Expected::Login(other) if *other == user);
        !self.pipe.is_closed() && (self.receives.contains(&user) || self.expected.iter().any(logs_in))
    }

    /// Whom it has received for, or will when the answer to its login is looked at.
    fn may_receive(&self) -> BTreeSet<UserId> {
        let logins = self.expected.iter().filter_map(|expected| match expected {
            Expected::Login(user) => Some(*user),
            _ => None,
        });
        self.ever.iter().copied().chain(logins).collect()
    }
}

/// Which message this is, if it is one.
fn pushed(text: &str) -> Option<u32> {
    let is_message = text.starts_with(r#"{"msgType":4,"#) || text.starts_with(r#"{"msgType":9,"#);
    is_message.then(|| number_of(text).expect("every message has a number"))
}

const USERS: usize = 4;
const CLIENTS_MAX: usize = 6;
/// How often a user comes or goes when all is mended.
const ROAMING_STEPS: usize = 8;
/// A pause after which a login, or another node, may have lost its patience.
const LONG_PAUSE: Duration = Duration::from_millis(500);
/// Lines that are kept for a report.
const LINES_MAX: usize = 60;
/// How much longer than anything may take a world is looked at until it is at rest.
const REST: Duration = Duration::from_secs(13);
/// For how many steps a node may hold what a connection that has ended did not take.
const HELD_STEPS: usize = 10_000;
