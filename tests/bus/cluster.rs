//! A Redis Cluster: channels on all primaries, slots that move, and primaries that fail.

use std::net::TcpListener;
use std::time::Duration;

use raybox::bus::Published;
use raybox::bus::redis::ClusterBus;
use raybox::config::{RedisPlace, RedisSettings, ServerAddress};
use raybox::protocol::{GroupId, UserId};
use testkit::{LONG_PATIENCE, ShardedRedis, wait_until, wait_within};

use crate::peer::{ANN, BOB, Heard, Notes, Peer};

#[test]
fn users_of_all_primaries_are_reached() {
    let redis = ShardedRedis::start();
    let (one, two) = (start(&redis), start(&redis));
    let users: Vec<UserId> = (1..=30).map(UserId).collect();
    let mut owners: Vec<usize> = users.iter().map(|user| redis.owner(&channel(*user), 0)).collect();
    owners.sort_unstable();
    owners.dedup();
    assert_eq!(owners, [0, 1, 2], "the users' channels are on all primaries");
    for (sequence, user) in (1..).zip(&users) {
        two.welcome(*user);
        assert_eq!(one.publish(*user, sequence, &["{\"a\":1}", "{}"]), Published::ToOne);
        two.notes.wait_for(&Heard::Envelope(*user, "{\"a\":1}\n{}".to_owned()));
        one.notes.wait_for(&Heard::Confirmed(sequence));
    }
    assert_eq!(one.notes.last_place(), None, "all messages for a user take the user's channel, in one order");
    one.bus.group_changed(GroupId(3));
    two.notes.wait_for(&Heard::Group(GroupId(3)));
    // A login at another node is announced.
    one.welcome(ANN);
    two.notes.wait_for(&Heard::Elsewhere(ANN));
    two.leave(ANN);
    two.leave(BOB);
    assert_eq!(one.publish(BOB, 102, &["{}"]), Published::ToNobody);
    assert_eq!(one.bus.elsewhere(&[ANN, BOB, UserId(30)]), Ok(vec![ANN, UserId(30)]));
}

#[test]
fn a_node_starts_although_the_servers_that_are_named_first_do_not_answer() {
    let redis = ShardedRedis::start();
    // They accept connections, and say nothing.
    let frozen = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let silent = frozen.iter().map(|listener| listener.local_addr().expect("an address").port());
    let named = silent.chain([redis.ports()[4]]).map(|port| ServerAddress::new("127.0.0.1", port)).collect();
    let settings = RedisSettings { place: RedisPlace::Cluster(named), ..settings(&redis) };
    let one = Peer::start_with(&settings);
    one.welcome(ANN);
    assert_eq!(raybox::bus::redis::survey(&settings).expect("it finds the cluster").nodes, 1);
}

#[test]
fn a_node_that_dies_leaves_its_users_to_the_others() {
    let redis = ShardedRedis::start();
    let (one, two) = (start(&redis), start(&redis));
    two.bus.claim(&[ANN, BOB]).expect("the register is there");
    two.bus.disclaim(&[BOB]).expect("the register is there");
    drop(two);
    one.notes.wait_for(&Heard::Left(ANN));
    assert_eq!(one.notes.count(&Heard::Left(BOB)), 0);
}

#[test]
fn a_slot_that_moves_takes_its_users_along() {
    let redis = ShardedRedis::start();
    let (one, two) = (start(&redis), start(&redis));
    two.welcome(ANN);
    two.welcome(BOB);
    reach(&one, ANN, 1);
    let rejoined = || [&one, &two].map(|peer| peer.notes.count(&Heard::Rejoined));
    let before = rejoined();
    let from = redis.owner(&channel(ANN), 0);
    redis.move_slot(&channel(ANN), (from + 1) % 3);
    wait_until("ann is subscribed at the new primary", || redis.listeners(&channel(ANN)) == 1);
    // The publishing node learns of the move by the answer.
    assert_eq!(one.publish(ANN, 3, &["{}"]), Published::ToOne);
    one.notes.wait_for(&Heard::Confirmed(3));
    assert_eq!(one.publish(BOB, 4, &["{}"]), Published::ToOne);
    one.notes.wait_for(&Heard::Confirmed(4));
    // A login after the move is subscribed there, too, though no node has asked for the table.
    one.welcome(ANN);
    two.notes.wait_for(&Heard::Elsewhere(ANN));
    two.leave(ANN);
    assert_eq!(redis.listeners(&channel(ANN)), 1);
    assert_eq!(rejoined(), before, "no connection was replaced");
}

