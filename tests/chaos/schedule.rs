//! [`Schedule`]: the times at which the parts fail. It depends on a seed alone, so the same seed
//! repeats the same faults.
//!
//! Two tracks run side by side. One has the faults of servers, one at a time except where two are
//! meant to coincide. The other one has the faults of single clients. One overlap is left out,
//! because no server could keep the promise under it: a node is killed while it holds messages for
//! a client that takes none, or took none until shortly before (cut off, reset or not reading).
//! Such messages are only in the memory of the node or of its kernel. If the database is
//! unreachable by then, messages that the connection gives back may wait in that memory until the
//! call before them fails. So the client's fault must come before the outage.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::parts::{Deployment, Member};

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    NodeKilled,
    /// A node is killed while the database is down, or just after; it may be started again before
    /// the database is.
    NodeKilledDatabaseKilled,
    /// Like `NodeKilledDatabaseKilled`, with a frozen database.
    NodeKilledDatabaseFrozen,
    NodeFrozen,
    DatabaseKilled,
    DatabaseFrozen,
    RedisKilled,
    RedisFrozen,
    /// The database and Redis at the same time.
    ServicesKilled,
    ServicesFrozen,
    /// One of the two.
    NginxKilled,
    NginxFrozen,
    NginxReloaded,
    RollingRestart,
    /// One of several processes of a service is killed, and starts again when others have taken
    /// over. If it is the primary of the database, its replica is promoted at once.
    Killed(Member),
    /// Like `Killed`, with a frozen process. A frozen primary of the database is killed after
    /// [`FENCED_AFTER`], and its replica promoted.
    Frozen(Member),
    /// The process runs, but no other one reaches it.
    CutOff(Member),
    /// One node is cut off from the database server that all use.
    NodeCutOff,
    /// The primary of the database becomes the replica, and the replica the primary.
    RolesChanged,
    BlackHole,
    Reset,
    StopsReading,
}

/// One planned fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    /// The index of the node or of the client.
    pub target: usize,
    /// The time since the beginning of the run.
    pub begin: Duration,
    /// The duration of the fault. A killed node has its own duration.
    pub length: Duration,
    /// The time at which the node is killed, and the time at which it is started again.
    pub node_down: Option<Range<Duration>>,
}

/// All faults of one run, ordered by their beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub faults: Vec<Fault>,
}

/// A stream of random numbers from a seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Schedule {
    /// Makes the faults of a run of about this length, with `nodes` nodes and `clients` clients
    /// that a fault may hit. With services of several processes, the last round is complete, so
    /// every kind has its turn in a short run, too.
    pub fn new(deployment: Deployment, seed: u64, length: Duration, nodes: usize, clients: usize) -> Schedule {
        let mut dice = Dice::new(seed);
        let mut faults = of_servers(deployment, seed, &mut dice, length, nodes);
        let length = length.max(faults.last().map_or(Duration::ZERO, Fault::end));
        let of_clients = of_clients(&mut dice, length, clients, &faults);
        faults.extend(of_clients);
        faults.sort_by_key(|fault| fault.begin);
        Schedule { faults }
    }

    /// The end of the last fault.
    pub fn end(&self) -> Duration {
        self.faults.iter().map(Fault::end).max().unwrap_or_default()
    }
}

fn of_servers(deployment: Deployment, seed: u64, dice: &mut Dice, length: Duration, nodes: usize) -> Vec<Fault> {
    let sets = deployment.faults();
    let mut faults: Vec<Fault> = Vec::new();
    let mut deck = Vec::new();
    let mut begin = WARM_UP;
    for round in 0.. {
        if deployment.has_several() && begin > length {
            break;
        }
        // Of each set of similar kinds, one takes its turn in each round.
        deck.extend(sets.iter().map(|alike| alike[(seed % 2 + round) as usize % alike.len()]));
        dice.shuffle(&mut deck);
        while let Some(kind) = deck.pop() {
            let fault = of_server(kind, begin, dice, nodes);
            if fault.end() > length && !deployment.has_several() {
                return faults;
            }
            begin = fault.end() + Duration::from_millis(dice.between(1_000, 2_000));
            faults.push(fault);
        }
    }
    faults
}

