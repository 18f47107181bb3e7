//! Frames that are not messages: typing, heartbeats, and the reasons why connections end.

use std::time::Instant;

use serde_json::{Value, json};

use crate::people::{pair, with};
use testkit::level2::{Level2Client, LoginAs, Store};
use testkit::{LONG_PATIENCE, TestClient, TestServer, offline_user, password, user};

fn typing(conv: &str) -> Value {
    json!({"msgType": 51, "conv": conv, "event": "typing"})
}

#[test]
fn typing_reaches_the_others_once_in_a_while() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let mut tablet = Level2Client::enter(&server, "ann", ann.store.me, "a2");
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    let mut shown = 0;
    for _ in 0..50 {
        ann.send_frame(&typing(&to_bob));
    }
    bob.take("that ann types", |frame| {
        *frame == json!({"conv": to_ann, "event": "typing", "from": ann.store.me, "msgType": 51})
    });
    ann.say(&to_bob, "done");
    bob.until_at(&to_ann, 1);
    tablet.until_at(&to_bob, 1);
    shown += bob.inbox().filter(|frame| frame["msgType"] == 51).count();
    assert!(shown < 10, "one in three seconds: {shown} more");
    assert!(!tablet.inbox().any(|frame| frame["msgType"] == 51), "not to oneself");
    // Each conversation and each sender has a limit of its own.
    bob.send_frame(&typing(&to_ann));
    ann.take_kind(51);
    // Typing is not stored.
    let fresh = Level2Client::enter(&server, "bob", bob.store.me, "b2");
    assert_eq!(fresh.store.logs[&to_ann].cursor, 1);
}

#[test]
fn typing_on_several_devices_of_a_user_is_shown_once() {
    let server = TestServer::start();
    let (ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    let begin = Instant::now();
    for n in 0..8 {
        let mut device = Level2Client::enter(&server, "ann", ann.store.me, &format!("d{n}"));
        device.send_frame(&typing(&to_bob));
        device.ask_for_pong();
        let number = device.say(&to_bob, "done");
        bob.until_at(&to_ann, number);
    }
    let shown = bob.inbox().filter(|frame| frame["msgType"] == 51).count() as u64;
    assert!((1..=1 + begin.elapsed().as_secs() / 3).contains(&shown), "one in three seconds: {shown}");
}

#[test]
fn typing_in_a_group_is_for_members() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let group = ann.ask_for(200, json!({"msgType": 12, "FROMID": ann.store.me, "name": "team", "description": ""}));
    let conv = format!("g{}", group["GROUPID"]);
    bob.ask_for(200, json!({"msgType": 10, "FROMID": bob.store.me, "GROUPID": group["GROUPID"]}));
    // Nobody has written to the group yet.
    bob.send_frame(&typing(&conv));
    let shown = ann.take_kind(51);
    assert_eq!((&shown["conv"], &shown["from"]), (&json!(conv), &json!(bob.store.me)), "{shown}");
    // Typing of a user who is not a member reaches nobody.
    let mut carol = Level2Client::enter(&server, "carol", offline_user(&server, "carol"), "c1");
    carol.send_frame(&typing(&conv));
    carol.ask_for_pong();
    let number = ann.say(&conv, "on");
    bob.until_at(&conv, number);
    assert!(!bob.inbox().any(|frame| frame["msgType"] == 51 && frame["from"] == carol.store.me));
}

#[test]
fn a_silent_client_is_asked_and_then_closed() {
    // This limit is that of level 1.
    let server = TestServer::builder().option("idle-timeout", "2s").start();
    let [a, b, c] = ["ann", "bob", "carol"].map(|name| offline_user(&server, name));
    let enter = |name: &str, id: i64| {
        let login = LoginAs::password(id, &password(name), "d").with("ping", json!(15));
        let mut client = Level2Client::login(TestClient::connect(&server), Store::new(id), login);
        client.set_patience(LONG_PATIENCE);
        client.sync();
        client
    };
    let (mut answers, mut silent, mut hums) = (enter("ann", a), enter("bob", b), enter("carol", c));
    answers.take_kind(53);
    answers.send_frame(&json!({"msgType": 54}));
    silent.take_kind(53);
    hums.take_kind(53);
    hums.tcp().send_raw(b"\n");
    let farewell = silent.expect_farewell("idle");
    assert_eq!(farewell["errno"], 408, "{farewell}");
    answers.ask_for_pong();
    // Any byte is a sign of life.
    hums.take_kind(53);
}

#[test]
fn a_server_that_stops_says_so() {
    let mut server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (mut old, _) = user(&server, "carol");
    let conv = with(&bob);
    ann.say(&conv, "1");
    let cid = ann.send(&conv, "2");
    server.terminate();
    for client in [&mut ann, &mut bob] {
        client.expect_farewell("drain");
    }
    // Requests that the server has read before are answered first.
    let store = ann.leave();
    old.expect_eof();
    assert!(server.wait_exit(LONG_PATIENCE).success());
    server.restart();
    let mut ann = Level2Client::resume(&server, "ann", "a1", store);
    ann.settle();
    assert_eq!((ann.store.acked(&cid), ann.store.cursor(&conv)), (Some(2), 2));
}
