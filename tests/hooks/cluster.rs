//! Several servers on one database.

use serde_json::Value;
use testkit::{Cluster, PATIENCE, wait_until, wait_within};

use crate::receiver::{Mood, Receiver};
use crate::stage::{KEY, enter, fate, waiting, with};

fn cluster(receiver: &Receiver) -> Cluster {
    Cluster::start_with(2, |builder| {
        builder
            .option("admin", "0")
            .file("hook.key", KEY.to_owned())
            .option("hook_url", &receiver.url())
            .option("hook_key", "hook.key")
            .option("hook_delay", "0")
            .option("hook_private", "127.0.0.1")
    })
}

#[test]
fn two_servers_post_each_message_once() {
    let receiver = Receiver::start(Mood::Answers(200));
    let cluster = cluster(&receiver);
    let (mut ann, mut bob) = (enter(&cluster.nodes[0], "ann"), enter(&cluster.nodes[1], "bob"));
    let (to_ann, to_bob) = (with(&ann), with(&bob));
    for _ in 0..10 {
        for (client, conv) in [(&mut ann, &to_bob), (&mut bob, &to_ann)] {
            let frames: Vec<Value> = (0..20).map(|_| client.message(conv)).collect();
            client.send_many(&frames);
            client.settle();
        }
    }
    wait_until("nothing waits", || waiting(&cluster.nodes[0]) == 0);
    let mut posted: Vec<u64> =
        receiver.messages().iter().map(|message| message["seq"].as_u64().expect("a number")).collect();
    posted.sort_unstable();
    assert_eq!(posted, (1..=400).collect::<Vec<u64>>());
    let by_each = cluster.nodes.iter().map(|node| fate(node, "delivered")).sum::<f64>();
    assert_eq!(by_each, 400.0);
}

#[test]
fn a_server_that_is_killed_while_it_posts_is_replaced_by_another() {
    let receiver = Receiver::start(Mood::Answers(200));
    let mut cluster = cluster(&receiver);
    let (mut ann, bob) = (enter(&cluster.nodes[0], "ann"), enter(&cluster.nodes[1], "bob"));
    ann.say(&with(&bob), "first");
    wait_until("it is posted", || waiting(&cluster.nodes[0]) == 0);
    wait_until("it is counted", || cluster.nodes.iter().map(|node| fate(node, "delivered")).sum::<f64>() == 1.0);
    let poster = cluster.nodes.iter().position(|node| fate(node, "delivered") > 0.0).expect("one has posted");
    receiver.becomes(Mood::Hangs);
    ann.say(&with(&bob), "second");
    wait_until("it hangs", || receiver.messages().len() == 2);
    cluster.nodes[poster].kill9();
    receiver.becomes(Mood::Answers(200));
    let other = &cluster.nodes[1 - poster];
    // The other node waits until the lease of the killed one ends.
    wait_within(3 * PATIENCE, "the other one posts", || waiting(other) == 0);
    let texts: Vec<String> = receiver.texts().into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["first", "second", "second"], "at least once");
}
