//! [`Pipe`]: one connection between a client and a node, as both kernels see it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};

use net::simulation::{Readiness, SimulatedSocket};
use parking_lot::Mutex;

/// The node's end is a [`SimulatedSocket`]; the rest of what it can do is for the world around it.
#[derive(Debug)]
pub(super) struct Pipe {
    state: Mutex<State>,
    peer: SocketAddr,
    /// The node's send buffer.
    room: usize,
    /// Whether the kernel reports that everything has been acknowledged.
    lies: bool,
}

#[derive(Debug, Default)]
struct State {
    /// The bytes that have arrived at the node and were not read.
    arrived: VecDeque<u8>,
    /// The bytes that the server has read in all.
    read: usize,
    /// Whether the client's end of the stream has arrived.
    peer_ended: bool,
    /// Everything that the server has ever written, and the number of bytes that the client's
    /// kernel has acknowledged.
    written: Vec<u8>,
    acknowledged: usize,
    /// Whether the server has shut its writing side down.
    shut: bool,
    /// Whether the last write did not take everything.
    starved: bool,
    /// The same, until the server has tried again.
    was_short: bool,
    broken: bool,
    error_told: bool,
    token: Option<usize>,
    /// Whether the server has closed it.
    closed: bool,
    has_news: bool,
}

impl Pipe {
    pub(super) fn new(peer: SocketAddr, room: usize, lies: bool) -> Pipe {
        Pipe { state: Mutex::default(), peer, room, lies }
    }

    /// Bytes of the client arrive at the node.
    pub(super) fn arrive(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        if !state.broken {
            state.arrived.extend(bytes);
            state.has_news = true;
        }
    }

    /// The client's end of the stream arrives.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.has_news |= !std::mem::replace(&mut state.peer_ended, true);
    }

    /// The connection breaks: a reset arrives, or the kernel gives the peer up.
    pub(super) fn break_off(&self) {
        let mut state = self.state.lock();
        (state.broken, state.has_news) = (true, true);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.state.lock().broken
    }

    /// The client's kernel acknowledges at most `most` bytes.
    pub(super) fn acknowledge(&self, most: usize) {
        let mut state = self.state.lock();
        let count = most.min(state.written.len() - state.acknowledged);
        state.acknowledged += count;
        if state.starved && count > 0 && state.written.len() - state.acknowledged < self.room {
            (state.starved, state.has_news) = (false, true);
        }
    }

    pub(super) fn outstanding(&self) -> usize {
        let state = self.state.lock();
        state.written.len() - state.acknowledged
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.state.lock().acknowledged
    }

    pub(super) fn bytes_read(&self) -> usize {
        self.state.lock().read
    }

    /// Whether the client has got everything, and knows that nothing follows.
    pub(super) fn is_at_end(&self) -> bool {
        let state = self.state.lock();
        state.shut && state.acknowledged == state.written.len()
    }

    /// Whether the server could not write everything at its last attempt.
    pub(super) fn is_starved(&self) -> bool {
        self.state.lock().was_short
    }

    /// The bytes written after this position.
    pub(super) fn written_after(&self, position: usize) -> Vec<u8> {
        self.state.lock().written[position..].to_vec()
    }

    pub(super) fn written(&self) -> usize {
        self.state.lock().written.len()
    }

    /// Whether the server has not closed it.
    pub(super) fn is_registered(&self) -> bool {
        self.state.lock().token.is_some()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    pub(super) fn has_event(&self) -> bool {
        let state = self.state.lock();
        state.has_news && state.token.is_some()
    }

    /// Takes the event of a poller, reported once: an edge, with the readiness at this moment.
    pub(super) fn take_event(&self) -> Option<Readiness> {
        let mut state = self.state.lock();
        let token = state.token.filter(|_| state.has_news)?;
        state.has_news = false;
        let hung_up = state.broken || (state.shut && state.peer_ended);
        Some(Readiness {
            token,
            readable: !state.arrived.is_empty() || state.peer_ended || state.broken,
            read_closed: state.peer_ended || hung_up,
            writable: state.broken || state.written.len() - state.acknowledged < self.room,
            write_closed: hung_up,
            error: state.broken,
            urgent: false,
        })
    }
}

impl State {
    fn take(&mut self, buffer: &mut [u8], keep: bool) -> io::Result<usize> {
        if !self.arrived.is_empty() {
            let count = buffer.len().min(self.arrived.len());
            for (to, from) in buffer.iter_mut().zip(&self.arrived) {
                *to = *from;
            }
            if !keep {
                self.arrived.drain(..count);
                self.read += count;
            }
            return Ok(count);
        }
        if self.broken && !std::mem::replace(&mut self.error_told, true) {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if self.peer_ended || self.broken { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) }
    }
}

impl SimulatedSocket for Pipe {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.state.lock().take(buffer, false)
    }

    fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.state.lock().take(buffer, true)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        if state.broken || state.shut {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let room = self.room - (state.written.len() - state.acknowledged);
        let count = room.min(bytes.len());
        state.starved = count < bytes.len();
        state.was_short = state.starved;
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        state.written.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.broken {
            return Err(ErrorKind::NotConnected.into());
        }
        state.shut |= how != Shutdown::Read;
        state.has_news |= state.shut && state.peer_ended;
        Ok(())
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }

    fn receive_buffer_bytes(&self) -> usize {
        128 * 1024
    }

    fn unacknowledged(&self) -> usize {
        if self.lies { 0 } else { self.outstanding() }
    }

    fn register(&self, token: usize) {
        let mut state = self.state.lock();
        (state.token, state.has_news) = (Some(token), true);
    }

    fn deregister(&self) {
        let mut state = self.state.lock();
        (state.token, state.closed) = (None, true);
    }
}
