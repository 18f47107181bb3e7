//! A limit of the process's address space (`ulimit -v`, `prlimit --as`).
//!
//! It counts what is reserved, and not only what is used. A thread reserves its stack; and glibc's allocator reserves
//! 64 MiB for nearly every thread, so a small limit is used up while the process needs 10 MiB. A process that then asks for
//! memory is aborted. So the allocator is bounded, and a server that could not bear what its settings allow is not started.

use std::error::Error;
use std::fmt;
use std::fs;

use rustix::process::{Resource, getrlimit};

use super::threads_needed;
use crate::config::Config;

/// A limit, and what of it the process has reserved, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressSpace {
    limit: u64,
    used: u64,
}

/// The limit is too low for these settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLittleSpace {
    limit: u64,
    needed: u64,
}

impl AddressSpace {
    /// `None` without a limit.
    pub fn of_process() -> Option<AddressSpace> {
        let limit = getrlimit(Resource::As).current?;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let used = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
        let used = used.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        Some(AddressSpace { limit, used: used.map_or(USED_USUALLY, |kib| kib * 1024) })
    }

    /// What is not reserved.
    pub(super) fn left(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    /// Bounds what the allocator reserves. To be called before any other thread is started.
    pub fn bound_allocator(self) {
        let arenas = (self.limit / ARENAS_PART / ARENA_BYTES).clamp(1, ARENAS_MAX);
        limit_arenas(arenas as i32);
    }

    /// Whether a server with these settings has room. To be called before any other thread is started.
    ///
    /// # Errors
    /// It has not.
    pub fn check(self, config: &Config) -> Result<(), TooLittleSpace> {
        let threads = threads_needed(config) as u64 * STACK_BYTES;
        let hashes = config.hashers as u64 * u64::from(config.password_cost.memory_kib) * 1024;
        let clients = config.memory_bytes_max as u64;
        let store = if config.mysql.is_some() { STORE_BYTES_ELSEWHERE } else { STORE_BYTES };
        let needed = self.used + threads + hashes + clients + store + RESERVE;
        if needed > self.limit {
            return Err(TooLittleSpace { limit: self.limit, needed });
        }
        let left = self.limit - needed;
        if left < config.lane_bytes_max as u64 {
            log::warn!(
                "the address space is limited to {} MiB (ulimit -v), and messages on their way may take {} MiB of it \
                 (lane_max), where {} MiB are left: raise the limit, or lower lane_max",
                self.limit / MIB,
                config.lane_bytes_max as u64 / MIB,
                left / MIB
            );
        }
        Ok(())
    }
}

impl fmt::Display for TooLittleSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TooLittleSpace { limit, needed } = self;
        write!(
            f,
            "the address space is limited to {} MiB (ulimit -v), and with these settings the server needs {} MiB; raise the \
             limit, or lower hashers, workers, loops or memory_max",
            limit / MIB,
            needed.div_ceil(MIB)
        )
    }
}

impl Error for TooLittleSpace {}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn limit_arenas(arenas: i32) {
    // SAFETY: mallopt(3) takes two numbers. No other thread is there yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, arenas);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn limit_arenas(_: i32) {}

const MIB: u64 = 1024 * 1024;
/// The part of the limit that the allocator may reserve without using it, and what it reserves for an arena.
const ARENAS_PART: u64 = 4;
const ARENA_BYTES: u64 = 64 * MIB;
const ARENAS_MAX: u64 = 64;
/// A thread's stack, as the standard library has it, with its guard pages and its stack for signals.
const STACK_BYTES: u64 = 2 * MIB + 32 * 1024;
/// The caches of the embedded store and its connections; and the connections to a store elsewhere.
const STORE_BYTES: u64 = 20 * MIB;
const STORE_BYTES_ELSEWHERE: u64 = 8 * MIB;
/// For all else: buffers of loops, connections, what the allocator cannot use.
const RESERVE: u64 = 16 * MIB;
/// Where nobody can look.
const USED_USUALLY: u64 = 16 * MIB;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_needs_room_for_what_its_settings_allow() {
        let mut config = Config::with_defaults("127.0.0.1:0".parse().unwrap());
        config.memory_bytes_max = 8 << 20;
        let small = AddressSpace { limit: 64 * MIB, used: 16 * MIB };
        let error = small.check(&config).unwrap_err();
        assert_eq!(error.limit, 64 * MIB);
        let enough = AddressSpace { limit: error.needed, used: 16 * MIB };
        assert_eq!(enough.check(&config), Ok(()));
        config.memory_bytes_max += 1;
        assert!(enough.check(&config).is_err());
        assert!(error.to_string().starts_with("the address space is limited to 64 MiB (ulimit -v)"), "{error}");
    }
}
