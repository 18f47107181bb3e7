//! Several nodes on one MariaDB and one Redis.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::json;

use crate::crash::Writer;
use crate::moves::log_in_twice_at_once;
use testkit::level2::{Level2Client, LoginAs, Store, assert_agree};
use testkit::{Cluster, LONG_PATIENCE, MariaDb, Redis, SetOnDrop, TestClient, TestServer};
use testkit::{chat, login, offline_user, wait_until, wait_within};

/// The two nodes, and two users with a device on each.
fn pair(cluster: &Cluster) -> (Level2Client, Level2Client) {
    let (one, two) = (&cluster.nodes[0], &cluster.nodes[1]);
    let (a, b) = (offline_user(one, "ann"), offline_user(two, "bob"));
    (Level2Client::enter(one, "ann", a, "a1"), Level2Client::enter(two, "bob", b, "b1"))
}

fn with(other: &Level2Client) -> String {
    format!("u{}", other.store.me)
}

#[test]
fn users_of_two_nodes_have_one_conversation() {
    let cluster = Cluster::start(2);
    let (mut ann, mut bob) = pair(&cluster);
    let mut tablet = Level2Client::enter(&cluster.nodes[1], "ann", ann.store.me, "a2");
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    for n in 0..100 {
        ann.send(&to_bob, &format!("a{n}"));
        tablet.send(&to_bob, &format!("t{n}"));
        bob.send(&to_ann, &format!("b{n}"));
    }
    for (client, conv) in [(&mut ann, &to_bob), (&mut tablet, &to_bob), (&mut bob, &to_ann)] {
        client.settle();
        client.until_at(conv, 300);
    }
    assert_eq!(ann.store.texts(&to_bob), bob.store.texts(&to_ann));
    assert_eq!(ann.store.texts(&to_bob), tablet.store.texts(&to_bob));
    for who in ['a', 't', 'b'] {
        let of: Vec<String> = ann.store.texts(&to_bob).into_iter().filter(|text| text.starts_with(who)).collect();
        assert_eq!(of, (0..100).map(|n| format!("{who}{n}")).collect::<Vec<_>>(), "the order of sending");
    }
    assert_agree(&ann.store, &to_bob, &bob.store, &to_ann);
}

