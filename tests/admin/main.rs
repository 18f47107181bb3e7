//! The admin port, tested from outside: health, readiness, and metrics that are true and well
//! formed. The status page is in [`status`].

mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirEntry};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use testkit::{LONG_PATIENCE, NOBODY, PATIENCE, TestClient, TestServer};
use testkit::{chat, login, numbered_with_text, offline_user, user, wait_until};

/// A server with an admin port.
pub(crate) fn start() -> (TestServer, SocketAddr) {
    let server = TestServer::builder().option("admin", "127.0.0.1:0").start();
    let address = admin_of(&server);
    (server, address)
}

/// The address of the admin port, from the banner.
pub(crate) fn admin_of(server: &TestServer) -> SocketAddr {
    let output = server.output();
    let banner = output.lines().next().expect("there is a banner");
    let (_, address) = banner.rsplit_once(", admin ").unwrap_or_else(|| panic!("no admin port: {banner}"));
    address.parse().unwrap_or_else(|error| panic!("{error}: {banner}"))
}

/// An answer of the admin port.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connect to the admin port");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    stream
}

pub(crate) fn send(address: SocketAddr, request: &str) -> Answer {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).expect("send a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read the answer");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no whole head: {text:?}"));
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {head}"));
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
}

pub(crate) fn wait_ready(address: SocketAddr) {
    wait_until("the server is ready", || get(address, "/readyz").status == 200);
}

/// The values of the metrics by full name, labels included.
fn numbers(address: SocketAddr) -> BTreeMap<String, f64> {
    let answer = get(address, "/metrics");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let series = answer.body.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        (name.to_owned(), value.parse().unwrap_or_else(|error| panic!("{error}: {line}")))
    });
    series.collect()
}

#[test]
fn there_is_no_admin_port_unless_it_is_set() {
    let server = TestServer::start();
    assert!(!server.output().contains("admin"), "{}", server.output());
    let mut names = Vec::new();
    // A thread sets its own name, and has the name of the process until then. The main thread never
    // sets one.
    wait_until("every thread has its name", || {
        names = thread_names(&server);
        names.iter().filter(|name| *name == "server").count() == 1 && names.iter().any(|name| name == "loop-0")
    });
    assert!(!names.iter().any(|name| ["admin", "health", "store-check"].contains(&name.as_str())), "{names:?}");
}

fn thread_names(server: &TestServer) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("list the threads");
    // A thread that has ended meanwhile has no name any more.
    let name = |thread: DirEntry| fs::read_to_string(thread.path().join("comm")).ok();
    threads.filter_map(|thread| name(thread.expect("a thread"))).map(|name| name.trim_end().to_owned()).collect()
}

