//! The server under a seeded scheduler, in one thread: sessions, router, lanes, outbox, event loops
//! and output are the real ones. Sockets, clock, threads, the database and Redis are simulated;
//! they fail, delay, repeat and reorder as the seed determines. After every step the promises are
//! checked (`ledger.rs`).
//!
//! ```text
//!   world.rs    nodes, time, and whose turn it is            ledger.rs   what was sent, and what has become of it
//!   node.rs     a server that does one step at a time        socket.rs   what both kernels hold of a connection
//!   store.rs    a database that outlives the nodes           wires.rs    a Redis between the nodes
//!   spool.rs    a disk that outlives a node                  bus.rs      a node's way to the wires
//!
//!   groups.rs   frames for a large group, and who is served meanwhile
//!
//!   world/client.rs    a client, and what it is owed       world/requests.rs  what clients do
//!   world/faults.rs    what fails                          world/checks.rs    what is seen, and must be so
//!   world/rest.rs      the end: all is mended and comes to rest
//! ```
//! `level2.rs` has the worlds with clients of level 2.
//!
//! `SIM_SEED=n` runs one seed and prints its events; `SIM_SEEDS=n` runs this number of seeds.

mod bus;
mod dice;
mod groups;
mod ledger;
mod level2;
mod node;
mod socket;
mod spool;
mod store;
mod wires;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use net::{Handler, Preface, Turn};
use parking_lot::Mutex;

use self::dice::Dice;
use self::node::{Machine, Part};
use self::socket::Pipe;
use self::store::Tables;
use self::wires::Wires;
use self::world::World;
use crate::admission::{Holder, Payer, Source};
use crate::base::clock::Clock;
use crate::base::ids::FrameId;
use crate::config::Config;
use crate::delivery::{Posted, Provenance};
use crate::protocol::{Id, UserId};
use crate::routing::presence::Presence;

/// Deliberate faults of the world, which the checks must find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mutation {
    LosesStored,
    StoresTwice,
    ReordersStored,
    DeletesEarly,
    BusReorders,
    BusMisdelivers,
    /// Nodes do not learn that another node has the same user, so each may consider itself the only
    /// one.
    LosesHellos,
    /// A node immediately forgets that a user is elsewhere.
    ForgetsElsewhere,
    /// Messages to another node are confirmed, and do not arrive.
    ConfirmsEarly,
    /// A frame that the server writes does not reach the client.
    LosesWritten,
    /// Every login succeeds.
    LetsAnyoneIn,
    /// Bytes that have not reached the client's kernel count as acknowledged.
    AcknowledgesEarly,
}

/// The number of a message, from its text.
fn number_of(text: &str) -> Option<u32> {
    let at = text.find("\"n\":")? + 4;
    let digits = text[at..].bytes().take_while(u8::is_ascii_digit).count();
    text[at..at + digits].parse().ok()
}

/// Runs one seed. Returns the report if a check fails.
fn run(seed: u64, mutation: Option<Mutation>, trace: bool) -> Result<(), String> {
    let mut world = World::new(seed, mutation, trace);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text");
        let report = format!("seed {seed}: {text}\n{}\nreplay: SIM_SEED={seed}", world.last_steps());
        // A step was interrupted: the remaining parts may be in no state to be dropped.
        std::mem::forget(world);
        report
    })
}

