//! Shared by the black-box suites: a real server in a folder of its own, clients that speak the
//! public protocol, and waits for a condition instead of sleeps.
//!
//! Silence is never proved by waiting. Instead the test sends a cheap request, and its reply must
//! be the next frame to arrive: a *barrier*.

mod client;
mod cluster;
mod command;
mod deadline;
pub mod jwt;
mod leaks;
pub mod level2;
mod neighbour;
mod program;
mod qt;
mod server;
mod services;
pub mod tls;
mod victim;
pub mod watchdog;

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};

pub use client::{TestClient, assert_refusal};
pub use cluster::Cluster;
pub use command::{Ended, Running, Workplace};
pub use deadline::{Lines, accept_within, exit_within, output_within, rest_within, succeeds};
pub use leaks::{Footprint, GIVEN_BACK_WITHIN, Margin, wait_given_back};
pub use neighbour::Neighbour;
pub use qt::QtClient;
pub use server::{Builder, StoreLock, TestServer};
pub use services::{
    Database, Galera, MariaDb, Nginx, Redis, Replicas, Sentinel, ShardedRedis, Switch, WatchedRedis, free_port,
};
pub use victim::World;

/// How long a test waits for an expected event. Only a failing test ever waits this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Like [`PATIENCE`], for tests that move tens of megabytes or use slow hashing on purpose.
pub const LONG_PATIENCE: Duration = Duration::from_secs(90);

/// An id that no test ever registers.
pub const NOBODY: i64 = 2_000_000_001;

/// The fixed replies, byte for byte.
pub const ACK: &str = r#"{"errno":200,"msgType":200}"#;
pub const BAD_REQUEST: &str = r#"{"errmsg":"Failed to parse the json string!","errno":401,"msgType":401}"#;
pub const NO_SUCH_METHOD: &str =
    r#"{"errmsg":"No such method, failed to process your request!","errno":404,"msgType":404}"#;
pub const LOG_IN_FIRST: &str = r#"{"errmsg":"log in on this connection first","errno":403,"msgType":403}"#;
pub const NOT_YOU: &str = r#"{"errmsg":"log in as the user that the request names","errno":403,"msgType":403}"#;
pub const NOT_A_MEMBER: &str = r#"{"errmsg":"join the group before you write to it","errno":403,"msgType":403}"#;
pub const SERVER_ERROR: &str = r#"{"errmsg":"server error, try again later!","errno":500,"msgType":500}"#;
pub const WRONG_PASSWORD: &str = r#"{"errno":302,"msg":"wrong id or wrong password, try again.","msgType":200}"#;

/// Waits until `condition` holds; panics with `what` if it does not hold in time.
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, condition);
}

/// [`wait_until`] with a deadline of its own.
pub fn wait_within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {patience:?} in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a process the signal of this name.
pub fn signal(pid: u32, name: &str) {
    let is_sent = succeeds(Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()));
    assert!(is_sent, "cannot send SIG{name} to process {pid}");
}

/// Freezes a process with SIGSTOP, and waits until all its threads are stopped. A thread that still
/// runs could answer after the signal is sent.
pub fn freeze(pid: u32) {
    signal(pid, "STOP");
    wait_until("all threads of the process stand still", || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the threads of the process");
        threads.flatten().all(|thread| {
            // A thread that has ended meanwhile counts as stopped.
            let Ok(stat) = fs::read_to_string(thread.path().join("stat")) else { return true };
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't', 'X', 'Z']))
        })
    });
}

/// Sends a process and all others of its group the signal of this name.
fn signal_group(leader: u32, name: &str) {
    let is_sent = succeeds(Command::new("kill").args([&format!("-{name}"), "--", &format!("-{leader}")]));
    assert!(is_sent, "cannot send SIG{name} to the group of process {leader}");
}

