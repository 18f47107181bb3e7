//! Messages from mailboxes are imported into conversations, and recorded messages also wait in
//! mailboxes for users who still use level 1. On both kinds of database.

use serde_json::{Value, json};

use crate::people::{on_both, with};
use testkit::level2::{Level2Client, Store};
use testkit::{Cluster, LONG_PATIENCE, MariaDb, Neighbour, TestClient, TestServer};
use testkit::{chat, login, offline_user, user, wait_until, wait_within};

fn unmarked(server: &TestServer, user: i64) -> usize {
    server.count(&format!("SELECT count(*) FROM OfflineMessage WHERE userid = {user} AND seq = 0"))
}

/// The newest messages of a conversation, as a page shows them.
fn page(client: &mut Level2Client, conv: &str) -> Vec<Value> {
    let page = client.ask_for(200, json!({"msgType": 48, "conv": conv, "limit": 200}));
    page["msgs"].as_array().expect("messages").clone()
}

fn texts(messages: &[Value]) -> Vec<&str> {
    messages
        .iter()
        .filter(|message| message["m"]["msgType"] != 57)
        .map(|message| message["m"]["msg"].as_str().unwrap_or_default())
        .collect()
}

/// Stores a row as another server stores it.
fn put(server: &TestServer, user: i64, frame: &str) {
    server.run_sql(&format!("INSERT INTO OfflineMessage (userid, message) VALUES ({user}, '{frame}')"));
}

#[test]
fn waiting_messages_are_imported_once_and_in_order() {
    on_both(|server| {
        let (mut ann, a) = user(server, "ann");
        let b = offline_user(server, "bob");
        let group = ann.create_group(a, "team");
        let mut bob = login(server, "bob", b);
        bob.join_group(b, group);
        bob.logout(b);
        drop(bob);
        for text in ["1", "same", "same", "4"] {
            ann.send(&chat(a, b, text));
        }
        ann.send(&json!({"msgType": 5, "FROMID": a, "TOID": b, "msg": "friends?"}));
        for text in ["g1", "g same", "g same"] {
            ann.send(&json!({"msgType": 9, "FROMID": a, "GROUPID": group, "msg": text}));
        }
        ann.barrier();
        assert_eq!(unmarked(server, b), 8);
        let mut bob = Level2Client::enter(server, "bob", b, "phone");
        assert_eq!(unmarked(server, b), 0);
        let (with_ann, team) = (format!("u{a}"), format!("g{group}"));
        let messages = page(&mut bob, &with_ann);
        assert_eq!(texts(&messages), ["1", "same", "same", "4", "friends?"]);
        assert!(messages.iter().all(|message| message["imported"] == true && message["from"] == a), "{messages:?}");
        assert_eq!(messages[0]["m"], chat(a, b, "1"));
        assert_eq!(texts(&page(&mut bob, &team)), ["g1", "g same", "g same"]);
        let overview = bob.inbox().find(|frame| frame["msgType"] == 43).expect("a 43").clone();
        let line = overview["convs"].as_array().and_then(|lines| lines.iter().find(|line| line["conv"] == with_ann));
        assert_eq!(line.expect("the conversation")["unread"], 4, "{overview}");
        // Another login imports nothing. A message that comes now follows the imported ones.
        let mut tablet = Level2Client::enter(server, "bob", b, "tablet");
        assert_eq!(page(&mut tablet, &with_ann).len(), 5);
        ann.send(&chat(a, b, "live"));
        ann.barrier();
        tablet.until_at(&with_ann, 6);
        assert_eq!(page(&mut tablet, &with_ann)[5].get("imported"), None);
        // The old client still finds the waiting messages, except those that a device has reported.
        assert_eq!(server.stored_for(b), 8);
        bob.send_frame(&json!({"msgType": 47, "recv": {with_ann.clone(): 2, team: 1000}}));
        wait_until("reported messages wait no longer", || server.stored_for(b) == 3);
        let mut old = login(server, "bob", b);
        let waiting: Vec<Value> = old.fetch_all(b).iter().map(|frame| frame["msg"].clone()).collect();
        assert_eq!(waiting, ["same", "4", "friends?"]);
    });
}

