//! A database that is older than what its clients hold.

use std::fs;

use serde_json::json;

use crate::people::{pair, with};
use testkit::level2::{Level2Client, assert_agree};
use testkit::{Cluster, Database, TestServer, offline_user};

/// Ends a server in order, so that its database is one file.
fn stop(server: &mut TestServer) {
    server.terminate();
    assert!(server.wait_exit(testkit::LONG_PATIENCE).success());
}

#[test]
fn a_client_notices_that_the_database_has_lost_its_tail() {
    let mut server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    let notes = with(&ann);
    for n in 1..=5 {
        ann.say(&to_bob, &n.to_string());
    }
    ann.say(&notes, "as it was");
    bob.until_at(&to_ann, 5);
    let (ann, bob) = (ann.leave(), bob.leave());
    stop(&mut server);
    let files = ["raybox.db", "raybox.db-wal", "raybox.db-shm"].map(|name| server.folder().join(name));
    let saved: Vec<Option<Vec<u8>>> = files.iter().map(|file| fs::read(file).ok()).collect();
    server.restart();
    // What is said now will be lost.
    let mut ann = Level2Client::resume(&server, "ann", "a1", ann);
    let mut bob = Level2Client::resume(&server, "bob", "b1", bob);
    let lost: Vec<_> = (6..=8).map(|n| ann.send(&to_bob, &format!("lost {n}"))).collect();
    ann.settle();
    bob.until_at(&to_ann, 8);
    let (mut ann, mut bob) = (ann.leave(), bob.leave());
    stop(&mut server);
    for (file, saved) in files.iter().zip(&saved) {
        match saved {
            Some(bytes) => fs::write(file, bytes).expect("restore a file"),
            None => drop(fs::remove_file(file)),
        }
    }
    server.restart();
    // Ann's cursor is beyond the head; she sends her messages again, and others come before them.
    (ann.allowed.resets, bob.allowed.resets) = (true, true);
    let frames: Vec<String> = (6..=8).map(|seq| ann.logs[&to_bob].messages[&seq].m.0.clone()).collect();
    let mut ann = Level2Client::resume(&server, "ann", "a1", ann);
    let reset = ann.take("the 44", |frame| frame["msgType"] == 44);
    assert_eq!((&reset["conv"], &reset["reset"], &reset["to"]), (&json!(to_bob), &json!(true), &json!(5)), "{reset}");
    assert_eq!(ann.store.texts(&to_bob), ["1", "2", "3", "4", "5"]);
    assert_eq!(ann.store.texts(&notes), ["as it was"]);
    assert_eq!(ann.say(&to_bob, "another 6"), 6);
    frames.iter().for_each(|frame| ann.send_text(frame));
    ann.settle();
    assert_eq!(lost.iter().map(|cid| ann.number(cid)).collect::<Vec<_>>(), [7, 8, 9]);
    // Bob's cursor is 8, which is another message now.
    let mut bob = Level2Client::resume(&server, "bob", "b1", bob);
    let reset = bob.take("the 44", |frame| frame["msgType"] == 44);
    assert_eq!((&reset["reset"], &reset["from"], &reset["to"]), (&json!(true), &json!(1), &json!(9)), "{reset}");
    let expected = ["1", "2", "3", "4", "5", "another 6", "lost 6", "lost 7", "lost 8"];
    assert_eq!(bob.store.texts(&to_ann), expected);
    assert_eq!(ann.store.texts(&to_bob), expected);
}

/// Notes what a replica has that will be behind.
fn save(database: &Database) {
    database.run(
        "CREATE TABLE SavedConversation AS SELECT * FROM Conversation; CREATE TABLE SavedMember AS SELECT * FROM Member",
    );
}

/// The database falls back to what was saved: later messages were never there. It forgets no login.
fn fall_back(database: &Database) {
    database.run(
        "START TRANSACTION;
         DELETE m FROM Message m LEFT JOIN SavedConversation s ON s.id = m.conv WHERE m.seq > COALESCE(s.head, 0);
         DELETE FROM Conversation;
         INSERT INTO Conversation SELECT * FROM SavedConversation;
         DELETE FROM Member;
         INSERT INTO Member SELECT * FROM SavedMember;
         COMMIT",
    );
}

/// Devices are connected on these servers while the database loses messages. Nobody connects again.
fn lose_messages_under_connections(one: &TestServer, two: &TestServer, database: &Database) {
    let (a, b) = (offline_user(one, "ann"), offline_user(one, "bob"));
    let mut ann = Level2Client::enter(one, "ann", a, "a1");
    let mut tablet = Level2Client::enter(two, "ann", a, "a2");
    let mut bob = Level2Client::enter(two, "bob", b, "b1");
    let (to_bob, to_ann, notes) = (with(&bob), with(&ann), with(&ann));
    for n in 1..=5 {
        ann.say(&to_bob, &n.to_string());
    }
    ann.say(&notes, "as it was");
    tablet.until_at(&notes, 1);
    for (client, conv) in [(&mut bob, &to_ann), (&mut tablet, &to_bob)] {
        client.until_at(conv, 5);
    }
    save(database);
    for n in 6..=8 {
        ann.say(&to_bob, &format!("lost {n}"));
    }
    for (client, conv) in [(&mut bob, &to_ann), (&mut tablet, &to_bob)] {
        client.until_at(conv, 8);
    }
    fall_back(database);
    for client in [&mut ann, &mut tablet, &mut bob] {
        (client.store.allowed.resets, client.store.allowed.fails_over) = (true, true);
        client.clear_inbox();
    }
    // It gets a number that is lost, below that which everybody was shown last.
    bob.send(&to_ann, "another 6");
    for (client, conv) in [(&mut ann, &to_bob), (&mut tablet, &to_bob), (&mut bob, &to_ann)] {
        let reset = client.take("the reset", |frame| frame["msgType"] == 44);
        assert_eq!((&reset["conv"], &reset["reset"], &reset["to"]), (&json!(conv), &json!(true), &json!(6)), "{reset}");
        client.until_at(conv, 6);
        assert_eq!(client.store.texts(conv), ["1", "2", "3", "4", "5", "another 6"]);
    }
    // Everything goes on, and what has lost nothing was not touched.
    ann.send(&to_bob, "7");
    ann.send(&notes, "as it is");
    ann.settle();
    bob.settle();
    for (client, conv) in [(&mut ann, &to_bob), (&mut tablet, &to_bob), (&mut bob, &to_ann)] {
        client.until_at(conv, 7);
    }
    tablet.until_at(&notes, 2);
    assert_eq!(tablet.store.texts(&notes), ["as it was", "as it is"]);
    assert_agree(&ann.store, &to_bob, &bob.store, &to_ann);
    assert_agree(&tablet.store, &to_bob, &bob.store, &to_ann);
    for client in [&mut ann, &mut tablet, &mut bob] {
        assert!(client.inbox().all(|frame| frame["msgType"] != 44), "nobody is told twice");
    }
}

#[test]
fn devices_that_stay_connected_notice_that_the_database_has_lost_messages() {
    let database = Database::create();
    let server = TestServer::builder().mysql(&database).start();
    lose_messages_under_connections(&server, &server, &database);
}

#[test]
fn so_do_devices_on_several_nodes() {
    let cluster = Cluster::start(2);
    lose_messages_under_connections(&cluster.nodes[0], &cluster.nodes[1], &cluster.database);
}
