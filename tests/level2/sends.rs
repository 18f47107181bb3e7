//! Sends that are repeated, refused, or many at once; edits and recalls.

use serde_json::{Value, json};

use crate::people::{pair, with};
use testkit::level2::{Level2Client, assert_agree};
use testkit::{NOBODY, TestServer, offline_user, user};

#[test]
fn the_same_cid_is_the_same_message() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    let frame = ann.message(&to_bob);
    let cid = frame["cid"].as_str().expect("a cid").to_owned();
    ann.send_frame(&frame);
    let first = ann.answer(&cid);
    assert_eq!((&first["errno"], &first["seq"]), (&json!(200), &json!(1)), "{first}");
    let repeat = |client: &mut Level2Client| {
        client.send_frame(&frame);
        client.answer(&cid)
    };
    let mut expected = first.clone();
    expected["again"] = json!(true);
    assert_eq!(repeat(&mut ann), expected, "on the same connection");
    // The same on another connection, and from another device at the same moment.
    let mut ann = Level2Client::resume(&server, "ann", "a1", ann.leave());
    let mut tablet = Level2Client::enter(&server, "ann", ann.store.me, "a2");
    assert_eq!(repeat(&mut ann), expected, "on another connection");
    assert_eq!(repeat(&mut tablet), expected, "from another device");
    bob.until_at(&to_ann, 1);
    assert_eq!(ann.say(&to_bob, "next"), 2);
    bob.until_at(&to_ann, 2);
    assert_eq!(bob.store.logs[&to_ann].messages.len(), 2);
}

#[test]
fn a_cid_stays_known_after_a_restart() {
    let mut server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let frame = ann.message(&with(&bob));
    let cid = frame["cid"].as_str().expect("a cid").to_owned();
    ann.send_frame(&frame);
    let first = ann.answer(&cid);
    let store = ann.leave();
    server.kill9();
    server.restart();
    let mut ann = Level2Client::resume(&server, "ann", "a1", store);
    ann.send_frame(&frame);
    let again = ann.answer(&cid);
    assert_eq!((&again["again"], &again["seq"], &again["tag"]), (&json!(true), &first["seq"], &first["tag"]));
}

#[test]
fn a_cid_with_another_content_is_refused() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let (carol, c) = user(&server, "carol");
    let mut tablet = Level2Client::enter(&server, "ann", ann.store.me, "a2");
    let mut frame = ann.message(&with(&bob));
    frame["msg"] = json!("one");
    let cid = frame["cid"].as_str().expect("a cid").to_owned();
    ann.send_frame(&frame);
    ann.number(&cid);
    let refused = |client: &mut Level2Client, text: String| {
        client.send_text(&text);
        let answer = client.answer(&cid);
        assert_eq!((&answer["errno"], answer.get("retryAfter")), (&json!(409), None), "{answer} to {text}");
    };
    let changed = |key: &str, value: Value| {
        let mut changed = frame.clone();
        changed[key] = value;
        changed.to_string()
    };
    refused(&mut ann, changed("msg", json!("two")));
    refused(&mut tablet, changed("msg", json!("two")));
    refused(&mut ann, changed("TOID", json!(c)));
    refused(&mut ann, changed("more", json!(null)));
    // The server compares bytes, so another blank is another content.
    refused(&mut ann, frame.to_string().replace("\"msg\":", "\"msg\": "));
    drop(carol);
    // The same `cid` from another user is another message.
    let mut bob = bob;
    let mut theirs = bob.message(&with(&ann));
    theirs["cid"] = json!(cid);
    bob.send_frame(&theirs);
    assert_eq!(bob.number(&cid), 2);
}

