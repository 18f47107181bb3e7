//! An nginx of one test's own, which passes TCP on.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Process, start_on_free_ports};
use crate::util::watchdog;

/// A running nginx. Dropping it kills it.
pub struct Nginx {
    process: Process,
    addresses: Vec<SocketAddr>,
    folder: PathBuf,
}

impl Nginx {
    /// Starts nginx on so many free ports of 127.0.0.1. `conf` is given them and returns what stands inside
    /// `stream { }`.
    pub fn start(ports: usize, conf: impl Fn(&[SocketAddr]) -> String) -> Nginx {
        let folder = watchdog::new_folder();
        let (process, ports) = start_on_free_ports(
            ports,
            |ports| {
                fs::write(folder.join("nginx.conf"), whole_conf(&folder, &conf(&addresses(ports))))
                    .expect("write nginx.conf");
                launch(&folder)
            },
            |process, _| has_written_its_pid(&folder, process),
        );
        Nginx { process, addresses: addresses(&ports), folder }
    }

    /// One port in front of each list of servers, taken in turn; a server that does not answer is left out for a second.
    /// Who ends only the sending direction still gets answers, which is not nginx's own way.
    pub fn balancing(groups: &[&[SocketAddr]]) -> Nginx {
        Nginx::start(groups.len(), |listen| {
            let mut conf = String::new();
            for (number, (group, address)) in groups.iter().zip(listen).enumerate() {
                let servers: String =
                    group.iter().map(|server| format!("server {server} max_fails=1 fail_timeout=1s;\n")).collect();
                conf.push_str(&format!(
                    "upstream group{number} {{\n{servers}}}\nserver {{ listen {address}; proxy_pass group{number}; \
                     proxy_connect_timeout 1s; proxy_timeout 1h; \
                     proxy_half_close on; }}\n"
                ));
            }
            conf
        })
    }

    /// Where it listens, in the order of its ports.
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

/// One process without workers, which a kill would leave behind.
fn launch(folder: &Path) -> Process {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).args(["-e", "stderr", "-g", "daemon off; master_process off;", "-c", "nginx.conf"]);
    Process::spawn(command, &folder.join("nginx.log"))
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

/// Whether it has its ports: it binds them before it writes its pid, and ends if it does not get them.
fn has_written_its_pid(folder: &Path, process: &Process) -> bool {
    let pid = fs::read_to_string(folder.join("nginx.pid")).unwrap_or_default();
    pid.trim() == process.pid().to_string()
}

fn addresses(ports: &[u16]) -> Vec<SocketAddr> {
    ports.iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, *port))).collect()
}
