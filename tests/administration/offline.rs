//! `server admin --offline`: the database of a server that is not running.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use testkit::{
    Cluster, Database, LONG_PATIENCE, Redis, TestClient, TestServer, WRONG_PASSWORD, Workplace, login, offline_user,
    password, user, wait_until,
};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn lets_in(server: &TestServer, user: i64, password: &str) -> bool {
    let reply = TestClient::connect(server).ask(&json!({"msgType": 1, "USERID": user, "password": password}));
    assert!(reply["errno"] == 200 || reply["errno"] == 302, "{reply}");
    reply["errno"] == 200
}

fn stop(server: &mut TestServer) {
    server.terminate();
    server.wait_exit(LONG_PATIENCE);
}

/// A command line for the data in this folder.
fn line<'a>(data: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    [&["admin", "--offline", "--data", data], arguments].concat()
}

#[test]
fn users_and_groups_of_a_stopped_server_are_administered() {
    let mut server = TestServer::start();
    let (mut ann, a) = user(&server, "ann");
    let b = offline_user(&server, "bob");
    let group = ann.create_group(a, "team").to_string();
    let data = server.folder().display().to_string();
    let at = Workplace::empty();
    // A server that runs on the data would not notice the change.
    let refused = at.refused(&line(&data, &["users", "disable", &a.to_string(), "--yes"]));
    assert!(refused.contains("in use") && refused.contains("without --offline"), "{refused}");
    ann.barrier();
    drop(ann);
    stop(&mut server);

    let listed = parsed(&at.succeed(&line(&data, &["users", "list", "--json"])));
    assert_eq!(listed["users"].as_array().map(Vec::len), Some(2), "{listed}");
    let cat = parsed(&at.succeed(&line(&data, &["users", "create", "cat", "--json"])));
    let (c, of_cat) = (cat["id"].as_i64().expect("an id"), cat["password"].as_str().expect("a password"));
    assert!(at.refused(&line(&data, &["users", "delete", &b.to_string()])).contains("--yes"));
    at.succeed(&line(&data, &["users", "disable", &a.to_string(), "--yes"]));
    at.succeed(&line(&data, &["users", "password", &b.to_string(), "--password", "new-one", "--yes"]));
    assert!(at.succeed(&line(&data, &["users", "show", &a.to_string()])).contains("disabled: yes"));
    assert!(at.succeed(&line(&data, &["users", "find", "CAT"])).contains("cat"));
    at.succeed(&line(&data, &["groups", "dissolve", &group, "--yes"]));
    assert_eq!(at.succeed(&line(&data, &["groups", "list"])).trim(), "no groups");
    let gone = at.run(&line(&data, &["groups", "show", &group]));
    assert_eq!((gone.code, gone.stderr.contains("there is no such group")), (Some(1), true), "{}", gone.stderr);
    for of_a_node in [&["status"][..], &["drain"], &["connections"], &["announcements", "show"]] {
        assert!(at.refused(&line(&data, of_a_node)).contains("a server that runs"));
    }

    // The restarted server has all changes, and the log names their author.
    server.restart();
    assert!(!lets_in(&server, a, &password("ann")));
    assert!(lets_in(&server, b, "new-one") && !lets_in(&server, b, &password("bob")));
    assert!(lets_in(&server, c, of_cat));
    stop(&mut server);
    at.succeed(&line(&data, &["users", "enable", &a.to_string()]));
    at.succeed(&line(&data, &["users", "delete", &b.to_string(), "--yes"]));
    server.restart();
    login(&server, "ann", a).barrier();
    assert!(!lets_in(&server, b, "new-one"));
}

/// The database in this folder and the files beside it. The lock holds the number of a process.
fn files_of_database(folder: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let is_of_database = |name: &str| name.starts_with("raybox.db") && !name.ends_with(".lock");
    let entries = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_of_database));
    entries.map(|entry| (entry.file_name(), fs::read(entry.path()).expect("a file"))).collect()
}

