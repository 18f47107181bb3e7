//! Every member of every request, missing, of a wrong kind and out of range. The tests check the
//! exact errno, and whether the connection stays open.

use serde_json::{Value, json};

use crate::people::{pair, with};
use testkit::level2::{Level2Client, LoginAs, Store};
use testkit::{BAD_REQUEST, NO_SUCH_METHOD, NOBODY, TestClient, TestServer, password, user};

/// Values of every JSON type.
fn kinds() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(7),
        json!(1.5),
        json!("text"),
        json!([]),
        json!([7]),
        json!({}),
        json!({"a": 1}),
    ]
}

/// Variants of a request: without one member, and with values of wrong kinds for it.
fn spoilt(request: &Value, member: &str, right: IsRight, optional: bool) -> Vec<Value> {
    let mut all = Vec::new();
    if !optional {
        let mut without = request.clone();
        without.as_object_mut().expect("a request").remove(member);
        all.push(without);
    }
    for value in kinds().into_iter().filter(|value| !right(value)) {
        let mut with = request.clone();
        with[member] = value;
        all.push(with);
    }
    all
}

fn is_integer(value: &Value) -> bool {
    value.is_i64()
}

/// Whether a member is required.
#[derive(Clone, Copy, PartialEq)]
enum Need {
    Needed,
    Optional,
}

use Need::{Needed, Optional};

/// A request, one of its members, whether that is required, and the values that are of the right
/// kind.
type Case = (Value, &'static str, Need, IsRight);

/// Whether a value is of the right kind for a member.
type IsRight = fn(&Value) -> bool;

#[test]
fn members_of_wrong_kinds_are_a_400_of_their_type() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let conv = with(&bob);
    ann.say(&conv, "1");
    let cases: Vec<Case> = vec![
        (json!({"msgType": 46, "have": {}}), "have", Needed, Value::is_object),
        (json!({"msgType": 46, "have": {}, "resume": 5}), "resume", Optional, is_integer),
        (json!({"msgType": 47, "recv": {}}), "recv", Needed, |value| *value == json!({})),
        (json!({"msgType": 48, "conv": conv}), "conv", Needed, |_| false),
        (json!({"msgType": 48, "conv": conv, "before": 1}), "before", Optional, is_integer),
        (json!({"msgType": 48, "conv": conv, "after": 1}), "after", Optional, is_integer),
        (json!({"msgType": 48, "conv": conv, "around": 1}), "around", Optional, is_integer),
        (json!({"msgType": 48, "conv": conv, "limit": 1}), "limit", Optional, is_integer),
        (json!({"msgType": 49, "conv": conv, "read": 1}), "conv", Needed, |_| false),
        (json!({"msgType": 49, "conv": conv, "read": 1}), "read", Needed, is_integer),
        (json!({"msgType": 51, "conv": conv, "event": "typing"}), "conv", Needed, |_| false),
        (json!({"msgType": 51, "conv": conv, "event": "typing"}), "event", Needed, |_| false),
        (json!({"msgType": 52, "watch": []}), "watch", Needed, Value::is_array),
    ];
    for (request, member, need, right) in cases {
        for spoilt in spoilt(&request, member, right, need == Optional) {
            let reply = ann.ask_for(400, spoilt.clone());
            assert_eq!(reply["msgType"], request["msgType"], "{spoilt}: {reply}");
            assert!(reply.get("retryAfter").is_none(), "{spoilt}: {reply}");
        }
    }
    for watch in [json!(["7"]), json!([null]), json!([7.5]), json!([[7]]), json!((1..=501).collect::<Vec<_>>())] {
        ann.ask_for(400, json!({"msgType": 52, "watch": watch}));
    }
    for recv in [json!("7"), json!(null), json!(7.5), json!([7]), json!({})] {
        ann.ask_for(400, json!({"msgType": 47, "recv": {conv.clone(): recv}}));
    }
    assert_eq!(ann.say(&conv, "still here"), 2);
}

