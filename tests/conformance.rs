//! Plays the recorded exchanges of `tests/conformance` against this server, in both modes of `auth`.

mod util;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use serde_json::Value;
use util::TestServer;

/// Which scenarios `replay.py` is asked to play.
#[derive(Clone, Copy)]
struct Choice {
    skip_quirks: bool,
    better: bool,
    skip_unauthenticated: bool,
}

#[test]
fn strict_as_recorded() {
    replay("strict", Choice { skip_quirks: true, better: false, skip_unauthenticated: true });
}

#[test]
fn strict_where_the_reference_errs() {
    replay("strict", Choice { skip_quirks: false, better: true, skip_unauthenticated: true });
}

#[test]
fn compat_as_recorded() {
    replay("compat", Choice { skip_quirks: true, better: false, skip_unauthenticated: false });
}

#[test]
fn compat_where_the_reference_errs() {
    replay("compat", Choice { skip_quirks: false, better: true, skip_unauthenticated: false });
}

fn replay(auth: &str, choice: Choice) {
    let server = TestServer::builder().option("auth", auth).start();
    let mut command = Command::new("python3");
    command.arg(folder().join("replay.py")).arg("--node").arg(server.address().to_string()).args(["--jobs", "8"]);
    for (wanted, option) in [
        (choice.skip_quirks, "--skip-quirks"),
        (choice.better, "--better"),
        (choice.skip_unauthenticated, "--skip-unauthenticated"),
    ] {
        if wanted {
            command.arg(option);
        }
    }
    let result = command.args(scenario_files()).output();
    let output = result.unwrap_or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            panic!("this test needs python3: install it, on Debian with `apt-get install python3`")
        }
        _ => panic!("cannot run python3: {error}"),
    });
    let printed = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    let (played, skipped) = expected_counts(choice);
    assert!(played > 100, "only {played} scenarios to play: are the files complete?");
    let summary = format!("{played} passed, 0 failed, {skipped} skipped");
    assert_eq!(printed.lines().last(), Some(summary.as_str()), "{printed}{complaint}");
    assert_eq!(output.status.code(), Some(0), "{printed}{complaint}");
}

/// How many scenarios one node can play under `choice`, and how many are left out.
fn expected_counts(choice: Choice) -> (usize, usize) {
    let (mut played, mut skipped) = (0, 0);
    for file in scenario_files() {
        let text = fs::read_to_string(&file).expect("read a scenario file");
        let scenarios: Vec<Value> = serde_json::from_str(&text).expect("a scenario file is a list");
        for scenario in scenarios {
            if is_played(&scenario, choice) {
                played += 1;
            } else {
                skipped += 1;
            }
        }
    }
    (played, skipped)
}

fn is_played(scenario: &Value, choice: Choice) -> bool {
    let quirk = scenario["cpp_quirk"] == true;
    let left_out = quirk && (choice.skip_quirks || (choice.better && scenario.get("better_steps").is_none()));
    let needs_more_nodes = scenario["nodes"].as_u64().unwrap_or(1) > 1;
    let unauthenticated = scenario["unauthenticated"] == true && choice.skip_unauthenticated;
    !left_out && !needs_more_nodes && !unauthenticated
}

fn scenario_files() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).expect("list the scenario files");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("list the scenario files").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}
