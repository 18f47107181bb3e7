//! Privacy between users: blocked users, and receipts that are turned off.

use serde_json::{Value, json};

use crate::people::{pair, with};
use testkit::level2::Level2Client;
use testkit::{TestServer, chat, login};

/// Whether frames of this type have arrived by the time that the client gets the answer to a later
/// request.
fn has(client: &mut Level2Client, kind: i64) -> bool {
    client.ask_for_pong();
    client.inbox().any(|frame| frame["msgType"] == kind)
}

#[test]
fn receipts_that_are_off_are_off_both_ways() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    let reply = bob.ask_for(200, json!({"msgType": 67, "receipts": false}));
    assert_eq!(reply["receipts"], false, "{reply}");
    ann.say(&to_bob, "1");
    bob.until_at(&to_ann, 1);
    bob.say(&to_ann, "2");
    ann.until_at(&to_bob, 2);
    ann.say(&to_bob, "3");
    bob.until_at(&to_ann, 3);
    for (client, conv) in [(&mut ann, &to_bob), (&mut bob, &to_ann)] {
        client.send_frame(&json!({"msgType": 47, "recv": {conv.clone(): 3}}));
        client.ask_for(200, json!({"msgType": 49, "conv": conv, "read": 3}));
    }
    // Messages in both directions follow the marks, so any 50 would have come by now.
    ann.say(&to_bob, "4");
    bob.until_at(&to_ann, 4);
    bob.say(&to_ann, "5");
    ann.until_at(&to_bob, 5);
    assert!(!has(&mut ann, 50) && !has(&mut bob, 50));
    for (name, id) in [("ann", ann.store.me), ("bob", bob.store.me)] {
        let mut other = Level2Client::enter(&server, name, id, "other");
        let line = other.take_kind(43)["convs"][0].clone();
        assert!(line.get("peerRead").is_none() && line.get("peerRecv").is_none(), "{line}");
    }
    // The devices of one user still see the user's own marks.
    let mut tablet = Level2Client::enter(&server, "bob", bob.store.me, "b2");
    ann.say(&to_bob, "6");
    bob.until_at(&to_ann, 6);
    bob.ask_for(200, json!({"msgType": 49, "conv": to_ann, "read": 6}));
    tablet.take("the mark", |frame| frame["msgType"] == 49 && frame["read"] == 6);
    bob.ask_for(200, json!({"msgType": 67, "receipts": true}));
    ann.say(&to_bob, "7");
    bob.until_at(&to_ann, 7);
    bob.ask_for(200, json!({"msgType": 49, "conv": to_ann, "read": 7}));
    ann.take("the mark", |frame| frame["msgType"] == 50 && frame["read"] == 7);
}

#[test]
fn a_server_without_receipts_shows_no_partner_how_far_one_has_read() {
    let server = TestServer::builder().option("receipts", "off").start();
    let (mut ann, mut bob) = pair(&server);
    let mut tablet = Level2Client::enter(&server, "bob", bob.store.me, "b2");
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    // A user's own setting does not change that.
    bob.ask_for(200, json!({"msgType": 67, "receipts": true}));
    ann.say(&to_bob, "1");
    bob.until_at(&to_ann, 1);
    bob.send_frame(&json!({"msgType": 47, "recv": {to_ann.clone(): 1}}));
    bob.ask_for(200, json!({"msgType": 49, "conv": to_ann, "read": 1}));
    tablet.take("the user's own mark", |frame| frame["msgType"] == 49 && frame["read"] == 1);
    // This message follows the marks.
    bob.say(&to_ann, "2");
    ann.until_at(&to_bob, 2);
    assert!(!has(&mut ann, 50));
    let line = Level2Client::enter(&server, "ann", ann.store.me, "a2").take_kind(43)["convs"][0].clone();
    assert!(line.get("peerRead").is_none() && line.get("peerRecv").is_none(), "{line}");
}

#[test]
fn a_blocked_user_is_not_heard_and_sees_nobody() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (a, b) = (ann.store.me, bob.store.me);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    bob.ask_for(200, json!({"msgType": 6, "U1": b, "U2": a}));
    ann.until_at(&to_bob, 1);
    ann.say(&to_bob, "2");
    bob.until_at(&to_ann, 2);
    let group = ann.ask_for(200, json!({"msgType": 12, "FROMID": a, "name": "team", "description": ""}));
    let team = format!("g{}", group["GROUPID"]);
    bob.ask_for(200, json!({"msgType": 10, "FROMID": b, "GROUPID": group["GROUPID"]}));
    ann.ask_for(200, json!({"msgType": 66, "USERID": b, "block": true}));
    let refused = |bob: &mut Level2Client, members: Value| {
        let cid = bob.send_with(&to_ann, members);
        let answer = bob.answer(&cid);
        assert_eq!((&answer["errno"], answer.get("retryAfter")), (&json!(403), None), "{answer}");
    };
    refused(&mut bob, json!({"msg": "hello"}));
    refused(&mut bob, json!({"msgType": 5}));
    bob.ask_for(403, json!({"msgType": 6, "U1": b, "U2": a}));
    // Typing, marks and presence have no effect in either direction.
    bob.send_frame(&json!({"msgType": 51, "conv": to_ann, "event": "typing"}));
    ann.send_frame(&json!({"msgType": 51, "conv": to_bob, "event": "typing"}));
    bob.ask_for(200, json!({"msgType": 49, "conv": to_ann, "read": 2}));
    bob.ask_for(200, json!({"msgType": 52, "watch": [a]}));
    assert_eq!(bob.take_kind(52)["online"], false);
    // The block does not affect groups.
    let number = bob.say(&team, "in the group");
    ann.until_at(&team, number);
    let number = ann.say(&team, "you too");
    bob.until_at(&team, number);
    assert!(![50, 51].into_iter().any(|kind| has(&mut ann, kind) || has(&mut bob, kind)));
    for (name, id) in [("ann", a), ("bob", b)] {
        let mut other = Level2Client::enter(&server, name, id, "other");
        let overview = other.take_kind(43);
        let lines = overview["convs"].as_array().expect("a list");
        assert!(lines.len() == 2 && lines.iter().all(|line| line.get("peerRead").is_none()), "{overview}");
    }
    // At level 1 the sender gets the 403 of level 1.
    let mut old = login(&server, "bob", b);
    old.send(&chat(b, a, "hello"));
    old.expect_refusal(403);
    // A retry of an earlier message succeeds as before, because retries are looked up before rights
    // are checked.
    ann.ask_for(200, json!({"msgType": 66, "USERID": b, "block": false}));
    let frame = bob.message(&to_ann);
    bob.send_frame(&frame);
    let cid = frame["cid"].as_str().expect("a cid").to_owned();
    bob.number(&cid);
    ann.ask_for(200, json!({"msgType": 66, "USERID": b, "block": true}));
    bob.send_frame(&frame);
    assert_eq!(bob.answer(&cid)["again"], true);
}
