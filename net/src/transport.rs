//! [`Transport`]: the layer between the frames of a connection and its socket.
//!
//! Most connections have no such layer: bytes go to the socket as they are. A transport that
//! encodes them, TLS, makes *records*, whose length on the wire differs from that of their payload.
//! The kernel counts bytes on the wire, but frames that a dead connection returns are counted in
//! payload. A [`Ledger`](ledger::Ledger) converts one to the other. Tickets and alerts of TLS are
//! records without payload.
//!
//! ```text
//!   payload    │  record  │   record   │ record │ not taken yet
//!   wire       │   record    │     record     │   record   │
//!                acknowledged ↑     ↑ the socket has taken these; what follows is kept *ahead*
//! ```
//!
//! A transport belongs to the locked side of a link, because any thread writes. Payload counts as
//! written as soon as it is in a record, like a frame of which the socket has taken a part. At most
//! one record is kept ahead. A record counts as arrived only when all of it has arrived: a
//! duplicate frame does less harm than a lost one.
//!
//! For a plain socket the ledger is the identity. It is not kept, nothing is compared, and the loop
//! reads without the lock.
//!
//! # How a connection comes to speak TLS
//!
//! The first byte decides, when it arrives. The connection is open by then. It counts as one that
//! is not logged in, with the limits and timeouts of those, and is turned away like them, so a
//! silent handshake needs no rules of its own. The first message of the handshake stays in the
//! kernel until it is complete and its turn comes, among those of all connections of the loop.
//! Payload that is sent during the handshake waits, as for a full socket.

use std::io;

use crate::socket::Socket;
use crate::tls::TlsSession;

mod borders;
mod encrypted;
mod ledger;
mod plain;
#[cfg(feature = "simulation")]
mod records;
mod wire;

use encrypted::Encrypted;

pub(crate) use plain::{Got, read_plain};
#[cfg(feature = "simulation")]
pub use records::CustomTransport;
#[cfg(feature = "simulation")]
use records::Records;

#[derive(Debug)]
pub(crate) enum Transport {
    /// Bytes go to the socket as they are.
    Plain,
    /// TLS.
    Encrypted(Box<Encrypted>),
    #[cfg(feature = "simulation")]
    Custom(Box<Records>),
}

impl Transport {
    #[cfg(feature = "simulation")]
    pub(crate) fn custom(custom: Box<dyn CustomTransport>) -> Transport {
        Transport::Custom(Box::new(Records::new(custom)))
    }

    pub(crate) fn encrypted(session: TlsSession) -> Transport {
        Transport::Encrypted(Box::new(Encrypted::new(session)))
    }

    /// Whether bytes are read from the socket as they are.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Transport::Plain)
    }

    /// Writes payload, and returns the number of bytes taken.
    #[inline]
    pub(crate) fn write(&mut self, socket: &Socket, payload: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain => socket.write(payload),
            Transport::Encrypted(tls) => tls.write(socket, payload),
            #[cfg(feature = "simulation")]
            Transport::Custom(records) => records.write(socket, payload),
        }
    }

    /// Writes the bytes that are kept ahead. Would block until all of them are written.
    #[inline]
    pub(crate) fn flush(&mut self, socket: &Socket) -> io::Result<()> {
        match self {
            Transport::Plain => {
                let _ = socket;
                Ok(())
            }
            Transport::Encrypted(tls) => tls.flush(socket),
            #[cfg(feature = "simulation")]
            Transport::Custom(records) => records.flush(socket),
        }
    }

    /// The number of bytes kept ahead: their payload was taken, and the socket has not taken them.
    #[inline]
    pub(crate) fn ahead(&self) -> usize {
        match self {
            Transport::Plain => 0,
            Transport::Encrypted(tls) => tls.ahead(),
            #[cfg(feature = "simulation")]
            Transport::Custom(records) => records.ahead(),
        }
    }

    /// The number of payload bytes that were taken and that the peer's kernel has not acknowledged;
    /// `usize::MAX` if nothing is known. `is_shut`: our side of the socket was shut down.
    pub(crate) fn unacknowledged(&mut self, socket: &Socket, is_shut: bool) -> usize {
        match self {
            Transport::Plain => socket.unacknowledged(is_shut).unwrap_or(usize::MAX),
            Transport::Encrypted(tls) => tls.unacknowledged(socket, is_shut),
            #[cfg(feature = "simulation")]
            Transport::Custom(records) => records.unacknowledged(socket, is_shut),
        }
    }

    /// Reads payload.
    pub(crate) fn read(&mut self, socket: &Socket, buffer: &mut [u8]) -> io::Result<Got> {
        match self {
            Transport::Plain => read_plain(socket, buffer),
            Transport::Encrypted(tls) => tls.read(socket, buffer),
            #[cfg(feature = "simulation")]
            Transport::Custom(records) => records.read(socket, buffer),
        }
    }

    /// Whether no payload can be written yet.
    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self, Transport::Encrypted(tls) if tls.is_handshaking())
    }

    /// Takes the work for the loop since the last call, apart from that of the payload.
    pub(crate) fn take_work(&mut self) -> usize {
        if let Transport::Encrypted(tls) = self { tls.take_work() } else { 0 }
    }

    /// The bytes of memory for input that is not payload yet.
    pub(crate) fn held(&self) -> usize {
        if let Transport::Encrypted(tls) = self { tls.held() } else { 0 }
    }

    /// Sends the peer the end of the stream, as far as the socket has room.
    pub(crate) fn end(&mut self, socket: &Socket) {
        if let Transport::Encrypted(tls) = self {
            tls.end(socket);
        }
    }
}

#[cfg(all(test, feature = "simulation"))]
mod tests;
