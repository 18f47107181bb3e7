//! The bus of a cluster, on a real Redis, with nodes that only record their events.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use net::Turn;
use raybox::base::ids::FrameId;
use raybox::bus::redis::RedisBus;
use raybox::bus::{
    BusHealth, DeviceNews, Envelope, Exchange, Frames, Node, Place, Published, Publisher, Receipt, ReferenceNodes,
    Register,
};
use raybox::config::{RedisSettings, Secret};
use raybox::delivery::{Comeback, Delivery, Origin, Posted};
use raybox::protocol::{GroupId, UserId};
use testkit::{LONG_PATIENCE, PATIENCE, wait_until, wait_within};
use testkit::{Redis, Switch};

/// Records the events of its node.
#[derive(Default)]
struct Notes {
    /// Users whose messages find them here; messages for others find nobody.
    here: Mutex<HashSet<UserId>>,
    heard: Mutex<Vec<Heard>>,
    refused: Mutex<Vec<Receipt>>,
    /// Where the last confirmation says that the user is.
    place: Mutex<Option<Place>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Heard {
    Envelope(UserId, String),
    Returned(UserId, String),
    Bare(UserId, String),
    Confirmed(u64),
    Refused(u64, usize),
    Left(UserId),
    Elsewhere(UserId),
    Group(GroupId),
    Rejoined,
}

impl Notes {
    fn note(&self, heard: Heard) {
        self.heard.lock().expect("notes").push(heard);
    }

    fn wait_for(&self, heard: &Heard) {
        wait_until(&format!("{heard:?}"), || self.heard.lock().expect("notes").contains(heard));
    }

    fn last_place(&self) -> Option<Place> {
        self.place.lock().expect("notes").clone()
    }

    fn count(&self, heard: &Heard) -> usize {
        self.heard.lock().expect("notes").iter().filter(|other| *other == heard).count()
    }
}

impl Node for Notes {
    fn on_envelope(&self, _: &mut Turn<Posted>, to: UserId, frames: Frames<'_>, receipt: &dyn Fn() -> Receipt) -> bool {
        self.note(Heard::Envelope(to, frames.collect::<Vec<_>>().join("\n")));
        let is_here = self.here.lock().expect("notes").contains(&to);
        if !is_here {
            self.refused.lock().expect("notes").push(receipt());
        }
        is_here
    }

    fn on_returned(&self, _: &mut Turn<Posted>, to: UserId, frames: Frames<'_>, _: &dyn Fn() -> Receipt) -> bool {
        self.note(Heard::Returned(to, frames.collect::<Vec<_>>().join("\n")));
        true
    }

    fn on_bare(&self, _: &mut Turn<Posted>, to: UserId, frame: &str) {
        self.note(Heard::Bare(to, frame.to_owned()));
    }

    fn on_confirmed(&self, place: Option<Place>, sequences: Vec<u64>) {
        *self.place.lock().expect("notes") = place;
        sequences.into_iter().for_each(|sequence| self.note(Heard::Confirmed(sequence)));
    }

    fn on_refused(&self, sequence: u64, delivered: usize) {
        self.note(Heard::Refused(sequence, delivered));
    }

    fn on_left(&self, user: UserId) {
        self.note(Heard::Left(user));
    }

    fn on_elsewhere(&self, _: &mut Turn<Posted>, user: UserId) {
        self.note(Heard::Elsewhere(user));
    }

    fn on_died(&self, users: &[UserId]) -> bool {
        users.iter().for_each(|user| self.note(Heard::Left(*user)));
        true
    }

    fn online_after(&self, _: UserId, _: usize) -> Option<Vec<UserId>> {
        Some(Vec::new())
    }

    fn on_device_news(&self, _: DeviceNews) {}

    fn on_group_changed(&self, group: GroupId) {
        self.note(Heard::Group(group));
    }

    fn on_rejoined(&self) -> Vec<UserId> {
        self.note(Heard::Rejoined);
        self.here.lock().expect("notes").iter().copied().collect()
    }
}

/// A node that has started.
struct Peer {
    bus: RedisBus,
    notes: Arc<Notes>,
}

impl Peer {
    fn start(redis: &Redis) -> Peer {
        Peer::start_with(&settings(redis))
    }

