//! The cost of a message between nodes, by Redis's own counters. It is the same with two nodes and
//! with eight.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::json;

use testkit::{Cluster, Redis, TestClient};
use testkit::{numbered, user};

/// The number of counted messages. Each is sent after the one before has arrived, so no two share
/// an envelope.
const MESSAGES: usize = 500;

/// The work of Redis for [`MESSAGES`] messages.
#[derive(Debug)]
struct Cost {
    /// The number of commands that published an envelope, and the number of subscribers that
    /// received one.
    envelopes: usize,
    envelopes_received: usize,
    /// The same two numbers for confirmations, which share a command if possible.
    confirmations: usize,
    confirmations_received: usize,
    /// The number of probes, which nodes send to themselves. Their cost does not depend on traffic.
    probes: usize,
    /// The number of bytes that Redis sent, replies to commands included.
    bytes_sent: u64,
}

#[test]
fn a_message_between_nodes_costs_the_same_however_many_there_are() {
    let costs: Vec<(usize, Cost)> = [2, 4, 8].into_iter().map(|nodes| (nodes, measure(nodes))).collect();
    let mut table = format!(
        "{MESSAGES} messages from a user on one node to a user on another:\n\
         | nodes | envelopes received per message | confirmations received per message | probes meanwhile | bytes sent \
         by Redis per message |\n|---|---|---|---|---|\n"
    );
    let per_message = |count: usize| format!("{:.2}", count as f64 / MESSAGES as f64);
    for (nodes, cost) in &costs {
        table.push_str(&format!(
            "| {nodes} | {} | {} | {} | {} |\n",
            per_message(cost.envelopes_received),
            per_message(cost.confirmations_received),
            cost.probes,
            cost.bytes_sent / MESSAGES as u64
        ));
    }
    // Written to stderr directly, so that the table appears although the test passes.
    write!(io::stderr(), "{table}").expect("print the table");
    for (nodes, cost) in &costs {
        assert_eq!((cost.envelopes, cost.envelopes_received), (MESSAGES, MESSAGES), "{nodes} nodes: {cost:?}");
        assert!(cost.confirmations <= MESSAGES, "{nodes} nodes: {cost:?}");
        assert_eq!(cost.confirmations_received, cost.confirmations, "{nodes} nodes: {cost:?}");
    }
}

/// The number of members on each node, in addition to the writer.
const MEMBERS: usize = 6;

#[test]
fn a_group_message_is_published_once_for_each_node_and_not_for_each_member() {
    let cluster = Cluster::start(3);
    let (mut ann, a) = user(&cluster.nodes[0], "the writer");
    let group = ann.create_group(a, "the group");
    let mut members = Vec::new();
    for n in 0..MEMBERS * 2 {
        let (mut member, id) = user(&cluster.nodes[1 + n % 2], &format!("member {n}"));
        member.join_group(id, group);
        members.push(member);
    }
    let mut write = |messages: std::ops::Range<usize>| {
        for n in messages {
            let message = json!({"msgType": 9, "FROMID": a, "GROUPID": group, "msg": n.to_string()});
            ann.send(&message);
            members.iter_mut().for_each(|member| member.expect(&message));
        }
        // Now everything is confirmed, and the confirmations have told the members' places.
        ann.barrier();
    };
    write(0..1);
    let published = published(&cluster.redis, || write(1..101));
    let envelopes: usize = published.iter().filter(|((_, kind), _)| *kind == '1').map(|(_, count)| count).sum();
    // Without sharing there would be twelve envelopes for each message. If a writer loses the
    // processor in the middle, there may be one more than two.
    assert!((200..300).contains(&envelopes), "{envelopes}: {published:?}");
}

fn measure(nodes: usize) -> Cost {
    let cluster = Cluster::start(nodes);
    // Every node has a user, so each node could be sent something.
    let mut users: Vec<(TestClient, i64)> =
        (0..nodes).map(|node| user(&cluster.nodes[node], &format!("user {node}"))).collect();
    let (mut bob, b) = users.pop().expect("the last one");
    let (mut ann, a) = users.swap_remove(0);
    let mut talk = || {
        for n in 0..MESSAGES {
            ann.send(&numbered(a, b, n));
            bob.expect(&numbered(a, b, n));
        }
        ann.barrier();
    };
    // One run without observation, for the bytes. In another run Redis reports every command, which
    // costs bytes of its own.
    let before = bytes_sent(&cluster.redis);
    talk();
    let bytes_sent = bytes_sent(&cluster.redis) - before;
    let published = published(&cluster.redis, talk);
    let mut connection = cluster.redis.connect();
    let patterns: usize = redis::cmd("PUBSUB").arg("NUMPAT").query(&mut connection).expect("ask for the patterns");
    assert_eq!(patterns, 0, "no node listens to more than its own channels");
    let mut received = |kinds: &str| {
        let of_kind = published.iter().filter(|((_, kind), _)| kinds.contains(*kind));
        of_kind.fold((0, 0), |(commands, received), ((channel, _), count)| {
            let ask = redis::cmd("PUBSUB").arg("NUMSUB").arg(channel).query(&mut connection);
            let (_, subscribers): (String, usize) = ask.expect("ask for the subscribers");
            (commands + count, received + count * subscribers)
        })
    };
    let (envelopes, envelopes_received) = received("1");
    let (confirmations, confirmations_received) = received("c");
    let (probes, _) = received("p");
    let all: usize = published.values().sum();
    assert_eq!(all, envelopes + confirmations + probes, "nothing else is published: {published:?}");
    Cost { envelopes, envelopes_received, confirmations, confirmations_received, probes, bytes_sent }
}

fn bytes_sent(redis: &Redis) -> u64 {
    redis.info("stats")["total_net_output_bytes"].parse().expect("a counter")
}

/// The number of publications while `work` ran, by channel and by the first character of the
/// payload.
fn published(redis: &Redis, work: impl FnOnce()) -> BTreeMap<(String, char), usize> {
    const END: &str = "raybox-test-end";
    let watched = redis.watch_published();
    work();
    let _: usize = redis::cmd("PUBLISH").arg(END).arg("e").query(&mut redis.connect()).expect("publish the end");
    let mut published = BTreeMap::new();
    for (channel, payload) in watched.take_while(|(channel, _)| channel != END) {
        let kind = payload.chars().next().expect("a payload");
        *published.entry((channel, kind)).or_insert(0) += 1;
    }
    published
}
