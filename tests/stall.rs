//! A database that accepts no writes for a while. Requests that do not need it are served; the
//! others wait or are refused.

use std::thread;

use rusqlite::Connection;
use serde_json::json;
use testkit::{ACK, LONG_PATIENCE, StoreLock, TestClient, TestServer};
use testkit::{assert_refusal, chat, login, number_of, numbered, offline_user, password, user, wait_until};

#[test]
fn chat_on_the_node_goes_on() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let c = offline_user(&server, "carol");
    let lock = StoreLock::take(&server);
    // A message that waits for the lock only delays messages to its own recipient.
    alice.send(&chat(a, c, "held up"));
    for n in 0..200 {
        alice.send(&numbered(a, b, n));
        bob.expect(&numbered(a, b, n));
        bob.send(&numbered(b, a, n));
        alice.expect(&numbered(b, a, n));
    }
    bob.ack_barrier();
    assert_eq!(server.stored(), 0, "the message for carol is held up");
    drop(lock);
    alice.ack_barrier();
    assert_eq!(server.stored(), 1);
}

#[test]
fn chat_in_a_known_group_goes_on() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let group = alice.create_group(a, "the group");
    bob.join_group(b, group);
    let message = |n: usize| json!({"msgType": 9, "FROMID": a, "GROUPID": group, "n": n});
    // The first message makes the node load the members.
    alice.send(&message(0));
    bob.expect(&message(0));
    let lock = StoreLock::take(&server);
    for n in 1..100 {
        alice.send(&message(n));
        bob.expect(&message(n));
    }
    alice.ack_barrier();
    drop(lock);
}

#[test]
fn users_verified_before_log_in_and_out() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    bob.logout(b);
    let lock = StoreLock::take(&server);
    for n in 0..20 {
        let mut bob = login(&server, "bob", b);
        alice.send(&numbered(a, b, n));
        bob.expect(&numbered(a, b, n));
        bob.logout(b);
    }
    // A wrong password is refused during the stall, too.
    let mut eve = TestClient::connect(&server);
    eve.send(&json!({"msgType": 1, "USERID": b, "password": password("alice")}));
    let reply = eve.recv();
    assert!(reply["errno"] == 302 || reply["errno"] == 503, "{reply}");
    let mut bob = login(&server, "bob", b);
    drop(lock);
    server.wait_state(b, "online");
    bob.logout(b);
    server.wait_state(b, "offline");
}

#[test]
fn a_reply_waits_until_what_was_sent_before_is_stored_or_refused() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let (mut dave, d) = user(&server, "dave");
    let c = offline_user(&server, "carol");
    alice.set_patience(LONG_PATIENCE);
    let lock = StoreLock::take(&server);
    alice.send(&chat(a, c, "for later"));
    alice.send(&json!({"msgType": 200}));
    // This gives the server time to answer too early.
    for n in 0..500 {
        bob.send(&numbered(b, d, n));
        dave.expect(&numbered(b, d, n));
    }
    let mut refused = false;
    if let Some(early) = alice.recv_now() {
        assert_refusal(&early.to_string(), 503);
        refused = true;
    }
    drop(lock);
    if !refused {
        let reply = alice.recv_text();
        if reply != ACK {
            assert_refusal(&reply, 503);
            refused = true;
        }
    }
    if refused {
        alice.expect_text(ACK);
    }
    let got = login(&server, "carol", c).fetch(c);
    let expected = if refused { vec![] } else { vec![chat(a, c, "for later")] };
    assert_eq!(got, expected, "a message is stored or refused, never both, never neither");
}

#[test]
fn messages_sent_meanwhile_are_stored_in_order_or_refused() {
    const MESSAGES: usize = 200;
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let c = offline_user(&server, "carol");
    alice.set_patience(LONG_PATIENCE);
    let lock = StoreLock::take(&server);
    for n in 0..MESSAGES {
        alice.send(&numbered(a, c, n));
    }
    alice.send(&json!({"msgType": 200}));
    for n in 0..50 {
        bob.send(&numbered(b, b, n));
        bob.expect(&numbered(b, b, n));
    }
    drop(lock);
    let mut refused = 0;
    loop {
        let reply = alice.recv_text();
        if reply == ACK {
            break;
        }
        assert_refusal(&reply, 503);
        refused += 1;
    }
    let got: Vec<usize> = login(&server, "carol", c).fetch_all(c).iter().map(number_of).collect();
    assert_eq!(got.len() + refused, MESSAGES, "every message is stored or refused");
    assert!(got.is_sorted_by(|before, after| before < after), "{got:?}");
}

/// One table is missing and the others are there. Requests that need both must not cause a log line
/// for each call.
#[test]
fn a_kind_of_call_that_fails_beside_one_that_works_writes_one_line() {
    let server = TestServer::start();
    let (_, a) = user(&server, "alice");
    let database = Connection::open(server.folder().join("raybox.db")).expect("open the database");
    let rename = |from: &str, to: &str| {
        database.execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}")).expect("rename a table");
    };
    rename("Friend", "Gone");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut alice = login(&server, "alice", a);
                for _ in 0..50 {
                    assert_eq!(alice.ask(&json!({"msgType": 7, "FROMID": a, "TOID": 1}))["errno"], 500);
                    alice.ask(&json!({"msgType": 15, "keyword": "1"}));
                }
            });
        }
    });
    rename("Gone", "Friend");
    login(&server, "alice", a).ask(&json!({"msgType": 7, "FROMID": a, "TOID": 1}));
    let end = "removing friends works again, 400 calls failed";
    wait_until("the log tells of the end", || server.logs().contains(end));
    let logs = server.logs();
    let lines = |text: &str| logs.lines().filter(|line| line.contains(text)).count();
    assert_eq!((lines("fails: "), lines("works again, ")), (1, 1), "{logs}");
}

/// The log folder is not writable, so lines go to stderr, which is an unread pipe of 64 KiB
/// (pipe(7)).
#[test]
fn nobody_waits_for_a_stderr_that_nobody_reads() {
    let builder = TestServer::builder().option("log_dir", "/proc/nowhere").option("log_level", "debug");
    let builder = builder.option("admin", "127.0.0.1:0").option("drain_timeout", "3s");
    let mut server = builder.after("mkfifo unread; exec 2<>unread").start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    // Each connection writes two lines of about a hundred bytes.
    for _ in 0..1000 {
        TestClient::connect(&server).ack_barrier();
    }
    for n in 0..200 {
        alice.send(&numbered(a, b, n));
        bob.expect(&numbered(a, b, n));
    }
    wait_until("it is ready", || server.is_ready());
    server.terminate();
    assert_eq!(server.wait_exit(LONG_PATIENCE).code(), Some(0));
}