    fn start_with(settings: &RedisSettings) -> Peer {
        let bus = RedisBus::open(settings).expect("Redis is there");
        let notes = Arc::new(Notes::default());
        bus.start(notes.clone()).expect("threads");
        assert!(bus.is_ready(), "a start waits for the first probe");
        Peer { bus, notes }
    }

    /// `user` logs in at this node, and the other nodes know.
    fn welcome(&self, user: UserId) {
        self.notes.here.lock().expect("notes").insert(user);
        self.bus.subscribe(user, None);
        wait_until("a subscription", || self.bus.elsewhere(&[user]) == Ok(vec![user]));
    }

    fn publish(&self, to: UserId, sequence: u64, texts: &[&str]) -> Published {
        self.publish_at(None, to, sequence, texts)
    }

    fn publish_at(&self, place: Option<Place>, to: UserId, sequence: u64, texts: &[&str]) -> Published {
        let deliveries = texts.iter().map(|text| delivery(to, text)).collect();
        self.bus.publish(&[Envelope { to, place, sequence, is_returned: false, deliveries }])[0]
    }

    /// Where the user is, as a message for them finds out.
    fn find(&self, user: UserId, sequence: u64) -> Place {
        assert_eq!(self.publish(user, sequence, &["{}"]), Published::ToOne);
        self.notes.wait_for(&Heard::Confirmed(sequence));
        self.notes.last_place().expect("a node says where it is")
    }

