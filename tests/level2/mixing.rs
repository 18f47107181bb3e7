//! Level 1 and level 2 together: every row of the delivery table.

use serde_json::{Value, json};

use crate::people::with;
use testkit::level2::{Level2Client, assert_agree};
use testkit::{TestClient, TestServer, login, offline_user, user};

/// A chat frame of level 1 as the server forwards it.
fn said(from: i64, to: i64, msg: &str) -> Value {
    json!({"msgType": 4, "FROMID": from, "TOID": to, "msg": msg})
}

fn recorded(server: &TestServer) -> usize {
    server.count("SELECT count(*) FROM Message")
}

#[test]
fn users_who_have_never_used_level_2_are_as_ever() {
    let server = TestServer::start();
    let (mut ann, a) = user(&server, "ann");
    let (mut bob, b) = user(&server, "bob");
    let away = offline_user(&server, "carol");
    let group = ann.create_group(a, "team");
    bob.join_group(b, group);
    ann.send(&said(a, b, "hello"));
    ann.send(&said(a, away, "later"));
    ann.send(&json!({"msgType": 9, "FROMID": a, "GROUPID": group, "msg": "all"}));
    ann.barrier();
    bob.expect(&said(a, b, "hello"));
    bob.expect(&json!({"msgType": 9, "FROMID": a, "GROUPID": group, "msg": "all"}));
    assert_eq!(server.stored_for(away), 1);
    let chats = "SELECT count(*) FROM Message WHERE text LIKE '%hello%' OR text LIKE '%later%' OR text LIKE '%all%'";
    assert_eq!(server.count(chats), 0, "nothing is recorded");
}

#[test]
fn messages_of_level_1_to_a_user_of_level_2_are_recorded_before_the_next_reply() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    let mut ann = Level2Client::enter(&server, "ann", a, "a1");
    let mut tablet = Level2Client::enter(&server, "ann", a, "a2");
    let (mut bob, b) = user(&server, "bob");
    let conv = format!("u{b}");
    for n in 1..=20 {
        bob.send(&said(b, a, &n.to_string()));
        bob.barrier();
        assert_eq!(recorded(&server), n, "the reply waits for the commit");
    }
    for device in [&mut ann, &mut tablet] {
        device.until_at(&conv, 20);
        let log = &device.store.logs[&conv];
        assert!(log.messages.values().all(|message| message.from == b && !message.imported.0));
        assert_eq!(log.messages[&1].m.value(), said(b, a, "1"));
    }
    assert_agree(&ann.store, &conv, &tablet.store, &conv);
    // The same while no device of the user is online.
    let (store, _) = (ann.leave(), tablet.leave());
    bob.send(&said(b, a, "away"));
    bob.barrier();
    let ann = Level2Client::resume(&server, "ann", "a1", store);
    assert_eq!(ann.store.cursor(&conv), 21);
}

#[test]
fn messages_of_level_1_from_a_user_of_level_2_are_recorded() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    let mut phone = Level2Client::enter(&server, "ann", a, "phone");
    let mut old = login(&server, "ann", a);
    let (mut bob, b) = user(&server, "bob");
    old.send(&said(a, b, "from the old client"));
    old.barrier();
    assert_eq!(recorded(&server), 1);
    bob.expect(&said(a, b, "from the old client"));
    let conv = format!("u{b}");
    phone.until_at(&conv, 1);
    assert_eq!(phone.store.logs[&conv].messages[&1].from, a);
    // Bob does not know level 2; his answer reaches both.
    bob.send(&said(b, a, "answer"));
    bob.barrier();
    old.expect(&said(b, a, "answer"));
    phone.until_at(&conv, 2);
}

