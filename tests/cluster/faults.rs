//! Nodes, Redis and MariaDB are killed or frozen under traffic, and come back.

use std::env;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::traffic::{Pair, Person, Recipient, Totals, Traffic, Twice};
use testkit::{Cluster, MariaDb, Redis, TestClient, TestServer};
use testkit::{LONG_PATIENCE, chat, login, number_of, numbered, offline_user, user, wait_until, wait_within};

/// How a service fails.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// By SIGKILL: its port is closed, and its connections end.
    Killed,
    /// By SIGSTOP: its connections stay open, but nothing answers.
    Frozen,
}

/// A service that can be made to fail.
trait Service {
    fn fail(&mut self, fault: Fault);
    fn recover(&mut self, fault: Fault);
}

#[test]
fn redis_is_killed() {
    redis_fails(Fault::Killed);
}

#[test]
fn redis_freezes() {
    redis_fails(Fault::Frozen);
}

#[test]
fn redis_freezes_under_a_message_to_many_who_are_offline() {
    const MEMBERS: usize = 40;
    let mut cluster = Cluster::start(2);
    let node = &cluster.nodes[0];
    let (mut bob, b) = user(node, "bob");
    let (mut carol, c) = user(node, "carol");
    let away = offline_user(node, "away");
    let group = bob.create_group(b, "group");
    let join = |n: usize| {
        let (mut member, id) = user(node, &format!("member {n}"));
        member.join_group(id, group);
        id
    };
    let members: Vec<i64> = (0..MEMBERS).map(join).collect();
    members.iter().for_each(|member| node.wait_state(*member, "offline"));
    cluster.redis.stop();
    let begun = Instant::now();
    bob.send(&json!({"msgType": 9, "FROMID": b, "GROUPID": group, "msg": "to all"}));
    let mut until_stored = || {
        carol.send(&chat(c, away, "are you there?"));
        // With a timeout for each member's message, this would take longer than a client waits.
        carol.barrier();
        begun.elapsed().as_secs_f64()
    };
    let stored_after = [until_stored(), until_stored()];
    let terminated = Instant::now();
    cluster.nodes[0].terminate();
    let status = cluster.nodes[0].wait_exit(LONG_PATIENCE);
    let stopped_after = terminated.elapsed().as_secs_f64();
    assert!(status.success(), "everything is stored: {status}");
    let other = &cluster.nodes[1];
    assert_eq!(other.stored_for(away), 2);
    let unstored: Vec<_> = members.iter().filter(|member| other.stored_for(**member) != 1).collect();
    assert!(unstored.is_empty(), "{unstored:?}");
    cluster.redis.cont();
    writeln!(
        io::stderr(),
        "Redis frozen under a message to {MEMBERS} who are offline: another sender's messages were stored after \
         {stored_after:.1?} s, and the node stopped {stopped_after:.1} s after it was told"
    )
    .expect("print the report");
}

#[test]
fn mariadb_is_killed() {
    mariadb_fails(Fault::Killed);
}

#[test]
fn mariadb_freezes() {
    mariadb_fails(Fault::Frozen);
}

fn redis_fails(fault: Fault) {
    let mut cluster = Cluster::start_with(2, |builder| builder.option("admin", "127.0.0.1:0"));
    let node = &cluster.nodes[1];
    // Meanwhile a new user can register and log in.
    let arrive = || user(node, "newcomer");
    outage(&format!("Redis {fault:?}"), &cluster.nodes, &mut cluster.redis, fault, arrive);
}

fn mariadb_fails(fault: Fault) {
    let mut mariadb = MariaDb::start();
    let options = |builder: testkit::Builder| builder.option("admin", "127.0.0.1:0");
    let cluster = Cluster::start_on(mariadb.create_database(), Redis::start(), 2, options);
    let node = &cluster.nodes[1];
    let (mut before, id) = user(node, "regular");
    before.logout(id);
    // Meanwhile a user who was online before can log in.
    let arrive = || (login(node, "regular", id), id);
    outage(&format!("MariaDB {fault:?}"), &cluster.nodes, &mut mariadb, fault, arrive);
}

