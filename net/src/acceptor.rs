//! [`Acceptor`]: the listening socket, on a thread of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::complaints::Complaints;
use crate::places::{AcceptGate, Accepted};

/// Accepts connections until it is stopped.
#[derive(Debug)]
pub struct Acceptor {
    poll: Poll,
    listener: TcpListener,
    stopper: Stopper,
    gate: AcceptGate,
}

/// Stops an [`Acceptor`] from any thread.
#[derive(Clone, Debug)]
pub struct Stopper {
    /// The time at which to stop, once known.
    shared: Arc<(OnceLock<Instant>, Arc<Waker>)>,
}

/// The settings of a listening socket.
#[derive(Clone, Copy, Debug)]
pub struct ListenSettings {
    /// Connections that may wait to be accepted; the kernel limits the number to
    /// net.core.somaxconn.
    pub backlog: u32,
    /// How long sent bytes may stay unacknowledged before the kernel gives the connection up
    /// (TCP_USER_TIMEOUT).
    pub user_timeout: Duration,
}

impl Acceptor {
    /// Listens on `address`; an IPv6 wildcard accepts IPv4 too, whatever net.ipv6.bindv6only is set
    /// to.
    ///
    /// On Linux, accepted sockets inherit the options of the listening socket (TCP_NODELAY,
    /// keepalive, TCP_USER_TIMEOUT, TCP_NOTSENT_LOWAT), which saves four system calls per
    /// connection.
    ///
    /// # Errors
    ///
    /// The kernel's, for example that the address is in use.
    pub fn bind(address: SocketAddr, settings: ListenSettings) -> io::Result<Acceptor> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        let probes = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY).with_retries(3);
        socket.set_tcp_keepalive(&probes)?;
        socket.set_tcp_user_timeout(Some(settings.user_timeout))?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(settings.backlog).unwrap_or(i32::MAX))?;
        let mut listener = TcpListener::from_std(socket.into());
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let stopper = Stopper { shared: Arc::new((OnceLock::new(), waker.clone())) };
        Ok(Acceptor { poll, listener, stopper, gate: AcceptGate::new(waker) })
    }

    /// The address of the listening socket, with the port that the system chose if 0 was requested.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// A handle that ends [`Acceptor::run`].
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Limits the number of accepted sockets that are open at the same time. The other descriptors
    /// are left for the rest of the process.
    pub fn set_sockets_max(&mut self, max: usize) {
        self.gate.set_max(max);
    }

    /// Accepts and gives each connection to `assign`, until stopped; then the listening socket is
    /// closed.
    ///
    /// Pauses while places, descriptors or memory are used up: new connections wait in the backlog,
    /// existing ones are served. Tries again when a place becomes free, or after a moment. A pause
    /// and its end are logged once a minute.
    ///
    /// # Panics
    ///
    /// If the kernel refuses to poll.
    pub fn run(mut self, mut assign: impl FnMut(Accepted, SocketAddr)) {
        let mut events = Events::with_capacity(2);
        let (mut paused, mut complaints, mut is_logged) = (false, Complaints::default(), false);
        while !self.stopper.is_stopped() {
            let waits = [paused.then_some(RETRY_AFTER), self.stopper.left()];
            match self.poll.poll(&mut events, waits.into_iter().flatten().min()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => result.expect("epoll_wait fails only for a programming error"),
            }
            let exhausted = self.accept_all(&mut assign);
            if let Some(error) = &exhausted
                && !paused
                && let Some(unsaid) = complaints.raise(Instant::now())
            {
                log::error!("accepting is paused, and was {unsaid} times before: {error}; raise the limit (ulimit -n)");
                is_logged = true;
            }
            paused = exhausted.is_some();
            if !paused && std::mem::take(&mut is_logged) {
                log::warn!("accepting goes on: no connection waits");
            }
        }
    }

    /// Accepts until no connection waits; returns the error if the system has run out of a
    /// resource.
    fn accept_all(&mut self, assign: &mut impl FnMut(Accepted, SocketAddr)) -> Option<io::Error> {
        while !self.stopper.is_stopped() {
            if !self.gate.is_open() {
                return Some(io::Error::other("all descriptors for connections are in use"));
            }
            match self.listener.accept() {
                Ok((stream, peer)) => assign(self.gate.enter(stream), peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if is_of_one_connection(&error) => log::debug!("a connection was not accepted: {error}"),
                Err(error) => return Some(error),
            }
        }
        None
    }
}

impl Stopper {
    /// Stops accepting. A stop before [`Acceptor::run`] is not lost.
    pub fn stop(&self) {
        self.stop_after(Duration::ZERO);
    }

    /// Stops accepting after this time. The first call counts.
    pub fn stop_after(&self, time: Duration) {
        let _ = self.shared.0.set(Instant::now() + time);
        if let Err(error) = self.shared.1.wake() {
            log::error!("cannot wake the acceptor: {error}");
        }
    }

    fn is_stopped(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    /// The time left until the stop, if a stop is set.
    fn left(&self) -> Option<Duration> {
        self.shared.0.get().map(|at| at.saturating_duration_since(Instant::now()))
    }
}

/// Errors of the connection that would have been accepted, not of this system (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | HostUnreachable | Interrupted | NetworkDown | NetworkUnreachable
    )
}

/// The bytes that a socket accepts beyond the peer's window (tcp(7)): enough for a burst. More
/// would cost a slow consumer's megabytes twice: in the kernel, and here, where they are held until
/// they are acknowledged.
const UNSENT_BYTES_MAX: u32 = 1024 * 1024;
const LISTENER: Token = Token(0);
/// The token of the stopper, which also wakes the acceptor when a socket was closed and frees a
/// place.
const WAKE: Token = Token(1);
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// The idle time before keepalive probes begin. A vanished peer is noticed after three probes.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
