//! The behaviour of this server where a recording shows a fault of the reference and contains no
//! better exchange.
//!
//! [`COVERED`] assigns a test to each scenario, and a test checks that no scenario is missing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use testkit::{ACK, BAD_REQUEST, NO_SUCH_METHOD, NOBODY, SERVER_ERROR, TestClient, TestServer, WRONG_PASSWORD};
use testkit::{assert_no_repeated_member, chat, login, number_of, numbered, offline_user, password, user, wait_until};

/// Every scenario for one node that is marked `cpp_quirk` and has no `better_steps`, and the test
/// that replaces it.
const COVERED: &[(&str, fn())] = &[
    ("chat-exact-text", forwarded_text_is_the_value_that_was_sent),
    ("chat-integer-beyond-64-bits", integers_beyond_64_bits_keep_their_digits),
    ("frame-byte-order-mark", a_byte_order_mark_hides_no_request),
    ("frame-msgtype-huge", a_huge_msgtype_is_unknown),
    ("friend-add-unknown-user", nobody_cannot_be_added),
    ("friend-add-myself", nobody_adds_oneself),
    ("group-join-unknown-group", an_unknown_group_cannot_be_joined),
    ("group-chat-by-non-member", only_members_write_to_a_group),
    ("login-userid-wraps-around", an_id_beyond_32_bits_is_nobody),
    ("logout-from-replaced-connection", a_logout_leaves_the_other_connection_alone),
    ("offline-fetch-of-other-user", stored_messages_are_for_their_recipient),
    ("register-nul-in-name", a_nul_does_not_cut_a_name),
    ("session-newest-closes-first", the_older_connection_receives_when_the_newest_closes),
];

/// Scenarios for two nodes; the cluster's tests cover these.
const NEEDS_TWO_NODES: &[&str] = &["cluster-one-of-two-logins-ends"];

#[test]
fn every_quirk_has_its_test() {
    let mut nodes_of = BTreeMap::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    for entry in fs::read_dir(folder).expect("list the scenario files") {
        let path = entry.expect("list the scenario files").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("read a scenario file");
        let scenarios: Vec<Value> = serde_json::from_str(&text).expect("a scenario file is a list");
        for scenario in scenarios {
            if scenario["cpp_quirk"] == true && scenario.get("better_steps").is_none() {
                let name = scenario["name"].as_str().expect("a scenario has a name").to_owned();
                nodes_of.insert(name, scenario["nodes"].as_u64().unwrap_or(1));
            }
        }
    }
    let mut listed = BTreeMap::new();
    listed.extend(COVERED.iter().map(|(name, _)| ((*name).to_owned(), 1)));
    listed.extend(NEEDS_TWO_NODES.iter().map(|name| ((*name).to_owned(), 2)));
    assert_eq!(listed, nodes_of, "the lists (left) and the scenario files (right) must name the same scenarios");
}

#[test]
fn forwarded_text_is_the_value_that_was_sent() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    alice.send_text(&format!(
        r#"{{ "msgType": 4, "sendTime": 1.50, "msg": "\u00e9\/", "b": 1, "TOID": {b}, "_": {{"z":1,"A":[ ]}}, "FROMID": {a} }}"#
    ));
    let text = bob.recv_text();
    assert_no_repeated_member(&text);
    assert!(!text.contains('\n'), "a forwarded frame is one line: {text}");
    let value: Value = serde_json::from_str(&text).expect("a forwarded frame is JSON");
    let expected =
        json!({"msgType": 4, "sendTime": 1.5, "msg": "é/", "b": 1, "TOID": b, "_": {"z": 1, "A": []}, "FROMID": a});
    assert_eq!(value, expected);
}

