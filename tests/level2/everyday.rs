//! Everyday conversations: sends, pages, marks, several devices, coming back.

use serde_json::json;

use crate::people::{pair, with};
use testkit::level2::{Level2Client, LoginAs, Store, assert_agree};
use testkit::{TestClient, TestServer, offline_user, password};

#[test]
fn two_users_write_to_each_other() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    assert_eq!(ann.say(&to_bob, "hello"), 1);
    bob.until_at(&to_ann, 1);
    assert_eq!(bob.say(&to_ann, "hi"), 2);
    assert_eq!(bob.say(&to_ann, "how are you?"), 3);
    ann.until_at(&to_bob, 3);
    for client in [(&ann, &to_bob), (&bob, &to_ann)] {
        assert_eq!(client.0.store.texts(client.1), ["hello", "hi", "how are you?"]);
        assert!(client.0.store.log(client.1).is_some_and(|log| log.missing(0).is_empty()));
    }
    assert_agree(&ann.store, &to_bob, &bob.store, &to_ann);
}

#[test]
fn messages_cross_and_have_one_order_for_both() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    for n in 0..50 {
        ann.send(&to_bob, &format!("a{n}"));
        bob.send(&to_ann, &format!("b{n}"));
    }
    ann.until_at(&to_bob, 100);
    bob.until_at(&to_ann, 100);
    ann.settle();
    bob.settle();
    assert_eq!(ann.store.texts(&to_bob), bob.store.texts(&to_ann));
    let of = |who: char| ann.store.texts(&to_bob).into_iter().filter(|text| text.starts_with(who)).collect::<Vec<_>>();
    for who in ['a', 'b'] {
        assert_eq!(of(who), (0..50).map(|n| format!("{who}{n}")).collect::<Vec<_>>(), "the order of sending");
    }
    assert_agree(&ann.store, &to_bob, &bob.store, &to_ann);
}

#[test]
fn notes_to_oneself_reach_the_other_device() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    let mut phone = Level2Client::enter(&server, "ann", a, "phone");
    let mut tablet = Level2Client::enter(&server, "ann", a, "tablet");
    let notes = format!("u{a}");
    assert_eq!(phone.say(&notes, "milk"), 1);
    tablet.until_at(&notes, 1);
    assert_eq!(tablet.say(&notes, "bread"), 2);
    phone.until_at(&notes, 2);
    assert_agree(&phone.store, &notes, &tablet.store, &notes);
    assert_eq!(phone.store.texts(&notes), ["milk", "bread"]);
}

#[test]
fn own_messages_reach_the_other_devices_of_the_sender() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let mut tablet = Level2Client::enter(&server, "ann", ann.store.me, "a2");
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    for n in 0..20 {
        ann.send(&to_bob, &format!("phone {n}"));
        tablet.send(&to_bob, &format!("tablet {n}"));
        bob.send(&to_ann, &format!("bob {n}"));
    }
    for (client, conv) in [(&mut ann, &to_bob), (&mut tablet, &to_bob), (&mut bob, &to_ann)] {
        client.settle();
        client.until_at(conv, 60);
    }
    assert_agree(&ann.store, &to_bob, &tablet.store, &to_bob);
    assert_agree(&ann.store, &to_bob, &bob.store, &to_ann);
    assert_eq!(tablet.store.texts(&to_bob), bob.store.texts(&to_ann));
}

#[test]
fn a_friend_request_is_a_message() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    let (a, b) = (ann.store.me, bob.store.me);
    let cid = ann.send_with(&to_bob, json!({"msgType": 5, "msg": "be my friend"}));
    assert_eq!(ann.number(&cid), 1);
    bob.until_at(&to_ann, 1);
    let log = bob.store.log(&to_ann).expect("a conversation");
    let frame = json!({"msgType": 5, "FROMID": a, "TOID": b, "cid": cid, "msg": "be my friend"});
    assert_eq!(log.messages[&1].m.value(), frame);
    assert_eq!(bob.store.log(&to_ann).expect("it").messages[&1].from, a);
}

