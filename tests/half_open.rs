//! Clients that are gone while they still look online: what the server's kernel took and theirs never acknowledged.
//!
//! Such a client reads nothing here, so that its kernel's window closes: what is sent then stays in the server's kernel,
//! written as far as the server can see, and is lost with the connection unless the server has kept it.

mod util;

use std::time::Instant;

use serde_json::json;
use util::{
    LONG_PATIENCE, TestClient, TestServer, assert_covers, login, number_of, numbered, numbered_with_text, offline_user,
    user, wait_until,
};

/// More than the window of a client that does not read, less than what the server's kernel takes.
const MESSAGES: usize = 200;
const LENGTH: usize = 4_000;

/// Bob, who reads nothing of what Alice has sent him; the server has written it all.
fn with_a_deaf_bob(server: &TestServer) -> (TestClient, i64, TestClient, i64) {
    let (mut alice, a) = user(server, "alice");
    let (bob, b) = user(server, "bob");
    alice.set_patience(LONG_PATIENCE);
    for n in 0..MESSAGES {
        alice.send(&numbered_with_text(a, b, n, LENGTH));
    }
    alice.barrier();
    assert_eq!(server.stored(), 0, "all is written");
    (alice, a, bob, b)
}

#[test]
fn what_did_not_arrive_before_a_reset_is_stored_in_order() {
    let server = TestServer::start();
    let (mut alice, a, bob, b) = with_a_deaf_bob(&server);
    // Closing with unread data resets the connection.
    drop(bob);
    server.wait_state(b, "offline");
    alice.send(&numbered(a, b, MESSAGES));
    alice.barrier();
    let stored: Vec<usize> = login(&server, "bob", b).fetch_all(b).iter().map(number_of).collect();
    let first = stored.first().copied().expect("most was never acknowledged");
    assert!(0 < first && first < MESSAGES / 2, "what bob's kernel took is not stored: from {first} on");
    assert_eq!(stored, (first..=MESSAGES).collect::<Vec<_>>());
}

#[test]
fn what_arrives_is_not_stored() {
    let server = TestServer::start();
    let (_alice, _, mut bob, b) = with_a_deaf_bob(&server);
    let live: Vec<usize> = (0..MESSAGES).map(|_| number_of(&bob.recv())).collect();
    drop(bob);
    server.wait_state(b, "offline");
    assert_covers(&live, &[], MESSAGES);
    assert_eq!(server.stored(), 0);
}

#[test]
fn who_comes_back_gets_at_once_what_the_old_connection_holds() {
    let server = TestServer::start();
    let (mut alice, a, _deaf, b) = with_a_deaf_bob(&server);
    let deadline = Instant::now() + LONG_PATIENCE;
    // The old connection gives way when it has acknowledged nothing for a while, and not before.
    let (mut bob, mut got) = loop {
        let mut bob = login(&server, "bob", b);
        let got = bob.recv_until_barrier();
        if !got.is_empty() {
            break (bob, got);
        }
        assert!(Instant::now() < deadline, "the old connection keeps its messages");
        bob.logout(b);
    };
    alice.send(&numbered(a, b, MESSAGES));
    while number_of(got.last().expect("it has some")) < MESSAGES {
        got.push(bob.recv());
    }
    let got: Vec<usize> = got.iter().map(number_of).collect();
    let first = got[0];
    assert!(0 < first && first < MESSAGES / 2, "what the old connection has brought does not come again: {first}");
    assert_eq!(got, (first..=MESSAGES).collect::<Vec<_>>(), "in order, and ahead of what is new");
    assert_eq!(server.stored(), 0);
}

#[test]
fn a_reply_that_did_not_arrive_deletes_nothing() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    alice.set_patience(LONG_PATIENCE);
    for n in 0..MESSAGES {
        alice.send(&numbered_with_text(a, b, n, LENGTH));
    }
    alice.barrier();
    for _ in 0..3 {
        let mut deaf = login(&server, "bob", b);
        deaf.send(&json!({"msgType": 14, "FROMID": b}));
        deaf.wait_readable();
        drop(deaf);
        server.wait_state(b, "offline");
        assert_eq!(server.stored_for(b), MESSAGES);
    }
    let got: Vec<usize> = login(&server, "bob", b).fetch_all(b).iter().map(number_of).collect();
    assert_eq!(got, (0..MESSAGES).collect::<Vec<_>>());
    wait_until("they are deleted then", || server.stored_for(b) == 0);
}