#[test]
fn conversations_are_named_as_the_server_names_them() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let (mut carol, c) = user(&server, "carol");
    let group = carol.create_group(c, "carol's");
    let b = bob.store.me;
    let wrong = [
        "",
        "u",
        "g",
        "9",
        "x9",
        "u0",
        "g0",
        "u09",
        "u-9",
        "u+9",
        "u 9",
        "u9 ",
        " u9",
        "U9",
        "u9x",
        "u9.0",
        "u1e1",
        "u99999999999",
        "g2147483648",
        "u18446744073709551625",
        "ug9",
        "\u{ff55}9",
        "u\u{ff19}",
    ];
    let requests = |conv: &str| {
        [
            json!({"msgType": 48, "conv": conv}),
            json!({"msgType": 49, "conv": conv, "read": 1}),
            json!({"msgType": 51, "conv": conv, "event": "typing"}),
        ]
    };
    for name in wrong.iter().map(|name| (*name).to_owned()).chain([format!("u{b}\0"), format!("u0{b}")]) {
        requests(&name).into_iter().for_each(|request| drop(ann.ask_for(400, request)));
    }
    for (name, errno) in [(format!("u{NOBODY}"), 404), (format!("g{NOBODY}"), 404), (format!("g{group}"), 403)] {
        // Only the first two requests: typing that reaches nobody may be dropped.
        requests(&name).into_iter().take(2).for_each(|request| drop(ann.ask_for(errno, request)));
    }
    let notes = with(&ann);
    assert_eq!(ann.say(&notes, "still here"), 1);
}

#[test]
fn malformed_sends_are_refused_in_their_place() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let (a, b) = (ann.store.me, bob.store.me);
    let refused = |ann: &mut Level2Client, frame: Value, errno: i64| {
        ann.send_frame(&frame);
        let answer = match frame["cid"].as_str().filter(|cid| is_cid(cid)) {
            Some(cid) => ann.answer(cid),
            None => ann.take("a 41 without cid", |frame| frame["msgType"] == 41),
        };
        assert_eq!((&answer["errno"], &answer["msgType"]), (&json!(errno), &json!(41)), "{frame}: {answer}");
        assert!(answer.get("retryAfter").is_none(), "{frame}: {answer}");
    };
    for (kind, to) in [(4, "TOID"), (5, "TOID"), (9, "GROUPID")] {
        let frame = json!({"msgType": kind, "FROMID": a, to: b, "cid": format!("c{kind}")});
        for (n, mut spoilt) in spoilt(&frame, to, is_integer, false).into_iter().enumerate() {
            spoilt["cid"] = json!(format!("to{kind}-{n}"));
            refused(&mut ann, spoilt, 400);
        }
        for (n, id) in [json!(0), json!(-1), json!(NOBODY), json!(i64::MAX), json!(u64::MAX)].into_iter().enumerate() {
            refused(&mut ann, json!({"msgType": kind, "FROMID": a, to: id, "cid": format!("far{kind}-{n}")}), 404);
        }
        for spoilt in spoilt(&frame, "cid", Value::is_string, false) {
            refused(&mut ann, spoilt, 400);
        }
        for cid in ["", " ", "a b", "a\n", "ü", "日本", "\u{7f}", &"c".repeat(65)] {
            refused(&mut ann, json!({"msgType": kind, "FROMID": a, to: b, "cid": cid}), 400);
        }
    }
    for (n, mut spoilt) in spoilt(&json!({"msgType": 4, "TOID": b}), "FROMID", is_integer, true).into_iter().enumerate()
    {
        spoilt["cid"] = json!(format!("from{n}"));
        refused(&mut ann, spoilt, 400);
    }
    let conv = with(&bob);
    for cid in ["!", "~", "\"\\", &"c".repeat(64)] {
        let cid = ann.send_with(&conv, json!({"cid": cid}));
        ann.number(&cid);
    }
    assert_eq!(ann.say(&conv, "still here"), 5);
}

fn is_cid(cid: &str) -> bool {
    (1..=64).contains(&cid.len()) && cid.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
}