#[test]
fn two_devices_that_send_one_cid_at_once_send_one_message() {
    let server = TestServer::start();
    let (ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    let mut devices = vec![ann];
    for n in 2..=4 {
        devices.push(Level2Client::enter(&server, "ann", devices[0].store.me, &format!("a{n}")));
    }
    for round in 1..=20 {
        let frame = devices[0].message(&to_bob);
        devices.iter_mut().for_each(|device| device.send_frame(&frame));
        let cid = frame["cid"].as_str().expect("a cid");
        let answers: Vec<Value> = devices.iter_mut().map(|device| device.answer(cid)).collect();
        assert!(answers.iter().all(|answer| answer["seq"] == round), "{answers:?}");
        let first = answers.iter().filter(|answer| answer.get("again").is_none()).count();
        assert_eq!(first, 1, "{answers:?}");
    }
    bob.until_at(&to_ann, 20);
    devices.iter_mut().for_each(|device| device.until_at(&to_bob, 20));
    assert_eq!(bob.store.logs[&to_ann].messages.len(), 20);
}

#[test]
fn two_devices_that_send_one_cid_with_different_contents_at_once_send_one_of_them() {
    let server = TestServer::start();
    let (ann, mut bob) = pair(&server);
    let carol = Level2Client::enter(&server, "carol", offline_user(&server, "carol"), "c1");
    let (to_bob, to_carol, to_ann) = (with(&bob), with(&carol), with(&ann));
    let mut devices = vec![ann];
    for n in 2..=4 {
        devices.push(Level2Client::enter(&server, "ann", devices[0].store.me, &format!("a{n}")));
    }
    let (mut to, mut texts) = (0, Vec::new());
    for round in 0..20 {
        // Three to one conversation and one to another.
        let cid = format!("one-{round}");
        for (n, device) in devices.iter_mut().enumerate() {
            let conv = if n == 3 { &to_carol } else { &to_bob };
            device.send_with(conv, json!({"cid": cid, "msg": format!("{round} of {n}")}));
        }
        let answers: Vec<Value> = devices.iter_mut().map(|device| device.answer(&cid)).collect();
        let mut errnos: Vec<i64> = answers.iter().filter_map(|answer| answer["errno"].as_i64()).collect();
        errnos.sort_unstable();
        assert_eq!(errnos, [200, 409, 409, 409], "{answers:?}");
        assert!(answers.iter().all(|answer| answer.get("retryAfter").is_none()), "{answers:?}");
        let first = answers.iter().position(|answer| answer["errno"] == 200).expect("one of them");
        if first < 3 {
            texts.push(format!("{round} of {first}"));
            to += 1;
        }
    }
    bob.until_at(&to_ann, to);
    assert_eq!(bob.store.texts(&to_ann), texts);
    assert_eq!(server.count("SELECT count(*) FROM Message WHERE kind = 0"), 20);
}

#[test]
fn sends_that_cannot_succeed_are_refused_for_good() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let (mut carol, c) = user(&server, "carol");
    let group = carol.create_group(c, "carol's");
    let cases = [(format!("u{NOBODY}"), 404), (format!("g{group}"), 403), (format!("g{NOBODY}"), 404)];
    for (conv, errno) in cases {
        let cid = ann.send(&conv, "x");
        let answer = ann.answer(&cid);
        assert_eq!((&answer["errno"], answer.get("retryAfter")), (&json!(errno), None), "{conv}: {answer}");
    }
    // FROMID is optional, but checked if it is given.
    let to_bob = with(&bob);
    let cid = ann.send_with(&to_bob, json!({"FROMID": c}));
    let answer = ann.answer(&cid);
    assert_eq!((&answer["errno"], answer.get("retryAfter")), (&json!(403), None), "{answer}");
    let mut frame = ann.message(&to_bob);
    frame.as_object_mut().expect("a frame").remove("FROMID");
    ann.send_frame(&frame);
    assert_eq!(ann.number(frame["cid"].as_str().expect("a cid")), 1);
    // None of these holds up a later send.
    assert_eq!(ann.say(&to_bob, "on"), 2);
}

#[test]
fn three_hundred_sends_in_flight_are_acknowledged_in_order() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    assert_eq!(ann.welcome.limits.inflight, 256);
    // One write with more sends than may be unacknowledged, so that all arrive at once.
    let cids: Vec<String> = {
        let frames: Vec<Value> = (0..300).map(|_| ann.message(&to_bob)).collect();
        ann.send_many(&frames);
        frames.iter().map(|frame| frame["cid"].as_str().expect("a cid").to_owned()).collect()
    };
    ann.settle();
    for (n, cid) in cids.iter().enumerate() {
        assert_eq!(ann.number(cid), n as u64 + 1);
    }
    bob.until_at(&to_ann, 300);
    assert_agree(&ann.store, &to_bob, &bob.store, &to_ann);
}

