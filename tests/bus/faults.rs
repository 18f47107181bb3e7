//! A Redis that is killed, freezes, moves, or refuses.

use std::fs;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use raybox::bus::redis::RedisBus;
use raybox::bus::{BusHealth as _, Envelope, Exchange as _, Published};
use raybox::config::{RedisPlace, RedisSettings, Secret, ServerAddress};
use raybox::protocol::UserId;
use testkit::{LONG_PATIENCE, PATIENCE, Redis, Switch, Workplace, wait_until, wait_within};

use crate::peer::{ANN, BOB, Heard, Notes, Peer, delivery, listeners, settings, settings_at};

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
    // A node that became ready on its old connection may still replace it.
    let mut sequence = 1;
    wait_within(LONG_PATIENCE, "ann is reached again", || {
        sequence += 1;
        one.publish(ANN, sequence, &["{}"]) == Published::ToOne
    });
    one.notes.wait_for(&Heard::Confirmed(sequence));
}

#[test]
fn a_frozen_redis_leaves_publications_in_doubt() {
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
            is_recorded: false,
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
            // From now on the node does not ask Redis any more.
            let asked: Vec<_> = users.iter().map(|user| bus.elsewhere(&[*user])).collect();
            done.send((published, asked)).expect("the test waits");
        });
        // A timeout for each of them would add up to minutes.
        let (published, asked) = is_done.recv_timeout(PATIENCE).expect("it gives up");
        // If the node's own check of Redis has noticed the freeze first, it publishes nothing.
        let all_are = |wanted: Published| published.iter().all(|published| *published == wanted);
        assert!(all_are(Published::InDoubt) || all_are(Published::ToNobody), "{published:?}");
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
fn idle_connections_that_redis_closes_are_not_an_outage() {
    const THREADS: i32 = 4;
    let redis = Redis::start_with(&["--timeout", "1"]);
    let settings = RedisSettings { size: THREADS.unsigned_abs(), ..settings(&redis) };
    let (one, two) = (Peer::start_with(&settings), Peer::start_with(&settings));
    two.welcome(ANN);
    let rejoined = one.notes.count(&Heard::Rejoined);
    let quiet = redis.connections();
    for round in 0..3 {
        // Many publish at the same time, so that each uses a connection of its own.
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
    // The old server still runs, and its connections stay open.
    switch.turn(new.address());
    wait_until("both listen on the new one", || listeners(&new, "raybox:u:7") == 1 && listeners(&new, "raybox:g") == 2);
    wait_until("both are ready", || one.bus.is_ready() && two.bus.is_ready());
    wait_until("the old one has seen them leave", || listeners(&old, "raybox:g") == 0);
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
    // This ends the connections for commands, but not those of subscribers.
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").query::<u32>(&mut old.connect()).expect("kill");
    let mut sequence = 0;
    wait_until("messages are live again", || {
        sequence += 1;
        one.publish(ANN, sequence, &["{}"]) == Published::ToOne
    });
    one.notes.wait_for(&Heard::Confirmed(sequence));
    wait_until("both subscriptions have moved", || {
        (listeners(&old, "raybox:g"), listeners(&new, "raybox:g")) == (0, 2)
    });
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
    // A replica would accept the message, but deliver it only to its own subscribers.
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
fn a_redis_that_takes_no_writes_still_carries_messages() {
    let workplace = Workplace::empty();
    let folder = workplace.path();
    let redis = Redis::start_with(&["--dir", folder.to_str().expect("a path in UTF-8")]);
    let set = |key: &str, value: &str| {
        redis::cmd("CONFIG").arg("SET").arg(key).arg(value).query::<()>(&mut redis.connect()).expect(key);
    };
    let refusal = || redis::cmd("SET").arg("key").arg("x").query::<()>(&mut redis.connect()).err();
    let refused = || {
        let calls = redis.info("commandstats")["cmdstat_sadd"].clone();
        let number = calls.split("rejected_calls=").nth(1).expect("a counter").split(',').next().map(str::parse::<u64>);
        number.expect("a number").expect("a number")
    };
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    let mut sequence = 0;
    let joined = [&one, &two].map(|peer| peer.notes.count(&Heard::Rejoined));
    for (code, key, value, usual) in [
        ("OOM", "maxmemory", "1", "0"),
        ("NOREPLICAS", "min-replicas-to-write", "1", "0"),
        ("MISCONF", "save", "3600 1", ""),
    ] {
        if code == "MISCONF" {
            // It cannot save its data any more.
            fs::remove_dir_all(folder).expect("remove the folder of Redis");
            redis::cmd("BGSAVE").query::<()>(&mut redis.connect()).expect("it tries");
            wait_until("it has failed", || redis.info("persistence")["rdb_last_bgsave_status"].trim_end() == "err");
        }
        set(key, value);
        assert_eq!(refusal().expect("no writes").code(), Some(code));
        // Each node tries once a second to register.
        let before = refused();
        while refused() < before + 10 {
            sequence += 1;
            assert_eq!(one.publish(ANN, sequence, &["{}"]), Published::ToOne, "{code}");
            one.notes.wait_for(&Heard::Confirmed(sequence));
            assert!(one.bus.is_ready() && two.bus.is_ready(), "{code}");
        }
        set(key, usual);
        wait_until("it takes writes", || refusal().is_none());
    }
    assert_eq!([&one, &two].map(|peer| peer.notes.count(&Heard::Rejoined)), joined, "no connection was given up");
}

#[test]
fn a_node_needs_no_more_rights_than_documented() {
    let redis = Redis::start();
    let rights = "resetkeys ~raybox:* resetchannels &raybox:* &RayBox-user* -@all +@pubsub +@set +@string +@connection +@keyspace";
    assert!(include_str!("../../docs/cluster.md").contains(rights), "this is what docs/cluster.md says");
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
    settings.place = RedisPlace::Server(ServerAddress::new("127.0.0.1", testkit::free_port()));
    let text = refusal(&settings);
    assert!(text.contains("onnection refused") && text.contains("start it"), "{text}");
}