#[test]
fn the_register_is_used_while_its_slot_moves() {
    let redis = ShardedRedis::start();
    let (one, two) = (start(&redis), start(&redis));
    two.bus.claim(&[ANN, BOB]).expect("the register is there");
    let to = (redis.owner(REGISTER, 0) + 1) % 3;
    let from = redis.begin_move(REGISTER, to);
    redis.move_key(&format!("{REGISTER}nodes"), from, to);
    one.bus.claim(&[ANN]).expect("a set is created where the slot goes");
    two.bus.disclaim(&[BOB]).expect("a set is changed where it still is");
    // Its death is read from both.
    drop(two);
    one.notes.wait_for(&Heard::Left(ANN));
    assert_eq!(one.notes.count(&Heard::Left(BOB)), 0);
    redis.end_move(REGISTER, from, to);
    one.bus.claim(&[BOB]).expect("the register is there");
    let own = format!("{REGISTER}on:{}", one.bus.own_name());
    let users = redis::cmd("SMEMBERS").arg(own).query::<Vec<i32>>(&mut redis.servers[to].connect());
    assert_eq!(users.expect("ask for the users"), [ANN.0, BOB.0]);
    assert_eq!(one.notes.count(&Heard::Rejoined), 2, "no connection was replaced");
}

#[test]
fn servers_may_be_announced_by_name_or_by_port_alone() {
    let redis = ShardedRedis::start();
    let endpoint = |kind| ["cluster-preferred-endpoint-type", kind];
    let hostname = |name| ["cluster-announce-hostname", name];
    for (settings, host) in [
        (vec![["cluster-announce-ip", "::ffff:127.0.0.1"]], Some("::ffff:127.0.0.1")),
        (vec![hostname("localhost"), endpoint("hostname")], Some("localhost")),
        (vec![endpoint("unknown-endpoint")], None),
    ] {
        redis.announce(&settings, host);
        let (one, two) = (start(&redis), start(&redis));
        for (sequence, primary) in (1..).zip(0..3) {
            let user = user_at(&redis, primary);
            two.welcome(user);
            reach(&one, user, sequence);
        }
        let user = user_at(&redis, 0);
        redis.move_slot(&channel(user), 1);
        wait_until("the user is subscribed at the new primary", || redis.listeners(&channel(user)) == 1);
        reach(&one, user, 4);
        assert_eq!(one.notes.count(&Heard::Rejoined), 2, "no connection was replaced: {host:?}");
        redis.move_slot(&channel(user), 0);
    }
    // Hosts that are to be announced, and are not known.
    redis.announce(&[hostname(""), endpoint("hostname")], Some("?"));
    let settings = settings(&redis);
    let RedisPlace::Cluster(named) = &settings.place else { unreachable!("a cluster") };
    let refused = ClusterBus::open(&settings, named).map(drop).expect_err("no address is known").to_string();
    assert!(refused.contains("cluster-announce-hostname"), "{refused}");
}

