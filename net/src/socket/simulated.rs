//! [`SimulatedSocket`]: replaces a TCP stream in a simulation. Not part of a production build.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};

/// One end of a simulated connection, as the kernel would show it. It does not block.
pub trait SimulatedSocket: fmt::Debug + Send + Sync {
    /// Like read(2).
    ///
    /// # Errors
    /// As read(2).
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Like recv(2) with MSG_PEEK.
    ///
    /// # Errors
    /// As recv(2).
    fn peek(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Like write(2).
    ///
    /// # Errors
    /// As write(2).
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Like shutdown(2).
    ///
    /// # Errors
    /// As shutdown(2).
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;

    /// Like getpeername(2).
    ///
    /// # Errors
    /// As getpeername(2).
    fn peer_addr(&self) -> io::Result<SocketAddr>;

    /// SO_RCVBUF.
    fn receive_buffer_bytes(&self) -> usize;

    /// Bytes that were written and that the peer has not acknowledged.
    fn unacknowledged(&self) -> usize;

    /// From now on the loop must be notified of its events, under this token, beginning with its
    /// present state.
    fn register(&self, token: usize);

    /// From now on the loop must not be notified.
    fn deregister(&self);
}
