//! [`Readiness`]: what a poller reports about one socket.

/// Something can now be done with a socket that was impossible before. Edges: each is reported
/// once.
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
    /// It is broken.
    pub error: bool,
    /// An urgent byte has arrived (tcp(7)): a read stops before it, though there is more behind it.
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