#[test]
fn replies_do_not_wait_for_sends_and_keep_their_own_order() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let to_bob = with(&bob);
    let mut rids = Vec::new();
    for n in 0..60 {
        ann.send(&to_bob, &n.to_string());
        let rid = json!(n);
        ann.send_frame(&match n % 4 {
            0 => json!({"msgType": 53, "rid": rid}),
            1 => json!({"msgType": 48, "conv": to_bob, "rid": rid}),
            2 => json!({"msgType": 15, "keyword": "1", "rid": rid}),
            _ => json!({"msgType": 49, "conv": to_bob, "read": n, "rid": rid}),
        });
        rids.push(rid);
    }
    // The client checks the order of the replies.
    for rid in rids {
        ann.take(&format!("the reply {rid}"), |frame| frame["rid"] == rid);
    }
    ann.settle();
    assert_eq!(ann.store.cursor(&to_bob), 60);
}

fn refuse(client: &mut Level2Client, conv: &str, members: Value, errno: i64) {
    let cid = client.send_with(conv, members.clone());
    let answer = client.answer(&cid);
    assert_eq!((&answer["errno"], answer.get("retryAfter")), (&json!(errno), None), "{members}: {answer}");
}

#[test]
fn an_edit_gives_a_message_a_new_body() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    ann.say(&to_bob, "helo");
    bob.until_at(&to_ann, 1);
    bob.send_frame(&json!({"msgType": 49, "conv": to_ann, "read": 1}));
    let edit = |ann: &mut Level2Client, msg: &str| {
        let cid = ann.send_with(&to_bob, json!({"edit": 1, "msg": msg}));
        ann.number(&cid)
    };
    assert_eq!(edit(&mut ann, "hello"), 2);
    assert_eq!(edit(&mut ann, "hello!"), 3);
    bob.until_at(&to_ann, 3);
    assert_eq!(bob.store.texts(&to_ann), ["hello!", "hello", "hello!"]);
    let page = bob.ask_for(200, json!({"msgType": 48, "conv": to_ann}));
    let first = &page["msgs"][0];
    assert_eq!((&first["edited"], &first["m"]["msg"], &first["m"]["edit"]), (&json!(3), &json!("hello!"), &json!(1)));
    let reply = bob.ask_for(200, json!({"msgType": 49, "conv": to_ann, "read": 0}));
    assert_eq!((&reply["read"], &reply["unread"]), (&json!(1), &json!(0)), "edits are not unread: {reply}");
    // A run shows the edited message, and the last message is the edit.
    let mut tablet = Level2Client::enter(&server, "bob", bob.store.me, "b2");
    let line = tablet.take_kind(43)["convs"][0].clone();
    assert_eq!((&line["last"]["seq"], &line["last"]["m"]["msg"]), (&json!(3), &json!("hello!")), "{line}");
    tablet.page_through(&to_ann);
    assert_eq!(tablet.store.texts(&to_ann), bob.store.texts(&to_ann));
}

#[test]
fn a_recall_empties_a_message_and_its_edits() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    ann.say(&to_bob, "secret");
    ann.say(&to_bob, "other");
    let cid = ann.send_with(&to_bob, json!({"edit": 1, "msg": "secrets"}));
    assert_eq!(ann.number(&cid), 3);
    let cid = ann.send_with(&to_bob, json!({"recall": 1}));
    assert_eq!(ann.number(&cid), 4);
    bob.until_at(&to_ann, 4);
    let page = bob.ask_for(200, json!({"msgType": 48, "conv": to_ann}));
    for n in [0, 2] {
        let message = &page["msgs"][n];
        assert_eq!((&message["m"], &message["recalled"]), (&Value::Null, &json!(4)), "{message}");
    }
    assert!(!page.to_string().contains("secret"), "{page}");
    let reply = bob.ask_for(200, json!({"msgType": 49, "conv": to_ann, "read": 0}));
    assert_eq!(reply["unread"], 1, "what is recalled is not unread: {reply}");
    let mut fresh = Level2Client::enter(&server, "bob", bob.store.me, "b2");
    fresh.page_through(&to_ann);
    assert_eq!(fresh.store.texts(&to_ann), ["other"]);
    // The same holds in a run.
    let mut store = fresh.leave();
    store.logs.clear();
    let have = json!({to_ann.clone(): "0:00000000"});
    let mut again = Level2Client::enter(&server, "bob", store.me, "b3");
    again.ask(json!({"msgType": 46, "have": have}));
    assert_eq!(again.store.logs[&to_ann].messages.len(), 4);
    assert_eq!(again.store.texts(&to_ann), ["other"]);
}