#[test]
fn frames_that_are_not_requests_are_answered_as_at_level_1() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let fixed = |client: &mut Level2Client, text: &str, expected: &str| {
        client.send_text(text);
        let reply = client.take("a fixed reply", |frame| frame.get("rid").is_none() && frame["msgType"] != 43);
        assert_eq!(reply.to_string(), expected, "{text}");
    };
    ann.take_kind(45);
    for text in [
        "{}",
        r#"{"msgType":"4"}"#,
        r#"{"msgType":4.0}"#,
        r#"{"msgType":null}"#,
        r#"{"msgType":4,}"#,
        "{nonsense}\n",
        r#"{"msgType":48,"conv":"u9","x":tru}"#,
        "{\"msgType\":53,\"x\":\"\t\"}",
    ] {
        fixed(&mut ann, text, BAD_REQUEST);
    }
    for kind in [0, -1, 16, 39, 40, 41, 42, 43, 44, 45, 50, 55, 56, 57, 59, 70, 99, 100, 1_000, i64::MAX] {
        let text = json!({"msgType": kind, "TOID": bob.store.me, "FROMID": ann.store.me, "conv": "u1"}).to_string();
        fixed(&mut ann, &text, NO_SUCH_METHOD);
    }
    let reply = ann.ask_for(400, json!({"msgType": 14, "FROMID": ann.store.me}));
    assert_eq!(reply["msgType"], 14);
    ann.ask_for(404, json!({"msgType": 58, "text": "x"}));
    let conv = with(&bob);
    assert_eq!(ann.say(&conv, "still here"), 1);
    // At level 1 the types of level 2 do not exist, and replies repeat no `rid`.
    let (mut carol, c) = user(&server, "carol");
    for kind in [40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 70] {
        let request =
            json!({"msgType": kind, "rid": "r", "conv": conv, "have": {}, "recv": {}, "watch": [], "FROMID": c});
        carol.send(&request);
        carol.expect_text(NO_SUCH_METHOD);
    }
}

#[test]
fn a_frame_that_is_too_long_ends_the_connection() {
    too_long_by_one(&TestServer::start(), 65_536);
    too_long_by_one(&TestServer::builder().option("max-frame", "1m").start(), 65_536);
    too_long_by_one(&TestServer::builder().option("max-frame", "2k").start(), 2_048);
}

fn too_long_by_one(server: &TestServer, limit: usize) {
    let (mut ann, bob) = pair(server);
    assert_eq!(ann.welcome.limits.frame, limit);
    let conv = with(&bob);
    let of_length = |ann: &Level2Client, length: usize| {
        let mut frame = ann.message(&conv);
        frame["msg"] = json!("");
        let rest = frame.to_string().len();
        frame["msg"] = json!("x".repeat(length - rest));
        frame.to_string()
    };
    let longest = of_length(&ann, limit);
    ann.send_text(&longest);
    ann.settle();
    assert_eq!(ann.store.cursor(&conv), 1);
    let too_long = of_length(&ann, limit + 1);
    // The connection may end before the server has taken all of it.
    let _ = ann.tcp().try_send_raw(too_long.as_bytes());
    let farewell = ann.take_kind(55);
    assert_eq!((&farewell["reason"], &farewell["errno"]), (&json!("protocol"), &json!(413)), "{farewell}");
    assert!(ann.read(testkit::PATIENCE).is_none(), "it is the last frame");
    let ann = Level2Client::resume(server, "ann", "a1", ann.leave());
    assert_eq!(ann.store.cursor(&conv), 1);
}

