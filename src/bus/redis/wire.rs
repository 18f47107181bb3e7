//! [`RedisWire`]: one connection to Redis that never blocks.
//!
//! The bus reads published messages and writes commands that need no answer, both from one thread
//! that must not wait for either; a client library's connection would block. The library packs
//! commands. Replies are parsed here: the few kinds of RESP2 reply that such commands have.
//!
//! ```text
//! *3\r\n $7\r\nmessage\r\n $10\r\nraybox:u:7\r\n $5\r\nhello\r\n      a push
//! *3\r\n $9\r\nsubscribe\r\n $10\r\nraybox:u:7\r\n :1\r\n             the answer to SUBSCRIBE, one for each channel
//! *2\r\n $4\r\npong\r\n $0\r\n\r\n                                         the answer to PING while subscribed
//! :1\r\n    +OK\r\n    -ERR …\r\n    $-1\r\n                          other answers
//! ```
//! In a Redis Cluster the words are `smessage`, `ssubscribe` and `sunsubscribe`.
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};

use memchr::memchr;

/// A reply or message from Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RedisReply<'b> {
    /// A published message.
    Message { channel: &'b [u8], payload: &'b [u8] },
    /// Messages of this channel arrive from now on.
    Subscribed(&'b [u8]),
    /// Messages of this channel no longer arrive.
    Unsubscribed(&'b [u8]),
    /// A number, a text, or nothing: an answer that is not used.
    Done,
    /// A command was refused.
    Error(&'b [u8]),
}

impl RedisReply<'_> {
    /// Takes one refusal for an answer like any other: while a Redis cannot save its data to the
    /// disk, it refuses writes and `PING`, but still delivers messages.
    pub(super) fn accept_misconf(self) -> Self {
        match self {
            RedisReply::Error(text) if text.starts_with(b"MISCONF ") => RedisReply::Done,
            other => other,
        }
    }
}

/// Bytes that a Redis never sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server there is not a Redis")
    }
}

/// A connection, its received and unparsed bytes, and its unwritten ones.
pub(super) struct RedisWire<S> {
    stream: S,
    /// The input buffer. Its bytes behind the received ones are room for more, and are not cleared
    /// again for every read.
    input: Vec<u8>,
    read: usize,
    /// The position in `input` at which the next reply begins.
    looked_at: usize,
    output: Vec<u8>,
    written: usize,
    /// Commands minus answers; for a connection that does not subscribe, the commands that wait for
    /// an answer.
    unanswered: i64,
}

impl<S: Read + Write> RedisWire<S> {
    pub(super) fn new(stream: S) -> RedisWire<S> {
        RedisWire { stream, input: Vec::new(), read: 0, looked_at: 0, output: Vec::new(), written: 0, unanswered: 0 }
    }

    pub(super) fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Whether every command has been answered; not for a connection that subscribes.
    pub(super) fn is_answered(&self) -> bool {
        self.unanswered == 0
    }

    /// Adds a packed command, to be written by [`RedisWire::flush`].
    pub(super) fn push(&mut self, packed: &[u8]) {
        self.unanswered += 1;
        self.output.extend_from_slice(packed);
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.output.shrink_to(BUFFER_KEPT);
        self.written = 0;
        // A TLS session may hold bytes that the socket did not take.
        match self.stream.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads what has arrived, up to a budget; false if there is nothing more.
    ///
    /// # Errors
    ///
    /// If the connection is broken or was closed.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        let before = self.read - self.looked_at;
        loop {
            let read = self.read - self.looked_at - before;
            match self.fill_once() {
                Ok(true) if read < READ_BUDGET => {}
                // Bytes before the end are handled first; the end will be reported again.
                Err(_) if read > 0 => return Ok(true),
                result => return result,
            }
        }
    }

    /// Reads once; false if there was nothing.
    ///
    /// # Errors
    /// As for [`RedisWire::fill`].
    pub(super) fn fill_once(&mut self) -> io::Result<bool> {
        self.input.copy_within(self.looked_at..self.read, 0);
        self.read -= self.looked_at;
        self.looked_at = 0;
        if self.input.len() < self.read + READ_BYTES {
            self.input.resize(self.read + READ_BYTES, 0);
        }
        let result = self.stream.read(&mut self.input[self.read..]);
        self.read += *result.as_ref().unwrap_or(&0);
        match result {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if self.read < BUFFER_KEPT && self.input.len() > INPUT_KEPT {
                    self.input.truncate(INPUT_KEPT);
                    self.input.shrink_to_fit();
                }
                Ok(false)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether a complete reply is there.
    ///
    /// # Errors
    /// As for [`RedisWire::next`].
    pub(super) fn has_next(&self) -> Result<bool, Malformed> {
        Ok(parse(&self.input[self.looked_at..self.read])?.is_some())
    }

    /// Returns the next complete reply.
    ///
    /// # Errors
    ///
    /// [`Malformed`]; the connection can no longer be used.
    pub(super) fn next(&mut self) -> Result<Option<RedisReply<'_>>, Malformed> {
        let Some((reply, length)) = parse(&self.input[self.looked_at..self.read])? else { return Ok(None) };
        let reply = reply.accept_misconf();
        self.looked_at += length;
        if matches!(reply, RedisReply::Done | RedisReply::Error(_)) {
            self.unanswered -= 1;
        }
        Ok(Some(reply))
    }
}

impl<S> fmt::Debug for RedisWire<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("received", &self.read).field("to_write", &self.output.len()).finish()
    }
}

