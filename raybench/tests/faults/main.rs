//! raybench against a server that makes mistakes. raybench must report each mistake, and none if
//! there is none.

#![expect(clippy::disallowed_methods, reason = "timeout(1) kills a command that does not exit")]

use std::collections::HashMap;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use testkit::{LONG_PATIENCE, accept_within, rest_within};

mod server;

use server::{Fault, start, start_nodes};

/// The output of a run.
struct Said {
    result: Value,
    code: Option<i32>,
    text: String,
}

impl Said {
    fn count(&self, name: &str) -> u64 {
        self.run()["counts"][name].as_u64().expect("a number")
    }

    fn run(&self) -> &Value {
        &self.result["runs"][0]
    }

    fn figure(&self, name: &str) -> Option<f64> {
        let figures = self.run()["rounds"][0]["figures"].as_array().expect("figures");
        figures.iter().find(|figure| figure["name"] == name)?["value"].as_f64()
    }

    fn slices(&self) -> Vec<u64> {
        serde_json::from_value(self.run()["rounds"][0]["slices"].clone()).expect("numbers")
    }

    fn times(&self, of: &str) -> u64 {
        let times = self.run()["times"].as_array().expect("times");
        times.iter().find(|times| times["of"] == of).expect(of)["count"].as_u64().expect("a number")
    }

    fn assert_complete(&self) {
        assert_eq!((self.code, &self.run()["complete"]), (Some(0), &json!(true)), "{}", self.text);
        assert_eq!(self.count("lost"), 0);
    }

    fn assert_incomplete(&self) {
        assert_eq!((self.code, &self.run()["complete"]), (Some(3), &json!(false)), "{}", self.text);
        assert!(self.text.starts_with("INCOMPLETE"), "{}", self.text);
    }
}

/// The longest time for a run. Where timeout(1) runs raybench, it ends earlier.
const SAID_PATIENCE: Duration = Duration::from_secs(120);

/// A raybench that is killed if it does not exit by itself.
fn raybench() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--signal=KILL", "100", env!("CARGO_BIN_EXE_raybench"), "--quiet"]);
    command
}

/// A short run.
fn measure(workload: &str, more: &[&str]) -> Said {
    let mut command = raybench();
    command.args(["--json", "-"]).args(workload.split(' ')).args(more);
    let is_timed = !["offline", "ramp", "login --first"].iter().any(|untimed| workload.starts_with(untimed));
    command.args(is_timed.then_some(["--seconds", "0.3", "--warm-up", "0"]).into_iter().flatten());
    said(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts"))
}

fn said(child: Child) -> Said {
    let output = rest_within(SAID_PATIENCE, child);
    let text = String::from_utf8(output.stderr).expect("text");
    let result = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {text}"));
    Said { result, code: output.status.code(), text }
}

/// A short run against a server with this fault.
fn run(workload: &str, fault: Fault) -> Said {
    let (_server, address) = start(fault);
    let loses = matches!(fault, Fault::Loses | Fault::Alters | Fault::Misdelivers | Fault::Closes | Fault::Babbles);
    let talks = workload.starts_with("pairs") || workload.starts_with("group");
    // A shorter patience than the default, so that the tests take less time.
    let patience = if loses && talks { ["--patience", "1"].as_slice() } else { &[] };
    measure(workload, &[["--address", &address.to_string()].as_slice(), patience].concat())
}

const PAIR: &str = "pairs --pairs 1 --window 8";

#[test]
fn a_good_server_is_found_good() {
    for workload in
        [PAIR, "pairs --pairs 2 --rate 300", "pairs --pairs 1 --bystanders 3", "group --members 4 --senders 2"]
    {
        let said = run(workload, Fault::None);
        said.assert_complete();
        let receivers = if workload.starts_with("group") { 3 } else { 1 };
        assert_eq!(said.count("sent") * receivers, said.count("delivered"), "{workload}");
        assert!(said.times("delivery") > 0 && said.slices().iter().sum::<u64>() > 0, "{workload}");
        assert!(said.slices().len() >= 3 && said.figure("generator CPU").is_some(), "{workload}");
    }
}

#[test]
fn several_nodes_are_found_good() {
    let (server, addresses) = start_nodes(Fault::None, 2);
    let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
    measure("cross --pairs 4", &["--address", &addresses.join(",")]).assert_complete();
    let state = server.state.lock().expect("a lock");
    let ports = state.connections.values().map(|connection| connection.local_addr().expect("an address").port());
    let mut counts = HashMap::new();
    ports.for_each(|port| *counts.entry(port).or_insert(0) += 1);
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [4, 4], "the two of a pair are on different nodes");
}