fn of_server(kind: Kind, begin: Duration, dice: &mut Dice, nodes: usize) -> Fault {
    let length = Duration::from_millis(match kind {
        Kind::NodeKilled | Kind::NginxKilled => dice.between(300, 3_000),
        Kind::NodeFrozen => dice.between(2_000, 7_000),
        // The length has no meaning: a rolling restart lasts until it is complete.
        Kind::RollingRestart => 1,
        // A reload is quick, and the old worker processes live on.
        Kind::NginxReloaded => 1_000,
        // Shorter than the time after which a client of level 1 gives up its connection.
        Kind::NginxFrozen => dice.between(1_500, 3_000),
        // Long enough for calls to fail and for the spool to be used.
        Kind::NodeKilledDatabaseKilled => dice.between(2_500, 4_000),
        Kind::NodeKilledDatabaseFrozen => dice.between(6_000, 7_500),
        _ => dice.between(1_500, 4_000),
    });
    let node_down = match kind {
        Kind::NodeKilled => Some(begin..begin + length),
        Kind::NodeKilledDatabaseKilled | Kind::NodeKilledDatabaseFrozen => {
            let back = length.as_millis() as u64;
            let killed = match dice.below(4) {
                0 => dice.between(50, EARLY.as_millis() as u64),
                1 => dice.between(back, back + AFTER_DATABASE.as_millis() as u64),
                _ => dice.between(back - 1_000, back),
            };
            let killed = begin + Duration::from_millis(killed);
            Some(killed..killed + Duration::from_millis(dice.between(300, 1_500)))
        }
        _ => None,
    };
    Fault { kind, target: dice.below(nodes), begin, length, node_down }
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
        let length_of_fault = Duration::from_millis(length_ms);
        let fault = Fault { kind, target: dice.below(clients), begin, length: length_of_fault, node_down: None };
        begin += Duration::from_millis(dice.between(500, 1_500));
        let is_safe = |server: &Fault| {
            let killed = server.node_down.as_ref().map(|down| down.start);
            killed.is_none_or(|killed| killed < fault.begin || server.begin > fault.end() + AFTER_CLIENT)
        };
        if servers.iter().all(is_safe) && fault.end() <= length {
            faults.push(fault);
        }
    }
    faults
}

impl Fault {
    pub fn end(&self) -> Duration {
        let end = self.begin + self.length;
        self.node_down.as_ref().map_or(end, |down| end.max(down.end))
    }
}