/// Raises the limit on open descriptors of `process` to `needed`, if it is lower.
pub fn raise_descriptor_limit(process: u32, needed: usize) {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).expect("read /proc/PID/limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit of open files");
    let limits: Vec<usize> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [soft, hard] = limits[..] else { return };
    if soft >= needed {
        return;
    }
    let wanted = format!("--nofile={needed}:{}", hard.max(needed));
    let is_raised = succeeds(Command::new("prlimit").args(["--pid", &process.to_string(), &wanted]));
    assert!(is_raised, "{needed} open files are needed, {soft} allowed: raise `ulimit -n`");
}

/// Limits the size of the files that the server writes, which acts like a full disk.
pub fn limit_files(server: &TestServer, bytes: &str) {
    let limit = format!("--fsize={bytes}:unlimited");
    let is_limited = succeeds(Command::new("prlimit").args(["--pid", &server.pid().to_string(), &limit]));
    assert!(is_limited, "cannot limit the files of the server");
}

/// Sets a flag when it goes out of scope, also on a panic, so that a thread that watches the flag
/// always ends.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A client that registered as `name` and logged in, and its id.
pub fn user(server: &TestServer, name: &str) -> (TestClient, i64) {
    let mut client = TestClient::connect(server);
    let id = client.register(name, &password(name));
    client.login(id, &password(name));
    (client, id)
}

/// Registers a user who is not logged in.
pub fn offline_user(server: &TestServer, name: &str) -> i64 {
    TestClient::connect(server).register(name, &password(name))
}

/// A new connection of a user made by [`user`] or [`offline_user`].
pub fn login(server: &TestServer, name: &str, id: i64) -> TestClient {
    let mut client = TestClient::connect(server);
    client.login(id, &password(name));
    client
}

/// The password of the user called `name`.
pub fn password(name: &str) -> String {
    format!("pw-{name}")
}

/// A chat frame as the real client composes it.
pub fn chat(from: i64, to: i64, msg: &str) -> Value {
    json!({"msgType": 4, "FROMID": from, "TOID": to, "msg": msg, "sendTime": 1_702_556_908_737_i64})
}

/// A numbered chat frame, for tests of order and completeness.
pub fn numbered(from: i64, to: i64, n: usize) -> Value {
    json!({"msgType": 4, "FROMID": from, "TOID": to, "n": n})
}

/// A numbered chat frame with a long text.
pub fn numbered_with_text(from: i64, to: i64, n: usize, length: usize) -> Value {
    json!({"msgType": 4, "FROMID": from, "TOID": to, "n": n, "msg": "x".repeat(length)})
}

/// The number of a [`numbered`] frame.
pub fn number_of(frame: &Value) -> usize {
    let n = frame["n"].as_u64().unwrap_or_else(|| panic!("not a numbered frame: {frame}"));
    usize::try_from(n).expect("a small number")
}

/// Checks the messages of a recipient whose connection broke. The recipient read `live` from it and
/// fetched `stored` afterwards. Together they are 0..total in order; only messages around the break
/// may occur twice.
pub fn assert_covers(live: &[usize], stored: &[usize], total: usize) {
    let expected: Vec<usize> = (0..live.len()).collect();
    assert_eq!(live, expected, "the connection must have got a gapless prefix");
    let first = stored.first().copied().unwrap_or(total);
    assert!(first <= live.len(), "lost between {} read live and {first}, the first one stored", live.len());
    let expected: Vec<usize> = (first..total).collect();
    assert_eq!(stored, expected, "what was stored must go on in order up to the last message");
}

/// The text of a file, whose path begins at the root of the repository.
fn text_of(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// The members of the object `text`, in the order written. A repeated member is listed repeatedly.
pub fn members(text: &str) -> Vec<(String, Value)> {
    serde_json::from_str::<Members>(text).unwrap_or_else(|error| panic!("{error}: {text}")).0
}

/// Checks that no member of the object `text` occurs twice.
pub fn assert_no_repeated_member(text: &str) {
    let mut names: Vec<String> = members(text).into_iter().map(|(name, _)| name).collect();
    let written = names.len();
    names.sort();
    names.dedup();
    assert_eq!(written, names.len(), "a member is there twice: {text}");
}

struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}
