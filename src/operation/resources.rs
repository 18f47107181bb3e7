//! What the system lets this process have: descriptors, memory, threads.

mod address_space;

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use self::address_space::{AddressSpace, TooLittleSpace};
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

/// Memory for what clients have begun to send and for replies on their way, in bytes: a part of what this process may have.
pub fn memory_for_clients() -> usize {
    let space = AddressSpace::of_process().map(AddressSpace::left);
    let own = getrlimit(Resource::Data).current;
    let memory = memory(Path::new("/")).into_iter().chain(space).chain(own).min().unwrap_or(MEMORY_USUALLY);
    usize::try_from(memory / MEMORY_PART).unwrap_or(usize::MAX).clamp(MEMORY_MIN, MEMORY_MAX)
}

/// The machine's memory in bytes, or less by a limit of the process's control groups.
fn memory(root: &Path) -> Option<u64> {
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse().ok();
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    });
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let of_groups = groups.lines().flat_map(|line| {
        // 0::/path in the unified hierarchy, else 4:memory:/path (cgroups(7)).
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        // The limits of the groups around it hold as well. In a container its own group is often the root.
        let inside = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_)));
        let inside: PathBuf = inside.collect();
        inside.ancestors().map(|group| root.join(mount).join(group).join(file)).collect()
    });
    of_groups.filter_map(number).chain(machine).min()
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

/// The part of all memory that clients may have by `memory_max=auto`: the eighth.
const MEMORY_PART: u64 = 8;
const MEMORY_MIN: usize = 8 << 20;
/// More is only for an attack.
const MEMORY_MAX: usize = 512 << 20;
/// Where nobody can look.
const MEMORY_USUALLY: u64 = 1 << 30;

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

    use std::env;
    use std::process;

    #[test]
    fn memory_is_the_smallest_of_the_limits() {
        let root = env::temp_dir().join(format!("raybox-resources-{}", process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(memory(&root), None);
        write("proc/meminfo", "MemFree: 5 kB\nMemTotal:       16384 kB\n");
        assert_eq!(memory(&root), Some(16 << 20));
        write("proc/self/cgroup", "0::/user.slice/app.service\n");
        write("sys/fs/cgroup/user.slice/app.service/memory.max", "max\n");
        assert_eq!(memory(&root), Some(16 << 20));
        write("sys/fs/cgroup/user.slice/memory.max", "8388608\n");
        assert_eq!(memory(&root), Some(8 << 20), "the limit of the group around it holds too");
        write("sys/fs/cgroup/user.slice/app.service/memory.max", "4194304\n");
        assert_eq!(memory(&root), Some(4 << 20));
        write("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/1\n");
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "2097152\n");
        assert_eq!(memory(&root), Some(2 << 20));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn there_is_some_memory_and_there_are_some_descriptors() {
        assert!((MEMORY_MIN..=MEMORY_MAX).contains(&memory_for_clients()));
        let config = Config::with_defaults("127.0.0.1:0".parse().unwrap());
        let (clients, sockets) = descriptors_for_clients(&config);
        assert!(clients >= 1 && sockets >= clients);
        let (first, second) = (Descriptors::raise(), Descriptors::raise());
        assert_eq!((second.before, second.now), (first.now, first.now), "it is raised once");
    }
}
