//! A service process of the testkit, and the port it listens on.

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use crate::{freeze, signal, signal_group, wait_within, watchdog};

/// The longest time until a service answers. Only a service that never answers takes this long.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A child process whose output goes to a log in its folder. Dropping it kills it.
pub(super) struct Process {
    child: Child,
    /// Whether it starts processes of its own, which share its process group.
    has_children: bool,
    status: Option<ExitStatus>,
    log: PathBuf,
}

impl Process {
    /// Runs `command`; its output goes to `log`.
    pub(super) fn spawn(command: Command, log: &Path) -> Process {
        Process::start(command, log, false)
    }

    /// Like [`Process::spawn`], for a command that starts processes of its own, which are killed
    /// with it.
    pub(super) fn spawn_with_children(mut command: Command, log: &Path) -> Process {
        command.process_group(0);
        Process::start(command, log, true)
    }

    fn start(mut command: Command, log: &Path, has_children: bool) -> Process {
        let program = command.get_program().to_string_lossy().into_owned();
        let output = File::create(log).expect("create a log");
        let errors = output.try_clone().expect("share a log");
        let spawned = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let child = spawned.unwrap_or_else(|error| panic!("cannot run {program} ({error}): run ./test.sh"));
        watchdog::watch(&child, has_children);
        Process { child, has_children, status: None, log: log.to_owned() }
    }

    /// The process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the signal of this name.
    pub(super) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Freezes it with SIGSTOP.
    pub(super) fn freeze(&self) {
        freeze(self.pid());
    }

    /// Kills it with SIGKILL.
    pub(super) fn kill(&mut self) {
        // Once the exit status was taken, the PID may belong to another process.
        if self.has_children && self.status().is_none() {
            signal_group(self.pid(), "KILL");
        }
        let _ = self.child.kill();
        self.child.wait().expect("wait for a server");
        self.status();
    }

    /// Its exit status, if it has exited.
    pub(super) fn status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("look after a server");
            if self.status.is_some() {
                watchdog::release(&self.child, self.has_children);
            }
        }
        self.status
    }

    /// Its output.
    pub(super) fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("{} ends with:\n{}", self.log.display(), last_lines(&self.printed(), 15));
        }
    }
}

/// Starts a service that listens on one or more `ports`. `launch` starts it on given ports, and
/// `serves` tells whether *this* process answers there.
///
/// Another process may take a free port before the service does. The service then exits, and other
/// ports are tried.
pub(super) fn start_on_free_ports(
    ports: usize,
    mut launch: impl FnMut(&[u16]) -> Process,
    mut serves: impl FnMut(&Process, &[u16]) -> bool,
) -> (Process, Vec<u16>) {
    for _ in 0..ATTEMPTS {
        let ports: Vec<u16> = (0..ports).map(|_| free_port()).collect();
        let mut process = launch(&ports);
        if wait_served(&mut process, |process| serves(process, &ports)) {
            return (process, ports);
        }
    }
    panic!("no server started in {ATTEMPTS} attempts on free ports");
}

/// Starts a service again on the ports that it had before. They are below the range of outgoing
/// connections, so hardly any process takes them meanwhile. If one has, this waits until it
/// releases them.
pub(super) fn start_again(mut launch: impl FnMut() -> Process, mut serves: impl FnMut(&Process) -> bool) -> Process {
    for _ in 0..ATTEMPTS {
        let mut process = launch();
        if wait_served(&mut process, &mut serves) {
            return process;
        }
    }
    panic!("the server did not start again on its ports in {ATTEMPTS} attempts");
}

/// Waits until the service answers; false if it has exited because its port is in use.
fn wait_served(process: &mut Process, mut serves: impl FnMut(&Process) -> bool) -> bool {
    let mut ended = false;
    wait_within(START_PATIENCE, "a server starts to serve", || {
        ended = process.status().is_some();
        ended || serves(process)
    });
    if ended {
        let printed = process.printed();
        assert!(printed.contains("in use"), "a server did not start; it said:\n{printed}");
    }
    !ended
}

/// A free port on 127.0.0.1 outside the range of outgoing connections, which begins at 32768. A
/// process gets each port once: two services that start at the same time do not get the same one.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u64 = 12_000;
    loop {
        let random = getrandom::u64().expect("random numbers");
        let port = FIRST + u16::try_from(random % COUNT).expect("less than COUNT");
        let is_free = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok();
        if is_free && GIVEN.lock().expect("the ports that were given").insert(port) {
            return port;
        }
    }
}

/// The ports that [`free_port`] has given.
static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

const ATTEMPTS: usize = 10;
