//! Clients of HTTP and WebSockets that use up as much as they can, beside a quiet one.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::json;
use testkit::{ACK, PATIENCE, TestServer, offline_user, wait_until};

use crate::people::{Answered, Socket, ask, converse, dial};

/// Checks that a quiet client is answered.
#[track_caller]
fn a_quiet_client_is_served(server: &TestServer) {
    assert_eq!(ask(server, "HEAD /", "Connection: close\r\n", "").status, 200);
    let mut quiet = Socket::connect(server);
    quiet.send(&json!({"msgType": 200}));
    assert_eq!(quiet.recv_text(), ACK);
}

/// Writes until the server takes no more or the connection ends.
fn flood(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    stream.set_nonblocking(true).expect("an option");
    let (mut sent, by) = (0, Instant::now() + PATIENCE);
    let mut blocked = 0;
    while Instant::now() < by && blocked < 200 && sent < 64 * 1024 * 1024 {
        match stream.write(&bytes[sent % bytes.len()..]) {
            Ok(count) => (sent, blocked) = (sent + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                blocked += 1;
                std::thread::yield_now();
            }
            Err(_) => break,
        }
    }
    sent
}

#[test]
fn heads_that_trickle_are_ended_when_their_time_is_over() {
    let server = TestServer::builder().option("frame_timeout", "300ms").start();
    let mut slow: Vec<TcpStream> = (0..50).map(|_| dial(&server)).collect();
    for byte in b"GET / HTTP/1.1\r\nHost: x\r\n" {
        for stream in &mut slow {
            // A connection whose time is over does not take the byte.
            let _ = stream.write_all(&[*byte]);
        }
    }
    a_quiet_client_is_served(&server);
    for mut stream in slow {
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert_eq!(Answered::of(&answer).status, 408);
    }
}

#[test]
fn a_flood_of_pings_takes_no_more_than_its_share() {
    let server = TestServer::start();
    let mut greedy: Vec<Socket> = (0..4).map(|_| Socket::connect(&server)).collect();
    let ping = [&[0x89, 0x80 | 100, 0, 0, 0, 0][..], &[b'x'; 100]].concat().repeat(600);
    for socket in &mut greedy {
        // The pongs are not read, so the server stops reading at some point.
        flood(socket.0.get_mut(), &ping);
        a_quiet_client_is_served(&server);
    }
}

#[test]
fn pieces_without_an_end_take_no_more_than_their_share() {
    let server = TestServer::builder().option("bytes_per_second", "64k/256k").start();
    let mut socket = Socket::connect(&server);
    let empty = [0x00, 0x80, 0, 0, 0, 0].repeat(1000);
    let stream = socket.0.get_mut();
    stream.write_all(&[0x01, 0x80, 0, 0, 0, 0]).expect("the server reads");
    assert!(flood(stream, &empty) > 0);
    a_quiet_client_is_served(&server);
}

#[test]
fn many_requests_of_one_connection_meet_its_limits() {
    let server = TestServer::builder().option("frames_per_second", "5/10").option("admin", "127.0.0.1:0").start();
    let request = format!("HEAD / HTTP/1.1\r\nHost: {}\r\n\r\n", server.address());
    let text = converse(&server, &[request.repeat(50).as_bytes()]);
    let last = text.split("HTTP/1.1 ").last().expect("an answer");
    assert!(last.starts_with("429 ") && last.contains("Retry-After: 1"), "{last}");
    assert!(server.metrics().contains("raybox_http_answers_total{status=\"429\"} 1"));
    a_quiet_client_is_served(&server);
}

#[test]
fn connections_of_http_count_as_all_others() {
    let server = TestServer::builder().option("connections_per_address", "3").option("admin", "127.0.0.1:0").start();
    let a = offline_user(&server, "ann");
    wait_until("the connection that registered is gone", || server.open_connections() == 0);
    let mut held: Vec<TcpStream> = (0..2).map(|_| dial(&server)).collect();
    for stream in &mut held {
        stream.write_all(b"GET / HT").expect("the server reads");
    }
    let mut ann = Socket::connect(&server);
    ann.log_in("ann", a);
    let mut answer = String::new();
    let _ = dial(&server).read_to_string(&mut answer);
    assert!(answer.contains("429"), "{answer}");
}
