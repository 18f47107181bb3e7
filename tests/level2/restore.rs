//! A database that is older than what its clients hold.

use std::fs;

use serde_json::json;

use crate::people::{pair, with};
use testkit::TestServer;
use testkit::level2::Level2Client;

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
