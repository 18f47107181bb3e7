//! Clients that speak another protocol on this port: the server executes nothing of what they send.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;
use testkit::{ACK, BAD_REQUEST, PATIENCE, TestClient, TestServer, user};

/// A request that a web page can make a browser send to any address: a form with arbitrary text.
const POST: &str = "POST / HTTP/1.1\r\nHost: chat\r\nContent-Type: text/plain\r\nContent-Length: 50\r\n\r\n\
                    {\"msgType\":2,\"name\":\"mallory\",\"password\":\"secret\"}\n";

/// Writes these pieces one after the other, and reads until the server closes.
fn converse(server: &TestServer, pieces: &[&str]) -> String {
    let mut stream = TcpStream::connect(server.address()).expect("connect to the server");
    stream.set_nodelay(true).expect("set TCP_NODELAY");
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    for piece in pieces {
        // The server may have answered and closed before the last piece.
        let _ = stream.write_all(piece.as_bytes());
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, and then the end");
    answer
}

fn assert_is_http(answer: &str, status: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert!(head.contains("\r\nConnection: close"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{head}");
    assert!(body.contains("JSON"), "{body}");
}

#[test]
fn a_web_pages_request_is_answered_in_http_and_not_executed() {
    let server = TestServer::builder().option("admin", "127.0.0.1:0").start();
    assert_is_http(&converse(&server, &[POST]), "400");
    for cut in 1..POST.len() {
        let (first, rest) = POST.split_at(cut);
        if cut % 7 == 0 || cut < 8 {
            assert_is_http(&converse(&server, &[first, rest]), "400");
        }
    }
    let upgrade = "GET /chat HTTP/1.1\r\nHost: chat\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_is_http(&converse(&server, &[upgrade]), "426");
    assert_eq!(server.count("SELECT count(*) FROM User"), 0, "nobody was registered");
    assert!(server.metrics().contains("raybox_refused_total{limit=\"http\"}"));
    // A line for each client would let anybody fill the log.
    assert_eq!(server.logs_with("speaks HTTP").matches("speaks HTTP").count(), 1);
}

#[test]
fn a_long_body_does_not_hide_the_answer() {
    let server = TestServer::start();
    let body = "{\"msgType\":2,\"name\":\"mallory\",\"password\":\"secret\"}\n".repeat(20_000);
    assert_is_http(&converse(&server, &[POST, &body]), "400");
    assert_eq!(server.count("SELECT count(*) FROM User"), 0, "nobody was registered");
}

#[test]
fn tls_is_closed_unread() {
    let server = TestServer::builder().option("admin", "127.0.0.1:0").start();
    assert_eq!(converse(&server, &["\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}", "{\"msgType\":200}\n"]), "");
    assert!(server.metrics().contains("raybox_refused_total{limit=\"tls\"} 1"));
}

#[test]
fn http_behind_a_proxy_header_is_http() {
    let options = |builder: testkit::Builder| {
        builder.option("proxy_protocol", "on").option("proxy_from", "127.0.0.1").option("admin", "127.0.0.1:0")
    };
    let server = options(TestServer::builder()).start();
    let header = "PROXY TCP4 203.0.113.7 10.0.0.1 51234 8003\r\n";
    assert_is_http(&converse(&server, &[header, POST]), "400");
    assert_is_http(&converse(&server, &[&format!("{header}{POST}")]), "400");
    assert_eq!(server.count("SELECT count(*) FROM User"), 0, "nobody was registered");
}

#[test]
fn bytes_that_only_look_like_http_are_answered_as_ever() {
    let server = TestServer::start();
    // The real client's heartbeat, also as the first bytes it sends.
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
    // Inside a frame such text is allowed.
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
