//! Both levels over WebSockets.

use std::io::Read;
use std::time::Instant;

use serde_json::json;
use testkit::level2::Level2Client;
use testkit::{PATIENCE, TestClient, TestServer, login, offline_user, user};

use crate::people::Socket;

#[test]
fn level_1_works_over_a_websocket() {
    let server = TestServer::start();
    let (mut nc, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    let mut bob = Socket::connect(&server);
    bob.log_in("bob", b);
    let chat = json!({"msgType": 4, "FROMID": a, "TOID": b, "msg": "over there"});
    nc.send(&chat);
    bob.expect(&chat);
    let long = json!({"msgType": 4, "FROMID": b, "TOID": a, "msg": "好".repeat(15_000)});
    bob.send(&long);
    nc.expect(&long);
    nc.send(&json!({"msgType": 4, "FROMID": a, "TOID": b, "msg": "好".repeat(15_000)}));
    assert_eq!(bob.recv()["FROMID"], a);
}

#[test]
fn a_message_that_is_not_one_object_is_one_401() {
    let server = TestServer::start();
    let mut socket = Socket::connect(&server);
    for text in ["", "nonsense", "{}{}", "[{\"msgType\":200}]", "{", "{\"msgType\":200} {\"msgType\":200}\n"] {
        socket.send_text(text);
        assert_eq!(socket.recv()["errno"], 401, "{text:?}");
    }
    for text in ["{\"msgType\":200}", " {\"msgType\":200}\r\n", "{\"msgType\":200}\n\n"] {
        socket.send_text(text);
        assert_eq!(socket.recv_text(), testkit::ACK, "newlines change nothing: {text:?}");
    }
}

#[test]
fn a_message_to_a_client_is_one_frame_whatever_its_length() {
    let server = TestServer::start();
    let (mut nc, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    let mut bob = Socket::connect(&server);
    bob.log_in("bob", b);
    let raw = bob.0.get_mut();
    // Lengths at which the form of the head changes, and the longest one.
    for len in [125, 126, 127, 40_000, 65_535, 65_536] {
        let plain = format!(r#"{{"msgType":4,"FROMID":{a},"TOID":{b},"msg":""}}"#);
        let chat = plain.replace(r#""""#, &format!(r#""{}""#, "z".repeat(len - plain.len())));
        nc.send_text(&chat);
        let head = match len {
            ..126 => vec![0x81, len as u8],
            126..0x1_0000 => [&[0x81, 126][..], &(len as u16).to_be_bytes()].concat(),
            _ => [&[0x81, 127][..], &(len as u64).to_be_bytes()].concat(),
        };
        let mut bytes = vec![0; head.len() + len];
        raw.read_exact(&mut bytes).expect("the message comes");
        assert_eq!(bytes[..head.len()], head, "{len} bytes");
        assert!(bytes[head.len()..] == *chat.as_bytes(), "{len} bytes");
    }
}

#[test]
fn level_2_works_over_a_websocket_and_ends_with_the_errno() {
    let server = TestServer::start();
    let (a, b) = (offline_user(&server, "ann"), offline_user(&server, "bob"));
    let mut bob = Level2Client::enter(&server, "bob", b, "b1");
    let mut ann = Socket::connect(&server);
    ann.enter("ann", a, "a1");
    ann.send(&json!({"msgType": 4, "FROMID": a, "TOID": b, "cid": "c1", "msg": "hello"}));
    let sent = ann.until(41);
    assert_eq!((&sent["errno"], &sent["seq"], &sent["cid"]), (&json!(200), &json!(1), &json!("c1")));
    bob.until_at(&format!("u{a}"), 1);
    bob.say(&format!("u{a}"), "hi");
    assert_eq!(ann.until(42)["m"]["msg"], "hi");
    ann.send_text("nonsense");
    assert_eq!(ann.recv()["errno"], 401);
    // The same device logs in again.
    let mut again = Socket::connect(&server);
    again.enter("ann", a, "a1");
    assert_eq!(ann.until(55)["reason"], "replaced");
    assert_eq!(ann.closed(), 4409);
    again.send(&json!({"msgType": 3, "USERID": a}));
    assert_eq!(again.until(55)["reason"], "logout");
    assert_eq!(again.closed(), 4200);
}

#[test]
fn only_pages_of_this_server_and_those_allowed_may_open_sockets() {
    let server = TestServer::builder().option("ws_origins", "https://chat.example.org").start();
    let own = format!("http://{}", server.address());
    for (origin, is_allowed) in
        [(&*own, true), ("https://chat.example.org", true), ("http://chat.example.org", false), ("null", false)]
    {
        let opened = Socket::connect_with(&server, &[("origin", origin)]);
        assert_eq!(opened.err(), (!is_allowed).then_some(403), "{origin}");
    }
    let mut socket = Socket::connect_with(&server, &[("sec-websocket-protocol", "raybox.2")]).expect("it is spoken");
    socket.send(&json!({"msgType": 200}));
    assert_eq!(socket.recv_text(), testkit::ACK);
}

#[test]
fn a_server_that_stops_says_so() {
    let mut server = TestServer::start();
    let a = offline_user(&server, "ann");
    let (mut one, mut two) = (Socket::connect(&server), Socket::connect(&server));
    one.log_in("ann", a);
    two.enter("ann", a, "a1");
    server.terminate();
    assert_eq!(one.closed(), 1001);
    assert_eq!(two.until(55)["reason"], "drain");
    assert_eq!(two.closed(), 4503);
}

#[test]
fn messages_that_a_lost_socket_did_not_take_are_delivered_again() {
    let server = TestServer::builder().option("output_max", "16m").start();
    let (mut nc, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    let small = TestClient::connect_from_with(1, &server, |socket| {
        socket.set_recv_buffer_size(32 * 1024).expect("an option");
    });
    let mut bob = Socket::on(small.into_stream(), "ws://localhost/ws", &[]).expect("a socket");
    bob.log_in("bob", b);
    let text = "x".repeat(60_000);
    let chat = |n: u64| json!({"msgType": 4, "FROMID": a, "TOID": b, "n": n, "msg": text});
    for n in 0..40 {
        nc.send(&chat(n));
    }
    assert_eq!(bob.recv()["n"], 0);
    // With unread bytes, this resets the connection.
    drop(bob);
    let mut again = login(&server, "bob", b);
    let mut seen: Vec<u64> = Vec::new();
    let by = Instant::now() + PATIENCE;
    // New messages may overtake those that are delivered again, so the last number alone is not the
    // end.
    let is_whole =
        |seen: &[u64]| seen.iter().min().is_some_and(|first| *first <= 4 && seen.len() >= 40 - *first as usize);
    while Instant::now() < by && !is_whole(&seen) {
        seen.extend(again.collect(b).iter().filter_map(|message| message["n"].as_u64()));
    }
    seen.sort_unstable();
    // Messages that the client's kernel has acknowledged count as delivered.
    assert!(seen[0] <= 4, "its buffer held few: {seen:?}");
    assert_eq!(seen, (seen[0]..40).collect::<Vec<_>>(), "whole, without their heads, each once");
}
