//! [`Conduit`]: a connection that does not block, with the bytes that wait on it.

use std::io::{self, Read, Write};

use mio::{Poll, Token};

use crate::carrier::Stream;

/// A connection of a measured thread.
pub(crate) struct Conduit {
    stream: Stream,
    /// The beginning of a frame whose rest has not arrived.
    partial: Vec<u8>,
    /// Bytes to write; the first `written` of them have been written.
    out: Vec<u8>,
    written: usize,
    is_closed: bool,
}

/// The outcome of one read.
pub(crate) enum Got<'b> {
    /// These bytes. The first ones are the beginning of a frame, if one was kept.
    Bytes(&'b [u8]),
    /// Nothing more at present.
    Nothing,
    /// The connection is over, for this reason.
    End(String),
}

impl Conduit {
    pub(crate) fn new(stream: Stream, poll: &Poll, token: Token) -> io::Result<Conduit> {
        stream.socket().set_nonblocking(true)?;
        stream.register(poll, token)?;
        Ok(Conduit { stream, partial: Vec::new(), out: Vec::new(), written: 0, is_closed: false })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Marks the connection as closed. Returns whether it was open.
    pub(crate) fn close(&mut self) -> bool {
        !std::mem::replace(&mut self.is_closed, true)
    }

    /// The buffer for bytes that [`Conduit::flush`] writes.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Reads once, behind the beginning of a frame that was kept.
    pub(crate) fn receive<'b>(&mut self, buffer: &'b mut [u8]) -> Got<'b> {
        let kept = self.partial.len();
        buffer[..kept].copy_from_slice(&self.partial);
        match self.stream.read(&mut buffer[kept..]) {
            Ok(0) => Got::End("the server closed a connection".into()),
            Ok(len) => {
                self.partial.clear();
                Got::Bytes(&buffer[..kept + len])
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Got::Nothing,
            Err(error) => Got::End(error.to_string()),
        }
    }

    /// Keeps the beginning of a frame for the next read.
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        self.partial.extend_from_slice(rest);
    }

    /// Whether a read that does not fill its buffer has emptied the socket.
    pub(crate) fn is_plain(&self) -> bool {
        self.stream.is_plain()
    }

    /// Writes what the socket takes, and returns the number of bytes. Bytes that the stream holds
    /// back leave when the socket has room.
    pub(crate) fn flush(&mut self) -> io::Result<usize> {
        let mut count = 0;
        loop {
            let is_all = self.written == self.out.len();
            let step =
                if is_all { self.stream.flush().map(|()| 0) } else { self.stream.write(&self.out[self.written..]) };
            match step {
                Ok(_) if is_all => break,
                Ok(len) => {
                    self.written += len;
                    count += len;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The written part of a backlog is dropped once it is more than half, so bytes
                    // are moved at most as often as they were written.
                    if self.written > self.out.len() / 2 {
                        self.out.drain(..self.written);
                        self.written = 0;
                    }
                    return Ok(count);
                }
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(count)
    }

    /// Ends the connection, and returns the bytes of a frame that never ended.
    pub(crate) fn end(&self) -> &[u8] {
        self.stream.shutdown();
        &self.partial
    }
}
