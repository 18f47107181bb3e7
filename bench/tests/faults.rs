//! raybench against a server that makes mistakes: every one must be seen, and none where there is none.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// What the server does to every hundredth message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Loses,
    Doubles,
    /// Sends it after the next one.
    Reorders,
    Alters,
}

#[derive(Default)]
struct Server {
    connections: Mutex<HashMap<i64, TcpStream>>,
    registered: Mutex<i64>,
    /// Messages forwarded, and what is held back.
    forwarded: Mutex<(usize, Option<String>)>,
}

fn start(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let server = Arc::new(Server::default());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let server = server.clone();
            thread::spawn(move || serve(&server, &stream, fault));
        }
    });
    address
}

fn serve(server: &Server, stream: &TcpStream, fault: Fault) {
    let mut replies = stream;
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let request: Value = serde_json::from_str(&line).expect("raybench writes JSON");
        let reply = match request["msgType"].as_i64() {
            Some(1) => {
                let id = request["USERID"].as_i64().expect("an id");
                let connection = stream.try_clone().expect("a descriptor");
                server.connections.lock().expect("a lock").insert(id, connection);
                json!({"errno": 200, "msgType": 200})
            }
            Some(2) => {
                let mut registered = server.registered.lock().expect("a lock");
                *registered += 1;
                json!({"USERID": *registered, "errno": 200, "msgType": 200})
            }
            _ => {
                forward(server, request["TOID"].as_i64().expect("a recipient"), line, fault);
                continue;
            }
        };
        if writeln!(replies, "{reply}").is_err() {
            return;
        }
    }
}

fn forward(server: &Server, to: i64, line: String, fault: Fault) {
    let mut forwarded = server.forwarded.lock().expect("a lock");
    forwarded.0 += 1;
    let lines = match (fault, forwarded.0 % 100) {
        (Fault::Loses, 0) => vec![],
        (Fault::Doubles, 0) => vec![line.clone(), line],
        (Fault::Alters, 0) => vec![line.replace("abc", "abd")],
        (Fault::Reorders, 0) => {
            forwarded.1 = Some(line);
            vec![]
        }
        _ => [Some(line), forwarded.1.take()].into_iter().flatten().collect(),
    };
    let connections = server.connections.lock().expect("a lock");
    for line in lines {
        // The client may have gone.
        let _ = writeln!(&connections[&to], "{line}");
    }
}

/// The counts of a short run with one pair, and whether it was called complete.
fn run(fault: Fault) -> (Value, bool) {
    let address = start(fault).to_string();
    let run = Command::new(env!("CARGO_BIN_EXE_raybench"))
        .args([
            "pairs",
            "--pairs",
            "1",
            "--window",
            "8",
            "--seconds",
            "0.3",
            "--warm-up",
            "0",
            "--quiet",
            "--json",
            "-",
        ])
        .args(["--address", &address])
        .output()
        .expect("it starts");
    let output = String::from_utf8(run.stdout).expect("text");
    let json = output.lines().last().expect("a result");
    let result: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {output}"));
    let counts = result["runs"][0]["counts"].clone();
    assert!(counts["sent"].as_u64() > Some(8), "{counts}");
    assert_eq!(result["runs"][0]["complete"], run.status.success(), "the exit code says it too");
    (counts, run.status.success())
}

fn count(counts: &Value, name: &str) -> u64 {
    counts[name].as_u64().expect("a number")
}

#[test]
fn a_good_server_is_found_good() {
    let (counts, complete) = run(Fault::None);
    assert!(complete, "{counts}");
    assert_eq!(counts["sent"], counts["delivered"]);
}

#[test]
fn what_is_lost_is_seen() {
    let (counts, complete) = run(Fault::Loses);
    assert!(!complete && count(&counts, "lost") > 0, "{counts}");
    assert_eq!(count(&counts, "sent"), count(&counts, "lost") + count(&counts, "delivered"), "{counts}");
}

#[test]
fn what_comes_twice_is_seen() {
    let (counts, complete) = run(Fault::Doubles);
    assert!(!complete && count(&counts, "duplicated") > 0, "{counts}");
    assert_eq!(count(&counts, "lost"), 0);
}

#[test]
fn what_comes_in_another_order_is_seen() {
    let (counts, complete) = run(Fault::Reorders);
    assert!(!complete && count(&counts, "reordered") > 0, "{counts}");
}

#[test]
fn what_is_altered_is_seen() {
    let (counts, complete) = run(Fault::Alters);
    assert!(!complete && count(&counts, "foreign") > 0, "{counts}");
}

#[test]
fn the_relay_is_found_good_alone_in_pairs_and_in_groups() {
    for workload in [["pairs", "--pairs", "3"], ["pairs", "--window", "16"], ["group", "--members", "5"]] {
        for bare in [false, true] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_raybench"));
            command.args(workload).args(["--relay", "--seconds", "0.2", "--warm-up", "0", "--quiet"]);
            let run = command.args(bare.then_some("--bare")).output().expect("it starts");
            assert!(run.status.success(), "{workload:?}: {}", String::from_utf8_lossy(&run.stdout));
        }
    }
}

#[test]
fn a_comparison_prints_ratios_and_writes_a_page() {
    let page = std::env::temp_dir().join(format!("raybench-test-{}.html", std::process::id()));
    let run = Command::new(env!("CARGO_BIN_EXE_raybench"))
        .args([
            "compare",
            "-a",
            "relay",
            "-b",
            "relay",
            "--rounds",
            "2",
            "--seconds",
            "0.3",
            "--warm-up",
            "0",
            "--quiet",
        ])
        .args(["pairs", "--pairs", "2", "--report"])
        .arg(&page)
        .output()
        .expect("it starts");
    let output = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success() && output.contains("per CPU-second"), "{output}");
    let html = std::fs::read_to_string(&page).expect("a page");
    let _ = std::fs::remove_file(&page);
    assert_eq!(html.matches("<svg").count(), 2, "times and throughput");
    // Nothing is fetched from anywhere; the name of SVG is none that is.
    assert!(html.split("http://").skip(1).all(|rest| rest.starts_with("www.w3.org/2000/svg")));
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let run = Command::new(env!("CARGO_BIN_EXE_raybench"))
        .args(["pairs", "--quiet", "--address", &address])
        .output()
        .expect("it starts");
    let error = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(!run.status.success() && error.contains(&format!("cannot connect to {address}")), "{error}");
}
