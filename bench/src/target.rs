//! What is measured: a server that runs already, or the relay, which is started for the run.

use std::fmt;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// Where to connect to, and whose processor time counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Server {
        /// One for each node; connections are spread over them.
        addresses: Vec<SocketAddr>,
        /// The processes measured, on this machine.
        pids: Vec<u32>,
    },
    Relay,
}

impl FromStr for Target {
    type Err = String;

    /// `relay`, or `ADDRESS[,ADDRESS...][@PID[,PID...]]`.
    fn from_str(text: &str) -> Result<Target, String> {
        if text == "relay" {
            return Ok(Target::Relay);
        }
        let (addresses, pids) = text.split_once('@').unwrap_or((text, ""));
        let addresses = addresses.split(',').map(address).collect::<Result<_, _>>()?;
        let pids = pids.split(',').filter(|pid| !pid.is_empty());
        let pids = pids.map(|pid| pid.parse().map_err(|_| format!("`{pid}` is no process number")));
        Ok(Target::Server { addresses, pids: pids.collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Server { addresses, .. } => {
                let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
                f.write_str(&addresses.join(", "))
            }
            Target::Relay => f.write_str("the relay"),
        }
    }
}

/// A host and a port.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().map_err(|error| format!("`{text}`: {error}; write HOST:PORT"))?.next();
    found.ok_or_else(|| format!("`{text}` has no address"))
}

/// What some processes have used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time, in seconds.
    pub(crate) cpu: f64,
    /// Memory of their own that is resident, in bytes.
    pub(crate) memory: u64,
}

impl Usage {
    /// Of all these processes together; none are no usage.
    pub(crate) fn of(pids: &[u32]) -> Result<Usage, String> {
        let mut sum = Usage::default();
        for pid in pids {
            let cpu = cpu(*pid).ok_or_else(|| format!("cannot read the processor time of process {pid}"))?;
            let memory = memory(*pid).ok_or_else(|| format!("cannot read the memory of process {pid}"))?;
            sum = Usage { cpu: sum.cpu + cpu, memory: sum.memory + memory };
        }
        Ok(sum)
    }
}

/// The nanoseconds of each thread's `schedstat` (proc(5)): `stat` counts in hundredths of a second.
fn cpu(pid: u32) -> Option<f64> {
    let mut nanoseconds = 0_u64;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // A thread may end meanwhile.
        let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        nanoseconds += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(nanoseconds as f64 / 1e9)
}

fn memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let server =
            Target::Server { addresses: vec![address("127.0.0.1:6000"), address("127.0.0.1:6001")], pids: vec![7, 8] };
        assert_eq!("127.0.0.1:6000,127.0.0.1:6001@7,8".parse(), Ok(server));
        assert_eq!("relay".parse(), Ok(Target::Relay));
        assert!("nowhere".parse::<Target>().is_err());
        assert!("127.0.0.1:1@x".parse::<Target>().is_err());
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::of(&[std::process::id()]).expect("it runs");
        assert!(usage.cpu > 0.0 && usage.memory > 0);
        assert!(Usage::of(&[u32::MAX]).is_err());
    }
}
