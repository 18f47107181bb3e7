//! Limits: which clients are refused, slowed down or asked to come back later, and that all others
//! notice nothing.
//!
//! Behaviour that depends on time is tested where the time is an argument (`src/admission`). Here a
//! burst is sent in one write to a fresh connection, so that it arrives in one turn of the loop,
//! during which the loop's time does not advance.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{ACK, BAD_REQUEST, Builder, LONG_PATIENCE, MariaDb, SERVER_ERROR, SetOnDrop, StoreLock, TestClient};
use testkit::{TestServer, WRONG_PASSWORD};
use testkit::{assert_refusal, chat, numbered, offline_user, password, user, wait_until, wait_within};

const PING: &str = r#"{"msgType":200}"#;

/// A server with an admin port, so that a test can read its counters.
fn counting() -> Builder {
    TestServer::builder().option("admin", "0")
}

/// The same behind these tests' proxies, which connect from 127.0.0.1.
fn behind_proxy() -> Builder {
    counting().option("proxy_protocol", "on")
}

/// A client with this address, as the proxy header says.
fn from(server: &TestServer, address: &str) -> TestClient {
    let mut client = TestClient::connect(server);
    client.send_raw(header_of(address).as_bytes());
    client
}

fn header_of(address: &str) -> String {
    let (family, own) = if address.contains(':') { ("TCP6", "::1") } else { ("TCP4", "127.0.0.1") };
    format!("PROXY {family} {address} {own} 51234 8003\r\n")
}

/// How often the log says that this limit is reached.
fn complaints(server: &TestServer, limit: &str) -> usize {
    let end = format!("the limit {limit} is reached");
    server
        .logs()
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("turned away") && line.ends_with(&end))
        .count()
}

