//! Two MariaDB servers, one of which replicates the other. A commit is answered once the replica
//! has received it (semi-synchronous).

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::Duration;

use mysql::Row;
use mysql::prelude::Queryable;

use super::mariadb::{Database, MariaDb, cnf_at};
use crate::{LONG_PATIENCE, output_within, wait_until, wait_within};

/// A primary and its replica; a test can swap their roles. Dropping it kills both.
pub struct Replicas {
    pub servers: [MariaDb; 2],
}

impl Replicas {
    /// Starts both. The first one is the primary. While the replica is connected, a commit waits
    /// for it, however long that takes.
    pub fn start() -> Replicas {
        Replicas::start_waiting(Duration::from_secs(600))
    }

    /// Like [`Replicas::start`], but after this time without an answer of the replica, the primary
    /// goes on alone until the replica has caught up.
    pub fn start_waiting(at_most: Duration) -> Replicas {
        let start = |id: u8| {
            thread::spawn(move || {
                let timeout = format!("--rpl-semi-sync-master-timeout={}", at_most.as_millis());
                let id = format!("--server-id={id}");
                MariaDb::start_with(&[
                    "--log-bin=changes",
                    "--log-slave-updates",
                    "--read-only=1",
                    "--rpl-semi-sync-master-enabled=1",
                    "--rpl-semi-sync-slave-enabled=1",
                    "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
                    &timeout,
                    "--rpl-semi-sync-master-wait-no-slave=0",
                    "--slave-net-timeout=2",
                    &id,
                ])
            })
        };
        let servers = [1, 2].map(start).map(|server| server.join().expect("start a server"));
        let replicas = Replicas { servers };
        replicas.servers[0].run("SET GLOBAL read_only = 0");
        replicas.follow(1, 0);
        replicas
    }

    /// A new database on the first server, which is replicated to the second one.
    pub fn create_database(&self) -> Database {
        let database = self.servers[0].create_database();
        self.wait_caught_up(1, 0);
        database
    }

    /// The `mysql.cnf` of a server that may use the database on either server.
    pub fn cnf(&self, database: &Database) -> String {
        self.cnf_at(&self.servers.each_ref().map(MariaDb::address), database)
    }

    /// Like [`Replicas::cnf`], with other addresses that lead to the servers.
    pub fn cnf_at(&self, addresses: &[SocketAddr], database: &Database) -> String {
        cnf_at(addresses, database)
    }

    /// Makes a server replicate the other one from now on.
    pub fn follow(&self, replica: usize, primary: usize) {
        let port = self.servers[primary].address().port();
        self.servers[replica].run(&format!(
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'test',
             MASTER_PASSWORD = 'of this test alone', MASTER_USE_GTID = current_pos, MASTER_CONNECT_RETRY = 1"
        ));
        self.servers[replica].run("START SLAVE");
        wait_until("it receives changes, or is refused", || {
            self.state(replica, "Slave_IO_Running") == "Yes" || self.has_more(replica)
        });
    }

    /// Whether the primary refuses a replica, because the replica has what the primary lacks.
    fn has_more(&self, replica: usize) -> bool {
        self.state(replica, "Last_IO_Errno") == HAS_MORE_THAN_ITS_PRIMARY
    }

    /// Waits until the replica has everything that the primary has. Nothing may be written
    /// meanwhile.
    pub fn wait_caught_up(&self, replica: usize, primary: usize) {
        let position =
            self.servers[primary].connect().and_then(|mut primary| primary.query_first("SELECT @@gtid_binlog_pos"));
        let position: Option<String> = position.expect("ask the primary");
        wait_until("the replica has everything", || {
            let own = self.servers[replica].connect().and_then(|mut own| own.query_first("SELECT @@gtid_current_pos"));
            own.unwrap_or_default() == position
        });
    }

    /// Makes a replica the primary, after it has applied everything that it has received.
    pub fn promote(&self, server: usize) {
        self.servers[server].run("STOP SLAVE IO_THREAD");
        wait_until("what was received is applied", || {
            let applied =
                self.servers[server].connect().and_then(|mut own| own.query_first("SELECT @@gtid_current_pos"));
            applied.unwrap_or_default() == Some(self.state(server, "Gtid_IO_Pos"))
        });
        self.servers[server].run("STOP SLAVE");
        self.servers[server].run("RESET SLAVE ALL");
        self.servers[server].run("SET GLOBAL read_only = 0");
    }

    /// Waits until the replica has everything, and commits wait for it.
    ///
    /// A primary that was killed may have a transaction that its replica has not received, so that
    /// nobody was told of it. The new primary refuses such a server, and it is made a copy.
    pub fn wait_whole(&self, primary: usize) {
        let replica = 1 - primary;
        wait_within(LONG_PATIENCE, "commits wait for the replica", || {
            if self.has_more(replica) {
                self.copy(replica, primary);
            }
            let status = |name: &str| {
                let query = format!("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master_{name}'");
                let row = self.servers[primary].connect().and_then(|mut own| own.query_first(query));
                row.unwrap_or_default().map(|(_, value): (String, String)| value)
            };
            status("status").as_deref() == Some("ON") && status("clients").as_deref() == Some("1")
        });
    }

    /// Makes a replica a copy of its primary, as an operator does, and lets it follow the primary.
    fn copy(&self, replica: usize, primary: usize) {
        self.servers[replica].run("STOP SLAVE");
        self.servers[replica].run("RESET MASTER");
        let account = |server: usize| {
            let port = self.servers[server].address().port();
            format!("--no-defaults --host=127.0.0.1 --port={port} --user=test --password='of this test alone'")
        };
        let script = format!(
            "set -o pipefail; mariadb-dump {} --all-databases --ignore-database=mysql --ignore-database=sys \
             --add-drop-database --single-transaction --gtid --master-data=1 |
             mariadb {} --init-command='SET SESSION sql_log_bin = 0'",
            account(primary),
            account(replica)
        );
        let copied = output_within(LONG_PATIENCE, Command::new("bash").args(["-c", &script])).expect("copy a database");
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        self.follow(replica, primary);
    }

    /// A column of `SHOW SLAVE STATUS`.
    fn state(&self, server: usize, column: &str) -> String {
        let row = self.servers[server].connect().and_then(|mut own| own.query_first("SHOW SLAVE STATUS"));
        let row: Option<Row> = row.expect("ask for the state");
        row.and_then(|row| row.get(column)).unwrap_or_default()
    }
}

/// The error of a replica whose position is unknown to its primary
/// (ER_MASTER_FATAL_ERROR_READING_BINLOG).
const HAS_MORE_THAN_ITS_PRIMARY: &str = "1236";
