//! The users of these tests.

use testkit::level2::Level2Client;
use testkit::{Database, TestServer, offline_user};

/// Two users, each with one synchronised device.
pub fn pair(server: &TestServer) -> (Level2Client, Level2Client) {
    let (a, b) = (offline_user(server, "ann"), offline_user(server, "bob"));
    (Level2Client::enter(server, "ann", a, "a1"), Level2Client::enter(server, "bob", b, "b1"))
}

/// The name that other users have for the conversation with this user.
pub fn with(other: &Level2Client) -> String {
    format!("u{}", other.store.me)
}

/// Runs a test on each kind of database.
pub fn on_both(test: impl Fn(&TestServer)) {
    test(&TestServer::start());
    test(&TestServer::builder().mysql(&Database::create()).start());
}
