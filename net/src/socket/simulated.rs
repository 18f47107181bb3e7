//! [`SimulatedSocket`]: what stands in the place of a TCP stream in a simulation. Not part of a production build.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};

/// One end of a simulated connection, as the kernel would show it. It does not block.
pub trait SimulatedSocket: fmt::Debug + Send + Sync {
    /// As read(2).
    ///
    /// # Errors
    /// As read(2).
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// As recv(2) with MSG_PEEK.
    ///
    /// # Errors
    /// As recv(2).
    fn peek(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// As write(2).
    ///
    /// # Errors
    /// As write(2).
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// As shutdown(2).
    ///
    /// # Errors
    /// As shutdown(2).
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;

    /// As getpeername(2).
    ///
    /// # Errors
    /// As getpeername(2).
    fn peer_addr(&self) -> io::Result<SocketAddr>;

    /// SO_RCVBUF.
    fn receive_buffer_bytes(&self) -> usize;

    /// Bytes that were written and that the peer has not acknowledged.
    fn unacknowledged(&self) -> usize;

    /// From now on the loop is to be told of its events, under this token, beginning with what is there already.
    fn register(&self, token: usize);

    /// From now on no longer.
    fn deregister(&self);
}
