//! Neighbours on the same Redis: reference nodes, dead nodes, other installations.

use std::collections::HashSet;

use raybox::bus::redis::RedisBus;
use raybox::bus::{Published, Register as _};
use raybox::config::RedisSettings;
use raybox::delivery::Delivery;
use raybox::protocol::{GroupId, UserId};
use testkit::{Redis, wait_until};

use crate::peer::{ANN, BOB, Heard, Peer, delivery, settings};

#[test]
fn reference_nodes_are_heard_and_reached() {
    let redis = Redis::start();
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    let everybody = |users: &[UserId]| users.to_vec();
    let offers = || vec![delivery(ANN, "{\"n\":1}"), delivery(BOB, "{\"n\":2}"), delivery(ANN, "{\"n\":3}")];
    let texts = |deliveries: &[Delivery]| deliveries.iter().map(|one| one.text.to_string()).collect::<Vec<_>>();
    let nobody_takes_them = || {
        let neighbours = one.bus.publish_to_neighbours(offers(), &everybody);
        assert_eq!(texts(&neighbours.untaken), ["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"]);
    };
    nobody_takes_them();
    let mut tools = redis.connect();
    let mut tools = tools.as_pubsub();
    for pattern in ["*", "RayBox-*", "RayBox-user*", "__key*__:*"] {
        tools.psubscribe(pattern).expect("subscribe");
    }
    nobody_takes_them();

    let mut reference = redis.connect();
    let mut patterns = reference.as_pubsub();
    patterns.psubscribe("RayBox-user-*").expect("subscribe");
    two.welcome(BOB);
    two.bus.claim(&[BOB]).expect("claim");
    wait_until("the neighbour is noticed", || {
        let neighbours = one.bus.publish_to_neighbours(offers(), &everybody);
        // Bob is at one of our nodes, so his messages are for no neighbour, whatever his state
        // says.
        texts(&neighbours.taken) == ["{\"n\":1}", "{\"n\":3}"] && texts(&neighbours.untaken) == ["{\"n\":2}"]
    });
    for expected in ["{\"n\":1}", "{\"n\":3}"] {
        let message = loop {
            let message = patterns.get_message().expect("a message");
            // A message to user 0 only tests which nodes are subscribed.
            if message.get_channel_name() != "RayBox-user-0" {
                break message;
            }
        };
        assert_eq!(message.get_channel_name(), "RayBox-user-7");
        assert_eq!(message.get_payload::<String>().expect("text"), expected);
    }
    let offline = one.bus.publish_to_neighbours(offers(), &|_| Vec::new());
    assert_eq!(offline.taken.len(), 0, "nobody is online there");

    let published: u32 =
        redis::cmd("PUBLISH").arg("RayBox-user-8").arg("{\"n\":4}").query(&mut redis.connect()).expect("publish");
    assert_eq!(published, 3 + 2, "three tools, the neighbour, and the node that has the user");
    two.notes.wait_for(&Heard::Bare(BOB, "{\"n\":4}".to_owned()));
    drop(patterns);
    drop(reference);
    wait_until("the neighbour's end is noticed", || {
        one.bus.publish_to_neighbours(offers(), &everybody).taken.is_empty()
    });
}

#[test]
fn the_users_of_a_dead_node_are_looked_after_once() {
    let redis = Redis::start();
    let mut commands = redis.connect();
    let mut add = |key: &str, members: &[&str]| {
        redis::cmd("SADD").arg(key).arg(members).query::<u32>(&mut commands).expect("add");
    };
    add("raybox:on:dead", &["7", "8"]);
    add("raybox:nodes", &["dead"]);
    let peers = [Peer::start(&redis), Peer::start(&redis)];
    let count = |user| peers.iter().map(|peer| peer.notes.count(&Heard::Left(user))).sum::<usize>();
    wait_until("the users are looked after", || count(ANN) == 1 && count(BOB) == 1);
    wait_until("the node is forgotten", || {
        let nodes: HashSet<String> = redis::cmd("SMEMBERS").arg("raybox:nodes").query(&mut commands).expect("nodes");
        let left: u32 = redis::cmd("EXISTS").arg("raybox:on:dead").query(&mut commands).expect("exists");
        nodes.len() == 2 && !nodes.contains("dead") && left == 0
    });
    assert_eq!((count(ANN), count(BOB)), (1, 1));
    for peer in &peers {
        peer.bus.say_goodbye();
    }
    let nodes: u32 = redis::cmd("SCARD").arg("raybox:nodes").query(&mut commands).expect("nodes");
    assert_eq!(nodes, 0, "who leaves in order is not missed");
}

