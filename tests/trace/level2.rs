//! Messages of level 2.

use std::fs;

use serde_json::{Value, json};
use testkit::level2::{Level2Client, LoginAs};
use testkit::{LONG_PATIENCE, MariaDb, Redis, TestClient, offline_user, password, wait_until};

use crate::stage::{Stage, alone, ask, path, until};

/// Ann at the node north and bob at the node south, each with a device.
struct Pair {
    ann: Level2Client,
    bob: Level2Client,
    a: i64,
    b: i64,
}

fn pair(stage: &Stage) -> Pair {
    let (a, b) = (offline_user(&stage.nodes[0], "ann"), offline_user(&stage.nodes[1], "bob"));
    let ann = Level2Client::enter(&stage.nodes[0], "ann", a, "laptop");
    let bob = Level2Client::enter(&stage.nodes[1], "bob", b, "phone");
    Pair { ann, bob, a, b }
}

impl Pair {
    /// Sends a message from ann, and waits until bob has it.
    fn talk(&mut self) {
        self.ann.say(&format!("u{}", self.b), "hello");
        self.bob.until_at(&format!("u{}", self.a), 1);
    }

    fn place(&self, seq: u64) -> String {
        format!("user={}&conv=u{}&seq={seq}", self.a, self.b)
    }

    fn report(&mut self, seq: u64) {
        self.bob.tcp().send(&json!({"msgType": 47, "recv": {format!("u{}", self.a): seq}}));
    }
}

/// A message of ann's that is not sent yet, and its `cid`.
fn frame(ann: &Level2Client, to: &str) -> (Value, String) {
    let frame = ann.message(to);
    let cid = frame["cid"].as_str().expect("a cid").to_owned();
    (frame, cid)
}

#[test]
fn a_message_that_arrives_is_followed_to_the_device() {
    let stage = Stage::new();
    let mut pair = pair(&stage);
    pair.talk();
    pair.report(1);
    let words = [
        "Stored as 1 of u",
        "by node north at",
        "Node north told the other nodes at",
        "node south heard of it",
        "written by node south",
        "reported as stored at",
        "(cursor 1)",
    ];
    let told = stage.trace(0, &pair.place(1), &words);
    let way: Vec<String> = told.hops();
    for hop in [
        "north received",
        "north stored",
        "north published",
        "north answered",
        "south heard",
        "south written",
        "south reported",
    ] {
        assert!(way.iter().any(|known| known == hop), "no {hop} in {way:?}");
    }
    // Both nodes can be asked, and both sides of the conversation.
    let other = format!("user={}&conv=u{}&seq=1", pair.b, pair.a);
    stage.trace(1, &other, &["by node north at", "written by node south"]);
    let text = stage.operator(1).succeed(&[
        "trace",
        "--user",
        &pair.a.to_string(),
        "--conv",
        &format!("u{}", pair.b),
        "--seq",
        "1",
    ]);
    assert!(text.starts_with("Stored as 1 of u") && text.contains("HOP"), "{text}");
    assert!(!text.contains("hello"), "no text of a message: {text}");
}

#[test]
fn fault_1_the_recipient_is_offline() {
    let stage = Stage::new();
    let mut pair = pair(&stage);
    pair.talk();
    pair.report(1);
    stage.trace(0, &pair.place(1), &["(cursor 1)"]);
    let bob = pair.bob.leave();
    wait_until("bob is gone", || stage.nodes[1].open_connections() == 0);
    pair.ann.say(&format!("u{}", pair.b), "where are you?");
    let words = ["Stored as 2", "device phone", "is not connected", "waits in history", "whose cursor is 1"];
    let query = format!("user={}&conv=u{}&seq=2", pair.a, bob.me);
    let told = stage.trace(0, &query, &words);
    assert!(!told.hops().contains(&"south written".to_owned()), "{:?}", told.hops());
}

#[test]
fn fault_2_the_recipient_does_not_read() {
    let stage = Stage::new();
    let mut pair = pair(&stage);
    pair.talk();
    // From now on bob's client reads nothing, until the server holds messages back.
    let text = "x".repeat(60_000);
    let mut last = 1;
    for _ in 0..200 {
        last = pair.ann.say(&format!("u{}", pair.b), &text);
    }
    let words =
        ["not written to its connection to node south", "the client does not read", "bytes are not acknowledged"];
    let told = stage.trace(0, &pair.place(last), &words);
    assert!(told.says("waits in history"), "{}", told.words());
}

#[test]
fn fault_3_the_node_dies_after_the_commit() {
    let mut stage = Stage::new();
    let mut pair = pair(&stage);
    pair.talk();
    stage.nodes[0].kill9();
    let north = format!("Node {} did not answer", stage.admin(0));
    let told = stage.trace(1, &pair.place(1), &["Stored as 1", "written by node south", &north]);
    assert!(told.says("connection refused"), "{}", told.words());
    assert_eq!(told.0["nodes"][1]["answered"], false);
}

