//! [`Wire`]: a port of this machine that forwards connections to a server, and its faults: a reset
//! in the middle of a frame, a stall, another server for the next connection. It can also turn the
//! lines of a client into messages of a WebSocket, and back.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Scope};
use std::time::Duration;

use socket2::SockRef;

/// The layer that carries the frames between the wire and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Bytes,
    WebSocket,
}

/// See the [module](self). Its threads end when it is dropped.
pub struct Wire {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    is_stalled: AtomicBool,
    /// The number of resets so far. Connections from before the last reset are over.
    resets: AtomicUsize,
    connections: AtomicUsize,
}

impl Wire {
    /// Opens a wire on a free port. `dial` connects to the server, once for each connection.
    pub fn open<'scope>(
        scope: &'scope Scope<'scope, '_>,
        carrier: Carrier,
        dial: impl Fn() -> io::Result<TcpStream> + Send + 'scope,
    ) -> Wire {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
        let wire = Wire { address, shared: shared.clone() };
        scope.spawn(move || {
            for near in listener.incoming() {
                if shared.stop.load(Ordering::Relaxed) {
                    return;
                }
                let passed = near.and_then(|near| Ok((near, carrier.begin(dial()?)?)));
                // If the server cannot be reached, the client's connection is closed.
                let Ok((near, far)) = passed else { continue };
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let resets = shared.resets.load(Ordering::Relaxed);
                let line = Arc::new(Line { near, far, shared: shared.clone(), resets });
                let (up, down) = (line.clone(), line);
                let (mut out, mut back) = (Vec::new(), Vec::new());
                scope.spawn(move || up.pass(&up.near, &up.far, |bytes| carrier.wrap(&mut out, bytes)));
                scope.spawn(move || down.pass(&down.far, &down.near, |bytes| carrier.unwrap(&mut back, bytes)));
            }
        });
        wire
    }

    /// Resets every connection.
    pub fn reset(&self) {
        self.shared.resets.fetch_add(1, Ordering::Relaxed);
    }

    /// Stops forwarding in both directions, or resumes it.
    pub fn stall(&self, is_stalled: bool) {
        self.shared.is_stalled.store(is_stalled, Ordering::Relaxed);
    }

    /// The number of connections that reached a server.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.reset();
        // This connection wakes the accepting thread, which then sees the flag.
        let _ = TcpStream::connect(self.address);
    }
}

/// One connection.
struct Line {
    near: TcpStream,
    far: TcpStream,
    shared: Arc<Shared>,
    resets: usize,
}

impl Line {
    fn is_reset(&self) -> bool {
        self.shared.resets.load(Ordering::Relaxed) != self.resets
    }

