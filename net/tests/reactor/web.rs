//! HTTP and WebSockets, with real sockets. The forms of a single message are tested beside the
//! reader of the framing.

use std::io::{Read, Write};
use std::time::Duration;

use net::{CloseReason, Fate, HEAD_BYTES_MAX, Incoming, Label, Settings};

use crate::kit::{Astray, Note, Peer, Seen, TestServer, echo, ignore, later, next, settings, taken};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\n\r\n";

/// A client's frame; its key makes the mask visible.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    let key = [1, 2, 3, 4];
    let masked = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
    [0x80 | first, 0x80 | payload.len() as u8].into_iter().chain(key).chain(masked).collect()
}

fn text(payload: &str) -> Vec<u8> {
    masked(1, payload.as_bytes())
}

impl Peer {
    fn write_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the server reads");
    }

    #[track_caller]
    fn expect_raw(&mut self, expected: &[u8]) {
        let mut bytes = vec![0; expected.len()];
        self.socket.read_exact(&mut bytes).expect("the server answers");
        assert_eq!(bytes.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    #[track_caller]
    fn expect_message(&mut self, text: &str) {
        self.expect_raw(&[&[0x81, text.len() as u8], text.as_bytes()].concat());
    }

    /// Reads the last frame, and then the end.
    #[track_caller]
    fn expect_close(&mut self, code: u16) {
        let [high, low] = code.to_be_bytes();
        let mut rest = Vec::new();
        self.socket.read_to_end(&mut rest).expect("the server ends in order");
        assert_eq!(rest, [0x88, 2, high, low], "{}", rest.escape_ascii());
    }
}

fn open(server: &TestServer) -> Peer {
    let mut peer = server.connect();
    peer.write(UPGRADE);
    peer.expect([taken("GET /ws HTTP/1.1")]);
    peer.expect_bytes("GET /ws HTTP/1.1\n");
    peer
}

#[test]
fn a_connection_that_begins_with_http_is_shown_as_such_and_nothing_of_it_as_a_frame() {
    const POST: &str = "POST / HTTP/1.1\r\nHost: x\r\n\r\nabc{\"a\":1}";
    let server = TestServer::start(1, settings(), ignore);
    for cut in 1..POST.len() {
        let mut peer = server.connect();
        let (first, rest) = POST.split_at(cut);
        peer.write(first);
        peer.write(rest);
        peer.expect([taken("POST / HTTP/1.1"), taken("abc"), Seen::Closed(CloseReason::Answered)]);
        assert_eq!(peer.rest(), "POST / HTTP/1.1\nabc\n");
    }
    let mut peer = server.connect();
    peer.write("\u{16}\u{3}\u{1}");
    peer.expect([taken("<Tls>"), Seen::Closed(CloseReason::Foreign)]);
    assert_eq!(peer.rest(), "");
}

#[test]
fn requests_follow_each_other_if_the_application_says_so() {
    let server = TestServer::start(1, settings(), ignore);
    let mut peer = server.connect();
    peer.write("GET /1 HTTP/1.1\r\n\r\n\r\nGET /2 HTTP/1.1\r\n\r\nHEAD /3 HTTP/1.1\r\n\r\nGET /4 HTTP/1.1\r\n\r\n");
    peer.expect(["GET /1", "GET /2", "HEAD /3"].map(|line| taken(&format!("{line} HTTP/1.1"))));
    peer.expect([Seen::Closed(CloseReason::Answered)]);
    assert_eq!(peer.rest(), "GET /1 HTTP/1.1\nGET /2 HTTP/1.1\nHEAD /3 HTTP/1.1\n");
    let mut peer = server.connect();
    peer.write("GET /1 HTTP/1.1\r\n\r\n");
    peer.end();
    peer.expect([taken("GET /1 HTTP/1.1"), taken("<end>"), Seen::Closed(CloseReason::Ended)]);
}

#[test]
fn a_head_that_is_too_long_or_too_late_is_shown_as_that() {
    let server = TestServer::start(1, settings(), ignore);
    let mut peer = server.connect();
    peer.write(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HEAD_BYTES_MAX)));
    peer.expect([taken("<too long>"), Seen::Closed(CloseReason::Answered)]);
    let mut peer = server.connect();
    peer.write("HEAD / HTTP/1.1\r\nHost:");
    peer.end();
    peer.expect([taken("<late>"), Seen::Closed(CloseReason::Answered)]);
    let soon = Settings { frame_timeout: Duration::from_millis(50), ..settings() };
    let server = TestServer::start(1, soon, ignore);
    for begun in ["GET / HTTP", "POST / HTTP/1.1\r\n\r\nab"] {
        let mut peer = server.connect();
        peer.write(begun);
        while next(&peer.seen) != taken("<late>") {}
        peer.expect([Seen::Closed(CloseReason::Answered)]);
    }
}

