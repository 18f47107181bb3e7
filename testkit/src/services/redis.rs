//! A Redis for one test. A published message reaches every subscriber, whichever database number
//! they have selected.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use redis::{Client, Connection};

use super::process::{Process, start_again, start_on_free_ports};
use crate::leaks::connection_leak;
use crate::{PATIENCE, watchdog};

/// A running redis-server without persistence. Dropping it kills it.
pub struct Redis {
    process: Process,
    port: u16,
    folder: PathBuf,
    options: Vec<String>,
    usage: RedisUse,
}

/// A handle for a server that uses a Redis, for the leak check at the server's exit.
#[derive(Clone)]
pub(crate) struct RedisUse(Arc<Usage>);

struct Usage {
    at: Access,
    /// The number of running servers that use it.
    nodes: AtomicUsize,
    /// Whether the test has killed or frozen it.
    is_away: AtomicBool,
}

/// The way of the testkit to a Redis or a sentinel: without TLS.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) port: u16,
    pub(super) password: Option<&'static str>,
}

impl Access {
    /// A connection.
    pub(super) fn connect(&self) -> redis::RedisResult<Connection> {
        let login = self.password.map(|password| format!(":{password}@")).unwrap_or_default();
        let client = Client::open(format!("redis://{login}127.0.0.1:{}/", self.port))?;
        let connection = client.get_connection_with_timeout(PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        Ok(connection)
    }
}

impl Redis {
    /// Starts a Redis on a free port.
    pub fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// Like [`Redis::start`], with more options, such as `--timeout 1`.
    pub fn start_with(options: &[&str]) -> Redis {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Redis::start_at(watchdog::new_folder(), options, None)
    }

    /// Starts one that wants this password, which `options` set.
    pub(super) fn start_at(folder: PathBuf, options: Vec<String>, password: Option<&'static str>) -> Redis {
        let (process, ports) = start_on_free_ports(
            1,
            |ports| launch(&folder, ports[0], &options),
            |process, ports| answers(process, &Access { port: ports[0], password }),
        );
        let at = Access { port: ports[0], password };
        let usage = Usage { at, nodes: AtomicUsize::new(0), is_away: AtomicBool::new(false) };
        Redis { process, port: ports[0], folder, options, usage: RedisUse(Arc::new(usage)) }
    }

    fn access(&self) -> &Access {
        &self.usage.0.at
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        address(self.port)
    }

    /// The `redis.cnf` of a server that is to use this Redis.
    pub fn cnf(&self) -> String {
        format!("ip=127.0.0.1\nport={}\n", self.port)
    }

    /// Writes the `redis.cnf` into the working directory of a server.
    pub fn write_cnf(&self, folder: &Path) {
        fs::write(folder.join("redis.cnf"), self.cnf()).expect("write redis.cnf");
    }

    /// A new connection to this Redis.
    pub fn connect(&self) -> Connection {
        self.access().connect().expect("connect to Redis")
    }

    /// A connection, unless it does not run.
    pub(super) fn try_connect(&self) -> redis::RedisResult<Connection> {
        self.access().connect()
    }

    /// A handle for a server that is to use this Redis.
    pub(crate) fn in_use(&self) -> RedisUse {
        self.usage.clone()
    }

    /// The number of connections, without the one that counts them.
    pub fn connections(&self) -> usize {
        self.usage.connections()
    }

    /// The counters of one section of `INFO`.
    pub fn info(&self, section: &str) -> HashMap<String, String> {
        info(&mut self.connect(), section).expect("ask Redis for its counters")
    }

