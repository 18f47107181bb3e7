//! [`Event`]: what a poller tells of one socket.

/// That something may be done with a socket which could not be done before. Edges: told once.
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Event {
    /// Which socket.
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
    /// An urgent byte is there (tcp(7)): a read ends before it, though more is there behind it.
    pub urgent: bool,
}

impl From<&mio::event::Event> for Event {
    fn from(event: &mio::event::Event) -> Event {
        Event {
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