    /// Forwards bytes until either end has closed or the connection is reset.
    fn pass(&self, from: &TcpStream, to: &TcpStream, mut translate: impl FnMut(&[u8]) -> Option<Vec<u8>>) {
        let _ = from.set_read_timeout(Some(LOOK)).and_then(|()| to.set_write_timeout(Some(LOOK)));
        let mut buffer = [0; 16 * 1024];
        while !self.is_reset() {
            if self.shared.is_stalled.load(Ordering::Relaxed) {
                thread::sleep(LOOK);
                continue;
            }
            match (&*from).read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    let Some(bytes) = translate(&buffer[..count]) else { break };
                    if self.write(to, &bytes).is_err() {
                        break;
                    }
                }
                Err(error) if is_late(&error) => (),
                Err(_) => break,
            }
        }
        if self.is_reset() {
            // The kernel sends the reset when both directions have closed their sockets.
            let _ = SockRef::from(&self.far).set_linger(Some(Duration::ZERO));
        } else {
            let _ = self.near.shutdown(Shutdown::Both);
            let _ = self.far.shutdown(Shutdown::Both);
        }
    }

    fn write(&self, mut to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match to.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_late(&error) && !self.is_reset() => (),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Carrier {
    /// Prepares a new connection to a server for this carrier.
    fn begin(self, mut far: TcpStream) -> io::Result<TcpStream> {
        if self == Carrier::Bytes {
            return Ok(far);
        }
        far.set_read_timeout(Some(UPGRADE_WITHIN))?;
        let ask = "GET /ws HTTP/1.1\r\nHost: chaos\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        far.write_all(ask.as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            far.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let is_open = head.starts_with(b"HTTP/1.1 101 ");
        is_open.then_some(far).ok_or_else(|| io::Error::other(String::from_utf8_lossy(&head).into_owned()))
    }

    /// Bytes of the client in the form that the server gets; `rest` holds the beginning of an
    /// unfinished line.
    fn wrap(self, rest: &mut Vec<u8>, bytes: &[u8]) -> Option<Vec<u8>> {
        if self == Carrier::Bytes {
            return Some(bytes.to_vec());
        }
        let mut out = Vec::new();
        rest.extend_from_slice(bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).take(end).collect();
            out.push(0x81);
            match line.len() {
                len @ 0..126 => out.push(0x80 | len as u8),
                len @ 126..0x1_0000 => out.extend([&[0x80 | 126], &(len as u16).to_be_bytes()[..]].concat()),
                len => out.extend([&[0x80 | 127], &(len as u64).to_be_bytes()[..]].concat()),
            }
            // A mask of zeros changes nothing.
            out.extend([0; 4]);
            out.extend(line);
        }
        Some(out)
    }

    /// Bytes of the server in the form that the client gets; `None` at the end of a WebSocket.
    fn unwrap(self, rest: &mut Vec<u8>, bytes: &[u8]) -> Option<Vec<u8>> {
        if self == Carrier::Bytes {
            return Some(bytes.to_vec());
        }
        let mut out = Vec::new();
        rest.extend_from_slice(bytes);
        while let Some((kind, body)) = first_frame(rest) {
            if kind != 0x81 {
                return None;
            }
            out.extend_from_slice(&rest[body.clone()]);
            out.push(b'\n');
            rest.drain(..body.end);
        }
        Some(out)
    }
}

/// The first byte of a server's first whole frame, and the range of its payload.
fn first_frame(bytes: &[u8]) -> Option<(u8, std::ops::Range<usize>)> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
    let (start, len) = match bytes.get(1)? {
        126 => (4, number(bytes.get(2..4)?)),
        127 => (10, number(bytes.get(2..10)?)),
        len => (2, usize::from(*len)),
    };
    (bytes.len() >= start + len).then(|| (bytes[0], start..start + len))
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// How often each direction checks for a reset.
const LOOK: Duration = Duration::from_millis(50);

const UPGRADE_WITHIN: Duration = Duration::from_secs(3);

mod tests {
    use super::*;

    #[test]
    fn lines_become_messages_and_messages_lines_however_they_are_cut() {
        let (mut out, mut wrapped) = (Vec::new(), Vec::new());
        for bytes in [&b"{\"a\""[..], b":1}\n{}", b"\n"] {
            wrapped.extend(Carrier::WebSocket.wrap(&mut out, bytes).expect("it goes on"));
        }
        assert_eq!(wrapped, b"\x81\x87\0\0\0\0{\"a\":1}\x81\x82\0\0\0\0{}");
        let long = [&[0x81, 126, 1, 0][..], &[b'x'; 256], &[0x81, 2, b'{', b'}', 0x88, 0]].concat();
        let (mut back, mut lines) = (Vec::new(), Vec::new());
        let cut = long.len() - 2;
        for byte in &long[..cut] {
            lines.extend(Carrier::WebSocket.unwrap(&mut back, &[*byte]).expect("it goes on"));
        }
        assert_eq!(lines, [&[b'x'; 256][..], b"\n{}\n"].concat());
        assert_eq!(Carrier::WebSocket.unwrap(&mut back, &long[cut..]), None, "closed");
    }
}
