//! Scarce resources and awkward input. The server waits for a resource or refuses, and other
//! clients notice nothing.

use serde_json::{Value, json};
use testkit::{ACK, BAD_REQUEST, LONG_PATIENCE, NO_SUCH_METHOD, NOBODY, TestClient, TestServer, WRONG_PASSWORD};
use testkit::{assert_refusal, chat, login, offline_user, password, user};

// Searching

#[test]
fn empty_and_huge_keywords_are_just_searched_for() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    alice.create_group(a, "the only group");
    let all_by_keyword = alice.ask(&json!({"msgType": 15, "keyword": ""}));
    assert_eq!((&all_by_keyword["errno"], &all_by_keyword["msgType"]), (&json!(200), &json!(15)), "{all_by_keyword}");
    let all_by_name = alice.ask(&json!({"msgType": 13, "name": ""}));
    assert_eq!((&all_by_name["errno"], &all_by_name["msgType"]), (&json!(200), &json!(200)), "{all_by_name}");
    for text in [
        "x".repeat(60_000),
        "9".repeat(60_000),
        "界".repeat(20_000),
        "%".repeat(60_000),
        "_".repeat(60_000),
        "\\".repeat(30_000),
    ] {
        alice.send(&json!({"msgType": 15, "keyword": text}));
        alice.expect_text(r#"{"errno":200,"msgType":15,"results":[]}"#);
        alice.send(&json!({"msgType": 13, "name": text}));
        alice.expect_text(r#"{"errno":200,"groups":[],"msgType":200}"#);
    }
}

#[test]
fn a_search_returns_a_bounded_number_of_groups() {
    let server = TestServer::builder().option("search_max", "5").start();
    let (mut alice, a) = user(&server, "alice");
    for n in 0..12 {
        alice.create_group(a, &format!("one of many {n}"));
    }
    let found = alice.ask(&json!({"msgType": 13, "name": "of many"}));
    assert_eq!(found["groups"].as_array().map(Vec::len), Some(5), "{found}");
    let found = alice.ask(&json!({"msgType": 15, "keyword": "of many"}));
    assert_eq!(found["results"].as_array().map(Vec::len), Some(5), "{found}");
    // A search always lists all of a user's own groups.
    let own = alice.ask(&json!({"msgType": 11, "FROMID": a}));
    assert_eq!(own["groups"].as_array().map(Vec::len), Some(12), "{own}");
}

// Names

const AWKWARD: [&str; 10] = [
    "O'Brien",
    "say \"hi\"",
    "100% _sure_",
    "back\\slash\\",
    "cat🐱👩‍👩‍👧",
    "new\nline\ttab",
    "'; DROP TABLE User; --",
    "name', 'x', 'offline')#",
    "%s%n{}$1?1:name",
    "\u{202e}right to left مرحبا",
];

#[test]
fn awkward_user_names_are_kept() {
    let server = TestServer::start();
    let (mut finder, _) = user(&server, "finder");
    for name in AWKWARD {
        let mut client = TestClient::connect(&server);
        let id = client.register(name, name);
        client.login(id, name);
        let found = finder.ask(&json!({"msgType": 15, "keyword": id.to_string()}));
        assert_eq!(found["results"][0], json!({"id": id.to_string(), "isGroup": "0", "name": name}), "{found}");
    }
}

#[test]
fn awkward_group_names_are_kept_and_found() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    for name in AWKWARD {
        let id = alice.create_group(a, name);
        let reply = alice.ask(&json!({"msgType": 13, "name": name}));
        assert_eq!(reply["groups"], json!([{"desc": "d", "gUsers": [], "id": id.to_string(), "name": name}]), "{name}");
        let reply = alice.ask(&json!({"msgType": 15, "keyword": name}));
        assert_eq!(
            reply["results"],
            json!([{"desc": "d", "id": id.to_string(), "isGroup": "1", "name": name}]),
            "{name}"
        );
    }
    for wildcard in ["O_Brien", "O%n", "back%", "____", "%%"] {
        assert_eq!(alice.ask(&json!({"msgType": 13, "name": wildcard}))["groups"], json!([]), "{wildcard}");
    }
    let own = alice.ask(&json!({"msgType": 11, "FROMID": a}));
    let names: Vec<&str> =
        own["groups"].as_array().expect("groups").iter().filter_map(|group| group["name"].as_str()).collect();
    assert_eq!(names, AWKWARD);
}

