//! Old messages are deleted, and everything that clients are shown respects the floor.

use std::fs;

use serde_json::{Value, json};

use crate::people::{pair, with};
use testkit::level2::{Level2Client, LoginAs, Store};
use testkit::{Database, Redis, TestClient, TestServer, offline_user, password, wait_until};

/// Runs a test on each kind of database.
fn on_both(test: impl Fn(TestServer)) {
    test(TestServer::builder().option("admin", "0").start());
    test(TestServer::builder().option("admin", "0").mysql(&Database::create()).start());
}

/// Starts the server again with these settings.
fn restart_with(server: &mut TestServer, settings: &str) {
    fs::write(server.folder().join("server.cnf"), settings).expect("write the settings");
    server.terminate();
    server.restart();
}

fn floor(server: &TestServer) -> usize {
    server.count("SELECT max(floor) FROM Conversation")
}

fn gone(server: &TestServer, what: &str) -> f64 {
    server.metric(&format!("raybox_retention_total{{what=\"{what}\"}}"))
}

#[test]
fn pages_runs_marks_and_repeats_follow_the_floor() {
    on_both(|mut server| {
        let (mut ann, mut bob) = pair(&server);
        let (to_bob, to_ann) = (with(&bob), with(&ann));
        let first = ann.message(&to_bob);
        ann.send_frame(&first);
        ann.settle();
        bob.until_at(&to_ann, 1);
        let bob = bob.leave();
        ann.talk(&to_bob, 2_499);
        let ann = ann.leave();

        restart_with(&mut server, "history_per_conversation=1000\n");
        wait_until("old messages are gone", || floor(&server) == 1_500);
        wait_until("it is done", || gone(&server, "retired") == 1_500.0);
        assert_eq!(gone(&server, "deleted"), 0.0, "repeats must be recognised");
        assert_eq!(server.count("SELECT count(*) FROM Message WHERE text <> ''"), 1_000);

        // A cursor below the floor counts as one at the floor: the run is complete, without a gap.
        let login = LoginAs::password(bob.me, &password("bob"), "b1").with("resume", json!(5_000));
        let mut bob = Level2Client::login(
            TestClient::connect(&server),
            bob,
            login.with("have", json!({to_ann.clone(): "1:00000000"})),
        );
        bob.sync();
        let overview = bob.inbox().find(|frame| frame["msgType"] == 43).expect("a 43")["convs"][0].clone();
        assert_eq!(
            (&overview["floor"], &overview["head"], &overview["unread"]),
            (&json!(1_500), &json!(2_500), &json!(1_000))
        );
        let run = bob.inbox().find(|frame| frame["msgType"] == 44).expect("a 44").clone();
        assert_eq!((&run["from"], &run["complete"], run.get("gap")), (&json!(1_501), &json!(true), None), "{run}");
        // Pages end at the floor; messages below it are gone.
        let page = |bob: &mut Level2Client, ask: Value| {
            let mut request = json!({"msgType": 48, "conv": to_ann.clone(), "limit": 100});
            request.as_object_mut().expect("an object").extend(ask.as_object().expect("an object").clone());
            bob.ask(request)
        };
        let lowest = page(&mut bob, json!({"before": 1_510}));
        assert_eq!(
            (&lowest["from"], &lowest["floor"], &lowest["complete"]),
            (&json!(1_501), &json!(1_500), &json!(true)),
            "{lowest}"
        );
        for gone in [json!({"before": 1_501}), json!({"before": 7}), json!({"around": 1_500})] {
            assert_eq!(page(&mut bob, gone.clone())["errno"], 410, "{gone}");
        }
        let next = page(&mut bob, json!({"after": 3}));
        assert_eq!((&next["errno"], &next["from"]), (&json!(200), &json!(1_501)), "{next}");
        let mark = bob.ask_for(200, json!({"msgType": 49, "conv": to_ann, "read": 2_400}));
        assert_eq!(mark["unread"], 100, "{mark}");

        // The retry of a deleted message is recognised, but a deleted message cannot be changed.
        let mut ann = Level2Client::resume(&server, "ann", "a1", ann);
        ann.send_frame(&first);
        let again = ann.answer(first["cid"].as_str().expect("a cid"));
        assert_eq!(
            (&again["errno"], &again["seq"], &again["again"]),
            (&json!(200), &json!(1), &json!(true)),
            "{again}"
        );
        let cid = ann.send_with(&to_bob, json!({"recall": 1_500}));
        assert_eq!(ann.answer(&cid)["errno"], 404);
        assert_eq!(ann.say(&to_bob, "more"), 2_501);
        bob.until_at(&to_ann, 2_501);
    });
}

