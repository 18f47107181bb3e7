//! The usual client (Qt) loses nothing with the default settings. The server recognises it by the
//! form of its password, and writes to it in the way that it can read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{LONG_PATIENCE, QtClient, TestClient, TestServer, number_of, numbered, user, wait_until};

const PASSWORD: &str = "secret";
/// The SHA-224 of the password, which the client sends to log in. Its automatic login after a lost
/// connection sends the plain password.
const DIGITS: &str = "95c7fbca92ac5083afda62a564a3d014fc3b72c9140e3cb99ea6bf12";

/// A message as the real client composes it. A dozen of them fill a segment.
fn message(from: i64, to: i64, n: usize) -> Value {
    json!({"msgType": 4, "FROMID": from, "TOID": to, "msg": "hello", "n": n, "sendTime": 1_702_556_908_737_i64})
}

fn qt_user(server: &TestServer) -> i64 {
    let reply = QtClient::connect(server).ask(&json!({"msgType": 2, "name": "qt", "password": DIGITS}));
    reply["USERID"].as_i64().unwrap_or_else(|| panic!("no id: {reply}"))
}

#[track_caller]
fn assert_shown(client: &QtClient, total: usize) {
    assert_eq!(client.lost, Vec::<String>::new(), "lost, after {} of {total}", client.shown.len());
    let numbers: Vec<usize> = client.shown.iter().map(number_of).collect();
    assert_eq!(numbers, (0..total).collect::<Vec<_>>());
}

/// Makes another user send these messages, each after a pause, while the client reads.
fn send_while_it_reads(server: &TestServer, qt: &mut QtClient, id: i64, pauses: &[Duration]) {
    let (mut alice, a) = user(server, "alice");
    thread::scope(|scope| {
        scope.spawn(move || {
            for (n, pause) in pauses.iter().enumerate() {
                thread::sleep(*pause);
                alice.send(&message(a, id, n));
            }
            alice.barrier();
        });
        qt.show_until(pauses.len());
    });
    assert_shown(qt, pauses.len());
}

#[test]
fn thirty_messages_a_second_are_shown() {
    let server = TestServer::start();
    let id = qt_user(&server);
    let mut qt = QtClient::login(&server, id, DIGITS);
    send_while_it_reads(&server, &mut qt, id, &[Duration::from_millis(33); 181]);
}

#[test]
fn a_burst_and_the_messages_soon_after_it_are_shown() {
    let server = TestServer::start();
    let id = qt_user(&server);
    let mut qt = QtClient::login(&server, id, DIGITS);
    let pauses = [vec![Duration::ZERO; 50], vec![Duration::from_millis(200); 8]].concat();
    send_while_it_reads(&server, &mut qt, id, &pauses);
}

#[test]
fn a_very_long_burst_is_shown() {
    // Twice as fast as the real client. If it were faster, a busy machine could hold the client up
    // for longer than the pause between frames.
    let server = TestServer::builder().option("pace_ms", "20").start();
    let id = qt_user(&server);
    let mut qt = QtClient::login(&server, id, DIGITS);
    qt.set_busy(Duration::from_micros(17_500));
    send_while_it_reads(&server, &mut qt, id, &[Duration::ZERO; 400]);
}

#[test]
fn stored_messages_come_in_frames_that_it_reads_and_those_that_come_meanwhile_too() {
    const STORED: usize = 60;
    const LIVE: usize = 25;
    let server = TestServer::start();
    let id = qt_user(&server);
    let (mut alice, a) = user(&server, "alice");
    (0..STORED).for_each(|n| alice.send(&message(a, id, n)));
    alice.barrier();
    let mut qt = QtClient::login(&server, id, DIGITS);
    thread::scope(|scope| {
        scope.spawn(move || {
            for n in STORED..STORED + LIVE {
                thread::sleep(Duration::from_millis(100));
                alice.send(&message(a, id, n));
            }
            alice.barrier();
        });
        qt.send(&json!({"msgType": 14, "FROMID": id}));
        qt.show_until(STORED + LIVE);
    });
    assert_eq!(qt.lost, Vec::<String>::new());
    let (stored, live): (Vec<usize>, Vec<usize>) = qt.shown.iter().map(number_of).partition(|n| *n < STORED);
    assert_eq!(stored, (0..STORED).collect::<Vec<_>>());
    assert_eq!(live, (STORED..STORED + LIVE).collect::<Vec<_>>());
    wait_until("what has arrived is deleted", || server.stored_for(id) == 0);
}

