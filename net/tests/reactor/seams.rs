//! Other framings, openings and transports than today's find their places: each test puts in some
//! of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use crate::kit::{Astray, Note, PATIENCE, Peer, Seen, TestServer, echo, ignore, later, settings, taken, wait_until};
use net::simulation::{
    Chain, CustomOpening, CustomReader, CustomStep, CustomTransport, CustomWriter, FoundItem, Notice, Piece, Speech,
    Wrapping,
};
use net::{CloseReason, Fate, Label, Link, Preface, Refused};

/// A frame of the framing here: four bytes of length, the highest bit telling a ping, and a payload
/// that is masked, from clients only.
fn masked(payload: &[u8]) -> Vec<u8> {
    let head = u32::try_from(payload.len()).expect("short").to_be_bytes();
    head.into_iter().chain(payload.iter().map(|byte| byte ^ MASK)).collect()
}

fn unmasked(payload: &[u8]) -> Vec<u8> {
    [&u32::try_from(payload.len()).expect("short").to_be_bytes(), payload].concat()
}

const MASK: u8 = 0x5a;
const PING: u8 = 0x80;

/// Finds them. Like a WebSocket it takes the mask off where the frame lies, and answers pings
/// itself.
#[derive(Default, Debug)]
struct PrefixReader {
    /// This was found, its mask is off, and it was not taken.
    shown: Option<FoundItem>,
    is_inside: bool,
    answer: Option<Vec<u8>>,
}

impl CustomReader for PrefixReader {
    fn find(&mut self, bytes: &mut [u8], _: bool) -> FoundItem {
        if let Some(found) = self.shown {
            return found;
        }
        self.is_inside = !bytes.is_empty();
        let Some((head, rest)) = bytes.split_first_chunk_mut::<4>() else { return FoundItem::Incomplete };
        let is_ping = head[0] & PING != 0;
        let len = u32::from_be_bytes([head[0] & !PING, head[1], head[2], head[3]]) as usize;
        if len > FRAME_BYTES_MAX {
            self.shown = Some(FoundItem::Oversize);
            return FoundItem::Oversize;
        }
        let Some(payload) = rest.get_mut(..len) else { return FoundItem::Incomplete };
        self.is_inside = false;
        payload.iter_mut().for_each(|byte| *byte ^= MASK);
        if is_ping {
            self.answer = Some([&[PING, 0, 0, len as u8], &*payload].concat());
            return FoundItem::Skip { len: 4 + len };
        }
        let found = FoundItem::Frame(Piece { head: 4, len, tail: 0 });
        self.shown = Some(found);
        found
    }

    fn taken(&mut self) {
        self.shown = None;
    }

    fn notice(&mut self) -> Option<Notice> {
        self.answer.take().map(Notice::Answer)
    }

    fn has_shown(&self) -> bool {
        self.shown.is_some()
    }

    fn is_inside(&self) -> bool {
        self.is_inside
    }

    fn give_up(&mut self) {
        (self.shown, self.is_inside) = (Some(FoundItem::Garbage { len: 0 }), false);
    }

    fn forget(&mut self) {
        *self = PrefixReader::default();
    }
}

#[derive(Debug)]
struct PrefixWriter;