/// Runs seeds on one thread per core until this number have failed. Returns their reports.
fn run_seeds(seeds: u64, mutation: Option<Mutation>, failures_max: usize) -> Vec<String> {
    let (next, failures) = (AtomicU64::new(0), parking_lot::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || failures.lock().len() >= failures_max {
                        return;
                    }
                    if let Err(report) = run(seed, mutation, false) {
                        failures.lock().push(report);
                    }
                }
            });
        }
    });
    failures.into_inner()
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn whatever_fails_the_promises_hold() {
    if let Some(seed) = variable("SIM_SEED") {
        if let Err(report) = run(seed, None, true) {
            panic!("{report}");
        }
        return;
    }
    let failures = run_seeds(variable("SIM_SEEDS").unwrap_or(SEEDS), None, FAILURES_MAX);
    assert!(failures.is_empty(), "{} seeds failed:\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn a_seed_repeats() {
    let trace = |seed| {
        let mut world = World::new(seed, None, false);
        world.run();
        world.digest()
    };
    for seed in 0..6 {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
}

/// Each of them is found within a few seeds, by the check for it.
#[test]
fn a_broken_world_is_noticed() {
    for (mutation, expected) in [
        (Mutation::LosesStored, "lost"),
        (Mutation::StoresTwice, "twice"),
        (Mutation::ReordersStored, "order"),
        (Mutation::DeletesEarly, "deleted"),
        (Mutation::BusReorders, "order"),
        (Mutation::BusMisdelivers, "stranger|twice"),
        (Mutation::LosesHellos, "every node"),
        (Mutation::ForgetsElsewhere, "every node"),
        (Mutation::ConfirmsEarly, "lost|every node"),
        (Mutation::LosesWritten, "lost"),
        (Mutation::LetsAnyoneIn, "let in|stranger"),
        (Mutation::AcknowledgesEarly, "lost"),
    ] {
        let failures = run_seeds(MUTATED_SEEDS, Some(mutation), 1);
        let report = failures.first().unwrap_or_else(|| panic!("{mutation:?} goes unnoticed"));
        // A wrong login may also be noticed by the messages that it receives, and a message for
        // another user may be one that this user has, depending on the seed.
        let is_expected = expected.split('|').any(|expected| report.contains(expected));
        assert!(is_expected, "{mutation:?} is noticed as: {report}");
    }
}

/// Found by a seed: a connection that had logged in again, and so was the newest, handed its
/// messages to one that had received newer ones.
#[test]
fn a_user_who_logs_in_again_on_an_older_connection_does_not_hold_the_newest_messages() {
    let presence = Presence::<Posted>::new();
    let link = || {
        let pipe = Pipe::new(([127, 0, 0, 1], 1).into(), 1, false);
        net::simulation::lone_link(Arc::new(pipe)).expect("descriptors")
    };
    let (user, first, second) = (UserId(1), link(), link());
    let mut shard = presence.write(user);
    shard.add(user, &first);
    shard.add(user, &first);
    assert!(shard.holds_newest(user, &first), "there was no other");
    shard.add(user, &second);
    assert!(shard.holds_newest(user, &second) && !shard.holds_newest(user, &first));
    shard.add(user, &first);
    assert_eq!(shard.newest(user), Some(&first));
    assert!(!shard.holds_newest(user, &first) && !shard.holds_newest(user, &second));
}

/// Messages that it was sent before its user left it are older than those that the user's other
/// connection has received.
#[test]
fn messages_held_from_an_earlier_login_are_not_handed_on_with_the_rest() {
    for has_other in [true, false] {
        let clock = Clock::standing_at(Instant::now());
        let tables = Arc::new(Mutex::new(Tables::new(1, &[], 0, None)));
        let (disk, wires) = (Arc::default(), Arc::new(Mutex::new(Wires::new(0, None))));
        let config = Config { loops: 1, ..Config::with_defaults(([127, 0, 0, 1], 1).into()) };
        let mut machine = Machine::start("n".into(), &config, &clock, &tables, &disk, &wires);
        let (router, user, mut turn) = (machine.router(), UserId(1), Turn::at(clock.now()));
        let pipes = [1, 2].map(|port| Arc::new(Pipe::new(([127, 0, 0, 1], port).into(), 1000, false)));
        let [first, other] = pipes.clone().map(|pipe| net::simulation::lone_link(pipe).expect("descriptors"));
        let source = Source::of([127, 0, 0, 1].into());
        let holder = Holder { payer: Payer::Address(source), source };
        let send = |turn: &mut Turn<Posted>, number| {
            let provenance = Provenance { sender: &other, id: FrameId::UNNAMED, holder };
            router.deliver(turn, user, &format!("{{\"n\":{number}}}"), provenance);
            turn.flush();
        };
        router.attendance().attach(&mut turn, user, &first);
        send(&mut turn, 1);
        router.attendance().detach(&mut turn, user, &first);
        if has_other {
            router.attendance().attach(&mut turn, user, &other);
            send(&mut turn, 2);
        }
        router.attendance().attach(&mut turn, user, &first);
        send(&mut turn, 3);
        first.hang_up();
        router.attendance().detach(&mut turn, user, &first);
        turn.flush();
        let live = String::from_utf8(pipes[1].written_after(0)).expect("text");
        let lanes = machine.parts().into_iter().filter(|part| matches!(part, Part::Lane(_)));
        let lanes: Vec<_> = lanes.flat_map(|part| [part; 4]).collect();
        for part in lanes {
            machine.step(part, &|_| Vec::new(), &mut Dice::new(0));
        }
        let kept: Vec<_> = tables.lock().kept(user).filter_map(number_of).collect();
        let expected = if has_other { (r#"{"n":2}{"n":3}"#, vec![1]) } else { ("", vec![1, 3]) };
        assert_eq!((live.as_str(), kept), expected);
    }
}

/// A message that came back from a connection which its user had left is stored before what was
/// sent since, as long as that is not stored: a row is put before no other.
#[test]
fn a_late_message_is_stored_behind_what_was_stored_before_it_came_back() {
    for is_stored_before in [false, true] {
        let clock = Clock::standing_at(Instant::now());
        let tables = Arc::new(Mutex::new(Tables::new(1, &[], 0, None)));
        let (disk, wires) = (Arc::default(), Arc::new(Mutex::new(Wires::new(0, None))));
        let config = Config { loops: 1, ..Config::with_defaults(([127, 0, 0, 1], 1).into()) };
        let mut machine = Machine::start("n".into(), &config, &clock, &tables, &disk, &wires);
        let (user, mut turn) = (UserId(1), Turn::at(clock.now()));
        let link = |port: u16| {
            let pipe = Pipe::new(([127, 0, 0, 1], port).into(), 1000, false);
            net::simulation::lone_link(Arc::new(pipe)).expect("descriptors")
        };
        let (receiver, sender) = (link(1), link(2));
        let source = Source::of([127, 0, 0, 1].into());
        let holder = Holder { payer: Payer::Address(source), source };
        let send = |machine: &Machine, turn: &mut Turn<Posted>, number| {
            let provenance = Provenance { sender: &sender, id: FrameId::UNNAMED, holder };
            machine.router().deliver(turn, user, &format!("{{\"n\":{number}}}"), provenance);
            turn.flush();
        };
        let work = |machine: &mut Machine| {
            let lanes = machine.parts().into_iter().filter(|part| matches!(part, Part::Lane(_)));
            for part in lanes.flat_map(|part| [part; 4]).collect::<Vec<_>>() {
                machine.step(part, &|_| Vec::new(), &mut Dice::new(0));
            }
        };
        machine.router().attendance().attach(&mut turn, user, &receiver);
        send(&machine, &mut turn, 1);
        machine.router().attendance().detach(&mut turn, user, &receiver);
        send(&machine, &mut turn, 2);
        if is_stored_before {
            work(&mut machine);
        }
        receiver.hang_up();
        for (label, frame) in receiver.take_back(|_| true) {
            machine.router().give_back(label, frame);
        }
        work(&mut machine);
        let kept: Vec<_> = tables.lock().kept(user).filter_map(number_of).collect();
        assert_eq!(kept, if is_stored_before { [2, 1] } else { [1, 2] }, "each of them is there once");
    }
}

/// The posts of a logout may come when the client has logged in again: then they are about the
/// login before.
#[test]
fn a_logout_that_comes_after_the_next_login_takes_no_rights() {
    for post in [Posted::LoggedOut, Posted::AccountChanged] {
        let clock = Clock::standing_at(Instant::now());
        let tables = Arc::new(Mutex::new(Tables::new(1, &[], 0, None)));
        let (disk, wires) = (Arc::default(), Arc::new(Mutex::new(Wires::new(0, None))));
        let config = Config { loops: 1, ..Config::with_defaults(([127, 0, 0, 1], 1).into()) };
        let machine = Machine::start("n".into(), &config, &clock, &tables, &disk, &wires);
        let (router, mut shell, user, mut turn) = (machine.router(), machine.shell(), UserId(1), Turn::at(clock.now()));
        let peer = ([127, 0, 0, 1], 1).into();
        let link = net::simulation::lone_link(Arc::new(Pipe::new(peer, 1000, false))).expect("descriptors");
        let seat = shell.on_arrival(&mut turn, peer, Preface::None).expect("there is room");
        let mut client = shell.on_open(&mut turn, &link, seat);
        client.session.add_user(user);
        router.attendance().attach(&mut turn, user, &link);
        assert_eq!(router.attendance().log_out(&mut turn, user, None).len(), 1);
        router.attendance().attach(&mut turn, user, &link);
        shell.on_message(&mut turn, &link, &mut client, post(user));
        assert!(client.session.is(Id(1)), "it receives for the user, and may send for the user too");
        assert_eq!(router.attendance().log_out(&mut turn, user, None).len(), 1);
        shell.on_message(&mut turn, &link, &mut client, post(user));
        assert!(!client.session.is(Id(1)));
    }
}

/// A panic in a loop ends the process, because the loop's thread says itself that it is vital.
#[test]
fn the_thread_of_a_loop_becomes_vital_when_the_loop_starts() {
    let clock = Clock::standing_at(Instant::now());
    let tables = Arc::new(Mutex::new(Tables::new(1, &[], 0, None)));
    let (disk, wires) = (Arc::default(), Arc::new(Mutex::new(Wires::new(0, None))));
    let config = Config { loops: 1, ..Config::with_defaults(([127, 0, 0, 1], 1).into()) };
    let machine = Machine::start("n".into(), &config, &clock, &tables, &disk, &wires);
    let mut shell = machine.shell();
    let is_vital = thread::spawn(move || {
        let was_vital = pool::is_vital();
        shell.on_start();
        (was_vital, pool::is_vital())
    });
    assert_eq!(is_vital.join().expect("it does not panic"), (false, true));
}

const SEEDS: u64 = 2000;
const MUTATED_SEEDS: u64 = 300;
/// A run of many seeds reports the first failures in full.
const FAILURES_MAX: usize = 20;
