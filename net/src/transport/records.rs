//! [`Records`]: a transport that makes records of a test's own. Not part of a production build.

use std::fmt;
use std::io;

use super::ledger::Ledger;
use super::plain::Got;
use crate::socket::Socket;

/// Makes records of payload, and payload of what arrives.
pub trait CustomTransport: fmt::Debug + Send {
    /// Appends one record with this payload to `wire`.
    fn seal(&mut self, payload: &[u8], wire: &mut Vec<u8>);

    /// Appends the payload of what has arrived to `payload`, and keeps what is no whole record.
    fn open(&mut self, wire: &[u8], payload: &mut Vec<u8>);
}

/// The state of a connection with such a transport.
#[derive(Debug)]
pub(crate) struct Records {
    custom: Box<dyn CustomTransport>,
    ledger: Ledger,
    /// The part of the last record that the socket has not taken.
    ahead: Vec<u8>,
    /// Payload that has arrived and was not read.
    opened: Vec<u8>,
}

impl Records {
    pub(super) fn new(custom: Box<dyn CustomTransport>) -> Records {
        Records { custom, ledger: Ledger::default(), ahead: Vec::new(), opened: Vec::new() }
    }

    pub(super) fn write(&mut self, socket: &Socket, payload: &[u8]) -> io::Result<usize> {
        self.flush(socket)?;
        if self.ledger.is_full() {
            self.look(socket, false);
        }
        let payload = &payload[..payload.len().min(RECORD_BYTES_MAX)];
        self.custom.seal(payload, &mut self.ahead);
        self.ledger.note(payload.len(), self.ahead.len());
        // The payload is taken, whatever becomes of the record now: a broken socket tells the next
        // time.
        let _ = self.flush(socket);
        Ok(payload.len())
    }

    pub(super) fn flush(&mut self, socket: &Socket) -> io::Result<()> {
        while !self.ahead.is_empty() {
            match socket.write(&self.ahead) {
                Ok(count) => _ = self.ahead.drain(..count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn ahead(&self) -> usize {
        self.ahead.len()
    }

    pub(super) fn unacknowledged(&mut self, socket: &Socket, is_shut: bool) -> usize {
        self.look(socket, is_shut);
        self.ledger.unacknowledged()
    }

    fn look(&mut self, socket: &Socket, is_shut: bool) {
        if let Ok(count) = socket.unacknowledged(is_shut) {
            self.ledger.acknowledge(count + self.ahead.len());
        }
    }

    pub(super) fn read(&mut self, socket: &Socket, buffer: &mut [u8]) -> io::Result<Got> {
        let mut is_short = false;
        // A record that is not whole brings no payload, which would look like the end of the
        // stream.
        while self.opened.is_empty() {
            let wire = match socket.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) => return Ok(Got { count: 0, is_short: true }),
                result => result?,
            };
            is_short = wire < buffer.len();
            self.custom.open(&buffer[..wire], &mut self.opened);
        }
        let count = self.opened.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.opened[..count]);
        self.opened.drain(..count);
        // The socket reports nothing about bytes that are left here: the loop has to come again by
        // itself.
        Ok(Got { count, is_short: is_short && self.opened.is_empty() })
    }
}

/// Most payload of one record, as in TLS (RFC 8446, 5.1).
const RECORD_BYTES_MAX: usize = 16 * 1024;
