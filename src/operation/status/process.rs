//! The kernel's numbers of this process. [`ProcessFiles`] has them even when no descriptor is left.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Files of `/proc`, held open because without a free descriptor none could be opened.
#[derive(Debug)]
pub(super) struct ProcessFiles {
    /// `None` if there is no `/proc`.
    memory: Option<File>,
}

impl ProcessFiles {
    pub(super) fn open() -> ProcessFiles {
        ProcessFiles { memory: File::open("/proc/self/status").ok() }
    }

    /// The resident memory.
    pub(super) fn memory_bytes(&self) -> f64 {
        let mut text = [0; 4096];
        let read = self.memory.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[..read]);
        let resident = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
        kib.unwrap_or_default() * 1024.0
    }
}

/// Open descriptors and their limit. Newer kernels (6.2) return their number. Older ones return a
/// list, which is long with many clients, so this is only for the sample every ten seconds.
pub(super) fn descriptors() -> (f64, f64) {
    let max = getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, |max| max as f64);
    let known = fs::metadata(DESCRIPTORS).map_or(0, |folder| folder.len());
    if known > 0 {
        return (known as f64, max);
    }
    match fs::read_dir(DESCRIPTORS) {
        Ok(entries) => (entries.count() as f64, max),
        // The list itself needs a descriptor.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::MFILE) => (max, max),
        Err(_) => (0.0, max),
    }
}

/// The processor time, in seconds, that the process has used.
pub(super) fn cpu_seconds() -> f64 {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9
}

const DESCRIPTORS: &str = "/proc/self/fd";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_descriptors_and_time() {
        let files = ProcessFiles::open();
        let before = files.memory_bytes();
        assert!(before > 1e6, "{before}");
        let more = vec![1_u8; 64 << 20];
        assert!(files.memory_bytes() > before + 5e7, "the file is read anew: {} {}", files.memory_bytes(), more.len());
        let (open, max) = descriptors();
        assert!(open > 2.0 && max > open, "{open} of {max}");
        assert!(cpu_seconds() > 0.0);
    }
}
