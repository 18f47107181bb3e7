//! `paced=on`: the usual client takes the bytes of one read for one frame, so it loses two frames
//! that arrive together. Here frames arrive one at a time, and chat messages close together arrive
//! as one frame of type 14. `tests/qt.rs` tests what such a client shows.

use serde_json::{Value, json};
use testkit::{
    LONG_PATIENCE, PATIENCE, TestClient, TestServer, chat, login, number_of, numbered, offline_user, password, user,
};

const MESSAGES: usize = 50;

/// A server that waits after each frame for longer than a burst takes.
fn paced() -> TestServer {
    TestServer::builder().option("paced", "on").option("pace_ms", "50").start()
}

/// The chat messages in these frames, whether single or inside a frame of type 14.
fn unpack(frames: &[Value]) -> Vec<Value> {
    let unpack = |frame: &Value| match frame["msgs"].as_array() {
        Some(texts) => texts.iter().map(|text| serde_json::from_str(text.as_str().expect("a text")).unwrap()).collect(),
        None => vec![frame.clone()],
    };
    frames.iter().flat_map(unpack).collect()
}

/// Receives frames until all these messages have arrived.
fn recv_messages(client: &mut TestClient, messages: usize) -> Vec<Value> {
    let mut frames = Vec::new();
    while unpack(&frames).len() < messages {
        frames.push(client.recv());
    }
    frames
}

#[test]
fn a_burst_of_chat_comes_as_one_frame() {
    let server = paced();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    bob.set_patience(LONG_PATIENCE);
    let burst: String = (0..MESSAGES).map(|n| numbered(a, b, n).to_string()).collect();
    alice.send_raw(burst.as_bytes());
    let frames = recv_messages(&mut bob, MESSAGES);
    let numbers: Vec<usize> = unpack(&frames).iter().map(number_of).collect();
    assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>());
    assert!(frames.len() <= MESSAGES / 5, "{} frames for {MESSAGES} messages", frames.len());
    for frame in frames.iter().filter(|frame| frame["msgType"] == 14) {
        let members: Vec<&str> = frame.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!((members, &frame["errno"]), (vec!["errno", "msgType", "msgs"], &json!(200)), "as a fetch's reply");
    }
}

#[test]
fn only_chat_is_joined_and_the_order_stays() {
    let server = paced();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    bob.set_patience(LONG_PATIENCE);
    let request = |n: usize| json!({"msgType": 5, "FROMID": a, "TOID": b, "n": n});
    let sent: Vec<Value> = (0..8).map(|n| if n == 3 { request(n) } else { numbered(a, b, n) }).collect();
    alice.send_raw(sent.iter().map(Value::to_string).collect::<String>().as_bytes());
    let frames = recv_messages(&mut bob, sent.len());
    assert_eq!(unpack(&frames), sent);
    assert!(frames.contains(&request(3)), "the client does not look for a friend request among kept messages");
}

#[test]
fn a_reply_is_alone() {
    let server = paced();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    let mut bob = TestClient::connect(&server);
    bob.set_patience(LONG_PATIENCE);
    bob.send(&json!({"msgType": 1, "USERID": b, "password": password("bob")}));
    // Pushes must arrive after the reply to the login, not together with it.
    let until_online = (0..).take_while(|n| {
        alice.send(&numbered(a, b, *n));
        alice.barrier();
        server.stored_for(b) == n + 1
    });
    let stored = until_online.count();
    assert_eq!(bob.recv(), json!({"errno": 200, "msgType": 200}));
    assert_eq!(unpack(&recv_messages(&mut bob, 1)), [numbered(a, b, stored)]);
}

#[test]
fn a_client_that_reads_lines_gets_frame_after_frame() {
    let server = paced();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    let mut bob = TestClient::connect_lines(&server);
    bob.login(b, &password("bob"));
    for n in 0..MESSAGES {
        alice.send(&numbered(a, b, n));
    }
    for n in 0..MESSAGES {
        bob.expect(&numbered(a, b, n));
    }
}

