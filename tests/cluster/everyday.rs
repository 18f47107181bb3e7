//! Users on different nodes, on several nodes, and moving from one to another, without faults.

use serde_json::json;

use crate::traffic::{Pair, Person, Recipient, Totals, Traffic, Twice};
use testkit::{Cluster, Database, LONG_PATIENCE, Redis, TestServer};
use testkit::{chat, login, numbered, offline_user, user, wait_within};

#[test]
fn messages_between_nodes_come_once_and_in_order() {
    let cluster = Cluster::start(2);
    let nodes = cluster.addresses();
    let person = |name: &str, node: usize| Person::new(name, offline_user(&cluster.nodes[node], name), &[nodes[node]]);
    let pairs = [
        Pair { from: person("ann", 0), to: person("bob", 1), recipient: Recipient::Stays },
        Pair { from: person("amy", 1), to: person("ben", 0), recipient: Recipient::Stays },
        Pair { from: person("ada", 1), to: person("bea", 0), recipient: Recipient::IsAway },
    ];
    let books = Traffic::run(&pairs, |traffic| traffic.flow(100));
    let live = Totals::of(&books[..2], Twice::Never);
    assert_eq!((live.refused, live.unknown, live.fetched), (0, 0, 0), "{live}");
    let stored = Totals::of(&books[2..], Twice::Never);
    assert_eq!((stored.refused, stored.unknown, stored.live), (0, 0, 0), "{stored}");
}

#[test]
fn installations_that_share_a_redis_do_not_read_each_others_messages() {
    let redis = Redis::start();
    let databases = [Database::create(), Database::create(), Database::create()];
    let node = |installation: usize| {
        let added = ["", "db=1\n", "cluster_name=third\n"][installation];
        let builder = TestServer::builder().mysql(&databases[installation]).redis(&redis);
        builder.file("redis.cnf", redis.cnf() + added).start()
    };
    let nodes: Vec<[TestServer; 2]> = (0..3).map(|installation| [node(installation), node(installation)]).collect();
    // The installations have the same ids. In one the first user is online on the second node; in
    // the other one the second user writes on the first node.
    let mut strangers: Vec<_> = nodes.iter().map(|[_, two]| user(two, "ann")).collect();
    let mut senders: Vec<_> = nodes.iter().map(|[one, _]| user(one, "bob")).collect();
    assert!(strangers.iter().all(|(_, id)| *id == strangers[0].1), "they are taken for each other by their ids");
    let away = strangers[2].1;
    strangers[2].0.logout(away);
    nodes[2][1].wait_state(away, "offline");
    for (installation, (bob, b)) in senders.iter_mut().enumerate() {
        bob.send(&numbered(*b, away, installation));
        bob.barrier();
    }
    for (installation, (ann, a)) in strangers.iter_mut().enumerate().take(2) {
        ann.expect(&numbered(senders[installation].1, *a, installation));
        ann.expect_silence_until_barrier();
    }
    assert_eq!(nodes[2][1].stored_for(away), 1, "for one who is offline there, though such an id is online elsewhere");
}

#[test]
fn a_user_who_moves_from_node_to_node_misses_nothing() {
    let cluster = Cluster::start(3);
    let nodes = cluster.addresses();
    let mut pairs = Vec::new();
    for n in 0..3 {
        let person = |name: String| Person::new(&name, offline_user(&cluster.nodes[n], &name), &nodes);
        let mut mover = person(format!("mover {n}"));
        mover.nodes.rotate_left(n);
        pairs.push(Pair { from: person(format!("sender {n}")), to: mover, recipient: Recipient::Moves });
    }
    let books = Traffic::run(&pairs, |traffic| traffic.flow(200));
    let totals = Totals::of(&books, Twice::Never);
    assert_eq!((totals.refused, totals.unknown), (0, 0), "{totals}");
    assert!(totals.live > 3 * 1_000, "they move under traffic: {totals}");
}

#[test]
fn a_user_on_several_nodes_is_reached_on_each_and_stays_reachable() {
    let cluster = Cluster::start(3);
    let (mut bob, b) = user(&cluster.nodes[0], "bob");
    let (mut first, a) = user(&cluster.nodes[1], "alice");
    let mut second = login(&cluster.nodes[2], "alice", a);
    bob.send(&numbered(b, a, 0));
    first.expect(&numbered(b, a, 0));
    second.expect(&numbered(b, a, 0));
    // A node delivers to its own connections of the user.
    let (mut carol, c) = user(&cluster.nodes[2], "carol");
    carol.send(&numbered(c, a, 1));
    second.expect(&numbered(c, a, 1));
    carol.barrier();
    first.expect_silence_until_barrier();

    first.logout(a);
    bob.send(&numbered(b, a, 2));
    second.expect(&numbered(b, a, 2));
    bob.barrier();
    // Dave leaves the same node after Alice. Once he is known to be offline, her logout has been
    // processed as well.
    let (dave, d) = user(&cluster.nodes[1], "dave");
    cluster.nodes[1].wait_state(d, "online");
    drop(dave);
    cluster.nodes[1].wait_state(d, "offline");
    assert_eq!(cluster.nodes[1].state_of(a), "online");
    assert_eq!(cluster.nodes[0].stored(), 0);

    second.logout(a);
    cluster.nodes[2].wait_state(a, "offline");
    bob.send(&numbered(b, a, 3));
    bob.barrier();
    let mut third = login(&cluster.nodes[0], "alice", a);
    assert_eq!(third.fetch(a), [numbered(b, a, 3)]);
}

