//! Presence: several connections, several users, and connections that end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};
use testkit::{ACK, LONG_PATIENCE, NO_SUCH_METHOD, SetOnDrop, TestClient, TestServer};
use testkit::{
    assert_covers, chat, login, number_of, numbered, numbered_with_text, offline_user, password, user, wait_until,
};

#[test]
fn the_newest_login_receives_and_its_end_gives_back() {
    let server = TestServer::start();
    let (mut bob, b) = user(&server, "bob");
    let a = offline_user(&server, "alice");
    let mut connections: Vec<TestClient> = (0..4).map(|_| login(&server, "alice", a)).collect();
    let mut n = 0;
    while let Some(mut newest) = connections.pop() {
        bob.send(&numbered(b, a, n));
        newest.expect(&numbered(b, a, n));
        n += 1;
        for older in &mut connections {
            older.expect_silence_until_barrier();
        }
        // The logout is acknowledged, so messages sent from now on go to the next connection.
        newest.logout(a);
    }
    bob.send(&numbered(b, a, n));
    bob.barrier();
    assert_eq!(login(&server, "alice", a).fetch(a), [numbered(b, a, n)]);
}

#[test]
fn a_repeated_login_makes_a_connection_the_newest() {
    let server = TestServer::start();
    let (mut bob, b) = user(&server, "bob");
    let (mut first, a) = user(&server, "alice");
    let mut second = login(&server, "alice", a);
    first.login(a, &password("alice"));
    bob.send(&chat(b, a, "back"));
    first.expect(&chat(b, a, "back"));
    second.expect_silence_until_barrier();
    // Two logins on one connection count as one.
    first.logout(a);
    bob.send(&chat(b, a, "the other"));
    second.expect(&chat(b, a, "the other"));
    second.logout(a);
    server.wait_state(a, "offline");
}

#[test]
fn the_state_is_online_until_the_last_connection_is_gone() {
    let server = TestServer::start();
    let a = offline_user(&server, "alice");
    assert_eq!(server.state_of(a), "offline");
    let first = login(&server, "alice", a);
    server.wait_state(a, "online");
    let mut second = login(&server, "alice", a);
    let third = login(&server, "alice", a);
    let (mut bob, b) = user(&server, "bob");
    drop(third);
    drop(first);
    // When the server has noticed the end of a later connection, it has noticed the earlier ends,
    // too. So one more connection ends.
    let (last, c) = user(&server, "carol");
    server.wait_state(c, "online");
    drop(last);
    server.wait_state(c, "offline");
    assert_eq!(server.state_of(a), "online");
    bob.send(&chat(b, a, "still there"));
    second.expect(&chat(b, a, "still there"));
    drop(second);
    server.wait_state(a, "offline");
    let again = login(&server, "alice", a);
    server.wait_state(a, "online");
    drop(again);
    server.wait_state(a, "offline");
}

#[test]
fn several_users_on_one_connection() {
    let server = TestServer::start();
    let (mut bob, b) = user(&server, "bob");
    let names = ["alice", "amy", "anna"];
    let ids: Vec<i64> = names.iter().map(|name| offline_user(&server, name)).collect();
    let mut shared = TestClient::connect(&server);
    for (name, id) in names.iter().zip(&ids) {
        shared.login(*id, &password(name));
    }
    for id in &ids {
        bob.send(&chat(b, *id, "to each"));
        shared.expect(&chat(b, *id, "to each"));
        server.wait_state(*id, "online");
    }
    // One of the connection's users may write to another one.
    shared.send(&chat(ids[0], ids[1], "inside"));
    shared.expect(&chat(ids[0], ids[1], "inside"));
    shared.logout(ids[1]);
    bob.send(&chat(b, ids[1], "for later"));
    bob.send(&chat(b, ids[2], "now"));
    shared.expect(&chat(b, ids[2], "now"));
    server.wait_state(ids[1], "offline");
    drop(shared);
    for id in ids {
        server.wait_state(id, "offline");
    }
}

#[test]
fn a_user_who_comes_back_receives_again() {
    let server = TestServer::start();
    let (mut bob, b) = user(&server, "bob");
    let a = offline_user(&server, "alice");
    for round in 0..5 {
        let mut alice = login(&server, "alice", a);
        bob.send(&numbered(b, a, 2 * round));
        alice.expect(&numbered(b, a, 2 * round));
        server.wait_state(a, "online");
        drop(alice);
        server.wait_state(a, "offline");
        bob.send(&numbered(b, a, 2 * round + 1));
        bob.barrier();
        let mut alice = login(&server, "alice", a);
        assert_eq!(alice.fetch(a), [numbered(b, a, 2 * round + 1)]);
        alice.logout(a);
    }
}

#[test]
fn the_login_reply_comes_before_any_push() {
    let server = TestServer::builder().option("loops", "2").start();
    let a = offline_user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                for _ in 0..20 {
                    bob.send(&numbered(b, a, sent));
                    sent += 1;
                }
                bob.barrier();
            }
            sent
        });
        let stop = SetOnDrop(&done);
        let mut connections = Vec::new();
        for _ in 0..40 {
            let mut alice = TestClient::connect(&server);
            alice.send(&json!({"msgType": 1, "USERID": a, "password": password("alice")}));
            // The real client takes the next bytes after a login for the reply.
            alice.expect_text(ACK);
            // From then on the user is online, and pushes follow.
            assert_eq!(alice.recv()["msgType"], 4);
            connections.push(alice);
        }
        drop(stop);
        assert!(flood.join().expect("the flood") > 0);
    });
}

// Ends of connections