#[test]
fn a_nul_in_a_name_is_kept_or_refused() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let name = "group\0tail";
    let reply = alice.ask(&json!({"msgType": 12, "FROMID": a, "name": name, "description": "d\0e"}));
    let listed = alice.ask(&json!({"msgType": 11, "FROMID": a}));
    if reply["errno"] == 200 {
        assert_eq!(reply["name"], name);
        assert_eq!((&listed["groups"][0]["name"], &listed["groups"][0]["desc"]), (&json!(name), &json!("d\0e")));
    } else {
        assert_eq!(reply.to_string(), BAD_REQUEST);
        assert_eq!(listed["groups"], json!([]));
    }
    // In a password and in a search keyword, NUL is a character like any other.
    let mut client = TestClient::connect(&server);
    let id = client.register("bob", "pass\0word");
    client.send(&json!({"msgType": 1, "USERID": id, "password": "pass"}));
    client.expect_text(WRONG_PASSWORD);
    client.send(&json!({"msgType": 1, "USERID": id, "password": "pass\0other"}));
    client.expect_text(WRONG_PASSWORD);
    client.login(id, "pass\0word");
    assert_eq!(client.ask(&json!({"msgType": 13, "name": "\0nothing"}))["groups"], json!([]));
}

// Numbers

/// The answer to a request with an id that belongs to no user.
enum Answer {
    Text(&'static str),
    Refusal(u64),
    /// An error reply of the request's own type.
    Errno(u64),
    Silence,
}

/// Ids that belong to no user. Some of them become the id `b` when they are truncated.
fn ids_of_nobody(b: i64) -> Vec<String> {
    let wrapped = (1_i128 << 32) + i128::from(b);
    let wrapped_further = (1_i128 << 64) + i128::from(b);
    [
        0,
        -1,
        1 << 31,
        -(1 << 31) - 1,
        wrapped,
        -(1 << 32) + i128::from(b),
        i128::from(i64::MAX),
        1 << 63,
        1 << 64,
        wrapped_further,
    ]
    .iter()
    .map(ToString::to_string)
    .chain(["99999999999999999999999999".to_owned(), format!("-{}", "9".repeat(100))])
    .collect()
}

#[test]
fn ids_beyond_their_range_are_nobody() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let group = alice.create_group(a, "the group");
    bob.join_group(b, group);
    let numbers = ids_of_nobody(b);
    let pw = password("bob");
    for n in &numbers {
        let requests = [
            (format!(r#"{{"msgType":1,"USERID":{n},"password":"{pw}"}}"#), Answer::Text(WRONG_PASSWORD)),
            (format!(r#"{{"msgType":3,"USERID":{n}}}"#), Answer::Text(BAD_REQUEST)),
            (format!(r#"{{"msgType":4,"FROMID":{a},"TOID":{n},"msg":"x"}}"#), Answer::Silence),
            (format!(r#"{{"msgType":4,"FROMID":{n},"TOID":{b},"msg":"x"}}"#), Answer::Refusal(403)),
            (format!(r#"{{"msgType":100,"FROMID":{a},"TOID":{n},"msg":"x"}}"#), Answer::Silence),
            (format!(r#"{{"msgType":5,"FROMID":{a},"TOID":{n}}}"#), Answer::Silence),
            (format!(r#"{{"msgType":5,"FROMID":{n},"TOID":{b}}}"#), Answer::Refusal(403)),
            (format!(r#"{{"msgType":6,"U1":{n},"U2":{b}}}"#), Answer::Refusal(403)),
            (format!(r#"{{"msgType":6,"U1":{a},"U2":{n}}}"#), Answer::Errno(404)),
            (format!(r#"{{"msgType":7,"FROMID":{n},"TOID":{b}}}"#), Answer::Refusal(403)),
            (format!(r#"{{"msgType":7,"FROMID":{a},"TOID":{n}}}"#), Answer::Text(ACK)),
            (format!(r#"{{"msgType":8,"FROMID":{n}}}"#), Answer::Refusal(403)),
            (format!(r#"{{"msgType":9,"FROMID":{n},"GROUPID":{group}}}"#), Answer::Refusal(403)),
            (format!(r#"{{"msgType":9,"FROMID":{a},"GROUPID":{n}}}"#), Answer::Silence),
            (format!(r#"{{"msgType":10,"FROMID":{n},"GROUPID":{group}}}"#), Answer::Refusal(403)),
            (format!(r#"{{"msgType":10,"FROMID":{a},"GROUPID":{n}}}"#), Answer::Errno(404)),
            (format!(r#"{{"msgType":11,"FROMID":{n}}}"#), Answer::Refusal(403)),
            (format!(r#"{{"msgType":12,"FROMID":{n},"name":"x","description":"x"}}"#), Answer::Refusal(403)),
            (format!(r#"{{"msgType":14,"FROMID":{n}}}"#), Answer::Refusal(403)),
        ];
        for (request, answer) in requests {
            alice.send_text(&request);
            match answer {
                Answer::Text(text) => assert_eq!(alice.recv_text(), text, "{request}"),
                Answer::Refusal(errno) => {
                    let reply = alice.recv_text();
                    assert!(reply.contains(&format!(r#""errno":{errno}"#)), "{request} got {reply}");
                    assert_refusal(&reply, errno);
                }
                Answer::Errno(errno) => assert_eq!(alice.recv()["errno"], errno, "{request}"),
                Answer::Silence => (),
            }
            assert_eq!(alice.recv_until_barrier(), [] as [Value; 0], "after {request}");
        }
        alice.send_text(&format!(r#"{{"msgType":15,"keyword":"{n}"}}"#));
        alice.expect_text(r#"{"errno":200,"msgType":15,"results":[]}"#);
        if n.len() > 5 {
            alice.send_text(&format!(r#"{{"msgType":{n}}}"#));
            alice.expect_text(NO_SUCH_METHOD);
        }
    }
    bob.expect_silence_until_barrier();
    assert_eq!(server.stored(), 0);
    assert_eq!(server.count("SELECT count(*) FROM Friend"), 0);
    assert_eq!(server.count("SELECT count(*) FROM GroupUser"), 2);
}

#[test]
fn a_refusal_names_the_id_it_was_asked_for() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    for n in [NOBODY, 0, -1, i64::from(i32::MAX), i64::from(i32::MIN), 1 << 31, (1 << 32) + a] {
        alice.send(&json!({"msgType": 6, "U1": a, "U2": n}));
        alice.expect_text(&format!(r#"{{"errmsg":"no such user","errno":404,"msgType":6,"userId":{n}}}"#));
        alice.send(&json!({"msgType": 10, "FROMID": a, "GROUPID": n}));
        alice.expect_text(&format!(r#"{{"errmsg":"no such group","errno":404,"groupId":{n},"msgType":10}}"#));
    }
}

// Logins

#[test]
fn too_many_simultaneous_logins_are_refused_with_a_time_to_retry() {
    let builder = TestServer::builder().option("hashers", "1").option("logins_max", "1");
    // A password check takes long enough for all requests to arrive during the first one.
    let server = builder.option("argon2", "m=65536,t=2,p=1").start();
    let mut client = TestClient::connect(&server);
    client.set_patience(LONG_PATIENCE);
    let a = client.register("alice", &password("alice"));
    let mut clients: Vec<TestClient> = (0..16).map(|_| TestClient::connect(&server)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.set_patience(LONG_PATIENCE);
        // A right password may be remembered and cost nothing. A wrong one is always hashed.
        let tried = if n == 0 { password("alice") } else { format!("wrong {n}") };
        client.send(&json!({"msgType": 1, "USERID": a, "password": tried}));
    }
    let mut refused = 0;
    for (n, client) in clients.iter_mut().enumerate() {
        let reply = client.recv_text();
        match &reply {
            reply if reply == WRONG_PASSWORD && n > 0 => (),
            reply if reply == ACK && n == 0 => (),
            reply => {
                assert!(reply.contains(r#""errno":503,"msgType":503,"retryAfter":"#), "{reply}");
                refused += 1;
            }
        }
        client.ack_barrier();
    }
    assert!(refused > 0, "with one place in the queue somebody must be refused");
    // Later there is room again, even for a connection that was refused.
    let last = clients.last_mut().expect("a client");
    last.login(a, &password("alice"));
}

// Secrets

#[test]
fn secrets_and_message_texts_are_never_logged() {
    const SECRET: &str = "s3cretword";
    let mut server = TestServer::builder().option("log_level", "trace").start();
    let mut client = TestClient::connect(&server);
    let a = client.register("alice", SECRET);
    client.send(&json!({"msgType": 2, "name": "alice", "password": SECRET}));
    assert_eq!(client.recv()["errno"], 500);
    client.send(&json!({"msgType": 1, "USERID": a, "password": format!("{SECRET} but wrong")}));
    client.expect_text(WRONG_PASSWORD);
    client.login(a, SECRET);
    let (mut bob, b) = user(&server, "bob");
    let c = offline_user(&server, "carol");
    client.send(&chat(a, b, SECRET));
    bob.recv();
    client.send(&chat(a, c, SECRET));
    client.send(&chat(a, NOBODY, SECRET));
    client.send(&json!({"msgType": 5, "FROMID": a, "TOID": c, "greeting": SECRET}));
    let group = client.create_group(a, "group");
    client.send(&json!({"msgType": 9, "FROMID": a, "GROUPID": group, "msg": SECRET}));
    // Requests that are refused, malformed, unknown or too long.
    client.send(&chat(b, c, SECRET));
    client.expect_refusal(403);
    client.send(&json!({"msgType": 4, "FROMID": a, "msg": SECRET}));
    client.expect_text(BAD_REQUEST);
    client.send_text(&format!(r#"{{"msgType":1,"USERID":{a},"password":"{SECRET}",}}"#));
    client.expect_text(BAD_REQUEST);
    client.send_text(&format!("{SECRET}\n"));
    client.expect_text(BAD_REQUEST);
    client.send(&json!({"msgType": 77, "msg": SECRET}));
    client.expect_text(NO_SUCH_METHOD);
    let mut carol = login(&server, "carol", c);
    assert_eq!(carol.fetch(c).len(), 2);
    client.try_send_raw(format!(r#"{{"msgType":4,"msg":"{SECRET}{}"#, "x".repeat(70_000)).as_bytes());
    client.expect_refusal(413);
    client.expect_eof();
    server.terminate();
    assert_eq!(server.wait_exit(LONG_PATIENCE).code(), Some(0));
    let logs = server.logs();
    assert!(logs.lines().count() > 10, "a trace of all this must leave something:\n{logs}");
    for text in [&logs, &server.output()] {
        let line = text.lines().find(|line| line.contains(SECRET));
        assert_eq!(line, None);
    }
    // The database does not contain a plain-text password either.
    let query = "SELECT password FROM User WHERE id = ?1";
    let stored: String = server.database().query_row(query, [a], |row| row.get(0)).expect("a password");
    assert!(stored.starts_with("$argon2id$"), "{stored}");
}
