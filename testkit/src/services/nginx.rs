//! An nginx for one test, which forwards TCP.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Process, start_again, start_on_free_ports};
use crate::tls::Certificate;
use crate::{LONG_PATIENCE, freeze, signal, text_of, wait_within, watchdog};

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

    /// The settings of `conf/`, with these servers and with the paths of this test. The servers
    /// must expect a PROXY header from [`Nginx::COMES_FROM`].
    pub fn as_shipped(servers: &[SocketAddr]) -> Nginx {
        Nginx::as_shipped_on(Ipv4Addr::LOCALHOST, servers)
    }

    /// Like [`Nginx::as_shipped`], listening on another address of this machine.
    pub fn as_shipped_on(host: Ipv4Addr, servers: &[SocketAddr]) -> Nginx {
        Nginx::with_file(host, "tcp.d/chat_server.conf", servers)
    }

    /// The settings of `conf/` for a migration, in which some of these servers are of the
    /// reference. No server gets a PROXY header.
    pub fn beside_reference(servers: &[SocketAddr]) -> Nginx {
        Nginx::with_file(Ipv4Addr::LOCALHOST, "replacement/chat_server.conf", servers)
    }

    /// Like [`Nginx::as_shipped`], with a second port, where nginx speaks TLS.
    pub fn as_shipped_with_tls(servers: &[SocketAddr], certificate: &Certificate) -> Nginx {
        let tls = shipped("tls.d/chat_server.conf");
        Nginx::with_files(Ipv4Addr::LOCALHOST, 2, "tcp.d/chat_server.conf", servers, |folder, listen| {
            let (chain, key) = (folder.join("fullchain.pem"), folder.join("privkey.pem"));
            let tls = replace_lines(&tls, "    listen ", &format!("listen {} ssl;", listen[1]));
            let tls = replace_lines(&tls, "    ssl_certificate ", &format!("ssl_certificate {};", chain.display()));
            let tls =
                replace_lines(&tls, "    ssl_certificate_key ", &format!("ssl_certificate_key {};", key.display()));
            fs::create_dir_all(folder.join("tls.d")).expect("create a folder for nginx");
            fs::write(chain, &certificate.chain).expect("write the certificate");
            fs::write(key, &certificate.key).expect("write the key");
            fs::write(folder.join("tls.d/chat_server.conf"), tls).expect("write chat_server.conf");
        })
    }

    fn with_file(host: Ipv4Addr, file: &str, servers: &[SocketAddr]) -> Nginx {
        Nginx::with_files(host, 1, file, servers, |_, _| {})
    }

    fn with_files(
        host: Ipv4Addr,
        ports: usize,
        file: &str,
        servers: &[SocketAddr],
        write_more: impl Fn(&Path, &[SocketAddr]),
    ) -> Nginx {
        let (frame, forward) = (shipped("nginx.conf"), shipped(file));
        Nginx::start_with(host, ports, |folder, listen| {
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
            write_more(folder, listen);
        })
    }

    /// The source address of nginx's connections to the servers, with the shipped settings. It
    /// tells them from connections of other clients.
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

    /// Freezes it with SIGSTOP: its kernel still accepts connections and takes bytes, and nothing
    /// answers.
    pub fn stop(&self) {
        freeze(self.process.pid());
        self.workers().into_iter().for_each(freeze);
    }

    /// Resumes it after [`Nginx::stop`].
    pub fn cont(&self) {
        self.workers().into_iter().for_each(|worker| signal(worker, "CONT"));
        self.process.signal("CONT");
    }

    /// Makes nginx read its settings again, as after a change (SIGHUP). New worker processes take
    /// new connections, and old ones live until their connections end. Returns when a new one has
    /// started.
    pub fn reload(&self) {
        let before = self.workers();
        self.process.signal("HUP");
        wait_within(LONG_PATIENCE, "nginx has new workers", || {
            self.workers().iter().any(|worker| !before.contains(worker))
        });
    }

    /// The PIDs of the worker processes, including old ones that only wait for their connections to
    /// end.
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

    /// One port in front of each list of servers, which take turns. A server that does not answer
    /// is skipped for a second. Unlike with nginx's defaults, a client that shuts down only its
    /// sending direction still gets answers.
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

/// A file of `conf/`.
fn shipped(name: &str) -> String {
    text_of(&format!("conf/{name}"))
}

fn launch(folder: &Path) -> Process {
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-g", "daemon off;", "-c"]).arg(folder.join("nginx.conf"));
    Process::spawn_with_children(command, &folder.join("nginx.log"))
}

fn whole_conf(folder: &Path, stream: &str) -> String {
    // Debian builds the stream part as a loadable module.
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

/// Whether nginx has its ports: it binds them before it writes its PID file, and exits if it
/// cannot.
fn has_written_its_pid(folder: &Path, process: &Process) -> bool {
    let pid = fs::read_to_string(folder.join("nginx.pid")).unwrap_or_default();
    pid.trim() == process.pid().to_string()
}

fn addresses(host: Ipv4Addr, ports: &[u16]) -> Vec<SocketAddr> {
    ports.iter().map(|port| SocketAddr::from((host, *port))).collect()
}

/// Whether this process is alive. An exited one may still be listed, but has no open files.
fn has_open_files(pid: u32) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|files| files.count() > 0)
}