/// Makes a service fail under traffic for a while, and checks what must hold for any service.
/// `arrive` logs a user in on the second node during the outage.
fn outage(
    what: &str,
    nodes: &[TestServer],
    service: &mut dyn Service,
    fault: Fault,
    arrive: impl FnOnce() -> (TestClient, i64),
) {
    const SAME_NODE: usize = 0;
    let length = Duration::from_secs(outage_seconds());
    let pairs = [
        pair(nodes, "same", 0, 0, Recipient::Stays),
        pair(nodes, "there", 0, 1, Recipient::Stays),
        pair(nodes, "back", 1, 0, Recipient::Stays),
        pair(nodes, "away", 0, 1, Recipient::IsAway),
    ];
    let (mut bob, b) = user(&nodes[0], "bob");
    let mut report = String::new();
    let books = Traffic::run(&pairs, |traffic| {
        traffic.flow(20);
        let (logged, settled) = (logged(nodes), traffic.acknowledged());
        let begun = Instant::now();
        service.fail(fault);
        let red = wait_readiness(nodes, false);
        let (mut late, l) = arrive();
        while begun.elapsed() < length {
            traffic.flow_of(&[SAME_NODE], 1);
        }
        let lots: Vec<usize> =
            traffic.acknowledged().iter().zip(&settled).map(|(after, before)| after - before).collect();
        // An answer that waited for the failed service would take more than a second.
        assert!(lots[SAME_NODE] as u64 >= 2 * length.as_secs(), "{what}: chat on a node is held up: {lots:?} lots");
        let growth = logged_since(nodes, logged);
        assert!(growth < LOG_GROWTH_MAX, "{what}: the logs grew by {growth} bytes");
        service.recover(fault);
        let green = wait_readiness(nodes, true);
        bob.send(&chat(b, l, "welcome"));
        late.expect(&chat(b, l, "welcome"));
        // An offline user fetches from the other node, which does not know the messages in this
        // node's spool.
        let is_spooled = |node: &TestServer| node.metric("raybox_spool_messages") > 0.0;
        wait_within(LONG_PATIENCE, "what waited is stored", || !nodes.iter().any(is_spooled));
        traffic.flow(20);
        report = format!(
            "{what} for {length:?}: not ready after {:.1} s, ready {:.1} s after its return; the logs grew by {growth} \
             bytes; lots acknowledged meanwhile (on a node, across, across, offline): {lots:?}",
            red.as_secs_f64(),
            green.as_secs_f64()
        );
    });
    let same_node = books[SAME_NODE].check(Twice::Never);
    assert_eq!((same_node.refused, same_node.unknown, same_node.fetched), (0, 0, 0), "{what}: {same_node}");
    let others = Totals::of(&books[1..], Twice::Allowed);
    assert_eq!(others.unknown, 0, "{what}: a client of a node that lives is not disconnected");
    assert_eq!(others.refused, 0, "{what}: what the database cannot keep waits in the spool");
    // Written to stderr directly, so that the text appears although the test passes.
    writeln!(io::stderr(), "{report}\n  on a node: {same_node}\n  others: {others}").expect("print the report");
}

#[test]
fn a_node_is_killed() {
    let mut cluster = Cluster::start(3);
    let [sender, victim, other] = [0, 1, 2];
    let to_nobody = pair_with_refuge(&cluster.nodes, "from the victim to nobody", victim, other, other);
    let pairs = [
        pair_with_refuge(&cluster.nodes, "to the victim", sender, victim, other),
        pair_with_refuge(&cluster.nodes, "to the victim as well", other, victim, sender),
        pair_with_refuge(&cluster.nodes, "from the victim", victim, sender, other),
        Pair { recipient: Recipient::IsAway, ..to_nobody },
        pair(&cluster.nodes, "elsewhere", sender, other, Recipient::Stays),
    ];
    let (_idle, idle) = user(&cluster.nodes[victim], "idle");
    let (mut bob, b) = user(&cluster.nodes[other], "bob");
    let mut slowest = Duration::ZERO;
    let books = Traffic::run(&pairs, |traffic| {
        traffic.flow(20);
        cluster.nodes[victim].kill9();
        let begun = Instant::now();
        bob.send(&chat(b, idle, "are you there?"));
        bob.barrier();
        slowest = begun.elapsed();
        assert_eq!(cluster.nodes[other].stored_for(idle), 1, "a message to the killed node's user is stored");
        traffic.flow(50);
    });
    cluster.nodes[other].wait_state(idle, "offline");
    assert_eq!(login(&cluster.nodes[other], "idle", idle).fetch(idle), [chat(b, idle, "are you there?")]);
    let elsewhere = books[4].check(Twice::Never);
    assert_eq!((elsewhere.refused, elsewhere.unknown, elsewhere.fetched), (0, 0, 0), "{elsewhere}");
    let concerned = Totals::of(&books[..4], Twice::Allowed);
    assert_eq!(concerned.refused, 0, "{concerned}");
    writeln!(
        io::stderr(),
        "a node killed: a message to it was acknowledged after {:.2} s\n  with it: {concerned}\n  elsewhere: {elsewhere}",
        slowest.as_secs_f64()
    )
    .expect("print the report");
}

