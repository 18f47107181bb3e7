//! What the system lets this process have: descriptors, threads, and the address space that they reserve.

mod address_space;

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use self::address_space::{TooLittleSpace, bound_allocator, check_address_space};
use crate::config::Config;

/// The limit of descriptors, raised as far as it may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptors {
    /// What it was.
    pub before: u64,
    /// What it is.
    pub now: u64,
}

impl Descriptors {
    /// Raises the limit of descriptors to what this process may have. Does nothing if the system will not.
    pub fn raise() -> Descriptors {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let before = current.unwrap_or(u64::MAX);
        let raised = Rlimit { current: maximum, maximum };
        // One that is unlimited is refused: the kernel has a bound of its own (sysctl fs.nr_open).
        let raises = maximum.is_some_and(|maximum| maximum > before);
        let now = match raises && setrlimit(Resource::Nofile, raised).is_ok() {
            true => maximum.unwrap_or(before),
            false => before,
        };
        Descriptors { before, now }
    }

    /// Whether there are so few that the operator should know.
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

/// How many descriptors clients may have: those that are not open, without a reserve for the database, other nodes, the log
/// and the admin port. And how many sockets may be accepted: a few more, for clients that are turned away with a word.
///
/// To be asked when the database and the bus are open, and before the event loops are started.
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

/// Why the threads that are needed cannot be had.
#[derive(Debug)]
pub struct TooFewThreads {
    needed: usize,
    /// Settings that need fewer, if there are any.
    instead: &'static str,
    cause: io::Error,
}

/// Finds out whether the system gives this process the threads that a server with these settings needs, by starting as many
/// and ending them: libraries panic that get none, and a server must not find that out halfway.
///
/// # Errors
/// It does not.
pub fn check_threads(config: &Config) -> Result<(), TooFewThreads> {
    start_threads(threads_needed(config), " or lower loops, workers and hashers")
}

/// The same for a command that only works on the database of a cluster.
///
/// # Errors
/// The system does not give them.
pub fn check_threads_of_command() -> Result<(), TooFewThreads> {
    start_threads(THREADS_OF_COMMAND, "")
}

fn threads_needed(config: &Config) -> usize {
    let of_cluster = config.mysql.as_ref().map_or(0, |_| THREADS_WITH_MYSQL)
        + config.redis.as_ref().map_or(0, |_| THREADS_WITH_REDIS);
    config.loops + config.workers + config.hashers + THREADS_OF_ALL + of_cluster
}

fn start_threads(needed: usize, instead: &'static str) -> Result<(), TooFewThreads> {
    // Each waits until the sender is dropped.
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

/// The fewest descriptors that need no remark: as many clients are a large installation.
const FEW_DESCRIPTORS: u64 = 10_000;
/// Descriptors that are not for clients, beside those that are open at the start: connections to the database, to Redis and of
/// the admin port, files of the embedded store and of the log.
const RESERVE: usize = 64;
/// The poller, its waker, and one to spare.
const DESCRIPTORS_OF_LOOP: usize = 3;
/// Of a connection to the embedded store: the database, its log and the log's index.
const DESCRIPTORS_OF_READER: usize = 3;
/// Descriptors that a server has open at the start, where nobody can look.
const OPEN_USUALLY: usize = 64;

/// Beside loops, workers and hashers: of the log, the signals, the settings, the embedded store, its lane, `User.state`, old
/// passwords, the admin port, the checks of health.
const THREADS_OF_ALL: usize = 11;
/// The lanes, the spool, a look at the database, what opens it, and three of the pool.
const THREADS_WITH_MYSQL: usize = 10;
/// The one that moves a progress bar, and the one that looks up a name.
const THREADS_OF_COMMAND: usize = 2;
/// The bus, the lane to it, and three of the pool.
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
