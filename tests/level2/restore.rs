//! A database that is older than the data of its clients.

use std::fs;

use serde_json::json;

use crate::people::{pair, with};
use testkit::level2::{Level2Client, assert_agree};
use testkit::{Cluster, Database, TestServer, offline_user};

/// Shuts a server down gracefully, so that its database is one file.
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
    // The following messages will be lost.
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
    // Ann's cursor is beyond the head. She sends the lost messages again, after another new
    // message.
    ann.lose_above(&to_bob, 5);
    bob.lose_above(&to_ann, 5);
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
    // Bob's cursor is 8, which belongs to another message now.
    let mut bob = Level2Client::resume(&server, "bob", "b1", bob);
    let reset = bob.take("the 44", |frame| frame["msgType"] == 44);
    assert_eq!((&reset["reset"], &reset["from"], &reset["to"]), (&json!(true), &json!(1), &json!(9)), "{reset}");
    let expected = ["1", "2", "3", "4", "5", "another 6", "lost 6", "lost 7", "lost 8"];
    assert_eq!(bob.store.texts(&to_ann), expected);
    assert_eq!(ann.store.texts(&to_bob), expected);
}

/// Saves the state of a replica that is going to lag behind.
fn save(database: &Database) {
    database.run(
        "CREATE TABLE SavedConversation AS SELECT * FROM Conversation; CREATE TABLE SavedMember AS SELECT * FROM Member",
    );
}

/// Makes the database fall back to the saved state, without the later messages. Logins are not
/// forgotten.
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

/// Makes the database lose messages while devices are connected to these servers. No device
/// reconnects.
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
    bob.ask_for(200, json!({"msgType": 49, "conv": to_ann, "read": 8}));
    for client in [&mut ann, &mut tablet] {
        client.take("the partner's mark", |frame| frame["msgType"] == 50 && frame["read"] == 8);
    }
    fall_back(database);
    for (client, conv) in [(&mut ann, &to_bob), (&mut tablet, &to_bob), (&mut bob, &to_ann)] {
        client.store.lose_above(conv, 5);
        client.clear_inbox();
    }
    // This message gets a lost number, lower than the last number that every device has been shown.
    bob.send(&to_ann, "another 6");
    for (client, conv) in [(&mut ann, &to_bob), (&mut tablet, &to_bob), (&mut bob, &to_ann)] {
        let reset = client.take("the reset", |frame| frame["msgType"] == 44);
        assert_eq!((&reset["conv"], &reset["reset"], &reset["to"]), (&json!(conv), &json!(true), &json!(6)), "{reset}");
        client.until_at(conv, 6);
        assert_eq!(client.store.texts(conv), ["1", "2", "3", "4", "5", "another 6"]);
        // The marks are lost as well. Bob's mark follows his own message.
        let own = client.take("the own mark", |frame| frame["msgType"] == 49);
        let partners = client.take("the partner's marks", |frame| frame["msgType"] == 50);
        let (read, unread, partner_read) = if conv == &to_ann { (6, 0, 5) } else { (5, 1, 6) };
        let told = (&own["read"], &own["unread"], &own["head"], &partners["read"]);
        assert_eq!(told, (&json!(read), &json!(unread), &json!(6), &json!(partner_read)), "{own} {partners}");
    }
    // Everything goes on. A conversation that has lost nothing is not reset.
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
fn devices_on_several_nodes_notice_that_the_database_has_lost_messages() {
    let cluster = Cluster::start(2);
    lose_messages_under_connections(&cluster.nodes[0], &cluster.nodes[1], &cluster.database);
}
