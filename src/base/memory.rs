//! The memory that this process may have.

use std::fs;
use std::path::{Component, Path, PathBuf};

use rustix::process::{Resource, getrlimit};

/// A limit of the address space, and the bytes of it that the process has reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressSpace {
    /// The bytes that the process may reserve.
    pub limit: u64,
    /// The bytes that the process has reserved.
    pub used: u64,
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

    /// The bytes that are not reserved.
    fn left(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// The part of this process's memory, in bytes, for unfinished frames and for replies on their way.
pub fn for_clients() -> usize {
    let space = AddressSpace::of_process().map(AddressSpace::left);
    let own = getrlimit(Resource::Data).current;
    let memory = memory(Path::new("/")).into_iter().chain(space).chain(own).min().unwrap_or(MEMORY_USUALLY);
    usize::try_from(memory / MEMORY_PART).unwrap_or(usize::MAX).clamp(MEMORY_MIN, MEMORY_MAX)
}

/// The machine's memory in bytes, or a lower limit of the process's control groups.
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
        // The limits of the enclosing groups hold as well. In a container the own group is often
        // the root.
        let inside = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_)));
        let inside: PathBuf = inside.collect();
        inside.ancestors().map(|group| root.join(mount).join(group).join(file)).collect()
    });
    of_groups.filter_map(number).chain(machine).min()
}

/// With `memory_max=auto`, clients may use one eighth of all memory.
const MEMORY_PART: u64 = 8;
const MEMORY_MIN: usize = 8 << 20;
/// The most memory for clients by default: more would help only an attacker.
const MEMORY_MAX: usize = 512 << 20;
/// The memory that is assumed if it cannot be read.
const MEMORY_USUALLY: u64 = 1 << 30;
/// The reserved bytes that are assumed if they cannot be read.
const USED_USUALLY: u64 = 16 << 20;

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
    fn there_is_some_memory() {
        assert!((MEMORY_MIN..=MEMORY_MAX).contains(&for_clients()));
    }
}
