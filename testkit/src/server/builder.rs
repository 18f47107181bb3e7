//! [`Builder`]: the settings of a server, and its start.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::TestServer;
use crate::leaks::Footprint;
use crate::services::{Database, Redis, RedisUse, free_port};
use crate::{program, wait_until, watchdog};

/// The number of threads that a pool of connections may add while it runs. A pool whose database
/// was unreachable at first starts them later.
const POOL_THREADS: usize = 3;

/// The longest time until a server listens.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A process that listens, with its address and its output.
pub(super) type Launched = (Child, SocketAddr, Arc<Mutex<String>>);

/// The settings of a [`TestServer`].
#[derive(Clone)]
pub struct Builder {
    host: &'static str,
    port: Port,
    options: Vec<(String, String)>,
    files: Vec<(&'static str, String)>,
    pub(super) database: Option<Database>,
    pub(super) redis: Option<RedisUse>,
    descriptors_max: Option<u32>,
    /// A shell command that runs before the server.
    shell: &'static str,
    /// The memory that the server may hold at the end beyond the usual margin, in KiB.
    pub(super) keeps: usize,
}

/// The port that a server listens on.
#[derive(Clone, Copy)]
enum Port {
    /// A new free port at every start.
    Any,
    /// The same port at every start; `None` before the first one.
    Fixed(Option<u16>),
}

impl Builder {
    /// The tests' usual options.
    pub(super) fn usual() -> Builder {
        let builder = Builder {
            host: "127.0.0.1",
            port: Port::Any,
            options: Vec::new(),
            files: Vec::new(),
            database: None,
            redis: None,
            descriptors_max: None,
            shell: "",
            keeps: 0,
        };
        builder.option("argon2", "m=8,t=1,p=1").option("log_dir", "logs")
    }

    /// Adds a command-line option; underscores in `key` become dashes. The last value for a key
    /// counts.
    pub fn option(mut self, key: &str, value: &str) -> Builder {
        let key = key.replace('_', "-");
        self.options.retain(|(known, _)| *known != key);
        self.options.push((key, value.to_owned()));
        self
    }

    /// Sets the address to listen on, instead of 127.0.0.1.
    pub fn host(mut self, host: &'static str) -> Builder {
        self.host = host;
        self
    }

    /// Listens on the same port at every start, so that clients find it again.
    pub fn fixed_port(mut self) -> Builder {
        self.port = Port::Fixed(None);
        self
    }

    /// Stores the data in this MySQL database.
    pub fn mysql(mut self, database: &Database) -> Builder {
        self.database = Some(database.clone());
        self.file("mysql.cnf", database.cnf())
    }

    /// Connects the server to others through this Redis.
    pub fn redis(mut self, redis: &Redis) -> Builder {
        self.redis = Some(redis.in_use());
        self.file("redis.cnf", redis.cnf())
    }

    /// Writes a file into the working directory. The last text for a name counts.
    pub fn file(mut self, name: &'static str, text: String) -> Builder {
        self.files.retain(|(known, _)| *known != name);
        self.files.push((name, text));
        self
    }

    /// Limits the descriptors that the server may have open. The server cannot raise this limit.
    pub fn descriptors_max(mut self, limit: u32) -> Builder {
        self.descriptors_max = Some(limit);
        self
    }

    /// Starts the server from a shell that has first run this command, such as `trap '' HUP`.
    pub fn after(mut self, command: &'static str) -> Builder {
        self.shell = command;
        self
    }

