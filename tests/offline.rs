//! Messages for offline users: stored unchanged, in order, and returned once.

use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use testkit::{LONG_PATIENCE, NOBODY, TestClient, TestServer};
use testkit::{chat, login, number_of, numbered, numbered_with_text, offline_user, user, wait_until, wait_within};

/// Sends `count` numbered messages and waits until they are settled.
fn send_numbered(sender: &mut TestClient, from: i64, to: i64, count: usize) {
    for n in 0..count {
        sender.send(&numbered(from, to, n));
        if n % 200 == 199 {
            sender.barrier();
        }
    }
    sender.barrier();
}

fn numbers(frames: &[Value]) -> Vec<usize> {
    frames.iter().map(number_of).collect()
}

/// Waits until nothing is stored: a reply may arrive before the database has deleted its messages.
fn assert_all_deleted(server: &TestServer) {
    wait_until("what was fetched is deleted", || server.stored() == 0);
}

#[test]
fn stored_messages_come_back_in_the_order_sent() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    send_numbered(&mut alice, a, b, 1_000);
    assert_eq!(server.stored_for(b), 1_000);
    let mut bob = login(&server, "bob", b);
    let got = numbers(&bob.fetch_all(b));
    assert_eq!(got, (0..1_000).collect::<Vec<_>>());
    assert_all_deleted(&server);
}

#[test]
fn several_senders_keep_their_own_order() {
    let server = TestServer::start();
    let b = offline_user(&server, "bob");
    let senders: Vec<i64> = thread::scope(|scope| {
        let server = &server;
        let threads: Vec<_> = (0..4)
            .map(|n| {
                scope.spawn(move || {
                    let (mut client, id) = user(server, &format!("sender {n}"));
                    send_numbered(&mut client, id, b, 250);
                    id
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a sender")).collect()
    });
    let got = login(&server, "bob", b).fetch_all(b);
    assert_eq!(got.len(), 1_000);
    for sender in senders {
        let of_sender: Vec<usize> = got.iter().filter(|frame| frame["FROMID"] == sender).map(number_of).collect();
        assert_eq!(of_sender, (0..250).collect::<Vec<_>>());
    }
}

#[test]
fn messages_of_any_length_are_kept() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    let empty = chat(a, b, "").to_string().len();
    let lengths = [0, 1, 499, 500, 501, 4_096, 30_000, 64 * 1024 - empty];
    for length in lengths {
        alice.send(&chat(a, b, &"m".repeat(length)));
    }
    // The length of multi-byte characters is counted in UTF-8.
    let wide = chat(a, b, &"界😀\"\\".repeat(2_000));
    alice.send(&wide);
    alice.barrier();
    let got = login(&server, "bob", b).fetch_all(b);
    assert_eq!(got.len(), lengths.len() + 1);
    for (frame, length) in got.iter().zip(lengths) {
        assert_eq!(*frame, chat(a, b, &"m".repeat(length)), "the message of {length}");
    }
    assert_eq!(got.last(), Some(&wide));
}

#[test]
fn awkward_text_is_kept_as_it_is() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    let texts =
        ["'; DROP TABLE OfflineMessage; --", "\"\\\"", "\n\r\t\u{8}\u{c}\0\u{1f}", "%_%", "\u{2028}\u{feff}", "👩‍👩‍👧"];
    for text in texts {
        alice.send(&chat(a, b, text));
    }
    alice.barrier();
    let got = login(&server, "bob", b).fetch_all(b);
    assert_eq!(got, texts.map(|text| chat(a, b, text)));
}

#[test]
fn a_fetch_deletes_exactly_what_it_returned() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    let c = offline_user(&server, "carol");
    let mut bob = login(&server, "bob", b);
    bob.logout(b);
    for round in 0..10 {
        for n in 0..round {
            alice.send(&numbered(a, b, n));
            alice.send(&numbered(a, c, n));
        }
        alice.barrier();
        bob.login(b, &testkit::password("bob"));
        assert_eq!(numbers(&bob.fetch(b)), (0..round).collect::<Vec<_>>());
        assert_eq!(bob.fetch(b), [] as [Value; 0]);
        bob.logout(b);
    }
    wait_until("bob's are deleted", || server.stored_for(b) == 0);
    assert_eq!(server.stored_for(c), (0..10).sum::<usize>(), "carol's are still there");
}

#[test]
fn nothing_is_lost_between_live_and_stored() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    let total = 3_000;
    let got = thread::scope(|scope| {
        let sending = scope.spawn(|| send_numbered(&mut alice, a, b, total));
        // The recipient logs in, fetches and logs out again and again. The answer to a logout comes
        // after every push.
        let mut got = Vec::new();
        let mut bob = TestClient::connect(&server);
        let deadline = Instant::now() + LONG_PATIENCE;
        while got.len() < total {
            assert!(Instant::now() < deadline, "{} of {total} arrived", got.len());
            bob.send(&json!({"msgType": 1, "USERID": b, "password": testkit::password("bob")}));
            assert_eq!(bob.recv()["errno"], 200);
            got.extend(numbers(&bob.collect(b)));
            bob.send(&json!({"msgType": 3, "USERID": b}));
            loop {
                let frame = bob.recv();
                if frame["msgType"] == 200 {
                    break;
                }
                got.push(number_of(&frame));
            }
        }
        sending.join().expect("the sender");
        got
    });
    // Live messages may overtake stored ones that are fetched later, but each message arrives once.
    let mut sorted = got;
    sorted.sort_unstable();
    assert_eq!(sorted, (0..total).collect::<Vec<_>>());
    assert_all_deleted(&server);
}