    /// `user` logs out from this node.
    fn leave(&self, user: UserId) {
        self.notes.here.lock().expect("notes").remove(&user);
        let left = self.notes.count(&Heard::Left(user));
        self.bus.unsubscribe(user);
        wait_until("nothing comes any more", || self.notes.count(&Heard::Left(user)) > left);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.bus.stop(Instant::now() + LONG_PATIENCE);
    }
}

fn settings(redis: &Redis) -> RedisSettings {
    settings_at(redis.address())
}

fn settings_at(address: SocketAddr) -> RedisSettings {
    let wait_timeout = Duration::from_secs(1);
    RedisSettings { wait_timeout, ..RedisSettings::at(&address.ip().to_string(), address.port()) }
}

fn delivery(to: UserId, text: &str) -> Delivery {
    Delivery::new(to, text.into(), Origin::Returned(FrameId::UNNAMED, Comeback::InOrder))
}

fn wait_until_both_want_ann(redis: &Redis) {
    wait_until("both want them", || listeners(redis, "raybox:u:7") == 2);
}

/// The number of subscribers to a channel.
fn listeners(redis: &Redis, channel: &str) -> u32 {
    let ask = redis::cmd("PUBSUB").arg("NUMSUB").arg(channel).query::<(String, u32)>(&mut redis.connect());
    ask.expect("ask").1
}

const ANN: UserId = UserId(7);
const BOB: UserId = UserId(8);

#[test]
fn an_envelope_reaches_the_node_that_has_its_user_and_is_confirmed() {
    let redis = Redis::start();
    let (one, two, three) = (Peer::start(&redis), Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    assert_eq!(one.publish(ANN, 41, &["{\"a\":1}", "{}"]), Published::ToOne);
    two.notes.wait_for(&Heard::Envelope(ANN, "{\"a\":1}\n{}".to_owned()));
    one.notes.wait_for(&Heard::Confirmed(41));
    assert_eq!(one.publish(BOB, 42, &["{}"]), Published::ToNobody);
    // The third node's next event is its first: no envelope reached it.
    one.bus.group_changed(GroupId(3));
    three.notes.wait_for(&Heard::Group(GroupId(3)));
    let heard = three.notes.heard.lock().expect("notes");
    let heard: Vec<_> = heard.iter().filter(|heard| **heard != Heard::Rejoined).collect();
    assert_eq!(heard, [&Heard::Group(GroupId(3))]);
}

#[test]
fn returned_messages_come_as_such_and_are_confirmed() {
    let redis = Redis::start();
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    one.welcome(ANN);
    two.welcome(ANN);
    wait_until_both_want_ann(&redis);
    let deliveries = vec![delivery(ANN, "{}")];
    let envelope = Envelope { to: ANN, place: None, sequence: 43, is_returned: true, deliveries };
    assert_eq!(one.bus.publish(&[envelope]), [Published::Taken(2)]);
    two.notes.wait_for(&Heard::Returned(ANN, "{}".to_owned()));
    one.notes.wait_for(&Heard::Confirmed(43));
    one.notes.wait_for(&Heard::Refused(43, 0));
}

#[test]
fn envelopes_for_a_place_go_there_in_one_message_with_each_text_once() {
    let redis = Redis::start();
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    two.welcome(BOB);
    let place = one.find(ANN, 1);
    let text: Arc<str> = "{\"g\":1}".into();
    let envelopes = [(ANN, 2), (BOB, 3)].map(|(to, sequence)| {
        let deliveries = vec![Delivery::new(to, text.clone(), Origin::Returned(FrameId::UNNAMED, Comeback::InOrder))];
        Envelope { to, place: Some(place.clone()), sequence, is_returned: false, deliveries }
    });
    let watched = redis.watch_published();
    assert_eq!(one.bus.publish(&envelopes), [Published::Taken(1); 2]);
    for (user, sequence) in [(ANN, 2), (BOB, 3)] {
        two.notes.wait_for(&Heard::Envelope(user, text.to_string()));
        one.notes.wait_for(&Heard::Confirmed(sequence));
    }
    const END: &str = "raybox-test-end";
    let _: usize = redis::cmd("PUBLISH").arg(END).arg("e").query(&mut redis.connect()).expect("publish the end");
    let to_place = watched.take_while(|(channel, _)| channel != END).filter(|(_, payload)| payload.starts_with("1 "));
    let to_place: Vec<_> = to_place.collect();
    assert_eq!(to_place.len(), 1, "{to_place:?}");
    assert_eq!(to_place[0].1.matches("g").count(), 1, "{to_place:?}");
}

#[test]
fn a_user_who_has_left_and_come_again_may_be_elsewhere_and_has_no_place_for_a_while() {
    let redis = Redis::start();
    let (one, two, three) = (Peer::start(&redis), Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    let place = one.find(ANN, 1);
    two.leave(ANN);
    // The second node does not receive this announcement.
    three.welcome(ANN);
    two.welcome(ANN);
    wait_until_both_want_ann(&redis);
    assert_eq!(one.publish_at(Some(place), ANN, 2, &["{}"]), Published::Taken(1));
    one.notes.wait_for(&Heard::Refused(2, 0));
    three.leave(ANN);
    assert_eq!(one.publish(ANN, 3, &["{}"]), Published::ToOne);
    one.notes.wait_for(&Heard::Confirmed(3));
    assert_eq!(one.notes.last_place(), None, "somebody may still think that it was alone before");
}

#[test]
fn a_place_refuses_what_is_for_a_user_who_has_come_elsewhere_too() {
    let redis = Redis::start();
    let (one, two, three) = (Peer::start(&redis), Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    let place = one.find(ANN, 1);
    assert_eq!(one.publish_at(Some(place.clone()), ANN, 2, &["{}"]), Published::Taken(1));
    one.notes.wait_for(&Heard::Confirmed(2));
    three.welcome(ANN);
    // The announcement of node three arrives before what node one sends after it.
    wait_until("three has said that it has the user too", || {
        one.publish_at(Some(place.clone()), ANN, 3, &["{\"alone\":true}"]);
        one.notes.count(&Heard::Refused(3, 0)) > 0
    });
    assert_eq!(one.publish(ANN, 4, &["{\"both\":1}"]), Published::Taken(2));
    for peer in [&two, &three] {
        peer.notes.wait_for(&Heard::Envelope(ANN, "{\"both\":1}".to_owned()));
    }
}

#[test]
fn a_node_that_has_lost_its_connection_is_another_place() {
    let redis = Redis::start();
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    let place = one.find(ANN, 1);
    let rejoined = two.notes.count(&Heard::Rejoined);
    let kill = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").query::<u32>(&mut redis.connect());
    assert_eq!(kill, Ok(2), "both nodes listen");
    wait_until("both are back", || two.notes.count(&Heard::Rejoined) >= rejoined + 2 && one.bus.is_ready());
    wait_until("the user is wanted again", || one.bus.elsewhere(&[ANN]) == Ok(vec![ANN]));
    assert_eq!(one.publish_at(Some(place.clone()), ANN, 2, &["{}"]), Published::ToNobody);
    assert_ne!(one.find(ANN, 3), place);
}

#[test]
fn an_envelope_that_finds_nobody_is_refused_and_not_confirmed() {
    let redis = Redis::start();
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    two.notes.here.lock().expect("notes").clear();
    assert_eq!(one.publish(ANN, 1, &["{}"]), Published::ToOne);
    wait_until("it has come", || !two.notes.refused.lock().expect("notes").is_empty());
    let receipt = two.notes.refused.lock().expect("notes").remove(0);
    two.bus.refuse(receipt, 3);
    one.notes.wait_for(&Heard::Refused(1, 3));
    two.welcome(ANN);
    assert_eq!(one.publish(ANN, 2, &["{}"]), Published::ToOne);
    one.notes.wait_for(&Heard::Confirmed(2));
    assert_eq!(one.notes.count(&Heard::Confirmed(1)), 0);
}

#[test]
fn a_node_does_not_deliver_its_own_envelope() {
    let redis = Redis::start();
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    one.welcome(ANN);
    assert_eq!(one.publish(ANN, 1, &["{}"]), Published::ToOne);
    one.notes.wait_for(&Heard::Refused(1, 0));
    two.welcome(ANN);
    wait_until_both_want_ann(&redis);
    assert_eq!(one.publish(ANN, 2, &["{}"]), Published::Taken(2));
    one.notes.wait_for(&Heard::Confirmed(2));
    one.notes.wait_for(&Heard::Refused(2, 0));
    assert_eq!(one.notes.count(&Heard::Envelope(ANN, "{}".to_owned())), 0);
}

#[test]
fn a_user_who_has_left_is_wanted_by_nobody() {
    let redis = Redis::start();
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    two.welcome(BOB);
    two.bus.unsubscribe(ANN);
    two.notes.wait_for(&Heard::Left(ANN));
    assert_eq!(one.publish(ANN, 1, &["{}"]), Published::ToNobody);
    assert_eq!(one.publish(BOB, 2, &["{}"]), Published::ToOne);
    // Logins and logouts are processed in their order.
    for _ in 0..50 {
        two.bus.unsubscribe(BOB);
        two.bus.subscribe(BOB, None);
    }
    two.bus.subscribe(ANN, None);
    wait_until("all is done", || one.bus.elsewhere(&[ANN, BOB]) == Ok(vec![ANN, BOB]));
}

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
        // Bob is with a node of ours, so his messages are for no neighbour, whatever his state
        // says.
        texts(&neighbours.taken) == ["{\"n\":1}", "{\"n\":3}"] && texts(&neighbours.untaken) == ["{\"n\":2}"]
    });
    for expected in ["{\"n\":1}", "{\"n\":3}"] {
        let message = loop {
            let message = patterns.get_message().expect("a message");
            // A message for nobody only tests who listens.
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

#[test]
fn a_killed_redis_is_noticed_and_its_return_too() {
    let mut redis = Redis::start();
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    redis.kill();
    wait_until("it is noticed", || !one.bus.is_ready() && !two.bus.is_ready());
    assert_eq!(one.publish(ANN, 1, &["{}"]), Published::ToNobody);
    two.bus.unsubscribe(BOB);
    two.notes.wait_for(&Heard::Left(BOB));
    redis.restart();
    wait_until("it works again", || one.bus.is_ready() && two.bus.is_ready());
    assert_eq!(one.publish(ANN, 2, &["{}"]), Published::ToOne, "who was here is subscribed to");
    one.notes.wait_for(&Heard::Confirmed(2));
    assert!(two.notes.count(&Heard::Rejoined) > 1);
}

#[test]
fn a_stopped_redis_is_noticed_without_any_traffic() {
    let redis = Redis::start();
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    redis.stop();
    wait_until("it is noticed", || !one.bus.is_ready() && !two.bus.is_ready());
    assert_eq!(one.publish(ANN, 1, &["{}"]), Published::ToNobody);
    redis.cont();
    wait_within(LONG_PATIENCE, "it works again", || one.bus.is_ready() && two.bus.is_ready());
    // A node that has been ready on its old connection may still replace it.
    let mut sequence = 1;
    wait_within(LONG_PATIENCE, "ann is reached again", || {
        sequence += 1;
        one.publish(ANN, sequence, &["{}"]) == Published::ToOne
    });
    one.notes.wait_for(&Heard::Confirmed(sequence));
}

#[test]
fn a_stopped_redis_leaves_what_is_published_in_doubt() {
    let redis = Redis::start();
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    redis.stop();
    assert_eq!(one.publish(ANN, 1, &["{}"]), Published::InDoubt, "it may come yet");
    assert_eq!(one.publish(ANN, 2, &["{}"]), Published::ToNobody, "and nothing more is tried");
    redis.cont();
    wait_within(LONG_PATIENCE, "it works again", || one.bus.is_ready() && two.bus.is_ready());
}

#[test]
fn many_commands_to_a_stopped_redis_cost_the_time_of_one() {
    const USERS: i32 = 100;
    let redis = Redis::start();
    let one = Peer::start(&redis);
    redis.stop();
    let envelope = |n: i32| {
        let to = UserId(n);
        Envelope {
            to,
            place: None,
            sequence: n.unsigned_abs().into(),
            is_returned: false,
            deliveries: vec![delivery(to, "{}")],
        }
    };
    let envelopes: Vec<_> = (1..=USERS).map(envelope).collect();
    let users: Vec<_> = (1..=USERS).map(UserId).collect();
    let (done, is_done) = mpsc::channel();
    thread::scope(|scope| {
        let bus = &one.bus;
        scope.spawn(move || {
            let published = bus.publish(&envelopes);
            // From now on Redis is not asked.
            let asked: Vec<_> = users.iter().map(|user| bus.elsewhere(&[*user])).collect();
            done.send((published, asked)).expect("the test waits");
        });
        // One timeout for each of them would add up to minutes.
        let (published, asked) = is_done.recv_timeout(PATIENCE).expect("it gives up");
        assert!(published.iter().all(|published| *published == Published::InDoubt));
        assert!(asked.iter().all(Result::is_err));
    });
    redis.cont();
    wait_within(LONG_PATIENCE, "it works again", || one.bus.is_ready());
}

#[test]
fn a_node_stops_in_time_while_redis_stands_still() {
    let redis = Redis::start();
    let one = Peer::start(&redis);
    redis.stop();
    let (done, is_done) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("it is noticed", || !one.bus.is_ready());
            let by = Instant::now();
            one.bus.hush();
            one.bus.stop(by);
            one.bus.say_goodbye();
            done.send(()).expect("the test waits");
        });
        is_done.recv_timeout(2 * PATIENCE).expect("it does not wait for Redis");
    });
    redis.cont();
}

