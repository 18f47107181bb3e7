//! A Redis with a replica, and three sentinels that promote it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use redis::{RedisResult, Value};

use super::process::{Process, start_again, start_on_free_ports};
use super::redis::{Access, Redis};
use super::switch::Switch;
use crate::tls::Certificate;
use crate::{LONG_PATIENCE, free_port, wait_within, watchdog};

/// Two Redis servers and three sentinels. Dropping it kills them.
pub struct WatchedRedis {
    pub servers: [Redis; 2],
    pub sentinels: Vec<Sentinel>,
    /// Trusted by clients with TLS.
    certificate: Option<Certificate>,
    /// The ways to the servers, if these can be cut off.
    switches: Option<[Switch; 2]>,
}

/// A running sentinel.
pub struct Sentinel {
    process: Process,
    at: Access,
    /// The port that servers use.
    port: u16,
    folder: PathBuf,
}

impl WatchedRedis {
    /// Starts them. The first server is the primary.
    pub fn start() -> WatchedRedis {
        WatchedRedis::start_with(None, None)
    }

    /// Like [`WatchedRedis::start`], with servers that can be [cut off](WatchedRedis::cut): nodes,
    /// sentinels and the servers reach each server through a switch.
    pub fn start_behind_switches() -> WatchedRedis {
        // They lead nowhere until the servers have started.
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        WatchedRedis::start_with(None, Some([0, 1].map(|_| Switch::to(nowhere))))
    }

    /// Starts them with a password for Redis and another one for the sentinels. All speak TLS with
    /// each other, and with clients; only the testkit does without.
    pub fn start_secured() -> WatchedRedis {
        WatchedRedis::start_with(Some(Certificate::of("127.0.0.1")), None)
    }

    fn start_with(certificate: Option<Certificate>, switches: Option<[Switch; 2]>) -> WatchedRedis {
        let switch = |nth: usize| switches.as_ref().map(|switches: &[Switch; 2]| &switches[nth]);
        let [(one, port), (other, _)] = [0, 1].map(|nth| start_redis(certificate.as_ref(), switch(nth)));
        follow(&other, port);
        let servers = [one, other];
        wait_within(LONG_PATIENCE, "the replica is connected", || servers[1].is_connected_replica());
        let sentinels: Vec<Sentinel> = (0..SENTINELS).map(|_| Sentinel::start(port, certificate.as_ref())).collect();
        wait_within(LONG_PATIENCE, "the sentinels know each other and the replica", || {
            sentinels.iter().all(|sentinel| {
                let known = sentinel.ask("master");
                let is = |name, value: &str| fact(&known, name).as_deref() == Some(value);
                is("num-other-sentinels", "2") && is("num-slaves", "1")
            })
        });
        WatchedRedis { servers, sentinels, certificate, switches }
    }

    /// Cuts a server off from everybody, or connects it again. Meanwhile it goes on running.
    pub fn cut(&self, server: usize, is_cut: bool) {
        self.switches.as_ref().expect("it was started with switches")[server].cut(is_cut);
    }

    /// The `redis.cnf` of a server that is to use it. With TLS, `ca.pem` is [`WatchedRedis::ca`].
    pub fn cnf(&self) -> String {
        let addresses: Vec<String> = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
        let cnf = format!("sentinels={}\nmaster={MASTER}\n", addresses.join(","));
        match &self.certificate {
            None => cnf,
            Some(_) => format!(
                "{cnf}password={REDIS_PASSWORD}\nsentinel_password={SENTINEL_PASSWORD}\ntls=on\ntls_ca=ca.pem\n"
            ),
        }
    }

    /// The certificates to trust, in PEM; empty without TLS.
    pub fn ca(&self) -> String {
        self.certificate.as_ref().map(|certificate| certificate.chain.clone()).unwrap_or_default()
    }

    /// Waits until a server is the replica of the other one.
    pub fn wait_demoted(&self, server: usize) {
        wait_within(LONG_PATIENCE, "it is a replica", || self.servers[server].is_connected_replica());
    }

    /// Starts a killed replica again, as a replica.
    pub fn restart_replica(&mut self, server: usize) {
        self.servers[server].restart();
        let primary = &self.servers[1 - server];
        let port = match &self.switches {
            Some(switches) => switches[1 - server].address().port(),
            None => primary.address().port(),
        };
        follow(&self.servers[server], port);
    }

    /// Waits until all sentinels see the other server as a healthy replica.
    pub fn wait_whole(&self) {
        wait_within(LONG_PATIENCE, "the sentinels see a replica", || {
            let is_replica = |server: &Redis| server.is_connected_replica();
            self.servers.iter().any(is_replica)
                && self.sentinels.iter().all(|sentinel| {
                    let Ok(Value::Array(replicas)) = sentinel.try_ask("replicas") else { return false };
                    replicas.iter().any(|replica| fact(replica, "flags").as_deref() == Some("slave"))
                })
        });
    }
}