#[test]
fn m_is_the_frame_of_the_sender_byte_for_byte() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    let text = format!(
        r#"{{ "msg" : "\u00e4\u20ac 你好","TOID":{},"n":18446744073709551616,  "x":[1.50,{{"b":1,"a":2}}],"msgType":4,"cid":"c!~" }}"#,
        bob.store.me
    );
    ann.send_text(&text);
    assert_eq!(ann.number("c!~"), 1);
    bob.until_at(&to_ann, 1);
    assert_eq!(bob.store.log(&to_ann).expect("it").messages[&1].m.0, text);
    let page = bob.ask_for(200, json!({"msgType": 48, "conv": to_ann}));
    assert_eq!(page["msgs"][0]["m"]["msg"], "ä€ 你好");
    assert_eq!(ann.store.cursor(&to_bob), 1);
}

#[test]
fn pages_go_in_every_direction() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    for n in 1..=130 {
        ann.send(&to_bob, &n.to_string());
    }
    ann.settle();
    bob.until_at(&to_ann, 130);
    // The client checks each page against its request and against the messages that it holds.
    let range = |bob: &mut Level2Client, more: serde_json::Value| {
        let mut request = json!({"msgType": 48, "conv": to_ann});
        more.as_object().expect("members").iter().for_each(|(key, value)| request[key] = value.clone());
        let page = bob.ask_for(200, request);
        assert_eq!((page["head"].as_u64(), page["floor"].as_u64()), (Some(130), Some(0)), "{page}");
        (page["from"].as_u64(), page["to"].as_u64(), page["complete"] == true)
    };
    let cases = [
        (json!({}), Some(81), Some(130), false),
        (json!({"limit": 130}), Some(1), Some(130), true),
        (json!({"limit": 1}), Some(130), Some(130), false),
        (json!({"limit": 0}), Some(130), Some(130), false),
        (json!({"limit": -7}), Some(130), Some(130), false),
        (json!({"limit": 100_000}), Some(1), Some(130), true),
        (json!({"before": 51}), Some(1), Some(50), true),
        (json!({"before": 52}), Some(2), Some(51), false),
        (json!({"before": 2}), Some(1), Some(1), true),
        (json!({"before": 1}), None, None, true),
        (json!({"before": 0}), None, None, true),
        (json!({"before": 1_000_000}), Some(81), Some(130), false),
        (json!({"after": 0, "limit": 10}), Some(1), Some(10), false),
        (json!({"after": -5, "limit": 10}), Some(1), Some(10), false),
        (json!({"after": 120, "limit": 10}), Some(121), Some(130), true),
        (json!({"after": 130}), None, None, true),
        (json!({"after": 131}), None, None, true),
        (json!({"around": 60, "limit": 10}), Some(55), Some(64), false),
        (json!({"around": 60, "limit": 1}), Some(60), Some(60), false),
        (json!({"around": 65, "limit": 200}), Some(1), Some(130), true),
    ];
    for (more, from, to, complete) in cases {
        assert_eq!(range(&mut bob, more.clone()), (from, to, complete), "{more}");
    }
    let wrong = [json!({"before": 3, "after": 1}), json!({"after": 1, "around": 5}), json!({"before": 1, "around": 5})];
    for mut request in wrong {
        request["msgType"] = json!(48);
        request["conv"] = json!(to_ann);
        bob.ask_for(400, request);
    }
    bob.ask_for(404, json!({"msgType": 48, "conv": format!("u{}", testkit::NOBODY)}));
    let notes = with(&bob);
    let page = bob.ask_for(200, json!({"msgType": 48, "conv": notes}));
    assert_eq!((&page["msgs"], &page["complete"], &page["head"]), (&json!([]), &json!(true), &json!(0)), "{page}");
    assert!(page.get("from").is_none() && page.get("to").is_none(), "an empty page: {page}");
}

#[test]
fn a_page_holds_a_quarter_of_a_megabyte_but_one_message_always() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    for n in 0..8 {
        ann.send(&to_bob, &format!("{n}{}", "x".repeat(60_000)));
    }
    ann.settle();
    bob.until_at(&to_ann, 8);
    let page = bob.ask_for(200, json!({"msgType": 48, "conv": to_ann}));
    assert_eq!((page["msgs"].as_array().map(Vec::len), &page["complete"]), (Some(4), &json!(false)));
    assert_eq!(bob.page_through(&to_ann), 8);
}

