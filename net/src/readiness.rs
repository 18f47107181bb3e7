//! [`Readiness`]: a poller's report about one socket.

/// Changes of one socket: operations that were impossible before are possible now. Edges: each is
/// reported once.
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Readiness {
    /// The token of the socket.
    pub token: usize,
    /// There is something to read.
    pub readable: bool,
    /// The peer sends nothing more.
    pub read_closed: bool,
    /// There is room to write.
    pub writable: bool,
    /// The peer takes nothing more.
    pub write_closed: bool,
    /// The socket is broken.
    pub error: bool,
    /// An urgent byte has arrived (tcp(7)). A read stops before the urgent byte, even if more bytes
    /// follow.
    pub urgent: bool,
}

impl From<&mio::event::Event> for Readiness {
    fn from(event: &mio::event::Event) -> Readiness {
        Readiness {
            token: event.token().0,
            readable: event.is_readable(),
            read_closed: event.is_read_closed(),
            writable: event.is_writable(),
            write_closed: event.is_write_closed(),
            error: event.is_error(),
            urgent: event.is_priority(),
        }
    }
}