impl Sentinel {
    fn start(primary: u16, certificate: Option<&Certificate>) -> Sentinel {
        let folder = watchdog::new_folder();
        let tls_port = certificate.map(|certificate| keep(certificate, &folder));
        let password = certificate.map(|_| SENTINEL_PASSWORD);
        let begin = |ports: &[u16]| {
            let mut settings = format!(
                "bind 127.0.0.1\nport {}\ndir {}\nsentinel monitor {MASTER} 127.0.0.1 {primary} 2\n\
                 sentinel down-after-milliseconds {MASTER} 1500\nsentinel failover-timeout {MASTER} 6000\n",
                ports[0],
                folder.display()
            );
            if let Some(tls_port) = tls_port {
                settings.push_str(&format!(
                    "sentinel auth-pass {MASTER} {REDIS_PASSWORD}\nrequirepass {SENTINEL_PASSWORD}\n\
                     sentinel sentinel-pass {SENTINEL_PASSWORD}\n"
                ));
                tls(tls_port, &folder).iter().for_each(|[key, value]| settings.push_str(&format!("{key} {value}\n")));
            }
            fs::write(folder.join(SENTINEL_CONF), settings).expect("write the settings of a sentinel");
            launch(&folder)
        };
        let serves = |ports: &[u16]| ask(&Access { port: ports[0], password }, "master").is_ok();
        let (process, ports) = start_on_free_ports(1, begin, |_, ports| serves(ports));
        let at = Access { port: ports[0], password };
        Sentinel { process, at, port: tls_port.unwrap_or(ports[0]), folder }
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again. It has written what it knew into its settings.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = start_again(|| launch(&self.folder), |_| ask(&self.at, "master").is_ok());
    }

    /// Freezes it with SIGSTOP.
    pub fn stop(&self) {
        self.process.freeze();
    }

    /// Resumes it.
    pub fn cont(&self) {
        self.process.signal("CONT");
    }

    fn try_ask(&self, what: &str) -> RedisResult<Value> {
        ask(&self.at, what)
    }

    fn ask(&self, what: &str) -> Value {
        self.try_ask(what).expect("ask a sentinel")
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.process.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn launch(folder: &Path) -> Process {
    let mut command = Command::new("redis-server");
    command.arg(folder.join(SENTINEL_CONF)).arg("--sentinel");
    Process::spawn(command, &folder.join("sentinel.log"))
}

/// A Redis, and the port that others use.
fn start_redis(certificate: Option<&Certificate>, switch: Option<&Switch>) -> (Redis, u16) {
    let folder = watchdog::new_folder();
    let options = |more: Vec<[String; 2]>| {
        let fast = ["repl-diskless-sync-delay", "0", "repl-ping-replica-period", "1"].map(str::to_owned);
        let all = fast.into_iter().chain(more.into_iter().flatten()).enumerate();
        all.map(|(nth, text)| if nth % 2 == 0 { format!("--{text}") } else { text }).collect()
    };
    let Some(certificate) = certificate else {
        let announced = switch.map(|switch| switch.address().port());
        let more = announced.map(|port| ["replica-announce-port".to_owned(), port.to_string()]);
        let redis = Redis::start_at(folder, options(Vec::from_iter(more)), None);
        let port = redis.address().port();
        switch.iter().for_each(|switch| switch.turn(redis.address()));
        return (redis, announced.unwrap_or(port));
    };
    let port = keep(certificate, &folder);
    let mut more = tls(port, &folder);
    more.extend(["requirepass", "masterauth"].map(|key| [key.to_owned(), REDIS_PASSWORD.to_owned()]));
    (Redis::start_at(folder, options(more), Some(REDIS_PASSWORD)), port)
}

/// Makes a Redis the replica of the one at this port.
fn follow(replica: &Redis, port: u16) {
    let command = redis::cmd("REPLICAOF").arg("127.0.0.1").arg(port).to_owned();
    command.query::<()>(&mut replica.connect()).expect("make it a replica");
}

/// Writes the certificate for a server into its folder. Returns a port for TLS.
pub(super) fn keep(certificate: &Certificate, folder: &Path) -> u16 {
    fs::write(folder.join("cert.pem"), &certificate.chain).expect("write a certificate");
    fs::write(folder.join("key.pem"), &certificate.key).expect("write a key");
    free_port()
}

/// The settings for TLS at this port, with the certificate in this folder.
pub(super) fn tls(port: u16, folder: &Path) -> Vec<[String; 2]> {
    let file = |name| folder.join(name).display().to_string();
    let settings = [
        ("tls-port", port.to_string()),
        ("tls-cert-file", file("cert.pem")),
        ("tls-key-file", file("key.pem")),
        ("tls-ca-cert-file", file("cert.pem")),
        ("tls-auth-clients", "no".to_owned()),
        ("tls-replication", "yes".to_owned()),
    ];
    settings.map(|(key, value)| [key.to_owned(), value]).into()
}

fn ask(at: &Access, what: &str) -> RedisResult<Value> {
    redis::cmd("SENTINEL").arg(what).arg(MASTER).query(&mut at.connect()?)
}

/// The value that follows a name in a list of names and values.
fn fact(facts: &Value, name: &str) -> Option<String> {
    let text = |value: &Value| redis::from_redis_value::<String>(value.clone()).ok();
    let Value::Array(facts) = facts else { return None };
    let pair = facts.chunks(2).find(|pair| text(&pair[0]).as_deref() == Some(name))?;
    text(pair.get(1)?)
}

const MASTER: &str = "chat";
const SENTINEL_CONF: &str = "sentinel.conf";
pub(super) const REDIS_PASSWORD: &str = "of-redis";
const SENTINEL_PASSWORD: &str = "of-sentinels";
const SENTINELS: usize = 3;
