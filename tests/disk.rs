//! The disk of the data folder is full, or its files are deleted: acknowledged messages are still
//! there, and `/readyz` reports the problem.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use testkit::{LONG_PATIENCE, TestClient, TestServer};
use testkit::{
    limit_files, login, number_of, numbered, numbered_with_text, offline_user, output_within, user, wait_within,
};

/// Sends one message. Returns whether it was acknowledged.
fn is_taken(sender: &mut TestClient, frame: &serde_json::Value) -> bool {
    sender.send(frame);
    sender.send(&json!({"msgType": 200}));
    let reply = sender.recv();
    if reply["errno"] == 200 {
        return true;
    }
    assert_eq!(reply["errno"], 503);
    assert_eq!(sender.recv()["errno"], 200);
    false
}

#[test]
fn a_full_disk_turns_readyz_red_loses_nothing_and_ends_by_itself() {
    let server = TestServer::builder().option("admin", "127.0.0.1:0").start();
    let (mut ann, a) = user(&server, "ann");
    let b = offline_user(&server, "bob");
    let mut accepted = Vec::new();
    let mut send = |ann: &mut TestClient, n| {
        let is_taken = is_taken(ann, &numbered_with_text(a, b, n, 10_000));
        accepted.extend(is_taken.then_some(n));
        is_taken
    };
    wait_within(LONG_PATIENCE, "it is ready", || server.is_ready());
    limit_files(&server, "400000");
    let mut n = 0;
    while send(&mut ann, n) {
        n += 1;
        assert!(n < 1000, "the limit does nothing");
    }
    wait_within(LONG_PATIENCE, "it is not ready", || !server.is_ready());
    assert!(!send(&mut ann, n + 1));
    // `/readyz` stays red without traffic, and recovers without traffic.
    assert!(!server.is_ready());
    limit_files(&server, "unlimited");
    wait_within(LONG_PATIENCE, "it is ready again", || server.is_ready());
    assert!(send(&mut ann, n + 2));
    let got: Vec<usize> = login(&server, "bob", b).fetch_all(b).iter().map(number_of).collect();
    assert_eq!(got, accepted);
}

/// The error of a server that does not start in this folder.
fn refused_in(folder: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["127.0.0.1", "0", "--log-dir", "logs"]).current_dir(folder);
    let ended = output_within(LONG_PATIENCE, &mut command).expect("run the server");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(2), "{said}");
    said
}

#[test]
fn a_database_that_is_replaced_under_the_server_ends_it_and_everything_is_saved() {
    let builder = TestServer::builder().option("admin", "127.0.0.1:0").option("drain_timeout", "2s");
    let mut server = builder.option("output_max", "64m").start();
    server.expect_exit();
    let (mut ann, a) = user(&server, "ann");
    let b = offline_user(&server, "bob");
    // More than the sockets hold, so most of it is in the server's memory.
    let (carol, c) = user(&server, "carol");
    for n in 0..300 {
        ann.send(&numbered_with_text(a, c, n, 50_000));
    }
    ann.ack_barrier();
    let stored = 20;
    for n in 0..stored {
        ann.send(&numbered(a, b, n));
    }
    ann.ack_barrier();
    let database = server.folder().join("raybox.db");
    fs::write(server.folder().join("other"), "").expect("a file");
    fs::rename(server.folder().join("other"), &database).expect("replace the database");
    assert_eq!(server.wait_exit(LONG_PATIENCE).code(), Some(1));
    drop(carol);
    let logs = server.logs();
    for part in ["raybox.db was replaced by another file", "raybox.db.rescued: rename "] {
        assert!(logs.contains(part), "{part} is not in {logs}");
    }
    let says = || server.output().contains("a database file was moved, replaced or deleted");
    wait_within(LONG_PATIENCE, "it says why it has ended", says);
    let said = refused_in(server.folder());
    assert!(said.contains("raybox.db.rescued holds what the last server had stored"), "{said}");
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(server.folder().join(format!("raybox.db{suffix}")));
    }
    fs::rename(server.folder().join("raybox.db.rescued"), &database).expect("put the saved one in its place");
    server.restart();
    let fetched = |name, id| -> Vec<usize> {
        let mut client = login(&server, name, id);
        client.set_patience(LONG_PATIENCE);
        client.fetch_all(id).iter().map(number_of).collect()
    };
    assert_eq!(fetched("bob", b), (0..stored).collect::<Vec<_>>());
    // The first messages are in the sockets of a client that never read, so they are not stored.
    let came_back = fetched("carol", c);
    let first = came_back.first().copied().unwrap_or(300);
    println!("{} of 300 came back from the connection and were saved", came_back.len());
    assert!(first < 300 && came_back == (first..300).collect::<Vec<_>>(), "{came_back:?}");
}