#[test]
fn a_request_that_has_to_wait_is_shown_again() {
    let server = TestServer::start(1, settings(), ignore);
    let mut peer = server.connect();
    peer.hold();
    peer.write("POST / HTTP/1.1\r\n\r\nabc");
    peer.expect([later("POST / HTTP/1.1")]);
    peer.permit(1);
    peer.expect([taken("POST / HTTP/1.1"), later("abc")]);
    peer.permit(1);
    peer.expect([taken("abc"), Seen::Closed(CloseReason::Answered)]);
}

#[test]
fn messages_of_a_websocket_are_frames_in_both_directions() {
    let server = TestServer::start(1, settings(), echo);
    // The first messages may come with the request; the client has no right to send them then.
    let mut peer = server.connect();
    peer.write_bytes(&[UPGRADE.as_bytes(), &text("{\"a\":1}"), &text("{} {}")].concat());
    peer.expect([taken("GET /ws HTTP/1.1"), taken("{\"a\":1}"), taken("<garbage>")]);
    peer.expect_bytes("GET /ws HTTP/1.1\n");
    peer.expect_message("{\"a\":1}");
    peer.expect_message("<garbage>");
    // However it is cut, with a ping inside.
    let pieces = [masked(1, b"{\"b\""), masked(9, b"hey"), masked(0, b":2}")].concat();
    let pieces: Vec<u8> = pieces.iter().enumerate().map(|(at, byte)| if at == 0 { 1 } else { *byte }).collect();
    for byte in pieces {
        peer.write_bytes(&[byte]);
    }
    peer.expect_raw(b"\x8a\x03hey");
    peer.expect_message("{\"b\":2}");
    assert!(peer.send("{\"c\":3}", Fate::Drop).is_ok(), "from a thread without a loop");
    peer.expect_message("{\"c\":3}");
}

#[test]
fn a_message_that_is_shown_again_was_unmasked_once() {
    let server = TestServer::start(1, settings(), ignore);
    let mut peer = open(&server);
    peer.hold();
    peer.write_bytes(&[text("{\"first\":1}"), text("{\"second\":2}")].concat());
    peer.expect([later("{\"first\":1}")]);
    peer.permit(1);
    peer.expect([taken("{\"first\":1}"), later("{\"second\":2}")]);
    peer.permit(1);
    peer.expect([taken("{\"second\":2}")]);
}

#[test]
fn every_end_has_its_code() {
    let server = TestServer::start(1, settings(), ignore);
    let end = |bytes: &[u8], reason, code| {
        let mut peer = open(&server);
        peer.write_bytes(bytes);
        peer.expect([taken("<end>"), Seen::Closed(reason)]);
        peer.expect_close(code);
    };
    end(&masked(8, b"\x03\xe9bye"), CloseReason::Ended, 1001);
    end(&masked(8, b""), CloseReason::Ended, 1000);
    end(&masked(2, b"{}"), CloseReason::Violation, 1003);
    end(&masked(1, b"\xff"), CloseReason::Violation, 1007);
    end(b"\x81\x02{}", CloseReason::Violation, 1002);
    end(&[0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4], CloseReason::Oversize, 1009);
    // A connection that the application ends.
    let mut peer = open(&server);
    peer.write_bytes(&text("{\"last\":1}"));
    peer.expect([taken("{\"last\":1}"), Seen::Closed(CloseReason::Excess)]);
    peer.expect_close(1001);
    let mut peer = open(&server);
    peer.link.ends_with(4503);
    peer.link.ends_with(1001);
    peer.write_bytes(&text("{\"last\":1}"));
    peer.expect_close(4503);
    // A frame that the client has only begun.
    let mut peer = open(&server);
    peer.write_bytes(&text("{\"a\":1}")[..4]);
    peer.end();
    peer.expect([taken("<end>")]);
    let mut server = TestServer::start(1, settings(), ignore);
    let mut peer = open(&server);
    let drained = server.drain(crate::kit::PATIENCE);
    peer.expect([taken("<stop>"), Seen::Closed(CloseReason::Stopped)]);
    peer.expect_close(1001);
    drop(peer);
    drained.join().expect("the loops end");
}