#[test]
fn a_fetch_that_breaks_off_in_the_middle_loses_nothing() {
    const STORED: usize = 100;
    let server = TestServer::start();
    let id = qt_user(&server);
    let (mut alice, a) = user(&server, "alice");
    (0..STORED).for_each(|n| alice.send(&message(a, id, n)));
    alice.barrier();
    let mut seen = Vec::new();
    for connection in 0.. {
        // The client logs in again automatically.
        let mut qt = QtClient::login(&server, id, if connection == 0 { DIGITS } else { PASSWORD });
        qt.send(&json!({"msgType": 14, "FROMID": id}));
        qt.show_until((STORED - seen.len()).min(20));
        seen.extend(qt.shown.iter().map(number_of));
        if seen.len() >= STORED {
            break;
        }
        wait_until("what it has shown is deleted", || server.stored_for(id) <= STORED - seen.len());
    }
    assert_eq!(seen, (0..STORED).collect::<Vec<_>>());
}

#[test]
fn the_reply_to_a_logout_overtakes_waiting_messages() {
    for fetches in [false, true] {
        let server = TestServer::start();
        let id = qt_user(&server);
        let (mut alice, a) = user(&server, "alice");
        let mut qt = if fetches { None } else { Some(QtClient::login(&server, id, DIGITS)) };
        (0..60).for_each(|n| alice.send(&message(a, id, n)));
        alice.barrier();
        let qt = qt.get_or_insert_with(|| {
            let mut qt = QtClient::login(&server, id, DIGITS);
            qt.send(&json!({"msgType": 14, "FROMID": id}));
            qt
        });
        let frames = [(); 2].map(|()| qt.read_frame().len());
        assert!(frames[1] > 5, "the next frame waits, since this one takes long to show: {frames:?}");
        let reply = qt.ask(&json!({"msgType": 3, "USERID": id}));
        assert_eq!(reply, json!({"errno": 200, "msgType": 200}));
    }
}

/// Whether the server paces a client: a burst then arrives in frames of type 14.
fn is_paced(server: &TestServer, client: &mut TestClient, id: i64) -> bool {
    const BURST: usize = 20;
    static SENDERS: AtomicUsize = AtomicUsize::new(0);
    client.set_patience(LONG_PATIENCE);
    let mut sender = TestClient::connect(server);
    let name = format!("sender of {}", SENDERS.fetch_add(1, Ordering::Relaxed));
    let s = sender.register(&name, &testkit::password(&name));
    sender.login(s, &testkit::password(&name));
    let burst: String = (0..BURST).map(|n| numbered(s, id, n).to_string()).collect();
    sender.send_raw(burst.as_bytes());
    let (mut messages, mut frames) = (0, 0);
    while messages < BURST {
        let frame = client.recv();
        messages += frame["msgs"].as_array().map_or(1, Vec::len);
        frames += 1;
    }
    frames < BURST
}

#[test]
fn the_client_is_recognised_by_its_password_form_and_later_by_its_account() {
    let mut server = TestServer::start();
    let id = qt_user(&server);
    let plain = TestClient::connect(&server).register("plain", PASSWORD);
    let paced = |server: &TestServer, mut client: TestClient, id: i64, password: &str| {
        client.login(id, password);
        is_paced(server, &mut client, id)
    };
    for _ in 0..2 {
        assert!(paced(&server, TestClient::connect(&server), id, DIGITS));
        // The first time the server remembers the client. After the restart it reads the fact from
        // the store.
        server.restart();
        for _ in 0..2 {
            assert!(paced(&server, TestClient::connect(&server), id, PASSWORD));
            assert!(!paced(&server, TestClient::connect_lines(&server), id, DIGITS), "it reads lines");
            assert!(!paced(&server, TestClient::connect(&server), plain, PASSWORD), "it is another client");
        }
    }
    let server = TestServer::builder().option("paced", "off").start();
    let id = qt_user(&server);
    assert!(!paced(&server, TestClient::connect(&server), id, DIGITS));
}