#[test]
fn held_frames_are_not_lost_when_the_client_goes() {
    let server = paced();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let burst: String = (0..MESSAGES).map(|n| numbered(a, b, n).to_string()).collect();
    alice.send_raw(burst.as_bytes());
    let mut got = vec![bob.recv()];
    // The client takes everything that has arrived. Its close then tells the server how much that
    // was.
    got.extend(bob.recv_now());
    drop(bob);
    server.wait_state(b, "offline");
    alice.barrier();
    let mut bob = login(&server, "bob", b);
    bob.set_patience(LONG_PATIENCE);
    let fetched = bob.fetch_all(b);
    let numbers: Vec<usize> = unpack(&got).iter().chain(&fetched).map(number_of).collect();
    assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>());
}

#[test]
fn held_frames_are_written_before_the_server_stops() {
    let mut server = paced();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    for n in 0..3 {
        alice.send(&numbered(a, b, n));
    }
    alice.send(&chat(a, b, "the last"));
    alice.barrier();
    server.terminate();
    let frames = bob.read_to_end();
    assert_eq!(unpack(&frames).len(), 4, "{frames:?}");
    assert!(server.wait_exit(PATIENCE).success());
}

/// The client's socket is full, and the pause after its last frame ended long ago.
#[test]
fn a_client_that_does_not_read_holds_up_nobody_when_it_closes() {
    const LENGTH: usize = 60_000;
    let options = [("paced", "on"), ("pace_ms", "1"), ("loops", "1"), ("output_max", "8m"), ("drain_timeout", "1s")];
    let start = |builder: testkit::Builder, (key, value): (&str, &str)| builder.option(key, value);
    let mut server = options.into_iter().fold(TestServer::builder(), start).start();
    let (mut alice, a) = user(&server, "alice");
    let (mut deaf, b) = user(&server, "bob");
    alice.set_patience(LONG_PATIENCE);
    for n in 0..80 {
        alice.send(&testkit::numbered_with_text(a, b, n, LENGTH));
    }
    alice.barrier();
    deaf.half_close();
    server.wait_state(b, "offline");
    for _ in 0..10 {
        alice.barrier();
    }
    let (mut other, c) = user(&server, "carol");
    for n in 0..80 {
        alice.send(&testkit::numbered_with_text(a, c, n, LENGTH));
    }
    alice.barrier();
    server.terminate();
    assert!(server.wait_exit(PATIENCE).success());
    other.set_patience(LONG_PATIENCE);
    other.read_to_end();
}

/// From 64 KiB on, unread replies count as pending, and the server stops reading the client's
/// requests. When the client reads, it gets all replies, and the messages that were held back
/// meanwhile.
#[test]
fn a_client_that_asks_more_than_it_reads_gets_everything_in_the_end() {
    const REQUESTS: usize = 40;
    let server =
        TestServer::builder().option("paced", "on").option("pace_ms", "1").option("output_max", "128k").start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    bob.set_patience(LONG_PATIENCE);
    for nth in 0..200 {
        bob.create_group(b, &format!("{nth:0>50}"));
    }
    let request = json!({"msgType": 11, "FROMID": b}).to_string();
    bob.send_raw(request.repeat(REQUESTS).as_bytes());
    for n in 0..MESSAGES {
        alice.send(&numbered(a, b, n));
    }
    alice.barrier();
    let (mut replies, mut bytes, mut numbers) = (0, 0, Vec::new());
    while replies < REQUESTS || numbers.len() < MESSAGES {
        let frame = bob.recv();
        if frame["groups"].is_array() {
            replies += 1;
            bytes += frame.to_string().len();
        } else {
            numbers.extend(unpack(&[frame]).iter().map(number_of));
        }
    }
    assert!(bytes > 4 * 64 * 1024, "the replies are long: {bytes}");
    assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>());
    bob.barrier();
}