impl CustomWriter for PrefixWriter {
    fn wrap(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Wrapping {
        out.extend(unmasked(frame));
        // Something behind the payload as well, which must not come back either.
        out.extend(TAIL);
        Wrapping { head: 4, tail: TAIL.len() as u8 }
    }
}

const TAIL: &[u8] = b"\r\n";
const FRAME_BYTES_MAX: usize = 1000;

fn prefixed() -> Speech {
    Speech { framing: Some((Box::new(PrefixReader::default()), Box::new(PrefixWriter))), ..Speech::default() }
}

/// Waits for a line of magic, answers it, and hands over what follows.
#[derive(Debug)]
struct Magic {
    next: fn(usize, Vec<u8>) -> CustomStep,
}

impl CustomOpening for Magic {
    fn look(&mut self, bytes: &[u8], over: bool) -> CustomStep {
        match bytes.len() >= MAGIC.len() {
            true if bytes.starts_with(MAGIC) => (self.next)(MAGIC.len(), WELCOME.to_vec()),
            false if MAGIC.starts_with(bytes) && !over => CustomStep::Wait(0, Vec::new()),
            _ => CustomStep::Refuse("no magic"),
        }
    }
}

const MAGIC: &[u8] = b"open sesame\n";
const WELCOME: &[u8] = b"welcome\n";

fn magic(next: fn(usize, Vec<u8>) -> CustomStep) -> Box<dyn CustomOpening> {
    Box::new(Magic { next })
}

/// Connects, says the magic with `more` behind it in the same write, and hears the answer.
fn enter(server: &TestServer, more: &[u8]) -> Peer {
    let mut socket = server.dial();
    socket.write_all(&[MAGIC, more].concat()).expect("the server reads");
    expect_bytes(&mut socket, WELCOME);
    let (link, seen) = server.opened();
    Peer { socket, link, seen }
}

fn expect_bytes(socket: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    socket.read_exact(&mut bytes).expect("the server answers");
    assert_eq!(bytes.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

fn opens_prefixed() -> Box<dyn CustomOpening> {
    magic(|consumed, answer| CustomStep::Open(consumed, answer, prefixed()))
}

#[test]
fn an_opening_answers_and_what_follows_its_bytes_is_the_frames() {
    let server = TestServer::start_behind(Preface::Custom(Chain(opens_prefixed)), settings(), echo);
    let mut peer = enter(&server, &[masked(b"{"), masked(b"a\nb")].concat());
    peer.expect([taken("{"), taken("a\nb")]);
    for payload in [b"{".as_slice(), b"a\nb"] {
        expect_bytes(&mut peer.socket, &[unmasked(payload), TAIL.to_vec()].concat());
    }
    // However it is cut, and behind a ping, which the framing answers by itself.
    let mut bytes = masked(b"ping");
    bytes[0] |= PING;
    bytes.extend(masked(b"in pieces"));
    for byte in bytes {
        peer.socket.write_all(&[byte]).expect("the server reads");
    }
    expect_bytes(&mut peer.socket, b"\x80\0\0\x04ping");
    expect_bytes(&mut peer.socket, &[unmasked(b"in pieces"), TAIL.to_vec()].concat());
    peer.expect([taken("in pieces")]);
}

#[test]
fn a_frame_that_is_shown_again_was_unmasked_once() {
    let server = TestServer::start_behind(Preface::Custom(Chain(opens_prefixed)), settings(), ignore);
    let mut peer = enter(&server, b"");
    peer.hold();
    peer.socket.write_all(&[masked(b"first"), masked(b"second")].concat()).expect("the server reads");
    peer.expect([later("first")]);
    peer.permit(1);
    peer.expect([taken("first"), later("second")]);
    peer.permit(2);
    peer.expect([taken("second")]);
    let too_long = u32::try_from(FRAME_BYTES_MAX + 1).expect("short").to_be_bytes();
    peer.socket.write_all(&too_long).expect("the server reads");
    peer.expect([taken("<oversize>"), Seen::Closed(CloseReason::Oversize)]);
}

#[test]
fn openings_follow_each_other_and_each_may_wait_and_refuse() {
    // The magic twice; then the second opening hands over what it has read beyond its own.
    fn second(consumed: usize, answer: Vec<u8>) -> CustomStep {
        let left = b"{\"left\":1}".to_vec();
        CustomStep::Open(consumed, answer, Speech { left, ..Speech::default() })
    }
    fn first() -> Box<dyn CustomOpening> {
        magic(|consumed, answer| CustomStep::Next(consumed, answer, magic(second)))
    }
    let server = TestServer::start_behind(Preface::Custom(Chain(first)), settings(), echo);
    let mut socket = server.dial();
    let stream = [MAGIC, MAGIC, b"{\"a\":1}"].concat();
    for part in stream.chunks(5) {
        socket.write_all(part).expect("the server reads");
    }
    expect_bytes(&mut socket, &[WELCOME, WELCOME, b"{\"left\":1}{\"a\":1}"].concat());
    let (_, seen) = server.opened();
    crate::kit::expect(&seen, [taken("{\"left\":1}"), taken("{\"a\":1}")]);

    let mut socket = server.dial();
    socket.write_all(&[MAGIC, b"{\"a\":1}      "].concat()).expect("the server reads");
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let _ = socket.read_to_end(&mut answer);
    assert!(WELCOME.starts_with(&answer), "{}", answer.escape_ascii());
    assert!(server.opened_none());
}

#[test]
fn frames_of_another_framing_come_back_as_payloads() {
    let server = TestServer::start_behind(Preface::Custom(Chain(opens_prefixed)), settings(), ignore);
    let frames = |n: usize| format!("{n} {}", "x".repeat(20_000));
    let (peer, sent) = fill(&server, frames);
    let (link, seen) = peer.reset();
    wait_closed(&seen);
    let back = come_back(&server, &link);
    assert!(!back.is_empty() && back.len() <= sent);
    let expected: Vec<String> = (sent - back.len()..sent).map(frames).collect();
    assert!(back == expected, "the last ones, whole, in order, without head and tail");
}

/// Writes each byte twice, in records of a length of their own: three bytes, the payload's length
/// among them.
#[derive(Default, Debug)]
struct Doubling {
    begun: Vec<u8>,
}

impl CustomTransport for Doubling {
    fn seal(&mut self, payload: &[u8], wire: &mut Vec<u8>) {
        wire.extend([b'#', (payload.len() >> 8) as u8, payload.len() as u8]);
        wire.extend(payload.iter().flat_map(|byte| [*byte, !*byte]));
    }

    fn open(&mut self, wire: &[u8], payload: &mut Vec<u8>) {
        self.begun.extend_from_slice(wire);
        while let Some((opened, len)) = record(&self.begun) {
            payload.extend(opened);
            self.begun.drain(..len);
        }
    }
}

/// The payload of the record at the front, if that is whole, and how long the record is.
fn record(wire: &[u8]) -> Option<(Vec<u8>, usize)> {
    let [b'#', high, low, rest @ ..] = wire else { return None };
    let body = rest.get(..2 * usize::from(u16::from_be_bytes([*high, *low])))?;
    assert!(body.chunks(2).all(|pair| pair[1] == !pair[0]), "nothing is garbled");
    Some((body.iter().step_by(2).copied().collect(), 3 + body.len()))
}

fn sealed(payload: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    Doubling::default().seal(payload, &mut wire);
    wire
}

fn opens_doubling() -> Box<dyn CustomOpening> {
    magic(|consumed, answer| {
        let transport: Option<Box<dyn CustomTransport>> = Some(Box::new(Doubling::default()));
        CustomStep::Open(consumed, answer, Speech { transport, ..Speech::default() })
    })
}

#[test]
fn the_bytes_of_a_transport_are_seen_by_nobody_else() {
    let server = TestServer::start_behind(Preface::Custom(Chain(opens_doubling)), settings(), echo);
    let mut peer = enter(&server, &sealed(b"{\"a\":1}"));
    peer.expect([taken("{\"a\":1}")]);
    expect_bytes(&mut peer.socket, &sealed(b"{\"a\":1}"));
    // Two frames in three records, in pieces; the last one is longer than what one read takes.
    let long = format!("{{\"b\":\"{}\"}}", "y".repeat(50_000));
    let wire: Vec<u8> =
        [&b"{\"c\""[..], b":2}{\"b", &long.as_bytes()[3..]].iter().flat_map(|part| sealed(part)).collect();
    for piece in wire.chunks(7001) {
        peer.socket.write_all(piece).expect("the server reads");
    }
    peer.expect([taken("{\"c\":2}"), taken(&long)]);
    let mut received = Vec::new();
    let mut answered = Vec::new();
    while answered.len() < "{\"c\":2}".len() + long.len() {
        let mut buffer = [0; 4096];
        let count = peer.socket.read(&mut buffer).expect("the server answers");
        received.extend_from_slice(&buffer[..count]);
        while let Some((payload, len)) = record(&received) {
            answered.extend(payload);
            received.drain(..len);
        }
    }
    assert!(answered == ["{\"c\":2}", &long].concat().into_bytes());
}

#[test]
fn exactly_the_frames_that_no_whole_record_has_brought_come_back() {
    let server = TestServer::start_behind(Preface::Custom(Chain(opens_doubling)), settings(), ignore);
    let frames = |n: usize| format!("{{\"n\":{n},\"x\":\"{}\"}}", "z".repeat(30_000));
    let (mut peer, sent) = fill(&server, frames);
    // Reads some, so that more than the first record is acknowledged, and leaves the rest.
    let mut received = vec![0; 300_000];
    peer.socket.read_exact(&mut received).expect("that much was sent");
    // Bytes that the kernel of the client has acknowledged are in its buffer or were read. The
    // server learns of them from its own kernel.
    wait_until(|| peer.link.undelivered_bytes() < sent * 30_000);
    let (link, seen) = peer.reset();
    wait_closed(&seen);
    let back = come_back(&server, &link);
    let mut arrived = Vec::new();
    let mut rest = &received[..];
    while let Some((payload, len)) = record(rest) {
        arrived.extend(payload);
        rest = &rest[len..];
    }
    let whole = String::from_utf8(arrived).expect("text").matches('}').count();
    assert!(whole > 2, "several frames were read");
    assert!(back.len() < sent, "those do not come back");
    assert!(sent - back.len() >= whole, "what was read has arrived: {whole} of {sent}, {} came back", back.len());
    let expected: Vec<String> = (sent - back.len()..sent).map(frames).collect();
    assert!(back == expected, "the last ones, whole and in order");
}

/// Sends frames, from this thread, until a socket that nobody reads has taken what it takes; how
/// many it took.
fn fill(server: &TestServer, frame: impl Fn(usize) -> String) -> (Peer, usize) {
    let peer = enter(server, b"");
    let mut sent = 0;
    loop {
        let outcome: Result<(), Refused> = peer.send(&frame(sent), Fate::Return(Label::of(1)));
        if outcome.is_err() {
            return (peer, sent);
        }
        sent += 1;
    }
}

fn wait_closed(seen: &std::sync::mpsc::Receiver<Seen>) {
    while !matches!(seen.recv_timeout(PATIENCE).expect("it closes"), Seen::Closed(_)) {}
}

/// All that comes back of a connection that is closed: behind the second of two letters, the turn
/// that closed it is over.
fn come_back(server: &TestServer, link: &Arc<Link<Note>>) -> Vec<String> {
    let mut back = Vec::new();
    for text in ["one", "two"] {
        link.post(Note::Text(text.into()));
        while let Astray::Unsent(_, frame) = server.astray() {
            back.push(frame);
        }
    }
    back
}