#[test]
fn fault_4_the_bus_stands_still() {
    let stage = Stage::new();
    let mut pair = pair(&stage);
    pair.talk();
    stage.redis.stop();
    let number = pair.ann.say(&format!("u{}", pair.b), "into the silence");
    let words = ["Stored as 2", "Node north could not tell the other nodes", "the bus did not answer"];
    let told = stage.trace(0, &pair.place(number), &words);
    assert!(told.hops().contains(&"north unpublished".to_owned()), "{:?}", told.hops());
    stage.redis.cont();
    pair.bob.until_at(&format!("u{}", pair.a), number);
    stage.trace(0, &pair.place(number), &["written by node south"]);
}

#[test]
fn fault_5_the_database_is_unavailable() {
    let mut mariadb = MariaDb::start();
    let stage = Stage::on(mariadb.create_database(), Redis::start());
    let mut pair = pair(&stage);
    pair.talk();
    mariadb.kill();
    let (frame, cid) = frame(&pair.ann, &format!("u{}", pair.b));
    pair.ann.set_patience(LONG_PATIENCE);
    pair.ann.send_frame(&frame);
    assert_eq!(pair.ann.answer(&cid)["errno"], 503);
    let query = format!("user={}&cid={cid}", pair.a);
    let words = ["Refused with 503 by node north", "It is not stored", "The database was not read"];
    let told = stage.trace(0, &query, &words);
    assert!(told.says("answered the sender 503"), "{}", told.words());
    drop(stage);
    mariadb.restart();
}

#[test]
fn fault_6_the_recipient_has_blocked_the_sender() {
    let stage = Stage::new();
    let mut pair = pair(&stage);
    pair.talk();
    pair.bob.ask_for(200, json!({"msgType": 66, "USERID": pair.a, "block": true}));
    let (frame, cid) = frame(&pair.ann, &format!("u{}", pair.b));
    pair.ann.send_frame(&frame);
    assert_eq!(pair.ann.answer(&cid)["errno"], 403);
    let words = ["Refused with 403 by node north", "has blocked the sender", "answered the sender 403"];
    stage.trace(1, &format!("user={}&cid={cid}", pair.a), &words);
}

#[test]
fn fault_7_the_device_ends_before_it_has_reported() {
    let stage = Stage::new();
    let mut pair = pair(&stage);
    pair.talk();
    let query = pair.place(1);
    drop(pair.bob);
    wait_until("bob is gone", || stage.nodes[1].open_connections() == 0);
    let words = ["written by node south", "that connection ended before the device reported it", "whose cursor is 0"];
    stage.trace(0, &query, &words);
}

#[test]
fn fault_8_the_token_was_revoked() {
    let stage = Stage::new();
    let mut pair = pair(&stage);
    pair.talk();
    let query = pair.place(1);
    assert_eq!(stage.ask(0, "POST", &format!("/v1/users/{}/logout", pair.b), "").0, 200);
    pair.bob.expect_farewell("revoked");
    stage.trace(0, &query, &["Stored as 1", &format!("User {} has no device of level 2", pair.b)]);
    let path = format!("/v1/users/{}/explain", pair.b);
    let told = until(&["is not connected to any node"], || stage.ask(0, "GET", &path, ""));
    let incidents = told.0["incidents"].to_string();
    assert!(incidents.contains("a connection ended: revoked"), "{incidents}");
}

#[test]
fn fault_9_the_cid_is_used_twice() {
    let stage = Stage::new();
    let mut pair = pair(&stage);
    let to_bob = format!("u{}", pair.b);
    let (frame, cid) = frame(&pair.ann, &to_bob);
    let mut tablet = Level2Client::enter(&stage.nodes[1], "ann", pair.a, "tablet");
    pair.ann.send_frame(&frame);
    assert_eq!(pair.ann.answer(&cid)["errno"], 200);
    tablet.send_frame(&frame);
    assert_eq!(tablet.answer(&cid)["again"], true);
    let query = format!("user={}&cid={cid}", pair.a);
    stage.trace(0, &query, &["Stored as 1", "has sent it 1 time more with the same cid; it is stored once"]);
    let mut other = frame.clone();
    other["msg"] = json!("something else");
    pair.ann.tcp().send(&other);
    let told = until(&["409"], || stage.ask(0, "GET", &path(&query), ""));
    assert!(told.says("Stored as 1"), "{}", told.words());
    let steps = told.0["steps"].to_string();
    assert!(steps.contains("refused it with 409: the same cid was used for another message"), "{steps}");
}