#[test]
fn malformed_logins_are_a_400_of_type_40() {
    let server = TestServer::start();
    let (a, login) = {
        let (_, a) = user(&server, "ann");
        (a, json!({"msgType": 1, "level": 2, "USERID": a, "password": password("ann"), "device": "d"}))
    };
    let is_text: IsRight = Value::is_string;
    let is_have: IsRight = Value::is_object;
    let is_number: IsRight = is_integer;
    let members = [
        ("USERID", Needed, is_number),
        ("password", Needed, is_text),
        ("device", Needed, is_text),
        ("ping", Optional, is_number),
        ("resume", Optional, is_number),
        ("have", Optional, is_have),
    ];
    let mut wrong = Vec::new();
    for (member, need, right) in members {
        wrong.extend(spoilt(&login, member, right, need == Optional));
    }
    let with = |members: Value| {
        let mut login = login.clone();
        members.as_object().expect("members").iter().for_each(|(key, value)| login[key] = value.clone());
        login
    };
    wrong.extend([
        with(json!({"name": "ann"})),
        with(json!({"token": "x"})),
        with(json!({"jwt": "x"})),
        with(json!({"token": 7})),
        with(json!({"jwt": null})),
        with(json!({"have": "devices"})),
    ]);
    let nameless = json!({"msgType": 1, "level": 2, "password": password("ann"), "device": "d"});
    wrong.push(nameless.clone());
    wrong.extend(spoilt(&nameless, "name", is_text, false));
    let by_token = json!({"msgType": 1, "level": 2, "token": "x", "device": "d"});
    wrong.extend(spoilt(&by_token, "token", is_text, false));
    let mut client = TestClient::connect(&server);
    for frame in wrong {
        let reply = client.ask(&frame);
        assert_eq!((&reply["errno"], &reply["msgType"]), (&json!(400), &json!(40)), "{frame}: {reply}");
        assert!(reply["errmsg"].is_string() && reply.get("retryAfter").is_none(), "{frame}: {reply}");
    }
    let right = LoginAs::password(a, &password("ann"), "d");
    Level2Client::login(client, Store::new(a), right).sync();
}

/// Texts that are not a cursor.
const NO_CURSORS: [&str; 11] = [
    "",
    "1",
    "1:",
    ":00000000",
    "-1:00000000",
    "01:00000000",
    "x:00000000",
    "9007199254740992:00000000",
    "99999999999999999999:00000000",
    "1 :00000000",
    "device",
];

#[test]
fn cursors_of_garbage_of_the_future_and_of_others_are_answered_one_by_one() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    let (mut carol, c) = user(&server, "carol");
    let group = carol.create_group(c, "carol's");
    ann.say(&to_bob, "1");
    ann.say(&to_bob, "2");
    bob.until_at(&to_ann, 2);
    let tag = bob.store.logs[&to_ann].tag.clone().expect("a tag");
    let mut have = json!({to_ann.clone(): format!("3:{tag}")});
    for conv in [format!("g{group}"), format!("g{NOBODY}"), format!("u{NOBODY}")] {
        have[conv] = json!("1:00000000");
    }
    for name in ["", "x", "u07", "😀", "\"\\\n"] {
        have[name] = json!("1:00000000");
    }
    let others = [json!(1), json!(null), json!(["1:00000000"]), json!({"seq": 1}), json!(true)];
    for (n, cursor) in NO_CURSORS.map(|text| json!(text)).into_iter().chain(others).enumerate() {
        have[format!("u{}", NOBODY - 1 - n as i64)] = cursor;
    }
    let count = have.as_object().map_or(0, serde_json::Map::len);
    // The client checks that each conversation gets a 44 with the errno of the contract.
    let store = Store::new(bob.store.me);
    let login = LoginAs::password(bob.store.me, &password("bob"), "b2").with("have", have.clone());
    let mut other = Level2Client::login(TestClient::connect(&server), store, login);
    other.sync();
    assert_eq!(other.inbox().filter(|frame| frame["msgType"] == 44).count(), count);
    let reset = other.take("the reset", |frame| frame["msgType"] == 44 && frame["conv"] == to_ann.as_str());
    assert_eq!((&reset["reset"], &reset["from"]), (&json!(true), &json!(1)), "{reset}");
    assert_eq!(other.store.texts(&to_ann), ["1", "2"]);
    // The same with a 46.
    other.ask(json!({"msgType": 46, "have": have}));
    other.take("the reset", |frame| frame["msgType"] == 44 && frame["conv"] == to_ann.as_str());
    ann.say(&to_bob, "3");
    other.until_at(&to_ann, 3);
    // Wrong tags for the head, and for numbers below it.
    for cursor in ["2:00000000", "1:00000000", "3:00000001", "2:ABCDEF00", "3:nonsense", "1:0", "2:00000000 "] {
        let have = json!({to_ann.clone(): cursor});
        other.ask(json!({"msgType": 46, "have": have}));
        let run = other.take("a reset", |frame| {
            frame["msgType"] == 44 && frame["conv"] == to_ann.as_str() && frame["reset"] == true
        });
        assert_eq!((&run["from"], &run["to"]), (&json!(1), &json!(3)), "{run}");
        assert_eq!(other.store.texts(&to_ann), ["1", "2", "3"]);
    }
    // Number 0 has no tag.
    other.clear_inbox();
    other.ask(json!({"msgType": 46, "have": json!({to_ann.clone(): "0:"})}));
    let run = other.take_kind(44);
    assert_eq!((&run["from"], &run["to"], run.get("reset")), (&json!(1), &json!(3), None), "{run}");
}