#[test]
fn level_1_gets_messages_of_level_2_unchanged() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    let mut ann = Level2Client::enter(&server, "ann", a, "a1");
    let (mut bob, b) = user(&server, "bob");
    let text = format!(r#"{{"msgType":4, "TOID":{b},"n":1.50,"cid":"c1","msg":"日"}}"#);
    ann.send_text(&text);
    ann.settle();
    bob.expect_text(&text);
    let request = format!(r#"{{"msgType":5,"FROMID":{a},"TOID":{b},"cid":"c2"}}"#);
    ann.send_text(&request);
    ann.settle();
    bob.expect_text(&request);
    // Level 1 does not get edits and recalls.
    let conv = format!("u{b}");
    ann.send_with(&conv, json!({"edit": 1, "msg": "other"}));
    ann.send_with(&conv, json!({"recall": 1}));
    ann.settle();
    let last = format!(r#"{{"msgType":4,"FROMID":{a},"TOID":{b},"cid":"c3"}}"#);
    ann.send_text(&last);
    ann.settle();
    bob.expect_text(&last);
    bob.barrier();
}

#[test]
fn level_1_fetches_missed_messages_with_14() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    let mut ann = Level2Client::enter(&server, "ann", a, "a1");
    let b = offline_user(&server, "bob");
    let conv = format!("u{b}");
    for n in 1..=5 {
        ann.say(&conv, &n.to_string());
    }
    let edit = ann.send_with(&conv, json!({"edit": 1}));
    ann.number(&edit);
    assert_eq!(server.stored_for(b), 5);
    let mut bob = login(&server, "bob", b);
    let texts: Vec<String> =
        bob.fetch_all(b).iter().map(|frame| frame["msg"].as_str().unwrap_or("").to_owned()).collect();
    assert_eq!(texts, ["1", "2", "3", "4", "5"]);
}

#[test]
fn a_user_of_both_levels_gets_each_message_on_every_device_and_the_newest_level_1_connection() {
    let server = TestServer::start();
    let (mut first, a) = user(&server, "ann");
    let mut second = login(&server, "ann", a);
    let mut phone = Level2Client::enter(&server, "ann", a, "phone");
    let mut tablet = Level2Client::enter(&server, "ann", a, "tablet");
    let b = offline_user(&server, "bob");
    let mut bob = Level2Client::enter(&server, "bob", b, "b1");
    let (to_ann, to_bob) = (with(&phone), with(&bob));
    bob.say(&to_ann, "1");
    assert_eq!(second.recv()["msg"], "1");
    phone.until_at(&to_bob, 1);
    tablet.until_at(&to_bob, 1);
    first.expect_silence_until_barrier();
    assert_eq!(server.stored_for(a), 0, "connections took it");
    // If only the connections of level 2 are left, they take the message, so it is not stored.
    drop((first, second));
    server.wait_state(a, "online");
    bob.say(&to_ann, "2");
    phone.until_at(&to_bob, 2);
}

#[test]
fn a_group_of_both_levels_hears_everybody() {
    let server = TestServer::start();
    let (mut old, o) = user(&server, "old");
    let group = old.create_group(o, "team");
    let (a, b) = (offline_user(&server, "ann"), offline_user(&server, "bob"));
    let away = offline_user(&server, "away");
    let mut ann = Level2Client::enter(&server, "ann", a, "a1");
    let mut bob = Level2Client::enter(&server, "bob", b, "b1");
    for client in [&mut ann, &mut bob] {
        let id = client.store.me;
        client.ask_for(200, json!({"msgType": 10, "FROMID": id, "GROUPID": group}));
    }
    let mut late = login(&server, "away", away);
    late.join_group(away, group);
    late.logout(away);
    server.wait_state(away, "offline");
    let conv = format!("g{group}");
    let number = ann.say(&conv, "from ann");
    assert_eq!(old.recv()["msg"], "from ann");
    bob.until_at(&conv, number);
    old.send(&json!({"msgType": 9, "FROMID": o, "GROUPID": group, "msg": "from old"}));
    old.barrier();
    ann.until_at(&conv, number + 1);
    bob.until_at(&conv, number + 1);
    assert_agree(&ann.store, &conv, &bob.store, &conv);
    assert_eq!(ann.store.logs[&conv].messages[&(number + 1)].from, o);
    let stored: Vec<Value> = login(&server, "away", away).fetch_all(away);
    let texts: Vec<&str> = stored.iter().filter_map(|frame| frame["msg"].as_str()).collect();
    assert_eq!(texts, ["from ann", "from old"]);
}

#[test]
fn level_1_keeps_its_bytes_beside_level_2() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    let mut ann = Level2Client::enter(&server, "ann", a, "a1");
    let mut bob = TestClient::connect(&server);
    let b = bob.register("bob", "pw-bob");
    bob.login(b, "pw-bob");
    // At level 1 a `cid` has no meaning, and nothing is acknowledged.
    for cid in ["x", "y"] {
        let text = format!(r#"{{"msgType":4,"FROMID":{b},"TOID":{a},"cid":"{cid}","rid":1}}"#);
        bob.send_text(&text);
        bob.barrier();
    }
    ann.until_at(&format!("u{b}"), 2);
    bob.send(&json!({"msgType": 15, "keyword": b.to_string(), "rid": "r"}));
    assert!(bob.recv().get("rid").is_none());
}

#[test]
fn messages_that_fit_no_page_of_level_2_are_refused_and_others_come() {
    let server = TestServer::builder().option("max_frame", "1m").start();
    let a = offline_user(&server, "ann");
    let mut ann = Level2Client::enter(&server, "ann", a, "a1");
    let (mut bob, b) = user(&server, "bob");
    let (mut carol, c) = user(&server, "carol");
    let group = bob.create_group(b, "team");
    carol.join_group(c, group);
    // A recipient at level 1 gets such messages as before.
    let huge = "x".repeat(600_000);
    bob.send(&said(b, c, &huge));
    carol.expect(&said(b, c, &huge));
    login(&server, "ann", a).join_group(a, group);
    let refused = json!({
        "errmsg": "at most 256 KiB can be recorded, send shorter messages", "errno": 413, "msgType": 413
    });
    bob.send(&said(b, a, &huge));
    bob.expect(&refused);
    bob.send(&json!({"msgType": 9, "FROMID": b, "GROUPID": group, "msg": huge}));
    bob.expect(&refused);
    // Each of these fits into a page, but two do not fit into one.
    let long = "x".repeat(200_000);
    let conv = format!("u{b}");
    for n in 1..=3 {
        bob.send(&said(b, a, &long));
        bob.barrier();
        ann.until_at(&conv, n);
    }
    let store = ann.leave();
    bob.send(&said(b, a, &long));
    bob.send(&said(b, a, "short"));
    bob.barrier();
    Level2Client::resume(&server, "ann", "a1", store).until_at(&conv, 5);
}