#[test]
fn fault_10_retention_has_deleted_it() {
    let (builder, admin) = alone("");
    let mut server = builder.start();
    let (a, b) = (offline_user(&server, "ann"), offline_user(&server, "bob"));
    let mut ann = Level2Client::enter(&server, "ann", a, "laptop");
    let _bob = Level2Client::enter(&server, "bob", b, "phone");
    let frames: Vec<Value> = (0..1_200).map(|_| ann.message(&format!("u{b}"))).collect();
    for some in frames.chunks(200) {
        ann.send_many(some);
        ann.settle();
    }
    drop(ann.leave());
    let file = server.folder().join("server.cnf");
    let settings = fs::read_to_string(&file).expect("read the settings");
    fs::write(&file, settings + "history_per_conversation=1000\n").expect("write the settings");
    server.terminate();
    server.restart();
    wait_until("old messages are gone", || server.count("SELECT max(floor) FROM Conversation") == 200);
    let at = |seq| path(&format!("user={a}&conv=u{b}&seq={seq}"));
    let words = ["Number 7 of u", "history up to 200 is deleted (retention)"];
    until(&words, || ask(admin, "GET", &at(7), ""));
    until(&["Stored as 201"], || ask(admin, "GET", &at(201), ""));
    until(&["There is no number 1201", "it ends with 1200"], || ask(admin, "GET", &at(1201), ""));
}

#[test]
fn a_trace_needs_the_admin_key_and_names_one_message() {
    let (builder, admin) = alone("");
    let server = builder.start();
    let a = offline_user(&server, "ann");
    let login = LoginAs::password(a, &password("ann"), "laptop");
    let ann = Level2Client::login(TestClient::connect(&server), testkit::level2::Store::new(a), login);
    drop(ann);
    for query in
        ["", "user=1", "user=1&seq=1", "user=1&conv=x9&seq=1", "user=1&conv=u9&seq=0", "user=1&cid=a&to=2", "to=1"]
    {
        let (status, body) = ask(admin, "GET", &path(query), "");
        assert_eq!(status, 400, "{query}: {body}");
        assert!(body["error"].is_string(), "{body}");
    }
    let (status, body) = ask(admin, "GET", &path(&format!("user={a}&conv=u99999&seq=1")), "");
    assert_eq!(status, 200, "{body}");
    assert!(body["verdict"][0].as_str().is_some_and(|words| words.contains("no such")), "{body}");
    for (set, expected) in [("off", 200), ("1/100", 200), ("all", 200), ("some", 400), ("1/1", 400)] {
        assert_eq!(ask(admin, "PUT", "/v1/tracing", &json!({"trace": set}).to_string()).0, expected, "{set}");
    }
    assert_eq!(ask(admin, "GET", "/v1/tracing", "").1, json!({"trace": "all"}));
}

#[test]
fn the_same_cid_of_another_sender_says_nothing() {
    let stage = Stage::new();
    let mut pair = pair(&stage);
    let x = offline_user(&stage.nodes[0], "xen");
    let mut xen = Level2Client::enter(&stage.nodes[0], "xen", x, "laptop");
    let (mut frame, cid) = frame(&pair.ann, &format!("u{}", pair.b));
    pair.ann.send_frame(&frame);
    assert_eq!(pair.ann.answer(&cid)["errno"], 200);
    (frame["FROMID"], frame["TOID"]) = (json!(x), json!(1_999_999_999));
    xen.send_frame(&frame);
    assert_eq!(xen.answer(&cid)["errno"], 404);
    let of = |user: i64| format!("user={user}&cid={cid}");
    stage.trace(0, &of(x), &["Refused with 404 by node north", "answered the sender 404"]);
    let told = stage.trace(0, &of(pair.a), &["Stored as 1 of u", "answered the sender 200"]);
    assert!(!told.0["steps"].to_string().contains("404"), "{}", told.0["steps"]);
    let place = stage.trace(0, &pair.place(1), &["Stored as 1 of u", "answered the sender 200"]);
    assert!(!place.0["steps"].to_string().contains("404"), "{}", place.0["steps"]);
    let other = stage.trace(0, &of(pair.b), &["Not stored"]);
    assert_eq!(other.hops(), [""; 0], "bob has sent nothing");
}

#[test]
fn a_step_that_no_node_remembers_is_reported_as_unknown() {
    let stage = Stage::new();
    let mut pair = pair(&stage);
    for node in 0..2 {
        assert_eq!(stage.ask(node, "PUT", "/v1/tracing", r#"{"trace":"off"}"#).0, 200);
    }
    pair.talk();
    let unknown = ["Stored as 1", "Not known whether it was written: node south remembers no steps of it"];
    let told = stage.trace(0, &pair.place(1), &unknown);
    assert!(!told.says("not written") && !told.says("reported as stored ("), "{}", told.words());
    // A node that begins to trace later does not know, either.
    for node in 0..2 {
        assert_eq!(stage.ask(node, "PUT", "/v1/tracing", r#"{"trace":"all"}"#).0, 200);
    }
    let told = stage.trace(0, &pair.place(1), &unknown);
    assert!(!told.says("not written"), "{}", told.words());
    // The database proves it.
    pair.report(1);
    stage.trace(0, &pair.place(1), &["reported as stored", "(cursor 1)"]);
}
