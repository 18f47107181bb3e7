//! [`ConnectionPlaces`]: limits the number of accepted sockets that are open, so that a flood of
//! clients leaves descriptors for the rest of the process.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mio::Waker;
use mio::net::TcpStream;

/// The state shared by the acceptor and every accepted socket.
struct ConnectionPlaces {
    open: AtomicUsize,
    /// Whether the acceptor waits for a socket to be closed.
    is_awaited: AtomicBool,
    waker: Arc<Waker>,
}

/// The acceptor's side.
pub(crate) struct AcceptGate {
    places: Arc<ConnectionPlaces>,
    max: usize,
}

/// An accepted socket. Closing (dropping) it releases its place.
pub struct Accepted {
    // The order matters: the descriptor is released before the place is.
    stream: TcpStream,
    _place: SocketPermit,
}

/// The place of one open socket, released when dropped.
struct SocketPermit(Arc<ConnectionPlaces>);

impl AcceptGate {
    /// A gate without a limit until [`AcceptGate::set_max`]. If the acceptor waits when a socket is
    /// closed, `waker` wakes it.
    pub(crate) fn new(waker: Arc<Waker>) -> AcceptGate {
        let places = ConnectionPlaces { open: AtomicUsize::new(0), is_awaited: AtomicBool::new(false), waker };
        AcceptGate { places: Arc::new(places), max: usize::MAX }
    }

    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Whether another socket may be accepted. If not, the next close wakes the acceptor.
    pub(crate) fn is_open(&self) -> bool {
        let has_room = || self.places.open.load(Ordering::SeqCst) < self.max;
        if has_room() {
            return true;
        }
        self.places.is_awaited.store(true, Ordering::SeqCst);
        // A socket may have been closed in between.
        has_room()
    }

    pub(crate) fn enter(&self, stream: TcpStream) -> Accepted {
        self.places.open.fetch_add(1, Ordering::SeqCst);
        Accepted { stream, _place: SocketPermit(self.places.clone()) }
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        let ConnectionPlaces { open, is_awaited, waker } = &*self.0;
        open.fetch_sub(1, Ordering::SeqCst);
        if is_awaited.load(Ordering::SeqCst)
            && is_awaited.swap(false, Ordering::SeqCst)
            && let Err(error) = waker.wake()
        {
            // The acceptor also tries again by itself after a while.
            log::debug!("cannot wake the acceptor: {error}");
        }
    }
}

impl Deref for Accepted {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}

impl fmt::Debug for AcceptGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptGate").field("open", &self.places.open).field("max", &self.max).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;

    /// A gate for the tests of other modules, whose waker wakes nobody.
    pub(crate) fn gate() -> AcceptGate {
        let poll = Poll::new().expect("a descriptor");
        AcceptGate::new(Arc::new(Waker::new(poll.registry(), Token(0)).expect("a descriptor")))
    }

    #[test]
    fn a_socket_that_is_closed_makes_room_and_wakes_those_that_wait_for_it() {
        let mut poll = Poll::new().expect("a descriptor");
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a descriptor"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = || TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let mut woken = |patience| {
            let mut events = Events::with_capacity(1);
            poll.poll(&mut events, Some(patience)).expect("a poller");
            !events.is_empty()
        };
        let mut gate = AcceptGate::new(waker);
        gate.set_max(2);
        let [first, second] = [(); 2].map(|()| {
            assert!(gate.is_open());
            gate.enter(stream())
        });
        assert!(!gate.is_open());
        drop(first);
        assert!(woken(Duration::from_secs(20)) && gate.is_open());
        // The acceptor does not wait now.
        drop(second);
        assert!(!woken(Duration::ZERO));
        assert_eq!(gate.places.open.load(Ordering::SeqCst), 0);
    }
}
