//! Passwords and the texts of messages are never logged, whatever fails and at any level.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use testkit::{
    BAD_REQUEST, Cluster, Database, LONG_PATIENCE, MariaDb, NOBODY, Redis, TestClient, TestServer, WRONG_PASSWORD,
};
use testkit::{chat, wait_until};

const PASSWORD: &str = "pw-9f3a71d2";
const TEXT: &str = "txt-5c1be207";

/// All requests that a client can send, valid and invalid, with recognisable passwords and texts.
/// The user `to` is online elsewhere; `away` is offline.
fn requests(own: i64, to: i64, away: i64, group: i64) -> Vec<Value> {
    let wrong = format!("{PASSWORD} wrong");
    vec![
        json!({"msgType": 2, "name": "taken", "password": PASSWORD}),
        json!({"msgType": 2, "name": "", "password": PASSWORD}),
        json!({"msgType": 2, "name": "long", "password": PASSWORD.repeat(10)}),
        json!({"msgType": 1, "USERID": own, "password": wrong}),
        json!({"msgType": 1, "USERID": NOBODY, "password": PASSWORD}),
        json!({"msgType": 1, "USERID": PASSWORD, "password": PASSWORD}),
        json!({"msgType": 1, "USERID": own, "password": [PASSWORD]}),
        json!({"msgType": 3, "USERID": TEXT}),
        chat(own, to, TEXT),
        chat(own, away, TEXT),
        chat(own, NOBODY, TEXT),
        chat(to, away, TEXT),
        json!({"msgType": 4, "FROMID": own, "TOID": TEXT, "msg": TEXT}),
        json!({"msgType": 100, "FROMID": own, "TOID": to, "msg": TEXT}),
        json!({"msgType": 5, "FROMID": own, "TOID": away, "msg": TEXT}),
        json!({"msgType": 6, "U1": own, "U2": TEXT}),
        json!({"msgType": 7, "FROMID": own, "TOID": TEXT}),
        json!({"msgType": 8, "FROMID": own, "msg": TEXT}),
        json!({"msgType": 9, "FROMID": own, "GROUPID": group, "msg": TEXT}),
        json!({"msgType": 9, "FROMID": own, "GROUPID": NOBODY, "msg": TEXT}),
        json!({"msgType": 10, "FROMID": own, "GROUPID": NOBODY, "msg": TEXT}),
        json!({"msgType": 11, "FROMID": own, "msg": TEXT}),
        json!({"msgType": 12, "FROMID": own, "name": TEXT.repeat(20), "description": TEXT}),
        json!({"msgType": 13, "name": TEXT}),
        json!({"msgType": 14, "FROMID": own, "msg": TEXT}),
        json!({"msgType": 15, "keyword": TEXT}),
        json!({"msgType": TEXT, "msg": TEXT}),
    ]
}

