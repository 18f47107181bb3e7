//! [`Supervisor`]: informs the service manager that started this process, such as systemd
//! (sd_notify(3)).
//!
//! `NOTIFY_SOCKET` names a datagram socket; without it, nothing is sent. Each datagram has lines of
//! the form `NAME=value`:
//!
//! | when | lines |
//! |---|---|
//! | clients may connect | `READY=1` |
//! | a SIGHUP has come | `RELOADING=1`, and `READY=1` when the settings have been read again |
//! | the server stops | `STOPPING=1`, and `EXTEND_TIMEOUT_USEC`, how long that may take; a rescue may take longer |
//! | three times in `WATCHDOG_USEC`, while every event loop turns | `WATCHDOG=1` |
//! | with each of them | `STATUS`, a line for `systemctl status` |
//!
//! While a loop stands still, no `WATCHDOG=1` is sent, so the service manager restarts the process.
//! A database that does not answer does not cause this, because a restart would not help.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use crate::operation::health::{Health, LOOP_PATIENCE, Report};

/// The service manager, if there is one. Any thread may call it. A manager that does not read
/// delays the caller by a second at most.
#[derive(Clone, Debug, Default)]
pub struct Supervisor(Option<Arc<Socket>>);

#[derive(Debug)]
struct Socket {
    socket: UnixDatagram,
    address: SocketAddr,
    /// The interval in which it expects a report that the loops turn.
    watchdog: Option<Duration>,
    /// The last line for `STATUS` while the node works well.
    status: Mutex<String>,
}

/// The thread that reports that the loops turn. It ends when this is dropped.
#[derive(Debug)]
pub struct Watchdog {
    _end: Sender<()>,
}

impl Supervisor {
    /// The service manager that the variables `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`
    /// name. `variable` returns the value of a variable.
    ///
    /// # Errors
    ///
    /// If they name something unusable. The text is one line for the operator.
    pub fn of(variable: impl Fn(&str) -> Option<OsString>) -> Result<Supervisor, String> {
        let Some(name) = variable(SOCKET).filter(|name| !name.is_empty()) else { return Ok(Supervisor(None)) };
        let address = match name.as_bytes() {
            [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name),
            [b'/', ..] => SocketAddr::from_pathname(&name),
            _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
        };
        let refuse = |error: io::Error| {
            format!("{SOCKET}={name:?}: {error}; the service manager is not notified, use a path or @NAME")
        };
        let address = address.map_err(refuse)?;
        let socket = UnixDatagram::unbound().map_err(refuse)?;
        socket.set_write_timeout(Some(SEND_PATIENCE)).map_err(refuse)?;
        let watchdog = watchdog_of(&variable)?;
        Ok(Supervisor(Some(Arc::new(Socket { socket, address, watchdog, status: Mutex::default() }))))
    }

    /// Reports that clients may connect. `status` is shown from now on.
    pub fn ready(&self, status: &str) {
        if let Some(socket) = &self.0 {
            status.clone_into(&mut socket.status.lock());
            socket.send(&format!("READY=1\nSTATUS={status}"));
        }
    }

    /// Reports that the settings are about to be reloaded.
    pub fn reloading(&self) {
        if let Some(socket) = &self.0 {
            let now = clock_gettime(ClockId::Monotonic);
            // The microseconds since the start of the machine fit.
            let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
            socket.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading the settings again"));
        }
    }

    /// Reports that the settings have been reloaded.
    pub fn reloaded(&self) {
        if let Some(socket) = &self.0 {
            socket.send(&format!("READY=1\nSTATUS={}", socket.status.lock()));
        }
    }

    /// Reports that the server stops. The process exits within this time, unless the database is
    /// lost: its rescue has no limit, so the service manager's kill timeout should have none
    /// either.
    pub fn stopping(&self, within: Duration) {
        if let Some(socket) = &self.0 {
            "finishing what is in flight".clone_into(&mut socket.status.lock());
            let micros = within.as_micros();
            socket.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS={}", socket.status.lock()));
        }
    }