#[test]
fn a_start_on_a_full_disk_lets_everything_be_read_and_ends_by_itself() {
    // The limit is less than the index of a log. It applies to all starts but the first.
    let limit = "[ ! -e raybox.db ] || ulimit -S -f 30";
    let mut server = TestServer::builder().option("admin", "127.0.0.1:0").after(limit).start();
    let (mut ann, a) = user(&server, "ann");
    let b = offline_user(&server, "bob");
    let mut accepted = vec![0];
    assert!(is_taken(&mut ann, &numbered(a, b, 0)));
    drop(ann);
    server.terminate();
    assert!(server.wait_exit(LONG_PATIENCE).success());
    // The first round follows a graceful shutdown; the second one finds a log left behind.
    for round in 1..=2 {
        server.restart();
        let says = || server.logs().matches("stored data can be read, but nothing can be stored").count() == round;
        wait_within(LONG_PATIENCE, "it says so", says);
        let mut ann = login(&server, "ann", a);
        assert!(!is_taken(&mut ann, &numbered(a, b, 10 * round)), "nothing is stored");
        assert!(!server.is_ready());
        limit_files(&server, "unlimited");
        wait_within(LONG_PATIENCE, "it is ready", || server.is_ready());
        assert!(is_taken(&mut ann, &numbered(a, b, round)));
        accepted.push(round);
        server.wait_state(a, "online");
        server.kill9();
    }
    server.restart();
    limit_files(&server, "unlimited");
    wait_within(LONG_PATIENCE, "it is ready", || server.is_ready());
    let got: Vec<usize> = login(&server, "bob", b).fetch_all(b).iter().map(number_of).collect();
    assert_eq!(got, accepted);
}

#[test]
fn a_server_whose_database_is_moved_from_a_full_disk_exits_and_makes_no_new_one() {
    let limit = "[ ! -e raybox.db ] || ulimit -S -f 30";
    let mut server = TestServer::builder().after(limit).start();
    let (mut ann, a) = user(&server, "ann");
    let b = offline_user(&server, "bob");
    assert!(is_taken(&mut ann, &numbered(a, b, 0)));
    drop(ann);
    server.terminate();
    assert!(server.wait_exit(LONG_PATIENCE).success());
    server.restart();
    server.expect_exit();
    wait_within(LONG_PATIENCE, "it says so", || {
        server.logs().contains("nothing can be stored until the disk has room")
    });
    let (database, moved) = (server.folder().join("raybox.db"), server.folder().join("moved"));
    fs::rename(&database, &moved).expect("move the database");
    // Now the disk has room, and an attempt to store would make an empty database.
    limit_files(&server, "unlimited");
    assert_eq!(server.wait_exit(LONG_PATIENCE).code(), Some(1));
    assert!(server.logs().contains("raybox.db was moved, replaced or deleted"), "{}", server.logs());
    assert!(!database.exists(), "nothing stands in the place of what was moved");
    assert!(fs::metadata(&moved).expect("it is still there").len() > 0);
}
