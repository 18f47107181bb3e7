//! [`Encrypted`]: a transport that speaks TLS.
//!
//! ```text
//!   one buffer of the loop   │ room: ROOM_BYTES │ ciphertext that one read has brought   │
//!                            │ payload ──▶ grows into what was decrypted before it …     │
//! ```
//!
//! Received bytes are decrypted in the buffer of the loop, so a connection holds nothing but an
//! incomplete record. The payload never catches up with the ciphertext: a record is longer than its
//! payload, and the room in front holds the payload of the record that had begun before.

use std::io;

use super::borders::Borders;
use super::plain::Got;
use super::wire::Wire;
use crate::socket::Socket;
use crate::tls::{FEED_BYTES, HELLO_BYTES_MAX, Plain, RECORD_BYTES_MAX, TlsSession};

/// The state of a connection that speaks TLS.
#[derive(Debug)]
pub(crate) struct Encrypted {
    session: TlsSession,
    wire: Wire,
    borders: Borders,
    /// The number of bytes that have arrived during the handshake.
    hello_bytes: usize,
    ends: InputEnd,
    /// The work for the loop, apart from that of the payload.
    work: usize,
}

/// Whether the input has ended, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum InputEnd {
    No,
    /// The peer has ended its stream.
    Ended,
    /// The peer has broken the protocol.
    Broken,
}

impl Encrypted {
    pub(super) fn new(session: TlsSession) -> Encrypted {
        Encrypted {
            session,
            wire: Wire::default(),
            borders: Borders::default(),
            hello_bytes: 0,
            ends: InputEnd::No,
            work: 0,
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    pub(super) fn write(&mut self, socket: &Socket, payload: &[u8]) -> io::Result<usize> {
        if self.session.is_handshaking() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.wire.flush(socket)?;
        let Encrypted { session, wire, .. } = self;
        let count = session.seal(payload)?;
        wire.put(socket, count, |sink| session.take_wire(sink))?;
        Ok(count)
    }

    pub(super) fn flush(&mut self, socket: &Socket) -> io::Result<()> {
        self.wire.flush(socket)
    }

    pub(super) fn ahead(&self) -> usize {
        self.wire.ahead()
    }

    pub(super) fn unacknowledged(&mut self, socket: &Socket, is_shut: bool) -> usize {
        self.wire.unacknowledged(socket, is_shut)
    }

    /// Sends the peer the end of the stream, if that is still possible.
    pub(super) fn end(&mut self, socket: &Socket) {
        self.session.end();
        self.send_own(socket);
    }

    /// The bytes of memory for an incomplete record.
    pub(super) fn held(&self) -> usize {
        match self.borders.held() {
            0 => 0,
            held => held + FEED_BYTES,
        }
    }

    /// Takes the work that was done since the last call.
    pub(super) fn take_work(&mut self) -> usize {
        std::mem::take(&mut self.work)
    }

    /// Reads from the socket, decrypts, and answers the records that are for TLS alone.
    pub(super) fn read(&mut self, socket: &Socket, buffer: &mut [u8]) -> io::Result<Got> {
        match self.ends {
            InputEnd::No => {}
            InputEnd::Ended => return Ok(Got::END),
            InputEnd::Broken => return Err(io::ErrorKind::InvalidData.into()),
        }
        loop {
            match socket.read(&mut buffer[ROOM_BYTES..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) => return Ok(Got::END),
                Ok(count) => return self.decrypt(socket, buffer, count),
                Err(error) => return Err(error),
            }
        }
    }

    /// Decrypts the ciphertext in the buffer, and moves its payload to the front.
    fn decrypt(&mut self, socket: &Socket, buffer: &mut [u8], wire: usize) -> io::Result<Got> {
        self.work += wire / WIRE_PER_WORK;
        let is_short = ROOM_BYTES + wire < buffer.len();
        let (mut fed, mut count) = (0, 0);
        while fed < wire && self.ends == InputEnd::No {
            match self.feed(&buffer[ROOM_BYTES + fed..ROOM_BYTES + wire]) {
                Ok(more) => fed += more,
                Err(_) => self.ends = InputEnd::Broken,
            }
            self.send_own(socket);
            // The payload of records before the broken one counts.
            count += self.take_payload(&mut buffer[count..ROOM_BYTES + fed]);
            // No event would report payload that stays in the session.
            debug_assert!(count < ROOM_BYTES + fed, "all payload is taken");
        }
        match (self.ends, count) {
            (InputEnd::Broken, 0) => Err(io::ErrorKind::InvalidData.into()),
            (InputEnd::Ended, 0) => Ok(Got::END),
            // The socket reports nothing about an end that the session has found.
            (ends, _) => Ok(Got { count, wire, is_short: is_short && ends == InputEnd::No }),
        }
    }

    /// Feeds the session the bytes at the front, up to its limit.
    fn feed(&mut self, wire: &[u8]) -> io::Result<usize> {
        let was_handshaking = self.session.is_handshaking();
        let count = self.session.feed(wire)?;
        self.work += self.borders.pass(&wire[..count]) * RECORD_WORK;
        if was_handshaking {
            self.hello_bytes += count;
            if self.session.is_handshaking() && self.hello_bytes > HELLO_BYTES_MAX {
                log::debug!("a TLS handshake is too long");
                return Err(io::ErrorKind::InvalidData.into());
            }
            if self.session.has_wire() && self.session.is_handshaking() {
                self.work += HANDSHAKE_WORK;
            }
        }
        Ok(count)
    }

    fn take_payload(&mut self, buffer: &mut [u8]) -> usize {
        let mut count = 0;
        while count < buffer.len() {
            match self.session.read(&mut buffer[count..]) {
                Plain::Bytes(more) => count += more,
                Plain::Nothing => break,
                Plain::End => {
                    self.ends = InputEnd::Ended;
                    break;
                }
            }
        }
        count
    }

    /// Sends the session's own records: its part of the handshake, tickets, alerts.
    fn send_own(&mut self, socket: &Socket) {
        let Encrypted { session, wire, .. } = self;
        if session.has_wire() {
            // A sink takes everything.
            let _ = wire.put(socket, 0, |sink| session.take_wire(sink));
        }
    }
}

/// The room for the payload of a record that had begun in an earlier read, and some more.
const ROOM_BYTES: usize = RECORD_BYTES_MAX + FEED_BYTES;
/// The factor by which decrypted bytes cost less than processed ones.
const WIRE_PER_WORK: usize = 4;
/// The cost of a record, apart from its bytes: a client may send records without payload.
const RECORD_WORK: usize = 256;
/// The cost of a handshake, counted like the bytes of frames. A step of a turn has room for eight,
/// or for fewer if they take longer, as RSA does, because the clock is read as well.
const HANDSHAKE_WORK: usize = 64 * 1024;
