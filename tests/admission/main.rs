//! Limits. Clients beyond a limit are refused, slowed down or told to retry later, and all other
//! clients notice nothing.
//!
//! Behaviour over time is tested where the time is an argument (`src/admission`). Here a burst is
//! sent in one write to a fresh connection. So it arrives in one turn of the loop, during which the
//! loop's time stands still.

#![allow(unreachable_pub, reason = "the parts of one program")]

mod connections;
mod frames;
mod guesses;
mod queue;

use serde_json::{Value, json};
use testkit::{ACK, Builder, TestClient, TestServer, WRONG_PASSWORD, password};

pub const PING: &str = r#"{"msgType":200}"#;

/// A server with an admin port, so that a test can read its counters.
pub fn counting() -> Builder {
    TestServer::builder().option("admin", "0")
}

/// Like [`counting`], behind a proxy that connects from 127.0.0.1.
pub fn behind_proxy() -> Builder {
    counting().option("proxy_protocol", "on")
}

/// A client whose proxy header has this address.
pub fn from(server: &TestServer, address: &str) -> TestClient {
    let mut client = TestClient::connect(server);
    client.send_raw(header_of(address).as_bytes());
    client
}

pub fn header_of(address: &str) -> String {
    let (family, own) = if address.contains(':') { ("TCP6", "::1") } else { ("TCP4", "127.0.0.1") };
    format!("PROXY {family} {address} {own} 51234 8003\r\n")
}

/// The number of log lines that say that this limit is reached.
pub fn complaints(server: &TestServer, limit: &str) -> usize {
    let end = format!("the limit {limit} is reached");
    server
        .logs()
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("turned away") && line.ends_with(&end))
        .count()
}

pub fn refused(server: &TestServer, limit: &str) -> f64 {
    server.metric(&format!(r#"raybox_refused_total{{limit="{limit}"}}"#))
}

/// Expects a refusal with a `retryAfter`, and returns its seconds.
pub fn expect_later(client: &mut TestClient, errno: u64) -> u64 {
    let reply = client.recv();
    assert_eq!((&reply["errno"], &reply["msgType"]), (&json!(errno), &json!(errno)), "{reply}");
    let seconds = reply["retryAfter"].as_u64().unwrap_or_else(|| panic!("it says when: {reply}"));
    assert!((1..=3600).contains(&seconds), "{reply}");
    seconds
}

pub fn try_login(client: &mut TestClient, id: i64, password: &str) -> Value {
    client.ask(&json!({"msgType": 1, "USERID": id, "password": password}))
}

#[test]
fn a_limit_that_is_off_does_not_limit() {
    let off = ["max_connections", "connections_per_address", "frames_per_second", "bytes_per_second", "login_failures"];
    let off = off.into_iter().chain(["login_failures_per_address", "registrations_per_address"]);
    let server = off.fold(counting(), |builder, key| builder.option(key, "off")).start();
    let mut clients: Vec<TestClient> = (0..50).map(|_| TestClient::connect(&server)).collect();
    let a = clients[0].register("alice", &password("alice"));
    for n in 0..30 {
        clients[0].register(&format!("user {n}"), "x");
        assert_eq!(try_login(&mut clients[1], a, "wrong").to_string(), WRONG_PASSWORD);
    }
    clients[1].login(a, &password("alice"));
    clients[2].send_raw(PING.repeat(5000).as_bytes());
    for _ in 0..5000 {
        clients[2].expect_text(ACK);
    }
}
