//! Requests of level 1 on connections of level 2, framing, and the content of an overview.

use mysql::prelude::Queryable as _;
use serde_json::{Value, json};

use crate::people::{on_both, pair, with};
use testkit::level2::{Level2Client, LoginAs, Store};
use testkit::{BAD_REQUEST, Database, TestClient, TestServer, login, offline_user, password, user};

#[test]
fn requests_of_level_1_work_as_ever_with_their_rid() {
    let server = TestServer::start();
    let (_, a) = user(&server, "ann");
    let b = offline_user(&server, "bob");
    let mut old = login(&server, "ann", a);
    let mut new = Level2Client::enter(&server, "ann", a, "phone");
    let group = old.create_group(a, "team");
    let requests = [
        json!({"msgType": 15, "keyword": b.to_string()}),
        json!({"msgType": 15, "keyword": "team"}),
        json!({"msgType": 13, "name": "te"}),
        json!({"msgType": 13}),
        json!({"msgType": 6, "U1": a, "U2": b}),
        json!({"msgType": 6, "U1": a, "U2": testkit::NOBODY}),
        json!({"msgType": 6, "U1": a, "U2": a}),
        json!({"msgType": 8, "FROMID": a}),
        json!({"msgType": 8, "FROMID": b}),
        json!({"msgType": 8}),
        json!({"msgType": 11, "FROMID": a}),
        json!({"msgType": 7, "FROMID": a, "TOID": b}),
        json!({"msgType": 10, "FROMID": a, "GROUPID": testkit::NOBODY}),
        json!({"msgType": 10, "FROMID": a, "GROUPID": group}),
        json!({"msgType": 12, "FROMID": a, "name": "x".repeat(51), "description": ""}),
        json!({"msgType": 2, "name": "ann", "password": "x"}),
        json!({"msgType": 3, "USERID": b}),
        json!({"msgType": 200}),
        json!({"msgType": 500}),
    ];
    for request in requests {
        let expected = old.ask(&request);
        let mut reply = new.ask(request.clone());
        reply.as_object_mut().expect("a reply").remove("rid");
        assert_eq!(reply, expected, "{request}");
    }
    new.ask_for(404, json!({"msgType": 100, "FROMID": a, "TOID": b}));
    let reply = new.ask_for(200, json!({"msgType": 2, "name": "carol", "password": "pw-carol"}));
    assert!(reply["USERID"].is_i64(), "{reply}");
    new.ask_for_pong();
}

#[test]
fn users_are_found_by_name_at_level_2_by_clients_that_ask_for_it() {
    let server = TestServer::start();
    let (ann, bob) = (offline_user(&server, "Ann"), offline_user(&server, "bob"));
    // The name of one user may be the id of another one.
    let third = offline_user(&server, &bob.to_string());
    let mut old = login(&server, "Ann", ann);
    let mut new = Level2Client::enter(&server, "Ann", ann, "phone");
    let found = |reply: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let results = reply["results"].as_array().expect("results");
        results.iter().map(|one| (text(&one["id"]), text(&one["name"]))).collect()
    };
    let named = |id: i64, name: &str| (id.to_string(), name.to_owned());
    let search = |keyword: &str| json!({"msgType": 15, "keyword": keyword, "byName": true});

    for keyword in ["bob", "BOB"] {
        assert_eq!(found(&new.ask_for(200, search(keyword))), [named(bob, "bob")], "{keyword}");
    }
    for keyword in ["bo", "", "nobody"] {
        assert_eq!(found(&new.ask_for(200, search(keyword))), [], "{keyword:?}");
    }
    let both = [named(bob, "bob"), named(third, &bob.to_string())];
    assert_eq!(found(&new.ask_for(200, search(&bob.to_string()))), both, "the id first");
    for by_name in [json!(false), json!(null), json!("true"), json!(1)] {
        let request = json!({"msgType": 15, "keyword": "bob", "byName": by_name});
        assert_eq!(found(&new.ask_for(200, request.clone())), [], "{request}");
    }
    assert_eq!(found(&old.ask(&search("bob"))), [], "level 1 is as ever");
}

