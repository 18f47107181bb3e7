//! Checks that a server releases what it takes: descriptors, threads, memory, connections to
//! services.

use std::fmt;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// The resources that a process holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    pub descriptors: usize,
    pub threads: usize,
    /// Memory in use, in KiB.
    pub resident: usize,
}

/// The growth of a process that does not count as a leak.
#[derive(Clone, Copy, Debug)]
pub struct Margin(pub Footprint);

impl Margin {
    /// A pool may keep connections open for the next call, and an allocator memory for the next
    /// client. A suite makes hundreds of connections and tens of megabytes, so a leak would be far
    /// larger.
    pub const AFTER_A_TEST: Margin = Margin(Footprint { descriptors: 24, threads: 2, resident: 64 * 1024 });
}

impl Footprint {
    /// The resources of the process with this PID; `None` if there is none.
    pub fn of(process: u32) -> Option<Footprint> {
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).ok()?.count();
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Footprint { descriptors, threads: number("Threads:")?, resident: number("VmRSS:")? })
    }

    /// Whether the process holds no more than `before` and the margin.
    pub fn is_within(&self, margin: Margin, before: Footprint) -> bool {
        let Margin(more) = margin;
        self.descriptors <= before.descriptors + more.descriptors
            && self.threads <= before.threads + more.threads
            && self.resident <= before.resident + more.resident
    }

    /// The maximum of each resource.
    pub fn max(self, other: Footprint) -> Footprint {
        Footprint {
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
            resident: self.resident.max(other.resident),
        }
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Footprint { descriptors, threads, resident } = self;
        write!(f, "{descriptors} descriptors, {threads} threads, {:.1} MiB", *resident as f64 / 1024.0)
    }
}

/// Waits until a process holds no more than before, within a margin.
///
/// # Errors
///
/// The resources that are still held when the time is up, in words.
pub fn wait_given_back(process: u32, before: Footprint, margin: Margin) -> Result<Footprint, String> {
    let deadline = Instant::now() + GIVEN_BACK_WITHIN;
    loop {
        let Some(now) = Footprint::of(process) else { return Err(format!("process {process} has ended")) };
        if now.is_within(margin, before) {
            return Ok(now);
        }
        if Instant::now() >= deadline {
            return Err(format!("process {process} held {before} before, and {now} after all clients have gone"));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a service has no more connections than its users' pools may keep open. Returns a
/// description if more are left.
///
/// If `ours`, the test has made the service unreachable, and its connections cannot be counted.
pub(crate) fn connection_leak(service: &str, users: usize, ours: bool, count: impl Fn() -> usize) -> Option<String> {
    if ours {
        eprintln!("the connections to {service} are not counted: the test has put it out of reach");
        return None;
    }
    let most = users * POOLED_MAX;
    let deadline = Instant::now() + GIVEN_BACK_WITHIN;
    loop {
        let left = count();
        if left <= most {
            return None;
        }
        if Instant::now() >= deadline {
            return Some(format!("{left} connections to {service}, at most {most} of {users} nodes"));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The most connections that a node keeps open to MariaDB or to Redis. A pool opens one whenever a
/// call finds none free, and closes an idle one only after a minute. This makes about two for each
/// thread that makes calls.
const POOLED_MAX: usize = 40;

/// The longest time until a server has released what it no longer needs. Connections of clients are
/// released immediately. But a pool that has grown, as it does while the database is frozen, closes
/// its surplus only within a minute and a half.
pub const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(100);
