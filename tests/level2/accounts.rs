//! Accounts: passwords, names, blocked users, devices, and deletion.

use serde_json::json;
use testkit::level2::{Level2Client, LoginAs, Store};
use testkit::{TestClient, TestServer, offline_user, password, user};

use crate::people::{pair, with};

#[test]
fn a_new_password_ends_all_other_connections() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    let mut first = Level2Client::enter(&server, "ann", a, "a1");
    let mut second = Level2Client::enter(&server, "ann", a, "a2");
    let mut level1 = TestClient::connect(&server);
    level1.login(a, &password("ann"));
    let old_token = first.welcome.token.clone();
    first.ask_for(302, json!({"msgType": 60, "password": "wrong", "new": "new"}));
    first.ask_for(400, json!({"msgType": 60, "password": password("ann"), "new": "x".repeat(57)}));
    first.ask_for(400, json!({"msgType": 60, "password": password("ann")}));
    let reply = first.ask_for(200, json!({"msgType": 60, "password": password("ann"), "new": "new"}));
    second.expect_farewell("revoked");
    level1.expect_refusal(403);
    level1.expect_eof();
    first.ask_for_pong();
    let refused = |login: LoginAs| {
        let refused =
            Level2Client::try_login(TestClient::connect(&server), Store::new(a), login).err().expect("refused");
        assert_eq!(refused.reply.unwrap()["errno"], 302);
    };
    refused(LoginAs::token(&old_token, "a1"));
    refused(LoginAs::token(&second.welcome.token, "a2"));
    refused(LoginAs::password(a, &password("ann"), "a3"));
    let token = reply["token"].as_str().unwrap();
    let again = Level2Client::login(TestClient::connect(&server), Store::new(a), LoginAs::token(token, "a1"));
    first.expect_farewell("replaced");
    drop(again);
    let mut level1 = TestClient::connect(&server);
    level1.login(a, "new");
    // A reply at level 1 contains no token.
    let reply = level1.ask(&json!({"msgType": 60, "FROMID": a, "password": "new", "new": "newer"}));
    assert_eq!(reply, json!({"errno": 200, "msgType": 60}));
    level1.barrier();
    assert!(TestClient::connect(&server).try_login(a, "newer"));
}

#[test]
fn an_account_has_another_name_and_keeps_its_id() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let own =
        |name: &str, receipts| json!({"errno": 200, "msgType": 67, "name": name, "receipts": receipts, "user": 0});
    let mut check = |request: serde_json::Value, mut expected: serde_json::Value| {
        let mut reply = ann.ask(request);
        reply.as_object_mut().unwrap().remove("rid");
        expected["user"] = json!(ann.store.me);
        assert_eq!(reply, expected);
    };
    check(json!({"msgType": 67}), own("ann", true));
    check(json!({"msgType": 67, "name": "Änne"}), own("Änne", true));
    check(json!({"msgType": 67, "receipts": false}), own("Änne", false));
    ann.ask_for(409, json!({"msgType": 67, "name": "BOB"}));
    ann.ask_for(400, json!({"msgType": 67, "name": ""}));
    ann.ask_for(400, json!({"msgType": 67, "receipts": 1}));
    drop(bob);
}

#[test]
fn a_blocked_user_cannot_write() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    let b = bob.store.me;
    ann.ask_for(200, json!({"msgType": 66, "USERID": b, "block": true}));
    let blocked = ann.ask_for(200, json!({"msgType": 66}))["blocked"].clone();
    assert_eq!(blocked, json!([{"id": b, "name": "bob"}]));
    let cid = bob.send(&to_ann, "hello");
    assert_eq!(bob.answer(&cid)["errno"], 403);
    bob.ask_for(403, json!({"msgType": 6, "U1": b, "U2": ann.store.me}));
    ann.say(&to_bob, "the other way is open");
    bob.until_at(&to_ann, 1);
    ann.ask_for(404, json!({"msgType": 66, "USERID": 999_999, "block": true}));
    ann.ask_for(400, json!({"msgType": 66, "USERID": ann.store.me, "block": true}));
    ann.ask_for(400, json!({"msgType": 66, "USERID": b}));
    // The same at level 1.
    let mut level1 = TestClient::connect(&server);
    level1.login(b, &password("bob"));
    let chat = json!({"msgType": 4, "FROMID": b, "TOID": ann.store.me, "msg": "x"});
    level1.send(&chat);
    level1.expect_refusal(403);
    assert_eq!(level1.ask(&json!({"msgType": 6, "U1": b, "U2": ann.store.me}))["errno"], 403);
    let (mut cat, c) = user(&server, "cat");
    let (mut dan, d) = user(&server, "dan");
    assert_eq!(
        cat.ask(&json!({"msgType": 66, "FROMID": c, "USERID": d, "block": true})),
        json!({"errno": 200, "msgType": 66})
    );
    dan.send(&json!({"msgType": 5, "FROMID": d, "TOID": c}));
    dan.expect_refusal(403);
    cat.send(&json!({"msgType": 4, "FROMID": c, "TOID": d, "msg": "x"}));
    assert_eq!(dan.recv()["msg"], "x");
    // Typing and marks have no effect in either direction.
    ann.send_frame(&json!({"msgType": 51, "conv": &to_bob, "event": "typing"}));
    bob.ask_for(200, json!({"msgType": 49, "conv": &to_ann, "read": 1}));
    ann.ask_for_pong();
    bob.ask_for_pong();
    assert!(ann.inbox().chain(bob.inbox()).all(|frame| frame["msgType"] != 50 && frame["msgType"] != 51));
    ann.ask_for(200, json!({"msgType": 66, "USERID": b, "block": false}));
    bob.say(&to_ann, "again");
    ann.until_at(&to_bob, 2);
}

