//! [`LoopGroup`]: N loops, each on a thread of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::event_loop::EventLoop;
use crate::handler::{Handler, Settings};
use crate::loop_handle::{Letter, LoopHandle};
use crate::opening::Preface;
use crate::places::Accepted;
use crate::stats::LoopWatch;

/// Running loops, and the index of the loop that gets the next connection.
#[derive(Debug)]
pub struct LoopGroup<M> {
    loops: Vec<(LoopHandle<M>, JoinHandle<()>)>,
    watches: Arc<[LoopWatch<M>]>,
    next: usize,
}

impl<M: Send + 'static> LoopGroup<M> {
    /// Starts `count` loops on threads named `loop-0` and so on; `handler` makes the handler of
    /// each.
    ///
    /// # Errors
    ///
    /// If the kernel has no descriptor left or cannot start a thread; loops that were started end
    /// with the process.
    ///
    /// # Panics
    ///
    /// If `count` is zero.
    pub fn start<H>(count: usize, settings: Settings, mut handler: impl FnMut(usize) -> H) -> io::Result<LoopGroup<M>>
    where
        H: Handler<Message = M> + Send + 'static,
        H::Arrival: Send,
        H::Conn: Send,
    {
        assert!(count > 0, "a group has at least one loop");
        let mut loops = Vec::with_capacity(count);
        let mut watches = Vec::with_capacity(count);
        for nth in 0..count {
            let event_loop = EventLoop::new(handler(nth), settings)?;
            let handle = event_loop.handle();
            watches.push(event_loop.watch());
            let thread = thread::Builder::new().name(format!("loop-{nth}")).spawn(|| event_loop.run())?;
            loops.push((handle, thread));
        }
        Ok(LoopGroup { loops, watches: watches.into(), next: 0 })
    }

    /// Handles for watching the loops, in the order of their names.
    pub fn watches(&self) -> Arc<[LoopWatch<M>]> {
        self.watches.clone()
    }

    /// Hands a new connection, which begins with `preface`, to the next loop, round-robin.
    pub fn assign(&mut self, stream: Accepted, peer: SocketAddr, preface: Preface) {
        let (handle, _) = &self.loops[self.next];
        handle.post(Letter::Accepted(stream.into(), peer, preface));
        self.next = (self.next + 1) % self.loops.len();
    }

    /// Makes the loops close their connections, at most `per_second` in all. Each connection is
    /// shown the input that has arrived, and its output is written. A connection that is not
    /// finished `timeout` after the last one's turn is broken off. Returns when all loops have
    /// stopped.
    ///
    /// # Panics
    ///
    /// If the rate is zero, because the drain would never end.
    pub fn drain(self, per_second: u32, timeout: Duration) {
        assert!(per_second > 0, "some connections are closed a second");
        let pause = Duration::from_secs(1) * self.loops.len() as u32 / per_second;
        for (handle, _) in &self.loops {
            handle.post(Letter::Drain { pause, timeout });
        }
        for (_, thread) in self.loops {
            if thread.join().is_err() {
                log::error!("a loop has panicked");
            }
        }
    }
}
