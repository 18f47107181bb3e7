//! What the kernel knows of a TCP connection and no library asks it.

use std::io;
use std::os::fd::AsRawFd;

/// Bytes that were written to this socket and that the peer's kernel has not acknowledged: `SIOCOUTQ` (tcp(7)). The end of
/// the stream, once it is told, counts as one. The number stays as it was when the connection is reset or times out.
///
/// # Errors
/// The kernel's: the socket is not a TCP connection.
#[expect(unsafe_code, reason = "no safe wrapper of this request is there")]
pub(crate) fn unacknowledged(socket: &impl AsRawFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel writes one int to where the pointer shows.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}
