//! Reading without a transport.

use std::io;

use crate::socket::Socket;

/// The result of one read. Unless the read was short, the loop reads again before it waits for an
/// event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Got {
    /// The number of payload bytes.
    pub(crate) count: usize,
    /// The number of bytes that this read has taken out of the socket; 0 at the end of the stream.
    /// There may be more of them than payload bytes, and they may contain no payload.
    pub(crate) wire: usize,
    /// Whether the socket had fewer bytes than requested.
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