#[test]
fn pipelined_fetches_return_everything_once() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    let mut bob = TestClient::connect(&server);
    for _ in 0..10 {
        send_numbered(&mut alice, a, b, 20);
        bob.login(b, &testkit::password("bob"));
        let fetch = json!({"msgType": 14, "FROMID": b}).to_string();
        bob.send_raw(fetch.repeat(2).as_bytes());
        assert_eq!(bob.recv_fetched().len(), 20);
        assert_eq!(bob.recv_fetched().len(), 0);
        bob.logout(b);
    }
}

#[test]
fn two_connections_never_get_the_same_message() {
    let server = TestServer::builder().option("fetch_max", "4k").start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    let total = 2_000;
    send_numbered(&mut alice, a, b, total);
    let got = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut bob = login(&server, "bob", b);
                let deadline = Instant::now() + LONG_PATIENCE;
                while got.lock().expect("the numbers").len() < total {
                    assert!(Instant::now() < deadline, "not all arrived in time");
                    let some = numbers(&bob.fetch(b));
                    assert!(some.is_sorted(), "{some:?}");
                    got.lock().expect("the numbers").extend(some);
                }
            });
        }
    });
    let mut got = got.into_inner().expect("the numbers");
    got.sort_unstable();
    assert_eq!(got, (0..total).collect::<Vec<_>>());
    assert_all_deleted(&server);
}

#[test]
fn a_long_backlog_is_returned_in_parts() {
    const LENGTH: usize = 10_000;
    const PART_MAX: usize = 64 * 1024;
    let server = TestServer::builder().option("fetch_max", "64k").start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    for n in 0..40 {
        alice.send(&numbered_with_text(a, b, n, LENGTH));
    }
    alice.barrier();
    let mut bob = login(&server, "bob", b);
    let mut got = Vec::new();
    while got.len() < 40 {
        let part = bob.fetch_texts(b);
        assert!(!part.is_empty(), "only {} of 40 came back", got.len());
        assert!(part.iter().map(String::len).sum::<usize>() <= PART_MAX, "a part of {} messages", part.len());
        got.extend(part.iter().map(|text| number_of(&serde_json::from_str(text).expect("JSON"))));
        wait_until("just the rest is still there", || server.stored_for(b) + got.len() == 40);
    }
    assert_eq!(got, (0..40).collect::<Vec<_>>());
    assert_eq!(bob.fetch(b), [] as [Value; 0]);
}