#[test]
fn a_wrong_state_in_the_database_costs_nothing() {
    let cluster = Cluster::start(2);
    let (mut bob, b) = user(&cluster.nodes[0], "bob");
    let (mut alice, a) = user(&cluster.nodes[1], "alice");
    let c = offline_user(&cluster.nodes[1], "carol");
    cluster.nodes[1].wait_state(a, "online");
    cluster.database.run(&format!("UPDATE User SET state = IF(id = {c}, 'online', 'offline')"));
    bob.send(&chat(b, a, "you are here"));
    alice.expect(&chat(b, a, "you are here"));
    bob.send(&chat(b, c, "you are not"));
    bob.barrier();
    assert_eq!(login(&cluster.nodes[0], "carol", c).fetch(c), [chat(b, c, "you are not")]);
}

#[test]
fn a_user_who_joins_a_group_on_one_node_is_a_member_on_all_at_once() {
    let cluster = Cluster::start(3);
    let (mut alice, a) = user(&cluster.nodes[0], "alice");
    let (mut carol, c) = user(&cluster.nodes[2], "carol");
    let group = alice.create_group(a, "the group");
    carol.join_group(c, group);
    carol.send(&chat(c, a, "I am in"));
    alice.expect(&chat(c, a, "I am in"));
    let message = |n: usize| json!({"msgType": 9, "FROMID": a, "GROUPID": group, "n": n});
    alice.send(&message(0));
    carol.expect(&message(0));
    for n in 1..=20 {
        let name = format!("bob {n}");
        let (mut bob, b) = user(&cluster.nodes[1], &name);
        bob.join_group(b, group);
        // Alice's node has cached the group. Bob joins, tells her so, and she writes to the group
        // immediately.
        bob.send(&chat(b, a, "I am in too"));
        alice.expect(&chat(b, a, "I am in too"));
        alice.send(&message(n));
        bob.expect(&message(n));
        carol.expect(&message(n));
        // In the other direction: the node that cached the group without Bob lets him write to it.
        bob.send(&json!({"msgType": 9, "FROMID": b, "GROUPID": group, "n": n}));
        alice.expect(&json!({"msgType": 9, "FROMID": b, "GROUPID": group, "n": n}));
        carol.expect(&json!({"msgType": 9, "FROMID": b, "GROUPID": group, "n": n}));
        bob.logout(b);
    }
}

#[test]
fn one_group_message_reaches_members_on_all_nodes_and_waits_for_the_others() {
    const NODES: usize = 3;
    let cluster = Cluster::start(NODES);
    let (mut alice, a) = user(&cluster.nodes[0], "alice");
    let group = alice.create_group(a, "the group");
    let mut members: Vec<_> =
        (0..12).map(|n| (n % 4 != 3, user(&cluster.nodes[n % NODES], &format!("member {n}")))).collect();
    for (stays, (client, id)) in &mut members {
        client.join_group(*id, group);
        if !*stays {
            client.logout(*id);
        }
    }
    let message = |n: usize| json!({"msgType": 9, "FROMID": a, "GROUPID": group, "n": n});
    for n in 0..20 {
        alice.send(&message(n));
    }
    alice.barrier();
    let expected: Vec<_> = (0..20).map(message).collect();
    for (n, (stays, (client, id))) in members.iter_mut().enumerate() {
        if *stays {
            assert_eq!(client.recv_pushes(), expected, "member {n} is there");
            assert!(client.fetch(*id).is_empty(), "member {n} got all live");
        } else {
            client.login(*id, &format!("pw-member {n}"));
            assert_eq!(client.fetch_all(*id), expected, "member {n} was away");
        }
    }
}

#[test]
fn the_state_of_a_killed_nodes_users_is_corrected() {
    let mut cluster = Cluster::start(2);
    let (mut bob, b) = user(&cluster.nodes[0], "bob");
    let (_alice, a) = user(&cluster.nodes[1], "alice");
    cluster.nodes[1].wait_state(a, "online");
    cluster.nodes[1].kill9();
    bob.send(&chat(b, a, "for later"));
    bob.barrier();
    let is_offline = |node: &TestServer| node.state_of(a) == "offline";
    wait_within(LONG_PATIENCE, "the state of a killed node's user is offline", || is_offline(&cluster.nodes[0]));
    assert_eq!(cluster.nodes[0].state_of(b), "online");
    assert_eq!(login(&cluster.nodes[0], "alice", a).fetch(a), [chat(b, a, "for later")]);
}