#[test]
fn integers_beyond_64_bits_keep_their_digits() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let c = offline_user(&server, "carol");
    for number in ["18446744073709551616", "-9223372036854775809", "123456789012345678901234567890"] {
        for to in [b, c] {
            alice.send_text(&format!(r#"{{"msgType":4,"FROMID":{a},"TOID":{to},"n":{number}}}"#));
        }
        let text = bob.recv_text();
        assert!(text.contains(number), "{number} must keep its digits: {text}");
    }
    alice.barrier();
    let stored = login(&server, "carol", c).fetch_texts(c);
    assert_eq!(stored.len(), 3);
    assert!(stored[2].contains("123456789012345678901234567890"), "{}", stored[2]);
}

#[test]
fn a_byte_order_mark_hides_no_request() {
    let server = TestServer::start();
    let mut client = TestClient::connect(&server);
    client.send_raw(b"\xef\xbb\xbf{\"msgType\":99}");
    // The server may skip the mark or answer it with 401. Either way it must answer the request
    // that follows.
    let mut text = client.recv_text();
    if text == BAD_REQUEST {
        text = client.recv_text();
    }
    assert_eq!(text, NO_SUCH_METHOD);
    client.barrier();
}

#[test]
fn a_huge_msgtype_is_unknown() {
    let server = TestServer::start();
    let (mut alice, _) = user(&server, "alice");
    for number in ["99999999999999999999", "-99999999999999999999", "18446744073709551627", "4294967300"] {
        alice.send_text(&format!(r#"{{"msgType":{number}}}"#));
        alice.expect_text(NO_SUCH_METHOD);
    }
    // This number is not written as an integer, so the recording also allows 404.
    alice.send_text(r#"{"msgType":1e300}"#);
    let text = alice.recv_text();
    assert!(text == BAD_REQUEST || text == NO_SUCH_METHOD, "{text}");
    alice.barrier();
}

#[test]
fn nobody_cannot_be_added() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    alice.send(&json!({"msgType": 6, "U1": a, "U2": NOBODY}));
    alice.expect_text(&format!(r#"{{"errmsg":"no such user","errno":404,"msgType":6,"userId":{NOBODY}}}"#));
    alice.send(&json!({"msgType": 8, "FROMID": a}));
    alice.expect_text(r#"{"errno":200,"friends":[],"msgType":8}"#);
    assert_eq!(server.count("SELECT count(*) FROM Friend"), 0, "nothing is stored");
}

#[test]
fn nobody_adds_oneself() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    alice.send(&json!({"msgType": 6, "U1": a, "U2": a}));
    alice.expect_text(&format!(r#"{{"errmsg":"cannot add yourself","errno":400,"msgType":6,"userId":{a}}}"#));
    alice.send(&json!({"msgType": 8, "FROMID": a}));
    alice.expect_text(r#"{"errno":200,"friends":[],"msgType":8}"#);
    alice.expect_silence_until_barrier();
}

#[test]
fn an_unknown_group_cannot_be_joined() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    alice.send(&json!({"msgType": 10, "FROMID": a, "GROUPID": NOBODY}));
    alice.expect_text(&format!(r#"{{"errmsg":"no such group","errno":404,"groupId":{NOBODY},"msgType":10}}"#));
    alice.send(&json!({"msgType": 11, "FROMID": a}));
    alice.expect_text(r#"{"errno":200,"groups":[],"msgType":200}"#);
}

#[test]
fn a_number_that_nobody_has_is_answered_as_it_was_sent() {
    const DIGITS: &str = "36893488147419103232";
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    alice.send_text(&format!(r#"{{"msgType":6,"U1":{a},"U2":{DIGITS}}}"#));
    alice.expect_text(&format!(r#"{{"errmsg":"no such user","errno":404,"msgType":6,"userId":{DIGITS}}}"#));
    alice.send_text(&format!(r#"{{"msgType":10,"FROMID":{a},"GROUPID":-{DIGITS}}}"#));
    alice.expect_text(&format!(r#"{{"errmsg":"no such group","errno":404,"groupId":-{DIGITS},"msgType":10}}"#));
}

#[test]
fn a_connection_that_is_both_new_friends_is_answered_before_the_push() {
    let server = TestServer::start();
    let (mut both, a) = user(&server, "alice");
    let b = both.register("bob", &password("bob"));
    both.login(b, &password("bob"));
    both.send(&json!({"msgType": 6, "U1": a, "U2": b}));
    both.expect_text(&format!(r#"{{"errno":200,"msgType":6,"name":"bob","userId":{b}}}"#));
    both.expect_text(&format!(r#"{{"errno":200,"msgType":6,"name":"alice","new":true,"userId":{a}}}"#));
}

#[test]
fn the_compatible_mode_makes_groups_for_nobody_and_logs_others_out() {
    let server = TestServer::builder().option("auth", "compat").start();
    let mut stranger = TestClient::connect(&server);
    let reply = stranger.ask(&json!({"msgType": 12, "FROMID": -5, "name": "gift", "description": "d"}));
    assert_eq!((&reply["errno"], &reply["msgType"], &reply["name"]), (&json!(200), &json!(12), &json!("gift")));
    assert!(reply["GROUPID"].as_i64().is_some_and(|id| id > 0), "{reply}");

    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    stranger.send(&json!({"msgType": 3, "USERID": b}));
    stranger.expect_text(BAD_REQUEST);
    stranger.send(&json!({"msgType": 3, "USERID": a}));
    stranger.expect_text(ACK);
    stranger.send(&chat(b, a, "gone?"));
    wait_until("the message is stored", || server.stored_for(a) == 1);
    alice.expect_silence_until_barrier();
    server.wait_state(a, "offline");
    // The connection is no longer logged in as that user.
    alice.send(&json!({"msgType": 3, "USERID": a}));
    alice.expect_text(BAD_REQUEST);
}

#[test]
fn only_members_write_to_a_group() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let (mut eve, e) = user(&server, "eve");
    let group = alice.create_group(a, "private");
    bob.join_group(b, group);
    eve.send(&json!({"msgType": 9, "FROMID": e, "GROUPID": group, "msg": "intruder"}));
    eve.expect_refusal(403);
    alice.expect_silence_until_barrier();
    bob.expect_silence_until_barrier();
    eve.join_group(e, group);
    let message = json!({"msgType": 9, "FROMID": e, "GROUPID": group, "msg": "now a member"});
    eve.send(&message);
    alice.expect(&message);
    bob.expect(&message);
}

#[test]
fn an_id_beyond_32_bits_is_nobody() {
    let server = TestServer::start();
    let a = offline_user(&server, "alice");
    let mut client = TestClient::connect(&server);
    for id in [a + (1 << 32), a - (1 << 32), a + (1 << 33), i64::MAX, i64::MIN] {
        client.send(&json!({"msgType": 1, "USERID": id, "password": password("alice")}));
        client.expect_text(WRONG_PASSWORD);
    }
    client.send_text(&format!(
        r#"{{"msgType":1,"USERID":{},"password":"{}"}}"#,
        (1_i128 << 64) + i128::from(a),
        password("alice")
    ));
    client.expect_text(WRONG_PASSWORD);
    assert_eq!(server.state_of(a), "offline");
}

#[test]
fn a_logout_leaves_the_other_connection_alone() {
    let server = TestServer::start();
    let (mut older, a) = user(&server, "alice");
    let mut newer = login(&server, "alice", a);
    let (mut bob, b) = user(&server, "bob");
    older.logout(a);
    bob.send(&chat(b, a, "anyone?"));
    newer.expect(&chat(b, a, "anyone?"));
    older.expect_silence_until_barrier();
    server.wait_state(a, "online");
}

#[test]
fn stored_messages_are_for_their_recipient() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    let (mut eve, _) = user(&server, "eve");
    alice.send(&chat(a, b, "private"));
    alice.barrier();
    eve.send(&json!({"msgType": 14, "FROMID": b}));
    eve.expect_refusal(403);
    let mut bob = login(&server, "bob", b);
    assert_eq!(bob.fetch(b), [chat(a, b, "private")]);
    assert_eq!(bob.fetch(b), [] as [Value; 0]);
}

#[test]
fn a_nul_does_not_cut_a_name() {
    let server = TestServer::start();
    let mut client = TestClient::connect(&server);
    client.send_text(r#"{"msgType":2,"name":"nul\u0000tail","password":"x"}"#);
    let reply = client.recv();
    if reply["errno"] == 200 {
        let id = reply["USERID"].as_i64().expect("an id");
        client.login(id, "x");
        let found = client.ask(&json!({"msgType": 15, "keyword": id.to_string()}));
        assert_eq!(found["results"][0]["name"], "nul\0tail", "{found}");
        client.send_text(r#"{"msgType":2,"name":"nul\u0000tail","password":"x"}"#);
        client.expect_text(SERVER_ERROR);
    } else {
        assert_eq!(reply.to_string(), BAD_REQUEST);
    }
    // In both cases the shorter name is still free.
    client.register("nul", "x");
    client.send_text(r#"{"msgType":200}"#);
    client.expect_text(ACK);
}

#[test]
fn the_older_connection_receives_when_the_newest_closes() {
    let server = TestServer::start();
    let (mut older, a) = user(&server, "alice");
    let newer = login(&server, "alice", a);
    let (mut bob, b) = user(&server, "bob");
    drop(newer);
    // The server notices the end some time later. Bytes that it has written to the broken
    // connection before count as delivered (protocol 4.1). The rest goes to the older connection or
    // into the store.
    let mut sent = 0;
    wait_until("the older connection receives", || {
        bob.send(&numbered(b, a, sent));
        bob.barrier();
        sent += 1;
        older.recv_pushes().iter().any(|frame| number_of(frame) == sent - 1)
    });
    for n in sent..sent + 20 {
        bob.send(&numbered(b, a, n));
        older.expect(&numbered(b, a, n));
    }
}
