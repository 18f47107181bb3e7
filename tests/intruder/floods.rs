//! Floods up to and beyond each limit, while other clients chat.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use serde_json::json;

use super::others::undisturbed;
use testkit::{BAD_REQUEST, LONG_PATIENCE, NO_SUCH_METHOD, TestClient, TestServer};
use testkit::{assert_refusal, raise_descriptor_limit, wait_within};

const MIB: usize = 1 << 20;

/// Far more than the server needs, and far less than it would use if it stored everything that it
/// is sent.
const RESIDENT_MAX: usize = 200 * MIB;

/// Sends `bytes` again and again and reads the replies meanwhile. Returns all replies.
fn flood(server: &TestServer, bytes: &[u8], times: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address()).expect("connect to the server");
    stream.set_read_timeout(Some(LONG_PATIENCE)).expect("set a timeout");
    let mut reading = stream.try_clone().expect("a second handle");
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut received = Vec::new();
            reading.read_to_end(&mut received).expect("read until the server closes");
            received
        });
        for _ in 0..times {
            stream.write_all(bytes).expect("the server reads on");
        }
        stream.shutdown(Shutdown::Write).expect("end the flood");
        reader.join().expect("the replies")
    })
}

#[test]
fn a_million_tiny_frames_are_each_answered_and_disturb_nobody() {
    const CONNECTIONS: usize = 4;
    const WRITES: usize = 250;
    const FRAMES: usize = 1000;
    let server = TestServer::start();
    let write = "{}\n".repeat(FRAMES);
    undisturbed(&server, b"", || {
        thread::scope(|scope| {
            let floods: Vec<_> =
                (0..CONNECTIONS).map(|_| scope.spawn(|| flood(&server, write.as_bytes(), WRITES))).collect();
            for replies in floods {
                let replies = replies.join().expect("a flood");
                let expected = format!("{BAD_REQUEST}\n");
                assert_eq!(replies.len(), FRAMES * WRITES * expected.len());
                assert!(replies.chunks(expected.len()).all(|reply| reply == expected.as_bytes()));
            }
        });
    });
    assert!(server.resident_bytes() < RESIDENT_MAX, "{} bytes", server.resident_bytes());
}

#[test]
fn a_flood_of_garbage_is_answered_line_by_line_and_disturbs_nobody() {
    const LINES: usize = 20_000;
    let server = TestServer::start();
    let garbage: [&[u8]; 5] =
        [b"\xff\xfe\x00\x01{\n", b"[[[[[[{{{{\n", b"\"\"\"{{{\n", b"\x16\x03\x01\x02\x00\x01\n", b"{\"a\":\n"];
    undisturbed(&server, b"", || {
        for line in garbage {
            // The first bytes of a connection decide whether it speaks TLS, so these begin with a
            // frame.
            let lines = [b"{}\n", &line.repeat(LINES / 100)[..]].concat();
            let replies = flood(&server, &lines, 100);
            let replies = String::from_utf8(replies).expect("text");
            // The bytes of one line may be more than one invalid run.
            let count = replies
                .lines()
                .filter(|reply| !reply.is_empty())
                .inspect(|reply| assert_eq!(*reply, BAD_REQUEST))
                .count();
            assert!(count > 0, "{}", line.escape_ascii());
        }
    });
    assert!(server.resident_bytes() < RESIDENT_MAX, "{} bytes", server.resident_bytes());
}

#[test]
fn a_client_that_sends_frames_beyond_the_greatest_length_is_cut_off_and_disturbs_nobody() {
    let server = TestServer::start();
    undisturbed(&server, b"", || {
        for n in 0..100 {
            let mut client = TestClient::connect(&server);
            client.set_patience(LONG_PATIENCE);
            client.send_raw(br#"{"msgType":4,"TOID":1,"msg":""#);
            // Short and long frames: the server does not wait for the end of either.
            let length = if n % 10 == 0 { 8 * MIB } else { 70_000 };
            client.try_send_raw(&vec![b'x'; length]);
            // The reply may be lost, because bytes that arrive after the close reset the
            // connection.
            if let Some(reply) = client.recv_within(LONG_PATIENCE) {
                assert_refusal(&reply.to_string(), 413);
            }
            client.expect_eof();
        }
    });
    assert!(server.resident_bytes() < RESIDENT_MAX, "{} bytes", server.resident_bytes());
}

#[test]
fn nesting_up_to_the_limit_is_read_and_beyond_it_refused_however_often() {
    let server = TestServer::start();
    let nested =
        |levels: usize| format!(r#"{{"msgType":99,"x":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1)) + "\n";
    undisturbed(&server, b"", || {
        for (levels, reply) in [(128, NO_SUCH_METHOD), (129, BAD_REQUEST), (20_000, BAD_REQUEST)] {
            let replies = String::from_utf8(flood(&server, nested(levels).as_bytes(), 500)).expect("text");
            let count = replies.lines().filter(|got| !got.is_empty()).inspect(|got| assert_eq!(*got, reply)).count();
            // An invalid run also ends where the received bytes end. The rest is then another run.
            assert!(count == 500 || (levels > 128 && count > 500), "{count} replies to {levels} levels");
        }
    });
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_frame_leaves_nothing_behind() {
    const CONNECTIONS: usize = 500;
    raise_descriptor_limit(std::process::id(), 2 * CONNECTIONS);
    let server = TestServer::start();
    raise_descriptor_limit(server.pid(), 2 * CONNECTIONS);
    undisturbed(&server, b"", || {
        let before = server.sockets();
        for round in 0..4 {
            let half = format!(r#"{{"msgType":4,"TOID":1,"msg":"{}"#, "x".repeat(round * 15_000));
            let clients: Vec<TestClient> = (0..CONNECTIONS)
                .map(|_| {
                    let mut client = TestClient::connect(&server);
                    client.send_raw(half.as_bytes());
                    client
                })
                .collect();
            drop(clients);
        }
        wait_within(LONG_PATIENCE, "all sockets are closed", || server.sockets() <= before);
    });
    assert!(server.resident_bytes() < RESIDENT_MAX, "{} bytes", server.resident_bytes());
    let mut client = TestClient::connect(&server);
    assert_eq!(client.ask(&json!({"msgType": 200}))["errno"], 200);
}
