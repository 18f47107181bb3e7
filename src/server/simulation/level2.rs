//! Clusters with clients of level 2, beside those of level 1, under the same seeded scheduler.
//! Devices have a database and an outbox; they reconnect anywhere with what they hold, and send
//! again what was not acknowledged. Nodes crash, also between a commit and its publication; the bus
//! loses, doubles and reorders what concerns devices; the database fails, answers that are lost
//! included, and is restored from a backup, or falls back to an older state while nodes and
//! connections stay.
//!
//! A device is the strict client of the testkit: it checks every frame as it comes. The messages of
//! the devices are compared with the database. A failure names the promise that is broken:
//!
//! | | promise | checked |
//! |---|---|---|
//! | A | what is acknowledged is in history | at each 41, and at the end |
//! | B | one id, one message | after every step |
//! | C | numbers are dense, and those of one device are in the order of sending | after every step |
//! | D | what a device holds can be read | after every step |
//! | E | a device holds each message once: its database is the history up to its cursor | at the end |
//! | F | a connected device is shown everything without asking: at once, or by the next sweeps | when everything is mended |
//! | G | a history that has lost its end is noticed | on connections that stayed, after the next message; at the end |
//!
//! ```text
//!   world.rs    nodes, time, and whose turn it is     device.rs   a device, its database and its connection
//!   acts.rs     what devices do                       old.rs      a client of level 1
//!   faults.rs   what fails                            checks.rs   the promises
//!   rest.rs     the end: all is mended                tally.rs    whether enough has happened
//! ```
//! `SIM_SEED=n` runs one seed and prints its events; `SIM_SEEDS=n` runs this number of seeds.

mod acts;
mod checks;
mod device;
mod faults;
mod old;
mod rest;
mod tally;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use self::tally::{Tallies, Tally};
use self::world::World;
use super::variable;
use crate::store::memory::Flaw;

/// Deliberate mistakes that the checks must find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    /// A mistake of the store.
    Store(Flaw),
    /// Messages of other nodes go to the client unchanged, whatever the client has been shown.
    PushesAreTaken,
    /// The heads of a login are read before its connection is told of messages.
    HeadsFirst,
    /// Nobody searches for what the bus has lost.
    NobodySweeps,
    /// Tags are remembered even for messages that the database has lost.
    TagsAreRemembered,
}

/// Runs one seed. Returns counts of its events, or the report if a check fails.
fn run(seed: u64, broken: Option<Broken>, trace: bool) -> Result<Tally, String> {
    let mut world = World::new(seed, broken, trace);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    result.map(|()| world.tally).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text");
        let command = format!("SIM_SEED={seed} cargo test --lib simulation::level2::whatever -- --nocapture");
        let report = format!("seed {seed}: {text}\n{}\nreplay: {command}", world.last_steps());
        // A step was interrupted: the remaining parts may be in no state to be dropped.
        std::mem::forget(world);
        report
    })
}

/// Runs seeds on one thread per core until this number have failed. Returns the counts of the
/// others, and the reports of those.
fn run_seeds(seeds: u64, broken: Option<Broken>, failures_max: usize) -> (Tallies, Vec<String>) {
    let (next, failures) = (AtomicU64::new(0), parking_lot::Mutex::new(Vec::new()));
    let tallies = parking_lot::Mutex::<Tallies>::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || failures.lock().len() >= failures_max {
                        return;
                    }
                    match run(seed, broken, false) {
                        Ok(tally) => tallies.lock().add(tally),
                        Err(report) => failures.lock().push(report),
                    }
                }
            });
        }
    });
    (tallies.into_inner(), failures.into_inner())
}

#[test]
fn whatever_fails_the_promises_of_level_2_hold() {
    if let Some(seed) = variable("SIM_SEED") {
        return match run(seed, None, true) {
            Ok(tally) => println!("{tally:?}"),
            Err(report) => panic!("{report}"),
        };
    }
    let (tallies, failures) = run_seeds(variable("SIM_SEEDS").unwrap_or(SEEDS), None, FAILURES_MAX);
    assert!(failures.is_empty(), "{} seeds failed:\n{}", failures.len(), failures.join("\n\n"));
    tallies.check_that_enough_has_happened();
}

#[test]
fn a_seed_repeats() {
    let trace = |seed| {
        let mut world = World::new(seed, None, false);
        world.run();
        world.digest()
    };
    for seed in 0..12 {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
}

/// Each of them is found within a few seeds, also by the check for it.
#[test]
fn a_broken_server_is_noticed() {
    for (broken, expected) in [
        // A message that becomes visible late is found as a hole, as what cannot be read, or as
        // never shown.
        (Broken::Store(Flaw::NumbersBeforeLock), "A: |C: |D: |F: "),
        (Broken::Store(Flaw::IdsNotChecked), "B: "),
        (Broken::Store(Flaw::MarksFall), "a mark falls"),
        (Broken::PushesAreTaken, "is next|E: |a hole"),
        (Broken::HeadsFirst, "F: "),
        (Broken::NobodySweeps, "F: "),
        (Broken::TagsAreRemembered, "G: "),
    ] {
        // A mistake has several consequences, so the check for it need not be the first to fail.
        let (_, failures) = run_seeds(BROKEN_SEEDS, Some(broken), FAILURES_MAX);
        let names_it = |report: &String| {
            let first = report.lines().next().unwrap_or_default();
            expected.split('|').any(|expected| first.contains(expected))
        };
        assert!(!failures.is_empty(), "{broken:?} goes unnoticed");
        assert!(failures.iter().any(names_it), "{broken:?} is noticed as: {failures:#?}");
    }
}

const SEEDS: u64 = 2000;
const BROKEN_SEEDS: u64 = 300;
/// A run of many seeds reports the first failures in full.
const FAILURES_MAX: usize = 20;