#[test]
fn lines_are_answered_with_lines() {
    let server = TestServer::start();
    let (a, mut bob) = (offline_user(&server, "ann"), pair_of(&server, "bob"));
    let tcp = TestClient::connect_lines(&server);
    let mut ann = Level2Client::login(tcp, Store::new(a), LoginAs::password(a, &password("ann"), "d"));
    ann.sync();
    let to_ann = with(&ann);
    bob.say(&to_ann, "1");
    ann.until_at(&with(&bob), 1);
    ann.tcp().send_text(r#"{"msgType":53}"#);
    // The first newline ends the earlier frame.
    ann.tcp().expect_bytes(b"\n{\"msgType\":54}\n");
    // A frame over several lines reaches the others as one line.
    let frame = format!("{{\n  \"msgType\": 4,\r\n  \"TOID\": {},\n  \"cid\": \"lines\"\n}}", bob.store.me);
    ann.tcp().send_text(&frame);
    bob.until_at(&to_ann, 2);
    let log = &bob.store.logs[&to_ann];
    assert_eq!(log.messages[&2].m.value()["cid"], "lines");
    assert!(!log.messages[&2].m.0.contains(['\n', '\r']));
}

fn pair_of(server: &TestServer, name: &str) -> Level2Client {
    Level2Client::enter(server, name, offline_user(server, name), "d")
}

#[test]
fn frames_may_come_in_pieces_and_many_at_once() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    let frames: Vec<Value> = (0..20).map(|_| ann.message(&to_bob)).collect();
    let text: String = frames.iter().map(|frame| format!("{frame} \n")).collect();
    for piece in text.as_bytes().chunks(7) {
        ann.tcp().send_raw(piece);
    }
    bob.until_at(&to_ann, 20);
    bob.send_text("keep this socket alive\n");
    assert_eq!(bob.take_kind(401).to_string(), BAD_REQUEST);
    bob.say(&to_ann, "still here");
}

#[test]
fn an_overview_holds_a_quarter_of_a_megabyte_of_last_messages() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    let mut ann = Level2Client::enter(&server, "ann", a, "a1");
    let others: Vec<i64> = (0..10).map(|n| offline_user(&server, &format!("n{n}"))).collect();
    for id in &others {
        ann.say(&format!("u{id}"), &"x".repeat(60_000));
    }
    let new = Level2Client::enter(&server, "ann", a, "a2");
    let counts: Vec<usize> = new
        .inbox()
        .filter(|frame| frame["msgType"] == 43)
        .map(|frame| frame["convs"].as_array().map_or(0, Vec::len))
        .collect();
    assert_eq!(counts, [4, 4, 2]);
    let listed = new.inbox().filter(|frame| frame["msgType"] == 43).flat_map(|frame| {
        let convs = frame["convs"].as_array().into_iter().flatten();
        convs.map(|conv| conv["conv"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    });
    let newest_first: Vec<String> = others.iter().rev().map(|id| format!("u{id}")).collect();
    assert_eq!(listed.collect::<Vec<_>>(), newest_first);
}

#[test]
fn unread_counts_messages_of_others_that_are_not_recalled() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    let group = ann.ask_for(200, json!({"msgType": 12, "FROMID": ann.store.me, "name": "team", "description": ""}));
    let team = format!("g{}", group["GROUPID"]);
    bob.ask_for(200, json!({"msgType": 10, "FROMID": bob.store.me, "GROUPID": group["GROUPID"]}));
    let (mut last, mut other) = (String::new(), 0);
    for conv in [&to_bob, &team] {
        for n in 0..5 {
            last = ann.send(conv, &n.to_string());
            other = ann.number(&last);
        }
        let recall = ann.send_with(conv, json!({"recall": other}));
        ann.number(&recall);
        let edit = ann.send_with(conv, json!({"edit": other - 1}));
        ann.number(&edit);
    }
    drop(last);
    let request = ann.send_with(&to_bob, json!({"msgType": 5}));
    ann.number(&request);
    let unread = |server: &TestServer, name: &str, id: i64| {
        let mut client = Level2Client::enter(server, name, id, "unread");
        let convs = client.take_kind(43)["convs"].clone();
        let of = |conv: &str| convs.as_array().into_iter().flatten().find(|line| line["conv"] == conv).cloned();
        let of = |conv: &str| of(conv).map_or(json!(null), |line| line["unread"].clone());
        [of(&to_bob), of(&to_ann), of(&team)]
    };
    assert_eq!(unread(&server, "bob", bob.store.me), [json!(null), json!(4), json!(4)]);
    assert_eq!(unread(&server, "ann", ann.store.me), [json!(0), json!(null), json!(0)]);
    // After reading up to the third, only the fourth is unread: the fifth is recalled.
    bob.until_at(&to_ann, other);
    let number = |n: u64| other - 5 + n;
    let reply = bob.ask_for(200, json!({"msgType": 49, "conv": team, "read": number(3)}));
    assert_eq!(reply["unread"], 1, "{reply}");
    let reply = bob.ask_for(200, json!({"msgType": 49, "conv": to_ann, "read": 1_000}));
    assert_eq!(reply["unread"], 0, "{reply}");
    assert_eq!(unread(&server, "bob", bob.store.me), [json!(null), json!(0), json!(1)]);
}

