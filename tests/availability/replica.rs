//! A primary and its replica: the roles are changed, the primary dies, and the old one comes back.

use std::time::{Duration, Instant};

use mysql::prelude::Queryable as _;
use raybox_client::Content;
use serde_json::{Value, json};
use testkit::{Database, LONG_PATIENCE, Redis, Replicas, TestServer, Workplace, user, wait_until, wait_within};

use crate::talk::Talk;

#[test]
fn a_replica_that_is_promoted_is_found_and_the_old_primary_is_left_alone() {
    let mut pair = Replicas::start();
    let (database, redis) = (pair.create_database(), Redis::start());
    let cnf = pair.cnf(&database);
    let node = || {
        let builder = TestServer::builder().redis(&redis).option("admin", "127.0.0.1:0");
        builder.file("mysql.cnf", cnf.clone()).start()
    };
    let nodes = [node(), node()];
    let talk = Talk::start(&nodes);
    talk.suffer("the primary is made read-only, and its replica promoted", || {
        pair.servers[0].run("SET GLOBAL read_only = 1");
        pair.wait_caught_up(1, 0);
        pair.promote(1);
    });
    wait_until("nobody stays with the old primary", || database.connections() == 0);
    pair.follow(0, 1);
    talk.suffer("the primary is killed, and its replica promoted", || {
        pair.servers[1].kill();
        pair.promote(0);
    });
    // The old primary comes back. It does not follow the new one, so it is behind.
    pair.servers[1].restart();
    let left_alone = messages(&pair, &database, 1).len();
    talk.wait_for_more();
    assert_eq!(messages(&pair, &database, 1).len(), left_alone, "a server that is read-only is not used");
    // By mistake the old primary is made writable.
    pair.servers[1].run("SET GLOBAL read_only = 0");
    wait_within(LONG_PATIENCE, "the nodes say so", || {
        nodes.iter().all(|node| node.output().contains("takes writes although"))
    });
    talk.wait_for_more();
    assert_eq!(messages(&pair, &database, 1).len(), left_alone, "nodes stay with the one that they use");
    let place = Workplace::empty();
    place.write("mysql.cnf", &cnf);
    let refused = place.refused(&["127.0.0.1", "0"]);
    assert!(refused.contains("take writes, and are not nodes of one Galera cluster"), "{refused}");
    pair.servers[1].run("SET GLOBAL read_only = 1");
    let checked = place.succeed(&["check", "127.0.0.1", "0"]);
    assert!(checked.contains(&format!(", in use: {}, ", pair.servers[0].address())), "{checked}");
    let [(ann, to_bob), (bob, from_ann)] = talk.end();

    // The primary freezes, and the replica, which is behind, is promoted: the writes in between are
    // lost. But a message in flight to the old primary is not lost, even when the old one goes on.
    pair.servers[0].stop();
    let on_its_way = ann.send(to_bob, "on its way").unwrap();
    pair.servers[1].run("SET GLOBAL read_only = 0");
    let moved = format!("the database is {} from now on", pair.servers[1].address());
    wait_until("the nodes have changed over", || nodes.iter().all(|node| node.logs().matches(&moved).count() == 2));
    pair.servers[0].cont();
    on_its_way.wait(LONG_PATIENCE).expect("it is acknowledged");
    let has_come = messages(&pair, &database, 1).iter().any(|text| text.contains("on its way"));
    assert!(has_come, "it was acknowledged because of a server that had been left");
    pair.servers[0].run("SET GLOBAL read_only = 1");
    let sent = ann.send(to_bob, "after the loss").unwrap();
    sent.wait(LONG_PATIENCE).expect("it is acknowledged");
    for (name, client, conv) in [("ann", &ann, to_bob), ("bob", &bob, from_ann)] {
        let (deadline, mut held, mut there) = (Instant::now() + LONG_PATIENCE, Vec::new(), vec![String::new()]);
        while held != there {
            assert!(Instant::now() < deadline, "{name} holds {held:#?}, and the new primary has {there:#?}");
            client.events().next_within(LOOK);
            held = client.after(conv, 0, 100_000).unwrap().iter().map(|message| text_of(message.content())).collect();
            there = messages(&pair, &database, 1).iter().map(|stored| message_in(stored)).collect();
        }
        assert_eq!(there.last().map(String::as_str), Some("after the loss"));
    }
}

const LOOK: Duration = Duration::from_millis(20);

/// The text of a message; something else for anything else.
fn text_of(content: Content) -> String {
    match content {
        Content::Text(text) => text,
        other => format!("{other:?}"),
    }
}

/// The text of a message as it is stored.
fn message_in(stored: &str) -> String {
    let frame: Value = serde_json::from_str(stored).expect("JSON");
    frame["msg"].as_str().unwrap_or(stored).to_owned()
}

/// The messages that a server has, as they are stored.
fn messages(pair: &Replicas, database: &Database, server: usize) -> Vec<String> {
    let query = format!("SELECT text FROM {}.Message ORDER BY seq", database.name());
    let found = pair.servers[server].connect().and_then(|mut connection| connection.query(query));
    found.expect("read messages")
}

#[test]
fn a_primary_that_is_demoted_answers_no_reads_any_more() {
    let pair = Replicas::start();
    let (database, redis) = (pair.create_database(), Redis::start());
    let builder = TestServer::builder().redis(&redis).file("mysql.cnf", pair.cnf(&database));
    let node = builder.option("admin", "127.0.0.1:0").start();
    let (mut ann, a) = user(&node, "ann");
    let search = json!({"msgType": 15, "keyword": a.to_string()});
    for (old, new) in [(0, 1), (1, 0)] {
        wait_until("reads are answered", || ann.ask(&search)["msgType"] == 15);
        pair.servers[old].run("SET GLOBAL read_only = 1");
        let (begin, mut last) = (Instant::now(), Instant::now());
        wait_until("reads are refused", || {
            let asked = Instant::now();
            let is_read = ann.ask(&search)["msgType"] == 15;
            if is_read {
                last = asked;
            }
            !is_read
        });
        println!("the last read of a demoted primary began {:.1?} after its demotion", last.duration_since(begin));
        pair.wait_caught_up(new, old);
        pair.promote(new);
        pair.follow(old, new);
    }
    wait_until("reads are answered again", || ann.ask(&search)["msgType"] == 15);
}

/// The test kit's part of an operator, which chaos relies on.
#[test]
fn a_killed_primary_that_has_more_than_its_replica_becomes_a_copy() {
    let mut pair = Replicas::start();
    let database = pair.create_database();
    let insert = |name: &str| format!("INSERT INTO {}.User (name, password) VALUES ('{name}', '')", database.name());
    // A primary that loses its replica goes on alone.
    pair.servers[1].run("STOP SLAVE IO_THREAD");
    pair.servers[0].run(&insert("lost"));
    pair.servers[0].kill();
    pair.promote(1);
    pair.servers[1].run(&insert("kept"));
    pair.servers[0].restart();
    pair.follow(0, 1);
    pair.wait_whole(1);
    pair.servers[1].run(&insert("new"));
    pair.wait_caught_up(0, 1);
    let query = format!("SELECT name FROM {}.User ORDER BY id", database.name());
    let names = pair.servers[0].connect().and_then(|mut copy| copy.query::<String, _>(query)).expect("read users");
    assert_eq!(names, ["kept", "new"]);
}