    /// Everything that is published from now on, as channel and payload; escapes in the payload
    /// stay. The iterator never ends, so stop at the last item wanted. It panics if nothing comes
    /// for long.
    pub fn watch_published(&self) -> impl Iterator<Item = (String, String)> + use<> {
        let mut monitor = TcpStream::connect(self.address()).expect("connect to Redis");
        monitor.set_read_timeout(Some(PATIENCE)).expect("set the read timeout");
        monitor.write_all(b"MONITOR\r\n").expect("ask for all commands");
        let mut lines = BufReader::new(monitor).lines().map(|line| line.expect("read what Redis does"));
        assert_eq!(lines.next().as_deref(), Some("+OK"));
        // +1700000000.123456 [0 127.0.0.1:40000] "PUBLISH" "channel" "payload"
        lines.filter_map(|line| {
            let words: Vec<&str> = line.splitn(6, '"').collect();
            let [_, command, _, channel, _, payload] = words[..] else { return None };
            let payload = payload.strip_suffix('"')?;
            command.eq_ignore_ascii_case("publish").then(|| (channel.to_owned(), payload.to_owned()))
        })
    }

    /// Kills it, as a crash would: every subscription is gone, and its port is closed.
    pub fn kill(&mut self) {
        self.usage.set_away(true);
        self.process.kill();
    }

    /// Freezes it with SIGSTOP: connections stay open and take bytes, but nothing answers.
    pub fn stop(&self) {
        self.usage.set_away(true);
        self.process.freeze();
    }

    /// Resumes it after [`Redis::stop`].
    pub fn cont(&self) {
        self.process.signal("CONT");
        self.usage.set_away(false);
    }

    /// Makes it a replica of another Redis; its connections stay open.
    pub fn follow(&self, primary: &Redis) {
        let command = redis::cmd("REPLICAOF").arg("127.0.0.1").arg(primary.port).to_owned();
        command.query::<()>(&mut self.connect()).expect("make it a replica");
    }

    /// Whether it is a replica with a connection to its primary. A sentinel that makes it a replica
    /// also ends its connections.
    pub fn is_connected_replica(&self) -> bool {
        let Ok(state) = self.access().connect().and_then(|mut connection| info(&mut connection, "replication")) else {
            return false;
        };
        let is = |name, value: &str| state.get(name).is_some_and(|found| found.trim_end() == value);
        is("role", "slave") && is("master_link_status", "up")
    }

    /// Starts it again on the same port, without data.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process =
            start_again(|| launch(&self.folder, self.port, &self.options), |process| answers(process, self.access()));
        self.usage.set_away(false);
    }
}

impl RedisUse {
    /// Notes that a server begins to use it.
    pub(crate) fn joined(&self) {
        self.0.nodes.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a server that used it has exited.
    pub(crate) fn left(&self) {
        self.0.nodes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Describes connections that servers have kept although their clients have gone.
    pub(crate) fn leak(&self) -> Option<String> {
        let is_away = self.0.is_away.load(Ordering::Relaxed);
        connection_leak("Redis", self.0.nodes.load(Ordering::Relaxed), is_away, || self.connections())
    }

    fn connections(&self) -> usize {
        let mut connection = self.0.at.connect().expect("connect to Redis");
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut connection).expect("ask Redis");
        list.lines().count() - 1
    }

    fn set_away(&self, is_away: bool) {
        self.0.is_away.store(is_away, Ordering::Relaxed);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.usage.set_away(true);
        self.process.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn launch(folder: &Path, port: u16, options: &[String]) -> Process {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
    command.args(["--daemonize", "no", "--dir"]).arg(folder).args(options);
    Process::spawn(command, &folder.join("redis.log"))
}

/// Whether the process that answers on the port is this one.
fn answers(process: &Process, at: &Access) -> bool {
    let counters = at.connect().and_then(|mut connection| info(&mut connection, "server"));
    counters.is_ok_and(|counters| counters.get("process_id").is_some_and(|pid| *pid == process.pid().to_string()))
}

fn info(connection: &mut Connection, section: &str) -> redis::RedisResult<HashMap<String, String>> {
    let text: String = redis::cmd("INFO").arg(section).query(connection)?;
    let pair = |line: &str| line.split_once(':').map(|(key, value)| (key.to_owned(), value.to_owned()));
    Ok(text.lines().filter_map(pair).collect())
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