#[test]
fn requests_take_effect_in_the_order_in_which_they_were_sent() {
    on_both(|server| {
        let (mut ann, mut bob) = pair(server);
        let (b, to_ann) = (bob.store.me, with(&ann));
        for n in 1..=9 {
            ann.say(&with(&bob), &n.to_string());
        }
        bob.until_at(&to_ann, 9);
        // The second request of each pair shows the effect of the first one.
        for n in 1..=9 {
            let pairs = [
                (json!({"msgType": 49, "conv": to_ann, "read": n}), json!({"msgType": 49, "conv": to_ann, "read": 0})),
                (json!({"msgType": 66, "USERID": ann.store.me, "block": n % 2 == 1}), json!({"msgType": 66})),
                (json!({"msgType": 67, "name": format!("bob-{n}")}), json!({"msgType": 67})),
                (json!({"msgType": 67, "name": format!("Bob-{n}")}), json!({"msgType": 15, "keyword": b.to_string()})),
            ];
            for (no, (change, question)) in pairs.into_iter().enumerate() {
                let rid = |part: &str| json!(format!("{part}-{n}-{no}"));
                let frames = [("first", change), ("second", question)].map(|(part, mut frame)| {
                    frame["rid"] = rid(part);
                    frame
                });
                bob.send_many(&frames);
                let done = bob.take("the first reply", |frame| frame["rid"] == rid("first"));
                let reply = bob.take("the second reply", |frame| frame["rid"] == rid("second"));
                assert_eq!((&done["errno"], &reply["errno"]), (&json!(200), &json!(200)), "{done} {reply}");
                match no {
                    0 => assert_eq!(reply["read"], n, "{reply}"),
                    1 => assert_eq!(reply["blocked"].as_array().map(Vec::len), Some(n % 2), "{reply}"),
                    2 => assert_eq!(reply["name"], format!("bob-{n}"), "{reply}"),
                    _ => assert_eq!(reply["results"][0]["name"], format!("Bob-{n}"), "{reply}"),
                }
            }
        }
    });
}

#[test]
fn reports_count_for_the_next_login_of_the_device() {
    on_both(|server| {
        let (mut ann, mut bob) = pair(server);
        let (to_bob, to_ann) = (with(&bob), with(&ann));
        for n in 1..=40 {
            ann.say(&to_bob, &n.to_string());
        }
        bob.until_at(&to_ann, 40);
        let mut store = bob.leave();
        for round in 0..6 {
            let login = LoginAs::password(store.me, &password("bob"), "b1").with("have", json!("device"));
            let mut bob = Level2Client::login(TestClient::connect(server), store.clone(), login);
            bob.sync();
            let run = bob.take_kind(44);
            assert_eq!(run["from"], json!(6 * round + 1), "{run}");
            // Several reports in a row, immediately followed by the end of the connection or by
            // another request.
            let reports: Vec<Value> =
                (1..=6).map(|n| json!({"msgType": 47, "recv": {to_ann.clone(): 6 * round + n}})).collect();
            bob.send_many(&reports);
            if round % 2 == 0 {
                bob.ask_for_pong();
                store = bob.store.clone();
            } else {
                store = bob.leave();
                ann.take("that all is received", |frame| frame["msgType"] == 50 && frame["recv"] == 6 * round + 6);
            }
        }
    });
}

#[test]
fn a_send_waits_for_no_request_of_level_1_before_it() {
    let database = Database::create();
    let server = TestServer::builder().mysql(&database).start();
    let (mut ann, bob) = pair(&server);
    // The first message of a stranger needs that table as well.
    ann.say(&with(&bob), "first");
    let mut locker = database.connect();
    locker.query_drop("LOCK TABLES Friend WRITE").expect("lock the table");
    let me = ann.store.me;
    for rid in ["one", "two"] {
        ann.send_frame(&json!({"msgType": 8, "FROMID": me, "rid": rid}));
    }
    ann.say(&with(&bob), "neither waits for the other");
    assert!(ann.inbox().all(|frame| frame["msgType"] != 8));
    locker.query_drop("UNLOCK TABLES").expect("unlock it");
    assert_eq!(["one", "two"].map(|_| ann.take_kind(8)["rid"].clone()), ["one", "two"]);
}
