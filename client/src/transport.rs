//! [`Transport`]: carries the bytes of a connection.

use std::io::{self, Read, Write};

use mio::event::Source;

/// A connection that never blocks: reads and writes give `WouldBlock` instead.
pub(crate) trait Transport: Send {
    /// The socket to be polled.
    fn source(&mut self) -> &mut dyn Source;

    /// Reads bytes; 0 at the end.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize>;

    /// Writes some of these bytes. Some of them may be held back until [`Transport::flush`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes the bytes that are held back. Would block until all of them are written.
    fn flush(&mut self) -> io::Result<()>;
}

/// TCP without anything around it.
pub(crate) struct Tcp(pub(crate) mio::net::TcpStream);

impl Transport for Tcp {
    fn source(&mut self) -> &mut dyn Source {
        &mut self.0
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