#[test]
fn a_node_is_killed_with_messages_that_it_has_not_confirmed() {
    const MESSAGES: usize = 50;
    let mut cluster = Cluster::start(3);
    let (mut bob, b) = user(&cluster.nodes[0], "bob");
    let (_alice, a) = user(&cluster.nodes[1], "alice");
    // While frozen, the node takes messages but does not process them.
    cluster.nodes[1].stop();
    let mut published = cluster.redis.watch_published();
    for n in 0..MESSAGES {
        bob.send(&numbered(b, a, n));
    }
    let channel = format!("raybox:u:{a}");
    assert!(published.any(|(published, _)| published == channel), "they are on their way to the frozen node");
    cluster.nodes[1].kill9();
    bob.barrier();
    let mut alice = login(&cluster.nodes[2], "alice", a);
    let got: Vec<usize> = alice.fetch_all(a).iter().map(number_of).collect();
    assert_eq!(got, (0..MESSAGES).collect::<Vec<_>>());
}

#[test]
fn a_node_freezes_and_goes_on() {
    let cluster = Cluster::start(3);
    let pairs = [
        pair(&cluster.nodes, "to the frozen one", 0, 1, Recipient::Stays),
        pair(&cluster.nodes, "from the frozen one", 1, 2, Recipient::Stays),
        pair(&cluster.nodes, "elsewhere", 2, 0, Recipient::Stays),
    ];
    let books = Traffic::run(&pairs, |traffic| {
        traffic.flow(20);
        cluster.nodes[1].stop();
        // The pause is longer than two deadlines of confirmations. Messages for the node's users
        // are acknowledged because they are stored.
        traffic.flow_of(&[0], 3);
        traffic.flow_of(&[2], 20);
        cluster.nodes[1].cont();
        traffic.flow(20);
    });
    let elsewhere = books[2].check(Twice::Never);
    assert_eq!((elsewhere.refused, elsewhere.unknown, elsewhere.fetched), (0, 0, 0), "{elsewhere}");
    let concerned = Totals::of(&books[..2], Twice::Allowed);
    assert_eq!((concerned.refused, concerned.unknown), (0, 0), "{concerned}");
    writeln!(io::stderr(), "a node frozen: {concerned}\n  elsewhere: {elsewhere}").expect("print the report");
}

#[test]
fn a_login_while_redis_takes_no_writes_is_registered_when_it_does() {
    let mut cluster = Cluster::start(2);
    let (victim, survivor) = (0, 1);
    redis_takes_writes(&cluster.redis, false);
    cluster.nodes.iter().for_each(|node| drop(node.logs_with("Redis takes no writes")));
    let ((_alice, a), (mut bob, b)) = (user(&cluster.nodes[victim], "alice"), user(&cluster.nodes[victim], "bob"));
    [a, b].iter().for_each(|user| cluster.nodes[victim].wait_state(*user, "online"));
    bob.logout(b);
    cluster.nodes[victim].wait_state(b, "offline");
    assert_eq!(registered(&cluster.redis), [] as [i64; 0]);
    redis_takes_writes(&cluster.redis, true);
    wait_until("alice is registered, and bob is not", || registered(&cluster.redis) == [a]);
    cluster.nodes[victim].kill9();
    cluster.nodes[survivor].wait_state(a, "offline");
}

