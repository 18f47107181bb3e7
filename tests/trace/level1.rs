//! Messages of level 1. They have no number, so they are found by sender, recipient and time.

use serde_json::json;
use testkit::{LONG_PATIENCE, MariaDb, Redis, TestClient, chat, login, offline_user, password, user};
use testkit::{wait_until, wait_within};

use crate::stage::Stage;

fn between(a: i64, b: i64) -> String {
    format!("user={a}&to={b}")
}

#[test]
fn a_message_to_another_node_is_followed_by_its_envelope() {
    let stage = Stage::new();
    let ((mut ann, a), (mut bob, b)) = (user(&stage.nodes[0], "ann"), user(&stage.nodes[1], "bob"));
    ann.send(&chat(a, b, "hello"));
    bob.expect(&chat(a, b, "hello"));
    let words = [
        "node north read ",
        "bytes from the sender",
        &format!("had no connection of level 1 of user {b}"),
        "offered it to other nodes: 1 took it",
        &format!("node south got it from node north; wrote it to a connection of level 1 of user {b}"),
        "heard from node south: it is written",
        &format!("User {b} is at level 1 on node south"),
    ];
    let told = stage.trace(0, &between(a, b), &words);
    assert!(!told.0.to_string().contains("hello"), "no text of a message: {}", told.0);
    let other = stage.trace(1, &between(a, b), &["node north read ", "node south got it from node north"]);
    assert_eq!(other.hops().len(), told.hops().len());
}

#[test]
fn a_message_to_nobody_is_kept_and_fetched() {
    let stage = Stage::new();
    let ((mut ann, a), b) = (user(&stage.nodes[0], "ann"), offline_user(&stage.nodes[1], "bob"));
    ann.send(&chat(a, b, "later"));
    ann.barrier();
    let words = [
        "offered it to other nodes: none has user",
        "put it into the database",
        "wait in the database for the next login",
    ];
    stage.trace(0, &between(a, b), &words);
    let mut bob = login(&stage.nodes[1], "bob", b);
    assert_eq!(bob.fetch_texts(b).len(), 1);
    stage.trace(
        0,
        &between(a, b),
        &[&format!("Nothing waits in the database for user {b}"), "is at level 1 on node south"],
    );
}

#[test]
fn a_node_that_stands_still_does_not_confirm() {
    let stage = Stage::new();
    let ((mut ann, a), (_bob, b)) = (user(&stage.nodes[0], "ann"), user(&stage.nodes[1], "bob"));
    stage.nodes[1].stop();
    ann.send(&chat(a, b, "are you there?"));
    let silent = format!("Node {} did not answer (no answer within 1s)", stage.admin(1));
    let words = ["1 took it", "heard from no node in time that it was delivered", "put it into the database", &silent];
    stage.trace(0, &between(a, b), &words);
    stage.nodes[1].cont();
}

#[test]
fn without_the_database_it_is_in_the_spool() {
    let mut mariadb = MariaDb::start();
    let stage = Stage::on(mariadb.create_database(), Redis::start());
    let ((mut ann, a), b) = (user(&stage.nodes[0], "ann"), offline_user(&stage.nodes[1], "bob"));
    mariadb.kill();
    ann.set_patience(LONG_PATIENCE);
    ann.send(&chat(a, b, "into the spool"));
    let words = ["put it into its spool, where it waits for the database", "The database was not read"];
    stage.trace(0, &between(a, b), &words);
    let explained = stage.ask(0, "GET", &format!("/v1/users/{b}/explain"), "").1;
    assert_eq!(explained["nodes"][0]["spooled"], json!(1), "{explained}");
    mariadb.restart();
    wait_within(LONG_PATIENCE, "the spool is empty", || stage.nodes[0].metric("raybox_spool_messages") == 0.0);
    stage.trace(0, &between(a, b), &["put it into the database, where it waits"]);
}

#[test]
fn messages_that_a_connection_did_not_acknowledge_come_back() {
    let stage = Stage::new();
    let ((mut ann, a), b) = (user(&stage.nodes[0], "ann"), offline_user(&stage.nodes[0], "bob"));
    // Bob's client has small buffers and reads nothing.
    let mut bob = TestClient::connect_from_with(1, &stage.nodes[0], |socket| {
        socket.set_recv_buffer_size(4096).expect("an option");
    });
    bob.login(b, &password("bob"));
    let text = "x".repeat(30_000);
    for _ in 0..20 {
        ann.send(&chat(a, b, &text));
    }
    ann.barrier();
    wait_until("his connection is full", || {
        let (_, here) = stage.ask(0, "GET", &format!("/v1/node/users/{b}"), "");
        here["places"][0]["unread_bytes"].as_u64().is_none_or(|bytes| bytes > 0)
    });
    drop(bob);
    let words = ["got it back: a connection of user", "put it into the database"];
    stage.trace(0, &between(a, b), &words);
}