#[test]
fn connections_that_redis_closes_because_they_are_idle_are_no_outage() {
    const THREADS: i32 = 4;
    let redis = Redis::start_with(&["--timeout", "1"]);
    let settings = RedisSettings { size: THREADS.unsigned_abs(), ..settings(&redis) };
    let (one, two) = (Peer::start_with(&settings), Peer::start_with(&settings));
    two.welcome(ANN);
    let rejoined = one.notes.count(&Heard::Rejoined);
    let quiet = redis.connections();
    for round in 0..3 {
        // Many at the same time, so that each uses a connection of its own.
        let publish = |n: i32| {
            for nth in 0..50 {
                let sequence = (round * 10_000 + n * 100 + nth).unsigned_abs().into();
                assert_eq!(one.publish(ANN, sequence, &["{}"]), Published::ToOne);
                one.notes.wait_for(&Heard::Confirmed(sequence));
            }
        };
        thread::scope(|scope| (0..THREADS).for_each(|n| drop(scope.spawn(move || publish(n)))));
        wait_until("Redis has closed what is idle", || redis.connections() <= quiet);
    }
    assert_eq!(one.notes.count(&Heard::Rejoined), rejoined, "no connection of the bus was given up");
    assert!(one.bus.is_ready());
}

#[test]
fn nodes_go_where_new_connections_lead() {
    let (old, new) = (Redis::start(), Redis::start());
    let switch = Switch::to(old.address());
    let settings = settings_at(switch.address());
    let (one, two) = (Peer::start_with(&settings), Peer::start_with(&settings));
    two.welcome(ANN);
    // The old server still runs, and connections to it stay.
    switch.turn(new.address());
    wait_until("both listen on the new one", || listeners(&new, "raybox:u:7") == 1 && listeners(&new, "raybox:g") == 2);
    wait_until("both are ready", || one.bus.is_ready() && two.bus.is_ready());
    assert_eq!(listeners(&old, "raybox:g"), 0);
    assert_eq!(one.publish(ANN, 1, &["{}"]), Published::ToOne);
    one.notes.wait_for(&Heard::Confirmed(1));
}