#[test]
fn a_list_leaves_the_files_of_a_stopped_and_of_a_killed_server_as_they_are() {
    let mut server = TestServer::start();
    let at = Workplace::empty();
    let data = server.folder().display().to_string();
    let (mut ann, a) = user(&server, "ann");
    let group = ann.create_group(a, "team").to_string();
    drop(ann);
    for killed in [false, true] {
        if killed {
            server.kill9();
        } else {
            stop(&mut server);
        }
        let before = files_of_database(server.folder());
        let has_log = before.get(OsStr::new("raybox.db-wal")).is_some_and(|log| !log.is_empty());
        assert_eq!(has_log, killed, "a killed server leaves its log");
        assert!(at.succeed(&line(&data, &["users", "list"])).contains("ann"));
        assert_eq!(at.succeed(&line(&data, &["users", "list"])).contains("bob"), killed, "the log is read");
        assert!(at.succeed(&line(&data, &["users", "show", &a.to_string()])).contains("ann"));
        assert!(at.succeed(&line(&data, &["users", "find", "ANN"])).contains("ann"));
        assert!(at.succeed(&line(&data, &["groups", "list"])).contains("team"));
        assert!(at.succeed(&line(&data, &["groups", "show", &group])).contains("ann"), "its member");
        let after = files_of_database(server.folder());
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        assert!(before == after, "a file was changed");
        server.restart();
        offline_user(&server, if killed { "cat" } else { "bob" });
    }
    assert!(lets_in(&server, a, &password("ann")));
}

#[test]
fn commands_without_meaning_offline_are_refused() {
    let at = Workplace::empty();
    assert!(at.refused(&["admin", "--offline", "users", "list"]).contains("raybox.db is not there"));
    assert!(!at.path().join("raybox.db").exists(), "nothing is made");
    assert!(at.refused(&["admin", "--offline", "--address", "9600", "users", "list"]).contains("leave --address out"));
    assert!(at.refused(&["admin", "--force", "users", "list"]).contains("go with --offline"));
}

#[test]
fn a_database_that_servers_use_is_shown_and_not_changed() {
    let cluster = Cluster::start(2);
    let a = offline_user(&cluster.nodes[0], "ann").to_string();
    let at = Workplace::on(&cluster.database);
    cluster.redis.write_cnf(at.path());
    assert!(at.succeed(&["admin", "--offline", "users", "list"]).contains("ann"));
    let disable = ["admin", "--offline", "users", "disable", &a, "--yes"];
    let refused = at.refused(&disable);
    assert!(refused.contains("servers that use this database: 2") && refused.contains("--force"), "{refused}");
    assert!(lets_in(&cluster.nodes[1], a.parse().expect("an id"), &password("ann")));
    let Cluster { nodes, database, redis: _redis, .. } = cluster;
    drop(nodes);
    database.leave();
    // The database notices a moment later that the servers' connections have ended.
    wait_until("nobody uses the database", || at.run(&disable).code == Some(0));
}

#[test]
fn nodes_that_redis_does_not_know_are_noticed_by_their_connections_to_the_database() {
    let (database, redis) = (Database::create(), Redis::start());
    let server = TestServer::builder().mysql(&database).start();
    let a = offline_user(&server, "ann").to_string();
    let at = Workplace::on(&database);
    redis.write_cnf(at.path());
    database.leave();
    let disable = ["admin", "--offline", "users", "disable", &a, "--yes"];
    let refused = at.refused(&disable);
    assert!(refused.contains("other connections") && refused.contains("--force"), "{refused}");
    assert!(lets_in(&server, a.parse().expect("an id"), &password("ann")));
    drop(server);
    database.leave();
    wait_until("nobody uses the database", || at.run(&disable).code == Some(0));
}

#[test]
fn without_redis_the_connections_to_the_database_tell_that_a_server_uses_it() {
    let database = Database::create();
    let server = TestServer::builder().mysql(&database).start();
    let a = offline_user(&server, "ann");
    let at = Workplace::on(&database);
    let name = a.to_string();
    let disable = ["admin", "--offline", "users", "disable", &name, "--yes"];
    let refused = at.refused(&disable);
    assert!(refused.contains("other connections"), "{refused}");
    // With `--force` the change is made, and the running server notices it by itself.
    at.succeed(&[&disable[..], &["--force"]].concat());
    let mut client = TestClient::connect(&server);
    client.send(&json!({"msgType": 1, "USERID": a, "password": password("ann")}));
    client.expect_text(WRONG_PASSWORD);
    assert!(at.succeed(&["admin", "--offline", "users", "show", &name]).contains("disabled: yes"));
}
