//! Resources that all clients share and that a single client could use up: descriptors and memory.
//! Greedy clients connect from 127.0.0.2 and quiet ones from other addresses. The quiet ones must
//! notice nothing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Builder, SetOnDrop, TestClient, TestServer, chat, login, offline_user, password, user, wait_until};

const GREEDY: u8 = 2;
const QUIET: u8 = 3;

fn counting() -> Builder {
    TestServer::builder().option("admin", "0").option("loops", "2").option("log_level", "info")
}

fn refused(server: &TestServer, limit: &str) -> f64 {
    server.metric(&format!(r#"raybox_refused_total{{limit="{limit}"}}"#))
}

fn turned_away(server: &TestServer) -> f64 {
    server.metric(r#"raybox_connections_closed_total{reason="turned_away"}"#)
}

/// Registers a new user from this address and logs it in. Returns how long that took.
fn come(server: &TestServer, from: u8, name: &str) -> (TestClient, i64, Duration) {
    let begun = Instant::now();
    let mut client = TestClient::connect_from(from, server);
    let id = client.register(name, &password(name));
    client.login(id, &password(name));
    (client, id, begun.elapsed())
}

// Descriptors

#[test]
fn silent_strangers_keep_nobody_out() {
    const DESCRIPTORS: u32 = 256;
    const STRANGERS: usize = 400;
    let server = counting().descriptors_max(DESCRIPTORS).start();
    // Alice connects from the greedy address. She is logged in, so she stays connected.
    let (mut alice, a) = user(&server, "alice");
    let (mut neighbour, _, _) = come(&server, GREEDY, "neighbour");
    let mut strangers: Vec<TestClient> = (0..STRANGERS).map(|_| TestClient::connect_from(GREEDY, &server)).collect();
    let mut longest = Duration::ZERO;
    let mut quiet = Vec::new();
    for n in 0..20 {
        let (client, id, time) = come(&server, QUIET, &format!("quiet {n}"));
        longest = longest.max(time);
        quiet.push((client, id));
    }
    // The same holds while strangers keep connecting.
    let (done, attempts) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let done_on_drop = SetOnDrop(&done);
        scope.spawn(|| {
            let mut some: Vec<TestClient> = Vec::new();
            while !done.load(Ordering::Relaxed) {
                some.extend(TestClient::try_connect_from(GREEDY, &server));
                attempts.fetch_add(1, Ordering::Relaxed);
                if some.len() > STRANGERS {
                    some.clear();
                }
            }
        });
        wait_until("the flood goes on", || attempts.load(Ordering::Relaxed) > STRANGERS);
        for n in 20..40 {
            let (client, id, time) = come(&server, QUIET, &format!("quiet {n}"));
            longest = longest.max(time);
            quiet.push((client, id));
        }
        drop(done_on_drop);
    });
    eprintln!("{} strangers; a quiet client is in within {longest:?}", STRANGERS + attempts.into_inner());
    // No logged-in client was disconnected. Requests that need the database or another descriptor
    // work.
    for (client, id) in &mut quiet {
        client.send(&chat(*id, a, "hello"));
        client.barrier();
    }
    for (_, id) in &quiet {
        alice.expect(&chat(*id, a, "hello"));
    }
    neighbour.barrier();
    assert!(refused(&server, "descriptors") > 0.0 && turned_away(&server) > 0.0, "it is counted");
    assert!(server.descriptors() < DESCRIPTORS as usize, "some are kept for others");
    // The first of the strangers was told the reason before it was closed.
    strangers[0].expect_refusal(429);
    strangers[0].expect_eof();
}

#[test]
fn one_address_of_users_leaves_descriptors_to_others() {
    let server = counting().descriptors_max(256).start();
    let (_alice, a) = user(&server, "alice");
    let mut greedy = Vec::new();
    let refusal = loop {
        let mut client = TestClient::connect_from(GREEDY, &server);
        client.send(&json!({"msgType": 1, "USERID": a, "password": password("alice")}));
        let reply = client.recv();
        if reply["errno"] != 200 {
            break reply;
        }
        greedy.push(client);
        assert!(greedy.len() < 256, "somebody must be refused");
    };
    assert_eq!(refusal["errno"], 429, "{refusal}");
    let quiet: Vec<_> = (0..10).map(|n| come(&server, QUIET, &format!("quiet {n}"))).collect();
    let longest = quiet.iter().map(|(_, _, time)| *time).max();
    eprintln!("one address has {} connections, another's next ten are in within {longest:?} each", greedy.len());
    // Logged-in clients stay connected.
    for client in &mut greedy {
        client.ack_barrier();
    }
}

#[test]
fn strangers_make_room_below_max_connections_too() {
    let server = counting().option("max_connections", "40").start();
    let _strangers: Vec<TestClient> = (0..60).map(|_| TestClient::connect_from(GREEDY, &server)).collect();
    let mut quiet: Vec<_> = (0..5).map(|n| come(&server, QUIET, &format!("quiet {n}"))).collect();
    quiet.iter_mut().for_each(|(client, ..)| client.barrier());
}

#[test]
fn a_server_raises_its_limit_of_descriptors_and_says_so() {
    let server = counting().after("ulimit -Sn 200").start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("read its limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit of descriptors");
    let numbers: Vec<&str> = line.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
    wait_until("it says so", || server.logs().contains(&format!("descriptors {}, raised from 200", numbers[0])));
}

// Logging in

#[test]
fn a_connection_without_a_login_in_time_is_closed_and_users_stay() {
    let server = counting().option("login_timeout", "2s").start();
    let (mut alice, a) = user(&server, "alice");
    let mut silent = TestClient::connect(&server);
    let mut talks = TestClient::connect(&server);
    talks.ack_barrier();
    for client in [&mut silent, &mut talks] {
        client.expect_refusal(403);
        client.expect_eof();
    }
    assert!((refused(&server, "login_timeout") - 2.0).abs() < 0.1);
    alice.barrier();
    // After a logout, the time to log in begins again.
    alice.logout(a);
    alice.login(a, &password("alice"));
    alice.barrier();
    alice.logout(a);
    alice.expect_refusal(403);
    alice.expect_eof();
    login(&server, "alice", a).barrier();
}

// Memory

/// The beginning of a frame.
fn half(len: usize) -> String {
    let whole = json!({"msgType": 200, "x": "x".repeat(len)}).to_string();
    whole[..whole.len() - 2].to_owned()
}

#[test]
fn unfinished_frames_take_a_bounded_memory_and_a_user_is_always_understood() {
    const FRAMES: usize = 600;
    let server = counting().option("memory_max", "8m").option("frame_timeout", "1h").start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b, _) = come(&server, QUIET, "bob");
    let before = server.resident_bytes();
    let half = half(60_000);
    let mut greedy: Vec<TestClient> = (0..FRAMES)
        .map(|n| {
            // The strangers come from many addresses, but have a common limit.
            let mut client = TestClient::connect_from(10 + (n % 50) as u8, &server);
            client.send_raw(half.as_bytes());
            client
        })
        .collect();
    wait_until("some are refused", || refused(&server, "memory_max") > 100.0);
    // A user's long frame in two parts is accepted.
    let long = chat(b, a, &"y".repeat(50_000)).to_string();
    let (first, second) = long.split_at(40_000);
    bob.send_raw(first.as_bytes());
    wait_until("it has arrived", || {
        let mut other = TestClient::connect_from(QUIET, &server);
        other.ack_barrier();
        true
    });
    bob.send_raw(second.as_bytes());
    alice.expect(&serde_json::from_str::<Value>(&long).expect("a frame"));
    bob.barrier();
    let grown = server.resident_bytes().saturating_sub(before);
    eprintln!("{FRAMES} unfinished frames of 60 kB: {} KiB more memory", grown / 1024);
    assert!(grown < 16 << 20, "{} KiB", grown / 1024);
    // A refused client is told the reason.
    let refusals = greedy.iter_mut().filter_map(TestClient::recv_now).collect::<Vec<Value>>();
    assert!(refusals.len() > 100 && refusals.iter().all(|reply| reply["errno"] == 503), "{:?}", refusals.first());
}

