//! The beginning of a connection before the client speaks: the header of the PROXY protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::kit::{PATIENCE, Peer, Seen, TestServer, echo, expect, settings, taken, wait_until};
use net::{CloseReason, Preface, Settings};
use proptest::prelude::*;

const HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 51234 8003\r\n";
const CLIENT: &str = "203.0.113.7:51234";

fn binary_header() -> Vec<u8> {
    let addresses = [203, 0, 113, 7, 10, 0, 0, 1, 200, 34, 31, 67];
    // An unknown addition (TLV) of two bytes follows the addresses.
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x21, 0x11, 0, 17], &addresses, &[0xe0, 0, 2, b'{', b'}']].concat()
}

/// Whether the server has closed the connection, gracefully or with a reset, and sent nothing
/// before.
fn is_closed_unanswered(mut socket: TcpStream) -> bool {
    match socket.read(&mut [0; 100]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn open(server: &TestServer, socket: TcpStream) -> Peer {
    let (link, seen) = server.opened();
    Peer { socket, link, seen }
}

#[test]
fn the_header_names_the_client_and_the_rest_is_the_clients() {
    let server = TestServer::start_behind(Preface::ProxyHeader, settings(), echo);
    for header in [HEADER.to_vec(), binary_header()] {
        let mut socket = server.dial();
        socket.write_all(&[&header, b"{\"a\":1}".as_slice()].concat()).expect("the server reads");
        let mut peer = open(&server, socket);
        assert_eq!(peer.link.peer(), CLIENT.parse().ok());
        peer.expect_bytes(r#"{"a":1}"#);
        peer.write("{}");
        peer.expect_bytes("{}");
    }
}

#[test]
fn a_client_that_says_nothing_but_its_end_is_a_client_all_the_same() {
    let server = TestServer::start_behind(Preface::ProxyHeader, settings(), echo);
    let mut socket = server.dial();
    socket.write_all(HEADER).expect("the server reads");
    socket.shutdown(Shutdown::Write).expect("connected");
    let peer = open(&server, socket);
    assert_eq!(peer.link.peer(), CLIENT.parse().ok());
    peer.expect([taken("<end>"), Seen::Closed(CloseReason::Ended)]);
}

#[test]
fn a_proxy_that_names_nobody_is_the_client() {
    let server = TestServer::start_behind(Preface::ProxyHeader, settings(), echo);
    let local = [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x20, 0x00, 0, 0]].concat();
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), local] {
        let mut socket = server.dial();
        socket.write_all(&header).expect("the server reads");
        let mut peer = open(&server, socket);
        assert_eq!(peer.link.peer(), peer.socket.local_addr().ok());
        peer.write("{}");
        peer.expect_bytes("{}");
    }
}

#[test]
fn without_a_header_the_application_hears_nothing() {
    let server = TestServer::start_behind(Preface::ProxyHeader, settings(), echo);
    for bytes in ["{\"a\":1}", "PROXY TCP4 a b 1 2\r\n{}", "\r\n{}"] {
        let mut socket = server.dial();
        socket.write_all(bytes.as_bytes()).expect("the server reads");
        assert!(is_closed_unanswered(socket), "{bytes}");
    }
    for begun in [b"".as_slice(), &HEADER[..20], &binary_header()[..14]] {
        let mut socket = server.dial();
        socket.write_all(begun).expect("the server reads");
        socket.shutdown(Shutdown::Write).expect("connected");
        assert!(is_closed_unanswered(socket), "{begun:?}");
    }
    assert!(server.opened_none());
}

#[test]
fn a_header_must_come_in_time_and_only_that() {
    let settings = Settings { frame_timeout: Duration::from_secs(2), ..settings() };
    let server = TestServer::start_behind(Preface::ProxyHeader, settings, echo);
    let mut good = server.dial();
    good.write_all(HEADER).expect("the server reads");
    let mut good = open(&server, good);
    let (silent, mut slow) = (server.dial(), server.dial());
    slow.write_all(&HEADER[..HEADER.len() - 1]).expect("the server reads");
    assert!(is_closed_unanswered(silent));
    assert!(is_closed_unanswered(slow));
    assert!(server.opened_none());
    good.write("{}");
    good.expect_bytes("{}");
}

#[test]
fn a_peer_that_is_not_trusted_is_served_as_itself_and_not_believed() {
    let server = TestServer::start_behind(Preface::NoProxyHeader, settings(), echo);
    for header in [HEADER.to_vec(), binary_header()] {
        let mut socket = server.dial();
        socket.write_all(&header).expect("the server reads");
        assert!(is_closed_unanswered(socket));
    }
    assert!(server.opened_none());
    let mut socket = server.dial();
    socket.write_all(b"\r\n{}").expect("the server reads");
    let mut peer = open(&server, socket);
    assert_eq!(peer.link.peer(), peer.socket.local_addr().ok());
    peer.expect_bytes("{}");
}

#[test]
fn a_peer_that_is_not_trusted_may_be_silent() {
    let settings = Settings { frame_timeout: Duration::from_millis(50), ..settings() };
    let server = TestServer::start_behind(Preface::NoProxyHeader, settings, echo);
    let mut peer = open(&server, server.dial());
    peer.write("{}");
    peer.expect_bytes("{}");
}

#[test]
fn a_server_that_stops_waits_for_no_header() {
    let mut server = TestServer::start_behind(Preface::ProxyHeader, settings(), echo);
    let mut known = server.dial();
    known.write_all(HEADER).expect("the server reads");
    let known = open(&server, known);
    let silent = server.dial();
    let mut slow = server.dial();
    slow.write_all(&HEADER[..9]).expect("the server reads");
    known.sync();
    let drained = server.drain(PATIENCE);
    drop(known);
    wait_until(|| drained.is_finished());
    assert!(is_closed_unanswered(silent));
    assert!(is_closed_unanswered(slow));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_cut_of_header_and_frames_gives_the_same(
        binary in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let frames = [r#"{"a":"PROXY TCP4 1.1.1.1 2.2.2.2 3 4\\r\\n"}"#, "{}", r#"{"b":2}"#];
        let header = if binary { binary_header() } else { HEADER.to_vec() };
        let stream = [header, frames.concat().into_bytes()].concat();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).chain([0, stream.len()]).collect();
        at.sort_unstable();
        SERVER.with(|server| {
            let mut socket = server.dial();
            for piece in at.windows(2) {
                socket.write_all(&stream[piece[0]..piece[1]]).expect("the server reads");
                // The server may read the piece by itself, or with the next one.
                std::thread::yield_now();
            }
            let peer = open(server, socket);
            assert_eq!(peer.link.peer(), CLIENT.parse().ok());
            expect(&peer.seen, frames.map(taken));
            peer.sync();
        });
    }
}

thread_local! {
    /// One for all cases of a property.
    static SERVER: TestServer = TestServer::start_behind(Preface::ProxyHeader, settings(), echo);
}
