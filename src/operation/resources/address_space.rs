//! A limit of the process's address space (`ulimit -v`, `prlimit --as`).
//!
//! The limit counts reserved memory, not only used memory. A thread reserves its stack, and glibc's
//! allocator reserves 64 MiB for nearly every thread. So a small limit is used up although the
//! process needs only 10 MiB, and a process that then requests memory is aborted. Therefore the
//! allocator is bounded, and a server whose settings need more than the limit does not start.

use std::error::Error;
use std::fmt;

use super::threads_needed;
use crate::base::memory::AddressSpace;
use crate::config::Config;

/// The limit is too low for these settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLittleSpace {
    limit: u64,
    needed: u64,
}

/// Makes the allocator return large blocks to the system as soon as they are free. By default glibc
/// does so only until the first of them is freed (mallopt(3), "dynamic mmap threshold"). After a
/// storm of logins, every thread that has hashed passwords would keep the memory of some hashes.
/// Call it before any other thread is started.
pub fn return_large_blocks() {
    set_parameter(MMAP_THRESHOLD, LARGE_BLOCK);
    set_parameter(TRIM_THRESHOLD, FREE_BYTES_KEPT);
}

/// Limits the reservations of the allocator. Call it before any other thread is started.
pub fn bound_allocator(space: AddressSpace) {
    let arenas = (space.limit / ARENAS_PART / ARENA_BYTES).clamp(1, ARENAS_MAX);
    set_parameter(ARENAS, arenas as i32);
}

/// Checks that a server with these settings has room. Call it before any other thread is started.
///
/// # Errors
///
/// If it has no room.
pub fn check_address_space(space: AddressSpace, config: &Config) -> Result<(), TooLittleSpace> {
    let threads = threads_needed(config) as u64 * STACK_BYTES;
    let hashes = config.hashers as u64 * u64::from(config.password_cost.memory_kib) * 1024;
    let clients = config.memory_bytes_max as u64;
    let store = if config.mysql.is_some() { STORE_BYTES_ELSEWHERE } else { STORE_BYTES };
    let in_lanes = config.lane_bytes_max as u64;
    let needed = space.used + threads + hashes + clients + in_lanes + store + RESERVE;
    if needed > space.limit { Err(TooLittleSpace { limit: space.limit, needed }) } else { Ok(()) }
}

impl fmt::Display for TooLittleSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TooLittleSpace { limit, needed } = self;
        write!(
            f,
            "the address space is limited to {} MiB (ulimit -v), and with these settings the server needs {} MiB; raise the \
             limit, or lower hashers, workers, loops, lane_max or memory_max",
            limit / MIB,
            needed.div_ceil(MIB)
        )
    }
}

impl Error for TooLittleSpace {}

/// Sets a parameter of the allocator.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn set_parameter(parameter: i32, value: i32) {
    // SAFETY: mallopt(3) takes two numbers. No other thread runs yet.
    unsafe {
        libc::mallopt(parameter, value);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set_parameter(_: i32, _: i32) {}

/// Parameters of mallopt(3) and their numbers in glibc's malloc.h.
const TRIM_THRESHOLD: i32 = -1;
const MMAP_THRESHOLD: i32 = -3;
const ARENAS: i32 = -8;
/// The size from which a block is separate: a password hash, or a long reply.
const LARGE_BLOCK: i32 = 4 * 1024 * 1024;
/// The free bytes that each arena keeps at its end.
const FREE_BYTES_KEPT: i32 = 8 * 1024 * 1024;

const MIB: u64 = 1024 * 1024;
/// The part of the limit that the allocator may reserve without using it, and the size of an arena.
const ARENAS_PART: u64 = 4;
const ARENA_BYTES: u64 = 64 * MIB;
const ARENAS_MAX: u64 = 64;
/// A thread's stack in the standard library, with its guard pages and its signal stack.
const STACK_BYTES: u64 = 2 * MIB + 32 * 1024;
/// The caches of the embedded store and its connections, or the connections to an external store.
const STORE_BYTES: u64 = 20 * MIB;
const STORE_BYTES_ELSEWHERE: u64 = 8 * MIB;
/// The room for everything else: buffers of loops, connections, fragmentation of the allocator.
const RESERVE: u64 = 16 * MIB;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_needs_room_for_what_its_settings_allow() {
        let mut config = Config::with_defaults("127.0.0.1:0".parse().unwrap());
        config.memory_bytes_max = 8 << 20;
        let small = AddressSpace { limit: 64 * MIB, used: 16 * MIB };
        let error = check_address_space(small, &config).unwrap_err();
        assert_eq!(error.limit, 64 * MIB);
        let enough = AddressSpace { limit: error.needed, used: 16 * MIB };
        assert_eq!(check_address_space(enough, &config), Ok(()));
        config.memory_bytes_max += 1;
        assert!(check_address_space(enough, &config).is_err());
        config.memory_bytes_max -= 1;
        config.lane_bytes_max += 1;
        assert!(check_address_space(enough, &config).is_err());
        assert!(error.to_string().starts_with("the address space is limited to 64 MiB (ulimit -v)"), "{error}");
    }
}