#[test]
fn unfinished_frames_do_not_end_a_server_whose_address_space_is_limited() {
    const FRAMES: usize = 2_000;
    let server = counting().after("ulimit -v 262144").option("frame_timeout", "1h").start();
    let (mut quiet, _, _) = come(&server, QUIET, "quiet");
    let half = half(60_000);
    // The frames are more than twice the available memory. Most clients are disconnected.
    let mut greedy = Vec::new();
    for n in 0..FRAMES {
        let mut client = TestClient::connect_from(10 + (n % 50) as u8, &server);
        client.send_raw(half.as_bytes());
        greedy.push(client);
        if n % 100 == 0 {
            quiet.barrier();
        }
    }
    wait_until("some are refused", || refused(&server, "memory_max") > 100.0);
    come(&server, QUIET, "another");
    quiet.barrier();
}

/// Stores this many messages of 60 kB for an offline user.
fn store_for(server: &TestServer, sender: &mut TestClient, from: i64, to: i64, count: usize) {
    for n in 0..count {
        sender.send(&chat(from, to, &format!("{n} {}", "z".repeat(60_000))));
    }
    sender.barrier();
    assert_eq!(server.stored_for(to), count);
}

#[test]
fn replies_that_nobody_reads_take_a_bounded_memory_and_others_fetch_on() {
    const GREEDY_USERS: usize = 24;
    const MESSAGES: usize = 40;
    // The memory fits four full replies of 2 MiB, and a dozen that are being built.
    let server = counting().option("memory_max", "16m").start();
    let (mut alice, a) = user(&server, "alice");
    let names: Vec<String> = (0..GREEDY_USERS).map(|n| format!("greedy {n}")).collect();
    let ids: Vec<i64> = names.iter().map(|name| offline_user(&server, name)).collect();
    let quiet = offline_user(&server, "quiet");
    for id in &ids {
        store_for(&server, &mut alice, a, *id, MESSAGES);
    }
    store_for(&server, &mut alice, a, quiet, MESSAGES);
    let before = server.resident_bytes();
    // The kernels hold little, so nearly all of the reply stays in the server.
    let mut greedy: Vec<TestClient> = names
        .iter()
        .zip(&ids)
        .map(|(name, id)| {
            let mut client = TestClient::connect_from_with(GREEDY, &server, |socket| {
                socket.set_recv_buffer_size(4096).expect("an option");
            });
            client.login(*id, &password(name));
            client.send(&json!({"msgType": 14, "FROMID": id}));
            client
        })
        .collect();
    let first = greedy.first_mut().expect("somebody");
    first.wait_readable();
    // A user from another address gets everything, page by page, while the greedy clients wait. A
    // client that reads is never refused.
    let begun = Instant::now();
    let mut client = TestClient::connect_from(QUIET, &server);
    client.login(quiet, &password("quiet"));
    let all = client.fetch_all(quiet);
    eprintln!("a quiet client has its {} messages after {:?}", all.len(), begun.elapsed());
    assert_eq!(all.len(), MESSAGES);
    let grown = server.resident_bytes().saturating_sub(before);
    eprintln!("{GREEDY_USERS} unread fetches of {MESSAGES} messages of 60 kB: {} KiB more memory", grown / 1024);
    assert!(grown < 40 << 20, "{} KiB", grown / 1024);
    // Unread replies make room for waiting fetches of the same address, and no message is lost.
    drop(greedy);
    for id in &ids {
        assert_eq!(server.stored_for(*id), MESSAGES, "nothing was deleted that did not arrive");
    }
}