#[test]
fn subscriptions_follow_the_connections_for_commands_to_another_redis() {
    let (old, new) = (Redis::start(), Redis::start());
    let switch = Switch::to(old.address());
    let settings = settings_at(switch.address());
    let (one, two) = (Peer::start_with(&settings), Peer::start_with(&settings));
    two.welcome(ANN);
    switch.turn(new.address());
    // Ends the connections for commands; those that subscribe stay.
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").query::<u32>(&mut old.connect()).expect("kill");
    let mut sequence = 0;
    wait_until("messages are live again", || {
        sequence += 1;
        one.publish(ANN, sequence, &["{}"]) == Published::ToOne
    });
    one.notes.wait_for(&Heard::Confirmed(sequence));
    assert_eq!((listeners(&old, "raybox:g"), listeners(&new, "raybox:g")), (0, 2));
}

#[test]
fn a_primary_that_becomes_a_replica_is_left_though_its_connections_stay() {
    let (old, new) = (Redis::start(), Redis::start());
    let switch = Switch::to(old.address());
    let settings = settings_at(switch.address());
    let (one, two) = (Peer::start_with(&settings), Peer::start_with(&settings));
    two.welcome(ANN);
    old.follow(&new);
    wait_until("it is noticed", || !one.bus.is_ready() && !two.bus.is_ready());
    // A replica would accept the message, and deliver it only to those who subscribe at the
    // replica.
    assert_eq!(one.publish(ANN, 1, &["{}"]), Published::ToNobody);
    let refusal = RedisBus::open(&settings).err().expect("a node does not start there").to_string();
    assert!(refusal.contains("it is a replica"), "{refusal}");
    switch.turn(new.address());
    wait_until("both are on the new one", || one.bus.is_ready() && two.bus.is_ready());
    wait_until("the user is wanted there", || one.bus.elsewhere(&[ANN]) == Ok(vec![ANN]));
    assert_eq!(one.publish(ANN, 2, &["{}"]), Published::ToOne);
    one.notes.wait_for(&Heard::Confirmed(2));
}