#[test]
fn devices_are_listed_and_revoked() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    let mut first = Level2Client::enter(&server, "ann", a, "a1");
    let mut second = Level2Client::enter(&server, "ann", a, "a2");
    let names = |reply: serde_json::Value| {
        let devices = reply["devices"].as_array().unwrap().clone();
        let mut names: Vec<_> = devices
            .iter()
            .map(|device| (device["device"].as_str().unwrap().to_owned(), device["online"].clone()))
            .collect();
        names.sort_by(|one, other| one.0.cmp(&other.0));
        names
    };
    let online = |name: &str| (name.to_owned(), json!(true));
    assert_eq!(names(first.ask_for(200, json!({"msgType": 68}))), [online("a1"), online("a2")]);
    first.ask_for(404, json!({"msgType": 68, "revoke": "a3"}));
    assert_eq!(names(first.ask_for(200, json!({"msgType": 68, "revoke": "a2"}))), [online("a1")]);
    second.expect_farewell("revoked");
    let mut level1 = TestClient::connect(&server);
    level1.login(a, &password("ann"));
    let reply = level1.ask(&json!({"msgType": 68, "FROMID": a, "revoke": "a1"}));
    assert_eq!(reply["devices"], json!([]));
    first.expect_farewell("revoked");
}

#[test]
fn a_deleted_account_is_gone_and_its_messages_stay() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (a, to_bob, to_ann) = (ann.store.me, with(&bob), with(&ann));
    ann.say(&to_bob, "hello");
    bob.until_at(&to_ann, 1);
    let made = bob.ask_for(200, json!({"msgType": 12, "FROMID": bob.store.me, "name": "g", "description": ""}));
    let group = made["GROUPID"].as_i64().unwrap();
    ann.ask_for(200, json!({"msgType": 10, "FROMID": a, "GROUPID": group}));
    let mut level1 = TestClient::connect(&server);
    level1.login(a, &password("ann"));
    ann.ask_for(302, json!({"msgType": 69, "password": "wrong"}));
    ann.ask_for(200, json!({"msgType": 69, "password": password("ann")}));
    ann.expect_farewell("revoked");
    level1.expect_refusal(403);
    level1.expect_eof();
    bob.until_at(&format!("g{group}"), 3);
    let cid = bob.send(&to_ann, "are you there?");
    assert_eq!(bob.answer(&cid)["errno"], 404);
    bob.ask_for(404, json!({"msgType": 66, "USERID": a, "block": true}));
    assert_eq!(bob.store.texts(&to_ann).len(), 1);
    let mut new = TestClient::connect(&server);
    let id = new.register("ann", "x");
    assert!(id > a, "the name is free, the id is not");
    // A client of level 1 gets the reply before its connection ends.
    new.login(id, "x");
    assert_eq!(new.ask(&json!({"msgType": 69, "FROMID": id, "password": "x"})), json!({"errno": 200, "msgType": 69}));
    new.expect_refusal(403);
    new.expect_eof();
    let (_, other) = user(&server, "other");
    assert!(other > id);
}

#[test]
fn blocks_outlive_a_restart() {
    let mut server = TestServer::start();
    let ((mut ann, a), (_, b)) = (user(&server, "ann"), user(&server, "bob"));
    ann.ask(&json!({"msgType": 66, "FROMID": a, "USERID": b, "block": true}));
    server.restart();
    let mut bob = TestClient::connect(&server);
    bob.login(b, &password("bob"));
    bob.send(&json!({"msgType": 4, "FROMID": b, "TOID": a, "msg": "x"}));
    bob.expect_refusal(403);
}

#[test]
fn receipts_are_off_both_ways() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    ann.ask_for(200, json!({"msgType": 67, "receipts": false}));
    ann.say(&to_bob, "hello");
    bob.until_at(&to_ann, 1);
    bob.ask_for(200, json!({"msgType": 49, "conv": &to_ann, "read": 1}));
    bob.say(&to_ann, "hi");
    ann.until_at(&to_bob, 2);
    assert!(ann.inbox().all(|frame| frame["msgType"] != 50));
    let store = bob.leave();
    let bob = Level2Client::resume(&server, "bob", "b1", store);
    let listed = bob.inbox().find(|frame| frame["msgType"] == 43).expect("a 43")["convs"][0].clone();
    assert_eq!((&listed["conv"], &listed["peerRead"]), (&json!(to_ann), &json!(null)));
}
