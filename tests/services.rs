//! Tests of the testkit itself: databases, Redis and nginx start, fail and restart as the other
//! suites expect.

use std::env;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::json;
use testkit::{Database, Footprint, LONG_PATIENCE, Lines, Margin, MariaDb, Neighbour, Nginx, PATIENCE, Redis};
use testkit::{
    TestClient, TestServer, accept_within, chat, exit_within, output_within, rest_within, signal, wait_given_back,
    wait_until,
};

#[test]
fn databases_are_apart_and_go_with_their_last_owner() {
    let (one, other) = (Database::create_reference(), Database::create_reference());
    one.run("INSERT INTO User (name, password) VALUES ('ann', 'x'), ('bob', 'y')");
    assert_eq!((one.count("SELECT count(*) FROM User"), other.count("SELECT count(*) FROM User")), (2, 0));
    assert_eq!((one.state_of(1).as_deref(), one.state_of(3)), (Some("offline"), None));
    let query = format!("SELECT count(*) FROM information_schema.schemata WHERE schema_name = '{}'", one.name());
    let clone = one.clone();
    drop(one);
    assert_eq!(other.count(&query), 1, "somebody still has it");
    drop(clone);
    assert_eq!(other.count(&query), 0);
}

#[test]
fn a_mariadb_survives_a_kill_with_all_it_has_committed() {
    let mut mariadb = MariaDb::start();
    let database = mariadb.create_reference();
    for n in 0..20 {
        database.run(&format!("INSERT INTO OfflineMessage VALUES (1, 'number {n}')"));
    }
    mariadb.kill();
    mariadb.restart();
    assert_eq!(database.count("SELECT count(*) FROM OfflineMessage"), 20);
    assert!(database.status("Com_select") > 0);
}

#[test]
fn a_redis_is_empty_after_a_kill_and_goes_on_after_a_stop() {
    let mut redis = Redis::start();
    let mut connection = redis.connect();
    let _: () = redis::cmd("SET").arg("key").arg("value").query(&mut connection).expect("set");
    redis.stop();
    thread::scope(|scope| {
        let answer = scope.spawn(|| redis::cmd("GET").arg("key").query::<String>(&mut connection));
        redis.cont();
        assert_eq!(answer.join().expect("the client").expect("an answer"), "value");
    });
    let address = redis.address();
    redis.kill();
    assert!(redis::cmd("GET").arg("key").query::<String>(&mut connection).is_err());
    redis.restart();
    assert_eq!(redis.address(), address);
    let left: usize = redis::cmd("DBSIZE").query(&mut redis.connect()).expect("dbsize");
    assert_eq!(left, 0);
    assert_eq!(redis.info("server")["redis_version"].split('.').count(), 3);
}

#[test]
fn nginx_takes_servers_in_turn_and_leaves_out_a_dead_one() {
    let servers: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").expect("listen")).collect();
    let addresses: Vec<_> = servers.iter().map(|server| server.local_addr().expect("an address")).collect();
    let nginx = Nginx::balancing(&[&addresses, &addresses[..1]]);
    let _clients: Vec<TestClient> = (0..2).map(|_| TestClient::connect_to(nginx.addresses()[0])).collect();
    for server in &servers {
        accept_within(PATIENCE, server);
    }
    let mut servers = servers.into_iter();
    let first = servers.next().expect("the first");
    drop(servers);
    for _ in 0..4 {
        let _client = TestClient::connect_to(nginx.addresses()[0]);
        // The remaining server gets all connections.
        accept_within(PATIENCE, &first);
    }
    let _client = TestClient::connect_to(nginx.addresses()[1]);
    // The second port is for the first server alone.
    accept_within(PATIENCE, &first);
}