    /// Starts a server that handles SIGHUP even if the tests ignore it, as under nohup(1).
    pub fn heeding_hup(self) -> Builder {
        self.after(r#"exec env --default-signal=HUP "$0" "$@""#)
    }

    /// Lets the server hold this many MiB more than usual after its clients have gone. An allocator
    /// does not return all memory, so tests with very large requests need this.
    pub fn may_keep(mut self, mib: usize) -> Builder {
        self.keeps = mib * 1024;
        self
    }

    /// Starts the server in a fresh folder and waits until it listens.
    pub fn start(mut self) -> TestServer {
        let folder = watchdog::new_folder();
        for (name, text) in &self.files {
            fs::write(folder.join(name), text).unwrap_or_else(|error| panic!("write {name}: {error}"));
        }
        let (child, address, output) = self.launch(&folder);
        if let Port::Fixed(port) = &mut self.port {
            *port = Some(address.port());
        }
        self.database.iter().for_each(Database::joined);
        self.redis.iter().for_each(RedisUse::joined);
        let footprint = self.footprint(&child);
        TestServer::launched(self, folder, (child, address, output), footprint)
    }

    /// The resources that a server holds right after its start.
    pub(super) fn footprint(&self, child: &Child) -> Footprint {
        let footprint = Footprint::of(child.id());
        let mut footprint = footprint.expect("a server that has just said where it listens is there");
        if self.database.as_ref().is_some_and(Database::is_away) {
            footprint.threads += POOL_THREADS;
        }
        footprint
    }

    /// Starts the process. Another process may take the port before the server does, or while it is
    /// down; the start is then retried.
    pub(super) fn launch(&self, folder: &Path) -> Launched {
        const ATTEMPTS: usize = 10;
        for attempt in 1.. {
            let (port, may_be_taken) = match self.port {
                Port::Any => (0, false),
                Port::Fixed(known) => (known.unwrap_or_else(free_port), true),
            };
            match self.try_launch(folder, port) {
                Ok(launched) => return launched,
                Err(said) if may_be_taken && said.contains("cannot listen on") && attempt < ATTEMPTS => {
                    thread::sleep(Duration::from_millis(200));
                }
                Err(said) => panic!("{said}"),
            }
        }
        unreachable!("the last attempt panics")
    }

    fn try_launch(&self, folder: &Path, port: u16) -> Result<Launched, String> {
        let mut child =
            self.command(folder, port).spawn().unwrap_or_else(|error| panic!("cannot start the server: {error}"));
        watchdog::watch(&child, false);
        let output = Arc::new(Mutex::new(String::new()));
        let (first_line, started) = mpsc::channel();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let kept = Arc::clone(&output);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                kept.lock().expect("output").push_str(&format!("{line}\n"));
                let _ = first_line.send(line);
            }
        });
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let kept = Arc::clone(&output);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.lock().expect("output").push_str(&format!("{line}\n"));
            }
        });
        match started.recv_timeout(START_PATIENCE) {
            Ok(line) => {
                let address = listening_address(&line)
                    .unwrap_or_else(|| panic!("the first line must tell the address, but is: {line}"));
                Ok((child, address, output))
            }
            Err(reason) => {
                let _ = child.kill();
                let status = child.wait().expect("wait for the server");
                watchdog::release(&child, false);
                let reason = match reason {
                    RecvTimeoutError::Timeout => "did not say where it listens in time",
                    RecvTimeoutError::Disconnected => "ended before it listened",
                };
                // A child that has just exited may have written more to stderr than its reader has
                // read.
                let mut said = String::new();
                wait_until("the output of a dead server", || {
                    said.clone_from(&output.lock().expect("output"));
                    Arc::strong_count(&output) == 1
                });
                Err(format!("the server {reason} ({status}); it said:\n{said}"))
            }
        }
    }

    fn command(&self, folder: &Path, port: u16) -> Command {
        let program = program::path();
        let mut first = String::new();
        if let Some(limit) = self.descriptors_max {
            first += &format!("ulimit -n {limit}; ");
        }
        if !self.shell.is_empty() {
            first += &format!("{}; ", self.shell);
        }
        let mut command = if first.is_empty() {
            Command::new(program)
        } else {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!(r#"{first}exec "$0" "$@""#)).arg(program);
            shell
        };
        command.arg(self.host).arg(port.to_string());
        for (key, value) in &self.options {
            command.arg(format!("--{key}")).arg(value);
        }
        program::remove_settings(&mut command);
        command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Finds the address in `raybox 1.2.3 listening on 127.0.0.1:6000, …` and returns the one that
/// clients connect to.
fn listening_address(line: &str) -> Option<SocketAddr> {
    let (head, rest) = line.split_once(" listening on ")?;
    if !head.starts_with("raybox ") {
        return None;
    }
    let address = rest.split([',', ' ']).next()?;
    let mut address: SocketAddr = address.parse().ok()?;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Some(address)
}