#[test]
fn only_own_messages_of_this_conversation_are_changed() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    ann.say(&to_bob, "1");
    ann.say(&to_bob, "2");
    bob.until_at(&to_ann, 2);
    bob.say(&to_ann, "3");
    ann.until_at(&to_bob, 3);
    let request = ann.send_with(&to_bob, json!({"msgType": 5}));
    assert_eq!(ann.number(&request), 4);
    for key in ["edit", "recall"] {
        // The targets: another user's message, a friend request, an unknown number, zero.
        refuse(&mut ann, &to_bob, json!({key: 3}), 403);
        refuse(&mut ann, &to_bob, json!({key: 4}), 403);
        refuse(&mut ann, &to_bob, json!({key: 5}), 404);
        refuse(&mut ann, &to_bob, json!({key: 0}), 404);
        refuse(&mut ann, &to_bob, json!({key: -1}), 404);
        refuse(&mut ann, &to_bob, json!({key: 4_503_599_627_370_496_i64}), 404);
        refuse(&mut ann, &to_bob, json!({key: "1"}), 400);
        refuse(&mut ann, &to_bob, json!({key: 1.5}), 400);
        refuse(&mut ann, &to_bob, json!({key: null}), 400);
    }
    refuse(&mut ann, &to_bob, json!({"edit": 1, "recall": 2}), 400);
    // A recalled message, a recall and an edit cannot be changed.
    let cid = ann.send_with(&to_bob, json!({"edit": 2, "msg": "zwei"}));
    assert_eq!(ann.number(&cid), 5);
    refuse(&mut ann, &to_bob, json!({"edit": 5}), 403);
    refuse(&mut ann, &to_bob, json!({"recall": 5}), 403);
    let cid = ann.send_with(&to_bob, json!({"recall": 1}));
    assert_eq!(ann.number(&cid), 6);
    refuse(&mut ann, &to_bob, json!({"recall": 1}), 403);
    refuse(&mut ann, &to_bob, json!({"edit": 1}), 403);
    refuse(&mut ann, &to_bob, json!({"recall": 6}), 403);
    assert_eq!(ann.say(&to_bob, "7"), 7);
    bob.until_at(&to_ann, 7);
}

#[test]
fn the_window_of_edits_is_a_day() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let to_bob = with(&bob);
    ann.say(&to_bob, "1");
    ann.say(&to_bob, "2");
    let ago = |milliseconds: i64, seq: u64| {
        server.run_sql(&format!("UPDATE Message SET time = time - {milliseconds} WHERE seq = {seq}"));
    };
    ago(24 * 3_600_000 - 600_000, 1);
    let cid = ann.send_with(&to_bob, json!({"edit": 1}));
    assert_eq!(ann.number(&cid), 3);
    ago(24 * 3_600_000 + 1_000, 2);
    refuse(&mut ann, &to_bob, json!({"edit": 2}), 403);
    refuse(&mut ann, &to_bob, json!({"recall": 2}), 403);
}

#[test]
fn a_repeat_of_an_edit_is_the_same_edit() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let to_bob = with(&bob);
    ann.say(&to_bob, "1");
    let mut frame = ann.message(&to_bob);
    (frame["edit"], frame["msg"]) = (json!(1), json!("one"));
    let cid = frame["cid"].as_str().expect("a cid").to_owned();
    ann.send_frame(&frame);
    assert_eq!(ann.number(&cid), 2);
    let recall = ann.send_with(&to_bob, json!({"recall": 1}));
    assert_eq!(ann.number(&recall), 3);
    // The target is recalled and the text is gone. Retries are looked up before rights are checked.
    ann.send_frame(&frame);
    let again = ann.answer(&cid);
    assert_eq!((&again["again"], &again["seq"]), (&json!(true), &json!(2)), "{again}");
}