#[test]
fn the_admin_port_answers_each_request() {
    let (server, admin) = start();
    wait_ready(admin);
    for (path, body) in
        [("/healthz", "ok\n"), ("/readyz?verbose=1", "loops: ok\nstore: ok\nrecorder: ok\nbus: ok\nrunning: ok\n")]
    {
        let answer = get(admin, path);
        assert_eq!((answer.status, answer.body.as_str()), (200, body), "{path}");
        assert!(answer.head.contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"), "{}", answer.head);
        assert!(answer.head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{}", answer.head);
    }
    let metrics = get(admin, "/metrics");
    assert!(metrics.head.contains("\r\nContent-Type: text/plain; version=0.0.4\r\n"), "{}", metrics.head);

    let head = send(admin, "HEAD /healthz HTTP/1.1\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("\r\nContent-Length: 3\r\n"), "{}", head.head);
    assert_eq!(get(admin, "/nothing").status, 404);
    let post = send(admin, "POST /metrics HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(post.status, 405);
    assert!(post.head.contains("\r\nAllow: GET, HEAD\r\n"), "{}", post.head);
    assert_eq!(send(admin, &json!({"msgType": 1}).to_string()).status, 400);
    assert_eq!(send(admin, &format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(8192))).status, 431);
    server.logs_with(&format!("admin http://{admin}/metrics"));
}

#[test]
fn silent_and_slow_clients_neither_block_nor_pile_up() {
    let (_server, admin) = start();
    // A server that is not ready may still start threads.
    wait_ready(admin);
    let threads = |admin| numbers(admin)["process_threads"];
    let at_rest = threads(admin);
    let mut clients: Vec<TcpStream> = (0..200).map(|_| connect(admin)).collect();
    for client in clients.iter_mut().skip(1).step_by(2) {
        // The server may have closed the oldest connection already.
        let _ = client.write_all(b"GET /healthz HTT");
    }
    for _ in 0..10 {
        assert_eq!(get(admin, "/healthz").status, 200);
    }
    let with_clients = threads(admin);
    assert!(with_clients - at_rest <= 64.0, "{at_rest} threads became {with_clients}");
    for client in &mut clients {
        let mut rest = Vec::new();
        // The connection must be closed or reset in time.
        assert!(!client.read_to_end(&mut rest).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
        assert_eq!(rest, b"", "nobody is answered who did not ask");
    }
    wait_until("their threads end", || threads(admin) <= at_rest + 2.0);
}

#[test]
fn the_admin_port_answers_when_clients_have_taken_all_descriptors() {
    const DESCRIPTORS: u32 = 64;
    let builder = TestServer::builder().option("admin", "127.0.0.1:0").descriptors_max(DESCRIPTORS);
    let server = builder.option("loops", "1").option("workers", "2").option("hashers", "1").start();
    let admin = admin_of(&server);
    wait_ready(admin);
    let clients: Vec<TestClient> = (0..100).map(|_| TestClient::connect(&server)).collect();
    wait_until("the server notices", || server.logs().contains("accepting is paused"));
    for _ in 0..5 {
        assert_eq!(get(admin, "/healthz").status, 200);
    }
    drop(clients);
    wait_until("all have come and gone", || {
        let numbers = numbers(admin);
        let number = |name: &str| numbers[&format!("raybox_connections_{name}{{loop=\"0\"}}")];
        number("accepted_total") == 100.0 && number("open") == 0.0
    });
    wait_until("the log says that it is over", || server.logs().contains("accepting goes on"));
    // The store may have failed to open a file while no descriptor was free.
    wait_ready(admin);
}

#[test]
fn a_server_that_stops_is_not_ready_before_its_port_closes_and_alive_to_the_end() {
    let builder = TestServer::builder().option("admin", "127.0.0.1:0").option("drain_timeout", "60s");
    let mut server = builder.option("output_max", "128m").option("user_timeout", "600s").start();
    let admin = admin_of(&server);
    let (mut alice, a) = user(&server, "alice");
    let (mut slow, b) = user(&server, "bob");
    alice.set_patience(LONG_PATIENCE);
    slow.set_patience(LONG_PATIENCE);
    // More than the sockets hold, so the server cannot finish before its client reads.
    for n in 0..1000 {
        alice.send(&numbered_with_text(a, b, n, 60_000));
    }
    alice.barrier();
    wait_ready(admin);
    server.terminate();
    wait_until("the port is closed", || TcpStream::connect(server.address()).is_err());
    let ready = get(admin, "/readyz");
    assert_eq!(
        (ready.status, ready.body.as_str()),
        (503, "loops: ok\nstore: ok\nrecorder: ok\nbus: ok\nrunning: the server stops\n")
    );
    assert_eq!(get(admin, "/healthz").status, 200);
    let numbers = numbers(admin);
    assert_eq!(
        (numbers[r#"raybox_ready{condition="running"}"#], numbers[r#"raybox_ready{condition="store"}"#]),
        (0.0, 1.0)
    );
    assert!(!server.has_exited(), "there is something left to write");
    assert_eq!(slow.read_to_end().len(), 1000);
    assert_eq!(server.wait_exit(LONG_PATIENCE).code(), Some(0));
    assert!(server.folder().join("raybox.db").exists());
    assert!(!server.folder().join("raybox.db-wal").exists(), "the database is closed in order");
}

#[test]
fn the_numbers_are_true() {
    let (server, admin) = start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let away = offline_user(&server, "carol");
    for n in 0..7 {
        alice.send(&chat(a, b, &n.to_string()));
    }
    for n in 0..5 {
        alice.send(&chat(a, away, &n.to_string()));
    }
    alice.send(&chat(a, NOBODY, "nobody"));
    alice.send(&chat(a, -1, "nobody either"));
    alice.barrier();
    assert_eq!(bob.recv_pushes().len(), 7);
    let group = alice.create_group(a, "group");
    bob.join_group(b, group);
    login(&server, "carol", away).join_group(away, group);
    wait_until("carol is offline", || numbers(admin)["raybox_users_online"] == 2.0);
    alice.send(&json!({"msgType": 9, "FROMID": a, "GROUPID": group, "msg": "all"}));
    alice.barrier();
    bob.send_text("keep this socket alive\n");
    assert_eq!(bob.recv_pushes().len(), 2);
    bob.send(&json!({"msgType": 77}));
    assert_eq!(bob.recv()["errno"], 404);
    let mut mallory = TestClient::connect(&server);
    mallory.send(&json!({"msgType": 1, "USERID": a, "password": "guess"}));
    assert_eq!(mallory.recv()["errno"], 302);
    mallory.send_text(&format!("{{\"msg\":\"{}", "x".repeat(70_000)));
    mallory.expect_refusal(413);
    mallory.expect_eof();
    drop(login(&server, "alice", a));

    wait_until("the connections are closed", || {
        let numbers = numbers(admin);
        (0..8).filter_map(|nth| numbers.get(&format!("raybox_connections_open{{loop=\"{nth}\"}}"))).sum::<f64>() == 2.0
    });
    // A request's last step, such as freeing its place in a lane, may follow its reply.
    let wrong = || {
        let numbers = numbers(admin);
        let of = |(series, _): &(&str, f64)| numbers.get(*series).copied();
        let lines = TRUE_NUMBERS.iter().filter(|line| of(line) != Some(line.1));
        lines.map(|line| (line.0, of(line))).collect::<Vec<_>>()
    };
    let deadline = Instant::now() + PATIENCE;
    while !wrong().is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(wrong(), [], "these are not as expected");
    let numbers = numbers(admin);
    for part in ["count", "sum"] {
        assert!(numbers[&format!("raybox_loop_turn_seconds_{part}{{loop=\"0\"}}")] > 0.0);
    }
}

/// The numbers that `the_numbers_are_true` expects at its end.
const TRUE_NUMBERS: [(&str, f64); 27] = [
    (r#"raybox_deliveries_total{path="local"}"#, 8.0),
    (r#"raybox_deliveries_total{path="stored"}"#, 6.0),
    (r#"raybox_deliveries_total{path="unknown"}"#, 2.0),
    (r#"raybox_deliveries_total{path="failed"}"#, 0.0),
    (r#"raybox_deliveries_total{path="bus"}"#, 0.0),
    (r#"raybox_frames_total{type="4"}"#, 14.0),
    (r#"raybox_frames_total{type="9"}"#, 1.0),
    (r#"raybox_frames_total{type="1"}"#, 5.0),
    (r#"raybox_frames_total{type="2"}"#, 3.0),
    (r#"raybox_frames_total{type="other"}"#, 1.0),
    (r#"raybox_frames_total{type="invalid"}"#, 1.0),
    (r#"raybox_replies_total{errno="302"}"#, 1.0),
    (r#"raybox_replies_total{errno="401"}"#, 1.0),
    (r#"raybox_replies_total{errno="404"}"#, 1.0),
    (r#"raybox_replies_total{errno="413"}"#, 1.0),
    (r#"raybox_replies_total{errno="503"}"#, 0.0),
    (r#"raybox_logins_total{outcome="accepted"}"#, 3.0),
    (r#"raybox_logins_total{outcome="remembered"}"#, 1.0),
    (r#"raybox_logins_total{outcome="wrong"}"#, 1.0),
    (r#"raybox_logins_total{outcome="refused"}"#, 0.0),
    (r#"raybox_connections_closed_total{reason="oversize"}"#, 1.0),
    (r#"raybox_batch_messages_sum{stage="store"}"#, 7.0),
    (r#"raybox_queue_jobs{queue="worker"}"#, 0.0),
    (r#"raybox_lane_bytes{lane="lane-0"}"#, 0.0),
    (r#"raybox_ready{condition="bus"}"#, 1.0),
    ("raybox_users_online", 2.0),
    ("raybox_log_lines_dropped_total", 0.0),
];

#[test]
fn the_numbers_are_well_written() {
    let (server, admin) = start();
    let (mut alice, a) = user(&server, "alice");
    alice.send(&chat(a, a, "me"));
    alice.recv();
    let text = get(admin, "/metrics").body;
    let kinds = check_exposition(&text).unwrap_or_else(|error| panic!("{error} in\n{text}"));
    let documented = include_str!("../../docs/metrics.md");
    for (name, kind) in &kinds {
        let row = format!("| `{name}` | {kind} | ");
        assert!(documented.contains(&row), "docs/metrics.md lacks {row}");
    }
    assert!(kinds.len() > 20, "{kinds:?}");
}

/// Checks a text against Prometheus' text format 0.0.4 and its naming rules, slightly more strictly
/// than a scraper does. Returns the kind of each metric family.
fn check_exposition(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut kinds: BTreeMap<String, String> = BTreeMap::new();
    let (mut helped, mut seen, mut family) = (BTreeSet::new(), BTreeSet::new(), String::new());
    let mut buckets: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    if !text.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or_else(|| format!("no help: {line}"))?;
            check(helped.insert(name.to_owned()) && !help.is_empty(), || format!("helped twice: {line}"))?;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| format!("no type: {line}"))?;
            check(helped.contains(name), || format!("no HELP before {line}"))?;
            check(is_name(name, true), || format!("not a name: {line}"))?;
            check(["counter", "gauge", "histogram"].contains(&kind), || format!("not a type: {line}"))?;
            check((kind == "counter") == name.ends_with("_total"), || format!("_total is for counters: {line}"))?;
            let old_unit = ["_ms", "_millis", "_milliseconds", "_kb", "_kilobytes", "_count", "_sum", "_bucket"];
            check(!old_unit.iter().any(|unit| name.ends_with(unit)), || format!("not a base unit: {line}"))?;
            check(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), || format!("typed twice: {line}"))?;
            family = name.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').ok_or_else(|| format!("no value: {line}"))?;
            let value: f64 = value.parse().map_err(|error| format!("{error}: {line}"))?;
            check(value >= 0.0, || format!("below zero: {line}"))?;
            check(seen.insert(series.to_owned()), || format!("twice: {line}"))?;
            let (name, labels) = labels_of(series)?;
            let kind = kinds.get(&family).ok_or_else(|| format!("no TYPE before {line}"))?;
            let part = name.strip_prefix(&family).ok_or_else(|| format!("not of {family}: {line}"))?;
            let others: String =
                labels.iter().filter(|(key, _)| key != "le").map(|(k, v)| format!("{k}={v},")).collect();
            let key = format!("{family} {others}");
            match (kind.as_str(), part) {
                ("counter" | "gauge", "") | ("histogram", "_sum") => {}
                ("histogram", "_bucket") => {
                    let le = labels.into_iter().find(|(key, _)| key == "le").ok_or_else(|| format!("no le: {line}"))?;
                    buckets.entry(key).or_default().push((le.1, value));
                }
                ("histogram", "_count") => {
                    counts.insert(key, value);
                }
                _ => return Err(format!("not of a {kind}: {line}")),
            }
        }
    }
    check(helped.len() == kinds.len(), || "a HELP without a TYPE".into())?;
    for (key, buckets) in &buckets {
        let bounds: Vec<f64> = buckets.iter().map(|(le, _)| le.parse().unwrap_or(f64::INFINITY)).collect();
        check(bounds.is_sorted_by(|a, b| a < b), || format!("bounds do not grow: {key}"))?;
        check(buckets.is_sorted_by(|a, b| a.1 <= b.1), || format!("not cumulated: {key}"))?;
        let last = buckets.last().filter(|(le, _)| le == "+Inf").map(|(_, count)| count);
        check(last == counts.get(key), || format!("+Inf is not the count: {key}"))?;
    }
    check(buckets.len() == counts.len(), || "a histogram without buckets or count".into())?;
    Ok(kinds)
}

fn check(good: bool, error: impl FnOnce() -> String) -> Result<(), String> {
    if good { Ok(()) } else { Err(error()) }
}

fn is_name(name: &str, colons: bool) -> bool {
    let mut characters = name.chars();
    let may_begin = |c: char| c.is_ascii_alphabetic() || c == '_' || (colons && c == ':');
    characters.next().is_some_and(may_begin) && characters.all(|c| may_begin(c) || c.is_ascii_digit())
}

type Labels = Vec<(String, String)>;

/// The name of a series, and its labels with their values. No label of this server contains a quote
/// or a backslash.
fn labels_of(series: &str) -> Result<(&str, Labels), String> {
    let Some((name, rest)) = series.split_once('{') else { return Ok((series, Vec::new())) };
    let inner = rest.strip_suffix('}').ok_or_else(|| format!("no end of labels: {series}"))?;
    let pairs = inner.split(',').map(|pair| {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("no label: {series}"))?;
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let value = value.filter(|value| !value.contains(['"', '\\'])).ok_or_else(|| format!("no value: {series}"))?;
        check(is_name(key, false), || format!("not a label: {series}"))?;
        Ok((key.to_owned(), value.to_owned()))
    });
    Ok((name, pairs.collect::<Result<Labels, String>>()?))
}

#[test]
fn the_check_of_the_format_finds_errors() {
    let good = "# HELP a_total h\n# TYPE a_total counter\na_total{x=\"1\"} 2\na_total{x=\"2\"} 0.5\n\
                # HELP h h\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n";
    assert_eq!(check_exposition(good).map(|kinds| kinds.len()), Ok(2));
    for (from, to, complaint) in [
        ("a_total{x=\"2\"} 0.5", "a_total{x=\"1\"} 0.5", "twice"),
        ("a_total{x=\"1\"} 2", "a_total{x=1} 2", "no value"),
        ("a_total{x=\"1\"} 2", "a_total{1x=\"1\"} 2", "not a label"),
        ("a_total{x=\"1\"} 2", "a_total{x=\"1\"} two", "invalid float"),
        ("a_total{x=\"1\"} 2", "b_total{x=\"1\"} 2", "not of a_total"),
        ("a_total{x=\"1\"} 2", "a_total{x=\"1\"} -2", "below zero"),
        ("# HELP a_total h\n", "", "no HELP before"),
        ("# TYPE a_total counter\n", "", "no TYPE before"),
        ("# TYPE a_total counter", "# TYPE a_total gauge", "_total is for counters"),
        ("# TYPE h histogram", "# TYPE h summary", "not a type"),
        ("h_bucket{le=\"1\"} 1", "h_bucket{le=\"1\"} 3", "not cumulated"),
        ("h_count 2", "h_count 3", "+Inf is not the count"),
        ("h_bucket{le=\"+Inf\"} 2\n", "", "+Inf is not the count"),
        ("h_count 2\n", "h_count 2", "the last line"),
    ] {
        assert!(good.contains(from), "{from}");
        let bad = good.replace(from, to);
        let found = check_exposition(&bad).expect_err(complaint);
        assert!(found.contains(complaint), "{found}, expected {complaint}");
    }
}
