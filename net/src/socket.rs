//! [`Socket`]: the stream that a connection reads and writes. In production it is always a TCP
//! stream; a simulation provides its own.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use crate::places::Accepted;

#[cfg(feature = "simulation")]
mod simulated;

#[cfg(feature = "simulation")]
pub use simulated::SimulatedSocket;

/// One end of a connection. It does not block.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(Accepted),
    #[cfg(feature = "simulation")]
    Simulated(std::sync::Arc<dyn SimulatedSocket>),
}

impl Socket {
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&**stream).read(buffer),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.read(buffer),
        }
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&**stream).write(bytes),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.write(bytes),
        }
    }

    /// Reads without removing the bytes from the kernel.
    pub(crate) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.peek(buffer),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.peek(buffer),
        }
    }

    /// Reads and drops the bytes that have arrived, as many as fit into `scratch`.
    pub(crate) fn take_out(&self, scratch: &mut [u8]) {
        let _ = self.read(scratch);
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.shutdown(how),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.shutdown(how),
        }
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Socket::Tcp(stream) => stream.peer_addr(),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.peer_addr(),
        }
    }

    /// The number of bytes that the kernel accepts before the peer has to wait: no more can have
    /// arrived unread.
    pub(crate) fn receive_buffer_bytes(&self) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => SockRef::from(&**stream).recv_buffer_size(),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => Ok(socket.receive_buffer_bytes()),
        }
    }

    /// The number of written bytes that the peer's kernel has not acknowledged (tcp(7), SIOCOUTQ).
    /// For a broken connection the kernel still reports the final number.
    ///
    /// `is_shut`: our side was shut down. The kernel counts the end of the stream as one byte until
    /// that is acknowledged, after all others; the end is not counted here.
    pub(crate) fn unacknowledged(&self, is_shut: bool) -> io::Result<usize> {
        let count = match self {
            Socket::Tcp(stream) => output_queue(stream)?,
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => return Ok(socket.unacknowledged()),
        };
        Ok(count.saturating_sub(usize::from(is_shut)))
    }

    /// Makes the poller report the socket's events to the loop.
    pub(crate) fn register(&self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => registry.register(&mut SourceFd(&stream.as_raw_fd()), token, interest),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => {
                socket.register(token.0);
                Ok(())
            }
        }
    }

    /// Stops the reports.
    pub(crate) fn deregister(&self, registry: &Registry) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => registry.deregister(&mut SourceFd(&stream.as_raw_fd())),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => {
                socket.deregister();
                Ok(())
            }
        }
    }
}

impl From<Accepted> for Socket {
    fn from(stream: Accepted) -> Socket {
        Socket::Tcp(stream)
    }
}

/// SIOCOUTQ, which Linux gives the number of TIOCOUTQ.
#[allow(unsafe_code)]
fn output_queue(stream: &TcpStream) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as the stream is borrowed, and this request writes
    // one int to the pointer, which outlives the call.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream as Blocking};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::places::tests::gate;

    fn pair() -> (Socket, Blocking) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = Blocking::connect(listener.local_addr().expect("an address")).expect("it listens");
        let (stream, _) = listener.accept().expect("it has connected");
        stream.set_nonblocking(true).expect("a socket");
        (Socket::Tcp(gate().enter(TcpStream::from_std(stream))), client)
    }

    fn wait_until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "in vain");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Fills both kernels' buffers; returns the number of bytes that the socket took.
    fn fill(socket: &Socket) -> usize {
        let mut taken = 0;
        // Acknowledgements of the peer's kernel make room again, until the peer's buffer is full
        // too.
        for _ in 0..20 {
            while let Ok(count) = socket.write(&[7; 65536]) {
                taken += count;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        taken
    }

    #[test]
    fn unacknowledged_bytes_are_counted() {
        let (socket, mut client) = pair();
        assert_eq!(socket.unacknowledged(false).expect("a socket"), 0);
        let mut taken = fill(&socket);
        assert!(socket.unacknowledged(false).expect("a socket") > 0, "the peer's kernel has no room for all of it");
        let mut buffer = vec![0; 65536];
        while taken > 0 {
            taken -= client.read(&mut buffer).expect("there is more");
        }
        wait_until(|| socket.unacknowledged(false).expect("a socket") == 0);
    }

    #[test]
    fn the_end_of_the_stream_is_not_a_byte() {
        let (socket, _client) = pair();
        fill(&socket);
        socket.shutdown(Shutdown::Write).expect("connected");
        let count = |is_shut| socket.unacknowledged(is_shut).expect("a socket");
        wait_until(|| count(true) > 0 && count(true) + 1 == count(false));
        let (socket, _client) = pair();
        socket.shutdown(Shutdown::Write).expect("connected");
        wait_until(|| count_is_zero(&socket));
    }

    fn count_is_zero(socket: &Socket) -> bool {
        [true, false].into_iter().all(|is_shut| socket.unacknowledged(is_shut).expect("a socket") == 0)
    }

    #[test]
    fn a_broken_connection_still_tells_what_was_not_acknowledged() {
        let (socket, client) = pair();
        fill(&socket);
        // A socket closed with unread bytes is reset.
        drop(client);
        wait_until(|| socket.write(b"x").is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock));
        assert!(socket.unacknowledged(false).expect("still a socket") > 0);
    }
}
