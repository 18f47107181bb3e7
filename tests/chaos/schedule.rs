//! [`Schedule`]: what fails when. It follows from a seed alone, so that the same seed brings the same faults again.
//!
//! Two tracks run beside each other: what happens to servers, one thing at a time, and what happens to single clients.
//! Left out are the overlaps under which no server could keep the promise:
//!
//! - a node is killed while it holds messages for a client that takes none (cut off, reset or not reading, or so until
//!   shortly before): they are in the node's own memory, or in its kernel's;
//! - a node is killed while, or shortly after, the database is away: messages that came back from a connection may be
//!   waiting for it.

use std::fmt;
use std::time::Duration;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    NodeKilled,
    NodeFrozen,
    DatabaseKilled,
    DatabaseFrozen,
    RedisKilled,
    RedisFrozen,
    NginxKilled,
    RollingRestart,
    BlackHole,
    Reset,
    StopsReading,
}

/// One fault, planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    /// Which node, or which client, of those there are.
    pub target: usize,
    /// After the beginning of the run.
    pub begin: Duration,
    pub length: Duration,
}

/// All faults of one run, by their beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub faults: Vec<Fault>,
}

/// A stream of numbers that follows from a seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Schedule {
    /// Faults for so long a run, of so many nodes and so many clients that a fault of one client may hit.
    pub fn new(seed: u64, length: Duration, nodes: usize, clients: usize) -> Schedule {
        let mut dice = Dice::new(seed);
        let mut faults = of_servers(&mut dice, length, nodes);
        let of_clients = of_clients(&mut dice, length, clients, &faults);
        faults.extend(of_clients);
        faults.sort_by_key(|fault| fault.begin);
        Schedule { faults }
    }
}

fn of_servers(dice: &mut Dice, length: Duration, nodes: usize) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut deck = Vec::new();
    let mut begin = WARM_UP;
    loop {
        if deck.is_empty() {
            deck = SERVERS.to_vec();
            dice.shuffle(&mut deck);
        }
        let kind = deck.pop().expect("just filled");
        let length_ms = match kind {
            Kind::NodeKilled | Kind::NginxKilled => dice.between(300, 3_000),
            Kind::NodeFrozen => dice.between(2_000, 8_000),
            // It takes as long as it takes.
            Kind::RollingRestart => 1,
            _ => dice.between(1_500, 4_000),
        };
        let before = faults.last().map(|fault| fault.kind);
        if kind == Kind::NodeKilled && matches!(before, Some(Kind::DatabaseKilled | Kind::DatabaseFrozen)) {
            begin += AFTER_DATABASE;
        }
        let fault = Fault { kind, target: dice.below(nodes), begin, length: Duration::from_millis(length_ms) };
        begin += fault.length + Duration::from_millis(dice.between(1_000, 2_500));
        if fault.begin + fault.length > length {
            return faults;
        }
        faults.push(fault);
    }
}

fn of_clients(dice: &mut Dice, length: Duration, clients: usize, servers: &[Fault]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut begin = WARM_UP;
    while begin < length {
        let kind = CLIENTS[dice.below(CLIENTS.len())];
        let length_ms = match kind {
            Kind::Reset => 0,
            Kind::BlackHole => dice.between(4_000, 8_000),
            _ => dice.between(1_000, 5_000),
        };
        let fault = Fault { kind, target: dice.below(clients), begin, length: Duration::from_millis(length_ms) };
        begin += Duration::from_millis(dice.between(700, 2_000));
        let is_safe = |server: &Fault| {
            server.kind != Kind::NodeKilled || server.begin < fault.begin || server.begin > fault.end() + AFTER_CLIENT
        };
        if servers.iter().all(is_safe) && fault.end() <= length {
            faults.push(fault);
        }
    }
    faults
}

impl Fault {
    pub fn end(&self) -> Duration {
        self.begin + self.length
    }
}

impl Kind {
    /// Whether it happens to one client only.
    pub fn is_of_client(self) -> bool {
        CLIENTS.contains(&self)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::NodeKilled => "node killed",
            Kind::NodeFrozen => "node frozen",
            Kind::DatabaseKilled => "MariaDB killed",
            Kind::DatabaseFrozen => "MariaDB frozen",
            Kind::RedisKilled => "Redis killed",
            Kind::RedisFrozen => "Redis frozen",
            Kind::NginxKilled => "nginx killed",
            Kind::RollingRestart => "rolling restart",
            Kind::BlackHole => "client in a black hole",
            Kind::Reset => "client's connection reset",
            Kind::StopsReading => "client stops reading",
        })
    }
}

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to `bound`, without it.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// From `low` to `high`, without it.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

/// Every kind that there is, servers' first.
pub const KINDS: [Kind; 11] = [
    Kind::NodeKilled,
    Kind::NodeFrozen,
    Kind::DatabaseKilled,
    Kind::DatabaseFrozen,
    Kind::RedisKilled,
    Kind::RedisFrozen,
    Kind::NginxKilled,
    Kind::RollingRestart,
    Kind::BlackHole,
    Kind::Reset,
    Kind::StopsReading,
];

const SERVERS: [Kind; 8] = [
    Kind::NodeKilled,
    Kind::NodeFrozen,
    Kind::DatabaseKilled,
    Kind::DatabaseFrozen,
    Kind::RedisKilled,
    Kind::RedisFrozen,
    Kind::NginxKilled,
    Kind::RollingRestart,
];

const CLIENTS: [Kind; 3] = [Kind::BlackHole, Kind::Reset, Kind::StopsReading];

/// How long nothing fails at the beginning.
const WARM_UP: Duration = Duration::from_secs(4);

/// How long a silent peer may leave data unacknowledged in these tests.
pub const USER_TIMEOUT: Duration = Duration::from_secs(3);

/// After a client was cut off for so long, no node holds anything for it any more.
const AFTER_CLIENT: Duration = Duration::from_millis(5_000);

/// After the database has been back for so long, nothing waits for it any more.
const AFTER_DATABASE: Duration = Duration::from_secs(3);

mod tests {
    use super::*;

    #[test]
    fn a_seed_brings_the_same_faults_again_and_another_seed_others() {
        let schedule = |seed| Schedule::new(seed, Duration::from_secs(60), 3, 10);
        assert_eq!(schedule(7), schedule(7));
        assert_ne!(schedule(7), schedule(8));
    }

    #[test]
    fn every_kind_comes_and_what_is_excluded_does_not() {
        for seed in 0..200 {
            let schedule = Schedule::new(seed, Duration::from_secs(60), 3, 10);
            for kind in KINDS {
                assert!(schedule.faults.iter().any(|fault| fault.kind == kind), "{kind} with seed {seed}");
            }
            for killed in schedule.faults.iter().filter(|fault| fault.kind == Kind::NodeKilled) {
                let holds_messages = |fault: &&Fault| {
                    fault.kind.is_of_client()
                        && fault.begin <= killed.begin
                        && killed.begin <= fault.end() + USER_TIMEOUT
                };
                assert_eq!(schedule.faults.iter().find(holds_messages), None, "seed {seed}");
            }
        }
    }
}
