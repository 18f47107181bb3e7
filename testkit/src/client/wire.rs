//! [`Wire`]: the bytes of one connection, and the frames among them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, Stream};

/// A connection, with TLS or without, and the bytes that have arrived on it. It cuts the replies
/// out of the byte stream, so segments may end anywhere.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    pub(super) tls: Option<Box<ClientConnection>>,
    pub(super) received: Vec<u8>,
    /// Whether the end of the connection has been read.
    pub(super) eof: bool,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, tls: Option<Box<ClientConnection>>) -> Wire {
        Wire { stream, tls, received: Vec::new(), eof: false }
    }

    /// Writes everything; false if the connection ended before it took all.
    pub(super) fn write(&mut self, bytes: &[u8], patience: Duration) -> bool {
        self.stream.set_write_timeout(Some(patience)).expect("set the write timeout");
        match &mut self.tls {
            Some(tls) => Stream::new(&mut **tls, &mut self.stream).write_all(bytes).is_ok(),
            None => self.stream.write_all(bytes).is_ok(),
        }
    }

    /// The text of the next frame, or `None` as
    /// [`TestClient::recv_within`](super::TestClient::recv_within).
    pub(super) fn next_text(&mut self, patience: Duration) -> Option<String> {
        let deadline = Instant::now() + patience;
        // A long frame arrives in pieces. Each search goes on where the previous one stopped.
        let mut cutter = Cutter::default();
        loop {
            if let Some(frame) = cutter.cut(&mut self.received) {
                return Some(String::from_utf8(frame).expect("a reply is UTF-8"));
            }
            if !self.fill(deadline) {
                return None;
            }
        }
    }

    /// Reads once; false if nothing arrived before `deadline` or the connection ended.
    pub(super) fn fill(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        if self.eof {
            return false;
        }
        self.stream.set_read_timeout(Some(left)).expect("set the read timeout");
        let mut bytes = [0; 64 * 1024];
        loop {
            let read = match &mut self.tls {
                Some(tls) => Stream::new(&mut **tls, &mut self.stream).read(&mut bytes),
                None => self.stream.read(&mut bytes),
            };
            match read {
                Ok(0) => {
                    self.eof = true;
                    return false;
                }
                Ok(count) => {
                    self.received.extend_from_slice(&bytes[..count]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
                Err(error) if is_end(error.kind()) => {
                    self.eof = true;
                    return false;
                }
                Err(error) => panic!("read from the server: {error}"),
            }
        }
    }

    /// Describes, for an error, bytes that are not a whole frame.
    pub(super) fn leftover(&self) -> String {
        if self.received.is_empty() {
            return String::new();
        }
        let shown = &self.received[..self.received.len().min(300)];
        format!("; left over are {} bytes: {:?}", self.received.len(), String::from_utf8_lossy(shown))
    }
}

/// Whether this error means that the connection has ended.
fn is_end(error: ErrorKind) -> bool {
    matches!(
        error,
        ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
    )
}

/// Finds the end of the first JSON object in a growing buffer.
#[derive(Default)]
struct Cutter {
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Cutter {
    fn cut(&mut self, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
        if self.seen == 0 {
            let blanks = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            buffer.drain(..blanks);
            if let Some(first) = buffer.first() {
                assert_eq!(*first, b'{', "a reply must be an object: {:?}", String::from_utf8_lossy(buffer));
            }
        }
        while let Some(byte) = buffer.get(self.seen) {
            self.seen += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(buffer.drain(..self.seen).collect());
                    }
                }
                _ => (),
            }
        }
        None
    }
}