#[test]
fn a_lost_message_is_seen() {
    for workload in ["pairs --pairs 1 --rate 1000", "group --members 4 --window 50"] {
        let said = run(workload, Fault::Loses);
        said.assert_incomplete();
        assert!(said.count("lost") > 0 && said.text.contains("in no percentile"), "{}", said.text);
        assert!(said.text.contains("nothing more came within 1 s"), "{}", said.text);
        let receivers = if workload.starts_with("group") { 3 } else { 1 };
        assert_eq!(said.count("sent") * receivers, said.count("lost") + said.count("delivered"), "{}", said.text);
    }
}

#[test]
fn a_duplicate_is_seen_and_does_not_count_as_throughput() {
    let said = run(PAIR, Fault::Doubles);
    said.assert_incomplete();
    assert!(said.count("duplicated") > 0 && said.count("lost") == 0, "{}", said.text);
    assert!(said.slices().iter().sum::<u64>() <= said.count("sent"), "{}", said.text);
}

#[test]
fn a_duplicate_or_half_a_message_after_all_has_come_is_seen() {
    let said = run(PAIR, Fault::DoublesLate);
    said.assert_incomplete();
    assert!(said.count("duplicated") > 0, "{}", said.text);
    let said = run(PAIR, Fault::Trails);
    said.assert_incomplete();
    assert!(said.count("foreign") > 0, "{}", said.text);
}

#[test]
fn another_order_is_seen() {
    let said = run(PAIR, Fault::Reorders);
    said.assert_incomplete();
    assert!(said.count("reordered") > 0, "{}", said.text);
}

#[test]
fn an_altered_message_is_seen() {
    let said = run(PAIR, Fault::Alters);
    said.assert_incomplete();
    assert!(said.count("foreign") > 0, "{}", said.text);
}

#[test]
fn a_message_to_another_user_is_seen() {
    let said = run("pairs --pairs 2 --window 8", Fault::Misdelivers);
    said.assert_incomplete();
    assert!(said.count("foreign") > 0 && said.count("lost") > 0, "{}", said.text);
}

#[test]
fn a_server_that_never_stops_is_not_waited_for() {
    let said = run(PAIR, Fault::Babbles);
    said.assert_incomplete();
    assert!(said.count("foreign") > 0 && said.count("lost") == 0, "{}", said.text);
}

#[test]
fn a_closed_connection_is_seen() {
    let said = run("pairs --pairs 2 --window 8", Fault::Closes);
    said.assert_incomplete();
    assert!(said.count("closed") > 0, "{}", said.text);
}

#[test]
fn faults_at_bystanders_are_seen() {
    for (fault, count) in [(Fault::Disturbs, "foreign"), (Fault::ClosesBystander, "closed")] {
        let said = run("pairs --pairs 1 --window 8 --bystanders 1", fault);
        said.assert_incomplete();
        assert_eq!((said.count(count), said.count("lost")), (1, 0), "{}", said.text);
    }
}

#[test]
fn a_freeze_at_the_end_is_in_the_percentiles_and_in_the_slices() {
    let said = run("pairs --pairs 1 --rate 200", Fault::Freezes);
    said.assert_complete();
    assert!(said.times("delivery") > 0, "{}", said.text);
    assert!(said.figure("max").is_some_and(|ms| ms >= 500.0), "{}", said.text);
    assert!(said.slices().len() >= 3, "{:?}", said.slices());
}

#[test]
fn a_server_killed_midway_still_gives_counts() {
    let (server, address) = start(Fault::Dies);
    let process = Command::new("sleep").arg("1000").spawn().expect("it starts");
    let pid = process.id().to_string();
    server.state.lock().expect("a lock").process = Some(process);
    let said = measure(PAIR, &["--address", &address.to_string(), "--pid", &pid]);
    said.assert_incomplete();
    assert_eq!(said.count("closed"), 2, "{}", said.text);
    assert!(said.figure("rate").is_some() && said.figure("CPU used").is_none(), "{}", said.text);
    assert!(said.text.contains(&format!("process {pid}")), "{}", said.text);
}