#[test]
fn the_register_is_in_the_database_that_is_asked_for() {
    let redis = Redis::start();
    let in_third = RedisSettings { db: 3, ..settings(&redis) };
    let (one, two) = (Peer::start_with(&in_third), Peer::start_with(&in_third));
    two.welcome(ANN);
    two.bus.claim(&[ANN]).expect("claim");
    assert_eq!(one.publish(ANN, 1, &["{}"]), Published::ToOne);
    one.notes.wait_for(&Heard::Confirmed(1));
    let mut commands = redis.connect();
    redis::cmd("SELECT").arg(3).query::<String>(&mut commands).expect("select");
    wait_until("both are registered", || {
        let nodes: u32 = redis::cmd("SCARD").arg("raybox:@3:nodes").query(&mut commands).expect("nodes");
        nodes == 2
    });
    let missing = RedisBus::open(&RedisSettings { db: 99, ..settings(&redis) });
    let refusal = missing.err().expect("there is no such database").to_string();
    assert!(refusal.contains("out of range"), "{refusal}");
}

#[test]
fn installations_on_one_redis_hear_nothing_of_each_other() {
    let redis = Redis::start();
    let named = |name: &str| RedisSettings { cluster_name: Some(name.to_owned()), ..settings(&redis) };
    let in_first = RedisSettings { db: 1, ..settings(&redis) };
    let all = [settings(&redis), in_first, named("blue"), named("green")];
    let all: Vec<_> = all.iter().map(|settings| (Peer::start_with(settings), Peer::start_with(settings))).collect();
    for (nth, (sender, recipient)) in all.iter().enumerate() {
        recipient.welcome(ANN);
        for (other, (one, two)) in all.iter().enumerate() {
            // The users after this one are not logged in yet.
            let expected = if other <= nth { Published::ToOne } else { Published::ToNobody };
            assert_eq!(
                one.publish(ANN, nth as u64 + 1, &[&format!("{{\"of\":{other}}}")]),
                expected,
                "{other} at {nth}"
            );
            let strange =
                |heard: &Heard| matches!(heard, Heard::Envelope(_, text) if !text.contains(&other.to_string()));
            assert!(!two.notes.heard.lock().expect("notes").iter().any(strange));
        }
        sender.bus.group_changed(GroupId(nth as i32));
        recipient.notes.wait_for(&Heard::Group(GroupId(nth as i32)));
    }
    for (nth, (_, recipient)) in all.iter().enumerate() {
        let groups = (0..4).filter(|group| recipient.notes.count(&Heard::Group(GroupId(*group))) > 0);
        assert!(groups.eq([nth as i32]), "of its own installation alone");
    }
    let publish = || redis::cmd("PUBLISH").arg("RayBox-user-7").arg("{}").query::<u32>(&mut redis.connect());
    assert_eq!(publish(), Ok(1), "the channels of the reference server are of the installation without a name");
    let willing = RedisSettings { cpp_nodes: Some(true), ..named("red") };
    let willing = Peer::start_with(&willing);
    willing.welcome(ANN);
    assert_eq!(publish(), Ok(2), "unless another one says so");
    willing.notes.wait_for(&Heard::Bare(ANN, "{}".to_owned()));
}

#[test]
fn only_the_first_node_is_the_first() {
    let redis = Redis::start();
    let first = RedisBus::open(&settings(&redis)).expect("Redis is there");
    let second = RedisBus::open(&settings(&redis)).expect("Redis is there");
    assert!(first.is_first());
    assert!(!second.is_first(), "they start in the same moment");
    redis::cmd("DEL").arg("raybox:first").query::<u32>(&mut redis.connect()).expect("delete");
    let _running = Peer::start(&redis);
    assert!(!second.is_first(), "another one is there");
}
