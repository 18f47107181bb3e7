//! The log: its destination and its form, the content of the audit trail, and the limit on the
//! lines that a greedy client causes.

use serde_json::{Value, json};
use testkit::{TestClient, TestServer, wait_until};

/// The events of the audit trail, parsed from JSON.
fn events(server: &TestServer) -> Vec<(String, Value)> {
    let objects = |line: &str| serde_json::from_str::<Value>(line).expect("every line is an object");
    let logs = server.logs();
    // The last line may be only half written.
    let whole = logs.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let events = whole.lines().map(objects).filter(|object| object["part"] == "audit");
    events.map(|object| (object["event"].as_str().unwrap_or("-").to_owned(), object)).collect()
}

/// Waits for an event and returns the last one of its kind.
fn event(server: &TestServer, name: &str) -> Value {
    let mut found = None;
    wait_until(&format!("the event {name}"), || {
        found = events(server).into_iter().rfind(|(event, _)| event == name).map(|(_, object)| object);
        found.is_some()
    });
    found.expect("it was found")
}

/// Logs in with a wrong password, and is refused or told to wait.
fn try_wrongly(client: &mut TestClient, user: i64, password: &str) {
    let reply = client.ask(&json!({"msgType": 1, "USERID": user, "password": password}));
    assert!(reply["errno"] == 302 || reply["errno"] == 429, "{reply}");
}

#[test]
fn the_audit_trail_names_users_and_addresses_as_json() {
    let server = TestServer::builder()
        .option("log_format", "json")
        .option("node_name", "chat-7")
        .option("login_failures", "1")
        .start();
    let mut ann = TestClient::connect(&server);
    let a = ann.register("ann", "secret");
    let registered = event(&server, "registration");
    assert_eq!(registered["message"], "new account \"ann\" from 127.0.0.1");
    for (member, value) in [("node", json!("chat-7")), ("level", json!("info")), ("from", json!("127.0.0.1"))] {
        assert_eq!(registered[member], value, "{registered}");
    }
    ann.login(a, "secret");
    let login = event(&server, "login");
    assert_eq!(
        (&login["user"], &login["message"]),
        (&json!(a), &json!(format!("user {a} has logged in from 127.0.0.1")))
    );

    // These lines answer the question why a user cannot log in.
    let mut wrong = TestClient::connect_from(9, &server);
    for _ in 0..2 {
        try_wrongly(&mut wrong, a, "guess");
    }
    let failed = event(&server, "wrong_password");
    assert_eq!((&failed["user"], &failed["from"]), (&json!(a), &json!("127.0.0.9")));
    try_wrongly(&mut wrong, a, "guess");
    let waits = event(&server, "must_wait");
    assert_eq!((&waits["user"], &waits["from"]), (&json!(a), &json!("127.0.0.9")));

    // Level 2: a login by password, one with an unknown token, and one with a wrong password.
    let mut phone = TestClient::connect_lines(&server);
    phone.send(&json!({"msgType": 1, "level": 2, "USERID": a, "password": "secret", "device": "phone"}));
    let welcome = phone.recv();
    assert_eq!((&welcome["msgType"], &welcome["errno"]), (&json!(40), &json!(200)), "{welcome}");
    let said = format!("user {a} has logged in on device \"phone\" from 127.0.0.1");
    wait_until("the login is noted", || events(&server).iter().any(|(_, object)| object["message"] == said.as_str()));
    let mut thief = TestClient::connect_lines(&server);
    thief.send(&json!({"msgType": 1, "level": 2, "token": "AAAA", "device": "x"}));
    assert_eq!(thief.recv()["errno"], 302);
    assert_eq!(event(&server, "wrong_token")["from"], "127.0.0.1");
    phone.send(&json!({"msgType": 60, "FROMID": a, "password": "secret", "new": "other"}));
    wait_until("the change is noted", || events(&server).iter().any(|(name, _)| name == "password_change"));
    assert!(!server.logs().contains("secret") && !server.logs().contains("guess"));
}

#[test]
fn an_address_that_fails_without_end_leaves_the_log_to_others() {
    let server =
        TestServer::builder().option("login_failures", "off").option("login_failures_per_address", "off").start();
    let mut ann = TestClient::connect(&server);
    let a = ann.register("ann", "secret");
    let mut greedy = TestClient::connect_from(66, &server);
    for _ in 0..1200 {
        try_wrongly(&mut greedy, a, "guess");
    }
    let mut quiet = TestClient::connect_from(7, &server);
    try_wrongly(&mut quiet, a, "slip");
    let logs = server.logs_with(&format!("wrong password for user {a} from 127.0.0.7"));
    let of_greedy = logs.lines().filter(|line| line.ends_with("from 127.0.0.66")).count();
    // The limit is a thousand lines, and one more every 3.6 seconds.
    assert!((1000..1200).contains(&of_greedy), "{of_greedy} lines");
    let left_out =
        logs.lines().filter(|line| line.contains("more lines like these, the last from 127.0.0.66, were left out"));
    assert!(left_out.count() >= 1, "it is said that there were more");
    // The log shows that a guessing client logs in at last.
    greedy.login(a, "secret");
    server.logs_with(&format!("user {a} has logged in from 127.0.0.66"));
}