#[test]
fn a_missing_process_is_reported_before_the_run_begins() {
    let (server, address) = start(Fault::None);
    let mut ended = Command::new("true").spawn().expect("it starts");
    ended.wait().expect("it ends");
    let output =
        raybench().args(["pairs", "--address", &address.to_string(), "--pid", &ended.id().to_string()]).output();
    let output = output.expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("process {}", ended.id())), "{error}");
    assert_eq!(server.state.lock().expect("a lock").registered, 0);
}

#[test]
fn a_run_at_an_unreachable_rate_ends_and_reports_it() {
    let said = measure("pairs --pairs 2 --rate 10000000", &["--relay"]);
    said.assert_complete();
    assert!(said.text.contains("could not keep the rate"), "{}", said.text);
    let rates = &said.run()["rounds"][0]["rates"];
    assert_eq!(rates["asked"], 1e7);
    assert!(rates["reached"].as_f64().is_some_and(|rate| rate > 0.0 && rate < 1e7), "{rates}");
}

#[test]
fn logins_are_measured() {
    for more in ["", " --reconnect", " --first"] {
        let said = run(&format!("login{more} --connections 3 --users 7"), Fault::None);
        said.assert_complete();
        assert!(said.times("reply") > 0 && said.figure("rate") > Some(0.0), "{more}: {}", said.text);
        if more == " --first" {
            assert_eq!((said.count("delivered"), said.times("reply")), (14, 7), "with the logouts");
        }
    }
}

#[test]
fn a_refused_or_closed_login_is_seen() {
    for fault in [Fault::RefusesLogins, Fault::ClosesAtLogin] {
        for workload in ["login --first --connections 2 --users 8", "ramp --connections 8 --users 8 --over 0.1"] {
            let said = run(workload, fault);
            said.assert_incomplete();
            assert!(said.count("lost") > 0, "{fault:?}, {workload}: {}", said.text);
            assert_eq!(fault == Fault::RefusesLogins, said.text.contains("--accounts"), "{}", said.text);
        }
    }
}

#[test]
fn a_ramp_tells_the_first_reply_from_the_login() {
    let said = run("ramp --connections 20 --users 4 --over 0.2", Fault::None);
    said.assert_complete();
    assert_eq!(said.count("delivered"), 40);
    assert_eq!((said.times("404 since it was due"), said.times("login after it")), (20, 20));
}

#[test]
fn idle_connections_are_found_good() {
    let said = run("idle --connections 6 --users 3", Fault::None);
    said.assert_complete();
    assert_eq!(said.count("delivered"), 6);
}

#[test]
fn messages_for_the_absent_are_fetched_and_counted() {
    let said = run("offline --senders 2 --messages 120", Fault::None);
    said.assert_complete();
    assert_eq!((said.count("sent"), said.count("delivered")), (240, 240));
    assert_eq!(said.slices().iter().sum::<u64>(), 240);
    assert_eq!(said.times("fetch"), 6, "three pages for each");
    assert!(said.result["settings"].get("seconds").is_none(), "they do not count");
    let said = run("offline --senders 2 --messages 120", Fault::Loses);
    said.assert_incomplete();
    assert_eq!((said.count("delivered"), said.count("lost")), (238, 2));
    assert_eq!(said.slices().iter().sum::<u64>(), 238);
}

#[test]
fn ctrl_c_prints_the_result_so_far() {
    let (server, address) = start(Fault::None);
    let mut command = Command::new(env!("CARGO_BIN_EXE_raybench"));
    command.args(["--quiet", "--seconds", "1000", "--warm-up", "0", "--json", "-", "--address", &address.to_string()]);
    let child = command.args(PAIR.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let deadline = Instant::now() + Duration::from_secs(30);
    while server.state.lock().expect("a lock").forwarded < 100 {
        assert!(Instant::now() < deadline, "it sends nothing");
        thread::sleep(Duration::from_millis(1));
    }
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).expect("it runs");
    let said = said(child);
    assert_eq!(said.code, Some(130), "{}", said.text);
    assert_eq!(said.run()["interrupted"], true);
    assert!(said.text.starts_with("INCOMPLETE (interrupted)"), "{}", said.text);
    assert!(said.count("delivered") >= 100 && said.count("lost") == 0, "{}", said.text);
}

