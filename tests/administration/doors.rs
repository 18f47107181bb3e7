//! Access to the administration: keys, hosts, and requests that are refused before they are
//! processed.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use testkit::{LONG_PATIENCE, TestServer};

use crate::desk::{Desk, KEY, administered};

#[test]
fn only_requests_with_the_key_and_the_right_host_are_served() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let host = format!("Host: {}\r\n", desk.0);
    let key = format!("Authorization: Bearer {KEY}\r\n");
    let right = format!("{host}{key}");
    for (head, status) in [
        (right.clone(), 200),
        (host.clone(), 401),
        (format!("{host}Authorization: Basic {KEY}\r\n"), 401),
        (format!("{host}Authorization: Bearer {}\r\n", &KEY[1..]), 401),
        (format!("Host: rebound.example\r\n{key}"), 421),
        (key.clone(), 421),
        (format!("Host: localhost:1\r\n{key}"), 200),
        (format!("{right}Host: localhost\r\n"), 400),
        (format!("{right}{key}"), 400),
    ] {
        let answer = desk.request("GET", "/v1/node", &head, "");
        assert_eq!(answer.status, status, "{head}: {answer:?}");
        assert!(answer.head.contains("\r\nCache-Control: no-store\r\n"), "{}", answer.head);
        assert!(!answer.head.to_ascii_lowercase().contains("access-control"), "{}", answer.head);
    }
    let unknown = desk.request("GET", "/v1/node", &host, "");
    assert!(unknown.head.contains("\r\nWWW-Authenticate: Bearer\r\n"), "{}", unknown.head);
    let logs = server.logs_with("wrong key of the administration from 127.0.0.1");
    assert!(!logs.contains(&KEY[1..]), "a key is in the log");
}

#[test]
fn without_a_key_there_is_no_administration() {
    let server = TestServer::builder().option("admin", "127.0.0.1:0").start();
    let desk = Desk::of(&server);
    let said = desk.refused(403, "GET", "/v1/node", &Value::Null);
    assert!(said.contains("admin_key"), "{said}");
}

#[test]
fn guesses_make_only_their_address_wait() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let guess = |key: &str| {
        let head = format!("Host: {}\r\nAuthorization: Bearer {key}\r\n", desk.0);
        desk.request("GET", "/v1/node", &head, "")
    };
    // A slow machine may have waited for a second already.
    let mut guesses = 0;
    let waiting = loop {
        let answer = guess(&format!("0123456789abcdef0123456789abcdef-{guesses}"));
        guesses += 1;
        if answer.status == 429 {
            break answer;
        }
        assert_eq!(answer.status, 401, "{answer:?}");
        assert!(guesses < 12, "guesses are free");
    };
    assert!(guesses > 6, "five are free, and the sixth costs a second");
    assert!(waiting.head.contains("\r\nRetry-After: "), "{}", waiting.head);
    // An administrator at the address that guesses does not wait.
    for _ in 0..20 {
        assert_ne!(guess("wrong").status, 200);
        assert_eq!(guess(KEY).status, 200);
    }
    // The other paths of the port are not affected.
    assert!(server.is_alive());
    let refused = format!("raybox_refused_total{{limit=\"admin_key\"}} {}\n", guesses + 20);
    assert!(server.metrics().contains(&refused), "{refused}");
}

