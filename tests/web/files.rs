//! The web client's files.

use std::io::{Read, Write};

use testkit::TestServer;

use crate::people::{Answered, ask, converse, dial};

const CLOSE: &str = "Connection: close\r\n";

#[test]
fn the_page_comes_with_its_security_headers() {
    let server = TestServer::start();
    let page = ask(&server, "GET /", CLOSE, "");
    assert_eq!((page.status, page.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(page.header("Content-Length"), Some(&*page.body.len().to_string()));
    assert!(page.body.to_ascii_lowercase().starts_with("<!doctype html>"), "{}", page.body);
    let policy = page.header("Content-Security-Policy").expect("a policy");
    let host = server.address();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(policy.contains(&format!("connect-src 'self' wss://{host} ws://{host};")), "{policy}");
    for (name, value) in [
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Cache-Control", "no-cache"),
    ] {
        assert_eq!(page.header(name), Some(value), "{name}");
    }
    for (line, status) in [("GET /nothing", 404), ("PUT /", 405), ("GET /ws", 426)] {
        let error = ask(&server, line, CLOSE, "");
        assert_eq!(error.status, status);
        assert_eq!(error.header("X-Content-Type-Options"), Some("nosniff"));
        assert!(error.header("Content-Security-Policy").expect("a policy").starts_with("default-src 'none'"));
    }
}

#[test]
fn a_file_that_has_not_changed_is_not_sent_again() {
    let server = TestServer::start();
    let page = ask(&server, "GET /index.html", CLOSE, "");
    let tag = page.header("ETag").expect("a tag");
    let again = ask(&server, "GET /index.html", &format!("{CLOSE}If-None-Match: {tag}\r\n"), "");
    assert_eq!((again.status, &*again.body, again.header("ETag")), (304, "", Some(tag)));
    let head = ask(&server, "HEAD /", CLOSE, "");
    assert_eq!((head.status, &*head.body), (200, ""));
    assert_eq!(head.header("Content-Length"), page.header("Content-Length"));
}

#[test]
fn one_connection_brings_several_files_and_then_ends_when_it_is_asked_to() {
    let server = TestServer::start();
    let mut stream = dial(&server);
    let get = |line: &str, more: &str| format!("{line} HTTP/1.1\r\nHost: {}\r\n{more}\r\n", server.address());
    let requests = [get("HEAD /", ""), get("HEAD /nothing", ""), get("HEAD /", CLOSE)].concat();
    stream.write_all(requests.as_bytes()).expect("the server reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answers, and then the end");
    let statuses: Vec<_> = text.split("\r\n\r\n").filter_map(|head| head.get(9..12)).collect();
    assert_eq!(statuses, ["200", "404", "200"]);
    // A request that might mark its end in another way is the last one on its connection.
    let text =
        converse(&server, &[get("GET /", "Transfer-Encoding: chunked\r\n").as_bytes(), get("GET /", "").as_bytes()]);
    assert_eq!(text.matches("HTTP/1.1 200").count(), 1);
    assert_eq!(Answered::of(&text).header("Connection"), Some("close"));
    let old = converse(&server, &[b"GET / HTTP/1.0\r\n\r\n"]);
    assert_eq!(Answered::of(&old).status, 200);
}

#[test]
fn without_the_web_client_there_are_no_files() {
    let server = TestServer::builder().option("web", "off").start();
    assert_eq!(ask(&server, "GET /", CLOSE, "").status, 404);
    assert!(crate::people::Socket::connect_with(&server, &[]).is_ok(), "sockets are there");
}
