//! The resources that the system gives this process: descriptors, threads, and the address space
//! that they reserve.

mod address_space;

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use self::address_space::{TooLittleSpace, bound_allocator, check_address_space, return_large_blocks};
use crate::config::Config;

/// The limit of descriptors, raised as far as allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptors {
    /// The previous limit.
    pub before: u64,
    /// The present limit.
    pub now: u64,
}

impl Descriptors {
    /// Raises the limit of descriptors as far as allowed. Does nothing if the system refuses.
    pub fn raise() -> Descriptors {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let before = current.unwrap_or(u64::MAX);
        let raised = Rlimit { current: maximum, maximum };
        // An unlimited value is refused: the kernel has its own bound (sysctl fs.nr_open).
        let raises = maximum.is_some_and(|maximum| maximum > before);
        let now = match raises && setrlimit(Resource::Nofile, raised).is_ok() {
            true => maximum.unwrap_or(before),
            false => before,
        };
        Descriptors { before, now }
    }

    /// Whether there are so few that the operator should be warned.
    pub fn are_few(&self) -> bool {
        self.now < FEW_DESCRIPTORS
    }
}

impl fmt::Display for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "descriptors {}", self.now)?;
        if self.now != self.before {
            write!(f, ", raised from {}", self.before)?;
        }
        Ok(())
    }
}

/// Returns the number of descriptors for clients: those that are not open, minus a reserve for the
/// database, other nodes, the log and the admin port. Also returns the number of sockets to accept:
/// a few more, for clients that are refused with a message.
///
/// Call it when the database and the bus are open, before the event loops start.
pub fn descriptors_for_clients(config: &Config) -> (usize, usize) {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let open = fs::read_dir("/proc/self/fd").map_or(OPEN_USUALLY, Iterator::count);
    let soon = DESCRIPTORS_OF_LOOP * config.loops + DESCRIPTORS_OF_READER * config.workers;
    let left = limit.saturating_sub(open + soon);
    let reserve = RESERVE.min(left / 2);
    let clients = (left - reserve).max(1);
    (clients, clients + reserve / 4)
}

/// The reason why the necessary threads cannot be started.
#[derive(Debug)]
pub struct TooFewThreads {
    needed: usize,
    /// Settings that need fewer threads, if there are any.
    instead: &'static str,
    cause: io::Error,
}

/// Checks that the process may have the threads that a server with these settings needs, by
/// starting and ending that many: some libraries panic if they cannot start a thread, so the server
/// must know before it serves.
///
/// # Errors
///
/// If it may not have them.
pub fn check_threads(config: &Config) -> Result<(), TooFewThreads> {
    start_threads(threads_needed(config), " or lower loops, workers and hashers")
}

/// The same check for a command that only uses the database of a cluster.
///
/// # Errors
///
/// If the process may not have them.
pub fn check_threads_of_command() -> Result<(), TooFewThreads> {
    start_threads(THREADS_OF_COMMAND, "")
}

fn threads_needed(config: &Config) -> usize {
    let of_cluster = config.mysql.as_ref().map_or(0, |_| THREADS_WITH_MYSQL)
        + config.redis.as_ref().map_or(0, |_| THREADS_WITH_REDIS);
    config.loops + config.workers + config.hashers + THREADS_OF_ALL + of_cluster
}

fn start_threads(needed: usize, instead: &'static str) -> Result<(), TooFewThreads> {
    // Each thread waits until the sender is dropped.
    let (hold, held) = crossbeam_channel::bounded::<()>(0);
    let start = |_| {
        let held = held.clone();
        thread::Builder::new().spawn(move || held.recv().is_err())
    };
    let threads: io::Result<Vec<_>> = (0..needed).map(start).collect();
    drop(hold);
    let threads = threads.map_err(|cause| TooFewThreads { needed, instead, cause })?;
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

impl fmt::Display for TooFewThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TooFewThreads { needed, instead, cause } = self;
        write!(
            f,
            "the system does not give this process the {needed} threads it needs: {cause}; raise the limit (ulimit -u, \
             TasksMax in systemd, pids.max of a container){instead}"
        )
    }
}

impl Error for TooFewThreads {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

/// The number of descriptors from which there is no warning: enough for a large installation.
const FEW_DESCRIPTORS: u64 = 10_000;
/// Descriptors that are not for clients, in addition to those open at the start: for connections to
/// the database, to Redis and of the admin port, and for files of the embedded store and of the
/// log.
const RESERVE: usize = 64;
/// The poller, its waker, and a reserve.
const DESCRIPTORS_OF_LOOP: usize = 3;
/// The descriptors of a connection to the embedded store: the database, its log and the log's
/// index.
const DESCRIPTORS_OF_READER: usize = 3;
/// The number of descriptors open at the start that is assumed if they cannot be counted.
const OPEN_USUALLY: usize = 64;

/// Threads besides loops, workers and hashers: of the log, the signals, the settings, the embedded
/// store, its log, its lanes, the sweeper, `User.state`, old passwords, the admin port, the health
/// checks, the watchdog.
const THREADS_OF_ALL: usize = 15;
/// Threads for the lanes, the spool, its log, the probe of the database, opening it, and three of
/// the pool.
const THREADS_WITH_MYSQL: usize = 15;
/// Threads for moving a progress bar and for looking up a name.
const THREADS_OF_COMMAND: usize = 2;
/// Threads for the bus, the lane to it, and three of the pool.
const THREADS_WITH_REDIS: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_some_descriptors() {
        let config = Config::with_defaults("127.0.0.1:0".parse().unwrap());
        let (clients, sockets) = descriptors_for_clients(&config);
        assert!(clients >= 1 && sockets >= clients);
        let (first, second) = (Descriptors::raise(), Descriptors::raise());
        assert_eq!((second.before, second.now), (first.now, first.now), "it is raised once");
    }
}