#[test]
fn read_marks_rise_and_reach_the_other_device_and_the_partner() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let mut tablet = Level2Client::enter(&server, "bob", bob.store.me, "b2");
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    for n in 1..=5 {
        ann.say(&to_bob, &n.to_string());
    }
    bob.until_at(&to_ann, 5);
    let read = |client: &mut Level2Client, number: i64| {
        client.ask_for(200, json!({"msgType": 49, "conv": to_ann, "read": number}))
    };
    let reply = read(&mut bob, 3);
    assert_eq!((&reply["read"], &reply["unread"], &reply["head"]), (&json!(3), &json!(2), &json!(5)), "{reply}");
    let pushed = tablet.take_kind(49);
    assert_eq!((&pushed["read"], &pushed["unread"]), (&json!(3), &json!(2)), "{pushed}");
    let marks = ann.take("the mark 3", |frame| frame["msgType"] == 50 && frame["read"] == 3);
    assert_eq!((&marks["conv"], &marks["user"]), (&json!(to_bob), &json!(bob.store.me)), "{marks}");
    // The mark does not fall, and does not go beyond the head.
    assert_eq!(read(&mut bob, 1)["read"], 3);
    assert_eq!(read(&mut bob, -1)["read"], 3);
    assert_eq!(read(&mut bob, 1_000)["read"], 5);
    ann.take("the mark 5", |frame| frame["msgType"] == 50 && frame["read"] == 5);
    // A send marks all messages before it as read.
    ann.say(&to_bob, "6");
    bob.until_at(&to_ann, 6);
    assert_eq!(bob.say(&to_ann, "7"), 7);
    let reply = read(&mut bob, 0);
    assert_eq!((&reply["read"], &reply["unread"]), (&json!(7), &json!(0)), "{reply}");
}

#[test]
fn the_reports_of_a_device_reach_the_partner() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    ann.say(&to_bob, "1");
    ann.say(&to_bob, "2");
    bob.until_at(&to_ann, 2);
    bob.send_frame(&json!({"msgType": 47, "recv": {to_ann.clone(): 1}}));
    ann.take("that 1 is received", |frame| frame["msgType"] == 50 && frame["recv"] == 1);
    // A number beyond the head counts as the head. A lower number and foreign conversations are
    // ignored.
    let far = json!({"msgType": 47, "recv": {to_ann.clone(): 900, "g77": 5, "u2000000001": 3}});
    bob.send_frame(&far);
    let marks = ann.take("that 2 is received", |frame| frame["msgType"] == 50 && frame["recv"] == 2);
    assert_eq!(marks["read"], 0, "{marks}");
    bob.send_frame(&json!({"msgType": 47, "recv": {to_ann: 1}}));
    bob.ask_for_pong();
    let again = Level2Client::enter(&server, "ann", ann.store.me, "a2");
    let line = again.inbox().find(|frame| frame["msgType"] == 43).expect("a 43")["convs"][0].clone();
    assert_eq!((&line["peerRecv"], &line["peerRead"]), (&json!(2), &json!(0)), "{line}");
}