#[test]
fn one_message_longer_than_a_part_is_returned_alone() {
    let server = TestServer::builder().option("fetch_max", "4k").start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    for n in 0..3 {
        alice.send(&numbered_with_text(a, b, n, 20_000));
    }
    alice.barrier();
    let mut bob = login(&server, "bob", b);
    for n in 0..3 {
        assert_eq!(numbers(&bob.fetch(b)), [n]);
    }
    assert_eq!(bob.fetch(b), [] as [Value; 0]);
}

#[test]
fn a_connection_that_dies_over_its_reply_deletes_nothing_it_did_not_get() {
    // The reply is more than both kernels hold for a connection, so it cannot leave the server
    // completely.
    const MESSAGES: usize = 300;
    const LENGTH: usize = 60_000;
    let server = TestServer::builder()
        .option("fetch_max", "32m")
        .option("mailbox_max", "256m")
        .option("output_max", "128m")
        .start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    alice.set_patience(LONG_PATIENCE);
    for n in 0..MESSAGES {
        alice.send(&numbered_with_text(a, b, n, LENGTH));
        if n % 20 == 19 {
            alice.barrier();
        }
    }
    let mut dying = login(&server, "bob", b);
    dying.send(&json!({"msgType": 14, "FROMID": b}));
    dying.wait_readable();
    // Closing with unread data resets the connection.
    drop(dying);
    let mut bob = login(&server, "bob", b);
    bob.set_patience(LONG_PATIENCE);
    let mut got = Vec::new();
    let deadline = Instant::now() + LONG_PATIENCE;
    while got.len() < MESSAGES {
        assert!(Instant::now() < deadline, "{} of {MESSAGES} came back", got.len());
        got.extend(numbers(&bob.fetch(b)));
    }
    assert_eq!(got, (0..MESSAGES).collect::<Vec<_>>());
    assert_all_deleted(&server);
}

#[test]
fn a_message_to_nobody_is_not_stored() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    for to in [NOBODY, 999_999, 0, -1, i64::from(i32::MAX), i64::from(i32::MIN), a + (1 << 32)] {
        alice.send(&chat(a, to, "anybody?"));
        alice.send(&json!({"msgType": 5, "FROMID": a, "TOID": to}));
    }
    alice.barrier();
    assert_eq!(server.stored(), 0);
    alice.expect_silence_until_barrier();
}

#[test]
fn group_messages_wait_for_members_who_are_offline() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let group = alice.create_group(a, "the group");
    bob.join_group(b, group);
    let away: Vec<(String, i64)> = (0..10)
        .map(|n| {
            let name = format!("member {n}");
            let (mut member, id) = user(&server, &name);
            member.join_group(id, group);
            member.logout(id);
            (name, id)
        })
        .collect();
    let message = |n: usize| json!({"msgType": 9, "FROMID": a, "GROUPID": group, "n": n, "msg": "hello all"});
    for n in 0..20 {
        alice.send(&message(n));
        bob.expect(&message(n));
    }
    alice.barrier();
    for (name, id) in &away {
        let got = login(&server, name, *id).fetch_all(*id);
        assert_eq!(got, (0..20).map(message).collect::<Vec<_>>(), "{name}");
    }
    assert_eq!(alice.fetch(a), [] as [Value; 0]);
    assert_eq!(bob.fetch(b), [] as [Value; 0]);
}

