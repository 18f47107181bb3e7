//! Presence: the users who are notified that another one comes or goes.

use std::time::Instant;

use serde_json::json;

use crate::people::pair;
use testkit::level2::Level2Client;
use testkit::{NOBODY, TestServer, login, offline_user};

#[test]
fn a_watching_user_is_notified_when_friends_come_and_go() {
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
    let beyond = 1_i64 << 40;
    ann.ask_for(200, json!({"msgType": 52, "watch": [b, beyond, carol, stranger, NOBODY, beyond]}));
    assert!(online(&mut ann, b));
    assert!(!online(&mut ann, carol));
    assert!(!online(&mut ann, stranger), "others look offline");
    assert!(!online(&mut ann, NOBODY));
    assert!(!online(&mut ann, beyond), "no user has such an id");
    // A connection of level 1 counts as online.
    let at_level_1 = login(&server, "carol", carol);
    assert!(online(&mut ann, carol));
    drop(at_level_1);
    assert!(!online(&mut ann, carol));
    drop(bob);
    assert!(!online(&mut ann, b));
    // Each watch replaces the one before.
    ann.ask_for(200, json!({"msgType": 52, "watch": [b]}));
    assert!(!online(&mut ann, b));
    let _there = (login(&server, "carol", carol), Level2Client::enter(&server, "bob", b, "b1"));
    assert!(online(&mut ann, b));
    assert!(!ann.inbox().any(|frame| frame["msgType"] == 52), "{:?}", ann.inbox().collect::<Vec<_>>());
    ann.ask_for(200, json!({"msgType": 52, "watch": (1..=500).collect::<Vec<_>>()}));
    ann.ask_for(400, json!({"msgType": 52, "watch": (1..=501).collect::<Vec<_>>()}));
}

/// A user who comes and goes all the time, beside one who does so once.
#[test]
fn a_user_who_comes_and_goes_all_the_time_does_not_flood_those_who_watch() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let (a, b) = (ann.store.me, bob.store.me);
    let restless = offline_user(&server, "restless");
    for friend in [b, restless] {
        ann.ask_for(200, json!({"msgType": 6, "U1": a, "U2": friend}));
    }
    ann.ask_for(200, json!({"msgType": 52, "watch": [b, restless]}));
    let mut shown = Vec::new();
    let mut next = |ann: &mut Level2Client, user: i64| loop {
        let frame = ann.take("a 52", |frame| frame["msgType"] == 52 && frame.get("user").is_some());
        let online = frame["online"] == true;
        if frame["user"] == restless {
            shown.push(online);
        }
        if frame["user"] == user {
            return (online, shown.clone());
        }
    };
    assert!(next(&mut ann, b).0);
    let began = Instant::now();
    for _ in 0..50 {
        drop(login(&server, "restless", restless));
    }
    drop(bob);
    let (is_there, changes) = next(&mut ann, b);
    assert!(!is_there, "the other one's change is shown meanwhile");
    let most = 4 * (began.elapsed().as_secs() as usize / 5 + 2);
    assert!(changes.len() <= most, "50 times back and forth are not shown as {} changes", changes.len());
    // The last state differs from the one that was shown last, so it must be shown.
    let stays = changes.last() != Some(&true);
    let _stays = stays.then(|| login(&server, "restless", restless));
    while next(&mut ann, restless).0 != stays {}
}

#[test]
fn a_block_hides_the_presence_of_two_users_from_each_other() {
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
fn a_setting_limits_the_users_who_see_presence() {
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
