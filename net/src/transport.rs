//! [`Transport`]: what lies between the frames of a connection and its socket.
//!
//! Today that is nothing: bytes go to the socket as they are. A transport that encodes them, such
//! as TLS, makes *records*, whose length on the wire differs from that of their payload. The kernel
//! counts bytes on the wire, but frames that a dead connection returns are counted in payload. A
//! [`Ledger`] converts one to the other.
//!
//! ```text
//!   payload    │  record  │   record   │ record │ not taken yet
//!   wire       │   record    │     record     │   record   │
//!                acknowledged ↑     ↑ the socket has taken these; what follows is kept *ahead*
//! ```
//!
//! A transport belongs to the locked side of a link, because any thread writes. Payload counts as
//! written as soon as it is in a record, like a frame of which the socket has taken a part. At most
//! one record is kept ahead. A record counts as arrived only when all of it has arrived: a frame
//! that comes twice does less harm than a lost one.
//!
//! For a plain socket the ledger is the identity. It is not kept, nothing is compared, and the loop
//! reads without the lock.

use std::io;

use crate::socket::Socket;

#[cfg(feature = "simulation")]
mod ledger;
mod plain;
#[cfg(feature = "simulation")]
mod records;

pub(crate) use plain::{Got, read_plain};
#[cfg(feature = "simulation")]
pub use records::CustomTransport;
#[cfg(feature = "simulation")]
use records::Records;

#[derive(Debug)]
pub(crate) enum Transport {
    /// Bytes go to the socket as they are.
    Plain,
    #[cfg(feature = "simulation")]
    Custom(Box<Records>),
}

impl Transport {
    #[cfg(feature = "simulation")]
    pub(crate) fn custom(custom: Box<dyn CustomTransport>) -> Transport {
        Transport::Custom(Box::new(Records::new(custom)))
    }

    /// Whether bytes are read from the socket as they are.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Transport::Plain)
    }

    /// Writes payload; how many bytes of it were taken.
    pub(crate) fn write(&mut self, socket: &Socket, payload: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain => socket.write(payload),
            #[cfg(feature = "simulation")]
            Transport::Custom(records) => records.write(socket, payload),
        }
    }

    /// Writes what is kept ahead. It would block until all of it is written.
    pub(crate) fn flush(&mut self, socket: &Socket) -> io::Result<()> {
        match self {
            Transport::Plain => {
                let _ = socket;
                Ok(())
            }
            #[cfg(feature = "simulation")]
            Transport::Custom(records) => records.flush(socket),
        }
    }

    /// Bytes that are kept ahead: their payload was taken, and the socket has not taken them.
    pub(crate) fn ahead(&self) -> usize {
        match self {
            Transport::Plain => 0,
            #[cfg(feature = "simulation")]
            Transport::Custom(records) => records.ahead(),
        }
    }

    /// Bytes of payload that were taken and that the peer's kernel has not acknowledged, as far as
    /// is known: `usize::MAX` if nothing is. `is_shut` says that our side of the socket was shut
    /// down.
    pub(crate) fn unacknowledged(&mut self, socket: &Socket, is_shut: bool) -> usize {
        match self {
            Transport::Plain => socket.unacknowledged(is_shut).unwrap_or(usize::MAX),
            #[cfg(feature = "simulation")]
            Transport::Custom(records) => records.unacknowledged(socket, is_shut),
        }
    }

    /// Reads payload.
    pub(crate) fn read(&mut self, socket: &Socket, buffer: &mut [u8]) -> io::Result<Got> {
        match self {
            Transport::Plain => read_plain(socket, buffer),
            #[cfg(feature = "simulation")]
            Transport::Custom(records) => records.read(socket, buffer),
        }
    }
}
