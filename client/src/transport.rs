//! [`Transport`]: what carries the bytes, and [`dial`], which makes one.
//!
//! There is one kind today, plain TCP. Another one, such as TLS, implements the trait and is made in [`dial`].

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use mio::event::Source;

/// A connection that never blocks: reads and writes give `WouldBlock` instead.
pub(crate) trait Transport: Send {
    /// What is polled.
    fn source(&mut self) -> &mut dyn Source;

    /// Reads bytes; 0 at the end.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize>;

    /// Writes some of these bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
}

/// How long one address may take to answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Looks up the server, and connects to the first address that answers. Blocks.
pub(crate) fn dial(server: &str) -> io::Result<Box<dyn Transport>> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the server's name has no address");
    for address in server.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                return Ok(Box::new(Tcp(mio::net::TcpStream::from_std(stream))));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
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
}
