//! `scripts/cluster.sh`: a cluster on this machine is started, repaired and stopped, with nothing
//! left behind.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use testkit::{LONG_PATIENCE, Lines, TestClient, chat, exit_within, output_within, password, signal, watchdog};

/// The longest time for one run of the script, which installs and starts a MariaDB.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(300);

/// The cluster of one test. Dropping it stops the cluster and removes its folder.
struct Script {
    folder: PathBuf,
}

impl Script {
    fn new() -> Script {
        let folder = std::env::temp_dir().join(format!("raybox-cluster-{}", process::id()));
        fs::create_dir_all(&folder).expect("create a folder for the cluster");
        Script { folder }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster.sh");
        let mut command = Command::new(script);
        command.args(arguments).env("RUN", &self.folder).env("SERVER", env!("CARGO_BIN_EXE_server"));
        // The developer's settings must not reach the script.
        for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RAYBOX_")) {
            command.env_remove(variable);
        }
        output_within(SCRIPT_PATIENCE, &mut command).expect("run scripts/cluster.sh")
    }

    /// Runs the script, which must succeed. Returns its standard output.
    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {}\n{stdout}\n{stderr}", output.status);
        assert_eq!(stderr, "", "{arguments:?} complains");
        stdout.into_owned()
    }

    fn address(&self, name: &str) -> SocketAddr {
        let port = fs::read_to_string(self.folder.join("ports").join(name)).expect("read a port");
        SocketAddr::from(([127, 0, 0, 1], port.trim().parse().expect("a port")))
    }

    /// The first lines that `logs` shows of a server.
    fn log_of(&self, server: usize) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster.sh");
        let mut command = Command::new(script);
        command.args(["logs", &server.to_string()]).env("RUN", &self.folder).stdout(Stdio::piped());
        // The script replaces itself by `tail`, which follows the log until it is killed.
        let mut follower = command.spawn().expect("run scripts/cluster.sh");
        watchdog::watch(&follower, false);
        let mut shown = String::new();
        let lines = Lines::of(follower.stdout.take().expect("its output"));
        while !shown.contains("listening") {
            let Some(line) = lines.next_within(LONG_PATIENCE) else { break };
            shown.push_str(&line);
        }
        let _ = follower.kill();
        exit_within(LONG_PATIENCE, &mut follower);
        shown
    }

    /// The PIDs that the script has recorded as started.
    fn pids(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.folder).expect("list the folder");
        let notes = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("process")).ok());
        let mut pids: Vec<u32> =
            notes.map(|note| note.split(' ').next().unwrap_or("").parse().expect("a pid")).collect();
        pids.sort_unstable();
        pids
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.run(&["down"]);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn is_running(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// The number of processes with this folder in their command line.
fn processes_of(folder: &Path) -> usize {
    let folder = folder.to_string_lossy().into_owned();
    let entries = fs::read_dir("/proc").expect("list /proc");
    let commands = entries.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    commands.filter(|command| String::from_utf8_lossy(command).contains(&folder)).count()
}

/// Connects with long patience: the script's servers hash passwords at full cost, in a thread that
/// all other work on this machine comes before.
fn connect(address: SocketAddr) -> TestClient {
    let mut client = TestClient::connect_to(address);
    client.set_patience(LONG_PATIENCE);
    client
}

/// The names of the nodes on the status page that have answered.
fn nodes_shown(admin: SocketAddr) -> Vec<String> {
    let mut stream = TcpStream::connect(admin).expect("connect to the admin port");
    write!(stream, "GET /status.json HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").expect("ask");
    stream.set_read_timeout(Some(LONG_PATIENCE)).expect("an option");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let status: Value = serde_json::from_str(body).expect("JSON");
    let nodes = status["nodes"].as_array().expect("nodes");
    let answering = nodes.iter().filter(|row| row["trouble"].is_null());
    answering.filter_map(|row| Some(row["node"]["name"].as_str()?.to_owned())).collect()
}

fn new_user(address: SocketAddr, name: &str) -> (TestClient, i64) {
    let mut client = connect(address);
    let id = client.register(name, &password(name));
    client.login(id, &password(name));
    (client, id)
}

#[test]
fn a_cluster_goes_up_is_mended_and_goes_down() {
    let script = Script::new();
    let is_up = || script.run(&["status"]).status.success();
    assert!(!is_up(), "nothing was started");
    script.succeeds(&["up", "2"]);
    assert!(is_up());

    // The status page of each server shows both.
    for (server, expected) in [("admin1", ["server1", "server2"]), ("admin2", ["server2", "server1"])] {
        testkit::wait_until("both are shown", || nodes_shown(script.address(server)) == expected);
    }

    // Users of different servers talk to each other. One behind nginx talks to both.
    let (mut ann, a) = new_user(script.address("server1"), "ann");
    let (mut bob, b) = new_user(script.address("server2"), "bob");
    let (mut eve, e) = new_user(script.address("nginx"), "eve");
    ann.send(&chat(a, b, "from one server to the other"));
    bob.expect(&chat(a, b, "from one server to the other"));
    for (client, id) in [(&mut ann, a), (&mut bob, b)] {
        client.send(&chat(id, e, "and through nginx"));
        eve.expect(&chat(id, e, "and through nginx"));
    }

    let before = script.pids();
    script.succeeds(&["up", "2"]);
    assert_eq!(script.pids(), before, "what runs is left as it is");

    let server2 = fs::read_to_string(script.folder.join("server2/process")).expect("read its note");
    let server2 = server2.split(' ').next().expect("a pid");
    signal(server2.parse().expect("a number"), "KILL");
    testkit::wait_until("the server's end is seen", || !is_up());
    script.succeeds(&["up", "2"]);
    assert!(is_up());
    let mut bob = connect(script.address("server2"));
    bob.login(b, &password("bob"));
    ann.send(&chat(a, b, "again"));
    bob.expect(&chat(a, b, "again"));

    let before = script.pids();
    script.succeeds(&["restart", "1"]);
    let after = script.pids();
    assert_eq!(before.iter().filter(|pid| !after.contains(pid)).count(), 1, "one process was replaced");
    assert!(is_up());
    for wrong in [&["restart", "7"][..], &["restart"], &["restart", "all"], &["logs", "7"], &["logs"]] {
        let output = script.run(wrong);
        assert!(!output.status.success() && output.stdout.is_empty(), "{wrong:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("cluster.sh: "), "{wrong:?} says why");
    }
    assert!(script.log_of(1).contains("listening"), "the log of the server that was started again");

    let pids = script.pids();
    assert_eq!(pids.len(), 5, "MariaDB, Redis, two servers and nginx");
    script.succeeds(&["down"]);
    assert!(!pids.into_iter().any(is_running));
    assert_eq!(processes_of(&script.folder), 0);
    script.succeeds(&["down"]);
    assert!(!is_up());
    script.succeeds(&["clean"]);
    assert!(!script.folder.exists(), "nothing is left");
    script.succeeds(&["clean"]);
}

#[test]
fn a_folder_that_the_script_has_not_made_is_not_deleted() {
    let folder = std::env::temp_dir().join(format!("raybox-not-a-cluster-{}", process::id()));
    fs::create_dir_all(&folder).expect("create a folder");
    fs::write(folder.join("letter"), "dear").expect("write a file");
    let script = Script { folder };
    let output = script.run(&["clean"]);
    assert!(!output.status.success());
    assert_eq!(fs::read_to_string(script.folder.join("letter")).expect("the file is there"), "dear");
}
