//! [`Threads`]: starts the threads of a server. A simulation assembles the same server without any.

use std::io;

use pool::{Again, BatchMax, Lanes, Workers};

/// Starts threads, or lets the caller do their work without any.
pub trait Threads {
    /// As [`Lanes::start`].
    ///
    /// # Errors
    /// When the system has no thread left.
    fn lanes<T: Send + 'static, S: Send + 'static>(
        &mut self,
        name: &str,
        count: usize,
        batch_max: impl Into<BatchMax>,
        begin: impl Fn(usize, Option<S>) -> (S, Option<Again>) + Send + Sync + 'static,
        handle: impl Fn(&mut S, Vec<T>) -> Option<Again> + Send + Sync + 'static,
    ) -> io::Result<Lanes<T>>;

    /// As [`Workers::start`].
    ///
    /// # Errors
    /// When the system has no thread left.
    fn workers(&mut self, name: &str, count: usize, waiting_max: usize) -> io::Result<Workers>;

    /// As [`Workers::start_in_background`].
    ///
    /// # Errors
    /// When the system has no thread left.
    fn workers_in_background(&mut self, name: &str, count: usize, waiting_max: usize) -> io::Result<Workers>;

    /// Starts something that has a thread of its own.
    ///
    /// # Errors
    /// As `start` says.
    fn one(&mut self, start: impl FnOnce() -> io::Result<()>) -> io::Result<()>;
}

/// The threads of the system.
#[derive(Clone, Copy, Debug)]
pub struct SystemThreads;

impl Threads for SystemThreads {
    fn lanes<T: Send + 'static, S: Send + 'static>(
        &mut self,
        name: &str,
        count: usize,
        batch_max: impl Into<BatchMax>,
        begin: impl Fn(usize, Option<S>) -> (S, Option<Again>) + Send + Sync + 'static,
        handle: impl Fn(&mut S, Vec<T>) -> Option<Again> + Send + Sync + 'static,
    ) -> io::Result<Lanes<T>> {
        Lanes::start(name, count, batch_max, begin, handle)
    }

    fn workers(&mut self, name: &str, count: usize, waiting_max: usize) -> io::Result<Workers> {
        Workers::start(name, count, waiting_max)
    }

    fn workers_in_background(&mut self, name: &str, count: usize, waiting_max: usize) -> io::Result<Workers> {
        Workers::start_in_background(name, count, waiting_max)
    }

    fn one(&mut self, start: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        start()
    }
}
