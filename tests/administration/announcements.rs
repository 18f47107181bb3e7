//! Announcements to all users.

use serde_json::{Value, json};
use testkit::level2::Level2Client;
use testkit::{Cluster, LONG_PATIENCE, TestClient, TestServer, login, offline_user, user, wait_within};

use crate::desk::{Desk, KEY, administered};

/// The announcement of this node, after it has ended.
pub(crate) fn over(desk: Desk) -> Value {
    let last = || desk.get("/v1/announcements")["announcement"].clone();
    wait_within(LONG_PATIENCE, "the announcement is over", || last()["state"] != "under way");
    last()
}

/// Expects this text on a connection of level 1.
fn expect_text(client: &mut TestClient, from: i64, to: i64, text: &str) {
    client.set_patience(LONG_PATIENCE);
    let frame = client.recv();
    let shown = (&frame["msgType"], &frame["FROMID"], &frame["TOID"], &frame["msg"]);
    assert_eq!(shown, (&json!(4), &json!(from), &json!(to), &json!(text)), "{frame}");
    assert!(frame["sendTime"].is_number(), "{frame}");
}

fn announce(desk: Desk, body: &Value) -> Value {
    let begun = desk.done("POST", "/v1/announcements", body)["announcement"].clone();
    let ended = over(desk);
    assert_eq!((&ended["id"], &ended["state"]), (&begun["id"], &json!("done")), "{ended}");
    ended
}

#[test]
fn everybody_who_is_logged_in_gets_an_announcement_once() {
    let server = administered().start();
    let desk = Desk::of(&server);
    assert_eq!(desk.get("/v1/announcements"), json!({"announcement": null}));
    let (mut ann, a) = user(&server, "ann");
    let (b, away) = (offline_user(&server, "bob"), offline_user(&server, "away"));
    let (mut eve, e) = user(&server, "eve");
    let from = offline_user(&server, "news");
    // The account of the sender may be disabled.
    desk.post(&format!("/v1/users/{from}/disable"));
    let mut bob = Level2Client::enter(&server, "bob", b, "phone");
    assert_eq!(eve.ask(&json!({"msgType": 66, "FROMID": e, "USERID": from, "block": true}))["errno"], 200);
    wait_within(LONG_PATIENCE, "all three count as logged in", || {
        [a, b, e].iter().all(|user| server.state_of(*user) == "online")
    });

    let ended = announce(desk, &json!({"from": from, "text": "we move at 8", "id": "move"}));
    assert_eq!((&ended["sent"], &ended["blocked"], &ended["failed"]), (&json!(2), &json!(1), &json!(0)), "{ended}");
    expect_text(&mut ann, from, a, "we move at 8");
    let conv = format!("u{from}");
    bob.until_at(&conv, 1);
    assert_eq!(bob.store.logs[&conv].messages[&1].m.value()["msg"], "we move at 8");
    assert_eq!(server.stored_for(away), 0, "only with away");
    // The same announcement again: no user gets it twice.
    let ended = announce(desk, &json!({"from": from, "text": "we move at 8", "id": "move"}));
    assert_eq!((&ended["sent"], &ended["already"]), (&json!(0), &json!(2)), "{ended}");
    let refused = desk.refused(409, "POST", "/v1/announcements", &json!({"from": from, "text": "x", "id": "move"}));
    assert!(refused.contains("another text"), "{refused}");
    // This one is also for offline users, who find it like any other message.
    let ended = announce(desk, &json!({"from": from, "text": "we have moved", "away": true}));
    assert_eq!((&ended["sent"], &ended["blocked"]), (&json!(3), &json!(1)), "{ended}");
    expect_text(&mut ann, from, a, "we have moved");
    bob.until_at(&conv, 2);
    let stored = login(&server, "away", away).fetch_all(away);
    assert_eq!(stored.len(), 1, "{stored:?}");
    eve.barrier();

    for (status, body) in [
        (400, json!({"from": from})),
        (400, json!({"from": from, "text": ""})),
        (400, json!({"from": from, "text": "x".repeat(1001)})),
        (400, json!({"from": from, "text": "x", "id": "a b"})),
        (400, json!({"from": from, "text": "x", "away": "yes"})),
        (404, json!({"from": 4711, "text": "x"})),
    ] {
        desk.refused(status, "POST", "/v1/announcements", &body);
    }
    let named = format!("announce /v1/announcements from={from} away=true id={}: done", ended["id"]);
    server.logs_with(&named);
    assert!(!server.logs().contains("we move at 8"), "no text is in the log");
}