#[test]
fn oversized_and_malformed_requests_are_refused() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let head = format!("Host: {}\r\nAuthorization: Bearer {KEY}\r\n", desk.0);
    let json = format!("{head}Content-Type: application/json\r\n");
    let post = |head: &str, rest: &str| desk.send(format!("POST /v1/users HTTP/1.1\r\n{head}{rest}").as_bytes()).status;
    // The body is never sent: the request is refused for its announced length.
    assert_eq!(post(&json, "Content-Length: 65537\r\n\r\n"), 413);
    assert_eq!(post(&json, "Content-Length: 99999999999999999999\r\n\r\n"), 411);
    assert_eq!(post(&json, "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"), 411);
    assert_eq!(post(&head, "Content-Length: 2\r\n\r\n{}"), 415);
    assert_eq!(post(&json, "Content-Length: 2\r\n\r\n{]"), 400);
    assert_eq!(post(&json, &format!("Content-Length: 4000\r\n\r\n{}", "[".repeat(4000))), 400);
    // Without a key, the server asks no client for a body.
    let stranger = format!("Host: {}\r\n", desk.0);
    assert_eq!(post(&stranger, "Content-Length: 65537\r\n\r\n"), 401);
    for (body, said) in [
        (json!([]), "object"),
        (json!("ann"), "object"),
        (json!({"name": 7}), "name must be a text"),
        (json!({"name": ""}), "1 to 50"),
        (json!({"name": "x".repeat(51)}), "1 to 50"),
        (json!({"nmae": "ann"}), "not known"),
        (json!({"name": "ann", "password": ""}), "1 to 56"),
        (json!({}), "is needed"),
    ] {
        let error = desk.refused(400, "POST", "/v1/users", &body);
        assert!(error.contains(said), "{body}: {error}");
    }
    for (method, path, status) in [
        ("GET", "/v1", 404),
        ("GET", "/v1/nodes", 404),
        ("GET", "/v1/users/x", 404),
        ("GET", "/v1/users/99999999999", 404),
        ("GET", "/v1/users/4711", 404),
        ("GET", "/v1/users?limit=0", 400),
        ("GET", "/v1/users?limit=1001", 400),
        ("GET", "/v1/users?limit=1&limit=2", 400),
        ("GET", "/v1/users?page=1", 400),
        ("GET", "/v1/users?name=%zz", 400),
        ("GET", "/v1/connections?address=here", 400),
        ("DELETE", "/v1/users/4711?dry_run=true", 400),
        ("POST", "/v1/drain?for=1", 400),
        ("DELETE", "/v1/node", 405),
        ("GET", "/v1x", 404),
    ] {
        assert_eq!(desk.ask(method, path, &Value::Null).status, status, "{method} {path}");
    }
    let allowed = desk.ask("PATCH", "/v1/users/7", &Value::Null);
    assert!(allowed.head.contains("\r\nAllow: GET, DELETE\r\n"), "{}", allowed.head);
}

#[test]
fn silent_connections_do_not_keep_an_operator_from_an_answer() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let connect = || {
        let stream = TcpStream::connect(desk.0).expect("connect to the admin port");
        stream.set_read_timeout(Some(LONG_PATIENCE)).expect("an option");
        stream
    };
    // The server asks for the body, so it has accepted the operator's key.
    let mut operator = connect();
    let body = json!({"name": "ann"}).to_string();
    let (host, length) = (desk.0, body.len());
    let head = format!(
        "POST /v1/users HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\nExpect: 100-continue\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    operator.write_all(head.as_bytes()).expect("send a head");
    let mut asked = [0; 25];
    operator.read_exact(&mut asked).expect("the server wants the body");
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    // Only 32 silent connections fit. The first 32 of these are closed, but the operator is not.
    let mut silent: Vec<TcpStream> = (0..64).map(|_| connect()).collect();
    let mut text = String::new();
    for ended in &mut silent[..32] {
        assert_eq!(ended.read(&mut [0]).expect("the end"), 0);
    }
    operator.write_all(body.as_bytes()).expect("send a body");
    operator.read_to_string(&mut text).expect("read the answer");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    assert_eq!(desk.get("/v1/users?name=ann")["users"].as_array().map(Vec::len), Some(1));
}

#[test]
fn answered_connections_that_stay_open_do_not_block_an_operator() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let request = format!("GET /v1/node HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {KEY}\r\n\r\n", desk.0);
    let ask = || {
        let mut stream = TcpStream::connect(desk.0).expect("connect to the admin port");
        stream.set_read_timeout(Some(LONG_PATIENCE)).expect("an option");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("read the answer");
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        stream
    };
    let open: Vec<TcpStream> = (0..30).map(|_| ask()).collect();
    desk.post("/v1/drain");
    drop(open);
}