/// Parses one reply from the front of `bytes`, and its length; `None` if it is incomplete.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(RedisReply<'_>, usize)>, Malformed> {
    let mut rest = WireCursor { bytes, at: 0 };
    let reply = match rest.element()? {
        None => return Ok(None),
        Some(WireElement::Array(3)) => {
            // Elements are parsed in order, because the rest of an incomplete one would be taken
            // for another.
            let Some(kind) = rest.element()? else { return Ok(None) };
            let Some(channel) = rest.element()? else { return Ok(None) };
            let Some(last) = rest.element()? else { return Ok(None) };
            match (kind, channel, last) {
                (
                    WireElement::Bytes(b"message" | b"smessage"),
                    WireElement::Bytes(channel),
                    WireElement::Bytes(payload),
                ) => RedisReply::Message { channel, payload },
                (
                    WireElement::Bytes(b"subscribe" | b"ssubscribe"),
                    WireElement::Bytes(channel),
                    WireElement::Number,
                ) => RedisReply::Subscribed(channel),
                (
                    WireElement::Bytes(b"unsubscribe" | b"sunsubscribe"),
                    WireElement::Bytes(channel),
                    WireElement::Number,
                ) => RedisReply::Unsubscribed(channel),
                // Everything was to be unsubscribed, and nothing was subscribed.
                (WireElement::Bytes(b"unsubscribe" | b"sunsubscribe"), WireElement::Nil, WireElement::Number) => {
                    RedisReply::Unsubscribed(b"")
                }
                _ => return Err(Malformed),
            }
        }
        Some(WireElement::Array(2)) => {
            let Some(kind) = rest.element()? else { return Ok(None) };
            let Some(text) = rest.element()? else { return Ok(None) };
            match (kind, text) {
                (WireElement::Bytes(b"pong"), WireElement::Bytes(_)) => RedisReply::Done,
                _ => return Err(Malformed),
            }
        }
        Some(WireElement::Array(_)) => return Err(Malformed),
        Some(WireElement::Error(text)) => RedisReply::Error(text),
        Some(WireElement::Bytes(_) | WireElement::Number | WireElement::Nil) => RedisReply::Done,
    };
    Ok(Some((reply, rest.at)))
}

enum WireElement<'b> {
    Bytes(&'b [u8]),
    Error(&'b [u8]),
    Number,
    Nil,
    Array(usize),
}

struct WireCursor<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> WireCursor<'b> {
    /// Parses one element; of an array only its head. `None` if it is incomplete.
    fn element(&mut self) -> Result<Option<WireElement<'b>>, Malformed> {
        let Some(line) = self.line()? else { return Ok(None) };
        let Some((&kind, text)) = line.split_first() else { return Err(Malformed) };
        Ok(match kind {
            b'+' => Some(WireElement::Bytes(text)),
            b'-' => Some(WireElement::Error(text)),
            b':' => Some(WireElement::Number),
            b'$' | b'*' if text == b"-1" => Some(WireElement::Nil),
            b'$' => self.bulk(length(text)?)?.map(WireElement::Bytes),
            b'*' => Some(WireElement::Array(length(text)?)),
            _ => return Err(Malformed),
        })
    }

    fn line(&mut self) -> Result<Option<&'b [u8]>, Malformed> {
        let rest = &self.bytes[self.at..];
        match memchr(b'\n', rest) {
            Some(end) if end > 0 && rest[end - 1] == b'\r' => {
                self.at += end + 1;
                Ok(Some(&rest[..end - 1]))
            }
            None if rest.len() < LINE_BYTES_MAX => Ok(None),
            Some(_) | None => Err(Malformed),
        }
    }

    fn bulk(&mut self, length: usize) -> Result<Option<&'b [u8]>, Malformed> {
        let rest = &self.bytes[self.at..];
        if rest.len() < length + 2 {
            return Ok(None);
        }
        if &rest[length..length + 2] != b"\r\n" {
            return Err(Malformed);
        }
        self.at += length + 2;
        Ok(Some(&rest[..length]))
    }
}

fn length(digits: &[u8]) -> Result<usize, Malformed> {
    let length = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(Malformed)?;
    if length <= BULK_BYTES_MAX { Ok(length) } else { Err(Malformed) }
}

