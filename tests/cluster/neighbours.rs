//! A cluster of our nodes and a node of the reference server (a *neighbour*), on the reference
//! server's tables and on ours.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use testkit::{Cluster, Database, Neighbour, Nginx, Redis, SetOnDrop, TestClient, TestServer, Workplace};
use testkit::{chat, login, number_of, numbered, offline_user, password, user, wait_until};

/// Two of our nodes and a neighbour.
struct Mixed {
    neighbour: Neighbour,
    cluster: Cluster,
}

impl Mixed {
    fn start(database: Database) -> Mixed {
        let redis = Redis::start();
        let neighbour = Neighbour::start(&database, &redis);
        Mixed { neighbour, cluster: Cluster::start_on(database, redis, 2, |builder| builder) }
    }

    /// A user who is logged in at one of our nodes and whose state is `online`.
    fn ours(&self, node: usize, name: &str) -> (TestClient, i64) {
        let (client, id) = user(&self.cluster.nodes[node], name);
        self.cluster.nodes[node].wait_state(id, "online");
        (client, id)
    }

    /// A user who is logged in at the neighbour.
    fn theirs(&self, name: &str) -> (TestClient, i64) {
        let id = offline_user(self.node(), name);
        (self.log_in_there(id), id)
    }

    fn log_in_there(&self, id: i64) -> TestClient {
        let mut client = TestClient::connect_to(self.neighbour.address());
        client.login(id, "it does not look at passwords");
        client
    }

    fn node(&self) -> &TestServer {
        &self.cluster.nodes[0]
    }
}

