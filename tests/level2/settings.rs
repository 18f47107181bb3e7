//! The settings of level 2: the choice of messages that are recorded, and the limits that clients
//! are told.

use serde_json::{Value, json};

use crate::people::{pair, with};
use testkit::level2::{Level2Client, LoginAs, Store};
use testkit::{StoreLock, TestClient, TestServer, chat, login, offline_user, password, user, wait_until};

/// The reply to a login at level 2.
fn welcome(server: &TestServer, name: &str, id: i64, device: &str) -> Value {
    let mut tcp = TestClient::connect(server);
    let login = json!({"msgType": 1, "USERID": id, "password": password(name), "level": 2, "device": device});
    tcp.ask(&login)
}

fn recorded(server: &TestServer) -> usize {
    server.count("SELECT count(*) FROM Message WHERE kind = 0")
}

#[test]
fn without_history_level_2_is_refused_and_level_1_is_as_ever() {
    let server = TestServer::builder().option("history", "off").start();
    let (mut ann, a) = user(&server, "ann");
    let b = offline_user(&server, "bob");
    let refused = welcome(&server, "bob", b, "phone");
    assert_eq!((&refused["errno"], &refused["msgType"]), (&json!(501), &json!(40)), "{refused}");
    assert_eq!(refused.get("retryAfter"), None, "{refused}");
    ann.send(&chat(a, b, "later"));
    ann.barrier();
    assert_eq!(login(&server, "bob", b).fetch(b), [chat(a, b, "later")]);
    assert_eq!(recorded(&server), 0);
    // No user has a device. Requests about accounts and groups work as before.
    let devices = ann.ask(&json!({"msgType": 68, "FROMID": a}));
    assert_eq!((&devices["errno"], &devices["devices"]), (&json!(200), &json!([])), "{devices}");
    let unknown = ann.ask(&json!({"msgType": 68, "FROMID": a, "revoke": "phone"}));
    assert_eq!(unknown["errno"], 404, "{unknown}");
    let account = ann.ask(&json!({"msgType": 67, "FROMID": a}));
    assert_eq!(account["errno"], 200, "{account}");
}

#[test]
fn everything_is_recorded_beside_its_delivery() {
    let server = TestServer::builder().option("history", "all").start();
    let (mut ann, a) = user(&server, "ann");
    let (mut bob, b) = user(&server, "bob");
    let c = offline_user(&server, "carol");
    let group = ann.create_group(a, "team");
    bob.join_group(b, group);
    let to_group = json!({"msgType": 9, "FROMID": a, "GROUPID": group, "msg": "all"});
    for frame in [&chat(a, b, "hello"), &chat(a, c, "later"), &to_group] {
        ann.send(frame);
    }
    ann.barrier();
    // The messages arrive as at level 1, and are also recorded.
    bob.expect(&chat(a, b, "hello"));
    bob.expect(&to_group);
    assert_eq!(recorded(&server), 3);
    assert_eq!(server.count("SELECT count(*) FROM OfflineMessage WHERE seq = 0"), 0, "what waits has a mark");
    let mut carol = login(&server, "carol", c);
    assert_eq!(carol.fetch(c), [chat(a, c, "later")]);
    carol.barrier();
    drop(carol);
    // A user who changes to level 2 finds all messages, each once.
    let carol = Level2Client::enter(&server, "carol", c, "phone");
    let overview = carol.inbox().find(|frame| frame["msgType"] == 43).expect("a 43").clone();
    assert_eq!(overview["convs"][0]["head"], 1, "{overview}");
    assert_eq!(overview["convs"][0]["last"]["m"], chat(a, c, "later"), "{overview}");
    let mut bob = Level2Client::login(
        TestClient::connect(&server),
        Store::new(b),
        LoginAs::password(b, &password("bob"), "phone").with("have", json!({})),
    );
    let page = bob.ask_for(200, json!({"msgType": 48, "conv": format!("u{a}")}));
    assert_eq!(page["msgs"].as_array().map(Vec::len), Some(1), "{page}");
    assert_eq!(page["msgs"][0].get("imported"), None, "{page}");
    let page = bob.ask_for(200, json!({"msgType": 48, "conv": format!("g{group}")}));
    assert!(page["msgs"].as_array().is_some_and(|all| all.iter().any(|message| message["m"] == to_group)), "{page}");
}

