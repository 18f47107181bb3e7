//! [`WebSocket`]: the client's side of RFC 6455, for frames that are lines.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::tls::unless_full;

/// Lines on the side of the workload, messages on the side of the socket.
#[derive(Debug)]
pub(crate) struct WebSocket {
    stage: Stage,
    /// Received bytes that are not parsed yet.
    raw: Vec<u8>,
    /// Received lines; the first `read` bytes of them have been taken.
    lines: Vec<u8>,
    read: usize,
    /// Bytes that the socket has not taken yet.
    out: Vec<u8>,
    /// Messages that wait for the end of the handshake.
    early: Vec<u8>,
    mask: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The request to open the WebSocket is not answered yet.
    Opening,
    Open,
    /// The server has closed it.
    Ended,
}

/// The key and its answer are the example of RFC 6455, 1.3. A measurement needs no random key.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const HEAD_MAX: usize = 16 * 1024;
/// Longer than every message of a server: `max_frame` allows 16 MiB.
const MESSAGE_MAX: u64 = 64 * 1024 * 1024;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
/// The bits of the first byte of a control frame, and of the second byte of a masked frame.
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;

impl WebSocket {
    pub(crate) fn new(host: SocketAddr) -> WebSocket {
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        WebSocket {
            stage: Stage::Opening,
            raw: Vec::new(),
            lines: Vec::new(),
            read: 0,
            out: request.into_bytes(),
            early: Vec::new(),
            mask: 0x9E37_79B9,
        }
    }

    /// Reads lines. Returns `WouldBlock` if the socket does.
    pub(crate) fn read(&mut self, socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        self.flush(socket).or_else(unless_full)?;
        loop {
            if self.read < self.lines.len() {
                let count = buffer.len().min(self.lines.len() - self.read);
                buffer[..count].copy_from_slice(&self.lines[self.read..self.read + count]);
                self.read += count;
                if self.read == self.lines.len() {
                    self.lines.clear();
                    self.read = 0;
                }
                return Ok(count);
            }
            if self.stage == Stage::Ended {
                return Ok(0);
            }
            let count = SCRATCH.with_borrow_mut(|scratch| {
                let count = socket.read(scratch)?;
                self.take_in(&scratch[..count])?;
                io::Result::Ok(count)
            })?;
            if count == 0 {
                return Ok(0);
            }
            self.flush(socket).or_else(unless_full)?;
        }
    }

    /// Takes whole lines, and writes them as far as the socket has room.
    pub(crate) fn write(&mut self, socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
        self.flush(socket)?;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let payload = line.strip_suffix(b"\n").unwrap_or(line);
            self.push(TEXT, payload);
        }
        self.flush(socket).or_else(unless_full)?;
        Ok(bytes.len())
    }

    /// Writes the bytes held back. Returns `WouldBlock` until all of them are written, or until the
    /// server has opened the WebSocket.
    pub(crate) fn flush(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        let mut written = 0;
        let outcome = loop {
            if written == self.out.len() {
                break Ok(());
            }
            match socket.write(&self.out[written..]) {
                Ok(count) => written += count,
                Err(error) => break Err(error),
            }
        };
        self.out.drain(..written);
        outcome
    }

    /// Appends one message, masked as a client's messages must be.
    fn push(&mut self, kind: u8, payload: &[u8]) {
        let out = if self.stage == Stage::Opening { &mut self.early } else { &mut self.out };
        out.push(kind);
        match payload.len() {
            len @ ..126 => out.push(0x80 | len as u8),
            len @ ..0x1_0000 => {
                out.push(0x80 | 126);
                out.extend((len as u16).to_be_bytes());
            }
            len => {
                out.push(0x80 | 127);
                out.extend((len as u64).to_be_bytes());
            }
        }
        // Each message has a new mask (xorshift).
        self.mask ^= self.mask << 13;
        self.mask ^= self.mask >> 17;
        self.mask ^= self.mask << 5;
        let mask = self.mask.to_ne_bytes();
        out.extend(mask);
        let at = out.len();
        out.extend_from_slice(payload);
        let wide = [mask; 2].as_flattened().try_into().map_or(0, u64::from_ne_bytes);
        let (pieces, rest) = out[at..].as_chunks_mut::<8>();
        for piece in pieces {
            *piece = (u64::from_ne_bytes(*piece) ^ wide).to_ne_bytes();
        }
        rest.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    }

    /// Appends received bytes to the unparsed ones, and parses them.
    fn take_in(&mut self, fresh: &[u8]) -> io::Result<()> {
        if self.raw.is_empty() {
            let taken = self.look_at(fresh)?;
            self.raw.extend_from_slice(&fresh[taken..]);
            return Ok(());
        }
        let mut raw = std::mem::take(&mut self.raw);
        raw.extend_from_slice(fresh);
        let taken = self.look_at(&raw)?;
        // Nothing is kept for an idle connection, so it uses no memory.
        if taken < raw.len() {
            raw.drain(..taken);
            self.raw = raw;
        }
        Ok(())
    }

    /// Parses whole messages. Returns their length in bytes.
    fn look_at(&mut self, raw: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        if self.stage == Stage::Opening {
            match memchr::memmem::find(raw, b"\r\n\r\n") {
                Some(end) => {
                    check_answer(&raw[..end])?;
                    at = end + 4;
                    self.stage = Stage::Open;
                    self.out.append(&mut self.early);
                }
                None if raw.len() > HEAD_MAX => return Err(io::Error::other("the answer to GET /ws has no end")),
                None => return Ok(0),
            }
        }
        while self.stage == Stage::Open
            && let Some((kind, payload, end)) = message(&raw[at..])?
        {
            let payload = &raw[at..][payload..end];
            match kind {
                TEXT => {
                    self.lines.extend_from_slice(payload);
                    self.lines.push(b'\n');
                }
                PING => self.push(PONG, payload),
                PONG => {}
                CLOSE => self.stage = Stage::Ended,
                kind => return Err(io::Error::other(format!("a message of a WebSocket begins with {kind:#04x}"))),
            }
            at += end;
        }
        Ok(at)
    }
}