#[test]
fn a_cid_is_known_on_every_node() {
    let cluster = Cluster::start(2);
    let (mut ann, mut bob) = pair(&cluster);
    let mut tablet = Level2Client::enter(&cluster.nodes[1], "ann", ann.store.me, "a2");
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    for round in 1..=20 {
        let frame = ann.message(&to_bob);
        let cid = frame["cid"].as_str().expect("a cid").to_owned();
        ann.send_frame(&frame);
        tablet.send_frame(&frame);
        let answers = [ann.answer(&cid), tablet.answer(&cid)];
        assert!(answers.iter().all(|answer| answer["seq"] == round), "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| answer["again"] == true).count(), 1, "{answers:?}");
    }
    bob.until_at(&to_ann, 20);
    assert_eq!(bob.store.logs[&to_ann].messages.len(), 20);
}

#[test]
fn a_device_that_logs_in_on_another_node_replaces_its_connection() {
    let cluster = Cluster::start(2);
    let (mut ann, mut bob) = pair(&cluster);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    ann.say(&to_bob, "1");
    let token = LoginAs::token(&ann.welcome.token, "a1");
    let mut moved = Level2Client::login(TestClient::connect(&cluster.nodes[1]), ann.store.clone(), token);
    moved.sync();
    ann.expect_farewell("replaced");
    assert_eq!(moved.say(&to_bob, "2"), 2);
    bob.until_at(&to_ann, 2);
    bob.say(&to_ann, "3");
    moved.until_at(&to_bob, 3);
}

#[test]
fn marks_and_typing_cross_nodes() {
    let cluster = Cluster::start(2);
    let (mut ann, mut bob) = pair(&cluster);
    let mut tablet = Level2Client::enter(&cluster.nodes[0], "bob", bob.store.me, "b2");
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    ann.say(&to_bob, "1");
    ann.say(&to_bob, "2");
    bob.until_at(&to_ann, 2);
    bob.ask_for(200, json!({"msgType": 49, "conv": to_ann, "read": 2}));
    ann.take("the mark", |frame| frame["msgType"] == 50 && frame["read"] == 2);
    tablet.take("the mark", |frame| frame["msgType"] == 49 && frame["read"] == 2);
    bob.send_frame(&json!({"msgType": 51, "conv": to_ann, "event": "typing"}));
    ann.take_kind(51);
}

#[test]
fn presence_crosses_nodes() {
    let cluster = Cluster::start(2);
    let (mut ann, bob) = pair(&cluster);
    let (a, b) = (ann.store.me, bob.store.me);
    let c = offline_user(&cluster.nodes[1], "carol");
    for friend in [b, c] {
        ann.ask_for(200, json!({"msgType": 6, "U1": a, "U2": friend}));
    }
    ann.set_patience(LONG_PATIENCE);
    let next = |ann: &mut Level2Client, user: i64| {
        ann.take("a 52", |frame| frame["msgType"] == 52 && frame["user"] == user)["online"] == true
    };
    ann.ask_for(200, json!({"msgType": 52, "watch": [b, c]}));
    assert_eq!((next(&mut ann, b), next(&mut ann, c)), (true, false), "first all as they are");
    let carol = login(&cluster.nodes[1], "carol", c);
    assert!(next(&mut ann, c), "a connection of level 1 counts");
    drop((bob, carol));
    assert_eq!((next(&mut ann, b), next(&mut ann, c)), (false, false));
}

#[test]
fn typing_on_devices_of_several_nodes_is_shown_once() {
    let cluster = Cluster::start(2);
    let (ann, mut bob) = pair(&cluster);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    let begin = Instant::now();
    for n in 0..8 {
        let mut device = Level2Client::enter(&cluster.nodes[n % 2], "ann", ann.store.me, &format!("d{n}"));
        device.send_frame(&json!({"msgType": 51, "conv": to_bob, "event": "typing"}));
        device.ask_for_pong();
        let number = device.say(&to_bob, "done");
        bob.until_at(&to_ann, number);
    }
    let shown = bob.inbox().filter(|frame| frame["msgType"] == 51).count() as u64;
    let most = 1 + begin.elapsed().as_millis() as u64 / 2800;
    assert!((1..=most).contains(&shown), "one in three seconds: {shown}");
}

#[test]
fn level_1_on_one_node_and_level_2_on_another() {
    let cluster = Cluster::start(2);
    let a = offline_user(&cluster.nodes[0], "ann");
    let mut ann = Level2Client::enter(&cluster.nodes[0], "ann", a, "a1");
    let b = offline_user(&cluster.nodes[1], "bob");
    let mut bob = login(&cluster.nodes[1], "bob", b);
    let conv = format!("u{b}");
    // The other node has learnt that ann uses level 2, or learns it from the first of these.
    for n in 1..=20 {
        bob.send(&json!({"msgType": 4, "FROMID": b, "TOID": a, "msg": n.to_string()}));
        bob.barrier();
    }
    ann.until_at(&conv, 20);
    assert_eq!(ann.store.texts(&conv), (1..=20).map(|n| n.to_string()).collect::<Vec<_>>());
    let cid = ann.send(&conv, "answer");
    assert_eq!(ann.number(&cid), 21);
    assert_eq!(bob.recv()["msg"], "answer");
    let mut other = Level2Client::enter(&cluster.nodes[1], "bob", b, "b1");
    assert_eq!(other.page_through(&with(&ann)), 21);
    assert_agree(&ann.store, &conv, &other.store, &with(&ann));
}

#[test]
fn logging_out_on_one_node_ends_the_tokens_everywhere() {
    let cluster = Cluster::start(2);
    let (mut ann, _bob) = pair(&cluster);
    let (a, token) = (ann.store.me, ann.welcome.token.clone());
    let reply = ann.ask(json!({"msgType": 3, "USERID": a}));
    assert_eq!(reply["errno"], 200, "{reply}");
    ann.expect_farewell("logout");
    for node in &cluster.nodes {
        let Err(refused) =
            Level2Client::try_login(TestClient::connect(node), Store::new(a), LoginAs::token(&token, "a1"))
        else {
            panic!("a revoked token is accepted");
        };
        assert_eq!(refused.reply.expect("a reply")["errno"], 302);
    }
}

#[test]
fn nodes_that_are_killed_in_the_middle_of_sends_lose_and_double_nothing() {
    let mut cluster = Cluster::start_with(2, testkit::Builder::fixed_port);
    let names = ["ann", "bob", "carol"];
    let ids: Vec<i64> = names.iter().map(|name| offline_user(&cluster.nodes[0], name)).collect();
    let devices = [("ann", "a1", 0), ("ann", "a2", 0), ("bob", "b1", 1), ("carol", "c1", 2)];
    let (stop, acked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let addresses = cluster.addresses();
    let stores: Vec<Store> = thread::scope(|scope| {
        let threads: Vec<_> = devices
            .iter()
            .enumerate()
            .map(|(n, (name, device, who))| {
                let convs = ids.iter().map(|id| format!("u{id}")).collect();
                let writer = Writer { name, device, convs, store: Store::new(ids[*who]), sent: 0 };
                let (stop, acked, mut nodes) = (&stop, &acked, addresses.clone());
                nodes.rotate_left(n % 2);
                scope.spawn(move || writer.run(&nodes, stop, acked))
            })
            .collect();
        let _stop = SetOnDrop(&stop);
        let more = |kill: usize| wait_until("hundreds of acks", || acked.load(Ordering::Relaxed) > kill * 400);
        for kill in 1..=4 {
            more(kill);
            let node = &mut cluster.nodes[kill % 2];
            node.kill9();
            more(kill + 1);
            node.restart();
        }
        more(6);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("a device")).collect()
    });
    crate::crash::check(&cluster.nodes[0], &devices.map(|(name, device, _)| (name, device)), stores);
}

#[test]
fn the_tables_of_the_reference_server_have_no_level_2() {
    let database = testkit::Database::create_reference();
    let server = testkit::TestServer::builder().mysql(&database).start();
    let a = offline_user(&server, "ann");
    let login = LoginAs::password(a, &testkit::password("ann"), "d");
    let Err(mut refused) = Level2Client::try_login(TestClient::connect(&server), Store::new(a), login) else {
        panic!("a login at level 2");
    };
    let reply = refused.reply.expect("a reply");
    assert_eq!((&reply["errno"], &reply["msgType"]), (&json!(501), &json!(40)), "{reply}");
    refused.tcp.login(a, &testkit::password("ann"));
}

#[test]
fn messages_arrive_in_time_when_redis_is_gone() {
    let mut cluster = Cluster::start(2);
    let (mut ann, mut bob) = pair(&cluster);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    ann.say(&to_bob, "1");
    bob.until_at(&to_ann, 1);
    cluster.redis.kill();
    // The sends are acknowledged at once. The other node was not notified, so it has to look into
    // the database.
    for n in 2..=10 {
        ann.say(&to_bob, &n.to_string());
    }
    bob.set_patience(LONG_PATIENCE);
    bob.until_at(&to_ann, 10);
    bob.say(&to_ann, "11");
    ann.set_patience(LONG_PATIENCE);
    ann.until_at(&to_bob, 11);
    assert_eq!(ann.store.texts(&to_bob), bob.store.texts(&to_ann));
}

#[test]
fn a_database_that_is_killed_in_the_middle_of_sends_loses_and_doubles_nothing() {
    let mut mariadb = MariaDb::start();
    let cluster = Cluster::start_on(mariadb.create_database(), Redis::start(), 2, |builder| builder);
    let names = ["ann", "bob", "carol"];
    let ids: Vec<i64> = names.iter().map(|name| offline_user(&cluster.nodes[0], name)).collect();
    let devices = [("ann", "a1", 0), ("ann", "a2", 0), ("bob", "b1", 1), ("carol", "c1", 2)];
    let (stop, acked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let addresses = cluster.addresses();
    let stores: Vec<Store> = thread::scope(|scope| {
        let threads: Vec<_> = devices
            .iter()
            .enumerate()
            .map(|(n, (name, device, who))| {
                let convs = ids.iter().map(|id| format!("u{id}")).collect();
                let writer = Writer { name, device, convs, store: Store::new(ids[*who]), sent: 0 };
                let (stop, acked, mut nodes) = (&stop, &acked, addresses.clone());
                nodes.rotate_left(n % 2);
                scope.spawn(move || writer.run(&nodes, stop, acked))
            })
            .collect();
        let _stop = SetOnDrop(&stop);
        let more = |acks: usize| {
            let enough = acked.load(Ordering::Relaxed) + acks;
            wait_within(LONG_PATIENCE, "hundreds of acks", || acked.load(Ordering::Relaxed) > enough);
        };
        for _ in 0..2 {
            more(400);
            mariadb.kill();
            mariadb.restart();
        }
        more(400);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("a device")).collect()
    });
    crate::crash::check(&cluster.nodes[0], &devices.map(|(name, device, _)| (name, device)), stores);
}

#[test]
fn one_of_two_simultaneous_logins_of_a_device_on_two_nodes_stays() {
    let cluster = Cluster::start(2);
    let a = offline_user(&cluster.nodes[0], "ann");
    for _ in 0..3 {
        log_in_twice_at_once([&cluster.nodes[0], &cluster.nodes[1]], "ann", a);
    }
}

/// Expects this node to refuse a login with this token.
fn expect_no_token(node: &TestServer, user: i64, token: &str, device: &str) {
    let login = LoginAs::token(token, device);
    let refused = Level2Client::try_login(TestClient::connect(node), Store::new(user), login);
    let Err(refused) = refused else { panic!("a revoked token is accepted") };
    assert_eq!(refused.reply.expect("a reply")["errno"], 302);
}

#[test]
fn a_new_password_ends_everything_on_other_nodes() {
    let cluster = Cluster::start_with(2, |node| node.option("account_check", "200ms"));
    let (mut ann, _bob) = pair(&cluster);
    let a = ann.store.me;
    let mut tablet = Level2Client::enter(&cluster.nodes[1], "ann", a, "a2");
    let mut old = login(&cluster.nodes[1], "ann", a);
    let request = json!({"msgType": 60, "password": testkit::password("ann"), "new": "other"});
    let reply = ann.ask_for(200, request);
    for node in &cluster.nodes {
        expect_no_token(node, a, &ann.welcome.token, "a1");
        expect_no_token(node, a, &tablet.welcome.token, "a2");
    }
    tablet.set_patience(LONG_PATIENCE);
    tablet.expect_farewell("revoked");
    old.set_patience(LONG_PATIENCE);
    old.expect_refusal(403);
    old.expect_eof();
    let token = LoginAs::token(reply["token"].as_str().expect("a token"), "a1");
    let mut phone = Level2Client::login(TestClient::connect(&cluster.nodes[1]), Store::new(a), token);
    phone.sync();
    // This node knew the old password. It compares all users until it logs these out.
    for name in ["carol", "dave"] {
        let user = offline_user(&cluster.nodes[1], name);
        let mut other = login(&cluster.nodes[1], name, user);
        cluster.database.run(&format!("UPDATE User SET password = 'changed' WHERE id = {user}"));
        other.set_patience(LONG_PATIENCE);
        other.expect_refusal(403);
    }
    phone.ask_for_pong();
}

#[test]
fn a_node_that_hears_of_a_new_password_by_a_token_forgets_the_old_one() {
    let cluster = Cluster::start_with(2, |node| node.option("account_check", "1h"));
    let (mut ann, _bob) = pair(&cluster);
    let a = ann.store.me;
    let mut old = login(&cluster.nodes[1], "ann", a);
    let reply = ann.ask_for(200, json!({"msgType": 60, "password": testkit::password("ann"), "new": "other"}));
    let token = LoginAs::token(reply["token"].as_str().expect("a token"), "a1");
    let mut phone = Level2Client::login(TestClient::connect(&cluster.nodes[1]), Store::new(a), token);
    phone.sync();
    old.expect_refusal(403);
    old.expect_eof();
    let mut other = TestClient::connect(&cluster.nodes[1]);
    let login = json!({"msgType": 1, "USERID": a, "password": testkit::password("ann")});
    assert_eq!(other.ask(&login)["errno"], 302, "the remembered password is the old one");
    phone.ask_for_pong();
}

/// Waits until this node has compared all accounts this number of times: each time, it finds that
/// the password of this user was changed.
fn wait_for_comparisons(cluster: &Cluster, node: usize, name: &str, times: usize) {
    let user = offline_user(&cluster.nodes[node], name);
    let row = format!("User SET password = reverse(password) WHERE id = {user}");
    for _ in 0..times {
        let mut client = login(&cluster.nodes[node], name, user);
        cluster.database.run(&format!("UPDATE {row}"));
        client.set_patience(LONG_PATIENCE);
        client.expect_refusal(403);
        client.expect_eof();
        cluster.database.run(&format!("UPDATE {row}"));
    }
}

#[test]
fn a_token_makes_a_node_forget_an_old_password_also_of_a_user_who_was_away_for_long() {
    let cluster = Cluster::start_with(2, |node| node.option("account_check", "200ms"));
    let (mut ann, _bob) = pair(&cluster);
    let a = ann.store.me;
    drop(login(&cluster.nodes[1], "ann", a));
    // The node drops what it knows of users without connections, except remembered passwords.
    wait_for_comparisons(&cluster, 1, "carol", 15);
    let reply = ann.ask_for(200, json!({"msgType": 60, "password": testkit::password("ann"), "new": "other"}));
    let token = LoginAs::token(reply["token"].as_str().expect("a token"), "a1");
    let mut phone = Level2Client::login(TestClient::connect(&cluster.nodes[1]), Store::new(a), token);
    phone.sync();
    let mut other = TestClient::connect(&cluster.nodes[1]);
    let login = json!({"msgType": 1, "USERID": a, "password": testkit::password("ann")});
    assert_eq!(other.ask(&login)["errno"], 302, "the remembered password is the old one");
    phone.ask_for_pong();
}

#[test]
fn a_revoked_device_is_out_on_other_nodes_also_without_redis() {
    let mut cluster = Cluster::start(2);
    let (mut ann, _bob) = pair(&cluster);
    let a = ann.store.me;
    let mut tablet = Level2Client::enter(&cluster.nodes[1], "ann", a, "a2");
    cluster.redis.kill();
    ann.ask_for(200, json!({"msgType": 68, "revoke": "a2"}));
    for node in &cluster.nodes {
        expect_no_token(node, a, &tablet.welcome.token, "a2");
    }
    tablet.set_patience(LONG_PATIENCE);
    tablet.expect_farewell("revoked");
    ann.ask_for_pong();
}

#[test]
fn events_of_groups_and_friends_and_blocks_cross_two_nodes() {
    let cluster = Cluster::start(2);
    let (mut ann, mut bob) = pair(&cluster);
    let (a, b) = (ann.store.me, bob.store.me);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    let carol = offline_user(&cluster.nodes[1], "carol");
    let mut old = login(&cluster.nodes[1], "carol", carol);
    // Bob becomes a friend.
    ann.ask_for(200, json!({"msgType": 6, "U1": a, "U2": b}));
    bob.until_at(&to_ann, 1);
    assert_eq!(bob.store.logs[&to_ann].messages[&1].m.value()["new"], true);
    // A group gets a member at level 1.
    let group = ann.ask_for(200, json!({"msgType": 12, "FROMID": a, "name": "team", "description": ""}));
    let (group, conv) = (group["GROUPID"].clone(), format!("g{}", group["GROUPID"]));
    bob.ask_for(200, json!({"msgType": 10, "FROMID": b, "GROUPID": group}));
    assert_eq!(old.ask(&json!({"msgType": 10, "FROMID": carol, "GROUPID": group}))["errno"], 200);
    ann.until_at(&conv, 3);
    bob.until_at(&conv, 3);
    ann.say(&conv, "to both");
    bob.until_at(&conv, 4);
    assert_eq!(old.recv()["msg"], "to both");
    old.send(&json!({"msgType": 9, "FROMID": carol, "GROUPID": group, "msg": "from level 1"}));
    ann.until_at(&conv, 5);
    ann.ask_for(200, json!({"msgType": 64, "GROUPID": group, "name": "crew"}));
    ann.ask_for(200, json!({"msgType": 63, "GROUPID": group, "USERID": carol}));
    bob.until_at(&conv, 7);
    let event = |client: &Level2Client, seq: u64| client.store.logs[&conv].messages[&seq].m.value();
    assert_eq!((&event(&bob, 6)["event"], &event(&bob, 6)["name"]), (&json!("renamed"), &json!("crew")));
    assert_eq!((&event(&bob, 7)["event"], &event(&bob, 7)["USERID"]), (&json!("removed"), &json!(carol)));
    wait_until("a removed member cannot write on the other node", || {
        old.send(&json!({"msgType": 9, "FROMID": carol, "GROUPID": group, "msg": "no"}));
        old.ask(&json!({"msgType": 15, "keyword": "0"}))["errno"] == 403 && old.recv()["msgType"] == 15
    });
    ann.ask_for(200, json!({"msgType": 65, "GROUPID": group}));
    bob.until_at(&conv, 8);
    assert_eq!(event(&bob, 8)["event"], "dissolved");
    bob.ask_for(404, json!({"msgType": 48, "conv": conv}));
    // A block, which the other node checks at each send.
    ann.ask_for(200, json!({"msgType": 66, "USERID": b, "block": true}));
    let cid = bob.send(&to_ann, "no");
    assert_eq!(bob.answer(&cid)["errno"], 403);
    bob.ask_for(403, json!({"msgType": 6, "U1": b, "U2": a}));
    ann.ask_for(200, json!({"msgType": 66, "USERID": b, "block": false}));
    let seq = bob.say(&to_ann, "yes");
    ann.until_at(&to_bob, seq);
}

#[test]
fn a_block_holds_on_other_nodes_at_once() {
    let cluster = Cluster::start(2);
    let (mut ann, mut bob) = pair(&cluster);
    let (a, b) = (ann.store.me, bob.store.me);
    let to_bob = with(&bob);
    ann.say(&to_bob, "hello");
    bob.until_at(&with(&ann), 1);
    let group = ann.ask_for(200, json!({"msgType": 12, "FROMID": a, "name": "team", "description": ""}));
    let conv = format!("g{}", group["GROUPID"]);
    bob.ask_for(200, json!({"msgType": 10, "FROMID": b, "GROUPID": group["GROUPID"]}));
    // The sweep would find one of these changes in time by chance, but not all of them.
    for block in [true, false, true, false, true] {
        ann.ask_for(200, json!({"msgType": 66, "USERID": b, "block": block}));
        // News of groups take the same way, so they come behind the news of the block.
        let seq = ann.say(&conv, "to all");
        bob.until_at(&conv, seq);
        let mut other = Level2Client::enter(&cluster.nodes[1], "bob", b, "b2");
        let overview = other.take_kind(43);
        let lines = overview["convs"].as_array().expect("a list");
        let line = lines.iter().find(|line| line["kind"] == "user").expect("the conversation with ann");
        assert_eq!(line.get("peerRead").is_none(), block, "{line}");
    }
    let mut old = login(&cluster.nodes[1], "bob", b);
    old.send(&chat(b, a, "hello"));
    old.expect_refusal(403);
}
