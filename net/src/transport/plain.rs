//! Reading without a transport.

use std::io;

use crate::socket::Socket;

/// The result of one read. Unless it is short, the loop reads again before it waits for an
/// event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Got {
    /// Bytes of payload.
    pub(crate) count: usize,
    /// Bytes that this read has taken out of the socket; none at the end of the stream. They may be
    /// more than those of the payload, and may contain none of it.
    pub(crate) wire: usize,
    /// The socket had less than it was asked for.
    pub(crate) is_short: bool,
}

impl Got {
    /// The stream has ended.
    pub(crate) const END: Got = Got { count: 0, wire: 0, is_short: true };
}

/// Reads from a socket without a transport.
pub(crate) fn read_plain(socket: &Socket, buffer: &mut [u8]) -> io::Result<Got> {
    loop {
        match socket.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(|count| Got { count, wire: count, is_short: count < buffer.len() }),
        }
    }
}