#[test]
fn users_of_level_1_talk_although_the_history_has_no_room_for_their_conversation() {
    let server = TestServer::builder().option("history", "all").option("conversations_max", "2").start();
    let (mut bob, b) = user(&server, "bob");
    let away = offline_user(&server, "away");
    // The second stranger finds the strangers' half of the room full.
    for (nth, name) in ["ann", "carol"].into_iter().enumerate() {
        let (mut client, id) = user(&server, name);
        client.send(&chat(id, b, "hello"));
        client.send(&chat(id, away, "later"));
        client.expect_silence_until_barrier();
        bob.expect(&chat(id, b, "hello"));
        assert_eq!(server.stored_for(away), nth + 1);
        assert_eq!(recorded(&server), 2);
    }
}

#[test]
fn a_message_to_an_unknown_user_is_not_an_error_while_everything_is_recorded() {
    let server = TestServer::builder().option("history", "all").start();
    let (mut ann, a) = user(&server, "ann");
    ann.send(&chat(a, 999, "nobody"));
    ann.expect_silence_until_barrier();
    // Level 1 pushes a request for friendship to the other user.
    let (mut bob, b) = user(&server, "bob");
    for _ in 0..2 {
        let made = ann.ask(&json!({"msgType": 6, "U1": a, "U2": b}));
        assert_eq!(made["errno"], 200, "{made}");
        let told = bob.recv();
        assert_eq!(told["msgType"], 6, "{told}");
    }
}

#[test]
fn the_limit_of_sends_in_flight_is_announced_and_holds() {
    let server = TestServer::builder().option("inflight", "4").option("loops", "1").option("admin", "0").start();
    let a = offline_user(&server, "ann");
    assert_eq!(welcome(&server, "ann", a, "x")["limits"]["inflight"], 4);
    let mut ann = Level2Client::enter(&server, "ann", a, "a1");
    let (mut carl, c) = user(&server, "carl");
    let conv = format!("u{c}");
    let frames: Vec<Value> = (0..50).map(|_| ann.message(&conv)).collect();
    let read = || server.metric("raybox_frames_total{type=\"4\"}");
    {
        let _nothing_is_committed = StoreLock::take(&server);
        ann.send_many(&frames);
        wait_until("some are read", || read() >= 4.0);
        // The same loop serves another client, but reads no further on this connection.
        carl.barrier();
        carl.barrier();
        assert_eq!(read(), 4.0);
    }
    ann.settle();
    assert_eq!(ann.store.cursor(&conv), 50, "nothing was refused");
}

#[test]
fn a_user_has_as_many_devices_as_the_server_lets() {
    let server = TestServer::builder().option("devices_max", "2").start();
    let a = offline_user(&server, "ann");
    for device in ["one", "two", "three"] {
        assert_eq!(welcome(&server, "ann", a, device)["errno"], 200);
    }
    assert_eq!(server.count("SELECT count(*) FROM Device"), 2);
    assert_eq!(server.count("SELECT count(*) FROM Device WHERE device = 'one'"), 0, "the one least recently seen");
}

#[test]
fn a_token_expires_when_the_server_says() {
    let server = TestServer::builder().option("token_days", "2").start();
    let a = offline_user(&server, "ann");
    let expires = welcome(&server, "ann", a, "phone")["tokenExpires"].as_i64().expect("a time");
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let left = expires - i64::try_from(since.as_millis()).expect("a time");
    let day = 24 * 60 * 60 * 1000;
    assert!(left > day && left <= 2 * day, "{left} ms are left");
}

#[test]
fn after_the_window_nothing_is_edited_or_recalled() {
    let server = TestServer::builder().option("edit_window", "0").start();
    let (mut ann, bob) = pair(&server);
    let conv = with(&bob);
    ann.say(&conv, "first");
    let cid = ann.send_with(&conv, json!({"edit": 1, "msg": "other"}));
    assert_eq!(ann.answer(&cid)["errno"], 403);
    let cid = ann.send_with(&conv, json!({"recall": 1}));
    assert_eq!(ann.answer(&cid)["errno"], 403);
}