#[test]
fn the_log_tells_writes_that_fail_from_commands_that_fail() {
    const NO_WRITES: &str = "Redis takes no writes";
    const NO_COMMANDS: &str = "commands to Redis fail";
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let permit = |right: &str| {
        redis::cmd("ACL")
            .arg("SETUSER")
            .arg("default")
            .arg(right)
            .query::<()>(&mut cluster.redis.connect())
            .expect(right);
    };
    redis_takes_writes(&cluster.redis, false);
    node.logs_with(NO_WRITES);
    permit("-sadd");
    node.logs_with(NO_COMMANDS);
    permit("+sadd");
    let logs = node.logs_with("commands to Redis work again after");
    assert!(!logs.contains("Redis takes writes again after"), "{logs}");
    redis_takes_writes(&cluster.redis, true);
    let logs = node.logs_with("Redis takes writes again after");
    assert_eq!([NO_WRITES, NO_COMMANDS].map(|text| logs.matches(text).count()), [1, 1], "{logs}");
}

/// Lets Redis refuse writes for lack of memory, or take them again.
fn redis_takes_writes(redis: &Redis, takes: bool) {
    let memory = if takes { "0" } else { "1" };
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(memory).query::<()>(&mut redis.connect()).expect("set it");
}

/// All users in the register, of any node.
fn registered(redis: &Redis) -> Vec<i64> {
    let mut connection = redis.connect();
    let nodes: Vec<String> = redis::cmd("SMEMBERS").arg("raybox:nodes").query(&mut connection).expect("nodes");
    let mut users = |node: &String| -> Vec<i64> {
        redis::cmd("SMEMBERS").arg(format!("raybox:on:{node}")).query(&mut connection).expect("users")
    };
    nodes.iter().flat_map(&mut users).collect()
}

/// A new user on one node who writes to a new user on another.
fn pair(nodes: &[TestServer], name: &str, from: usize, to: usize, recipient: Recipient) -> Pair {
    let person = |role: &str, node: &TestServer| {
        let name = format!("{role} {name}");
        Person::new(&name, offline_user(node, &name), &[node.address()])
    };
    Pair { from: person("from", &nodes[from]), to: person("to", &nodes[to]), recipient }
}

/// Like [`pair`]; each user logs in at `refuge` while its own node is down.
fn pair_with_refuge(nodes: &[TestServer], name: &str, from: usize, to: usize, refuge: usize) -> Pair {
    let mut pair = pair(nodes, name, from, to, Recipient::Stays);
    for person in [&mut pair.from, &mut pair.to] {
        person.nodes.push(nodes[refuge].address());
    }
    pair
}

/// Waits until all nodes report that they are, or are not, ready. Returns how long that took.
fn wait_readiness(nodes: &[TestServer], ready: bool) -> Duration {
    let begun = Instant::now();
    let what = if ready { "all nodes are ready" } else { "no node is ready" };
    wait_until(what, || nodes.iter().all(|node| node.is_ready() == ready));
    begun.elapsed()
}

/// The number of bytes that the nodes have logged and printed.
fn logged(nodes: &[TestServer]) -> usize {
    nodes.iter().map(|node| node.logs().len() + node.output().len()).sum()
}

fn logged_since(nodes: &[TestServer], before: usize) -> usize {
    logged(nodes) - before
}

fn outage_seconds() -> u64 {
    match env::var("OUTAGE_SECONDS") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("OUTAGE_SECONDS must be a number, not {text:?}")),
        Err(_) => 20,
    }
}

impl Service for Redis {
    fn fail(&mut self, fault: Fault) {
        match fault {
            Fault::Killed => self.kill(),
            Fault::Frozen => self.stop(),
        }
    }

    fn recover(&mut self, fault: Fault) {
        match fault {
            Fault::Killed => self.restart(),
            Fault::Frozen => self.cont(),
        }
    }
}

impl Service for MariaDb {
    fn fail(&mut self, fault: Fault) {
        match fault {
            Fault::Killed => self.kill(),
            Fault::Frozen => self.stop(),
        }
    }

    fn recover(&mut self, fault: Fault) {
        match fault {
            Fault::Killed => self.restart(),
            Fault::Frozen => self.cont(),
        }
    }
}

/// If a log grows by more than this during an outage, some part logs without a limit.
const LOG_GROWTH_MAX: usize = 64 * 1024;