#[test]
fn an_announcement_reaches_users_of_every_node() {
    let cluster = Cluster::start_with(2, |node| {
        let node = node.option("admin", "127.0.0.1:0");
        node.file("server.cnf", format!("admin_key={KEY}\n"))
    });
    let [here, there] = [&cluster.nodes[0], &cluster.nodes[1]];
    let from = offline_user(here, "news");
    let (mut ann, a) = user(there, "ann");
    let b = offline_user(there, "bob");
    let mut bob = Level2Client::enter(there, "bob", b, "phone");
    let (mut cat, c) = user(here, "cat");
    wait_within(LONG_PATIENCE, "all three count as logged in", || {
        [a, b, c].iter().all(|user| here.state_of(*user) == "online")
    });
    let ended = announce(Desk::of(here), &json!({"from": from, "text": "hello"}));
    assert_eq!(ended["sent"], 3, "{ended}");
    expect_text(&mut ann, from, a, "hello");
    expect_text(&mut cat, from, c, "hello");
    bob.until_at(&format!("u{from}"), 1);
}

/// Creates this number of accounts more. They are never logged in.
pub(crate) fn crowd(server: &TestServer, number: usize) {
    let first = 1 + server.count("SELECT count(*) FROM User");
    server.run_sql(&format!(
        "WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {})
         INSERT INTO User (name, name_key, password) SELECT 'user ' || i, 'user ' || i, '*' FROM n",
        first + number - 1
    ));
}

#[test]
fn chats_go_on_beside_an_announcement_to_many_and_it_can_be_stopped() {
    const MANY: usize = 100_000;
    let server = administered().start();
    let desk = Desk::of(&server);
    let from = offline_user(&server, "news");
    let (mut ann, a) = user(&server, "ann");
    let b = offline_user(&server, "bob");
    let mut bob = Level2Client::enter(&server, "bob", b, "phone");
    crowd(&server, MANY);
    let order = json!({"from": from, "text": "hello", "away": true});
    desk.done("POST", "/v1/announcements", &order);
    expect_text(&mut ann, from, a, "hello");
    desk.refused(409, "POST", "/v1/announcements", &order);
    // Each of these messages is recorded in the lanes that the announcement uses.
    for n in 1..=20 {
        ann.send(&json!({"msgType": 4, "FROMID": a, "TOID": b, "msg": "chat", "n": n}));
        ann.barrier();
        bob.until_at(&format!("u{a}"), n);
        let metrics = server.metrics();
        let lanes = metrics.lines().filter(|line| line.starts_with("raybox_lane_items{lane=\"recorder"));
        let waiting: f64 = lanes.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        assert!(waiting <= 64.0 + 2.0, "{waiting} messages wait");
    }
    let now = desk.get("/v1/announcements")["announcement"].clone();
    assert_eq!(now["state"], "under way", "the chats have waited for its end: {now}");
    assert_eq!(desk.post("/v1/announcements/stop"), json!({"stopped": true}));
    let ended = over(desk);
    let sent = ended["sent"].as_u64().expect("a number");
    assert_eq!(ended["state"], "stopped", "{ended}");
    assert!(sent > 0 && sent < MANY as u64, "{ended}");
    assert_eq!(desk.post("/v1/announcements/stop"), json!({"stopped": false}));
}

/// The stored messages of an announcement: those in conversations without the sender's own copy,
/// and the rows of mailboxes.
fn stored_of(server: &TestServer, from: i64) -> (usize, usize) {
    let committed = server.count(&format!("SELECT count(*) FROM Message WHERE sender = {from}"));
    (committed.saturating_sub(1), server.stored())
}

