//! [`Address`] and [`Stream`]: a connection to a server, over plain TCP, TLS or a WebSocket.
//!
//! The workloads read and write frames that end with a newline. A WebSocket carries each frame as
//! one text message, without the newline.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::str::FromStr;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use rustls::ClientConnection;

use crate::tls;
use crate::websocket::WebSocket;

/// The layer between the frames and the socket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Carrier {
    Tcp,
    Tls,
    WebSocket,
}

/// The address of a server, and the carrier: `HOST:PORT`, `tls://HOST:PORT` or `ws://HOST:PORT`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Address {
    pub(crate) socket: SocketAddr,
    pub(crate) carrier: Carrier,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let (carrier, host) = match text.split_once("://") {
            None => (Carrier::Tcp, text),
            Some(("tls", host)) => (Carrier::Tls, host),
            Some(("ws", host)) => (Carrier::WebSocket, host),
            Some((other, _)) => return Err(format!("`{other}://` is unknown: write HOST:PORT, tls:// or ws://")),
        };
        let found = host.to_socket_addrs().map_err(|error| format!("`{text}`: {error}; write HOST:PORT"))?.next();
        let socket = found.ok_or_else(|| format!("`{text}` has no address"))?;
        Ok(Address { socket, carrier })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.carrier {
            Carrier::Tcp => {}
            Carrier::Tls => f.write_str("tls://")?,
            Carrier::WebSocket => f.write_str("ws://")?,
        }
        self.socket.fmt(f)
    }
}

impl From<SocketAddr> for Address {
    fn from(socket: SocketAddr) -> Address {
        Address { socket, carrier: Carrier::Tcp }
    }
}

/// One connection. Like a socket it blocks or not. It may hold back bytes that it has taken until
/// [`Write::flush`], which must be called when the socket has room.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: TcpStream,
    layer: Layer,
}

#[derive(Debug)]
enum Layer {
    None,
    Tls(Box<ClientConnection>),
    WebSocket(Box<WebSocket>),
}

impl Stream {
    /// A stream on a socket that is connected or about to be. The first reads and writes do the
    /// carrier's handshake.
    pub(crate) fn new(socket: TcpStream, address: Address) -> io::Result<Stream> {
        let layer = match address.carrier {
            Carrier::Tcp => Layer::None,
            Carrier::Tls => Layer::Tls(Box::new(tls::client(address.socket.ip())?)),
            Carrier::WebSocket => Layer::WebSocket(Box::new(WebSocket::new(address.socket))),
        };
        Ok(Stream { socket, layer })
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn register(&self, poll: &Poll, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut SourceFd(&self.socket.as_raw_fd()), token, interest)
    }

    /// Whether a read that does not fill its buffer has emptied the socket.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.layer, Layer::None)
    }

    /// Looks without waiting whether bytes have arrived: 0 at the end of the stream, otherwise at
    /// least 1.
    pub(crate) fn look(&mut self) -> io::Result<usize> {
        match self.layer {
            Layer::None => self.socket.peek(&mut [0]),
            // A ticket of TLS is not part of a frame, so looking at the socket is not enough.
            Layer::Tls(_) | Layer::WebSocket(_) => self.read(&mut [0]),
        }
    }

    pub(crate) fn shutdown(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.layer {
            Layer::None => self.socket.read(buffer),
            Layer::Tls(tls) => tls::read(&mut **tls, &mut self.socket, buffer),
            Layer::WebSocket(socket) => socket.read(&mut self.socket, buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.layer {
            Layer::None => self.socket.write(bytes),
            Layer::Tls(tls) => tls::write(&mut **tls, &mut self.socket, bytes),
            Layer::WebSocket(socket) => socket.write(&mut self.socket, bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.layer {
            Layer::None => Ok(()),
            Layer::Tls(tls) => tls::flush(&mut **tls, &mut self.socket),
            Layer::WebSocket(socket) => socket.flush(&mut self.socket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_tells_the_carrier() {
        for text in ["127.0.0.1:6000", "tls://127.0.0.1:6000", "ws://127.0.0.1:6000"] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        for text in ["http://127.0.0.1:6000", "127.0.0.1", "ws://"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
