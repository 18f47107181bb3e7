//! The target of a measurement: a server that already runs, or the relay, which is started for the
//! run.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::carrier::{Address, Carrier};

/// The target of a run: servers with the processes to measure, or the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Server {
        /// One address for each node; connections are spread over them.
        addresses: Vec<Address>,
        /// The processes to measure, on this machine.
        pids: Vec<u32>,
    },
    Relay(Carrier),
}

impl FromStr for Target {
    type Err = String;

    /// `relay`, `tls-relay`, or `ADDRESS[,ADDRESS...][@PID[,PID...]]`.
    fn from_str(text: &str) -> Result<Target, String> {
        match text {
            "relay" => return Ok(Target::Relay(Carrier::Tcp)),
            "tls-relay" => return Ok(Target::Relay(Carrier::Tls)),
            _ => {}
        }
        let (addresses, pids) = text.split_once('@').map_or((text, None), |(before, after)| (before, Some(after)));
        let addresses = addresses.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let pids = pids.into_iter().flat_map(|pids| pids.split(',')).map(pid);
        Ok(Target::Server { addresses, pids: pids.collect::<Result<_, _>>()? })
    }
}

impl Target {
    pub(crate) fn names_a_process_twice(&self) -> bool {
        let Target::Server { pids, .. } = self else { return false };
        pids.iter().collect::<BTreeSet<_>>().len() < pids.len()
    }

    /// Returns a warning if the measured processes cannot be all that carry the load.
    pub(crate) fn unmeasured(&self) -> Option<String> {
        let Target::Server { addresses, pids } = self else { return None };
        let nodes = addresses.iter().collect::<BTreeSet<_>>().len();
        (!pids.is_empty() && pids.len() < nodes).then(|| {
            format!("{nodes} addresses, and {} measured: processor time and memory are of a part of them", pids.len())
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Server { addresses, .. } => {
                let addresses: Vec<_> = addresses.iter().map(Address::to_string).collect();
                f.write_str(&addresses.join(", "))
            }
            Target::Relay(Carrier::Tls) => f.write_str("the relay with TLS"),
            Target::Relay(_) => f.write_str("the relay"),
        }
    }
}

/// A host and a port.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().map_err(|error| format!("`{text}`: {error}; write HOST:PORT"))?.next();
    found.ok_or_else(|| format!("`{text}` has no address"))
}

/// Parses one PID; `pidof` may print none or several.
pub(crate) fn pid(text: &str) -> Result<u32, String> {
    match text.split_whitespace().count() {
        0 => Err("a process number is missing: does the server run?".to_owned()),
        1 => text.trim().parse().map_err(|_| format!("`{text}` is no process number")),
        _ => Err(format!("`{text}` are several processes: give the server's, with commas between them")),
    }
}

/// The processor time and memory that some processes have used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time, in seconds.
    pub(crate) cpu: f64,
    /// Resident memory in bytes: `VmRSS` of proc(5).
    pub(crate) resident: u64,
    /// The private part of the resident memory, without files and shared memory: `RssAnon`.
    pub(crate) own: u64,
}

impl Usage {
    /// The sum over all these processes; zero for none.
    pub(crate) fn of(pids: &[u32]) -> Result<Usage, String> {
        let mut sum = Usage::default();
        for pid in pids {
            let one = Usage::of_one(*pid)
                .ok_or_else(|| format!("process {pid} has ended, or its processor time and memory cannot be read"))?;
            let Usage { cpu, resident, own } = sum;
            sum = Usage { cpu: cpu + one.cpu, resident: resident + one.resident, own: own + one.own };
        }
        Ok(sum)
    }

    fn of_one(pid: u32) -> Option<Usage> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let bytes = |key: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
        };
        Some(Usage { cpu: cpu(pid)?, resident: bytes("VmRSS:")?, own: bytes("RssAnon:")? })
    }
}

/// The CPU clock of the process: it counts nanoseconds, and includes threads that have ended.
fn cpu(pid: u32) -> Option<f64> {
    let pid = Pid::from_raw(i32::try_from(pid).ok().filter(|pid| *pid > 0)?);
    let time = clock_getcpuclockid(pid).and_then(clock_gettime).ok()?;
    Some(Duration::from(time).as_secs_f64())
}

/// Measures what some processes use between `start` and `stop`.
#[derive(Debug)]
pub(crate) struct Meter<'a> {
    pids: &'a [u32],
    before: Result<Usage, String>,
    since: Instant,
}

/// A period, and the resources that the target used in it.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) elapsed: Duration,
    /// The processor time within this period, and the memory at its end. `None` if there are no
    /// processes to measure, an error if one has ended.
    pub(crate) used: Result<Option<Usage>, String>,
}

impl<'a> Meter<'a> {
    /// Starts measuring at this instant, or shortly after it.
    pub(crate) fn start(pids: &'a [u32], since: Instant) -> Meter<'a> {
        Meter { pids, before: Usage::of(pids), since }
    }

    pub(crate) fn stop(self, end: Instant) -> Measured {
        let used = Usage::of(self.pids).and_then(|after| {
            let before = self.before?;
            Ok((!self.pids.is_empty()).then_some(Usage { cpu: after.cpu - before.cpu, ..after }))
        });
        Measured { elapsed: end - self.since, used }
    }
}

#[cfg(test)]
mod tests {
    use nix::time::ClockId;

    use super::*;

    #[test]
    fn a_target_is_read() {
        let address = |text: &str| text.parse::<Address>().expect("an address");
        let server =
            Target::Server { addresses: vec![address("127.0.0.1:6000"), address("127.0.0.1:6001")], pids: vec![7, 8] };
        assert_eq!("127.0.0.1:6000,127.0.0.1:6001@7,8".parse(), Ok(server));
        assert_eq!("relay".parse(), Ok(Target::Relay(Carrier::Tcp)));
        assert_eq!("tls-relay".parse(), Ok(Target::Relay(Carrier::Tls)));
        let server = Target::Server { addresses: vec![address("ws://127.0.0.1:1")], pids: vec![7] };
        assert_eq!("ws://127.0.0.1:1@7".parse(), Ok(server));
        assert!("nowhere".parse::<Target>().is_err());
        for (text, why) in [("x", "no process number"), ("", "is missing"), ("7,", "is missing"), ("7 8", "several")] {
            let error = format!("127.0.0.1:1@{text}").parse::<Target>().expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_node_without_a_measured_process_is_reported() {
        let is_told = |text: &str| text.parse::<Target>().expect(text).unmeasured().is_some();
        assert!(is_told("127.0.0.1:1,127.0.0.1:2@7"));
        for text in ["127.0.0.1:1,127.0.0.1:2@7,8", "127.0.0.1:1,127.0.0.1:2", "127.0.0.1:1,127.0.0.1:1@7", "relay"] {
            assert!(!is_told(text), "{text}");
        }
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::of(&[std::process::id()]).expect("it runs");
        assert!(usage.cpu > 0.0 && usage.resident > usage.own && usage.own > 0);
        assert!(Usage::of(&[u32::MAX]).is_err());
        assert!(Usage::of(&[0]).is_err(), "0 would be this process");
    }

    #[test]
    fn the_cpu_time_of_an_ended_thread_still_counts() {
        let own = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).expect("a clock");
        let pids = [std::process::id()];
        let meter = Meter::start(&pids, Instant::now());
        let thread = std::thread::spawn(move || while own() < Duration::from_millis(50) {});
        thread.join().expect("it ends");
        let used = meter.stop(Instant::now()).used.expect("it runs").expect("a process");
        assert!(used.cpu >= 0.05, "{used:?}");
    }
}