#[test]
fn members_who_import_the_same_messages_get_them_once() {
    on_both(|server| {
        let (mut ann, a) = user(server, "ann");
        let others = ["bob", "cat"].map(|name| (name, offline_user(server, name)));
        let group = ann.create_group(a, "team");
        for (name, id) in others {
            let mut client = login(server, name, id);
            client.join_group(id, group);
            client.logout(id);
        }
        for text in ["1", "same", "same", "2"] {
            ann.send(&json!({"msgType": 9, "FROMID": a, "GROUPID": group, "msg": text}));
        }
        ann.barrier();
        for (name, id) in others {
            assert_eq!(unmarked(server, id), 4);
            let mut client = Level2Client::enter(server, name, id, "phone");
            assert_eq!(texts(&page(&mut client, &format!("g{group}"))), ["1", "same", "same", "2"], "{name}");
            assert_eq!(unmarked(server, id), 0);
        }
    });
}

#[test]
fn unreadable_rows_stay_and_rows_of_other_programs_are_imported() {
    on_both(|server| {
        let (a, b) = (offline_user(server, "ann"), offline_user(server, "bob"));
        let frames = [
            "no JSON".to_owned(),
            format!(r#"{{"FROMID":{a},"msg":"1","msgType":4}}"#),
            r#"{"TOID":1,"msg":"from nobody","msgType":4}"#.to_owned(),
            format!(r#"{{"FROMID":{a},"GROUPID":77,"msg":"of no group","msgType":9}}"#),
            format!(r#"{{"errno":200,"msgType":6,"name":"ann","new":true,"userId":{a}}}"#),
            format!(r#"{{"FROMID":{b},"TOID":{b},"msg":"note","msgType":4}}"#),
        ];
        frames.iter().for_each(|frame| put(server, b, frame));
        let mut bob = Level2Client::enter(server, "bob", b, "phone");
        let messages = page(&mut bob, &format!("u{a}"));
        assert_eq!(messages.iter().map(|message| message["m"]["msgType"].clone()).collect::<Vec<_>>(), [4, 6]);
        assert_eq!(texts(&page(&mut bob, &format!("u{b}"))), ["note"]);
        assert_eq!(unmarked(server, b), 3);
        // The unreadable rows do not hinder the next login.
        let mut bob = Level2Client::enter(server, "bob", b, "phone");
        assert_eq!(page(&mut bob, &format!("u{a}")).len(), 2);
        assert_eq!(unmarked(server, b), 3);
    });
}

#[test]
fn a_device_is_shown_messages_that_another_member_imports() {
    let server = TestServer::start();
    let (a, b) = (offline_user(&server, "ann"), offline_user(&server, "bob"));
    put(&server, b, &format!(r#"{{"FROMID":{a},"msg":"old","msgType":4}}"#));
    let mut ann = Level2Client::enter(&server, "ann", a, "phone");
    let bob = Level2Client::enter(&server, "bob", b, "phone");
    ann.until_at(&with(&bob), 1);
    assert_eq!(ann.store.texts(&with(&bob)), ["old"]);
}

#[test]
fn a_recorded_message_waits_for_a_user_of_level_1_and_is_never_imported() {
    on_both(|server| {
        let (a, b) = (offline_user(server, "ann"), offline_user(server, "bob"));
        let mut ann = Level2Client::enter(server, "ann", a, "phone");
        let (with_ann, with_bob) = (format!("u{a}"), format!("u{b}"));
        // Bob has never used level 2, so the messages wait.
        ann.say(&with_bob, "1");
        ann.say(&with_bob, "2");
        assert_eq!((server.stored_for(b), unmarked(server, b)), (2, 0));
        let mut bob = Level2Client::enter(server, "bob", b, "phone");
        assert_eq!(texts(&page(&mut bob, &with_ann)), ["1", "2"]);
        // An online device takes this message.
        ann.say(&with_bob, "3");
        bob.until_at(&with_ann, 3);
        assert_eq!(server.stored_for(b), 2);
        drop(bob.leave());
        wait_until("bob has left", || server.state_of(b) == "offline");
        ann.say(&with_bob, "4");
        assert_eq!((server.stored_for(b), unmarked(server, b)), (3, 0));
        let mut old = login(server, "bob", b);
        let found: Vec<Value> = old.fetch_all(b).iter().map(|frame| frame["msg"].clone()).collect();
        assert_eq!((found, server.stored_for(b)), (vec![json!("1"), json!("2"), json!("4")], 0));
        ann.say(&with_bob, "5");
        assert_eq!(old.recv()["msg"], "5");
        let mut bob = Level2Client::enter(server, "bob", b, "phone");
        assert_eq!(texts(&page(&mut bob, &with_ann)), ["1", "2", "3", "4", "5"]);
    });
}

#[test]
fn nothing_waits_for_a_user_who_has_left_level_1() {
    on_both(|server| {
        let (a, b) = (offline_user(server, "ann"), offline_user(server, "bob"));
        put(server, b, &format!(r#"{{"FROMID":{a},"msg":"1","msgType":4}}"#));
        let bob = Level2Client::enter(server, "bob", b, "phone");
        assert_eq!(server.stored_for(b), 1);
        let store = bob.leave();
        // Bob used level 1 more than a month ago.
        server.run_sql(&format!("UPDATE User SET level1_seen = 1 WHERE id = {b}"));
        put(server, b, &format!(r#"{{"FROMID":{a},"msg":"2","msgType":4}}"#));
        let bob = Level2Client::resume(server, "bob", "phone", store);
        assert_eq!(server.stored_for(b), 0, "what had a mark is gone too");
        let store = bob.leave();
        wait_until("bob has left", || server.state_of(b) == "offline");
        let mut ann = Level2Client::enter(server, "ann", a, "phone");
        assert_eq!(ann.say(&format!("u{b}"), "3"), 3);
        assert_eq!(server.stored_for(b), 0);
        let mut bob = Level2Client::resume(server, "bob", "phone", store);
        assert_eq!(texts(&page(&mut bob, &format!("u{a}"))), ["1", "2", "3"]);
        // A login at level 1 is noted.
        let seen = format!("SELECT count(*) FROM User WHERE id = {b} AND level1_seen > 1");
        assert_eq!(server.count(&seen), 0);
        let _old = login(server, "bob", b);
        wait_until("the login is noted", || server.count(&seen) == 1);
    });
}

#[test]
fn a_large_mailbox_is_imported_while_others_are_served() {
    // The memory for one step of the import does not depend on the size of the mailbox.
    let server = TestServer::builder().option("admin", "0").may_keep(48).start();
    let (a, b) = (offline_user(&server, "ann"), offline_user(&server, "bob"));
    server.run_sql(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO OfflineMessage (userid, message)
         SELECT {b}, '{{\"FROMID\":{a},\"TOID\":{b},\"msg\":\"' || i || '\",\"msgType\":4}}' FROM n"
    ));
    let mut ann = Level2Client::enter(&server, "ann", a, "phone");
    let c = offline_user(&server, "carl");
    let (before, imported) = (server.resident_bytes(), || server.metric("raybox_imported_total{what=\"new\"}") as i64);
    let store = Store::new(b);
    let login = testkit::level2::LoginAs::password(b, &testkit::password("bob"), "phone");
    let mut bob = Level2Client::login(TestClient::connect(&server), store, login);
    bob.set_patience(LONG_PATIENCE);
    // During the import other clients send, read pages and log in.
    let (conv, mut largest) = (format!("u{c}"), 0);
    for n in 1.. {
        assert_eq!(ann.say(&conv, "quiet"), n);
        ann.ask_for(200, json!({"msgType": 48, "conv": conv, "limit": 1}));
        largest = largest.max(server.resident_bytes());
        if imported() == ROWS {
            assert!(n > 10, "{n} messages of others are not many beside {ROWS}");
            break;
        }
    }
    bob.sync();
    let head = bob.inbox().find(|frame| frame["msgType"] == 43).expect("a 43")["convs"][0]["head"].clone();
    assert_eq!(head, ROWS);
    assert_eq!(unmarked(&server, b), 0);
    assert_eq!(texts(&page(&mut bob, &format!("u{a}")))[..2], [(ROWS - 199).to_string(), (ROWS - 198).to_string()]);
    assert!(largest.saturating_sub(before) < 64 << 20, "{before} bytes before, {largest} at most");
}

#[test]
fn messages_that_a_reference_node_stored_are_imported_at_each_login() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let (a, b) = (offline_user(node, "ann"), offline_user(node, "bob"));
    wait_until("bob is offline", || cluster.database.state_of(b).as_deref() == Some("offline"));
    let neighbour = Neighbour::start(&cluster.database, &cluster.redis);
    let mut ann = TestClient::connect_to(neighbour.address());
    let mut says = |texts: &[&str]| {
        for text in texts {
            ann.send(&chat(a, b, text));
        }
        ann.ask(&json!({"msgType": 200}));
    };
    says(&["1", "same", "same"]);
    assert_eq!(unmarked(node, b), 3);
    let mut bob = Level2Client::enter(node, "bob", b, "phone");
    let conv = format!("u{a}");
    assert_eq!(texts(&page(&mut bob, &conv)), ["1", "same", "same"]);
    let store = bob.leave();
    wait_until("bob is offline", || cluster.database.state_of(b).as_deref() == Some("offline"));
    // Later messages follow the imported ones, even if their texts are equal.
    says(&["same", "5"]);
    let mut bob = Level2Client::resume(node, "bob", "phone", store);
    bob.until_at(&conv, 5);
    assert_eq!(texts(&page(&mut bob, &conv)), ["1", "same", "same", "same", "5"]);
    assert!(page(&mut bob, &conv).iter().all(|message| message["imported"] == true && message["from"] == a));
    let mut tablet = Level2Client::enter(node, "bob", b, "tablet");
    assert_eq!(page(&mut tablet, &conv).len(), 5);
    assert_eq!(unmarked(node, b), 0);
}

#[test]
fn messages_spooled_during_an_outage_are_imported_once_and_in_order() {
    let mut mariadb = MariaDb::start();
    let server = TestServer::builder().mysql(&mariadb.create_database()).option("admin", "0").start();
    let (mut ann, a) = user(&server, "ann");
    ann.set_patience(LONG_PATIENCE);
    let b = offline_user(&server, "bob");
    let conv = format!("u{a}");
    let store = Level2Client::enter(&server, "bob", b, "phone").leave();
    wait_until("bob is offline", || server.state_of(b) == "offline");
    let mut say = |numbers: std::ops::Range<usize>| {
        numbers.for_each(|n| ann.send(&chat(a, b, &n.to_string())));
        ann.ack_barrier();
    };
    say(0..5);
    mariadb.kill();
    // These stay unrecorded, because no node knows now that Bob uses level 2.
    say(5..15);
    assert_eq!(server.metric("raybox_recorded_total{what=\"unrecorded\"}"), 10.0);
    mariadb.restart();
    let login = || testkit::level2::LoginAs::password(b, &testkit::password("bob"), "phone").with("have", store.have());
    let mut bob = None;
    wait_within(LONG_PATIENCE, "the database is back", || {
        bob = Level2Client::try_login(TestClient::connect(&server), store.clone(), login()).ok();
        bob.is_some()
    });
    drop(bob);
    wait_within(LONG_PATIENCE, "the spool is empty", || server.metric("raybox_spool_messages") == 0.0);
    let mut bob = Level2Client::login(TestClient::connect(&server), store.clone(), login());
    // The first login may have begun the import, so the messages may come after the 43.
    bob.until_at(&conv, 15);
    let all: Vec<String> = (0..15).map(|n| n.to_string()).collect();
    assert_eq!(texts(&page(&mut bob, &conv)), all);
    assert_eq!(unmarked(&server, b), 0);
}

const ROWS: i64 = 100_000;

#[test]
fn a_cid_in_a_frame_of_level_1_does_not_prove_that_it_is_recorded() {
    on_both(|server| {
        let (a, b) = (offline_user(server, "ann"), offline_user(server, "bob"));
        let mut ann = Level2Client::enter(server, "ann", a, "a1");
        let (to_bob, with_ann) = (format!("u{b}"), format!("u{a}"));
        let cid = ann.send(&to_bob, "hello");
        ann.settle();
        let frame = ann.store.logs[&to_bob].messages[&1].m.0.clone();
        // The frame as an older node's connection gave it back, and the frame with other blanks, as
        // another client would have sent it.
        put(server, b, &frame);
        put(server, b, &frame.replace(",\"msg\"", " , \"msg\""));
        // Another message with the same `cid`. Its recipient must receive it, no matter which user
        // wrote it.
        put(server, b, &json!({"FROMID": a, "TOID": b, "cid": cid, "msg": "another", "msgType": 4}).to_string());
        let mut bob = Level2Client::enter(server, "bob", b, "phone");
        assert_eq!(texts(&page(&mut bob, &with_ann)), ["hello", "another"]);
        assert_eq!(unmarked(server, b), 0);
    });
}