#[test]
fn a_node_needs_no_more_rights_than_documented() {
    let redis = Redis::start();
    let rights = "resetkeys ~raybox:* resetchannels &raybox:* &RayBox-user* -@all +@pubsub +@set +@string +@connection +@keyspace";
    assert!(include_str!("../docs/cluster.md").contains(rights), "this is what docs/cluster.md says");
    let mut set_user = redis::cmd("ACL");
    set_user.arg("SETUSER").arg("raybox").arg("on").arg(">secret").arg(rights.split(' ').collect::<Vec<_>>());
    set_user.query::<()>(&mut redis.connect()).expect("make a user");
    let login = (Some("raybox".to_owned()), Some(Secret::new("secret")));
    let restricted = RedisSettings { username: login.0, password: login.1, ..settings(&redis) };
    let (one, two) = (Peer::start_with(&restricted), Peer::start_with(&restricted));
    two.welcome(ANN);
    two.bus.claim(&[ANN]).expect("claim");
    assert_eq!(one.publish(ANN, 1, &["{}"]), Published::ToOne);
    one.notes.wait_for(&Heard::Confirmed(1));
    let other = Redis::start();
    redis.follow(&other);
    wait_until("it sees the role", || !one.bus.is_ready() && RedisBus::open(&restricted).is_err());
}

#[test]
fn a_redis_that_is_not_there_or_refuses_is_named() {
    let redis = Redis::start();
    let secured =
        redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("secret").query::<String>(&mut redis.connect());
    secured.expect("set a password");
    let refusal = |settings: &RedisSettings| match RedisBus::open(settings) {
        Ok(_) => panic!("it must be refused"),
        Err(error) => error.to_string(),
    };
    let mut settings = settings(&redis);
    let begin = format!("redis.cnf: Redis at {}: ", redis.address());
    let text = refusal(&settings);
    assert!(text.starts_with(&begin) && text.contains("NOAUTH"), "{text}");
    settings.password = Some(Secret::new("wrong"));
    let text = refusal(&settings);
    assert!(text.contains("WRONGPASS") && !text.contains("wrong;"), "{text}");
    settings.password = Some(Secret::new("secret"));
    let bus = RedisBus::open(&settings).expect("the password is right");
    bus.start(Arc::new(Notes::default())).expect("threads");
    assert!(bus.is_ready());
    bus.stop(Instant::now() + LONG_PATIENCE);
    settings.port = testkit::free_port();
    let text = refusal(&settings);
    assert!(text.contains("onnection refused") && text.contains("start it"), "{text}");
}
