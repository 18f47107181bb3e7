//! [`Transport`]: what carries the bytes, and [`Dialled`], from which one is made.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use mio::event::Source;

use crate::server::Server;
use crate::tls::{Encrypted, TlsStream};

/// A connection that never blocks: reads and writes give `WouldBlock` instead.
pub(crate) trait Transport: Send {
    /// What is polled.
    fn source(&mut self) -> &mut dyn Source;

    /// Reads bytes; 0 at the end.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize>;

    /// Writes some of these bytes. Some of them may be held back until [`Transport::flush`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes what is held back. It would block until all of it is written.
    fn flush(&mut self) -> io::Result<()>;
}

/// How long one address may take to answer, and TLS to begin.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A connection that blocks.
pub(crate) enum Dialled {
    Plain(TcpStream),
    Encrypted(Box<TlsStream>),
}

/// Looks up the server, and connects to the first address that answers. Blocks.
pub(crate) fn dial(server: &Server) -> io::Result<Dialled> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the server's name has no address");
    for address in server.address().to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return match server.tls() {
                    Some(tls) => Ok(Dialled::Encrypted(Box::new(tls.begin(stream, Instant::now() + CONNECT_WITHIN)?))),
                    None => Ok(Dialled::Plain(stream)),
                };
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Dialled {
    fn socket(&self) -> &TcpStream {
        match self {
            Dialled::Plain(stream) => stream,
            Dialled::Encrypted(stream) => &stream.sock,
        }
    }

    /// How long one read and one write may block.
    pub(crate) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.socket().set_read_timeout(Some(patience))?;
        self.socket().set_write_timeout(Some(patience))
    }

    /// The same connection, which never blocks.
    pub(crate) fn into_transport(self) -> io::Result<Box<dyn Transport>> {
        self.socket().set_nonblocking(true)?;
        Ok(match self {
            Dialled::Plain(stream) => Box::new(Tcp(mio::net::TcpStream::from_std(stream))),
            Dialled::Encrypted(stream) => Box::new(Encrypted::new(*stream)),
        })
    }
}

impl Read for Dialled {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Dialled::Plain(stream) => stream.read(bytes),
            Dialled::Encrypted(stream) => stream.read(bytes),
        }
    }
}

impl Write for Dialled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Dialled::Plain(stream) => stream.write(bytes),
            Dialled::Encrypted(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Dialled::Plain(stream) => stream.flush(),
            Dialled::Encrypted(stream) => stream.flush(),
        }
    }
}

struct Tcp(mio::net::TcpStream);

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
