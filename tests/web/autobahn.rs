//! The cases of the Autobahn test suite, case by case: sections 1 to 7, 9 and 10.
//!
//! The suite expects an echo server. Here a message is one JSON object, and the echo is replaced by
//! a request: `{"msgType":200}` with a member of the wanted length, which is answered with [`ACK`].
//! Any other text is answered with [`BAD_REQUEST`], which shows that it was taken as text. Binary
//! messages have no meaning here, so each of them ends the connection with 1003 as soon as its head
//! is there.
//!
//! Section 8 does not exist, and section 11 is not part of the suite any more. Sections 12 and 13
//! test compression, which this server does not offer, so no client may use it (RFC 7692, 5).

mod closes;
mod frames;
mod sizes;
mod utf8;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use testkit::{ACK, BAD_REQUEST, TestServer};

use crate::people::Socket;

/// A case: its number, what is sent and answered, and the end.
struct Case {
    number: String,
    steps: Vec<Step>,
    end: End,
}

/// Bytes that are sent in chops, and the whole answer to them.
struct Step {
    send: Vec<u8>,
    chop: usize,
    answer: Vec<u8>,
}

enum End {
    /// The server ends the connection with this code.
    Server(u16),
    /// The connection stays open. The test ends it with 1000.
    Open,
}

const NORMAL: u16 = 1000;
const VIOLATION: u16 = 1002;
const NO_TEXT: u16 = 1003;
const NO_UTF8: u16 = 1007;

const WHOLE: usize = usize::MAX;

/// The first byte of a frame: the last one of its message, or one that others follow.
const TEXT: u8 = 0x81;
const FIRST: u8 = 0x01;
const NEXT: u8 = 0x00;
const LAST: u8 = 0x80;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

const GOOD: &[u8] = br#"{"msgType":200}"#;

impl Case {
    /// Sends these bytes in chops. The connection stays open after this answer.
    fn open(number: &str, send: Vec<u8>, chop: usize, answer: Vec<u8>) -> Case {
        Case { number: number.to_owned(), steps: vec![Step { send, chop, answer }], end: End::Open }
    }

    /// The server answers nothing, and ends the connection with this code.
    fn ends(number: &str, send: Vec<u8>, chop: usize, code: u16) -> Case {
        Case { end: End::Server(code), ..Case::open(number, send, chop, Vec::new()) }
    }

    /// The server answers these bytes, and then ends the connection.
    fn answered_and_ends(number: &str, send: Vec<u8>, chop: usize, answer: Vec<u8>, code: u16) -> Case {
        Case { end: End::Server(code), ..Case::open(number, send, chop, answer) }
    }

    /// Plays the case on a connection of its own.
    fn play(&self, server: &TestServer) {
        let (number, mut stream) = (&self.number, raw(server));
        for Step { send, chop, answer } in &self.steps {
            for piece in send.chunks(*chop.min(&send.len().max(1))) {
                // The server may close the connection before the last piece of a case that ends it.
                let sent = stream.write_all(piece);
                assert!(sent.is_ok() || matches!(self.end, End::Server(_)), "{number}: {sent:?}");
            }
            let mut found = vec![0; answer.len()];
            stream.read_exact(&mut found).unwrap_or_else(|error| panic!("{number}: {error}"));
            assert_eq!(shown(&found), shown(answer), "{number}");
        }
        let code = match self.end {
            End::Server(code) => code,
            End::Open => {
                stream.write_all(&frame(CLOSE, &NORMAL.to_be_bytes())).expect("the server reads");
                NORMAL
            }
        };
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap_or_else(|error| panic!("{number}: the end: {error}"));
        assert_eq!(shown(&rest), shown(&reply(CLOSE, &code.to_be_bytes())), "{number}: the end");
    }
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// A raw connection after its handshake.
fn raw(server: &TestServer) -> TcpStream {
    let mut socket = Socket::connect(server);
    socket.0.get_mut().try_clone().expect("a descriptor")
}

/// The head of a frame with the shortest form of this length. `masked` is 0x80 or 0.
fn head(first: u8, len: usize, masked: u8) -> Vec<u8> {
    match len {
        ..126 => vec![first, masked | len as u8],
        126..0x1_0000 => [&[first, masked | 126][..], &(len as u16).to_be_bytes()].concat(),
        _ => [&[first, masked | 127][..], &(len as u64).to_be_bytes()].concat(),
    }
}

/// A client's frame. Its mask is zero, so that the bytes are readable here.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&head(first, payload.len(), 0x80)[..], &[0; 4], payload].concat()
}

/// A server's frame.
fn reply(first: u8, payload: &[u8]) -> Vec<u8> {
    [&head(first, payload.len(), 0)[..], payload].concat()
}

/// A message in fragments of this length.
fn fragments(payload: &[u8], len: usize) -> Vec<u8> {
    let count = payload.len().div_ceil(len);
    let first = |nth: usize| if nth == 0 { FIRST } else { NEXT } | if nth + 1 == count { LAST } else { 0 };
    payload.chunks(len).enumerate().flat_map(|(nth, piece)| frame(first(nth), piece)).collect()
}

/// A request of exactly this length. The shortest one is [`GOOD`].
fn request(len: usize) -> Vec<u8> {
    let plain = br#"{"msgType":200,"x":""}"#.len();
    assert!(len >= plain, "{len} bytes are no request");
    format!(r#"{{"msgType":200,"x":"{}"}}"#, "*".repeat(len - plain)).into_bytes()
}

fn acked() -> Vec<u8> {
    reply(TEXT, ACK.as_bytes())
}

fn bad_request() -> Vec<u8> {
    reply(TEXT, BAD_REQUEST.as_bytes())
}

/// The numbers of a section: `count_of(&["1.1"], 8)` is 1.1.1 to 1.1.8.
fn numbers(parts: &[(&str, usize)]) -> BTreeSet<String> {
    parts.iter().flat_map(|(part, count)| (1..=*count).map(move |nth| format!("{part}.{nth}"))).collect()
}

/// Plays all cases of a section, after a check that none is missing.
fn play(server: &TestServer, parts: &[(&str, usize)], cases: &[Case]) {
    let listed: BTreeSet<String> = cases.iter().map(|case| case.number.clone()).collect();
    assert_eq!(listed, numbers(parts), "the cases of the suite");
    cases.iter().for_each(|case| case.play(server));
}
