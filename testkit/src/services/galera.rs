//! A Galera cluster of three MariaDB servers on this machine.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use mysql::prelude::Queryable;

use super::mariadb::{Database, MariaDb, USERS, cnf_at, command, install};
use super::process::{Process, free_port};
use crate::{LONG_PATIENCE, output_within, wait_within, watchdog};

/// Three servers with the same data; each of them takes writes. Dropping it kills them.
pub struct Galera {
    pub nodes: Vec<MariaDb>,
}

impl Galera {
    /// Starts a cluster; this takes about ten seconds.
    pub fn start() -> Galera {
        let seed = watchdog::new_folder();
        install(&seed);
        // A cluster of one node, which makes the account. All nodes begin with a copy of its data.
        fs::write(seed.join("users.sql"), format!("{USERS}SHUTDOWN;\n")).expect("write the users of MariaDB");
        let alone = Member::new();
        let mut process =
            Process::spawn(command(&seed, alone.mysql, &alone.options("alone", "gcomm://")), &seed.join("mariadb.log"));
        wait_within(LONG_PATIENCE, "the first data of the cluster", || process.status().is_some());
        // Another process may meanwhile take a port that was free.
        let galera = (0..ATTEMPTS).find_map(|_| Galera::try_start(&seed.join("data")));
        let _ = fs::remove_dir_all(&seed);
        let galera = galera.expect("ports for a cluster");
        galera.wait_whole();
        galera
    }

    /// Starts a cluster; `None` if a port is in use.
    fn try_start(data: &Path) -> Option<Galera> {
        let members: Vec<Member> = (0..NODES).map(|_| Member::new()).collect();
        let group: Vec<String> = members.iter().map(|member| format!("127.0.0.1:{}", member.group)).collect();
        let cluster = format!("gcomm://{}", group.join(","));
        // Nodes refuse those of another cluster, which may run beside this one.
        let name = format!("of-{}", members[0].group);
        let launch = |(nth, member): (usize, &Member)| {
            let folder = watchdog::new_folder();
            copy(data, &folder.join("data"));
            fs::write(folder.join("users.sql"), "").expect("no further users");
            let node = MariaDb::launched(
                folder,
                member.mysql,
                &member.options(&name, if nth == 0 { "gcomm://" } else { &cluster }),
            );
            (node, member.options(&name, &cluster))
        };
        let launched: Vec<_> = members.iter().enumerate().map(launch).collect();
        let mut nodes = Vec::new();
        for (mut node, options) in launched {
            if !node.wait_for_start() {
                return None;
            }
            node.set_options(options);
            nodes.push(node);
        }
        Some(Galera { nodes })
    }

    /// A new database, with the tables of a new installation.
    pub fn create_database(&self) -> Database {
        self.nodes[0].create_database()
    }

    /// The `mysql.cnf` of a server that may use the database on any of the nodes.
    pub fn cnf(&self, database: &Database) -> String {
        self.cnf_at(&self.nodes.iter().map(MariaDb::address).collect::<Vec<_>>(), database)
    }

    /// Like [`Galera::cnf`], with other addresses that lead to the nodes.
    pub fn cnf_at(&self, addresses: &[SocketAddr], database: &Database) -> String {
        cnf_at(addresses, database)
    }

    /// Waits until the nodes form one cluster, and each takes writes and has everything.
    pub fn wait_whole(&self) {
        wait_within(LONG_PATIENCE, "all nodes of the cluster are ready", || {
            (0..NODES).all(|nth| {
                let is = |name, value: &str| self.status(nth, name) == value;
                is("wsrep_ready", "ON") && is("wsrep_cluster_size", &NODES.to_string()) && is("wsrep_local_state", "4")
            })
        });
    }

    /// A status variable of a node; empty if the variable does not exist or the node does not
    /// answer.
    pub fn status(&self, nth: usize, name: &str) -> String {
        let ask = || self.nodes[nth].connect()?.query_first(format!("SHOW GLOBAL STATUS LIKE '{name}'"));
        let row: Option<(String, String)> = ask().unwrap_or_default();
        row.map(|(_, value)| value).unwrap_or_default()
    }

    /// Cuts a node off from the others, or connects it again.
    pub fn isolate(&self, nth: usize, is_isolated: bool) {
        let isolate = u8::from(is_isolated);
        let set = format!("SET GLOBAL wsrep_provider_options = 'gmcast.isolate={isolate}'");
        self.nodes[nth].connect().and_then(|mut connection| connection.query_drop(set)).expect("cut a node off");
    }

    /// Starts a killed node again. It gets the writes that it has missed from the others.
    pub fn restart(&mut self, nth: usize) {
        let node = &mut self.nodes[nth];
        let printed = node.run_to_end(&["--wsrep-recover"]);
        let position = printed.lines().find_map(|line| line.split_once("Recovered position: "));
        let (_, position) = position.unwrap_or_else(|| panic!("no position in:\n{printed}"));
        node.restart_with(&[&format!("--wsrep-start-position={}", position.trim())]);
        self.wait_whole();
    }
}

/// The ports of a node.
struct Member {
    mysql: u16,
    group: u16,
    receiver: u16,
}

impl Member {
    fn new() -> Member {
        Member { mysql: free_port(), group: free_port(), receiver: free_port() }
    }

    fn options(&self, name: &str, cluster: &str) -> Vec<String> {
        let Member { mysql, group, receiver } = self;
        let provider = format!(
            "gmcast.listen_addr=tcp://127.0.0.1:{group};ist.recv_addr=127.0.0.1:{receiver};gcache.size=16M;\
             pc.recovery=FALSE;evs.keepalive_period=PT0.5S;evs.suspect_timeout=PT3S;evs.inactive_timeout=PT6S"
        );
        let options = [
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
            "--wsrep-on=ON",
            "--wsrep-provider=/usr/lib/galera/libgalera_smm.so",
            "--wsrep-sst-method=beside",
            &format!("--wsrep-cluster-name={name}"),
            &format!("--wsrep-cluster-address={cluster}"),
            &format!("--wsrep-node-address=127.0.0.1:{group}"),
            &format!("--wsrep-node-name=on-{mysql}"),
            &format!("--wsrep-provider-options={provider}"),
        ];
        options.map(str::to_owned).into()
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = output_within(LONG_PATIENCE, Command::new("cp").arg("-r").args([from, to])).expect("run cp");
    assert!(copied.status.success(), "cannot copy {}", from.display());
}

const NODES: usize = 3;
const ATTEMPTS: usize = 5;
