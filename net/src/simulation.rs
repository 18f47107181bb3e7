//! The parts of this package for a simulation: its own sockets, and loops that turn on request. Not
//! part of a production build.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Poll, Token, Waker};

use crate::event_loop::EventLoop;
use crate::framing::FrameWriter;
use crate::handler::{Handler, Settings};
use crate::link::Link;
use crate::loop_handle::{Letter, LoopHandle};
use crate::opening::Preface;
use crate::slots::ConnId;
use crate::socket::Socket;
use crate::stats::LoopWatch;
use crate::transport::Transport;

pub use crate::framing::{CustomReader, CustomWriter, FoundItem, FramingEnd, HttpItem, Notice, Piece, Wrapping};
pub use crate::opening::{Chain, CustomOpening, CustomStep, Speech};
pub use crate::readiness::Readiness;
pub use crate::socket::SimulatedSocket;
pub use crate::transport::CustomTransport;

/// A link without a loop: posted messages stay where they are.
///
/// # Errors
///
/// If there is no descriptor left.
pub fn lone_link<M>(socket: Arc<dyn SimulatedSocket>) -> io::Result<Arc<Link<M>>> {
    let poll = Poll::new()?;
    let owner = LoopHandle::new(Waker::new(poll.registry(), Token(0))?, 0, None, None);
    let (id, socket) = (ConnId { index: 0, generation: 0 }, Socket::Simulated(socket));
    Ok(Arc::new(Link::new(id, socket, None, FrameWriter::json(), Transport::Plain, owner)))
}

/// A link without a loop whose socket accepts everything and never has input.
///
/// # Errors
///
/// If there is no descriptor left.
pub fn link_to_nowhere<M>() -> io::Result<Arc<Link<M>>> {
    lone_link(Arc::new(Nowhere))
}

#[derive(Debug)]
struct Nowhere;

impl SimulatedSocket for Nowhere {
    fn read(&self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn peek(&self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        Ok(())
    }
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 1).into())
    }
    fn receive_buffer_bytes(&self) -> usize {
        64 * 1024
    }
    fn unacknowledged(&self) -> usize {
        0
    }
    fn register(&self, _: usize) {}
    fn deregister(&self) {}
}

/// A loop without a thread, a poller or a clock.
pub struct ManualLoop<H: Handler> {
    inner: EventLoop<H>,
    handle: LoopHandle<H::Message>,
}

impl<H: Handler> ManualLoop<H> {
    /// A loop in its initial state.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left.
    pub fn new(handler: H, settings: Settings, now: Instant) -> io::Result<ManualLoop<H>> {
        let mut inner = EventLoop::new(handler, settings)?;
        inner.begin(now);
        let handle = inner.handle();
        Ok(ManualLoop { inner, handle })
    }

    /// A handle for watching the loop.
    pub fn watch(&self) -> LoopWatch<H::Message> {
        self.inner.watch()
    }

    /// Hands the loop a new connection.
    pub fn assign(&self, socket: Arc<dyn SimulatedSocket>, peer: SocketAddr, preface: Preface) {
        self.handle.post(Letter::Accepted(Socket::Simulated(socket), peer, preface));
    }

    /// Makes the loop close its connections with a pause between two, finish everything within a
    /// time after the last, and stop.
    pub fn drain(&self, pause: Duration, timeout: Duration) {
        self.handle.post(Letter::Drain { pause, timeout });
    }

    /// The time that the loop would sleep if nothing woke it; `None` means without limit.
    pub fn sleep(&self, now: Instant) -> Option<Duration> {
        if self.handle.letters() > 0 { Some(Duration::ZERO) } else { self.inner.sleep(now) }
    }

    /// Runs one turn, with the events that the poller would have reported.
    pub fn turn(&mut self, now: Instant, events: &[Readiness]) {
        self.inner.turn(now, events.iter().copied());
    }

    /// Whether only [`ManualLoop::end`] is left to do.
    pub fn is_over(&self) -> bool {
        self.inner.is_over()
    }

    /// Ends the loop.
    pub fn end(self) {
        self.inner.end();
    }
}

impl<H: Handler> fmt::Debug for ManualLoop<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualLoop").finish_non_exhaustive()
    }
}
