//! Thousands of users come back at the same time. All are served, and the cost of each login for
//! the database is counted.

use std::env;
use std::io::{self, Write};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use testkit::{Cluster, Database, LONG_PATIENCE, MariaDb, Redis, TestClient};
use testkit::{TestServer, chat, password, raise_descriptor_limit, wait_within};

const USERS: usize = 500;
/// The number of clients that connect at the same time.
const THREADS: usize = 50;

/// The kinds of statements that MariaDB counts.
const COUNTERS: [&str; 5] = ["Questions", "Com_select", "Com_update", "Com_insert", "Com_delete"];

#[test]
fn everybody_comes_back_at_once() {
    let users = number_of_users();
    raise_descriptor_limit(process::id(), users + 500);
    // A MariaDB of its own, because the counters cover all databases of a server.
    let mariadb = MariaDb::start();
    let cluster = Cluster::start_on(mariadb.create_database(), Redis::start(), 2, |builder| builder);
    let node = &cluster.nodes[0];
    raise_descriptor_limit(node.pid(), users + 500);
    let database = &cluster.database;
    register(database, users);

    let (clients, first) = come(node, database, users);
    drop(clients);
    wait_all(database, users, "offline");
    let (mut clients, again) = come(node, database, users);
    wait_all(database, users, "online");

    let mut text = format!("{users} users log in for the first time: {first}\n{users} users come back: {again}\n");
    for (what, request) in [("fetch", 14), ("list of friends", 8)] {
        let before = counters(database);
        ask_all(&mut clients, request);
        text.push_str(&format!("each {what}: {}\n", Statements::since(&before, database, users)));
    }
    // All users are online, even as seen from the other node.
    let mut bob = TestClient::connect(&cluster.nodes[1]);
    let b = bob.register("bob", "pw-bob");
    bob.login(b, "pw-bob");
    for (user, client) in clients.iter_mut().enumerate().step_by(users / 50 + 1) {
        let to = i64::try_from(user).expect("a small number") + 1;
        bob.send(&chat(b, to, "welcome back"));
        client.expect(&chat(b, to, "welcome back"));
    }
    // Written to stderr directly, so that the numbers appear although the test passes.
    write!(io::stderr(), "{text}").expect("print the result");
    assert!(again.statements.of("Com_select") < 0.5, "users who were verified before are looked up again: {again}");
}

/// Registers users 1 to `users`, with passwords as the reference server stores them.
fn register(database: &Database, users: usize) {
    for chunk in (1..=users).collect::<Vec<_>>().chunks(1_000) {
        let rows: Vec<String> =
            chunk.iter().map(|id| format!("({id}, 'user {id}', '{}')", password(&id.to_string()))).collect();
        database.run(&format!("INSERT INTO User (id, name, password) VALUES {}", rows.join(", ")));
    }
}

/// The duration and cost of a wave of logins.
struct Wave {
    took: Duration,
    statements: Statements,
    /// The number of passwords that were hashed meanwhile. Each costs an update.
    hashed: usize,
}

/// Logs all users in as fast as the server allows. Returns the clients in the order of their ids.
fn come(node: &TestServer, database: &Database, users: usize) -> (Vec<TestClient>, Wave) {
    let ids: Vec<usize> = (1..=users).collect();
    let (before, hashed_before) = (counters(database), hashed(database));
    let begun = Instant::now();
    let log_in_all = |ids: &[usize]| -> Vec<TestClient> { ids.iter().map(|id| log_in(node, *id)).collect() };
    let clients = thread::scope(|scope| {
        let chunks = ids.chunks(users.div_ceil(THREADS));
        let shares: Vec<_> = chunks.map(|ids| scope.spawn(move || log_in_all(ids))).collect();
        shares.into_iter().flat_map(|clients| clients.join().expect("all are let in")).collect()
    });
    let took = begun.elapsed();
    wait_all(database, users, "online");
    let statements = Statements::since(&before, database, users);
    (clients, Wave { took, statements, hashed: hashed(database) - hashed_before })
}

/// Sends a request of this type from every client, as many at a time as the logins.
fn ask_all(clients: &mut [TestClient], request: u32) {
    let share = clients.len().div_ceil(THREADS);
    thread::scope(|scope| {
        for (number, clients) in clients.chunks_mut(share).enumerate() {
            scope.spawn(move || {
                for (user, client) in (number * share + 1..).zip(clients) {
                    assert_eq!(client.ask(&json!({"msgType": request, "FROMID": user}))["errno"], 200);
                }
            });
        }
    });
}

/// Like the real client, retries when the server is too busy.
fn log_in(node: &TestServer, id: usize) -> TestClient {
    let mut client = None;
    let password = password(&id.to_string());
    let id = i64::try_from(id).expect("a small number");
    wait_within(LONG_PATIENCE, "everybody is let in", || {
        let mut new = TestClient::connect(node);
        new.set_patience(LONG_PATIENCE);
        let is_in = new.try_login(id, &password);
        client = is_in.then_some(new);
        is_in
    });
    client.expect("waited for it")
}

fn wait_all(database: &Database, users: usize, state: &str) {
    let query = format!("SELECT count(*) FROM User WHERE state = '{state}'");
    wait_within(LONG_PATIENCE, &format!("all are {state}"), || database.count(&query) == users);
}

fn hashed(database: &Database) -> usize {
    database.count("SELECT count(*) FROM User WHERE password LIKE '$argon2%'")
}

fn counters(database: &Database) -> Vec<u64> {
    COUNTERS.iter().map(|name| database.status(name)).collect()
}

/// The number of statements of each kind per user.
struct Statements(Vec<f64>);

impl Statements {
    fn since(before: &[u64], database: &Database, users: usize) -> Statements {
        let each = |(after, before): (u64, &u64)| (after - before) as f64 / users as f64;
        Statements(counters(database).into_iter().zip(before).map(each).collect())
    }

    fn of(&self, name: &str) -> f64 {
        self.0[COUNTERS.iter().position(|counter| *counter == name).expect("a counter")]
    }
}

impl std::fmt::Display for Statements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each: Vec<String> = COUNTERS.iter().zip(&self.0).map(|(name, each)| format!("{name} {each:.3}")).collect();
        write!(f, "for each user {}", each.join(", "))
    }
}

impl std::fmt::Display for Wave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Wave { took, statements, hashed } = self;
        write!(f, "in {:.1} s, {statements}; {hashed} passwords hashed meanwhile", took.as_secs_f64())
    }
}

fn number_of_users() -> usize {
    match env::var("STORM_USERS") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("STORM_USERS must be a number, not {text:?}")),
        Err(_) => USERS,
    }
}