#[test]
fn a_message_that_does_not_arrive_in_time_ends_the_connection() {
    let soon = Settings { frame_timeout: Duration::from_millis(50), ..settings() };
    let server = TestServer::start(1, soon, ignore);
    for begun in [&text("{\"a\":1}")[..4], &[1, 0x81, 1, 2, 3, 4, b'{' ^ 1]] {
        let mut peer = open(&server);
        peer.write_bytes(begun);
        peer.expect([taken("<end>"), Seen::Closed(CloseReason::Violation)]);
        peer.expect_close(1008);
    }
}

#[test]
fn messages_that_did_not_arrive_come_back_as_they_were_sent() {
    let server = TestServer::start(1, settings(), ignore);
    let peer = open(&server);
    let frames =
        |n: usize| format!("{{\"n\":{n},\"x\":\"{}\"}}", "z".repeat(if n.is_multiple_of(3) { 20 } else { 70_000 }));
    let mut sent = 0;
    while peer.send(&frames(sent), Fate::Return(Label::of(1))).is_ok() {
        sent += 1;
    }
    let (link, seen) = peer.reset();
    while !matches!(next(&seen), Seen::Closed(_)) {}
    let mut back = Vec::new();
    for text in ["one", "two"] {
        link.post(Note::Text(text.into()));
        while let Astray::Unsent(_, frame) = server.astray() {
            back.push(frame);
        }
    }
    assert!(!back.is_empty() && back.len() <= sent);
    let expected: Vec<String> = (sent - back.len()..sent).map(frames).collect();
    assert!(back == expected, "the last ones, whole, in order, without their heads");
}

#[test]
fn a_flood_of_pings_is_answered_as_far_as_its_client_reads() {
    let small = Settings { output_bytes_max: 64 * 1024, ..settings() };
    let server = TestServer::start(1, small, ignore);
    let mut peer = open(&server);
    let flood = masked(9, &[b'x'; 100]).repeat(1000);
    peer.socket.set_nonblocking(true).expect("an option");
    let mut sent = 0;
    // Until neither side takes more: the server has stopped reading, because nobody reads it.
    for _ in 0..10_000 {
        match peer.socket.write(&flood[sent % flood.len()..]) {
            Ok(count) => sent += count,
            Err(_) if peer.link.pending_bytes() > 0 && peer.unread() > 0 => break,
            Err(_) => std::thread::yield_now(),
        }
    }
    assert!(peer.link.pending_bytes() <= 64 * 1024, "{}", peer.link.pending_bytes());
    // Others are served meanwhile.
    let mut other = open(&server);
    other.write_bytes(&text("{\"quiet\":1}"));
    other.expect([taken("{\"quiet\":1}")]);
}

#[test]
fn many_empty_pieces_are_shown_as_blanks() {
    let server = TestServer::start(1, settings(), |_, _, incoming| assert!(!matches!(incoming, Incoming::Frame(_))));
    let mut peer = open(&server);
    let mut pieces = masked(0, b"");
    pieces[0] = 0;
    peer.write_bytes(&[[1, 0x80, 1, 2, 3, 4].to_vec(), pieces.repeat(5000)].concat());
    let Seen::Taken(shown) = next(&peer.seen) else { panic!("it is taken") };
    assert!(shown.ends_with(" blanks>"), "{shown}");
}
