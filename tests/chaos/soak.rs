//! Mixed traffic of both levels for any length of time, without faults of servers: nothing is lost
//! or duplicated, and the servers' memory does not grow. Devices of level 2 have their own
//! accidents here, too.
//!
//! `SOAK_SECONDS=n` sets the length (20); an hour is `SOAK_SECONDS=3600`.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::books::Wrong;
use crate::network::Network;
use crate::parts::Deployment;
use crate::report::Report;
use crate::schedule::Schedule;
use crate::stage::Stage;
use crate::{number, say};
use testkit::{Footprint, Margin, SetOnDrop};

#[test]
fn nothing_grows() {
    let seconds = number("SOAK_SECONDS").unwrap_or(20);
    let (network, _) = Network::open();
    let mut stage = Stage::start(Deployment::SINGLE, &network);
    let addresses = stage.addresses();
    let schedule = Schedule { faults: Vec::new() };
    let mut samples = Vec::new();
    let stop = AtomicBool::new(false);
    let run = thread::scope(|scope| {
        let _stop = SetOnDrop(&stop);
        scope.spawn(|| come_and_go(&addresses, &stop));
        stage.carry_out(network, 1, Duration::from_secs(seconds), &schedule, &mut |stage| samples.push(held(stage)))
    });
    let thirds = samples.len() / 3;
    let (first, last) = (Held::of(&samples[..thirds]), Held::of(&samples[samples.len() - thirds..]));
    let (sent, came): (usize, usize) = run.books.iter().fold((0, 0), |(sent, came), books| {
        (sent + books.lots.iter().map(|lot| lot.numbers.len()).sum::<usize>(), came + books.arrivals.len())
    });
    say(&format!(
        "soak: {seconds} s, {sent} messages sent, {came} came\n  first third: {first}\n  last third:  {last}"
    ));
    let runs = [run];
    let report = Report::new(&runs);
    assert_eq!(report.count(Wrong::Duplicated), 0, "without a fault nothing comes twice");
    assert_eq!(report.failure(), None);
    assert!(last.nodes.is_within(MARGIN, first.nodes), "the nodes grow: {first}, then {last}");
    assert!(last.database <= first.database + CONNECTIONS, "connections to MariaDB: {first}, then {last}");
    assert!(last.redis <= first.redis + CONNECTIONS, "connections to Redis: {first}, then {last}");
}

/// The resources that all nodes hold together.
#[derive(Clone, Copy, Default)]
struct Held {
    nodes: Footprint,
    database: usize,
    redis: usize,
}

fn held(stage: &Stage) -> Held {
    let nodes = stage.nodes.iter().filter_map(|node| Footprint::of(node.pid()));
    let nodes = nodes.fold(Footprint::default(), |sum, one| Footprint {
        descriptors: sum.descriptors + one.descriptors,
        threads: sum.threads + one.threads,
        resident: sum.resident + one.resident,
    });
    Held { nodes, database: stage.services.database.connections(), redis: stage.services.redis_connections() }
}

impl Held {
    /// The maximum of each resource.
    fn of(samples: &[Held]) -> Held {
        samples.iter().fold(Held::default(), |most, held| Held {
            nodes: most.nodes.max(held.nodes),
            database: most.database.max(held.database),
            redis: most.redis.max(held.redis),
        })
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Held { nodes, database, redis } = self;
        write!(f, "{nodes}; {database} connections to MariaDB, {redis} to Redis")
    }
}

/// Runs strangers: each connects, sends an invalid request or nothing, and disconnects without a
/// logout.
fn come_and_go(nodes: &[SocketAddr], stop: &AtomicBool) {
    for (number, node) in nodes.iter().cycle().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut stream = TcpStream::connect(node).expect("a node takes connections");
        let words: [&[u8]; 4] = [b"", b"{\"msgType\":200}", b"{\"msgType\":1,", b"keep this socket alive"];
        stream.write_all(words[number % words.len()]).expect("a node reads");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The growth that all nodes together may show between the first and the last third of the run.
const MARGIN: Margin = Margin(Footprint { descriptors: 12, threads: 0, resident: 48 * 1024 });
const CONNECTIONS: usize = 6;
