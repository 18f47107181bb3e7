//! [`dial`]: connects to a server.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::tls::{Encrypted, TlsStream};
use crate::transport::{Tcp, Transport};

/// The time within which one address must answer, and TLS begin.
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

    /// Sets the time for which one read and one write may block.
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
