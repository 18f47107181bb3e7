//! Servers with a hook, and their users.

use std::fs;

use serde_json::json;
use testkit::level2::Level2Client;
use testkit::{Builder, Database, TestServer, offline_user, signal, wait_until};

use crate::receiver::Receiver;

pub const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A server whose messages are posted after this delay.
pub fn hooked(receiver: &Receiver, delay: &str) -> Builder {
    let settings = settings(receiver, delay);
    let builder = TestServer::builder().option("admin", "0").heeding_hup();
    builder.file("hook.key", format!("{KEY}\n")).file("server.cnf", settings)
}

fn settings(receiver: &Receiver, delay: &str) -> String {
    format!("hook_url={}\nhook_key=hook.key\nhook_delay={delay}\nhook_private=127.0.0.1,::1\n", receiver.url())
}

/// Runs a test on each kind of database.
pub fn on_both(test: impl Fn(&dyn Fn(Builder) -> TestServer)) {
    test(&Builder::start);
    test(&|builder| builder.mysql(&Database::create()).start());
}

/// Makes the server post all waiting messages, and each later one at once.
pub fn make_due(server: &TestServer, receiver: &Receiver) {
    change(server, &settings(receiver, "0"));
}

/// Writes the settings, and makes the server read them.
pub fn change(server: &TestServer, settings: &str) {
    fs::write(server.folder().join("server.cnf"), settings).expect("write the settings");
    signal(server.pid(), "HUP");
}

/// A user with one device.
pub fn enter(server: &TestServer, name: &str) -> Level2Client {
    let id = offline_user(server, name);
    Level2Client::enter(server, name, id, "d")
}

/// The name of the conversation with this user.
pub fn with(other: &Level2Client) -> String {
    format!("u{}", other.store.me)
}

/// Makes a device report that it has stored this number, and waits until that is in the database.
pub fn report(server: &TestServer, client: &mut Level2Client, conv: &str, seq: u64) {
    client.until_at(conv, seq);
    client.send_text(&json!({"msgType": 47, "recv": {conv: seq}}).to_string());
    let query = format!("SELECT count(*) FROM Member WHERE user = {} AND recv >= {seq}", client.store.me);
    wait_until("the report is stored", || server.count(&query) > 0);
}

/// The number of waiting messages.
pub fn waiting(server: &TestServer) -> usize {
    server.count("SELECT count(*) FROM HookQueue")
}

pub fn fate(server: &TestServer, what: &str) -> f64 {
    server.metric(&format!("raybox_hook_messages_total{{what=\"{what}\"}}"))
}

pub fn failed_requests(server: &TestServer) -> f64 {
    server.metric("raybox_hook_requests_total{outcome=\"failed\"}")
}
