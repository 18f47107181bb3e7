//! Two MariaDB servers, one of which replicates the other. A commit is answered once the replica
//! has received it (semi-synchronous).

use std::thread;

use mysql::Row;
use mysql::prelude::Queryable;

use super::mariadb::{Database, MariaDb, cnf_of};
use crate::wait_until;

/// A primary and its replica; a test can swap their roles. Dropping it kills both.
pub struct Replicas {
    pub servers: [MariaDb; 2],
}

impl Replicas {
    /// Starts both. The first one is the primary.
    pub fn start() -> Replicas {
        let start = |id: u8| {
            thread::spawn(move || {
                let id = format!("--server-id={id}");
                MariaDb::start_with(&[
                    "--log-bin=changes",
                    "--log-slave-updates",
                    "--read-only=1",
                    "--rpl-semi-sync-master-enabled=1",
                    "--rpl-semi-sync-slave-enabled=1",
                    "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
                    // A commit waits for the replica without a timeout, as long as a replica is
                    // connected.
                    "--rpl-semi-sync-master-timeout=600000",
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
        cnf_of(&[&self.servers[0], &self.servers[1]], database)
    }

    /// Makes a server replicate the other one from now on.
    pub fn follow(&self, replica: usize, primary: usize) {
        let port = self.servers[primary].address().port();
        self.servers[replica].run(&format!(
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'test',
             MASTER_PASSWORD = 'of this test alone', MASTER_USE_GTID = current_pos, MASTER_CONNECT_RETRY = 1"
        ));
        self.servers[replica].run("START SLAVE");
        wait_until("it receives changes", || self.state(replica, "Slave_IO_Running") == "Yes");
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

    /// A column of `SHOW SLAVE STATUS`.
    fn state(&self, server: usize, column: &str) -> String {
        let row = self.servers[server].connect().and_then(|mut own| own.query_first("SHOW SLAVE STATUS"));
        let row: Option<Row> = row.expect("ask for the state");
        row.and_then(|row| row.get(column)).unwrap_or_default()
    }
}
