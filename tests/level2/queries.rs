//! The number of queries of a login.

use serde_json::{Map, Value, json};

use testkit::level2::Level2Client;
use testkit::{LONG_PATIENCE, MariaDb, TestClient, TestServer, offline_user, password, wait_within};

/// The number of reads of a login until its client is synchronised.
fn statements(server: &TestServer, status: &impl Fn() -> u64, login: &Value) -> u64 {
    let mut client = TestClient::connect(server);
    let before = status();
    client.send(login);
    while client.recv()["msgType"] != 45 {}
    status() - before
}

#[test]
fn a_login_asks_as_often_with_five_hundred_conversations_as_with_five() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let server = TestServer::builder().mysql(&database).option("account_check", "0").start();
    let (a, b) = (offline_user(&server, "ann"), offline_user(&server, "bob"));
    let others = "INSERT INTO User (id, name, password) SELECT 1000 + seq, CONCAT('u', seq), 'x' FROM seq_1_to_500";
    server.run_sql(others);
    for (name, id, count) in [("ann", a, 5), ("bob", b, 500)] {
        let mut client = Level2Client::enter(&server, name, id, "first");
        let frames: Vec<_> = (1..=count).map(|n| client.message(&format!("u{}", 1000 + n))).collect();
        for some in frames.chunks(100) {
            client.send_many(some);
            client.settle();
        }
    }
    // The reads are counted, because updates of `User.state` come at any time. The server's checks
    // read as well, so the fewest reads of several attempts count.
    let status = || database.status("Com_select");
    let compare = |what: &str, have: [Value; 2], more: u64| {
        let logins = [("ann", a), ("bob", b)].into_iter().zip(have).map(|((name, id), have)| {
            json!({"msgType": 1, "USERID": id, "password": password(name), "level": 2, "device": "d", "have": have})
        });
        let logins: Vec<Value> = logins.collect();
        let mut fewest = [u64::MAX; 2];
        wait_within(LONG_PATIENCE, what, || {
            for (fewest, login) in fewest.iter_mut().zip(&logins) {
                *fewest = statements(&server, &status, login).min(*fewest);
            }
            fewest[1] == fewest[0] + more
        });
        println!("reads of {what} with 5 and 500 conversations: {fewest:?}");
        assert!(fewest[0] < 20, "{fewest:?}");
    };
    // A 43 has at most 200 conversations, and each 43 reads its last messages separately.
    compare("a first login", [json!({}), json!({})], 2);
    let held = [("ann", a), ("bob", b)].map(|(name, id)| cursors(&server, name, id));
    compare("a login with a cursor in each", held, 0);
}

/// The cursors of a client that has everything.
fn cursors(server: &TestServer, name: &str, id: i64) -> Value {
    let mut client = TestClient::connect(server);
    client.send(&json!({"msgType": 1, "USERID": id, "password": password(name), "level": 2, "device": "d"}));
    let mut have = Map::new();
    loop {
        let frame = client.recv();
        for line in frame["convs"].as_array().into_iter().flatten() {
            let name = line["conv"].as_str().expect("a name").to_owned();
            let tag = line["tag"].as_str().expect("a tag");
            have.insert(name, json!(format!("{}:{tag}", line["head"])));
        }
        if frame["msgType"] == 45 {
            return Value::Object(have);
        }
    }
}

#[test]
fn the_members_of_many_groups_are_read_together() {
    const GROUPS: i64 = 200;
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let server = TestServer::builder().mysql(&database).option("account_check", "0").start();
    let a = offline_user(&server, "ann");
    let mut ann = Level2Client::enter(&server, "ann", a, "phone");
    let status = || database.status("Com_select");
    // The server's checks read as well, so the fewest reads of several attempts count.
    let (mut first, mut fewest) = (1000, u64::MAX);
    wait_within(LONG_PATIENCE, "the groups of a batch are read at once", || {
        server.run_sql(&format!(
            "INSERT INTO AllGroup (id, groupname, groupdesc) SELECT {first} + seq, 'g', '' FROM seq_1_to_{GROUPS};
             INSERT INTO GroupUser (groupid, userid, grouprole) SELECT {first} + seq, {a}, 'creator' FROM seq_1_to_{GROUPS};"
        ));
        let mut reads = || {
            let frames: Vec<Value> = (1..=GROUPS).map(|n| ann.message(&format!("g{}", first + n))).collect();
            let before = status();
            ann.send_many(&frames);
            ann.settle();
            status() - before
        };
        let (unknown, known) = (reads(), reads());
        first += GROUPS;
        fewest = unknown.saturating_sub(known).min(fewest);
        // One read for each group would be this many. The sends come in several batches, each with
        // reads of its own.
        fewest < GROUPS as u64
    });
    println!("reads more for {GROUPS} groups that are not cached: {fewest}");
}