impl Kind {
    /// Whether it affects only one client.
    pub fn is_of_client(self) -> bool {
        CLIENTS.contains(&self)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::NodeKilled => "node killed",
            Kind::NodeKilledDatabaseKilled => "node killed while MariaDB is killed",
            Kind::NodeKilledDatabaseFrozen => "node killed while MariaDB is frozen",
            Kind::NodeFrozen => "node frozen",
            Kind::DatabaseKilled => "MariaDB killed",
            Kind::DatabaseFrozen => "MariaDB frozen",
            Kind::RedisKilled => "Redis killed",
            Kind::RedisFrozen => "Redis frozen",
            Kind::ServicesKilled => "MariaDB and Redis killed",
            Kind::ServicesFrozen => "MariaDB and Redis frozen",
            Kind::NginxKilled => "nginx killed",
            Kind::NginxFrozen => "nginx frozen",
            Kind::NginxReloaded => "nginx reloaded",
            Kind::RollingRestart => "rolling restart",
            Kind::Killed(member) => return write!(f, "{member} killed"),
            Kind::Frozen(member) => return write!(f, "{member} frozen"),
            Kind::CutOff(member) => return write!(f, "{member} cut off from all others"),
            Kind::NodeCutOff => "a node cut off from the database server in use",
            Kind::RolesChanged => "primary made read-only, replica promoted",
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

    /// A number from 0 up to, but not including, `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A number from `low` up to, but not including, `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

/// All kinds that need no service of several processes, those of servers first.
pub const KINDS: [Kind; 17] = [
    Kind::NodeKilled,
    Kind::NodeKilledDatabaseKilled,
    Kind::NodeKilledDatabaseFrozen,
    Kind::NodeFrozen,
    Kind::DatabaseKilled,
    Kind::DatabaseFrozen,
    Kind::RedisKilled,
    Kind::RedisFrozen,
    Kind::ServicesKilled,
    Kind::ServicesFrozen,
    Kind::NginxKilled,
    Kind::NginxFrozen,
    Kind::NginxReloaded,
    Kind::RollingRestart,
    Kind::BlackHole,
    Kind::Reset,
    Kind::StopsReading,
];

/// The kinds of server faults in each round if each service is one process; of each set, one.
pub const SINGLE: [&[Kind]; 12] = [
    &[Kind::NodeKilled],
    &[Kind::NodeKilledDatabaseKilled],
    &[Kind::NodeKilledDatabaseFrozen],
    &[Kind::NodeFrozen],
    &[Kind::DatabaseKilled],
    &[Kind::DatabaseFrozen],
    &[Kind::RedisKilled],
    &[Kind::RedisFrozen],
    &[Kind::ServicesFrozen, Kind::ServicesKilled],
    &[Kind::NginxKilled],
    &[Kind::NginxReloaded, Kind::NginxFrozen],
    &[Kind::RollingRestart],
];

const CLIENTS: [Kind; 3] = [Kind::BlackHole, Kind::Reset, Kind::StopsReading];

/// The default length of a run, which fits one fault of every kind.
pub const LENGTH: Duration = Duration::from_secs(70);

/// The default length of a run with services of several processes: one round. The time in which
/// others take over and a process comes back is not counted.
pub const LENGTH_OF_PARTS: Duration = Duration::from_secs(5);

/// When a frozen primary is known to be frozen, and its replica is promoted.
pub const FENCED_AFTER: Duration = Duration::from_secs(2);

/// The time without faults at the beginning.
const WARM_UP: Duration = Duration::from_secs(4);

/// The `user_timeout` of these tests: how long sent data may stay unacknowledged by a silent peer.
pub const USER_TIMEOUT: Duration = Duration::from_secs(3);

/// After a client was cut off for this long, no node holds anything for it any more.
const AFTER_CLIENT: Duration = Duration::from_millis(5_000);

/// For this long after the loss of the database, calls may not have failed yet.
pub const EARLY: Duration = Duration::from_secs(1);

/// For this long after the database is back, a killed node may still have unstored messages that
/// waited for it.
const AFTER_DATABASE: Duration = Duration::from_millis(800);

mod tests {
    use super::*;

    fn single(seed: u64) -> Schedule {
        Schedule::new(Deployment::SINGLE, seed, LENGTH, 3, 10)
    }

    #[test]
    fn a_seed_brings_the_same_faults_again_and_another_seed_others() {
        assert_eq!(single(7), single(7));
        assert_ne!(single(7), single(8));
    }

    #[test]
    fn every_kind_of_fault_occurs_and_excluded_overlaps_do_not() {
        let came = |schedule: &Schedule, kind| schedule.faults.iter().any(|fault| fault.kind == kind);
        for seed in 0..200 {
            let [schedule, next] = [seed, seed + 1].map(single);
            for kind in KINDS {
                assert!(came(&schedule, kind) || came(&next, kind), "{kind} with neither seed {seed} nor the next one");
            }
            for alike in SINGLE {
                assert!(alike.iter().any(|kind| came(&schedule, *kind)), "{alike:?} with seed {seed}");
            }
            for fault in &schedule.faults {
                let Some(down) = &fault.node_down else { continue };
                let gives_back_then = |other: &&Fault| {
                    other.kind.is_of_client() && other.begin <= down.start && fault.begin <= other.end() + USER_TIMEOUT
                };
                assert_eq!(schedule.faults.iter().find(gives_back_then), None, "seed {seed}");
            }
        }
    }

    #[test]
    fn nodes_die_and_start_both_before_and_after_the_database_is_back() {
        let faults = (0..20).flat_map(|seed| single(seed).faults);
        let of = |fault: Fault| {
            let back = fault.begin + fault.length;
            fault.node_down.filter(|_| fault.kind != Kind::NodeKilled).map(|down| (down.start < back, down.end < back))
        };
        let cases: std::collections::BTreeSet<_> = faults.filter_map(of).collect();
        assert_eq!(cases.into_iter().collect::<Vec<_>>(), [(false, false), (true, false), (true, true)]);
    }
}
