//! Clients that have gone but still seem online. The server's kernel took messages for them that
//! the client's kernel never acknowledged.
//!
//! Such a client reads nothing here, so its kernel's window closes. Bytes sent from then on stay in
//! the server's kernel. To the server they look written, and they would be lost with the connection
//! if the server kept no copy.

use std::thread;
use std::time::Duration;

use serde_json::json;
use testkit::{
    Cluster, LONG_PATIENCE, TestClient, TestServer, assert_covers, login, number_of, numbered, numbered_with_text,
    offline_user, user, wait_until,
};

/// More than fits into the window of a client that does not read, and less than the server's kernel
/// takes.
const MESSAGES: usize = 200;
const LENGTH: usize = 4_000;

/// Alice has sent Bob messages, and the server has written all of them, but Bob reads nothing.
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
fn messages_that_did_not_arrive_before_a_reset_are_stored_in_order() {
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
fn messages_that_arrive_are_not_stored() {
    let server = TestServer::start();
    let (_alice, _, mut bob, b) = with_a_deaf_bob(&server);
    let live: Vec<usize> = (0..MESSAGES).map(|_| number_of(&bob.recv())).collect();
    drop(bob);
    server.wait_state(b, "offline");
    assert_covers(&live, &[], MESSAGES);
    assert_eq!(server.stored(), 0);
}

#[test]
fn a_user_who_comes_back_gets_at_once_what_the_old_connection_holds() {
    let server = TestServer::start();
    let (mut alice, a, _deaf, b) = with_a_deaf_bob(&server);
    // Within this time the server notices that the old connection acknowledges nothing.
    thread::sleep(Duration::from_secs(5));
    let mut bob = login(&server, "bob", b);
    let mut got = bob.recv_until_barrier();
    assert!(!got.is_empty(), "the old connection keeps its messages");
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
fn a_user_who_comes_back_before_the_old_connection_is_known_to_be_dead_gets_what_it_holds() {
    let server = TestServer::start();
    let (mut alice, a, _deaf, b) = with_a_deaf_bob(&server);
    let mut bob = login(&server, "bob", b);
    let mut got = vec![number_of(&bob.recv())];
    alice.send(&numbered(a, b, MESSAGES));
    while got.last() != Some(&MESSAGES) {
        got.push(number_of(&bob.recv()));
    }
    assert!(0 < got[0] && got[0] < MESSAGES / 2, "what the old connection has brought does not come again: {}", got[0]);
    assert_eq!(got, (got[0]..=MESSAGES).collect::<Vec<_>>(), "in order, and ahead of what is new");
    assert_eq!(server.stored(), 0);
}

/// A connection must not receive a message after a later one, so the messages are stored and come
/// with a fetch.
#[test]
fn messages_of_the_old_connection_are_stored_when_the_new_one_has_got_something() {
    let server = TestServer::start();
    let (mut alice, a, _deaf, b) = with_a_deaf_bob(&server);
    let mut bob = login(&server, "bob", b);
    alice.send(&numbered(a, b, MESSAGES));
    let mut got: Vec<usize> = Vec::new();
    while got.last() != Some(&MESSAGES) {
        got.push(number_of(&bob.recv()));
    }
    if got.len() == 1 {
        // If nothing is stored yet, the machine is so slow that the old connection was given up
        // first.
        wait_until("the old connection is given up", || server.stored_for(b) > 0);
        got.splice(..0, bob.fetch_all(b).iter().map(number_of));
    }
    assert!(0 < got[0] && got[0] < MESSAGES / 2, "what the old connection has brought does not come again: {}", got[0]);
    assert_eq!(got, (got[0]..=MESSAGES).collect::<Vec<_>>());
}

#[test]
fn a_user_who_comes_back_on_another_node_gets_at_once_what_the_old_connection_holds() {
    let cluster = Cluster::start(2);
    let (mut alice, a, _deaf, b) = with_a_deaf_bob(&cluster.nodes[0]);
    let mut bob = login(&cluster.nodes[1], "bob", b);
    bob.set_patience(LONG_PATIENCE);
    let mut got = vec![number_of(&bob.recv())];
    alice.send(&numbered(a, b, MESSAGES));
    while got.last() != Some(&MESSAGES) {
        got.push(number_of(&bob.recv()));
    }
    assert!(0 < got[0] && got[0] < MESSAGES / 2, "what the old connection has brought does not come again: {}", got[0]);
    assert_eq!(got, (got[0]..=MESSAGES).collect::<Vec<_>>(), "in order, and ahead of what is new");
    assert_eq!(cluster.nodes[0].stored_for(b), 0);
}

/// A connection must not receive a message after a later one, so the messages are stored and come
/// with a fetch.
#[test]
fn messages_of_the_old_connection_are_stored_when_the_new_one_on_another_node_has_got_something() {
    let cluster = Cluster::start(2);
    let (mut alice, a, _deaf, b) = with_a_deaf_bob(&cluster.nodes[0]);
    let (mut carol, c) = user(&cluster.nodes[1], "carol");
    let mut bob = login(&cluster.nodes[1], "bob", b);
    bob.set_patience(LONG_PATIENCE);
    let newer = numbered(c, b, MESSAGES);
    carol.send(&newer);
    let mut got: Vec<usize> = Vec::new();
    while got.last() != Some(&MESSAGES) {
        got.push(number_of(&bob.recv()));
    }
    if got.len() == 1 {
        // If nothing is stored yet, the machine is so slow that the old connection was given up
        // first.
        wait_until("the old connection is given up", || cluster.nodes[0].stored_for(b) > 0);
        got.clear();
        wait_until("all of it is stored", || {
            got.extend(bob.fetch_all(b).iter().map(number_of));
            got.contains(&(MESSAGES - 1))
        });
        got.push(MESSAGES);
    }
    assert!(0 < got[0] && got[0] < MESSAGES / 2, "what the old connection has brought does not come again: {}", got[0]);
    assert_eq!(got, (got[0]..=MESSAGES).collect::<Vec<_>>());
    // The first node no longer has a connection of bob.
    alice.send(&numbered(a, b, MESSAGES + 1));
    bob.expect(&numbered(a, b, MESSAGES + 1));
}

/// A device whose connection acknowledges everything does not count as lost when another device
/// logs in.
#[test]
fn a_device_that_takes_its_messages_stays_when_another_one_comes() {
    let server = TestServer::start();
    let (mut alice, a, mut slow, b) = with_a_deaf_bob(&server);
    let mut quick = login(&server, "bob", b);
    let got: Vec<usize> = (0..MESSAGES).map(|_| number_of(&slow.recv())).collect();
    assert_eq!(got, (0..MESSAGES).collect::<Vec<_>>());
    // The server checks the old connection after a second. If it took messages back, they would go
    // to the newest connection.
    assert_eq!(quick.recv_within(Duration::from_secs(2)), None);
    quick.logout(b);
    for n in 0..MESSAGES {
        alice.send(&numbered_with_text(a, b, n, LENGTH));
    }
    alice.barrier();
    // The check is over, so now the device may be as slow as any other.
    assert_eq!(quick.recv_within(Duration::from_secs(3)), None);
    let got: Vec<usize> = (0..MESSAGES).map(|_| number_of(&slow.recv())).collect();
    assert_eq!(got, (0..MESSAGES).collect::<Vec<_>>());
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