#[test]
fn requests_before_a_half_close_are_answered() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    for n in 0..50 {
        alice.send(&numbered(a, b, n));
        alice.send(&json!({"msgType": 11, "FROMID": a}));
        alice.send_text(r#"{"msgType":99}"#);
    }
    alice.half_close();
    for _ in 0..50 {
        alice.expect_text(r#"{"errno":200,"groups":[],"msgType":200}"#);
        alice.expect_text(NO_SUCH_METHOD);
    }
    alice.expect_eof();
    server.wait_state(a, "offline");
    let got: Vec<usize> = login(&server, "bob", b).fetch_all(b).iter().map(number_of).collect();
    assert_eq!(got, (0..50).collect::<Vec<_>>());
}

#[test]
fn a_login_before_a_half_close_is_answered() {
    let server = TestServer::start();
    let a = offline_user(&server, "alice");
    let mut client = TestClient::connect(&server);
    client.send(&json!({"msgType": 1, "USERID": a, "password": password("alice")}));
    client.half_close();
    client.expect_text(ACK);
    client.expect_eof();
    server.wait_state(a, "offline");
}

#[test]
fn messages_sent_before_a_close_are_delivered() {
    let server = TestServer::start();
    let (mut bob, b) = user(&server, "bob");
    let c = offline_user(&server, "carol");
    let a = offline_user(&server, "alice");
    for round in 0..10 {
        let mut alice = login(&server, "alice", a);
        for n in 0..20 {
            alice.send(&numbered(a, b, 20 * round + n));
            alice.send(&numbered(a, c, 20 * round + n));
        }
        drop(alice);
        for n in 0..20 {
            bob.expect(&numbered(a, b, 20 * round + n));
        }
        wait_until("all is stored", || server.stored_for(c) == 20 * (round + 1));
    }
    let got: Vec<usize> = login(&server, "carol", c).fetch_all(c).iter().map(number_of).collect();
    assert_eq!(got, (0..200).collect::<Vec<_>>());
}

#[test]
fn a_client_that_never_reads_is_closed_and_loses_nothing() {
    // More messages than both kernels hold for a connection.
    const MESSAGES: usize = 400;
    const LENGTH: usize = 60_000;
    let server = TestServer::builder().option("output_max", "64k").option("mailbox_max", "256m").start();
    let (mut alice, a) = user(&server, "alice");
    let (mut deaf, b) = user(&server, "bob");
    let (mut carol, c) = user(&server, "carol");
    let (mut dave, d) = user(&server, "dave");
    alice.set_patience(LONG_PATIENCE);
    deaf.set_patience(LONG_PATIENCE);
    for n in 0..MESSAGES {
        alice.send(&numbered_with_text(a, b, n, LENGTH));
        if n % 20 == 19 {
            alice.barrier();
            carol.send(&numbered(c, d, n));
            dave.expect(&numbered(c, d, n));
        }
    }
    server.wait_state(b, "offline");
    alice.barrier();
    carol.barrier();
    dave.barrier();
    let live: Vec<usize> = deaf.read_to_end().iter().map(number_of).collect();
    assert!(live.len() < MESSAGES, "the connection took everything: this test needs more messages");
    let mut bob = login(&server, "bob", b);
    bob.set_patience(LONG_PATIENCE);
    let stored: Vec<usize> = bob.fetch_all(b).iter().map(number_of).collect();
    assert_covers(&live, &stored, MESSAGES);
}

#[test]
fn a_client_that_reads_is_never_too_slow_for_a_burst() {
    const SENDERS: usize = 4;
    const EACH: usize = 100;
    // Each burst is more than may wait for a client. All bursts together are less than a socket
    // takes.
    let server = TestServer::builder().option("output_max", "64k").start();
    let (mut bob, b) = user(&server, "bob");
    bob.set_patience(LONG_PATIENCE);
    let mut senders: Vec<(TestClient, i64)> = (0..SENDERS).map(|n| user(&server, &format!("sender {n}"))).collect();
    let got: Vec<Value> = thread::scope(|scope| {
        let reader = scope.spawn(|| (0..SENDERS * EACH).map(|_| bob.recv()).collect());
        for (client, id) in &mut senders {
            let burst: Vec<String> = (0..EACH).map(|n| numbered_with_text(*id, b, n, 2_000).to_string()).collect();
            scope.spawn(move || client.send_raw(burst.concat().as_bytes()));
        }
        reader.join().expect("the reader gets everything")
    });
    for (_, id) in &senders {
        let of_sender: Vec<usize> = got.iter().filter(|frame| frame["FROMID"] == *id).map(number_of).collect();
        assert_eq!(of_sender, (0..EACH).collect::<Vec<_>>());
    }
    assert_eq!(server.stored(), 0);
}

#[test]
fn a_plain_password_is_accepted_at_once_and_hashed_afterwards() {
    let mut server = TestServer::start();
    let b = offline_user(&server, "bob");
    let plain = |server: &TestServer| {
        let query = format!("SELECT count(*) FROM User WHERE id = {b} AND password NOT LIKE '$argon2id$%'");
        server.count(&query)
    };
    assert_eq!(plain(&server), 0);
    server.run_sql(&format!("UPDATE User SET password = '{}' WHERE id = {b}", password("bob")));
    // After the restart the server has not verified this password yet.
    server.restart();
    assert_eq!(plain(&server), 1);
    let mut wrong = TestClient::connect(&server);
    let refused = wrong.ask(&json!({"msgType": 1, "USERID": b, "password": "pw-alice"}));
    assert_eq!(refused["errno"], 302);
    drop(login(&server, "bob", b));
    wait_until("the password is hashed", || plain(&server) == 0);
    server.restart();
    drop(login(&server, "bob", b));
}
