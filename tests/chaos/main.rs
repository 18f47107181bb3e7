//! Clients number their messages while the parts of their cluster fail one after the other. A seed
//! determines the schedule of the faults. At the end, the books of all clients are compared.
//!
//! - `CHAOS_SEED=n` repeats the faults of an earlier run, `CHAOS_SECONDS=n` sets the length of a
//!   run (70), `CHAOS_RUNS=n` makes this number of runs with consecutive seeds.
//! - `CHAOS_PARTS=galera|replica|sentinel|sharded|all` chooses the deployments in which every part
//!   is there more than once (`all`: two that contain everything).
//! - `CHAOS_NAMESPACE=off` puts the clients on the loopback interface even if they could have a
//!   network namespace.
//!
//! [`soak`] and [`window`] have flags of their own.

#![allow(unreachable_pub, reason = "the parts of one program")]

mod books;
mod caused;
mod conductor;
mod devices;
mod ledger;
mod network;
mod numbered;
mod parts;
mod person;
mod plot;
mod progress;
mod pulse;
mod report;
mod schedule;
mod services;
mod soak;
mod stage;
mod window;
mod wire;
mod world;

use std::env;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use network::Network;
use parts::Deployment;
use report::Report;
use stage::Stage;

#[test]
fn nothing_is_lost_whatever_fails() {
    play(&[Deployment::SINGLE], schedule::LENGTH, "report.md");
}

#[test]
fn others_take_over_from_any_process_of_which_there_are_several() {
    play(&Deployment::chosen(), schedule::LENGTH_OF_PARTS, "parts.md");
}

/// Runs each deployment with each seed, and writes one report of all runs.
fn play(deployments: &[Deployment], length: Duration, report_name: &str) {
    let length = number("CHAOS_SECONDS").map_or(length, Duration::from_secs);
    let first = number("CHAOS_SEED").unwrap_or_else(any_seed);
    let seeds = first..first + number("CHAOS_RUNS").unwrap_or(1);
    let mut failures = Vec::new();
    let mut runs = Vec::new();
    for (deployment, seed) in deployments.iter().flat_map(|one| seeds.clone().map(move |seed| (*one, seed))) {
        let (network, why_not) = Network::open();
        if let Some(reason) = why_not {
            say(&format!(
                "chaos: NO REAL BLACK HOLES ({reason}): {network}, and resets are ends of the sending direction"
            ));
        }
        say(&format!("chaos: CHAOS_SEED={seed}, {deployment}, {network}"));
        let mut stage = Stage::start(deployment, &network);
        let run = stage.run(network, seed, length);
        let report = Report::new(std::slice::from_ref(&run));
        let failure = report.failure();
        if let Some(failure) = &failure {
            // Printed before the servers are dropped, because the drop has its own check.
            say(failure);
            stage.keep_logs(seed);
        }
        failures.extend(failure.map(|failure| format!("{deployment} with CHAOS_SEED={seed}: {failure}")));
        runs.push(run);
    }
    let report = Report::new(&runs);
    say(&report.table());
    for path in report.write(report_name) {
        say(&format!("chaos: written to {}", path.display()));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock that is set");
    u64::from(now.subsec_micros()) * 1_000 + now.as_secs() % 1_000
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")))
}

/// Prints to stderr directly, so that the text appears although the test passes.
fn say(text: &str) {
    writeln!(io::stderr(), "{text}").expect("print");
}