#[test]
fn a_primary_that_refuses_connections_costs_no_other_user_a_message() {
    let redis = ShardedRedis::start();
    // The pools dial for each command.
    let settings = RedisSettings { idle_timeout: Duration::ZERO, ..settings(&redis) };
    let (one, two) = (Peer::start_with(&settings), Peer::start_with(&settings));
    let full = (redis.owner(REGISTER, 0) + 1) % 3;
    let (there, elsewhere) = (user_at(&redis, full), user_at(&redis, (full + 1) % 3));
    two.welcome(there);
    two.welcome(elsewhere);
    let rejoined = || [&one, &two].map(|peer| peer.notes.count(&Heard::Rejoined));
    let before = rejoined();
    let mut admin = redis.servers[full].connect();
    let mut allow = |clients: &str| {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("maxclients").arg(clients).exec(&mut admin).expect("set the number of clients");
    };
    allow("1");
    for sequence in [1, 3, 5] {
        assert_eq!(one.publish(there, sequence, &["{}"]), Published::ToNobody);
        reach(&one, elsewhere, sequence + 1);
    }
    allow("1000");
    let mut sequences = 7..;
    wait_until("its users are reached again", || {
        sequences.next().is_some_and(|sequence| one.publish(there, sequence, &["{}"]) == Published::ToOne)
    });
    assert_eq!(rejoined(), before, "no connection was replaced");
}

#[test]
fn a_frozen_primary_delays_no_message_for_users_of_others() {
    let redis = ShardedRedis::start();
    let (one, two) = (start(&redis), start(&redis));
    let users = [0, 2].map(|primary| user_at(&redis, primary));
    let [there, elsewhere] = users;
    two.welcome(there);
    two.welcome(elsewhere);
    redis.servers[0].stop();
    let published = one.publish_to_all(&users);
    assert_ne!(published[0], Published::ToOne);
    assert_eq!(published[1], Published::ToOne);
    two.notes.wait_for(&Heard::Envelope(elsewhere, "{}".to_owned()));
    redis.servers[0].cont();
    wait_until("its users are reached again", || one.publish(there, 3, &["{}"]) == Published::ToOne);
}

#[test]
fn a_slot_of_a_nodes_own_channels_that_moves_makes_it_another_place() {
    let redis = ShardedRedis::start();
    let two = start(&redis);
    let of_place = redis.channels("raybox:p:*").pop().expect("a node has a place");
    let one = start(&redis);
    two.welcome(ANN);
    reach(&one, ANN, 1);
    let rejoined = two.notes.count(&Heard::Rejoined);
    redis.move_slot(&of_place, (redis.owner(&of_place, 0) + 1) % 3);
    wait_until("the node has connected again", || two.notes.count(&Heard::Rejoined) > rejoined);
    wait_until("it is ready", || two.bus.is_ready());
    wait_until("the old place is gone", || redis.listeners(&of_place) == 0);
    reach(&one, ANN, 2);
}

#[test]
fn a_killed_primary_is_replaced_by_its_replica() {
    let mut redis = ShardedRedis::start();
    let (one, two) = (start(&redis), start(&redis));
    two.welcome(ANN);
    reach(&one, ANN, 1);
    let owner = redis.owner(&channel(ANN), 0);
    redis.expect_faults();
    redis.servers[owner].kill();
    wait_noticed([&one, &two]);
    assert_eq!(one.publish(ANN, 2, &["{}"]), Published::ToNobody);
    wait_within(LONG_PATIENCE, "the replica is used", || one.bus.is_ready() && two.bus.is_ready());
    reach(&one, ANN, 3);
    redis.servers[owner].restart();
    redis.wait_whole();
    // The old primary is a replica now, and takes nothing over.
    reach(&one, ANN, 4);
    assert!(one.bus.is_ready() && two.bus.is_ready());
}

#[test]
fn a_frozen_primary_is_replaced_by_its_replica() {
    let redis = ShardedRedis::start();
    let (one, two) = (start(&redis), start(&redis));
    two.welcome(ANN);
    reach(&one, ANN, 1);
    let owner = redis.owner(&channel(ANN), 0);
    redis.expect_faults();
    redis.servers[owner].stop();
    let published = one.publish(ANN, 2, &["{}"]);
    assert!([Published::InDoubt, Published::ToNobody].contains(&published), "it may come yet: {published:?}");
    assert_eq!(one.publish(ANN, 3, &["{}"]), Published::ToNobody, "and nothing more is tried");
    wait_noticed([&one, &two]);
    wait_within(LONG_PATIENCE, "the replica is used", || one.bus.is_ready() && two.bus.is_ready());
    reach(&one, ANN, 4);
    redis.servers[owner].cont();
    redis.wait_whole();
    reach(&one, ANN, 5);
}

