//! A primary and its replica: the roles are changed, the primary dies, and the old one comes back.

use std::time::Duration;

use mysql::prelude::Queryable as _;
use raybox_client::Content;
use testkit::{Database, LONG_PATIENCE, Redis, Replicas, TestServer, Workplace, wait_until, wait_within};

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
    wait_within(LONG_PATIENCE, "both hold what the new primary has, and no more", || {
        let there = messages(&pair, &database, 1);
        [(&ann, to_bob), (&bob, from_ann)].iter().all(|(client, conv)| {
            client.events().next_within(Duration::ZERO);
            let held = client.after(*conv, 0, 100_000).unwrap();
            let is_last = |text| matches!(text, Content::Text(text) if text == "after the loss");
            held.len() == there.len() && held.last().is_some_and(|last| is_last(last.content()))
        })
    });
}

/// The texts of the messages that a server has.
fn messages(pair: &Replicas, database: &Database, server: usize) -> Vec<String> {
    let query = format!("SELECT text FROM {}.Message ORDER BY seq", database.name());
    let found = pair.servers[server].connect().and_then(|mut connection| connection.query(query));
    found.expect("read messages")
}
