//! Reading without a transport.

use std::io;

use crate::socket::Socket;

/// The result of one read. Unless it is short, the loop reads again before it waits for an
/// event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Got {
    /// Bytes of payload; none at the end of the stream.
    pub(crate) count: usize,
    /// The socket had less than it was asked for.
    pub(crate) is_short: bool,
}

/// Reads from a socket without a transport.
pub(crate) fn read_plain(socket: &Socket, buffer: &mut [u8]) -> io::Result<Got> {
    loop {
        match socket.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(|count| Got { count, is_short: count < buffer.len() }),
        }
    }
}
