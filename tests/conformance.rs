//! Plays the recorded exchanges of `tests/conformance` against this server, in both modes of `auth`: one embedded node;
//! two nodes on MariaDB and Redis, also with the reference server's tables; and two nodes behind nginx. There each node
//! has a port of its own in nginx, since the scenarios say which node a client is on; clients that nginx spreads over
//! the nodes are in `tests/cluster`.

mod util;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use serde_json::Value;
use util::{Builder, Cluster, Database, Nginx, Redis, TestServer};

/// Which scenarios `replay.py` is asked to play.
#[derive(Clone, Copy)]
struct Choice {
    auth: &'static str,
    /// Where the reference errs: what a correct server does. Otherwise only what was recorded, without its errors.
    better: bool,
}

const STRICT_AS_RECORDED: Choice = Choice { auth: "strict", better: false };
const STRICT_WHERE_THE_REFERENCE_ERRS: Choice = Choice { auth: "strict", better: true };
const COMPAT_AS_RECORDED: Choice = Choice { auth: "compat", better: false };
const COMPAT_WHERE_THE_REFERENCE_ERRS: Choice = Choice { auth: "compat", better: true };

mod one_node {
    use super::*;

    #[test]
    fn strict_as_recorded() {
        on_one_node(STRICT_AS_RECORDED);
    }

    #[test]
    fn strict_where_the_reference_errs() {
        on_one_node(STRICT_WHERE_THE_REFERENCE_ERRS);
    }

    #[test]
    fn compat_as_recorded() {
        on_one_node(COMPAT_AS_RECORDED);
    }

    #[test]
    fn compat_where_the_reference_errs() {
        on_one_node(COMPAT_WHERE_THE_REFERENCE_ERRS);
    }
}

mod two_nodes {
    use super::*;

    #[test]
    fn strict_as_recorded() {
        on_two_nodes(STRICT_AS_RECORDED);
    }

    #[test]
    fn strict_where_the_reference_errs() {
        on_two_nodes(STRICT_WHERE_THE_REFERENCE_ERRS);
    }

    #[test]
    fn compat_as_recorded() {
        on_two_nodes(COMPAT_AS_RECORDED);
    }

    #[test]
    fn compat_where_the_reference_errs() {
        on_two_nodes(COMPAT_WHERE_THE_REFERENCE_ERRS);
    }
}

mod behind_nginx {
    use super::*;

    #[test]
    fn strict_as_recorded() {
        through_nginx(STRICT_AS_RECORDED);
    }

    #[test]
    fn strict_where_the_reference_errs() {
        through_nginx(STRICT_WHERE_THE_REFERENCE_ERRS);
    }

    #[test]
    fn compat_as_recorded() {
        through_nginx(COMPAT_AS_RECORDED);
    }

    #[test]
    fn compat_where_the_reference_errs() {
        through_nginx(COMPAT_WHERE_THE_REFERENCE_ERRS);
    }
}

mod on_the_reference_servers_tables {
    use super::*;

    #[test]
    fn strict_as_recorded() {
        on_reference_tables(STRICT_AS_RECORDED);
    }

    #[test]
    fn compat_as_recorded() {
        on_reference_tables(COMPAT_AS_RECORDED);
    }
}

fn on_one_node(choice: Choice) {
    let server = TestServer::builder().option("auth", choice.auth).start();
    replay(&[server.address()], choice);
}

fn on_two_nodes(choice: Choice) {
    let cluster = two(choice);
    replay(&cluster.addresses(), choice);
}

fn through_nginx(choice: Choice) {
    let cluster = two(choice);
    let nodes = cluster.addresses();
    let nginx = Nginx::balancing(&[&nodes[..1], &nodes[1..]]);
    replay(nginx.addresses(), choice);
}

/// Where the reference errs, its tables do: what is longer than 500 characters does not fit.
fn on_reference_tables(choice: Choice) {
    let options = |builder: Builder| builder.option("auth", choice.auth);
    let cluster = Cluster::start_on(Database::create_reference(), Redis::start(), 2, options);
    replay(&cluster.addresses(), choice);
}

fn two(choice: Choice) -> Cluster {
    Cluster::start_with(2, |builder| builder.option("auth", choice.auth))
}

fn replay(nodes: &[SocketAddr], choice: Choice) {
    let mut command = Command::new("python3");
    command.arg(folder().join("replay.py")).args(["--jobs", "8"]);
    for node in nodes {
        command.arg("--node").arg(node.to_string());
    }
    command.arg(if choice.better { "--better" } else { "--skip-quirks" });
    if choice.skips_unauthenticated() {
        command.arg("--skip-unauthenticated");
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
    let (played, skipped) = expected_counts(nodes.len(), choice);
    assert!(played > 100, "only {played} scenarios to play: are the files complete?");
    let summary = format!("{played} passed, 0 failed, {skipped} skipped");
    assert_eq!(printed.lines().last(), Some(summary.as_str()), "{printed}{complaint}");
    assert_eq!(output.status.code(), Some(0), "{printed}{complaint}");
}

/// How many scenarios so many nodes can play under `choice`, and how many are left out.
fn expected_counts(nodes: usize, choice: Choice) -> (usize, usize) {
    let (mut played, mut skipped) = (0, 0);
    for file in scenario_files() {
        let text = fs::read_to_string(&file).expect("read a scenario file");
        let scenarios: Vec<Value> = serde_json::from_str(&text).expect("a scenario file is a list");
        for scenario in scenarios {
            if is_played(&scenario, nodes, choice) {
                played += 1;
            } else {
                skipped += 1;
            }
        }
    }
    (played, skipped)
}

fn is_played(scenario: &Value, nodes: usize, choice: Choice) -> bool {
    let quirk = scenario["cpp_quirk"] == true;
    let left_out = quirk && (!choice.better || scenario.get("better_steps").is_none());
    let needs_more_nodes = scenario["nodes"].as_u64().unwrap_or(1) > nodes as u64;
    let unauthenticated = scenario["unauthenticated"] == true && choice.skips_unauthenticated();
    !left_out && !needs_more_nodes && !unauthenticated
}

impl Choice {
    fn skips_unauthenticated(self) -> bool {
        self.auth == "strict"
    }
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
