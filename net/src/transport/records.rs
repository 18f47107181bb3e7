//! [`Records`]: a transport that makes records of a test's own. Not part of a production build.

use std::fmt;
use std::io::{self, Write};

use super::plain::Got;
use super::wire::Wire;
use crate::socket::Socket;
use crate::tls::RECORD_BYTES_MAX;

/// Turns payload into records, and records into payload.
pub trait CustomTransport: fmt::Debug + Send {
    /// Appends one record with this payload to `wire`.
    fn seal(&mut self, payload: &[u8], wire: &mut Vec<u8>);

    /// Appends the payload of the bytes that have arrived to `payload`, and keeps an incomplete
    /// record.
    fn open(&mut self, wire: &[u8], payload: &mut Vec<u8>);
}

/// The state of a connection with such a transport.
#[derive(Debug)]
pub(crate) struct Records {
    custom: Box<dyn CustomTransport>,
    wire: Wire,
    /// Payload that has arrived and was not read.
    opened: Vec<u8>,
}

impl Records {
    pub(super) fn new(custom: Box<dyn CustomTransport>) -> Records {
        Records { custom, wire: Wire::default(), opened: Vec::new() }
    }

    pub(super) fn write(&mut self, socket: &Socket, payload: &[u8]) -> io::Result<usize> {
        self.wire.flush(socket)?;
        let payload = &payload[..payload.len().min(RECORD_BYTES_MAX)];
        let mut record = Vec::new();
        self.custom.seal(payload, &mut record);
        self.wire.put(socket, payload.len(), |sink| sink.write_all(&record))?;
        Ok(payload.len())
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

    pub(super) fn read(&mut self, socket: &Socket, buffer: &mut [u8]) -> io::Result<Got> {
        let mut is_short = false;
        let mut wire = 0;
        while self.opened.is_empty() {
            let count = match socket.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) => return Ok(Got::END),
                result => result?,
            };
            (wire, is_short) = (wire + count, count < buffer.len());
            self.custom.open(&buffer[..count], &mut self.opened);
        }
        let count = self.opened.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.opened[..count]);
        self.opened.drain(..count);
        // The socket reports nothing about bytes that are left here, so the loop has to read again
        // by itself.
        Ok(Got { count, wire: wire.max(count), is_short: is_short && self.opened.is_empty() })
    }
}