    /// Starts a thread named `watchdog` if the service manager expects reports that the event loops
    /// turn.
    ///
    /// # Errors
    ///
    /// If the system cannot start a thread.
    pub fn watch(&self, health: Arc<Health>) -> io::Result<Option<Watchdog>> {
        self.watch_with(health, LOOP_PATIENCE)
    }

    /// `patience` is how long a loop may stand still.
    fn watch_with(&self, health: Arc<Health>, patience: Duration) -> io::Result<Option<Watchdog>> {
        let Some(socket) = self.0.clone() else { return Ok(None) };
        let Some(beat) = socket.watchdog.map(|period| (period / BEATS).max(BEAT_MIN)) else { return Ok(None) };
        let (end, ended) = crossbeam_channel::bounded(0);
        let run = move || {
            loop {
                // The answers to the last question come first, then the next question.
                socket.tell_whether_alive(&health.alive_within(patience));
                health.ask_loops();
                if ended.recv_timeout(beat) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        thread::Builder::new().name("watchdog".to_owned()).spawn(run)?;
        Ok(Some(Watchdog { _end: end }))
    }
}

impl Socket {
    fn tell_whether_alive(&self, report: &Report) {
        match report.good {
            true => self.send(&format!("WATCHDOG=1\nSTATUS={}", self.status.lock())),
            false => self.send(&format!("STATUS={}", report.text.trim_end().replace('\n', ", "))),
        }
    }

    fn send(&self, lines: &str) {
        if let Err(error) = self.socket.send_to_addr(lines.as_bytes(), &self.address) {
            log::warn!(
                "the service manager was not notified of {:?}: {error}",
                lines.lines().next().unwrap_or_default()
            );
        }
    }
}

/// The time that the variables of sd_watchdog_enabled(3) give; `None` if they are for another
/// process.
fn watchdog_of(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Duration>, String> {
    let number = |name: &str| -> Result<Option<u64>, String> {
        let Some(value) = variable(name) else { return Ok(None) };
        let number = value.to_str().and_then(|value| value.parse().ok()).filter(|number| *number > 0);
        number.map(Some).ok_or_else(|| format!("{name}={value:?} is not a number; the service manager is not notified"))
    };
    let (period, pid) = (number(WATCHDOG)?, number(WATCHDOG_PID)?);
    let is_for_us = pid.is_none_or(|pid| pid == u64::from(process::id()));
    Ok(period.filter(|_| is_for_us).map(Duration::from_micros))
}

const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";
/// The number of reports in the time after which the service manager restarts the process.
const BEATS: u32 = 3;
/// The shortest interval between reports.
const BEAT_MIN: Duration = Duration::from_millis(10);
/// How long to wait for a service manager that does not read.
const SEND_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::operation::health::tests::with_a_stuck_loop;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A service manager that a test plays.
    struct Manager {
        socket: UnixDatagram,
        file: Option<PathBuf>,
        name: OsString,
    }

    impl Manager {
        fn new(name: &str, is_abstract: bool) -> Manager {
            let file = env::temp_dir().join(format!("raybox-notify-{}-{name}", process::id()));
            let text = file.to_str().unwrap().to_owned();
            let (socket, file, name) = if is_abstract {
                let address = SocketAddr::from_abstract_name(&text).unwrap();
                (UnixDatagram::bind_addr(&address).unwrap(), None, format!("@{text}"))
            } else {
                (UnixDatagram::bind(&file).unwrap(), Some(file), text)
            };
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            Manager { socket, file, name: name.into() }
        }

        fn supervisor(&self, more: &[(&str, &str)]) -> Result<Supervisor, String> {
            Supervisor::of(|name| match name {
                SOCKET => Some(self.name.clone()),
                _ => more.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()),
            })
        }

        fn recv(&self) -> String {
            let mut bytes = [0; 1000];
            let length = self.socket.recv(&mut bytes).expect("a message in time");
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        }
    }

    impl Drop for Manager {
        fn drop(&mut self) {
            self.file.as_ref().map(fs::remove_file);
        }
    }

    #[test]
    fn a_service_manager_hears_the_life_of_the_server() {
        for is_abstract in [false, true] {
            let manager = Manager::new("life", is_abstract);
            let supervisor = manager.supervisor(&[]).unwrap();
            supervisor.ready("listening");
            assert_eq!(manager.recv(), "READY=1\nSTATUS=listening");
            supervisor.reloading();
            let reloading = manager.recv();
            let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.split_once('\n'));
            assert!(
                micros.is_some_and(|(micros, _)| micros.parse().is_ok_and(|micros: u64| micros > 0)),
                "{reloading}"
            );
            supervisor.reloaded();
            assert_eq!(manager.recv(), "READY=1\nSTATUS=listening");
            supervisor.stopping(Duration::from_millis(1500));
            assert_eq!(manager.recv(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=1500000\nSTATUS=finishing what is in flight");
        }
    }

    #[test]
    fn without_a_service_manager_nothing_is_reported() {
        for value in [None, Some("")] {
            let supervisor = Supervisor::of(|name| value.filter(|_| name == SOCKET).map(OsString::from)).unwrap();
            supervisor.ready("listening");
            supervisor.stopping(Duration::ZERO);
            assert!(supervisor.watch(Arc::new(Health::new(Arc::new([]), None))).unwrap().is_none());
        }
    }

    #[test]
    fn variables_that_cannot_be_used_are_named() {
        let refusal = |socket: &str| Supervisor::of(|name| (name == SOCKET).then(|| socket.into())).unwrap_err();
        for socket in ["vsock:2:1", "relative", &format!("/{}", "x".repeat(200))] {
            let text = refusal(socket);
            assert!(
                text.starts_with(&format!("NOTIFY_SOCKET={socket:?}: ")) && text.ends_with("use a path or @NAME"),
                "{text}"
            );
        }
        let manager = Manager::new("variables", true);
        for (name, value) in [(WATCHDOG, "soon"), (WATCHDOG, "0"), (WATCHDOG_PID, "me")] {
            let text = manager.supervisor(&[(name, value)]).unwrap_err();
            assert_eq!(text, format!("{name}={value:?} is not a number; the service manager is not notified"));
        }
    }

    #[test]
    fn a_service_manager_that_is_gone_or_does_not_read_stops_nobody() {
        let manager = Manager::new("gone", true);
        let supervisor = manager.supervisor(&[]).unwrap();
        // More than the kernel queues for one that does not read (sysctl net.unix.max_dgram_qlen);
        // each that does not fit has its second.
        let longest: u32 =
            fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").map_or(10, |text| text.trim().parse().unwrap());
        (0..longest + 3).for_each(|_| supervisor.ready("listening"));
        drop(manager);
        supervisor.ready("listening");
    }

    #[test]
    fn only_a_watchdog_of_this_process_is_fed() {
        let manager = Manager::new("pid", true);
        let health = || Arc::new(Health::new(Arc::new([]), None));
        let watch = |pid: u32| {
            let supervisor = manager.supervisor(&[(WATCHDOG, "30000"), (WATCHDOG_PID, &pid.to_string())]).unwrap();
            supervisor.watch(health()).unwrap()
        };
        assert!(watch(process::id() + 1).is_none());
        let watchdog = watch(process::id());
        assert!(watchdog.is_some());
        assert_eq!((manager.recv(), manager.recv()), ("WATCHDOG=1\nSTATUS=".into(), "WATCHDOG=1\nSTATUS=".into()));
    }

    #[test]
    fn a_watchdog_is_not_fed_while_a_loop_stands_still() {
        with_a_stuck_loop(|health, release| {
            let manager = Manager::new("stuck", true);
            let supervisor = manager.supervisor(&[(WATCHDOG, "30000")]).unwrap();
            supervisor.ready("listening");
            let watchdog = supervisor.watch_with(health.clone(), Duration::from_millis(50)).unwrap();
            assert!(watchdog.is_some());
            let is_stuck = |text: &str| text.contains("STATUS=loop-0: no sign of life for ");
            while !is_stuck(&manager.recv()) {}
            for _ in 0..5 {
                let text = manager.recv();
                assert!(is_stuck(&text) && !text.contains("WATCHDOG=1"), "{text}");
            }
            drop(release);
            while manager.recv() != "WATCHDOG=1\nSTATUS=listening" {}
        });
    }
}
