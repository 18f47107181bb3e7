//! Limits that a client of level 2 meets, and rights that settings of level 1 do not extend.

use serde_json::json;

use crate::people::{pair, with};
use testkit::TestServer;
use testkit::level2::Level2Client;

#[test]
fn limits_of_frames_a_second_refuse_nothing() {
    let server = TestServer::builder().option("frames_per_second", "100/50").start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    let frames: Vec<_> = (0..200).map(|_| ann.message(&to_bob)).collect();
    ann.send_many(&frames);
    for frame in &frames {
        ann.number(frame["cid"].as_str().expect("a cid"));
    }
    bob.until_at(&to_ann, 200);
}

#[test]
fn limits_of_bytes_a_second_refuse_nothing() {
    let server = TestServer::builder().option("bytes_per_second", "256k/256k").start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    for n in 0..16 {
        ann.send(&to_bob, &format!("{n}{}", "x".repeat(60_000)));
    }
    ann.settle();
    assert_eq!(ann.store.cursor(&to_bob), 16);
    bob.until_at(&to_ann, 16);
}

#[test]
fn a_connection_of_level_2_is_strict_whatever_auth_says() {
    let server = TestServer::builder().option("auth", "compat").start();
    let (mut ann, bob) = pair(&server);
    let (a, b) = (ann.store.me, bob.store.me);
    let conv = with(&bob);
    let cid = ann.send_with(&conv, json!({"FROMID": b}));
    assert_eq!(ann.answer(&cid)["errno"], 403);
    for request in [
        json!({"msgType": 8, "FROMID": b}),
        json!({"msgType": 6, "U1": b, "U2": a}),
        json!({"msgType": 12, "FROMID": b, "name": "x", "description": ""}),
        json!({"msgType": 11, "FROMID": b}),
    ] {
        ann.ask_for(403, request);
    }
    ann.say(&conv, "still here");
}

#[test]
fn several_synchronisations_at_once_are_answered_each() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    for n in 1..=200 {
        ann.send(&to_bob, &n.to_string());
    }
    ann.settle();
    bob.until_at(&to_ann, 200);
    let tag = |seq: u64| bob.store.logs[&to_ann].messages[&seq].tag.0.clone();
    let cursors: Vec<String> = [10, 150, 60, 199, 1].map(|seq| format!("{seq}:{}", tag(seq))).to_vec();
    for (n, cursor) in cursors.iter().enumerate() {
        bob.send_frame(&json!({"msgType": 46, "have": {to_ann.clone(): cursor}, "rid": n, "resume": 5_000}));
        ann.send(&to_bob, "meanwhile");
    }
    for n in 0..cursors.len() {
        bob.take(&format!("the 45 of {n}"), |frame| frame["msgType"] == 45 && frame["rid"] == n);
    }
    ann.settle();
    bob.until_at(&to_ann, 205);
    assert!(bob.store.logs[&to_ann].missing(0).is_empty());
    assert_eq!(bob.store.texts(&to_ann), ann.store.texts(&to_bob));
}

#[test]
fn requests_during_the_synchronisation_are_answered() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    for n in 1..=300 {
        ann.send(&to_bob, &n.to_string());
    }
    ann.settle();
    bob.until_at(&to_ann, 300);
    let mut store = bob.leave();
    store.logs.get_mut(&to_ann).expect("it").messages.retain(|seq, _| *seq <= 1);
    let first = store.logs[&to_ann].messages[&1].clone();
    let log = store.logs.get_mut(&to_ann).expect("it");
    (log.cursor, log.tag) = (1, Some(first.tag.0));
    let login =
        testkit::level2::LoginAs::password(store.me, &testkit::password("bob"), "b1").with("resume", json!(5_000));
    let mut bob = Level2Client::login(testkit::TestClient::connect(&server), store, login);
    // The client has not read any of the synchronisation yet.
    let cid = bob.send(&to_ann, "in between");
    bob.send_frame(&json!({"msgType": 48, "conv": to_ann, "rid": "p"}));
    bob.send_frame(&json!({"msgType": 53, "rid": "h"}));
    bob.sync();
    assert_eq!(bob.number(&cid), 301);
    bob.take("the page", |frame| frame["rid"] == "p");
    bob.take("the 54", |frame| frame["rid"] == "h");
    assert!(bob.store.logs[&to_ann].missing(0).is_empty());
}