fn refused(server: &TestServer, limit: &str) -> f64 {
    server.metric(&format!(r#"raybox_refused_total{{limit="{limit}"}}"#))
}

/// Expects a refusal with a time to wait, and returns the seconds.
fn expect_later(client: &mut TestClient, errno: u64) -> u64 {
    let reply = client.recv();
    assert_eq!((&reply["errno"], &reply["msgType"]), (&json!(errno), &json!(errno)), "{reply}");
    let seconds = reply["retryAfter"].as_u64().unwrap_or_else(|| panic!("it says when: {reply}"));
    assert!((1..=3600).contains(&seconds), "{reply}");
    seconds
}

fn try_login(client: &mut TestClient, id: i64, password: &str) -> Value {
    client.ask(&json!({"msgType": 1, "USERID": id, "password": password}))
}

// Connections

#[test]
fn one_connection_too_many_is_told_so_and_closed() {
    let server = counting().option("max_connections", "2").start();
    // Logged in, because connections without a login would make room.
    let (mut first, _) = user(&server, "first");
    let (mut second, _) = user(&server, "second");
    for _ in 0..20 {
        let mut third = TestClient::connect(&server);
        third.expect_refusal(429);
        third.expect_eof();
    }
    assert!((refused(&server, "max_connections") - 20.0).abs() < 0.1);
    wait_until("the log says so", || complaints(&server, "max_connections") > 0);
    assert_eq!(complaints(&server, "max_connections"), 1, "and not for each of them");
    first.barrier();
    second.barrier();
    // A connection that ends makes room.
    drop(first);
    wait_until("there is room", || {
        let mut next = TestClient::connect(&server);
        next.try_send(&json!({"msgType": 200})) && next.recv()["errno"] == 200
    });
}

#[test]
fn a_connection_without_a_login_makes_room_and_the_log_names_the_limit() {
    let server = counting().option("max_connections", "4").start();
    // One after the other, so that the first is the oldest.
    let mut strangers: Vec<_> = (0..3)
        .map(|_| {
            let mut stranger = TestClient::connect(&server);
            stranger.ack_barrier();
            stranger
        })
        .collect();
    let mut newcomer = TestClient::connect(&server);
    newcomer.ack_barrier();
    strangers[0].expect_refusal(429);
    strangers[0].expect_eof();
    wait_until("the log says so", || complaints(&server, "max_connections") == 1);
    assert!((refused(&server, "max_connections") - 1.0).abs() < 0.1);
    assert!(refused(&server, "descriptors").abs() < 0.1, "there are enough of them");
    strangers[1].ack_barrier();
}

#[test]
fn the_addresses_that_a_proxy_tells_count_apart_and_ipv6_by_network() {
    let server = behind_proxy().option("connections_per_address", "2").start();
    let enter = |address| {
        let mut client = from(&server, address);
        client.send_text(PING);
        let reply = client.recv();
        (reply["errno"] == 200).then_some(client)
    };
    let mut clients = Vec::new();
    for address in
        ["203.0.113.7", "203.0.113.7", "203.0.113.8", "2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"]
    {
        clients.push(enter(address).unwrap_or_else(|| panic!("{address} may come in")));
    }
    for address in ["203.0.113.7", "2001:db8:1:2::5"] {
        assert!(enter(address).is_none(), "{address} has enough");
    }
    assert!((refused(&server, "connections_per_address") - 2.0).abs() < 0.1);
    assert!(enter("203.0.113.8").is_some());
    drop(clients.remove(0));
    wait_until("there is room", || enter("203.0.113.7").is_some());
}

#[test]
fn a_connection_that_waits_for_its_proxy_header_counts() {
    const MAX: usize = 20;
    // On one loop they are accepted in the order in which they connect.
    let builder = behind_proxy().option("loops", "1").option("max_connections", &MAX.to_string());
    let server = builder.option("frame_timeout", "1h").start();
    let mut silent: Vec<TestClient> = (0..MAX).map(|_| TestClient::connect(&server)).collect();
    let expect_full = || {
        let mut client = TestClient::connect(&server);
        client.expect_refusal(429);
        client.expect_eof();
    };
    (0..5).for_each(|_| expect_full());
    assert!((refused(&server, "max_connections") - 5.0).abs() < 0.1);
    assert!((server.metric(r#"raybox_connections_open{loop="0"}"#) - MAX as f64).abs() < 0.1);
    wait_until("the log says so", || complaints(&server, "max_connections") == 1);
    // The header makes it a client, and does not count it twice. A logged-in connection does not
    // make room.
    silent[0].send_raw(header_of("203.0.113.7").as_bytes());
    let alice = silent[0].register("alice", "secret");
    silent[0].login(alice, "secret");
    expect_full();
    // A client that gives up makes room, whether its header has arrived or not.
    for _ in 0..2 {
        drop(silent.remove(0));
        wait_until("there is room", || {
            let mut next = from(&server, "203.0.113.8");
            let is_in = next.try_send(&json!({"msgType": 200})) && next.recv()["errno"] == 200;
            if is_in {
                next.login(alice, "secret");
                silent.push(next);
            }
            is_in
        });
        expect_full();
    }
}

#[test]
fn a_connection_without_a_proxy_header_in_time_makes_room() {
    const MAX: usize = 20;
    let builder = behind_proxy().option("max_connections", &MAX.to_string()).option("frame_timeout", "200ms");
    let server = builder.start();
    for _ in 0..3 {
        let silent: Vec<TestClient> = (0..MAX).map(|_| TestClient::connect(&server)).collect();
        silent.into_iter().for_each(|mut client| {
            // Closed because its header did not come, or because the ones before it are still
            // there.
            client.read_to_end();
        });
    }
    wait_until("there is room", || {
        let mut next = from(&server, "203.0.113.8");
        next.try_send(&json!({"msgType": 200})) && next.recv()["errno"] == 200
    });
}

#[test]
fn a_client_that_is_not_a_proxy_counts_for_its_address_before_it_says_anything() {
    let builder = behind_proxy().option("proxy_from", "127.0.0.9").option("loops", "1").option("frame_timeout", "1h");
    let server = builder.option("connections_per_address", "2").start();
    let mut silent = [TestClient::connect(&server), TestClient::connect(&server)];
    let mut third = TestClient::connect(&server);
    third.expect_refusal(429);
    third.expect_eof();
    silent.iter_mut().for_each(TestClient::ack_barrier);
}

// Frames and bytes

#[test]
fn a_frame_beyond_the_burst_is_refused_and_neither_delivered_nor_kept() {
    let server = counting().option("auth", "compat").option("frames_per_second", "1/5").start();
    let (mut bob, b) = user(&server, "bob");
    let carol = offline_user(&server, "carol");
    let mut sender = TestClient::connect(&server);
    let frames: String = (0..8).map(|n| numbered(1, if n % 2 == 0 { b } else { carol }, n).to_string()).collect();
    sender.send_raw(frames.as_bytes());
    for _ in 5..8 {
        sender.expect_refusal(429);
    }
    for n in [0, 2, 4] {
        bob.expect(&numbered(1, b, n));
    }
    assert_eq!(server.stored(), 2);
    assert!((refused(&server, "frames_per_second") - 3.0).abs() < 0.1);
    // The refused message does not arrive later either.
    drop(sender);
    bob.barrier();
    assert_eq!(server.stored(), 2);
}

#[test]
fn a_refusal_waits_for_what_was_sent_before_it() {
    let server = counting().option("auth", "compat").option("frames_per_second", "1/2").option("loops", "1").start();
    let carol = offline_user(&server, "carol");
    let lock = StoreLock::take(&server);
    let mut sender = TestClient::connect(&server);
    sender.send_raw(format!("{}{}{PING}", numbered(1, carol, 0), numbered(1, carol, 1)).as_bytes());
    // There is one loop, so it has seen the first client's frames when it answers the second.
    let mut other = TestClient::connect(&server);
    other.ack_barrier();
    assert_eq!(sender.recv_now(), None, "two messages are on their way to the store");
    drop(lock);
    sender.expect_refusal(429);
    assert_eq!(server.stored_for(carol), 2);
}

#[test]
fn a_client_that_goes_on_is_closed_after_its_output() {
    let server = counting().option("frames_per_second", "1/5").start();
    let mut client = TestClient::connect(&server);
    client.send_raw(PING.repeat(40).as_bytes());
    let replies = client.read_to_end();
    let (taken, refusals) = replies.split_at(5);
    assert!(taken.iter().all(|reply| reply["errno"] == 200), "{taken:?}");
    assert_eq!(refusals.len(), 6, "as many as the burst, and the last word");
    refusals.iter().for_each(|reply| assert_refusal(&reply.to_string(), 429));
    assert_ne!(refusals[4], refusals[5], "the last one says that it is the last");
    wait_until("it is counted", || {
        (server.metric(r#"raybox_connections_closed_total{reason="excess"}"#) - 1.0).abs() < 0.1
    });
    // The client may connect again.
    TestClient::connect(&server).ack_barrier();
}

#[test]
fn garbage_counts_as_a_frame() {
    let server = counting().option("frames_per_second", "1/5").start();
    let mut client = TestClient::connect(&server);
    client.send_raw("keep this socket alive\n".repeat(6).as_bytes());
    for _ in 0..5 {
        client.expect_text(BAD_REQUEST);
    }
    client.expect_refusal(429);
}

#[test]
fn bytes_are_limited_too() {
    let server = counting().option("bytes_per_second", "1k/1k").start();
    let mut client = TestClient::connect(&server);
    let frame = json!({"msgType": 200, "x": "x".repeat(400)}).to_string();
    client.send_raw(frame.repeat(4).as_bytes());
    for _ in 0..3 {
        client.expect_text(ACK);
    }
    client.expect_refusal(429);
    assert!((refused(&server, "bytes_per_second") - 1.0).abs() < 0.1);
    // Invalid input counts by its length as well.
    let mut client = TestClient::connect(&server);
    client.send_raw(format!("{}\n{PING}", "x".repeat(2000)).as_bytes());
    client.expect_text(BAD_REQUEST);
    client.expect_refusal(429);
}

/// Sends the same bytes until the server closes the connection; returns the replies.
fn flood_until_closed(client: &mut TestClient, bytes: &[u8]) -> Vec<Value> {
    client.set_patience(LONG_PATIENCE);
    let deadline = Instant::now() + LONG_PATIENCE;
    while client.try_send_raw(bytes) {
        assert!(Instant::now() < deadline, "the server reads on for ever");
    }
    client.read_to_end()
}

#[test]
fn a_flood_of_blanks_is_refused_and_then_closed() {
    for blanks in ["\n", " ", "\r\n\t\0"] {
        let server = counting().option("frames_per_second", "100/5").option("bytes_per_second", "1k/10k").start();
        let mut client = TestClient::connect(&server);
        // A few bytes between frames are counted, and have no other cost.
        for _ in 0..3 {
            client.send_raw(format!("{PING}{}", blanks.repeat(100)).as_bytes());
            client.expect_text(ACK);
        }
        let replies = flood_until_closed(&mut client, blanks.repeat(2000).as_bytes());
        replies.iter().for_each(|reply| assert_refusal(&reply.to_string(), 429));
        assert!(refused(&server, "bytes_per_second") >= 6.0, "as many as frames may come at once, and the last word");
        wait_until("it is counted", || {
            (server.metric(r#"raybox_connections_closed_total{reason="excess"}"#) - 1.0).abs() < 0.1
        });
    }
}

#[test]
fn blanks_behind_each_frame_use_up_bytes() {
    let server = counting().option("bytes_per_second", "1k/40k").start();
    let mut client = TestClient::connect(&server);
    let frame = format!("{PING}{}", "\n".repeat(1000));
    let mut replies = 0;
    loop {
        client.send_raw(frame.as_bytes());
        replies += 1;
        let reply = client.recv();
        if reply["errno"] == 429 {
            break;
        }
        assert_eq!(reply["errno"], 200);
        // Without counting the blanks, there would be twice as many replies.
        assert!(replies < 700, "blanks are free");
    }
    assert!(replies >= 40, "{replies}");
}

#[test]
fn frames_that_are_never_finished_use_up_bytes() {
    let builder = counting().option("frame_timeout", "200ms").option("bytes_per_second", "1k/1k");
    let server = builder.option("frames_per_second", "1000000/2").start();
    let mut client = TestClient::connect(&server);
    client.set_patience(LONG_PATIENCE);
    // Its debt takes a minute to pay off.
    let unfinished = format!(r#"{{"x":"{}"#, "x".repeat(60_000));
    let mut replies = Vec::new();
    while client.try_send_raw(unfinished.as_bytes())
        && let Some(reply) = client.recv_within(LONG_PATIENCE)
    {
        replies.push(reply["errno"].clone());
        assert!(replies.len() < 100, "unfinished frames are free");
    }
    assert!(client.has_ended());
    assert_eq!(replies[0], 401);
    assert_eq!(replies.last(), Some(&json!(429)), "{replies:?}");
    assert!(refused(&server, "bytes_per_second") >= 3.0, "as many as frames may come at once, and the last word");
    // Invalid input that arrives in pieces counts by its length as well.
    let mut client = TestClient::connect(&server);
    client.set_patience(LONG_PATIENCE);
    client.send_raw(&[b"x".repeat(1 << 20).as_slice(), b"\n", PING.as_bytes()].concat());
    // An invalid run ends where the received bytes end, so there may be several.
    while let reply = client.recv()
        && reply["errno"] != 429
    {
        assert_eq!(reply["errno"], 401);
    }
}

#[test]
fn others_notice_nothing_of_a_flood() {
    const MESSAGES: usize = 200;
    let server = counting().option("frames_per_second", "1000").option("loops", "1").start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let mut flooder = TestClient::connect(&server);
                flooder.set_patience(LONG_PATIENCE);
                flooder.try_send_raw(PING.repeat(10_000).as_bytes());
                flooder.read_to_end();
            }
        });
        let _over = SetOnDrop(&over);
        wait_until("it is a flood", || refused(&server, "frames_per_second") > 1000.0);
        for n in 0..MESSAGES {
            alice.send(&chat(a, b, &n.to_string()));
            bob.expect(&chat(a, b, &n.to_string()));
        }
        alice.barrier();
    });
}

#[test]
fn a_limit_that_is_off_does_not_limit() {
    let off = ["max_connections", "connections_per_address", "frames_per_second", "bytes_per_second", "login_failures"];
    let off = off.into_iter().chain(["login_failures_per_address", "registrations_per_address"]);
    let server = off.fold(counting(), |builder, key| builder.option(key, "off")).start();
    let mut clients: Vec<TestClient> = (0..50).map(|_| TestClient::connect(&server)).collect();
    let a = clients[0].register("alice", &password("alice"));
    for n in 0..30 {
        clients[0].register(&format!("user {n}"), "x");
        assert_eq!(try_login(&mut clients[1], a, "wrong").to_string(), WRONG_PASSWORD);
    }
    clients[1].login(a, &password("alice"));
    clients[2].send_raw(PING.repeat(5000).as_bytes());
    for _ in 0..5000 {
        clients[2].expect_text(ACK);
    }
}

// Accounts

#[test]
fn guessing_takes_longer_each_time_and_does_not_lock_the_owner_out() {
    let server = behind_proxy().option("login_failures", "2").start();
    let mut owner = from(&server, "203.0.113.8");
    let a = owner.register("alice", &password("alice"));
    let b = owner.register("bob", &password("bob"));
    // Now the password is in the server's memory.
    owner.login(a, &password("alice"));
    let mut attacker = from(&server, "203.0.113.7");
    let mut guesses = 0;
    let (seconds, told) = loop {
        attacker.send(&json!({"msgType": 1, "USERID": a, "password": format!("guess {guesses}")}));
        let told = Instant::now();
        attacker.wait_readable();
        let reply = attacker.recv();
        guesses += 1;
        if reply["errno"] == 429 {
            let seconds = reply["retryAfter"].as_u64().unwrap_or_else(|| panic!("it says when: {reply}"));
            if seconds >= 2 {
                break (seconds, told);
            }
        } else {
            assert_eq!(reply.to_string(), WRONG_PASSWORD);
        }
    };
    assert!(guesses > 3, "two are free, and the third costs a second");
    // During the lockout nothing is checked, neither the right password nor a login on another
    // connection.
    for mut guesser in [attacker, from(&server, "203.0.113.7")] {
        let reply = try_login(&mut guesser, a, &password("alice"));
        let waited = told.elapsed() + Duration::from_secs(1) >= Duration::from_secs(seconds);
        assert!(reply["errno"] == 429 || waited, "{reply} after {:?}", told.elapsed());
        // Other accounts are not affected.
        guesser.login(b, &password("bob"));
    }
    assert!(refused(&server, "login_failures") >= 1.0);
    wait_until("the log says so", || complaints(&server, "login_failures") > 0);
    assert_eq!(complaints(&server, "login_failures"), 1, "and not for each of them");
    let logs = server.logs();
    assert!(logs.contains(&format!("turned away a login as user {a} from 203.0.113.7")), "{logs}");
    assert!(!logs.contains("guess") && !logs.contains(&password("alice")), "no password in {logs}");
    assert!(server.metric(r#"raybox_logins_total{outcome="delayed"}"#) >= 1.0);
    // The owner logs in from another address, with a remembered password or not.
    from(&server, "203.0.113.8").login(a, &password("alice"));
    from(&server, "203.0.113.9").login(a, &password("alice"));
}

/// A guess at a remembered password is found wrong without a hasher.
#[test]
fn guesses_that_find_the_queue_full_count() {
    let builder = behind_proxy().option("login_failures", "2").option("loops", "1");
    let server = builder.option("hashers", "1").option("logins_max", "1").start();
    let mut owner = from(&server, "203.0.113.8");
    let a = owner.register("alice", &password("alice"));
    owner.login(a, &password("alice"));
    let mut holder = from(&server, "203.0.113.7");
    let mut attacker = from(&server, "203.0.113.7");
    [&mut holder, &mut attacker].into_iter().for_each(TestClient::ack_barrier);
    // This request occupies the place of its address until the store writes.
    let lock = StoreLock::take(&server);
    holder.send(&json!({"msgType": 2, "name": "holder", "password": "x"}));
    attacker.ack_barrier();
    let mut guesses = 0;
    loop {
        let reply = try_login(&mut attacker, a, &format!("guess {guesses}"));
        if reply["errno"] == 429 {
            break;
        }
        assert_eq!(reply["errno"], 503, "{reply}");
        guesses += 1;
        assert!(guesses < 10, "guesses are free");
    }
    assert!(guesses >= 3, "two are free, and the third costs a second");
    // A guess at an account that has not logged in here reveals nothing, so it may be tried again.
    for _ in 0..10 {
        assert_eq!(try_login(&mut attacker, a + 1000, "guess")["errno"], 503);
    }
    from(&server, "203.0.113.8").login(a, &password("alice"));
    drop(lock);
    assert_eq!(holder.recv()["errno"], 200);
}

#[test]
fn an_address_that_guesses_everywhere_has_to_wait_and_others_do_not() {
    let server = behind_proxy().option("login_failures_per_address", "3").start();
    let mut client = from(&server, "203.0.113.8");
    let ids: Vec<i64> = (0..4).map(|n| client.register(&format!("user {n}"), "right")).collect();
    let mut attacker = from(&server, "203.0.113.7");
    for id in &ids[..3] {
        assert_eq!(try_login(&mut attacker, *id, "wrong").to_string(), WRONG_PASSWORD);
    }
    attacker.send(&json!({"msgType": 1, "USERID": ids[3], "password": "right"}));
    assert!(expect_later(&mut attacker, 429) > 60, "the third part of an hour");
    attacker.ack_barrier();
    assert!((refused(&server, "login_failures_per_address") - 1.0).abs() < 0.1);
    wait_until("the log says so", || complaints(&server, "login_failures_per_address") == 1);
    for id in ids {
        from(&server, "203.0.113.9").login(id, "right");
    }
}

#[test]
fn an_address_makes_so_many_accounts_an_hour() {
    let server = behind_proxy().option("registrations_per_address", "2").start();
    let mut client = from(&server, "203.0.113.7");
    for n in 0..2 {
        client.register(&format!("user {n}"), "x");
    }
    for _ in 0..3 {
        client.send(&json!({"msgType": 2, "name": "one more", "password": "x"}));
        assert!(expect_later(&mut client, 429) > 60, "half an hour");
    }
    assert_eq!(server.count("SELECT count(*) FROM User"), 2);
    assert!((refused(&server, "registrations_per_address") - 3.0).abs() < 0.1);
    wait_until("the log says so", || complaints(&server, "registrations_per_address") > 0);
    assert_eq!(complaints(&server, "registrations_per_address"), 1, "and not for each of them");
    from(&server, "203.0.113.8").register("one more", "x");
}

#[test]
fn a_registration_costs_nothing_while_the_database_is_away() {
    let mut mariadb = MariaDb::start();
    let server = counting().mysql(&mariadb.create_database()).option("registrations_per_address", "3").start();
    let mut client = TestClient::connect(&server);
    client.set_patience(LONG_PATIENCE);
    let register = |name: &str| json!({"msgType": 2, "name": name, "password": "x"});
    client.register("first", "x");
    mariadb.kill();
    for n in 0..5 {
        client.send(&register(&format!("user {n}")));
        client.expect_text(SERVER_ERROR);
    }
    wait_within(LONG_PATIENCE, "the server knows that the database is gone", || !server.is_ready());
    mariadb.restart();
    wait_within(LONG_PATIENCE, "the server knows that it is back", || server.is_ready());
    // A name that is taken counts as the client's own fault.
    client.send(&register("first"));
    client.expect_text(SERVER_ERROR);
    client.register("second", "x");
    client.send(&register("third"));
    expect_later(&mut client, 429);
}

#[test]
fn guesses_count_while_the_database_is_away() {
    let mut mariadb = MariaDb::start();
    let server = counting().mysql(&mariadb.create_database()).option("login_failures", "2").start();
    let mut client = TestClient::connect(&server);
    client.set_patience(LONG_PATIENCE);
    let a = client.register("alice", &password("alice"));
    client.login(a, &password("alice"));
    mariadb.kill();
    // A client that knows the password is let in as before.
    client.login(a, &password("alice"));
    for _ in 0..10 {
        assert_eq!(try_login(&mut client, a + 1000, "guess")["errno"], 503, "of nobody else anything is known");
    }
    let mut guesses = 0;
    while let reply = try_login(&mut client, a, &format!("guess {guesses}"))
        && reply["errno"] != 429
    {
        assert_eq!(reply["errno"], 503, "{reply}");
        guesses += 1;
        assert!(guesses < 10, "guesses are free");
    }
    assert!(guesses >= 3, "two are free, and the third costs a second");
}

#[test]
fn a_full_queue_of_logins_says_when_to_come_again() {
    let builder = counting().option("hashers", "1").option("logins_max", "1");
    // Expensive enough for all the requests to arrive while the first password is being hashed.
    let server = builder.option("argon2", "m=65536,t=2,p=1").option("login_failures", "off").start();
    let mut clients: Vec<TestClient> = (0..12).map(|_| TestClient::connect(&server)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.set_patience(LONG_PATIENCE);
        client.send(&match n % 2 {
            0 => json!({"msgType": 2, "name": format!("user {n}"), "password": "x"}),
            _ => json!({"msgType": 1, "USERID": 1, "password": format!("wrong {n}")}),
        });
    }
    let mut later = 0;
    for client in &mut clients {
        let reply = client.recv();
        if reply["errno"] == 503 {
            let text = reply.to_string();
            assert!(text.starts_with(r#"{"errmsg":""#), "{text}");
            assert!((1..=60).contains(&reply["retryAfter"].as_u64().unwrap_or(0)), "{text}");
            later += 1;
        }
        client.ack_barrier();
    }
    assert!(later > 0, "with one place in the queue somebody must be refused");
    assert!((refused(&server, "logins_max") - f64::from(later)).abs() < 0.1);
    clients[0].register("there is room again", "x");
}

#[test]
fn a_client_from_elsewhere_does_not_wait_for_all_that_one_address_has_in_the_queue() {
    let builder = behind_proxy().option("loops", "1").option("hashers", "1").option("logins_max", "20");
    let server = builder.start();
    let come = |address: &str| {
        let mut client = from(&server, address);
        client.ack_barrier();
        client
    };
    let mut others: Vec<TestClient> = (0..5).map(|_| come("203.0.113.7")).collect();
    let (mut client, mut watcher) = (come("203.0.113.8"), come("203.0.113.9"));
    // The first request occupies the hasher until the store writes, so the account numbers show the
    // order.
    let lock = StoreLock::take(&server);
    let mut nth = 0;
    let mut register = |client: &mut TestClient| {
        nth += 1;
        client.send(&json!({"msgType": 2, "name": format!("user {nth}"), "password": "x"}));
        watcher.ack_barrier();
    };
    others.iter_mut().for_each(&mut register);
    register(&mut client);
    drop(lock);
    let id = |client: &mut TestClient| client.recv()["USERID"].as_i64().expect("an account");
    let ids: Vec<i64> = others.iter_mut().map(id).collect();
    assert!(ids.is_sorted(), "those of one address in the order in which they came: {ids:?}");
    let own = id(&mut client);
    assert!(own < ids[2], "after one of the other address that waited: {own} and {ids:?}");
}