#[test]
fn a_primary_that_changes_roles_while_it_runs_is_left() {
    let redis = ShardedRedis::start();
    let (one, two) = (start(&redis), start(&redis));
    two.welcome(ANN);
    let owner = redis.owner(&channel(ANN), 0);
    redis.take_over(owner + 3);
    redis.wait_whole();
    wait_until("the subscription is at the new primary", || {
        let count = redis::cmd("PUBSUB").arg("SHARDNUMSUB").arg(channel(ANN)).to_owned();
        let count = count.query::<(String, u32)>(&mut redis.servers[owner + 3].connect());
        count.is_ok_and(|(_, count)| count == 1)
    });
    wait_until("both are ready", || one.bus.is_ready() && two.bus.is_ready());
    reach(&one, ANN, 1);
}

#[test]
fn a_primary_that_sees_no_whole_cluster_is_not_used() {
    let redis = ShardedRedis::start();
    let (one, two) = (start(&redis), start(&redis));
    two.welcome(ANN);
    // Commands for the register would be refused, so another primary shows that nodes look.
    let primary = (redis.owner("raybox:{r}:", 0) + 1) % 3;
    redis.forget_slot(primary, true);
    wait_until("it is noticed", || !one.bus.is_ready() && !two.bus.is_ready());
    assert_eq!(one.publish(ANN, 1, &["{}"]), Published::ToNobody);
    redis.forget_slot(primary, false);
    wait_until("both are ready", || one.bus.is_ready() && two.bus.is_ready());
    reach(&one, ANN, 2);
}

#[test]
fn ten_thousand_users_are_subscribed_again_after_an_outage() {
    let mut redis = ShardedRedis::start();
    let one = start(&redis);
    let users: Vec<UserId> = (1..=10_000).map(UserId).collect();
    let notes =
        Notes { here: users.iter().copied().collect::<std::collections::HashSet<_>>().into(), ..Notes::default() };
    let two = Peer::start_as(&settings(&redis), notes);
    wait_until("all are subscribed", || two.bus.is_ready());
    assert_eq!(one.bus.elsewhere(&users), Ok(users.clone()));
    let owner = redis.owner(&channel(ANN), 0);
    redis.expect_faults();
    redis.servers[owner].kill();
    wait_noticed([&one, &two]);
    wait_within(LONG_PATIENCE, "the replica is used", || one.bus.is_ready() && two.bus.is_ready());
    assert_eq!(one.bus.elsewhere(&users), Ok(users));
    reach(&one, ANN, 1);
}

/// A user whose channel is at this primary.
fn user_at(redis: &ShardedRedis, primary: usize) -> UserId {
    let mut users = (1..).map(UserId);
    users.find(|user| redis.owner(&channel(*user), primary) == primary).expect("each primary has users")
}

/// Publishes a message, which one node delivers.
fn reach(from: &Peer, user: UserId, sequence: u64) {
    assert_eq!(from.publish(user, sequence, &["{}"]), Published::ToOne);
    from.notes.wait_for(&Heard::Confirmed(sequence));
}

/// Waits until each has noticed that a primary is lost. The first may be ready again when the last
/// notices.
fn wait_noticed(peers: [&Peer; 2]) {
    let mut noticed = [false; 2];
    wait_until("it is noticed", || {
        noticed.iter_mut().zip(peers).for_each(|(noticed, peer)| *noticed |= !peer.bus.is_ready());
        noticed == [true; 2]
    });
}

fn start(redis: &ShardedRedis) -> Peer {
    Peer::start_with(&settings(redis))
}

fn settings(redis: &ShardedRedis) -> RedisSettings {
    let named = redis.ports()[..2].iter().map(|port| ServerAddress::new("127.0.0.1", *port)).collect();
    let wait_timeout = Duration::from_secs(1);
    RedisSettings { place: RedisPlace::Cluster(named), wait_timeout, ..RedisSettings::at("", 0) }
}

fn channel(user: UserId) -> String {
    format!("raybox:u:{}", user.0)
}

/// The beginning of all keys of the register.
const REGISTER: &str = "raybox:{r}:";