#[test]
fn nothing_outlives_a_test_process_that_is_killed() {
    const CHILD: &str = "TEST_IS_CHILD";
    if env::var_os(CHILD).is_some() {
        let (redis, server) = (Redis::start(), TestServer::start());
        println!("child: {} {} {}", redis.info("server")["process_id"], server.pid(), server.folder().display());
        loop {
            thread::park();
        }
    }
    let mut child = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "--nocapture", "nothing_outlives_a_test_process_that_is_killed"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("start this test again");
    let lines = Lines::of(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("child: ") {
        line = lines.next_within(LONG_PATIENCE).expect("what the child has started");
    }
    child.kill().expect("kill the child");
    exit_within(PATIENCE, &mut child);
    let (_, started) = line.split_once("child: ").expect("found before");
    let started: Vec<&str> = started.split(' ').collect();
    for pid in &started[..2] {
        wait_until("what the child started is gone", || !Path::new("/proc").join(pid).exists());
    }
    wait_until("the child's folders are gone", || !Path::new(started[2]).exists());
}

#[test]
fn two_neighbours_reach_each_other() {
    let database = Database::create_reference();
    let redis = Redis::start();
    database.run("INSERT INTO User (name, password) VALUES ('ann', 'x'), ('bob', 'y'), ('cid', 'z')");
    database.run("INSERT INTO GroupUser (groupid, userid) VALUES (7, 1), (7, 2), (7, 3)");
    let nodes = [Neighbour::start(&database, &redis), Neighbour::start(&database, &redis)];
    let mut ann = TestClient::connect_to(nodes[0].address());
    let mut bob = TestClient::connect_to(nodes[1].address());
    ann.login(1, "any");
    bob.login(2, "any");
    ann.send(&chat(1, 2, "hello"));
    bob.expect(&chat(1, 2, "hello"));
    bob.send(&json!({"msgType": 6, "U1": 2, "U2": 1}));
    bob.expect(&json!({"errno": 200, "msgType": 6, "name": "ann", "userId": 1}));
    ann.expect(&json!({"errno": 200, "msgType": 6, "name": "bob", "new": true, "userId": 2}));
    ann.send(&json!({"msgType": 9, "FROMID": 1, "GROUPID": 7, "msg": "all"}));
    bob.expect(&json!({"msgType": 9, "FROMID": 1, "GROUPID": 7, "msg": "all"}));
    ann.barrier();
    let mut cid = TestClient::connect_to(nodes[1].address());
    cid.login(3, "any");
    assert_eq!(cid.fetch(3), [json!({"msgType": 9, "FROMID": 1, "GROUPID": 7, "msg": "all"})]);
    drop(bob);
    wait_until("bob is offline", || database.state_of(2).as_deref() == Some("offline"));
    ann.send(&chat(1, 2, "later"));
    ann.barrier();
    assert_eq!(database.count("SELECT count(*) FROM OfflineMessage WHERE userid = 2"), 1);
}

#[test]
fn the_cost_of_clients_is_beyond_the_margin_until_they_have_gone() {
    let server = TestServer::start();
    let before = Footprint::of(server.pid()).expect("it runs");
    let clients: Vec<TestClient> = (0..40).map(|_| TestClient::connect(&server)).collect();
    let is_seen = || !Footprint::of(server.pid()).expect("it runs").is_within(Margin::AFTER_A_TEST, before);
    wait_until("forty connections are noticed", is_seen);
    drop(clients);
    wait_given_back(server.pid(), before, Margin::AFTER_A_TEST).expect("all is given back");
}

#[test]
#[should_panic(expected = "has ended by itself")]
fn a_server_that_exited_by_itself_fails_its_test() {
    let mut server = TestServer::start();
    signal(server.pid(), "KILL");
    wait_until("it has ended", || server.has_exited());
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn a_command_that_exits_gives_its_output_and_its_status() {
    let output = output_within(PATIENCE, &mut shell("echo out; echo err >&2; exit 3")).expect("sh");
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(output.status.code(), Some(3));
}

#[test]
#[should_panic(expected = "still running after 1s")]
fn a_command_that_hangs_is_killed() {
    let _ = output_within(Duration::from_secs(1), &mut shell("exec sleep 1000"));
}

#[test]
#[should_panic(expected = "the output has no end 1s after the start")]
fn a_grandchild_that_holds_the_output_open_does_not_stop_the_test() {
    let mut child = shell("sleep 10 & exit 0").stdout(Stdio::piped()).spawn().expect("sh");
    // Only once the shell has exited does the sleep hold the output alone.
    exit_within(PATIENCE, &mut child);
    let _ = rest_within(Duration::from_secs(1), child);
}

#[test]
#[should_panic(expected = "no line within")]
fn a_line_that_does_not_come_fails_the_test() {
    let (receiver, _sender) = std::io::pipe().expect("a pipe");
    Lines::of(receiver).next_within(Duration::from_millis(100));
}