/// The first byte of the message at the front, and the beginning and end of its payload; `None` if
/// it is not whole.
fn message(bytes: &[u8]) -> io::Result<Option<(u8, usize, usize)>> {
    let [kind, len, rest @ ..] = bytes else { return Ok(None) };
    // A server does not mask its messages (RFC 6455, 5.1), and a control frame is short (5.5).
    if len & MASKED != 0 || kind & CONTROL != 0 && *len > 125 {
        return Err(io::Error::other(format!("a message of a WebSocket begins with {kind:#04x} {len:#04x}")));
    }
    let (begin, len): (usize, u64) = match (len, rest) {
        (126, [a, b, ..]) => (4, u16::from_be_bytes([*a, *b]).into()),
        (127, [a, b, c, d, e, f, g, h, ..]) => (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
        (126 | 127, _) => return Ok(None),
        (len, _) => (2, u64::from(*len)),
    };
    if len > MESSAGE_MAX {
        return Err(io::Error::other(format!("a message of a WebSocket has {len} bytes")));
    }
    let end = begin + len as usize;
    Ok((bytes.len() >= end).then_some((*kind, begin, end)))
}

fn check_answer(head: &[u8]) -> io::Result<()> {
    if head.starts_with(b"HTTP/1.1 101 ") && memchr::memmem::find(head, ACCEPT).is_some() {
        return Ok(());
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Err(io::Error::other(format!("GET /ws was answered with {}", line.escape_ascii())))
}

const READ_BYTES: usize = 64 * 1024;

thread_local! {
    /// The buffer for one read of any socket.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that a server would send for these lines become the same lines, wherever the bytes
    /// are cut.
    #[test]
    fn messages_become_lines_wherever_they_are_cut() {
        let long = "x".repeat(70_000);
        let mut sent =
            format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {}\r\n\r\n", ACCEPT.escape_ascii())
                .into_bytes();
        sent.extend([TEXT, 2, b'{', b'}', PING, 1, b'p', TEXT, 126, 0, 200]);
        sent.extend([b'y'; 200]);
        sent.extend([TEXT, 127]);
        sent.extend((long.len() as u64).to_be_bytes());
        sent.extend(long.as_bytes());
        sent.extend([CLOSE, 0]);
        for cut in [1, 7, usize::MAX] {
            let mut socket = WebSocket::new(SocketAddr::from(([127, 0, 0, 1], 1)));
            socket.out.clear();
            socket.push(TEXT, b"early");
            assert!(socket.out.is_empty(), "nothing before the answer");
            for piece in sent.chunks(cut.min(sent.len())) {
                socket.take_in(piece).expect("it is right");
            }
            assert!(socket.lines == format!("{{}}\n{}\n{long}\n", "y".repeat(200)).as_bytes());
            assert_eq!(socket.stage, Stage::Ended);
            let kinds: Vec<u8> = [0, 2 + 4 + 5].map(|at| socket.out[at]).into();
            assert_eq!(kinds, [TEXT, PONG]);
            let (mask, payload) = (&socket.out[2..6], &socket.out[6..11]);
            let plain: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            assert_eq!(plain, b"early");
        }
    }

    /// A frame of a server.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let head = match payload.len() {
            len @ ..126 => vec![first, len as u8],
            len => [&[first, 126][..], &(len as u16).to_be_bytes()].concat(),
        };
        [head, payload.to_vec()].concat()
    }

    /// The lines that a client reads, the first byte of its answer, and whether the connection has
    /// ended. `None` is an error.
    type Reading = Option<(String, Option<u8>, bool)>;

    /// Reads these bytes behind the opening, however they are cut.
    fn read(bytes: &[u8]) -> Reading {
        let mut answers = [bytes.len().max(1), 1].map(|cut| {
            let mut socket = WebSocket::new(SocketAddr::from(([127, 0, 0, 1], 1)));
            (socket.stage, socket.out) = (Stage::Open, Vec::new());
            for piece in bytes.chunks(cut) {
                socket.take_in(piece).ok()?;
            }
            let lines = String::from_utf8_lossy(&socket.lines).into_owned();
            Some((lines, socket.out.first().copied(), socket.stage == Stage::Ended))
        });
        assert_eq!(answers[0], answers[1], "{}", bytes.escape_ascii());
        answers[0].take()
    }

    /// The cases of the Autobahn test suite about frames that this client can get. The server sends
    /// no fragments and no binary messages, so both are errors. UTF-8 (6) is the matter of the
    /// workloads, which parse the lines; the server's sizes (9, 10) are those of section 1.
    #[test]
    fn the_cases_of_the_autobahn_test_suite() {
        let line = |text: &str| Some((format!("{text}\n"), None, false));
        let (quiet, ponged, ended) = (
            Some((String::new(), None, false)),
            Some((String::new(), Some(PONG), false)),
            Some((String::new(), None, true)),
        );
        let long = "*".repeat(65_535);
        let behind = |bad: Vec<u8>| [frame(TEXT, b"{}"), bad].concat();
        let cases: &[(&str, Vec<u8>, Reading)] = &[
            ("1.1.1", frame(TEXT, b""), line("")),
            ("1.1.2", frame(TEXT, &long.as_bytes()[..125]), line(&long[..125])),
            ("1.1.3", frame(TEXT, &long.as_bytes()[..126]), line(&long[..126])),
            ("1.1.4", frame(TEXT, &long.as_bytes()[..127]), line(&long[..127])),
            ("1.1.5", frame(TEXT, &long.as_bytes()[..128]), line(&long[..128])),
            ("1.1.6", frame(TEXT, long.as_bytes()), line(&long)),
            ("1.2.2", frame(0x82, &[0xfe; 125]), None),
            ("2.1", frame(PING, b""), ponged.clone()),
            ("2.3", frame(PING, b"\x00\xff\xfe"), ponged.clone()),
            ("2.4", frame(PING, &[0xfe; 125]), ponged),
            ("2.5", frame(PING, &[0xfe; 126]), None),
            ("2.7", frame(PONG, b""), quiet.clone()),
            ("2.8", frame(PONG, b"unsolicited pong payload"), quiet),
            ("3.1", frame(TEXT | 0x10, b"{}"), None),
            ("3.2", behind(frame(TEXT | 0x20, b"{}")), None),
            ("3.4", behind(frame(TEXT | 0x40, b"{}")), None),
            ("3.6", frame(PING | 0x60, b""), None),
            ("3.7", frame(CLOSE | 0x70, b""), None),
            ("4.1.1", frame(0x83, b""), None),
            ("4.1.5", behind(frame(0x87, b"reserved")), None),
            ("4.2.1", frame(0x8b, b""), None),
            ("4.2.5", behind(frame(0x8f, b"reserved")), None),
            ("5.1", frame(0x09, b"fragment1"), None),
            ("5.3", frame(0x01, b"fragment1"), None),
            ("5.9", frame(0x80, b"non-continuation payload"), None),
            ("5.12", frame(0x00, b"non-continuation payload"), None),
            ("7.1.4", [frame(CLOSE, b""), frame(TEXT, b"{}")].concat(), ended.clone()),
            ("7.3.1", frame(CLOSE, b""), ended.clone()),
            ("7.3.5", frame(CLOSE, &[&b"\x03\xe8"[..], &[b'*'; 123]].concat()), ended),
            ("7.3.6", frame(CLOSE, &[&b"\x03\xe8"[..], &[b'*'; 124]].concat()), None),
            ("masked (RFC 6455, 5.1)", vec![TEXT, MASKED | 2, 0, 0, 0, 0, b'{', b'}'], None),
            ("longer than any message", vec![TEXT, 127, 0x7f, 0, 0, 0, 0, 0, 0, 0], None),
        ];
        for (case, bytes, expected) in cases {
            assert_eq!(&read(bytes), expected, "{case}");
        }
    }

    #[test]
    fn an_answer_that_opens_no_websocket_is_reported() {
        let mut socket = WebSocket::new(SocketAddr::from(([127, 0, 0, 1], 1)));
        let answer = b"HTTP/1.1 404 Not Found\r\n\r\n";
        assert!(socket.take_in(answer).expect_err("a 404").to_string().contains("404 Not Found"));
    }
}
