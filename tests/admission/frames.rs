//! Too many frames or bytes on one connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use testkit::{
    ACK, BAD_REQUEST, LONG_PATIENCE, SetOnDrop, StoreLock, TestClient, assert_refusal, chat, numbered, offline_user,
    user, wait_until,
};

use crate::{PING, counting, refused};

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
fn a_refusal_waits_for_replies_to_earlier_requests() {
    let server = counting().option("auth", "compat").option("frames_per_second", "1/2").option("loops", "1").start();
    let carol = offline_user(&server, "carol");
    let lock = StoreLock::take(&server);
    let mut sender = TestClient::connect(&server);
    sender.send_raw(format!("{}{}{PING}", numbered(1, carol, 0), numbered(1, carol, 1)).as_bytes());
    // There is only one loop. When it answers the second client, it has seen the first client's
    // frames.
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
    // The client may connect again at once.
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
    // Invalid input counts by its length, too.
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
        // A few bytes between frames count, but cost nothing else.
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
        // If blanks were not counted, there would be twice as many replies.
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
    // It exceeds the limit so far that the debt lasts for a minute.
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
    // Invalid input that arrives in pieces counts by its length, too.
    let mut client = TestClient::connect(&server);
    client.set_patience(LONG_PATIENCE);
    client.send_raw(&[b"x".repeat(1 << 20).as_slice(), b"\n", PING.as_bytes()].concat());
    // An invalid run ends where the received bytes end, so the input may be several runs.
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