#[test]
fn friend_requests_and_notices_wait_too() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    let request = json!({"msgType": 5, "FROMID": a, "TOID": b, "greeting": "hey"});
    alice.send(&request);
    let reply = alice.ask(&json!({"msgType": 6, "U1": a, "U2": b}));
    assert_eq!(reply, json!({"errno": 200, "msgType": 6, "name": "bob", "userId": b}));
    alice.barrier();
    let texts = login(&server, "bob", b).fetch_texts(b);
    assert_eq!(texts.len(), 2);
    assert_eq!(serde_json::from_str::<Value>(&texts[0]).expect("JSON"), request);
    assert_eq!(texts[1], format!(r#"{{"errno":200,"msgType":6,"name":"alice","new":true,"userId":{a}}}"#));
}

#[test]
fn acknowledged_messages_survive_a_kill() {
    let mut server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    // There are enough messages for the kill to come in the middle of the sending.
    let enough = 1_000;
    let mut sent = 0;
    let mut acknowledged = 0;
    let deadline = Instant::now() + LONG_PATIENCE;
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            while Instant::now() < deadline {
                // A reply acknowledges everything sent before it. More messages are in flight when
                // the server is killed.
                for _ in 0..50 {
                    if !alice.try_send(&numbered(a, b, sent)) {
                        return;
                    }
                    sent += 1;
                }
                if !alice.try_send(&json!({"msgType": 200})) {
                    return;
                }
                match alice.recv_within(LONG_PATIENCE) {
                    Some(reply) => assert_eq!(reply["errno"], 200, "{reply}"),
                    None => return,
                }
                acknowledged = sent;
            }
        });
        wait_within(LONG_PATIENCE, "many messages are stored", || server.stored_for(b) >= enough);
        server.kill9();
        sending.join().expect("the sender");
    });
    assert!(acknowledged > 0, "nothing was acknowledged");
    server.restart();
    let got = numbers(&login(&server, "bob", b).fetch_all(b));
    assert!(got.len() >= acknowledged, "{acknowledged} acknowledged, {} there", got.len());
    assert!(got.len() <= sent);
    assert_eq!(got, (0..got.len()).collect::<Vec<_>>(), "in order, none twice, none missing");
}

/// A user with more stored messages than a socket buffer takes in one reply.
fn with_a_large_mailbox() -> (TestServer, TestClient, i64, i64, usize) {
    const COUNT: usize = 400;
    let builder =
        TestServer::builder().option("fetch_max", "64m").option("mailbox_max", "256m").option("user_timeout", "600s");
    // The messages are 24 MB, and two replies contain all of them. In repeated runs, the server
    // keeps 150 MiB more than a new one.
    let server = builder.may_keep(128).start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    alice.set_patience(LONG_PATIENCE);
    for n in 0..COUNT {
        alice.send(&numbered_with_text(a, b, n, 60_000));
    }
    alice.barrier();
    (server, alice, a, b, COUNT)
}

#[test]
fn a_reader_of_a_long_reply_does_not_count_as_slow() {
    let (server, mut alice, a, b, count) = with_a_large_mailbox();
    let mut bob = login(&server, "bob", b);
    bob.set_patience(LONG_PATIENCE);
    bob.send(&json!({"msgType": 14, "FROMID": b}));
    bob.wait_readable();
    for n in 0..100 {
        alice.send(&numbered(a, b, count + n));
    }
    alice.barrier();
    let fetched = bob.recv_fetched();
    assert_eq!(fetched.len(), count);
    for n in 0..100 {
        bob.expect(&numbered(a, b, count + n));
    }
    assert_all_deleted(&server);
}

#[test]
fn a_client_that_does_not_read_its_messages_gives_way_to_the_users_next_connection() {
    let (server, _, _, b, count) = with_a_large_mailbox();
    let mut stuck = login(&server, "bob", b);
    stuck.send(&json!({"msgType": 14, "FROMID": b}));
    stuck.wait_readable();
    let mut bob = login(&server, "bob", b);
    bob.set_patience(LONG_PATIENCE);
    assert_eq!(numbers(&bob.fetch(b)), (0..count).collect::<Vec<_>>());
    assert_all_deleted(&server);
    drop(stuck);
}

#[test]
fn a_client_that_asks_and_half_closes_gets_all_and_then_the_end() {
    let (server, mut alice, a, b, count) = with_a_large_mailbox();
    let mut older = login(&server, "bob", b);
    let mut bob = login(&server, "bob", b);
    bob.set_patience(LONG_PATIENCE);
    bob.send(&json!({"msgType": 14, "FROMID": b}));
    bob.half_close();
    assert_eq!(bob.recv_fetched().len(), count);
    bob.expect_eof();
    assert_all_deleted(&server);
    alice.send(&numbered(a, b, count));
    older.expect(&numbered(a, b, count));
}
