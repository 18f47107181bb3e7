//! The first bytes of a connection tell its protocol, and no part of an HTTP request is executed as
//! a frame.

use serde_json::json;
use testkit::{ACK, BAD_REQUEST, Builder, TestClient, TestServer, user};

use crate::people::{Answered, ask, converse};

/// A frame in a request that a web page can make a browser send to any address: a form with
/// arbitrary text.
const FRAME: &str = "{\"msgType\":2,\"name\":\"mallory\",\"password\":\"secret\"}\n";

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: chat\r\nContent-Type: text/plain\r\nContent-Length: 50\r\n\r\n{FRAME}")
}

#[test]
fn a_web_pages_request_is_answered_in_http_and_not_executed() {
    let server = TestServer::builder().option("admin", "127.0.0.1:0").start();
    let request = post("/");
    for cut in 0..request.len() {
        let (first, rest) = request.split_at(cut);
        if cut % 11 == 0 || cut < 8 {
            let answer = Answered::of(&converse(&server, &[first.as_bytes(), rest.as_bytes()]));
            assert_eq!(answer.status, 405, "{}", answer.head);
            assert_eq!(answer.header("Connection"), Some("close"));
            assert_eq!(answer.header("Allow"), Some("GET, HEAD"));
        }
    }
    for (path, status) in [("/index.html", 405), ("/nothing", 404), ("/ws", 405), ("http://chat/", 405), ("*", 404)] {
        assert_eq!(Answered::of(&converse(&server, &[post(path).as_bytes()])).status, status, "{path}");
    }
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PRI"] {
        let request = post("/").replace("POST", method);
        let status = Answered::of(&converse(&server, &[request.as_bytes()])).status;
        let expected = if method == "GET" || method == "HEAD" { 200 } else { 405 };
        assert_eq!(status, expected, "{method}");
    }
    assert_eq!(server.count("SELECT count(*) FROM User"), 0, "nobody was registered");
    assert!(server.metrics().contains("raybox_http_answers_total{status=\"405\"}"));
}

#[test]
fn a_long_body_does_not_hide_the_answer() {
    let server = TestServer::start();
    let body = FRAME.repeat(20_000);
    assert_eq!(Answered::of(&converse(&server, &[post("/").as_bytes(), body.as_bytes()])).status, 405);
    assert_eq!(server.count("SELECT count(*) FROM User"), 0, "nobody was registered");
}

#[test]
fn tls_is_closed_unread() {
    let server = TestServer::builder().option("admin", "127.0.0.1:0").start();
    assert_eq!(converse(&server, &[b"\x16\x03\x01\x02\x00\x01", b"{\"msgType\":200}\n"]), "");
    assert!(server.metrics().contains("raybox_refused_total{limit=\"tls\"} 1"));
}

#[test]
fn http_behind_a_proxy_header_is_http() {
    let options = |builder: Builder| builder.option("proxy_protocol", "on").option("proxy_from", "127.0.0.1");
    let server = options(TestServer::builder()).start();
    let (header, request) = ("PROXY TCP4 203.0.113.7 10.0.0.1 51234 8003\r\n", post("/"));
    for pieces in [vec![header, &request], vec![&format!("{header}{request}")]] {
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
        assert_eq!(Answered::of(&converse(&server, &pieces)).status, 405);
    }
    assert_eq!(server.count("SELECT count(*) FROM User"), 0, "nobody was registered");
}

#[test]
fn bytes_that_only_look_like_http_are_answered_as_ever() {
    let server = TestServer::start();
    // The real client's heartbeat; it may be the first bytes of a connection.
    let mut client = TestClient::connect(&server);
    client.send_raw(b"keep this socket alive");
    client.expect_text(BAD_REQUEST);
    client.send(&json!({"msgType": 200}));
    client.expect_text(ACK);
    client.send_raw(b"GET / HTTP/1.1\r\n");
    client.expect_text(BAD_REQUEST);
    client.send(&json!({"msgType": 200}));
    client.expect_text(ACK);
    // First bytes that turn out not to be an HTTP method.
    let mut client = TestClient::connect(&server);
    client.send_raw(b"PO");
    client.send_raw(b"{\"msgType\":200}");
    client.expect_text(BAD_REQUEST);
    client.expect_text(ACK);
    // Such text is allowed inside a frame.
    let (mut alice, a) = user(&server, "alice");
    let chat = json!({"msgType": 4, "FROMID": a, "TOID": a, "msg": "POST / HTTP/1.1\r\n\r\n"});
    alice.send(&chat);
    alice.expect(&chat);
    let mut client = TestClient::connect(&server);
    client.send_raw(b"P");
    client.half_close();
    client.expect_text(BAD_REQUEST);
    client.expect_eof();
}

#[test]
fn a_lone_beginning_is_json_when_its_time_is_over() {
    let server = TestServer::builder().option("frame_timeout", "100ms").start();
    let mut client = TestClient::connect(&server);
    client.send_raw(b"GE");
    client.expect_text(BAD_REQUEST);
    client.send(&json!({"msgType": 200}));
    client.expect_text(ACK);
    let answer = Answered::of(&converse(&server, &[b"GET / HTTP/1.1\r\nHost:"]));
    assert_eq!(answer.status, 408);
}

#[test]
fn requests_that_are_none_have_proper_errors() {
    let server = TestServer::start();
    let status = |request: &str| Answered::of(&converse(&server, &[request.as_bytes()])).status;
    assert_eq!(status("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 505);
    assert_eq!(status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status("GET /\r\n\r\n"), 400);
    assert_eq!(status(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(8200))), 431);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(100))), 431);
    let server = TestServer::builder().option("http_hosts", "chat.example.org").start();
    assert_eq!(ask(&server, "GET /", "Connection: close\r\n", "").status, 421);
    let mine = "GET / HTTP/1.0\r\nHost: CHAT.example.org:8003\r\n\r\n";
    assert_eq!(Answered::of(&converse(&server, &[mine.as_bytes()])).status, 200);
}