#[test]
fn the_mark_of_a_partner_is_that_of_the_furthest_device() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let mut tablet = Level2Client::enter(&server, "bob", bob.store.me, "b2");
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    for n in 1..=5 {
        ann.say(&to_bob, &n.to_string());
    }
    // The second one is behind the first, and the third is beyond both.
    for (of_tablet, recv) in [(false, 3), (true, 2), (true, 5)] {
        let device = if of_tablet { &mut tablet } else { &mut bob };
        device.until_at(&to_ann, 5);
        device.send_frame(&json!({"msgType": 47, "recv": {to_ann.clone(): recv}}));
        device.ask_for(200, json!({"msgType": 49, "conv": to_ann, "read": 0}));
    }
    for recv in [3, 5] {
        let marks = ann.take_kind(50);
        assert_eq!((&marks["recv"], &marks["read"]), (&json!(recv), &json!(0)), "{marks}");
    }
    let line = Level2Client::enter(&server, "ann", ann.store.me, "a2").take_kind(43)["convs"][0].clone();
    assert_eq!(line["peerRecv"], 5, "{line}");
    // Each device has a cursor of its own.
    for (device, name, from) in [(bob, "b1", 4), (tablet, "b2", 6)] {
        let store = device.leave();
        let login = LoginAs::password(store.me, &password("bob"), name).with("have", json!("device"));
        let mut device = Level2Client::login(TestClient::connect(&server), store, login);
        device.sync();
        let runs: Vec<_> = device.inbox().filter(|frame| frame["msgType"] == 44).cloned().collect();
        let begin = runs.first().map_or(6, |run| run["from"].as_i64().expect("a number"));
        assert_eq!((begin, runs.len()), (from, usize::from(from < 6)), "{runs:?}");
    }
}

#[test]
fn a_send_moves_the_mark_of_its_user_without_news_and_a_login_brings_none() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let mut tablet = Level2Client::enter(&server, "bob", bob.store.me, "b2");
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    ann.say(&to_bob, "1");
    bob.until_at(&to_ann, 1);
    assert_eq!(bob.say(&to_ann, "2"), 2);
    tablet.until_at(&to_ann, 2);
    ann.until_at(&to_bob, 2);
    assert_eq!(ann.say(&to_bob, "3"), 3);
    bob.until_at(&to_ann, 3);
    // This mark is above that of the send, so its news come behind all that the send could have
    // caused.
    bob.ask_for(200, json!({"msgType": 49, "conv": to_ann, "read": 3}));
    assert_eq!(tablet.take_kind(49)["read"], 3);
    assert_eq!(ann.take_kind(50)["read"], 3);
    // The overview has them all.
    let mut other = Level2Client::enter(&server, "ann", ann.store.me, "a2");
    let line = other.take_kind(43)["convs"][0].clone();
    assert_eq!((&line["peerRead"], &line["read"]), (&json!(3), &json!(3)), "{line}");
    ann.say(&to_bob, "4");
    bob.until_at(&to_ann, 4);
    bob.ask_for(200, json!({"msgType": 49, "conv": to_ann, "read": 4}));
    assert_eq!(other.take_kind(50)["read"], 4, "the first 50");
}

#[test]
fn a_client_that_says_nothing_of_what_it_holds_is_shown_the_last_messages() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    ann.say(&to_bob, "1");
    ann.say(&to_bob, "2");
    let mut tcp = TestClient::connect(&server);
    let me = bob.store.me;
    tcp.send(&json!({"msgType": 1, "USERID": me, "password": password("bob"), "level": 2, "device": "b2"}));
    let frames = [tcp.recv(), tcp.recv(), tcp.recv()];
    assert_eq!(frames.each_ref().map(|frame| frame["msgType"].as_i64()), [Some(40), Some(43), Some(45)], "{frames:?}");
    let line = &frames[1]["convs"][0];
    assert_eq!((&line["conv"], &line["last"]["m"]["msg"]), (&json!(to_ann), &json!("2")), "{line}");
    // What follows is live, from the next number on.
    ann.say(&to_bob, "3");
    let next = tcp.recv();
    assert_eq!((&next["msgType"], &next["seq"]), (&json!(42), &json!(3)), "{next}");
}

