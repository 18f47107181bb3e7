//! [`Wire`]: the records of one connection on their way to its socket.

use std::io::{self, Write};

use super::ledger::Ledger;
use crate::socket::Socket;

/// The records of a connection that the peer has not acknowledged.
#[derive(Default, Debug)]
pub(super) struct Wire {
    ledger: Ledger,
    /// The bytes of the last records that the socket has not taken. An idle connection holds no
    /// memory for them.
    ahead: Vec<u8>,
}

/// Takes the bytes of one record.
pub(super) struct RecordSink<'a> {
    socket: &'a Socket,
    ahead: &'a mut Vec<u8>,
    count: usize,
}

impl Wire {
    /// Writes the bytes that are kept ahead. Would block until all of them are written.
    pub(super) fn flush(&mut self, socket: &Socket) -> io::Result<()> {
        let mut taken = 0;
        let outcome = loop {
            match self.ahead.get(taken..).filter(|rest| !rest.is_empty()).map(|rest| socket.write(rest)) {
                None => break Ok(()),
                Some(Ok(count)) => taken += count,
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Some(Err(error)) => break Err(error),
            }
        };
        match outcome {
            Ok(()) => self.ahead = Vec::new(),
            Err(_) => _ = self.ahead.drain(..taken),
        }
        outcome
    }

    pub(super) fn ahead(&self) -> usize {
        self.ahead.len()
    }

    /// Puts one record onto the wire; `make` writes its bytes. The payload counts as taken even if
    /// the record cannot be written: a broken socket reports that at the next call.
    pub(super) fn put(
        &mut self,
        socket: &Socket,
        payload: usize,
        make: impl FnOnce(&mut RecordSink<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.ledger.is_long() {
            self.look(socket, false);
        }
        let mut sink = RecordSink { socket, ahead: &mut self.ahead, count: 0 };
        let made = make(&mut sink);
        let count = sink.count;
        self.ledger.note(payload, count);
        made
    }

    /// The number of payload bytes that were taken and that the peer's kernel has not acknowledged,
    /// as far as is known.
    pub(super) fn unacknowledged(&mut self, socket: &Socket, is_shut: bool) -> usize {
        self.look(socket, is_shut);
        self.ledger.unacknowledged()
    }

    fn look(&mut self, socket: &Socket, is_shut: bool) {
        if let Ok(count) = socket.unacknowledged(is_shut) {
            self.ledger.acknowledge(count + self.ahead.len());
        }
    }
}

impl RecordSink<'_> {
    /// Writes the bytes that the socket takes. Bytes are kept ahead only if the socket is full or
    /// broken: then an event follows. No event follows a write that a signal has interrupted, so it
    /// is repeated.
    fn write_some(&self, bytes: &[u8]) -> usize {
        loop {
            match self.socket.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.unwrap_or(0),
            }
        }
    }
}

impl Write for RecordSink<'_> {
    /// Takes all bytes: the socket does, or they are kept ahead.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Bytes go behind those kept earlier, or the stream would be garbled.
        let taken = match self.ahead.is_empty() {
            true => self.write_some(bytes),
            false => 0,
        };
        self.ahead.extend_from_slice(&bytes[taken..]);
        self.count += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