#[test]
fn a_fetch_that_waits_for_memory_gets_it_from_one_that_does_not_read() {
    const USERS: usize = 6;
    let server = counting().option("memory_max", "1m").option("fetch_max", "512k").option("output_max", "64m").start();
    let (mut alice, a) = user(&server, "alice");
    let names: Vec<String> = (0..USERS).map(|n| format!("user {n}")).collect();
    let ids: Vec<i64> = names.iter().map(|name| offline_user(&server, name)).collect();
    // One page is more than both kernels hold.
    for id in &ids {
        store_for(&server, &mut alice, a, *id, 8);
    }
    let mut clients: Vec<TestClient> = names
        .iter()
        .zip(&ids)
        .map(|(name, id)| {
            let mut client = TestClient::connect_from_with(GREEDY, &server, |socket| {
                socket.set_recv_buffer_size(4096).expect("an option");
            });
            client.login(*id, &password(name));
            client.send(&json!({"msgType": 14, "FROMID": id}));
            client
        })
        .collect();
    // All clients come from one address, which has room for two pages. Only the last client reads.
    let mut last = clients.pop().expect("somebody");
    last.set_patience(testkit::LONG_PATIENCE);
    assert_eq!(last.recv_fetched().len(), 8);
    for id in &ids[..USERS - 1] {
        assert_eq!(server.stored_for(*id), 8);
    }
}