/// Makes a test of each function, once on the reference server's tables and once on ours.
macro_rules! on_both_schemas {
    ($($name:ident),+ $(,)?) => {
        mod on_their_tables {
            $(#[test] fn $name() { super::$name(&super::Mixed::start(super::Database::create_reference())); })+
        }
        mod on_our_tables {
            $(#[test] fn $name() { super::$name(&super::Mixed::start(super::Database::create())); })+
        }
    };
}

on_both_schemas!(chat_both_ways, groups_both_ways, new_friends_both_ways, offline_messages_both_ways, users_who_move);

#[test]
fn what_other_programs_publish_for_a_user_is_dropped_unless_it_is_a_frame() {
    let mixed = Mixed::start(Database::create());
    let (mut alice, a) = mixed.ours(0, "alice");
    let (_bob, b) = mixed.theirs("bob");
    let mut connection = mixed.cluster.redis.connect();
    let frame = chat(b, a, "a message");
    let sent = frame.to_string();
    let junk: [&[u8]; 8] = [b"", b"test", b"[]", b"null", b"{", b"{}{}", b"{\"a\":\"\n\"}", b"{\"a\":\"\xff\"}"];
    for text in junk.into_iter().chain([sent.as_bytes()]) {
        let published = redis::cmd("PUBLISH").arg(format!("RayBox-user-{a}")).arg(text).query::<u32>(&mut connection);
        assert_eq!(published.expect("publish"), 2, "the neighbour and the node of alice");
    }
    alice.expect(&frame);
    alice.barrier();
    assert_eq!(mixed.node().stored_for(a), 0);
}

fn chat_both_ways(mixed: &Mixed) {
    let (mut alice, a) = mixed.ours(0, "alice");
    let (mut bob, b) = mixed.theirs("bob");
    for n in 0..100 {
        alice.send(&numbered(a, b, n));
        bob.send(&numbered(b, a, n));
    }
    for client in [&mut alice, &mut bob] {
        let got: Vec<usize> = (0..100).map(|_| number_of(&client.recv())).collect();
        assert_eq!(got, (0..100).collect::<Vec<_>>());
        client.barrier();
    }
    // Characters that are hard to quote must pass unchanged.
    let text = "引号\" ' \\ \n 😀 % ; --";
    alice.send(&chat(a, b, text));
    bob.expect(&chat(a, b, text));
    bob.send(&chat(b, a, text));
    alice.expect(&chat(b, a, text));
    let odd =
        json!({"msgType": 4, "FROMID": b, "TOID": a, "n": [9_007_199_254_740_993_i64, -3], "x": {"y": [null, {}]}});
    bob.send(&odd);
    alice.expect(&odd);
    assert_eq!(mixed.node().stored(), 0);
}

fn groups_both_ways(mixed: &Mixed) {
    let (mut alice, a) = mixed.ours(0, "alice");
    let (mut carol, c) = mixed.ours(1, "carol");
    let (mut bob, b) = mixed.theirs("bob");
    let d = offline_user(mixed.node(), "dave");
    let group = alice.create_group(a, "the group");
    carol.join_group(c, group);
    // These users join at the neighbour, which notifies no other node.
    for id in [b, d] {
        let join = format!("INSERT INTO GroupUser (groupid, userid, grouprole) VALUES ({group}, {id}, 'normal')");
        mixed.cluster.database.run(&join);
    }
    let message = |from: i64| json!({"msgType": 9, "FROMID": from, "GROUPID": group, "msg": "all hands"});
    alice.send(&message(a));
    bob.expect(&message(a));
    carol.expect(&message(a));
    bob.send(&message(b));
    alice.expect(&message(b));
    carol.expect(&message(b));
    carol.send(&message(c));
    alice.expect(&message(c));
    bob.expect(&message(c));
    for client in [&mut alice, &mut carol, &mut bob] {
        client.barrier();
    }
    let mut dave = login(&mixed.cluster.nodes[1], "dave", d);
    let mut waited = dave.fetch(d);
    waited.sort_by_key(|message| message["FROMID"].as_i64());
    let mut expected: Vec<Value> = [a, b, c].map(message).into();
    expected.sort_by_key(|message| message["FROMID"].as_i64());
    assert_eq!(waited, expected);
}

fn new_friends_both_ways(mixed: &Mixed) {
    let (mut alice, a) = mixed.ours(0, "alice");
    let (mut bob, b) = mixed.theirs("bob");
    let (mut carol, c) = mixed.theirs("carol");
    let told = |name: &str, id: i64| json!({"errno": 200, "msgType": 6, "name": name, "userId": id});
    let pushed = |name: &str, id: i64| json!({"errno": 200, "msgType": 6, "name": name, "new": true, "userId": id});
    alice.send(&json!({"msgType": 6, "U1": a, "U2": b}));
    alice.expect(&told("bob", b));
    bob.expect(&pushed("alice", a));
    carol.send(&json!({"msgType": 6, "U1": c, "U2": a}));
    carol.expect(&told("alice", a));
    alice.expect(&pushed("carol", c));
    let friends = alice.ask(&json!({"msgType": 8, "FROMID": a}));
    let friends = friends["friends"].as_array().expect("a list of friends");
    let mut names: Vec<&Value> = friends.iter().map(|friend| &friend["name"]).collect();
    names.sort_by_key(|name| name.to_string());
    assert_eq!(names, ["bob", "carol"]);
}

fn offline_messages_both_ways(mixed: &Mixed) {
    let (mut alice, a) = mixed.ours(0, "alice");
    let (mut bob, b) = mixed.theirs("bob");
    let c = offline_user(mixed.node(), "carol");
    let d = offline_user(mixed.node(), "dave");
    for n in 0..10 {
        alice.send(&numbered(a, d, n));
        bob.send(&numbered(b, c, n));
    }
    alice.barrier();
    bob.barrier();
    let got: Vec<usize> = mixed.log_in_there(d).fetch(d).iter().map(number_of).collect();
    assert_eq!(got, (0..10).collect::<Vec<_>>(), "stored by us, fetched there");
    let got: Vec<usize> = login(&mixed.cluster.nodes[1], "carol", c).fetch(c).iter().map(number_of).collect();
    assert_eq!(got, (0..10).collect::<Vec<_>>(), "stored there, fetched from us");
}

fn users_who_move(mixed: &Mixed) {
    let (mut alice, a) = mixed.ours(0, "alice");
    let (mut bob, b) = mixed.theirs("bob");
    for round in 0..5 {
        // Bob moves: from the neighbour to nowhere, to our node, to nowhere, and back.
        bob.logout(b);
        alice.send(&numbered(a, b, 4 * round));
        alice.barrier();
        bob = login(&mixed.cluster.nodes[1], "bob", b);
        mixed.node().wait_state(b, "online");
        assert_eq!(bob.fetch(b), [numbered(a, b, 4 * round)]);
        alice.send(&numbered(a, b, 4 * round + 1));
        bob.expect(&numbered(a, b, 4 * round + 1));
        bob.logout(b);
        mixed.node().wait_state(b, "offline");
        alice.send(&numbered(a, b, 4 * round + 2));
        alice.barrier();
        bob = mixed.log_in_there(b);
        assert_eq!(bob.fetch(b), [numbered(a, b, 4 * round + 2)]);
        alice.send(&numbered(a, b, 4 * round + 3));
        bob.expect(&numbered(a, b, 4 * round + 3));
    }
    bob.barrier();
    assert_eq!(mixed.node().stored(), 0);
}

#[test]
fn a_message_from_there_reaches_a_user_on_all_nodes_of_ours() {
    let mixed = Mixed::start(Database::create_reference());
    let (mut bob, b) = mixed.theirs("bob");
    let (mut first, a) = mixed.ours(0, "alice");
    let mut second = login(&mixed.cluster.nodes[1], "alice", a);
    bob.send(&chat(b, a, "to both"));
    first.expect(&chat(b, a, "to both"));
    second.expect(&chat(b, a, "to both"));
    first.logout(a);
    bob.send(&chat(b, a, "to one"));
    second.expect(&chat(b, a, "to one"));
    first.ack_barrier();
    assert_eq!(mixed.node().state_of(a), "online");
}

#[test]
fn when_the_last_neighbour_goes_its_users_messages_are_stored() {
    let Mixed { neighbour, cluster } = Mixed::start(Database::create_reference());
    let (mut alice, a) = user(&cluster.nodes[0], "alice");
    let b = offline_user(&cluster.nodes[0], "bob");
    let mut bob = TestClient::connect_to(neighbour.address());
    bob.login(b, "any");
    alice.send(&chat(a, b, "hello"));
    bob.expect(&chat(a, b, "hello"));
    drop(neighbour);
    // The state that a crash of the neighbour would leave.
    cluster.database.run(&format!("UPDATE User SET state = 'online' WHERE id = {b}"));
    // Our node notices within seconds that the neighbour has gone. Until then a message to its
    // users is lost, as it is among neighbours.
    let mut sent = 0;
    wait_until("messages are stored", || {
        alice.send(&numbered(a, b, sent));
        sent += 1;
        alice.barrier();
        cluster.nodes[0].stored_for(b) > 0
    });
    let stored = cluster.nodes[0].stored_for(b);
    alice.send(&chat(a, b, "one more"));
    alice.barrier();
    assert_eq!(cluster.nodes[0].stored_for(b), stored + 1);
}

/// A client of the neighbour writes to a user as soon as it is notified of the user's login or
/// logout.
#[test]
fn the_state_is_correct_when_a_login_or_logout_is_answered() {
    let mixed = Mixed::start(Database::create_reference());
    let (mut bob, b) = mixed.theirs("bob");
    let a = offline_user(mixed.node(), "alice");
    let mut alice = TestClient::connect(mixed.node());
    for n in 0..25 {
        alice.login(a, &password("alice"));
        bob.send(&numbered(b, a, 2 * n));
        alice.expect(&numbered(b, a, 2 * n));
        alice.logout(a);
        bob.send(&numbered(b, a, 2 * n + 1));
        bob.barrier();
        assert_eq!(mixed.node().stored_for(a), n + 1, "a message after a logout is lost");
    }
}

/// Patterns that `redis-cli PSUBSCRIBE` and monitoring tools subscribe to.
const TOOLS: [&str; 3] = ["*", "RayBox-*", "RayBox-user*"];

/// Of the subscribers to such patterns, only a node of the reference server delivers messages. So
/// messages are published only if there is such a node.
#[test]
fn a_tool_that_listens_to_patterns_takes_no_messages() {
    let (database, redis) = (Database::create_reference(), Redis::start());
    let mut connection = redis.connect();
    let mut tool = connection.as_pubsub();
    TOOLS.iter().for_each(|pattern| tool.psubscribe(*pattern).expect("listen to a pattern"));
    let cluster = Cluster::start_on(database, redis, 2, |builder| builder);
    let (mut alice, a) = user(&cluster.nodes[0], "alice");
    let b = offline_user(&cluster.nodes[0], "bob");
    cluster.database.run(&format!("UPDATE User SET state = 'online' WHERE id = {b}"));
    for n in 0..5 {
        alice.send(&numbered(a, b, n));
    }
    alice.barrier();
    let stored: Vec<usize> = login(&cluster.nodes[1], "bob", b).fetch(b).iter().map(number_of).collect();
    assert_eq!(stored, (0..5).collect::<Vec<_>>());
}

#[test]
fn the_users_of_the_last_neighbour_are_offline_when_it_is_gone() {
    let Mixed { neighbour, cluster } = Mixed::start(Database::create_reference());
    let mut connection = cluster.redis.connect();
    let mut tool = connection.as_pubsub();
    TOOLS.iter().for_each(|pattern| tool.psubscribe(*pattern).expect("listen to a pattern"));
    let (mut alice, a) = user(&cluster.nodes[0], "alice");
    let (b, c) = (offline_user(&cluster.nodes[0], "bob"), offline_user(&cluster.nodes[0], "carol"));
    let mut bob = TestClient::connect_to(neighbour.address());
    bob.login(b, "any");
    alice.send(&chat(a, b, "hello"));
    bob.expect(&chat(a, b, "hello"));
    drop(neighbour);
    // The state that a crash of the neighbour would leave.
    cluster.database.run(&format!("UPDATE User SET state = 'online' WHERE id IN ({b}, {c})"));
    for n in 0..5 {
        alice.send(&numbered(a, b, n));
    }
    alice.barrier();
    assert_eq!(cluster.nodes[0].stored_for(b), 5, "a message is lost to the tool");
    cluster.nodes[1].wait_state(b, "offline");
    cluster.nodes[1].wait_state(c, "offline");
    assert_eq!(cluster.nodes[1].state_of(a), "online", "who is with a node of ours stays online");
}

/// While another neighbour runs, only the operator knows that one has gone for good.
#[test]
fn the_users_of_a_neighbour_that_stopped_are_set_to_offline_by_a_command() {
    let mixed = Mixed::start(Database::create_reference());
    let workplace = Workplace::on(&mixed.cluster.database);
    mixed.cluster.redis.write_cnf(workplace.path());
    let (mut alice, a) = mixed.ours(0, "alice");
    let (_bob, b) = mixed.theirs("bob");
    let c = offline_user(mixed.node(), "carol");
    // The state that a killed neighbour leaves.
    mixed.cluster.database.run(&format!("UPDATE User SET state = 'online' WHERE id = {c}"));
    let shown = workplace.succeed(&["migrate", "--reset-states", "--dry-run"]);
    assert!(shown.contains("online on no node of this server: 2\n") && shown.contains("count as offline"), "{shown}");
    assert_eq!(mixed.node().state_of(c), "online", "a dry run");
    let shown = workplace.succeed(&["migrate", "--reset-states"]);
    assert!(shown.ends_with("and are offline now: 2\n"), "{shown}");
    assert_eq!([a, b, c].map(|user| mixed.node().state_of(user)), ["online", "offline", "offline"]);
    for to in [b, c] {
        alice.send(&chat(a, to, "is it stored?"));
    }
    alice.barrier();
    assert_eq!([b, c].map(|user| mixed.node().stored_for(user)), [1, 1]);
    // The running neighbour's user becomes reachable by logging in again.
    let mut bob = mixed.log_in_there(b);
    alice.send(&chat(a, b, "live again"));
    bob.expect(&chat(a, b, "live again"));
}

/// A user of our nodes who logs in and out is never taken for a user of the neighbour, which would
/// lose the messages.
#[test]
fn nothing_is_lost_to_the_neighbour_when_a_user_of_ours_leaves() {
    const TIMES: usize = 12;
    const BETWEEN: usize = 50;
    let mixed = Mixed::start(Database::create());
    let (mut alice, a) = user(&mixed.cluster.nodes[1], "alice");
    let b = offline_user(mixed.node(), "bob");
    let (is_over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (alice, total) = (&mut alice, &sent);
    let mut got = HashSet::new();
    thread::scope(|scope| {
        let _over = SetOnDrop(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for n in total.load(Ordering::Relaxed)..total.load(Ordering::Relaxed) + 5 {
                    alice.send(&numbered(a, b, n));
                }
                alice.barrier();
                total.fetch_add(5, Ordering::Relaxed);
            }
        });
        let flow = || {
            let enough = sent.load(Ordering::Relaxed) + BETWEEN;
            wait_until("more is sent", || sent.load(Ordering::Relaxed) >= enough);
        };
        for _ in 0..TIMES {
            let mut bob = login(mixed.node(), "bob", b);
            mixed.node().wait_state(b, "online");
            flow();
            bob.send(&json!({"msgType": 3, "USERID": b}));
            // Reads every message that arrived before the answer to the logout.
            loop {
                let frame = bob.recv();
                if frame["msgType"] != 4 {
                    break;
                }
                got.insert(number_of(&frame));
            }
            mixed.node().wait_state(b, "offline");
            flow();
        }
    });
    let mut bob = login(mixed.node(), "bob", b);
    got.extend(bob.collect(b).iter().map(number_of));
    let lost: Vec<usize> = (0..sent.load(Ordering::Relaxed)).filter(|n| !got.contains(n)).collect();
    assert!(lost.is_empty(), "lost {} of {sent:?}: {lost:?}", lost.len());
}

/// During a migration, one nginx stands in front of nodes of both kinds, with settings of its own.
#[test]
fn nginx_before_both_kinds_of_nodes() {
    let mixed = Mixed::start(Database::create_reference());
    let nginx = Nginx::beside_reference(&[mixed.node().address(), mixed.neighbour.address()]);
    let ids: Vec<i64> = (0..4).map(|n| offline_user(mixed.node(), &format!("user {n}"))).collect();
    // nginx gives each client to the node with fewer connections.
    let mut clients: Vec<TestClient> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| {
            let mut client = TestClient::connect_to(nginx.addresses()[0]);
            client.login(*id, &password(&format!("user {n}")));
            client
        })
        .collect();
    for from in 0..4 {
        for to in (0..4).filter(|to| *to != from) {
            let message = chat(ids[from], ids[to], "hello");
            clients[from].send(&message);
            clients[to].expect(&message);
        }
    }
}