#[test]
fn a_login_of_64_kib_of_cursors_is_taken() {
    let server = TestServer::start();
    let (_, a) = user(&server, "ann");
    let mut have = serde_json::Map::new();
    let login = |have: &serde_json::Map<String, Value>| {
        LoginAs::password(a, &password("ann"), "d").with("have", Value::Object(have.clone()))
    };
    let cursor = r#""u1000000000":"9007199254740991:ffffffff","#.len();
    let count = (65_536 - login(&have).len()) / cursor;
    for id in 0..count {
        have.insert(format!("u{}", 1_000_000_000 + id), json!("9007199254740991:ffffffff"));
    }
    let length = login(&have).len();
    assert!((65_536 - cursor..=65_536).contains(&length) && count > 1_000, "{length}");
    let mut ann = Level2Client::login(TestClient::connect(&server), Store::new(a), login(&have));
    ann.sync();
    let refused =
        |ann: &Level2Client| ann.inbox().filter(|frame| frame["msgType"] == 44 && frame["errno"] == 404).count();
    assert_eq!(refused(&ann), count);
    // The same with a 46, which is shorter than the login.
    ann.clear_inbox();
    ann.ask(json!({"msgType": 46, "have": have}));
    assert_eq!(refused(&ann), count);
}

#[test]
fn a_rid_is_repeated_if_it_is_one() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let repeated = [
        json!("x"),
        json!("ü日😀\"\\\u{1}"),
        json!("日".repeat(64)),
        json!(0),
        json!(-1),
        json!(1_i64 << 53),
        json!(-(1_i64 << 53)),
    ];
    let not = [
        json!(""),
        json!("r".repeat(65)),
        json!("日".repeat(65)),
        json!((1_i64 << 53) + 1),
        json!(-(1_i64 << 53) - 1),
        json!(1.5),
        json!(1.0),
        json!(true),
        json!(null),
        json!([1]),
        json!({}),
        json!(u64::MAX),
    ];
    let conv = with(&bob);
    ann.take_kind(43);
    ann.take_kind(45);
    // The client checks that each reply repeats exactly the `rid` that is to be repeated.
    for (n, rid) in repeated.iter().chain(&not).enumerate() {
        for request in [
            json!({"msgType": 53}),
            json!({"msgType": 48, "conv": conv}),
            json!({"msgType": 48}),
            json!({"msgType": 15, "keyword": "1"}),
            json!({"msgType": 8, "FROMID": ann.store.me}),
            json!({"msgType": 15}),
            json!({"msgType": 999}),
            json!({"msgType": "8"}),
            json!({}),
            json!({"msgType": 46, "have": {}}),
            json!({"msgType": 52, "watch": []}),
        ] {
            let mut request = request;
            request["rid"] = rid.clone();
            ann.send_frame(&request);
            let is_repeated = n < repeated.len();
            let reply = ann.take("the reply", |_| true);
            assert_eq!(reply.get("rid"), is_repeated.then_some(rid), "{request}: {reply}");
        }
    }
    // The 40 repeats the `rid` of the login.
    let login = LoginAs::password(ann.store.me, &password("ann"), "a2").with("rid", json!("login"));
    let mut other = Level2Client::login(TestClient::connect(&server), Store::new(ann.store.me), login);
    assert_eq!(other.welcome.rid, Some(json!("login")));
    other.sync();
}
