//! An nginx for one test, which forwards TCP.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Process, start_again, start_on_free_ports};
use crate::{LONG_PATIENCE, text_of, wait_within, watchdog};

/// A running nginx. Dropping it kills it.
pub struct Nginx {
    process: Process,
    addresses: Vec<SocketAddr>,
    folder: PathBuf,
}

impl Nginx {
    /// Starts nginx on this number of free ports of 127.0.0.1. `conf` gets the addresses and
    /// returns the content of `stream { }`.
    pub fn start(ports: usize, conf: impl Fn(&[SocketAddr]) -> String) -> Nginx {
        Nginx::start_with(Ipv4Addr::LOCALHOST, ports, |folder, listen| {
            fs::write(folder.join("nginx.conf"), whole_conf(folder, &conf(listen))).expect("write nginx.conf");
        })
    }

    /// The settings of `conf/`, with these servers and with paths of this test. The servers must
    /// expect a PROXY header from [`Nginx::COMES_FROM`].
    pub fn as_shipped(servers: &[SocketAddr]) -> Nginx {
        Nginx::as_shipped_on(Ipv4Addr::LOCALHOST, servers)
    }

    /// The same, listening on another address of this machine.
    pub fn as_shipped_on(host: Ipv4Addr, servers: &[SocketAddr]) -> Nginx {
        Nginx::with_file(host, "tcp.d/chat_server.conf", servers)
    }

    /// The settings of `conf/` for a migration, with servers of the reference among these: no
    /// server gets a PROXY header.
    pub fn beside_reference(servers: &[SocketAddr]) -> Nginx {
        Nginx::with_file(Ipv4Addr::LOCALHOST, "replacement/chat_server.conf", servers)
    }

    fn with_file(host: Ipv4Addr, file: &str, servers: &[SocketAddr]) -> Nginx {
        let shipped = |name: &str| text_of(&format!("conf/{name}"));
        let (frame, forward) = (shipped("nginx.conf"), shipped(file));
        Nginx::start_with(host, 1, |folder, listen| {
            let frame = replace_lines(&frame, "pid ", &format!("pid {}/nginx.pid;", folder.display()));
            let frame = replace_lines(&frame, "error_log ", "error_log stderr warn;");
            let servers: Vec<String> =
                servers.iter().map(|server| format!("server {server} max_fails=1 fail_timeout=5s;")).collect();
            let forward = replace_lines(&forward, "    server server", &servers.join("\n"));
            let forward = replace_lines(&forward, "    listen ", &format!("listen {};", listen[0]));
            let forward = format!("{forward}\nproxy_bind {};\n", Nginx::COMES_FROM);
            fs::create_dir_all(folder.join("tcp.d")).expect("create a folder for nginx");
            fs::write(folder.join("nginx.conf"), frame).expect("write nginx.conf");
            fs::write(folder.join("tcp.d/chat_server.conf"), forward).expect("write chat_server.conf");
        })
    }

    /// The source address of its connections to the servers with the shipped settings, so that they
    /// can tell it from other clients.
    pub const COMES_FROM: &str = "127.0.0.2";

    fn start_with(host: Ipv4Addr, ports: usize, write_conf: impl Fn(&Path, &[SocketAddr])) -> Nginx {
        let folder = watchdog::new_folder();
        let launch = |ports: &[u16]| {
            write_conf(&folder, &addresses(host, ports));
            launch(&folder)
        };
        let (process, ports) = start_on_free_ports(ports, launch, |process, _| has_written_its_pid(&folder, process));
        Nginx { process, addresses: addresses(host, &ports), folder }
    }

    /// Kills it, as a crash would. Returns when every connection through it has ended.
    pub fn kill(&mut self) {
        let workers = self.workers();
        self.process.kill();
        wait_within(LONG_PATIENCE, "nginx's workers have ended", || !workers.iter().copied().any(has_open_files));
    }

    /// Makes it read its settings again, as after a change (SIGHUP): new worker processes accept
    /// new connections, and the old ones stay for as long as theirs do. Returns when there is a new
    /// one.
    pub fn reload(&self) {
        let before = self.workers();
        self.process.signal("HUP");
        wait_within(LONG_PATIENCE, "nginx has new workers", || {
            self.workers().iter().any(|worker| !before.contains(worker))
        });
    }

    /// The PIDs of its workers, including old ones that only wait for their connections to end.
    pub fn workers(&self) -> BTreeSet<u32> {
        let master = self.process.pid();
        let path = format!("/proc/{master}/task/{master}/children");
        let children = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"));
        children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
    }

    /// Starts it again on the same ports.
    pub fn restart(&mut self) {
        self.process.kill();
        let folder = &self.folder;
        self.process = start_again(|| launch(folder), |process| has_written_its_pid(folder, process));
    }

    /// One port in front of each list of servers, which take turns; a server that does not answer
    /// is left out for a second. A client that shuts down only its sending direction still gets
    /// answers, unlike with nginx's defaults.
    pub fn balancing(groups: &[&[SocketAddr]]) -> Nginx {
        Nginx::start(groups.len(), |listen| {
            let mut conf = String::new();
            for (number, (group, address)) in groups.iter().zip(listen).enumerate() {
                let servers: String =
                    group.iter().map(|server| format!("server {server} max_fails=1 fail_timeout=1s;\n")).collect();
                conf.push_str(&format!(
                    "upstream group{number} {{\n{servers}}}\nserver {{ listen {address}; proxy_pass group{number}; \
                     proxy_connect_timeout 1s; proxy_timeout 1h; proxy_half_close on; }}\n"
                ));
            }
            conf
        })
    }

    /// The addresses it listens on, in the order of its ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.process.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn launch(folder: &Path) -> Process {
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-g", "daemon off;", "-c"]).arg(folder.join("nginx.conf"));
    Process::spawn_with_children(command, &folder.join("nginx.log"))
}

fn whole_conf(folder: &Path, stream: &str) -> String {
    // Debian builds the stream part as a module to be loaded.
    let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
    let load = if module.exists() { format!("load_module {};\n", module.display()) } else { String::new() };
    format!(
        "{load}pid {}/nginx.pid;\nerror_log stderr warn;\nworker_rlimit_nofile 65536;\n\
         events {{ worker_connections 30000; }}\nstream {{\n{stream}}}\n",
        folder.display()
    )
}

/// Replaces the lines that begin with `beginning` by one `replacement`; there must be at least one.
fn replace_lines(text: &str, beginning: &str, replacement: &str) -> String {
    let first = text.lines().position(|line| line.starts_with(beginning));
    let first = first.unwrap_or_else(|| panic!("no line begins with {beginning:?}"));
    let mut kept: Vec<&str> = text.lines().filter(|line| !line.starts_with(beginning)).collect();
    kept.insert(first, replacement);
    kept.join("\n")
}

/// Whether it has its ports: it binds them before it writes its PID file, and exits if it cannot.
fn has_written_its_pid(folder: &Path, process: &Process) -> bool {
    let pid = fs::read_to_string(folder.join("nginx.pid")).unwrap_or_default();
    pid.trim() == process.pid().to_string()
}

fn addresses(host: Ipv4Addr, ports: &[u16]) -> Vec<SocketAddr> {
    ports.iter().map(|port| SocketAddr::from((host, *port))).collect()
}

/// Whether this process lives; an exited one may still be listed, but without open files.
fn has_open_files(pid: u32) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|files| files.count() > 0)
}