/// Sends all these requests from a client, and invalid input as well.
fn send_everything(client: &mut TestClient, own: i64, to: i64, away: i64, group: i64) {
    client.set_patience(LONG_PATIENCE);
    client.send(&json!({"msgType": 77, "msg": TEXT}));
    recv_up_to_no_method(client);
    for request in requests(own, to, away, group) {
        client.send(&request);
    }
    client.send_raw(format!(r#"{{"msgType":1,"USERID":{own},"password":"{PASSWORD}",}}"#).as_bytes());
    client.send_raw(format!("{TEXT}\n").as_bytes());
    client.send_raw(format!("{{\"msgType\":4,\"msg\":\"{TEXT}\u{1}\"}}").as_bytes());
    client.send(&json!({"msgType": 404}));
    recv_up_to_no_method(client);
}

/// Reads up to the reply to the unknown request; the replies before it may be anything.
fn recv_up_to_no_method(client: &mut TestClient) {
    while client.recv()["msgType"] != 404 {}
}

/// Checks that none of these texts is in the server's output, logs or metrics.
fn assert_silent(server: &TestServer, secrets: &[&str]) {
    let written = [server.logs(), server.output(), server.metrics()];
    assert!(written[0].lines().count() > 10, "a trace of all this must leave something");
    for secret in [PASSWORD, TEXT].iter().chain(secrets) {
        let line = written.iter().flat_map(|text| text.lines()).find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}

#[test]
fn a_node_of_a_cluster_tells_no_secrets_whatever_fails() {
    let (mut mariadb, redis) = (MariaDb::start(), Redis::start());
    let database = mariadb.create_database();
    let cluster = Cluster::start_on(database, redis, 2, |builder| {
        builder.option("log_level", "trace").option("admin", "0").option("login_failures", "3")
    });
    let [one, two] = &cluster.nodes[..] else { panic!("two nodes") };
    let mut ann = TestClient::connect(one);
    let a = ann.register("taken", PASSWORD);
    ann.login(a, PASSWORD);
    let mut bob = TestClient::connect(two);
    let b = bob.register("bob", PASSWORD);
    bob.login(b, PASSWORD);
    let c = TestClient::connect(one).register("carol", PASSWORD);
    let group = ann.create_group(a, "group");
    bob.join_group(b, group);
    send_everything(&mut ann, a, b, c, group);
    // This text is too long.
    let mut long = TestClient::connect(one);
    long.try_send_raw(format!(r#"{{"msgType":4,"msg":"{TEXT}{}"#, "x".repeat(70_000)).as_bytes());
    long.expect_refusal(413);
    // The database refuses the text, and its error quotes it.
    cluster.database.run("ALTER TABLE OfflineMessage MODIFY message text CHARACTER SET utf8mb3");
    ann.send(&chat(a, c, &format!("\u{1f511}{TEXT}")));
    ann.send(&json!({"msgType": 404}));
    recv_up_to_no_method(&mut ann);
    wait_until("the log tells of the refusal", || one.logs().contains("1366"));
    assert!(!one.logs().contains("xF0"), "and of the text not even the first letter");
    // The database is down.
    mariadb.kill();
    send_everything(&mut ann, a, b, c, group);
    for server in &cluster.nodes {
        assert_silent(server, &[cluster.database.password()]);
    }
}

#[test]
fn the_embedded_server_tells_no_secrets() {
    let server = TestServer::builder().option("log_level", "trace").option("admin", "0").start();
    let mut ann = TestClient::connect(&server);
    let a = ann.register("taken", PASSWORD);
    ann.login(a, PASSWORD);
    let mut bob = TestClient::connect(&server);
    let b = bob.register("bob", PASSWORD);
    bob.login(b, PASSWORD);
    let c = TestClient::connect(&server).register("carol", PASSWORD);
    let group = ann.create_group(a, "group");
    bob.join_group(b, group);
    send_everything(&mut ann, a, b, c, group);
    // Tables that only the server needs are dropped.
    server.run_sql("DROP TABLE OfflineMessage; DROP TABLE Friend");
    send_everything(&mut ann, a, b, c, group);
    ann.send(&json!({"msgType": 1, "USERID": a}));
    ann.expect_text(BAD_REQUEST);
    ann.send(&json!({"msgType": 1, "USERID": c, "password": format!("{PASSWORD} wrong")}));
    ann.expect_text(WRONG_PASSWORD);
    assert_silent(&server, &[]);
    // The secret is in no file of the folder except the database, which contains the messages.
    for entry in fs::read_dir(server.folder()).expect("list the folder") {
        let path = entry.expect("an entry").path();
        let is_database = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("raybox.db"));
        if path.is_file() {
            let bytes = fs::read(&path).expect("read a file");
            let found = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(!found(PASSWORD) && (is_database || !found(TEXT)), "{}", path.display());
        }
    }
}

#[test]
fn files_that_others_could_read_are_warned_of() {
    let database = Database::create();
    let mut server = TestServer::builder().mysql(&database).option("admin", "0").start();
    let warnings = |server: &TestServer, text: &str| {
        server.logs().lines().filter(|line| line.contains("WARN") && line.contains(text)).count()
    };
    let readable = "mysql.cnf contains a password and every user of this machine can read it";
    // The log is complete after the server has exited.
    let mut warned = |mode| {
        fs::set_permissions(server.folder().join("mysql.cnf"), Permissions::from_mode(mode)).expect("change the mode");
        server.restart();
        TestClient::connect(&server).ack_barrier();
        server.terminate();
        assert!(server.wait_exit(LONG_PATIENCE).success());
        warnings(&server, readable)
    };
    let before = warned(0o640);
    assert_eq!((warned(0o640), warned(0o644)), (before, before + 1));
    assert_eq!(warnings(&server, "firewall"), 0, "this machine may ask");
    let server = TestServer::builder().option("admin", "0.0.0.0:0").start();
    wait_until("the log says so", || warnings(&server, "firewall") == 1);
}
