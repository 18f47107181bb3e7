//! The machine and the software that a result was measured with.

use std::fs;
use std::thread;

use jiff::{Timestamp, Unit};
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Environment {
    pub(crate) version: &'static str,
    /// The date and time in UTC.
    pub(crate) date: String,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    /// The processors that this process may use.
    pub(crate) cores: usize,
}

impl Environment {
    pub(crate) fn here() -> Environment {
        let now = Timestamp::now();
        let system = rustix::system::uname();
        let (name, release) = (system.sysname().to_string_lossy(), system.release().to_string_lossy());
        let machine = system.machine().to_string_lossy();
        Environment {
            version: env!("CARGO_PKG_VERSION"),
            date: now.round(Unit::Second).unwrap_or(now).to_string(),
            kernel: format!("{name} {release} {machine}"),
            cpu: cpu().unwrap_or_else(|| "unknown".to_owned()),
            cores: thread::available_parallelism().map_or(0, usize::from),
        }
    }
}

/// Not every architecture reports its model name.
fn cpu() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned())
}
