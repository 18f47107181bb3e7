//! Behind a proxy that speaks the PROXY protocol: the address that counts, and the connections that
//! are refused.

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use serde_json::json;
use testkit::tls::{Certificate, trusting};
use testkit::{ACK, BAD_REQUEST, Builder, Nginx, TestClient, TestServer, chat, offline_user, password, wait_until};

const HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 51234 8003\r\n";
const CLIENT: &str = "203.0.113.7:51234";

/// A server whose proxies are at 127.0.0.1, from where the clients of these tests connect.
fn behind_proxy() -> Builder {
    TestServer::builder().option("proxy_protocol", "on").option("log_level", "debug")
}

fn connect_as_proxy(server: &TestServer, header: &[u8]) -> TestClient {
    let mut client = TestClient::connect(server);
    client.send_raw(header);
    client
}

/// The number of log lines at this level that contain all of `texts`.
fn log_lines(server: &TestServer, level: &str, texts: &[&str]) -> usize {
    let logs = server.logs();
    let is_meant = |line: &&str| line.contains(level) && texts.iter().all(|text| line.contains(text));
    logs.lines().filter(is_meant).count()
}

#[test]
fn the_log_names_the_client_and_not_the_proxy() {
    let server = behind_proxy().start();
    let mut direct = connect_as_proxy(&server, b"PROXY UNKNOWN\r\n");
    direct.ask(&json!({"msgType": 200}));
    assert_eq!(log_lines(&server, "DEBUG", &["connected", CLIENT]), 0);
    // The header and the first request come in one segment.
    let mut client = TestClient::connect(&server);
    client.send_raw(&[HEADER, br#"{"msgType":200}"#].concat());
    client.expect_text(ACK);
    wait_until("the log names the client", || log_lines(&server, "DEBUG", &["connected", CLIENT]) == 1);
}

#[test]
fn two_users_talk_through_a_proxy() {
    let server = behind_proxy().start();
    let binary = [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x21, 0x11, 0, 12, 203, 0, 113, 7, 10, 0, 0, 1, 9, 9, 31, 67]];
    let mut alice = connect_as_proxy(&server, HEADER);
    let a = alice.register("alice", &password("alice"));
    alice.login(a, &password("alice"));
    let mut bob = connect_as_proxy(&server, &binary.concat());
    let b = bob.register("bob", &password("bob"));
    bob.login(b, &password("bob"));
    alice.send(&chat(a, b, "hello"));
    bob.expect(&chat(a, b, "hello"));
}

#[test]
fn a_trusted_proxy_without_header_is_refused_and_the_log_says_so_once() {
    const TRIES: usize = 50;
    let server = behind_proxy().option("loops", "1").start();
    for _ in 0..TRIES {
        let mut client = TestClient::connect(&server);
        client.send(&json!({"msgType": 200}));
        client.expect_eof();
    }
    wait_until("each is in the detailed log", || log_lines(&server, "DEBUG", &["refused", "127.0.0.1"]) == TRIES);
    assert_eq!(log_lines(&server, "WARN", &["refused", "127.0.0.1", "proxy_from"]), 1);
}

#[test]
fn a_stranger_is_served_as_itself_and_its_header_is_not_believed() {
    let server = behind_proxy().option("proxy_from", "127.0.0.9,10.0.0.0/8").start();
    offline_user(&server, "alice");
    connect_as_proxy(&server, HEADER).expect_eof();
    wait_until("the log says so", || log_lines(&server, "WARN", &["refused", "127.0.0.1", "proxy_from"]) == 1);
    assert_eq!(log_lines(&server, "DEBUG", &[CLIENT]), 0);
}

#[test]
fn a_header_that_nobody_asked_for_is_garbage() {
    let server = TestServer::builder().option("log_level", "debug").start();
    let mut client = connect_as_proxy(&server, HEADER);
    client.expect_text(BAD_REQUEST);
    client.send(&json!({"msgType": 200}));
    client.expect_text(ACK);
    assert_eq!(log_lines(&server, "DEBUG", &[CLIENT]), 0);
}

#[test]
fn nginx_that_reads_its_settings_again_keeps_the_connections_there_are() {
    let server = behind_proxy().option("proxy_from", Nginx::COMES_FROM).start();
    let nginx = Nginx::as_shipped(&[server.address()]);
    let mut ann = TestClient::connect_to(nginx.addresses()[0]);
    let a = ann.register("ann", &password("ann"));
    ann.login(a, &password("ann"));
    let old = nginx.workers();
    nginx.reload();
    let mut bob = TestClient::connect_to(nginx.addresses()[0]);
    let b = bob.register("bob", &password("bob"));
    bob.login(b, &password("bob"));
    ann.send(&chat(a, b, "hello"));
    bob.expect(&chat(a, b, "hello"));
    bob.send(&chat(b, a, "welcome"));
    ann.expect(&chat(b, a, "welcome"));
    assert!(nginx.workers().intersection(&old).next().is_some(), "an old worker has a connection");
}

/// `nc -N` closes its sending direction like this after its requests.
#[test]
fn a_half_closed_client_behind_nginx_gets_its_answers() {
    let server = behind_proxy().option("proxy_from", Nginx::COMES_FROM).start();
    let nginx = Nginx::as_shipped(&[server.address()]);
    for nobody in 0..20 {
        let mut client = TestClient::connect_to(nginx.addresses()[0]);
        client.send(&json!({"msgType": 1, "USERID": 4711 + nobody, "password": "wrong"}));
        client.send(&json!({"msgType": 200}));
        client.half_close();
        assert_eq!(client.recv()["errno"], 302);
        client.expect_text(ACK);
        client.expect_eof();
    }
}

/// The certificate is nginx's. The server gets plain text, and the client's address from the
/// header.
#[test]
fn people_who_speak_tls_with_nginx_talk_to_others() {
    let server = behind_proxy().option("proxy_from", Nginx::COMES_FROM).start();
    let certificate = Certificate::of("localhost");
    let nginx = Nginx::as_shipped_with_tls(&[server.address()], &certificate);
    let mut ann = TestClient::connect_to(nginx.addresses()[0]);
    let a = ann.register("ann", &password("ann"));
    ann.login(a, &password("ann"));
    let stream = TcpStream::connect(nginx.addresses()[1]).expect("connect to nginx");
    let from = stream.local_addr().expect("its address").to_string();
    let mut bob = TestClient::on_tls(stream, "localhost", &trusting(&[&certificate])).expect("nginx speaks TLS");
    let b = bob.register("bob", &password("bob"));
    bob.login(b, &password("bob"));
    ann.send(&chat(a, b, "hello"));
    bob.expect(&chat(a, b, "hello"));
    bob.send(&chat(b, a, "hello"));
    ann.expect(&chat(b, a, "hello"));
    assert_eq!(log_lines(&server, "DEBUG", &["connected", &from]), 1);
}

/// Except for the header and comments, both settings files are the same.
#[test]
fn the_settings_of_nginx_for_a_replacement_differ_in_the_header_alone() {
    let settings = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name);
        let text = fs::read_to_string(path).expect("shipped settings");
        text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let without = settings("tcp.d/chat_server.conf").into_iter().map(|line| match line.as_str() {
        "proxy_protocol on;" => "proxy_protocol off;".to_owned(),
        _ => line,
    });
    assert_eq!(without.collect::<Vec<_>>(), settings("replacement/chat_server.conf"));
}
