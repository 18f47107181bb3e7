//! `POST /v2/send`: sends a message without an open connection.

use std::io::{Read, Write};

use serde_json::{Value, json};
use testkit::level2::Level2Client;
use testkit::{TestServer, offline_user};

use crate::people::{Answered, Socket, ask, converse, dial};

/// A server with two users; the first one has a device with this token.
fn people() -> (TestServer, i64, i64, String) {
    let server = TestServer::builder().option("admin", "127.0.0.1:0").start();
    let (a, b) = (offline_user(&server, "ann"), offline_user(&server, "bob"));
    let token = Socket::connect(&server).enter("ann", a, "a1");
    (server, a, b, token)
}

fn post(server: &TestServer, token: &str, body: &str) -> (Answered, Value) {
    let headers = format!("Authorization: Bearer {token}\r\nContent-Length: {}\r\n", body.len());
    let answer = ask(server, "POST /v2/send", &headers, body);
    let frame = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
    (answer, frame)
}

#[test]
fn a_post_is_a_message_of_level_2() {
    let (server, a, b, token) = people();
    let mut phone = Socket::connect(&server);
    phone.enter("ann", a, "phone");
    let mut bob = Level2Client::enter(&server, "bob", b, "b1");
    let body = json!({"msgType": 4, "FROMID": a, "TOID": b, "cid": "c1", "msg": "from a script"}).to_string();
    let (answer, frame) = post(&server, &token, &body);
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
    assert_eq!(answer.header("Connection"), Some("close"));
    assert_eq!((&frame["msgType"], &frame["errno"], &frame["seq"]), (&json!(41), &json!(200), &json!(1)), "{frame}");
    assert_eq!((&frame["cid"], &frame["conv"]), (&json!("c1"), &json!(format!("u{b}"))));
    bob.until_at(&format!("u{a}"), 1);
    assert_eq!(bob.store.texts(&format!("u{a}")), ["from a script"]);
    // All devices of the sender are shown the message, because the script is none of them.
    assert_eq!(phone.until(42)["m"]["msg"], "from a script");
    let (_, again) = post(&server, &token, &body);
    assert_eq!((&again["again"], &again["seq"], &again["tag"]), (&json!(true), &json!(1), &frame["tag"]), "{again}");
    let (changed, frame) = post(&server, &token, &body.replace("script", "liar"));
    assert_eq!((changed.status, &frame["errno"]), (409, &json!(409)));
    // The post replaces no connection, and adds no device.
    phone.send(&json!({"msgType": 68, "rid": 1}));
    let devices = phone.until(68);
    assert_eq!(devices["devices"].as_array().map(Vec::len), Some(2), "{devices}");
}

#[test]
fn a_post_to_a_group_reaches_its_members() {
    let (server, a, b, token) = people();
    let mut nc = testkit::login(&server, "bob", b);
    let group = nc.create_group(b, "team");
    let body = json!({"msgType": 9, "FROMID": a, "GROUPID": group, "cid": "g1", "msg": "hi"}).to_string();
    assert_eq!(post(&server, &token, &body).0.status, 403, "she is no member");
    testkit::login(&server, "ann", a).join_group(a, group);
    let (answer, frame) = post(&server, &token, &body);
    assert_eq!((answer.status, &frame["conv"]), (200, &json!(format!("g{group}"))), "{frame}");
    assert_eq!(nc.recv()["msg"], "hi", "who uses level 1 gets it as ever");
}

#[test]
fn the_status_of_a_post_tells_its_error() {
    let (server, a, b, token) = people();
    let good = json!({"msgType": 4, "FROMID": a, "TOID": b, "cid": "c1", "msg": "x"});
    let with = |key: &str, value: Value| {
        let mut frame = good.clone();
        frame[key] = value;
        frame.to_string()
    };
    for (body, status) in [
        ("nonsense".to_owned(), 400),
        (with("msgType", json!(5)), 400),
        (with("msgType", json!(1)), 400),
        (with("cid", json!("")), 400),
        (with("TOID", json!("x")), 400),
        (with("FROMID", json!(b)), 403),
        (with("TOID", json!(999_999)), 404),
        (with("TOID", json!(-1)), 404),
        (format!("{good}{good}"), 400),
    ] {
        let (answer, frame) = post(&server, &token, &body);
        assert_eq!((answer.status, frame["errno"].as_u64()), (status, Some(status.into())), "{body}: {frame}");
        assert_eq!(frame["msgType"], 41);
    }
    for wrong in ["x", "AQAAAAEA", &format!("{token}="), &token[1..]] {
        let (answer, _) = post(&server, wrong, &good.to_string());
        assert_eq!((answer.status, answer.header("WWW-Authenticate")), (401, Some("Bearer")), "{wrong}");
    }
    // After a logout the device has no token any more.
    let mut ann = Socket::connect(&server);
    ann.enter("ann", a, "a2");
    ann.send(&json!({"msgType": 68, "revoke": "a1", "rid": 1}));
    ann.until(68);
    assert_eq!(post(&server, &token, &good.to_string()).0.status, 401);
    assert_eq!(server.count("SELECT count(*) FROM Message"), 0, "nothing was sent");
}

#[test]
fn a_client_may_ask_before_it_sends_the_body() {
    let (server, a, b, token) = people();
    let body = json!({"msgType": 4, "FROMID": a, "TOID": b, "cid": "c1", "msg": "x"}).to_string();
    let head = format!(
        "POST /v2/send HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    let mut stream = dial(&server);
    stream.write_all(head.as_bytes()).expect("the server reads");
    let mut first = [0; 25];
    stream.read_exact(&mut first).expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    // Bytes after the body are dropped.
    stream.write_all(format!("{body}{head}").as_bytes()).expect("the server reads");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("an answer, and then the end");
    assert_eq!(Answered::of(&rest).status, 200);
    assert_eq!(rest.matches("HTTP/1.1").count(), 1);
}

#[test]
fn a_page_of_another_site_posts_nothing() {
    let (server, a, b, token) = people();
    let body = json!({"msgType": 4, "FROMID": a, "TOID": b, "cid": "c1", "msg": "x"}).to_string();
    for origin in ["http://evil.com", "null"] {
        let headers = format!(
            "Origin: {origin}\r\nAuthorization: Bearer {token}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n",
            body.len()
        );
        assert_eq!(ask(&server, "POST /v2/send", &headers, &body).status, 403);
        let asked = format!("Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n");
        let answer = ask(&server, "OPTIONS /v2/send", &asked, "");
        assert!(
            answer.status == 405 && !answer.head.to_ascii_lowercase().contains("access-control"),
            "{}",
            answer.head
        );
    }
    assert_eq!(server.count("SELECT count(*) FROM Message"), 0, "nothing was sent");
}

#[test]
fn posts_are_refused_while_the_body_does_not_come() {
    let server = TestServer::builder().option("frame_timeout", "100ms").start();
    let head = "POST /v2/send HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Length: 50\r\n\r\n{";
    assert_eq!(Answered::of(&converse(&server, &[head.as_bytes()])).status, 408);
}
