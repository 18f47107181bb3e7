//! Requests about accounts and groups: malformed members, and requests in flight at the same time.

use serde_json::{Value, json};

use crate::people::{pair, with};
use testkit::level2::Level2Client;
use testkit::{NOBODY, TestServer, offline_user, password, user};

#[test]
fn malformed_members_of_60_to_69_are_a_400_of_their_type() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let group = ann.ask_for(200, json!({"msgType": 12, "FROMID": ann.store.me, "name": "team", "description": ""}));
    let (group, b) = (group["GROUPID"].clone(), bob.store.me);
    let word = password("ann");
    type IsRight = fn(&Value) -> bool;
    let (is_text, is_id, is_flag): (IsRight, IsRight, IsRight) = (Value::is_string, Value::is_i64, Value::is_boolean);
    let never: IsRight = |_| false;
    let cases = [
        (json!({"msgType": 60, "password": word, "new": "x"}), "password", is_text, true),
        (json!({"msgType": 60, "password": word, "new": "x"}), "new", is_text, true),
        (json!({"msgType": 60, "password": word, "new": "x"}), "jwt", never, false),
        (json!({"msgType": 61, "GROUPID": group}), "GROUPID", is_id, true),
        (json!({"msgType": 62, "GROUPID": group}), "GROUPID", is_id, true),
        (json!({"msgType": 63, "GROUPID": group, "USERID": b}), "GROUPID", is_id, true),
        (json!({"msgType": 63, "GROUPID": group, "USERID": b}), "USERID", is_id, true),
        (json!({"msgType": 63, "GROUPID": group, "USERID": b, "ban": false}), "ban", is_flag, false),
        (json!({"msgType": 63, "GROUPID": group, "USERID": b, "add": true}), "add", is_flag, false),
        (json!({"msgType": 64, "GROUPID": group, "name": "x"}), "GROUPID", is_id, true),
        (json!({"msgType": 64, "GROUPID": group, "name": "x"}), "name", is_text, false),
        (json!({"msgType": 64, "GROUPID": group, "description": "x"}), "description", is_text, false),
        (json!({"msgType": 65, "GROUPID": group}), "GROUPID", is_id, true),
        (json!({"msgType": 66, "USERID": b, "block": true}), "USERID", is_id, false),
        (json!({"msgType": 66, "USERID": b, "block": true}), "block", is_flag, true),
        (json!({"msgType": 67, "name": "x"}), "name", is_text, false),
        (json!({"msgType": 67, "receipts": true}), "receipts", is_flag, false),
        (json!({"msgType": 68, "revoke": "x"}), "revoke", is_text, false),
        (json!({"msgType": 69, "password": word}), "password", is_text, true),
        (json!({"msgType": 69, "password": word}), "jwt", never, false),
    ];
    let kinds = [json!(null), json!(true), json!(7), json!(1.5), json!("text"), json!([]), json!([7]), json!({"a": 1})];
    for (request, member, right, is_needed) in cases {
        let mut spoilt: Vec<Value> = Vec::new();
        if is_needed {
            let mut without = request.clone();
            without.as_object_mut().expect("a request").remove(member);
            spoilt.push(without);
        }
        for value in kinds.iter().filter(|value| !right(value)) {
            let mut with = request.clone();
            with[member] = value.clone();
            spoilt.push(with);
        }
        for spoilt in spoilt {
            let reply = ann.ask_for(400, spoilt.clone());
            assert_eq!(reply["msgType"], request["msgType"], "{spoilt}: {reply}");
            assert!(reply.get("retryAfter").is_none() && reply["errmsg"].is_string(), "{spoilt}: {reply}");
        }
    }
    let members = ann.ask_for(200, json!({"msgType": 61, "GROUPID": group}));
    assert_eq!(members["members"].as_array().map(Vec::len), Some(1), "{members}");
}

#[test]
fn ids_of_nobody_in_60_to_69_are_a_404() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let group = ann.ask_for(200, json!({"msgType": 12, "FROMID": ann.store.me, "name": "team", "description": ""}));
    let (group, b) = (group["GROUPID"].clone(), bob.store.me);
    for id in [0, -1, NOBODY, i64::MAX] {
        for request in [
            json!({"msgType": 61, "GROUPID": id}),
            json!({"msgType": 62, "GROUPID": id}),
            json!({"msgType": 63, "GROUPID": id, "USERID": b}),
            json!({"msgType": 63, "GROUPID": group, "USERID": id}),
            json!({"msgType": 64, "GROUPID": id, "name": "x"}),
            json!({"msgType": 65, "GROUPID": id}),
            json!({"msgType": 66, "USERID": id, "block": true}),
        ] {
            ann.ask_for(404, request);
        }
    }
    ann.ask_for(404, json!({"msgType": 68, "revoke": "nothing"}));
    let members = ann.ask_for(200, json!({"msgType": 61, "GROUPID": group}));
    assert_eq!(members["members"].as_array().map(Vec::len), Some(1), "{members}");
}

#[test]
fn a_token_from_before_a_new_password_is_none_and_its_reply_has_a_new_one() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    // Sends in flight while the password changes are either committed or not acknowledged.
    let cids: Vec<String> = (0..20).map(|n| ann.send(&to_bob, &n.to_string())).collect();
    let mut tablet = Level2Client::enter(&server, "ann", ann.store.me, "a2");
    let reply = tablet.ask_for(200, json!({"msgType": 60, "password": password("ann"), "new": "other"}));
    assert!(reply["token"].is_string() && reply["tokenExpires"].is_i64(), "{reply}");
    ann.expect_farewell("revoked");
    let committed = cids.iter().filter(|cid| ann.store.acked(cid).is_some()).count() as u64;
    tablet.catch_up();
    tablet.until_at(&to_bob, committed);
    bob.until_at(&to_ann, committed);
    let (_, c) = user(&server, "carol");
    assert!(c > bob.store.me);
}

#[test]
fn members_come_and_go_while_others_write() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let group = ann.ask_for(200, json!({"msgType": 12, "FROMID": ann.store.me, "name": "team", "description": ""}));
    let (id, conv) = (group["GROUPID"].clone(), format!("g{}", group["GROUPID"]));
    let mut carol = Level2Client::enter(&server, "carol", offline_user(&server, "carol"), "c1");
    carol.ask_for(200, json!({"msgType": 10, "FROMID": carol.store.me, "GROUPID": id}));
    // The clients check that no number is left out and that none comes after the end.
    for round in 0..30 {
        for n in 0..5 {
            ann.send(&conv, &format!("a {round} {n}"));
            carol.send(&conv, &format!("c {round} {n}"));
        }
        bob.ask_for(200, json!({"msgType": 10, "FROMID": bob.store.me, "GROUPID": id}));
        bob.say(&conv, "hello");
        // A message in flight when its sender leaves may come too late.
        bob.send(&conv, "bye");
        bob.ask_for(200, json!({"msgType": 62, "GROUPID": id}));
        bob.settle();
    }
    ann.settle();
    carol.settle();
    let last = ann.say(&conv, "the last");
    carol.until_at(&conv, last);
    testkit::level2::assert_agree(&ann.store, &conv, &carol.store, &conv);
    testkit::level2::assert_agree(&ann.store, &conv, &bob.store, &conv);
    assert_eq!(ann.store.texts(&conv).iter().filter(|text| *text == "hello").count(), 30);
}