#[test]
fn a_device_that_was_offline_gets_exactly_the_missing_messages() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    for n in 1..=10 {
        ann.say(&to_bob, &n.to_string());
    }
    bob.until_at(&to_ann, 10);
    let store = bob.leave();
    for n in 11..=60 {
        ann.send(&to_bob, &n.to_string());
    }
    ann.settle();
    let mut bob = Level2Client::resume(&server, "bob", "b1", store);
    assert_eq!(bob.store.cursor(&to_ann), 60);
    assert!(bob.store.logs[&to_ann].missing(0).is_empty());
    ann.say(&to_bob, "61");
    bob.until_at(&to_ann, 61);
    // Nothing was missed, so there is no 44.
    let bob = Level2Client::resume(&server, "bob", "b1", bob.leave());
    assert!(!bob.inbox().any(|frame| frame["msgType"] == 44));
    // More was missed than the client takes at once, so the 44 names the gap.
    let store = bob.leave();
    for n in 62..=100 {
        ann.send(&to_bob, &n.to_string());
    }
    ann.settle();
    let login = LoginAs::password(store.me, &password("bob"), "b1").with("resume", json!(7));
    let mut bob = Level2Client::login(TestClient::connect(&server), store, login);
    bob.sync();
    assert_eq!(bob.store.logs[&to_ann].missing(0), (62..=93).collect::<Vec<_>>());
    assert_eq!(bob.page_through(&to_ann), 100);
    assert!(bob.store.logs[&to_ann].missing(0).is_empty());
}

#[test]
fn a_new_device_sees_the_last_messages_and_pages_the_rest() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    for n in 1..=30 {
        ann.send(&to_bob, &n.to_string());
    }
    ann.settle();
    let mut tablet = Level2Client::enter(&server, "bob", bob.store.me, "tablet");
    let overview = tablet.inbox().find(|frame| frame["msgType"] == 43).expect("a 43").clone();
    let line = &overview["convs"][0];
    assert_eq!((&line["head"], &line["unread"], &line["name"]), (&json!(30), &json!(30), &json!("ann")), "{line}");
    assert_eq!(line["last"]["m"]["msg"], "30", "{line}");
    assert_eq!(tablet.page_through(&to_ann), 30);
    assert_eq!(tablet.store.texts(&to_ann), (1..=30).map(|n| n.to_string()).collect::<Vec<_>>());
    ann.say(&to_bob, "31");
    tablet.until_at(&to_ann, 31);
}

#[test]
fn a_device_may_rely_on_what_it_has_reported() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    for n in 1..=9 {
        ann.say(&to_bob, &n.to_string());
    }
    bob.until_at(&to_ann, 9);
    bob.send_frame(&json!({"msgType": 47, "recv": {to_ann.clone(): 6}}));
    ann.take("that 6 is received", |frame| frame["msgType"] == 50 && frame["recv"] == 6);
    let store = bob.leave();
    let login = || LoginAs::password(store.me, &password("bob"), "b1").with("have", json!("device"));
    let mut bob = Level2Client::login(TestClient::connect(&server), store.clone(), login());
    bob.sync();
    let run = bob.take_kind(44);
    assert_eq!((&run["from"], &run["to"]), (&json!(7), &json!(9)), "{run}");
    // Another device of the user has reported nothing.
    let login = LoginAs::password(store.me, &password("bob"), "b2").with("have", json!("device"));
    let mut other = Level2Client::login(TestClient::connect(&server), Store::new(store.me), login);
    other.sync();
    let run = other.take_kind(44);
    assert_eq!((&run["from"], &run["to"]), (&json!(1), &json!(9)), "{run}");
    assert_eq!(other.store.texts(&to_ann).len(), 9);
}

#[test]
fn a_client_that_doubts_asks_again() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    for n in 1..=20 {
        ann.say(&to_bob, &n.to_string());
    }
    bob.until_at(&to_ann, 20);
    let tag = bob.store.logs[&to_ann].messages[&5].tag.0.clone();
    let have = json!({to_ann.clone(): format!("5:{tag}")});
    let synced = bob.ask(json!({"msgType": 46, "have": have}));
    assert_eq!(synced["synced"], true);
    let run = bob.take_kind(44);
    assert_eq!((&run["from"], &run["to"]), (&json!(6), &json!(20)), "{run}");
    let have = json!({to_ann.clone(): format!("5:{tag}")});
    bob.ask(json!({"msgType": 46, "have": have, "resume": 3}));
    let run = bob.take_kind(44);
    assert_eq!((&run["gap"], &run["from"]), (&json!([6, 17]), &json!(18)), "{run}");
    // Nothing is missing, so only a 45 comes.
    bob.catch_up();
    assert!(!bob.inbox().any(|frame| frame["msgType"] == 44));
    ann.say(&to_bob, "21");
    bob.until_at(&to_ann, 21);
}