#[test]
fn a_repeat_after_the_node_has_died_reaches_everybody_once() {
    let mut many = 2000;
    let mut server = administered().start();
    let from = offline_user(&server, "news");
    let b = offline_user(&server, "bob");
    Level2Client::enter(&server, "bob", b, "phone").leave();
    crowd(&server, many);
    let order = json!({"from": from, "text": "hello", "away": true, "id": "x1"});
    let twice = "SELECT count(*) FROM (SELECT userid FROM OfflineMessage GROUP BY userid HAVING count(*) > 1)";
    // Repeat until a kill has left messages that are committed but in no mailbox.
    for attempt in 1.. {
        assert!(attempt < 100, "each kill has hit when every committed message was in its mailbox");
        let (committed, before) = stored_of(&server, from);
        // There are always some users left who do not have the announcement.
        if many < committed + 1000 {
            crowd(&server, 1000);
            many += 1000;
        }
        Desk::of(&server).done("POST", "/v1/announcements", &order);
        wait_within(LONG_PATIENCE, "some have it", || server.stored() > before + 50);
        server.kill9();
        let (committed, in_mailboxes) = stored_of(&server, from);
        assert_eq!(server.count(twice), 0, "somebody has two");
        server.restart();
        if committed > in_mailboxes {
            break;
        }
    }
    let desk = Desk::of(&server);
    let other = json!({"from": from, "text": "hello!", "away": true, "id": "x1"});
    desk.refused(409, "POST", "/v1/announcements", &other);
    let ended = announce(desk, &order);
    assert_eq!((&ended["failed"], &ended["gone"]), (&json!(0), &json!(0)), "{ended}");
    let counted = ended["sent"].as_u64().zip(ended["already"].as_u64()).map(|(sent, already)| sent + already);
    assert_eq!(counted, Some(many as u64 + 1), "{ended}");
    // The conversation of every user holds it. For all but Bob, the mailbox holds it as well.
    assert_eq!(stored_of(&server, from).0, many + 1);
    let mailboxes = "SELECT count(DISTINCT userid) FROM OfflineMessage WHERE userid NOT IN";
    assert_eq!(server.count(&format!("{mailboxes} ({from}, {b})")), many, "somebody has nothing");
    assert_eq!(server.count(twice), 0, "somebody has two");
    let mut bob = Level2Client::enter(&server, "bob", b, "phone");
    bob.until_at(&format!("u{from}"), 1);
    // Nothing is left to send.
    let ended = announce(desk, &order);
    assert_eq!((&ended["sent"], &ended["already"]), (&json!(0), &json!(many + 1)), "{ended}");
    assert_eq!(server.count(twice), 0, "somebody has two");
}

#[test]
fn messages_that_no_mailbox_takes_count_as_failed() {
    let server = administered().option("mailbox_max", "1k").start();
    let desk = Desk::of(&server);
    let from = offline_user(&server, "news");
    let away = offline_user(&server, "away");
    let text = "x".repeat(200);
    let mut failed = 0;
    for _ in 0..6 {
        let ended = announce(desk, &json!({"from": from, "text": text, "away": true}));
        assert_eq!(ended["sent"].as_u64().zip(ended["failed"].as_u64()).map(|(sent, failed)| sent + failed), Some(1));
        failed += ended["failed"].as_u64().unwrap_or_default();
    }
    assert_eq!(6 - failed, server.stored_for(away) as u64);
    assert!(failed > 0, "the mailbox has taken everything");
    // A repeat reaches a user who has made room since.
    let order = json!({"from": from, "text": text, "away": true, "id": "again"});
    assert_eq!(announce(desk, &order)["failed"], 1);
    let mut back = login(&server, "away", away);
    assert_eq!(back.fetch_all(away).len() as u64, 6 - failed);
    back.logout(away);
    wait_within(LONG_PATIENCE, "there is room", || server.stored_for(away) == 0);
    // A node that has just asked slowly for the size of a mailbox estimates it for a while.
    wait_within(LONG_PATIENCE, "it is reached", || {
        let ended = announce(desk, &order);
        ended["failed"] == 0 && ended["already"] == 1
    });
    assert_eq!(server.stored_for(away), 1);
    let ended = announce(desk, &order);
    assert_eq!((&ended["failed"], &ended["already"]), (&json!(0), &json!(1)), "{ended}");
    assert_eq!(server.stored_for(away), 1, "once");
}

#[test]
fn a_deleted_sender_ends_its_announcement() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let (first, second) = (offline_user(&server, "news"), offline_user(&server, "old news"));
    crowd(&server, 20_000);
    for (from, order, reason) in [
        (first, ("POST", format!("/v1/users/{first}/disable")), "the sender was disabled"),
        (second, ("DELETE", format!("/v1/users/{second}")), "the sender was deleted"),
    ] {
        let id = format!("of-{from}");
        desk.done("POST", "/v1/announcements", &json!({"from": from, "text": "hello", "away": true, "id": id}));
        desk.done(order.0, &order.1, &Value::Null);
        let ended = over(desk);
        assert_eq!((&ended["state"], &ended["reason"]), (&json!("stopped"), &json!(reason)), "{ended}");
        server.logs_with(&format!("announcement {id} of user {from} was stopped, because {reason}: "));
        assert!(server.logs().contains(&format!("send the same text again with --id {id}")));
    }
}
