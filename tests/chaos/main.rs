//! Clients that number their messages, on a cluster whose parts fail one after the other, by a schedule that follows
//! from a seed; and what the books of all come to.
//!
//! - `CHAOS_SEED=n` brings the faults of an earlier run again, `CHAOS_SECONDS=n` makes it longer (70),
//!   `CHAOS_RUNS=n` makes so many runs with seeds that follow one another.
//! - `CHAOS_NAMESPACE=off` puts the clients on the loopback interface even where they could have a network of their own.
//!
//! [`soak`] and [`window`] have flags of their own.

#![allow(unreachable_pub, reason = "the parts of one program")]

mod books;
mod network;
mod person;
mod plot;
mod report;
mod schedule;
mod soak;
mod stage;
mod window;

use std::env;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use network::Network;
use report::Report;
use stage::Stage;

#[test]
fn nothing_is_lost_whatever_fails() {
    let seconds = number("CHAOS_SECONDS").unwrap_or(schedule::LENGTH.as_secs());
    let first = number("CHAOS_SEED").unwrap_or_else(any_seed);
    let mut failures = Vec::new();
    let mut runs = Vec::new();
    for seed in first..first + number("CHAOS_RUNS").unwrap_or(1) {
        let (network, why_not) = Network::open();
        if let Some(reason) = why_not {
            say(&format!(
                "chaos: NO REAL BLACK HOLES ({reason}): {network}, and resets are ends of the sending direction"
            ));
        }
        say(&format!("chaos: CHAOS_SEED={seed}, {network}"));
        let mut stage = Stage::start(&network);
        let run = stage.run(network, seed, Duration::from_secs(seconds));
        let report = Report::new(std::slice::from_ref(&run));
        let failure = report.failure();
        if let Some(failure) = &failure {
            // Before the servers end, which have their own check.
            say(failure);
            stage.keep_logs(seed);
        }
        failures.extend(failure.map(|failure| format!("with CHAOS_SEED={seed}: {failure}")));
        runs.push(run);
    }
    let report = Report::new(&runs);
    say(&report.table());
    for path in report.write() {
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

/// Past the capture of a passing test's output.
fn say(text: &str) {
    writeln!(io::stderr(), "{text}").expect("print");
}
