//! Whether a server gives back what it takes: descriptors, threads, memory, connections to what it stands on.

use std::fmt;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// What a process holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    pub descriptors: usize,
    pub threads: usize,
    /// Memory in use, in KiB.
    pub resident: usize,
}

/// How much more a process may hold at the end than at the beginning, without having leaked.
#[derive(Clone, Copy, Debug)]
pub struct Margin(pub Footprint);

impl Margin {
    /// What pools may keep open for the next call, and an allocator for the next client. A suite makes hundreds of
    /// connections and tens of megabytes; a leak of them is far beyond this.
    pub const AFTER_A_TEST: Margin = Margin(Footprint { descriptors: 24, threads: 2, resident: 64 * 1024 });
}

impl Footprint {
    /// Of the process with this number; `None` if there is none.
    pub fn of(process: u32) -> Option<Footprint> {
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).ok()?.count();
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Footprint { descriptors, threads: number("Threads:")?, resident: number("VmRSS:")? })
    }

    /// Whether it is within a margin of what there was before.
    pub fn is_within(&self, margin: Margin, before: Footprint) -> bool {
        let Margin(more) = margin;
        self.descriptors <= before.descriptors + more.descriptors
            && self.threads <= before.threads + more.threads
            && self.resident <= before.resident + more.resident
    }

    /// The larger of each.
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

/// Waits until a process holds again what it held before, within a margin; what it holds if it does not.
///
/// # Errors
/// What is left, in words.
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

/// Waits until a service has no more connections than the pools of its users may keep; what is left if it has.
///
/// `ours` is whether the test itself has put the service out of reach: then there is nobody to be asked.
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

/// The most connections that a node keeps to MariaDB or to Redis. A pool opens one whenever a call finds none free, and
/// closes what is idle only after a minute; that is about two for each thread which makes calls.
const POOLED_MAX: usize = 40;

/// What is in use is given back at once. But a pool that has grown, as it does while the database stands still, closes
/// what it need not have within a minute and a half.
pub const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(100);