/// The bytes that are read before any are parsed, and the bytes of one read.
const READ_BUDGET: usize = 256 * 1024;
const READ_BYTES: usize = 64 * 1024;
/// The output buffer that an idle connection keeps.
const BUFFER_KEPT: usize = 64 * 1024;
/// The input buffer that an idle connection keeps; under load it holds several reads.
const INPUT_KEPT: usize = 512 * 1024;
/// The longest line: Redis sends no line longer than an error message, and no text longer than 512
/// MB (`proto-max-bulk-len`).
const LINE_BYTES_MAX: usize = 64 * 1024;
const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// Returns its bytes piece by piece, and takes one byte less than it is offered.
    #[derive(Default)]
    struct Pieces {
        input: VecDeque<Vec<u8>>,
        output: Vec<u8>,
        blocks: bool,
    }

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(piece) = self.input.pop_front() else { return Err(ErrorKind::WouldBlock.into()) };
            buffer[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        }
    }

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.blocks = !self.blocks;
            if self.blocks {
                return Err(ErrorKind::WouldBlock.into());
            }
            let count = bytes.len().div_ceil(2);
            self.output.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const ALL: &[u8] = b"*3\r\n$9\r\nsubscribe\r\n$3\r\na:7\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$3\r\na:7\r\n$6\r\nx\r\n*y\n\r\n\
        *3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n:12\r\n+OK\r\n-ERR no\r\n$-1\r\n*3\r\n$7\r\nmessage\r\n$1\r\nb\r\n$0\r\n\r\n";

    fn replies(wire: &mut RedisWire<Pieces>) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(reply) = wire.next().expect("well formed") {
            seen.push(format!("{reply:?}"));
        }
        seen
    }

    #[test]
    fn replies_are_read_as_they_are_meant() {
        let (mut rest, mut seen) = (ALL, Vec::new());
        while let Some((reply, length)) = parse(rest).expect("well formed") {
            seen.push(reply);
            rest = &rest[length..];
        }
        assert_eq!(rest, b"");
        let expected = [
            RedisReply::Subscribed(b"a:7"),
            RedisReply::Message { channel: b"a:7", payload: b"x\r\n*y\n" },
            RedisReply::Unsubscribed(b"a"),
            RedisReply::Done,
            RedisReply::Done,
            RedisReply::Error(b"ERR no"),
            RedisReply::Done,
            RedisReply::Message { channel: b"b", payload: b"" },
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn replies_of_a_redis_cluster_mean_the_same() {
        for (bytes, expected) in [
            (&b"*3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n"[..], RedisReply::Subscribed(b"a")),
            (b"*3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$1\r\nx\r\n", RedisReply::Message { channel: b"a", payload: b"x" }),
            (b"*3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n", RedisReply::Unsubscribed(b"a")),
            (b"*3\r\n$12\r\nsunsubscribe\r\n$-1\r\n:0\r\n", RedisReply::Unsubscribed(b"")),
            (b"*2\r\n$4\r\npong\r\n$0\r\n\r\n", RedisReply::Done),
        ] {
            assert_eq!(parse(bytes), Ok(Some((expected, bytes.len()))), "{}", bytes.escape_ascii());
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Ok(None), "{end} bytes");
            }
        }
    }

    #[test]
    fn bytes_that_no_redis_sends_are_refused() {
        for bytes in [
            &b"hello\r\n"[..],
            b"\r\n",
            b"+OK\n",
            b"$x\r\n",
            b"$-2\r\n",
            b"$3\r\nabcd\r\n",
            b"*2\r\n:1\r\n:2\r\n",
            b"*4\r\n",
            b"*3\r\n:1\r\n:2\r\n:3\r\n",
            b"$99999999999999999999\r\n",
        ] {
            assert_eq!(parse(bytes), Err(Malformed), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn bytes_within_an_incomplete_element_are_not_taken_for_the_next() {
        let whole = b"*3\r\n$7\r\nmessage\r\n$6\r\na\r\nb\r\n\r\n$1\r\nx\r\n";
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), Ok(None), "{end} bytes");
        }
        let message = RedisReply::Message { channel: b"a\r\nb\r\n", payload: b"x" };
        assert_eq!(parse(whole), Ok(Some((message, whole.len()))));
    }

    #[test]
    fn bytes_that_the_socket_does_not_take_are_written_later() {
        let mut wire = RedisWire::new(Pieces::default());
        wire.push(b"PUBLISH");
        wire.push(b" x");
        let mut rounds = 0;
        while !wire.output.is_empty() {
            wire.flush().expect("not broken");
            rounds += 1;
            assert!(rounds < 20);
        }
        assert_eq!(wire.stream.output, b"PUBLISH x");
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(cuts in prop::collection::vec(0..ALL.len(), 0..12)) {
            let mut whole = RedisWire::new(Pieces { input: [ALL.to_vec()].into(), ..Pieces::default() });
            whole.fill().expect("not broken");
            let expected = replies(&mut whole);
            prop_assert_eq!(expected.len(), 8);
            let mut cuts = cuts;
            cuts.extend([0, ALL.len()]);
            cuts.sort_unstable();
            cuts.dedup();
            let mut wire = RedisWire::new(Pieces::default());
            let mut seen = Vec::new();
            for piece in cuts.windows(2) {
                wire.stream.input.push_back(ALL[piece[0]..piece[1]].to_vec());
                prop_assert!(!wire.fill().expect("not broken"));
                seen.extend(replies(&mut wire));
            }
            prop_assert_eq!(seen, expected);
        }
    }
}
