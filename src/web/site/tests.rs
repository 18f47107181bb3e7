use std::net::SocketAddr;

use super::*;
use crate::config::Config;

fn site(options: &[&str]) -> WebSettings {
    let _ = options;
    let listen: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    WebSettings::new(&Config::with_defaults(listen))
}

fn status(site: &WebSettings, head: &str) -> u16 {
    match site.respond(head.as_bytes()) {
        Response::Answer(answer) => answer.status,
        Response::WebSocket(_) => 101,
        Response::Post(_) => 100,
    }
}

/// A request with these headers beside its host.
fn ask(site: &WebSettings, line: &str, headers: &str) -> u16 {
    status(site, &format!("{line} HTTP/1.1\r\nHost: chat.org\r\n{headers}\r\n"))
}

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn every_request_has_a_proper_answer() {
    let site = site(&[]);
    for (line, expected) in [
        ("GET /", 200),
        ("HEAD /", 200),
        ("GET /index.html?x", 200),
        ("POST /", 405),
        ("OPTIONS /", 405),
        ("GET /nothing", 404),
        ("POST /nothing", 404),
        ("GET /ws", 426),
        ("POST /ws", 405),
        ("CONNECT chat.org:443", 400),
    ] {
        assert_eq!(ask(&site, line, ""), expected, "{line}");
    }
}

#[test]
fn a_socket_needs_a_right_handshake() {
    let site = site(&[]);
    assert_eq!(ask(&site, "GET /ws", UPGRADE), 101);
    for (from, to, expected) in [
        ("Upgrade: websocket", "Upgrade: WebSocket", 101),
        ("Upgrade: websocket", "Upgrade: h2c", 426),
        ("Connection: Upgrade", "Connection: keep-alive, upgrade", 101),
        ("Connection: Upgrade", "Connection: keep-alive", 400),
        ("Version: 13", "Version: 8", 426),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "???", 400),
    ] {
        assert!(UPGRADE.contains(from));
        assert_eq!(ask(&site, "GET /ws", &UPGRADE.replacen(from, to, 1)), expected, "{to}");
    }
    assert_eq!(status(&site, &format!("GET /ws HTTP/1.0\r\nHost: chat.org\r\n{UPGRADE}\r\n")), 426);
}

#[test]
fn only_the_own_pages_open_sockets() {
    let site = site(&[]);
    for (origin, expected) in [
        ("http://chat.org", 101),
        ("https://chat.org:443", 101),
        ("http://chat.org:8080", 403),
        ("http://evil.com", 403),
        ("null", 403),
        ("", 403),
        ("http://chat.org\r\nOrigin: http://chat.org", 403),
    ] {
        assert_eq!(ask(&site, "GET /ws", &format!("Origin: {origin}\r\n{UPGRADE}")), expected, "{origin:?}");
    }
}

#[test]
fn the_subprotocol_is_chosen_if_it_is_offered() {
    let site = site(&[]);
    for (offered, is_chosen) in [("", false), ("raybox.2", true), ("a, raybox.2", true), ("raybox.3", false)] {
        let header = format!("Sec-WebSocket-Protocol: {offered}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n");
        let head = format!("GET /ws HTTP/1.1\r\nHost: chat.org\r\n{header}{UPGRADE}\r\n");
        let Response::WebSocket(bytes) = site.respond(head.as_bytes()) else { panic!("{offered}") };
        let text = String::from_utf8(bytes).expect("text");
        assert_eq!(text.contains("Sec-WebSocket-Protocol: raybox.2\r\n"), is_chosen, "{text}");
        assert!(!text.contains("Extensions") && text.ends_with("\r\n\r\n"), "{text}");
    }
}

#[test]
fn a_message_needs_a_token_and_a_length() {
    let site = site(&[]);
    const TOKEN: &str = "Authorization: Bearer abc\r\n";
    for (headers, expected) in [
        (format!("{TOKEN}Content-Length: 20\r\n"), 100),
        (format!("{TOKEN}Content-Length: 20\r\nExpect: 100-Continue\r\n"), 100),
        (format!("{TOKEN}Content-Length: 65536\r\n"), 100),
        (format!("{TOKEN}Content-Length: 65537\r\n"), 413),
        (format!("{TOKEN}Content-Length: 0\r\n"), 400),
        (format!("{TOKEN}Content-Length: 2\r\nContent-Length: 2\r\n"), 400),
        (TOKEN.to_owned(), 411),
        (format!("{TOKEN}Transfer-Encoding: chunked\r\n"), 411),
        (format!("{TOKEN}Content-Length: 20\r\nExpect: gold\r\n"), 417),
        ("Content-Length: 20\r\n".to_owned(), 401),
        ("Content-Length: 20\r\nAuthorization: Basic abc\r\n".to_owned(), 401),
        ("Content-Length: 20\r\nAuthorization: Bearer\r\n".to_owned(), 401),
        (format!("{TOKEN}Content-Length: 20\r\nOrigin: http://evil.com\r\n"), 403),
    ] {
        assert_eq!(ask(&site, "POST /v2/send", &headers), expected, "{headers}");
    }
    assert_eq!(ask(&site, "GET /v2/send", ""), 405);
    assert_eq!(ask(&site, "OPTIONS /v2/send", "Origin: http://evil.com\r\n"), 405);
}

#[test]
fn settings_close_what_they_are_for() {
    let mut config = Config::with_defaults("127.0.0.1:0".parse().expect("an address"));
    config.web = false;
    assert_eq!(ask(&WebSettings::new(&config), "GET /", ""), 404);
    assert_eq!(ask(&WebSettings::new(&config), "GET /ws", UPGRADE), 101);
}
