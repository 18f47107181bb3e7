//! Shutdown of a server: it finishes everything in flight, and no client can delay it for ever.

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::{ACK, LONG_PATIENCE, StoreLock, TestClient, TestServer};
use testkit::{assert_covers, login, number_of, numbered, numbered_with_text, offline_user, user, wait_until};

const EXIT_PATIENCE: Duration = Duration::from_secs(60);

/// More messages than both kernels hold for a connection.
const STUFFING: usize = 300;
const STUFFING_LENGTH: usize = 60_000;

#[test]
fn an_idle_server_ends_at_once_with_status_0() {
    let mut server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    server.wait_state(a, "online");
    server.terminate();
    assert_eq!(server.wait_exit(EXIT_PATIENCE).code(), Some(0));
    alice.expect_eof();
    assert_eq!((server.state_of(a).as_str(), server.state_of(b).as_str()), ("offline", "offline"));
    assert!(TcpStream::connect(server.address()).is_err(), "nobody listens any more");
}

/// The sender of a pair; counts the messages that are acknowledged.
fn send_until_the_end(client: &mut TestClient, from: i64, to: i64, acknowledged: &AtomicUsize) {
    let deadline = Instant::now() + LONG_PATIENCE;
    let mut sent = 0;
    while Instant::now() < deadline {
        for _ in 0..10 {
            if !client.try_send(&numbered(from, to, sent)) {
                return;
            }
            sent += 1;
        }
        if !client.try_send(&json!({"msgType": 200})) {
            return;
        }
        match client.recv_within(LONG_PATIENCE) {
            Some(reply) => assert_eq!(reply.to_string(), ACK),
            None => return,
        }
        acknowledged.store(sent, Ordering::Relaxed);
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_a_shutdown_under_traffic() {
    let mut server = TestServer::builder().option("loops", "2").start();
    // Three online and three offline recipients, each with a sender of its own.
    let mut senders: Vec<(TestClient, i64)> = (0..6).map(|n| user(&server, &format!("sender {n}"))).collect();
    let mut there: Vec<(TestClient, i64)> = (0..3).map(|n| user(&server, &format!("recipient {n}"))).collect();
    let mut recipients: Vec<i64> = there.iter().map(|(_, id)| *id).collect();
    recipients.extend((3..6).map(|n| offline_user(&server, &format!("recipient {n}"))));
    let acknowledged: Vec<AtomicUsize> = (0..6).map(|_| AtomicUsize::new(0)).collect();
    let live: Vec<Vec<usize>> = thread::scope(|scope| {
        for (((client, from), to), acknowledged) in senders.iter_mut().zip(&recipients).zip(&acknowledged) {
            scope.spawn(move || send_until_the_end(client, *from, *to, acknowledged));
        }
        let readers: Vec<_> = there
            .iter_mut()
            .map(|(client, _)| {
                client.set_patience(LONG_PATIENCE);
                scope.spawn(|| client.read_to_end().iter().map(number_of).collect())
            })
            .collect();
        wait_until("traffic", || acknowledged.iter().all(|count| count.load(Ordering::Relaxed) >= 100));
        server.terminate();
        assert_eq!(server.wait_exit(EXIT_PATIENCE).code(), Some(0));
        readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
    });
    assert_eq!(server.count("SELECT count(*) FROM User WHERE state = 'online'"), 0);

    server.restart();
    for (n, recipient) in recipients.iter().enumerate() {
        let stored = login(&server, &format!("recipient {n}"), *recipient).fetch_all(*recipient);
        let mut got = live.get(n).cloned().unwrap_or_default();
        got.extend(stored.iter().map(number_of));
        let acknowledged = acknowledged[n].load(Ordering::Relaxed);
        assert!(got.len() >= acknowledged, "recipient {n}: {acknowledged} acknowledged, {} arrived", got.len());
        // A shutdown is not a failure, so no message arrives twice.
        assert_eq!(got, (0..got.len()).collect::<Vec<_>>(), "recipient {n}");
    }
}

/// A server with a recipient that does not read, and for which more waits than the socket takes.
fn with_a_client_that_does_not_read(drain_timeout: &str) -> (TestServer, TestClient, i64) {
    let builder = TestServer::builder().option("output_max", "128m").option("user_timeout", "600s");
    let server = builder.option("drain_timeout", drain_timeout).start();
    let (mut alice, a) = user(&server, "alice");
    let (deaf, b) = user(&server, "bob");
    alice.set_patience(LONG_PATIENCE);
    for n in 0..STUFFING {
        alice.send(&numbered_with_text(a, b, n, STUFFING_LENGTH));
    }
    alice.barrier();
    (server, deaf, b)
}

#[test]
fn the_drain_timeout_bounds_a_client_that_does_not_read() {
    let (mut server, mut deaf, b) = with_a_client_that_does_not_read("500ms");
    server.terminate();
    assert_eq!(server.wait_exit(EXIT_PATIENCE).code(), Some(0));
    assert_eq!(server.state_of(b), "offline");
    deaf.set_patience(LONG_PATIENCE);
    let live: Vec<usize> = deaf.read_to_end().iter().map(number_of).collect();
    assert!(live.len() < STUFFING, "the socket took everything: this test needs more messages");
    server.restart();
    let mut bob = login(&server, "bob", b);
    bob.set_patience(LONG_PATIENCE);
    let stored: Vec<usize> = bob.fetch_all(b).iter().map(number_of).collect();
    assert_covers(&live, &stored, STUFFING);
}

#[test]
fn a_client_that_reads_late_gets_everything_before_the_end() {
    let (mut server, mut slow, _) = with_a_client_that_does_not_read("60s");
    slow.set_patience(LONG_PATIENCE);
    server.terminate();
    wait_until("the port is closed", || TcpStream::connect(server.address()).is_err());
    assert!(!server.has_exited(), "there is something left to write");
    let got: Vec<usize> = slow.read_to_end().iter().map(number_of).collect();
    assert_eq!(got, (0..STUFFING).collect::<Vec<_>>());
    assert_eq!(server.wait_exit(EXIT_PATIENCE).code(), Some(0));
    assert_eq!(server.stored(), 0);
}

#[test]
fn the_drain_timeout_bounds_a_database_that_does_not_answer() {
    let mut server = TestServer::builder().option("drain_timeout", "500ms").start();
    let mut clients: Vec<(TestClient, i64)> = (0..30).map(|n| user(&server, &format!("user {n}"))).collect();
    let lock = StoreLock::take(&server);
    for (client, id) in &mut clients {
        client.send(&json!({"msgType": 12, "FROMID": id, "name": "g", "description": ""}));
    }
    // Another client's request was answered. So the loops have read the other requests, or will
    // read them when they drain.
    clients[0].0.send(&json!({"msgType": 200}));
    server.terminate();
    // Each request would wait five seconds for the lock, four at a time.
    server.wait_exit(EXIT_PATIENCE);
    drop(lock);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (mut server, deaf, _) = with_a_client_that_does_not_read("600s");
    server.terminate();
    wait_until("the port is closed", || TcpStream::connect(server.address()).is_err());
    assert!(!server.has_exited(), "the first signal waits for the client");
    server.terminate();
    server.wait_exit(EXIT_PATIENCE);
    drop(deaf);
}

#[test]
fn a_server_starts_again_on_the_data_of_the_last_one() {
    let mut server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    let group = alice.create_group(a, "the group");
    alice.ask(&json!({"msgType": 6, "U1": a, "U2": b}));
    let friends = alice.ask(&json!({"msgType": 8, "FROMID": a}));
    for n in 0..3 {
        // A shutdown by a signal and a kill leave the same data.
        if n == 1 {
            server.kill9();
        } else {
            server.terminate();
            assert_eq!(server.wait_exit(EXIT_PATIENCE).code(), Some(0));
        }
        server.restart();
        // After a kill the database still says `online`, although no user is.
        server.wait_state(a, "offline");
        let mut alice = login(&server, "alice", a);
        assert_eq!(alice.ask(&json!({"msgType": 8, "FROMID": a})), friends);
        alice.join_group(a, group);
        server.wait_state(a, "online");
    }
}

#[test]
fn a_stopping_server_serves_for_the_drain_delay_but_is_not_ready() {
    let mut server = TestServer::builder().option("admin", "127.0.0.1:0").option("drain_delay", "6s").start();
    let (mut alice, a) = user(&server, "alice");
    wait_until("it is ready", || server.is_ready());
    server.terminate();
    wait_until("it is not ready", || !server.is_ready());
    let (mut bob, b) = user(&server, "bob");
    alice.send(&numbered(a, b, 1));
    bob.expect(&numbered(a, b, 1));
    bob.barrier();
    assert_eq!(server.wait_exit(EXIT_PATIENCE).code(), Some(0));
    alice.expect_eof();
    bob.expect_eof();
}

#[test]
fn connections_are_closed_one_after_the_other_and_the_others_are_served_meanwhile() {
    // Each of the two loops closes one connection every 2 seconds, in the order of connecting.
    let mut server = TestServer::builder().option("loops", "2").option("drain_rate", "1").start();
    let mut clients: Vec<(TestClient, i64)> = (0..6).map(|n| user(&server, &format!("user {n}"))).collect();
    server.terminate();
    let (first, rest) = clients.split_first_mut().expect("there are some");
    first.0.set_patience(LONG_PATIENCE);
    first.0.expect_eof();
    let [.., (bob, b), (alice, a)] = rest else { panic!("there are some") };
    alice.send(&numbered(*a, *b, 1));
    bob.expect(&numbered(*a, *b, 1));
    bob.barrier();
    assert!(TcpStream::connect(server.address()).is_err(), "nobody new is let in");
    for (client, _) in rest {
        client.set_patience(LONG_PATIENCE);
        client.expect_eof();
    }
    assert_eq!(server.wait_exit(EXIT_PATIENCE).code(), Some(0));
}
