//! Presence: who is told that somebody comes and goes.

use serde_json::json;

use crate::people::pair;
use testkit::level2::Level2Client;
use testkit::{NOBODY, TestServer, login, offline_user};

#[test]
fn who_watches_friends_is_told_who_comes_and_goes() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let (a, b) = (ann.store.me, bob.store.me);
    let (carol, stranger) = (offline_user(&server, "carol"), offline_user(&server, "stranger"));
    for friend in [b, carol] {
        ann.ask_for(200, json!({"msgType": 6, "U1": a, "U2": friend}));
    }
    let online = |ann: &mut Level2Client, user: i64| {
        let shown = ann.take("a 52", |frame| frame["msgType"] == 52 && frame["user"] == user);
        shown["online"] == true
    };
    let _there = login(&server, "stranger", stranger);
    ann.ask_for(200, json!({"msgType": 52, "watch": [b, carol, stranger, NOBODY]}));
    assert!(online(&mut ann, b));
    assert!(!online(&mut ann, carol));
    assert!(!online(&mut ann, stranger), "others look offline");
    assert!(!online(&mut ann, NOBODY));
    // Level 1 counts.
    let at_level_1 = login(&server, "carol", carol);
    assert!(online(&mut ann, carol));
    drop(at_level_1);
    assert!(!online(&mut ann, carol));
    drop(bob);
    assert!(!online(&mut ann, b));
    // Each watch replaces the last.
    ann.ask_for(200, json!({"msgType": 52, "watch": [b]}));
    assert!(!online(&mut ann, b));
    let _there = (login(&server, "carol", carol), Level2Client::enter(&server, "bob", b, "b1"));
    assert!(online(&mut ann, b));
    assert!(!ann.inbox().any(|frame| frame["msgType"] == 52), "{:?}", ann.inbox().collect::<Vec<_>>());
    ann.ask_for(200, json!({"msgType": 52, "watch": (1..=500).collect::<Vec<_>>()}));
    ann.ask_for(400, json!({"msgType": 52, "watch": (1..=501).collect::<Vec<_>>()}));
}

#[test]
fn a_block_ends_what_two_users_see_of_each_other() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (a, b) = (ann.store.me, bob.store.me);
    ann.ask_for(200, json!({"msgType": 6, "U1": a, "U2": b}));
    ann.ask_for(200, json!({"msgType": 52, "watch": [b]}));
    bob.ask_for(200, json!({"msgType": 52, "watch": [a]}));
    let shown = |client: &mut Level2Client, user: i64| {
        client.take("a 52", |frame| frame["msgType"] == 52 && frame["user"] == user)["online"] == true
    };
    assert!(shown(&mut ann, b) && shown(&mut bob, a));
    bob.ask_for(200, json!({"msgType": 66, "USERID": a, "block": true}));
    assert!(!shown(&mut ann, b) && !shown(&mut bob, a), "both look offline at once");
    bob.ask_for(200, json!({"msgType": 66, "USERID": a, "block": false}));
    ann.ask_for(200, json!({"msgType": 52, "watch": [b]}));
    assert!(shown(&mut ann, b), "until they are watched again");
}

#[test]
fn a_setting_says_who_may_see_whom() {
    for (setting, is_seen) in [("all", true), ("off", false)] {
        let server = TestServer::builder().option("presence", setting).start();
        let (mut ann, bob) = pair(&server);
        ann.ask_for(200, json!({"msgType": 52, "watch": [bob.store.me]}));
        let shown = ann.take("a 52", |frame| frame["user"] == bob.store.me && frame.get("online").is_some());
        assert_eq!(shown["online"], is_seen, "presence={setting}: {shown}");
    }
}

#[test]
fn members_of_a_common_group_see_each_other() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let group = ann.ask_for(200, json!({"msgType": 12, "FROMID": ann.store.me, "name": "team", "description": ""}));
    bob.ask_for(200, json!({"msgType": 10, "FROMID": bob.store.me, "GROUPID": group["GROUPID"]}));
    ann.ask_for(200, json!({"msgType": 52, "watch": [bob.store.me]}));
    let shown = ann.take("a 52", |frame| frame["user"] == bob.store.me && frame.get("online").is_some());
    assert_eq!(shown["online"], true, "{shown}");
}
