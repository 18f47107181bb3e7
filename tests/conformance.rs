//! Plays the recorded exchanges of `tests/conformance` against this server, in both modes of
//! `auth`. The servers are: one embedded node; two nodes on MariaDB and Redis, also with the
//! reference server's tables; and two nodes behind nginx. There each node has a port of its own in
//! nginx, because the scenarios name the node of each client. `tests/cluster` tests clients that
//! nginx spreads over the nodes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;
use std::{fs, io};

use serde_json::Value;
use testkit::{Builder, Cluster, Database, LONG_PATIENCE, Neighbour, Nginx, Redis, TestServer, output_within};

/// Faults of the reference server for which `auth=compat` exists. In that mode they are played as
/// recorded.
const RIGHT_IN_COMPAT: [&str; 1] = ["logout-somebody-else"];

/// The longest time for all scenarios. Each of them has a shorter one of its own.
const REPLAY_PATIENCE: Duration = LONG_PATIENCE.saturating_mul(4);

/// The scenarios that `replay.py` should play.
#[derive(Clone, Copy)]
struct Choice {
    auth: &'static str,
    /// Whether recordings of the reference's faults are played, with a correct server's behaviour.
    /// Otherwise they are left out.
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

/// One of our nodes beside a stand-in for a node of the reference server, on the reference's
/// tables. The stand-in relies on `User.state`, which must be right as soon as a login or logout is
/// answered.
mod beside_the_reference_server {
    use super::*;

    #[test]
    fn clients_of_our_node() {
        let (server, neighbour, _services) = mixed();
        replay_some(&[server.address(), neighbour.address()], &["cluster.json", "sessions.json"], "");
    }

    #[test]
    fn clients_of_the_reference_server() {
        let (server, neighbour, _services) = mixed();
        replay_some(&[neighbour.address(), server.address()], &["cluster.json"], "cluster-");
    }

    fn mixed() -> (TestServer, Neighbour, (Database, Redis)) {
        let (database, redis) = (Database::create_reference(), Redis::start());
        let neighbour = Neighbour::start(&database, &redis);
        let server = TestServer::builder().mysql(&database).redis(&redis).start();
        (server, neighbour, (database, redis))
    }

    /// Plays the recordings several times, because a state that is written late is not late every
    /// time.
    fn replay_some(nodes: &[SocketAddr], files: &[&str], filter: &str) {
        let mut command = replayer(nodes);
        command.args(["--skip-quirks", "--skip-unauthenticated", "--filter", filter]);
        command.args(files.iter().map(|file| folder().join(file)));
        for _ in 0..3 {
            let (printed, complaint) = run(&mut command);
            let summary = printed.lines().last().unwrap_or_default();
            assert!(summary.contains(" passed, 0 failed, ") && !summary.starts_with("0 "), "{printed}{complaint}");
        }
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

/// The limits of the reference's tables count as faults of the reference: a message over 500
/// characters does not fit.
fn on_reference_tables(choice: Choice) {
    let options = |builder: Builder| builder.option("auth", choice.auth);
    let cluster = Cluster::start_on(Database::create_reference(), Redis::start(), 2, options);
    replay(&cluster.addresses(), choice);
}

fn two(choice: Choice) -> Cluster {
    Cluster::start_with(2, |builder| builder.option("auth", choice.auth))
}

fn replay(nodes: &[SocketAddr], choice: Choice) {
    let mut command = replayer(nodes);
    command.arg(if choice.better { "--better" } else { "--skip-quirks" });
    if choice.skips_unauthenticated() {
        command.arg("--skip-unauthenticated");
    }
    let (printed, complaint) = run(command.args(scenario_files(choice)));
    let (played, skipped) = expected_counts(nodes.len(), choice);
    assert!(played > 100, "only {played} scenarios to play: are the files complete?");
    let summary = format!("{played} passed, 0 failed, {skipped} skipped");
    assert_eq!(printed.lines().last(), Some(summary.as_str()), "{printed}{complaint}");
}

fn replayer(nodes: &[SocketAddr]) -> Command {
    let mut command = Command::new("python3");
    command.arg(folder().join("replay.py")).args(["--jobs", "8", "--timeout", "30"]);
    for node in nodes {
        command.arg("--node").arg(node.to_string());
    }
    command
}

/// Runs the replayer. Returns its output and its complaints.
fn run(command: &mut Command) -> (String, String) {
    let output = output_within(REPLAY_PATIENCE, command).unwrap_or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            panic!("this test needs python3: install it, on Debian with `apt-get install python3`")
        }
        _ => panic!("cannot run python3: {error}"),
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, complaint) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{printed}{complaint}");
    (printed, complaint)
}

/// The number of scenarios that this number of nodes can play under `choice`, and the number of the
/// others.
fn expected_counts(nodes: usize, choice: Choice) -> (usize, usize) {
    let (mut played, mut skipped) = (0, 0);
    for file in scenario_files(choice) {
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

/// The recordings. For `auth=compat` they are copies in which [`RIGHT_IN_COMPAT`] does not count as
/// a fault.
fn scenario_files(choice: Choice) -> Vec<PathBuf> {
    static FOR_COMPAT: LazyLock<Vec<PathBuf>> = LazyLock::new(|| recordings().iter().map(|file| adapt(file)).collect());
    if choice.auth == "compat" { FOR_COMPAT.clone() } else { recordings() }
}

fn adapt(file: &Path) -> PathBuf {
    let text = fs::read_to_string(file).expect("read a scenario file");
    let mut scenarios: Vec<Value> = serde_json::from_str(&text).expect("a scenario file is a list");
    for scenario in &mut scenarios {
        if RIGHT_IN_COMPAT.iter().any(|name| scenario["name"] == *name) {
            let scenario = scenario.as_object_mut().expect("a scenario is an object");
            for key in ["cpp_quirk", "better", "better_steps"] {
                scenario.remove(key);
            }
        }
    }
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file.file_name().expect("a file"));
    fs::write(&copy, serde_json::to_vec(&scenarios).expect("it was JSON")).expect("write a scenario file");
    copy
}

fn recordings() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).expect("list the scenario files");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("list the scenario files").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}