#[test]
fn ctrl_c_is_seen_while_a_server_is_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let mut command = raybench();
    command.args(["pairs", "--pairs", "1", "--address", &address]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("it starts");
    let mut silent = accept_within(LONG_PATIENCE, &listener);
    silent.read_exact(&mut [0]).expect("it asks, and waits");
    // The signal goes to timeout(1), which passes it on.
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    let output = rest_within(SAID_PATIENCE, child);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(130) && error.contains("interrupted"), "{:?} {error}", output.status);
}

#[test]
fn a_full_disk_is_reported_and_other_outputs_are_written() {
    let page = std::env::temp_dir().join(format!("raybench-full-{}.html", std::process::id()));
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let run = ["pairs", "--pairs", "2", "--seconds", "0.1", "--warm-up", "0", "--report"];
    for (more, named) in [([].as_slice(), "standard output"), (&["--json", "/dev/full"], "/dev/full")] {
        let mut command = raybench();
        command.arg("--relay").args(run).arg(&page).args(more);
        if more.is_empty() {
            command.stdout(full());
        }
        let output = command.output().expect("it starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && error.contains(named), "{:?} {error}", output.status);
        std::fs::remove_file(&page).expect("a page");
    }
    let mut command = raybench();
    command.args(["compare", "-a", "relay", "-b", "relay", "--rounds", "1"]).args(run).arg(&page).stderr(full());
    assert!(command.output().expect("it starts").status.success());
    std::fs::remove_file(&page).expect("a page");
}

#[test]
fn a_device_holds_no_accounts() {
    let (_server, address) = start(Fault::None);
    let run = raybench().args(["pairs", "--accounts", "/dev/null", "--address", &address.to_string()]).output();
    let run = run.expect("it starts");
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.code() == Some(1) && error.contains("/dev/null: this is no file"), "{error}");
}

#[test]
fn a_frame_of_the_greatest_size_is_taken() {
    let run = raybench()
        .args(["pairs", "--pairs", "2", "--relay", "--seconds", "0.1", "--warm-up", "0", "--size", "131072"])
        .args(["--window", "4"])
        .output()
        .expect("it starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
}

#[test]
fn the_relay_is_found_good_alone_in_pairs_and_in_groups() {
    for workload in [["pairs", "--pairs", "3"], ["pairs", "--window", "16"], ["group", "--members", "5"]] {
        for bare in [false, true] {
            let mut command = raybench();
            command.args(workload).args(["--relay", "--seconds", "0.2", "--warm-up", "0"]);
            let run = command.args(bare.then_some("--bare")).output().expect("it starts");
            assert!(run.status.success(), "{workload:?}: {}", String::from_utf8_lossy(&run.stdout));
        }
    }
}

#[test]
fn a_comparison_prints_ratios_and_writes_a_page() {
    let page = std::env::temp_dir().join(format!("raybench-test-{}.html", std::process::id()));
    let run = raybench()
        .args(["compare", "-a", "relay", "-b", "relay", "--rounds", "2", "--seconds", "0.3", "--warm-up", "0"])
        .args(["pairs", "--pairs", "2", "--report"])
        .arg(&page)
        .output()
        .expect("it starts");
    let output = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success() && output.contains("per CPU-second"), "{output}");
    let html = std::fs::read_to_string(&page).expect("a page");
    let _ = std::fs::remove_file(&page);
    assert_eq!(html.matches("<svg").count(), 2, "times and throughput");
    // Nothing is loaded from other hosts; the namespace of SVG is only a name.
    assert!(html.split("http://").skip(1).all(|rest| rest.starts_with("www.w3.org/2000/svg")));
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let run = raybench().args(["pairs", "--address", &address]).output().expect("it starts");
    let error = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.code() == Some(1) && error.contains(&format!("cannot connect to {address}")), "{error}");
}

#[test]
fn a_file_or_address_that_cannot_be_used_is_named() {
    let run = raybench().args(["pairs", "--relay", "--json", "/nowhere/result.json"]).output().expect("it starts");
    let error = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.code() == Some(1) && error.contains("/nowhere/result.json"), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let run = raybench().args(["relay", "--listen", &address]).output().expect("it starts");
    let error = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.code() == Some(1) && error.contains(&address), "{error}");
}