#[test]
fn ids_that_are_old_enough_go_too_and_nothing_else_does() {
    on_both(|mut server| {
        let (mut ann, bob) = pair(&server);
        let carl = Level2Client::enter(&server, "carl", offline_user(&server, "carl"), "c1");
        let (to_bob, to_carl) = (with(&bob), with(&carl));
        ann.talk(&to_bob, 1_300);
        ann.talk(&to_carl, 10);
        drop((ann, bob, carl));
        // Some messages become ten days old, others two days.
        let day = 24 * 60 * 60 * 1000;
        server.run_sql(&format!("UPDATE Message SET time = time - {} WHERE seq <= 1200", 10 * day));
        server.run_sql(&format!("UPDATE Message SET time = time - {} WHERE seq > 1200 AND seq <= 1250", 2 * day));
        restart_with(&mut server, "history_days=1\ndedup_days=7\n");
        wait_until("it is done", || gone(&server, "retired") == 1_260.0 && gone(&server, "deleted") == 1_210.0);
        assert_eq!(floor(&server), 1_250);
        let rows = |of: &str| server.count(&format!("SELECT count(*) FROM Message WHERE {of}"));
        assert_eq!((rows("seq <= 1200"), rows("seq <= 1250"), rows("text <> ''")), (0, 50, 50));
        // After the next start there is nothing to delete.
        server.terminate();
        server.restart();
        let mut ann = Level2Client::login(
            TestClient::connect(&server),
            Store::new(server.count("SELECT min(id) FROM User") as i64),
            LoginAs::name("ann", &password("ann"), "a2"),
        );
        ann.sync();
        assert_eq!(ann.say(&to_bob, "on"), 1_301);
        assert_eq!(ann.say(&to_carl, "on"), 11, "a conversation of which all is gone goes on");
    });
}

#[test]
fn one_server_of_a_cluster_deletes_for_all() {
    let (database, redis) = (Database::create(), Redis::start());
    let node = |keep: &str| {
        let builder = TestServer::builder().mysql(&database).redis(&redis).option("admin", "0");
        builder.option("history_per_conversation", keep).start()
    };
    let plain = node("off");
    let (mut ann, bob) = pair(&plain);
    let mut others: Vec<Level2Client> = (0..3)
        .map(|nth| format!("user{nth}"))
        .map(|name| Level2Client::enter(&plain, &name, offline_user(&plain, &name), "d"))
        .collect();
    ann.talk(&with(&bob), 1_600);
    for other in &mut others {
        other.talk(&with(&bob), 1_100);
    }
    let nodes = [node("100"), node("100")];
    wait_until("old messages are gone", || server_floors(&plain) == [1_000, 1_000, 1_000, 1_500]);
    wait_until("it is done", || nodes.iter().map(|node| gone(node, "retired")).sum::<f64>() >= 4_500.0);
    let by_each = nodes.each_ref().map(|node| gone(node, "retired"));
    assert!(by_each == [4_500.0, 0.0] || by_each == [0.0, 4_500.0], "{by_each:?}");
    // A client that was connected meanwhile receives new messages.
    let head = ann.say(&with(&bob), "more");
    assert_eq!(head, 1_601);
}

fn server_floors(server: &TestServer) -> [usize; 4] {
    let nth = |nth| {
        server.count(&format!("SELECT floor FROM Conversation WHERE head > 1 ORDER BY floor LIMIT 1 OFFSET {nth}"))
    };
    [nth(0), nth(1), nth(2), nth(3)]
}
