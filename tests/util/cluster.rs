//! Several servers on one database and one Redis.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::TestServer;
use super::leaks::GIVEN_BACK_WITHIN;
use super::server::Builder;
use super::services::{Database, Redis};

/// A cluster of real servers with a database and a Redis of its own.
pub struct Cluster {
    // Servers end before what they stand on.
    pub nodes: Vec<TestServer>,
    pub database: Database,
    pub redis: Redis,
}

impl Cluster {
    /// So many servers as the tests like them.
    pub fn start(nodes: usize) -> Cluster {
        Cluster::start_with(nodes, |builder| builder)
    }

    /// The same with options to be added.
    pub fn start_with(nodes: usize, options: impl Fn(Builder) -> Builder) -> Cluster {
        Cluster::start_on(Database::create(), Redis::start(), nodes, options)
    }

    /// The same on a database and a Redis that are there.
    pub fn start_on(database: Database, redis: Redis, nodes: usize, options: impl Fn(Builder) -> Builder) -> Cluster {
        let start = |_| options(TestServer::builder()).check_leaks().mysql(&database).redis(&redis).start();
        let nodes = (0..nodes).map(start).collect();
        Cluster { nodes, database, redis }
    }

    /// What is left of the connections to MariaDB and Redis when every client has gone: more than the nodes' pools may
    /// keep for the next call.
    fn leak(&mut self) -> Option<String> {
        // A test may have killed any of the servers, and then there is nothing to be compared.
        if self.nodes.iter_mut().any(TestServer::has_exited) || !self.database.answers() || !self.redis.answers() {
            return None;
        }
        let most = self.nodes.len() * POOLED_MAX;
        let deadline = Instant::now() + GIVEN_BACK_WITHIN;
        loop {
            let (database, redis) = (self.connections_to_database(), self.connections_to_redis());
            if database <= most && redis <= most {
                return None;
            }
            if Instant::now() >= deadline {
                return Some(format!("{database} connections to MariaDB and {redis} to Redis, at most {most} each"));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// How many connections MariaDB has to this database, without those of the test.
    pub fn connections_to_database(&self) -> usize {
        let query = format!(
            "SELECT count(*) FROM information_schema.processlist WHERE db = '{}' AND id <> CONNECTION_ID()",
            self.database.name()
        );
        self.database.count(&query)
    }

    /// How many connections Redis has, without that which asks.
    pub fn connections_to_redis(&self) -> usize {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut self.redis.connect()).expect("ask Redis");
        list.lines().count() - 1
    }

    /// Where clients of each node connect to.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(TestServer::address).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !thread::panicking()
            && let Some(leak) = self.leak()
        {
            panic!("a cluster has leaked: {leak}");
        }
    }
}

/// The most connections that a node keeps to either. A pool opens one whenever a call finds none free, and closes what
/// is idle only after a minute; that is about two for each thread which makes calls.
const POOLED_MAX: usize = 40;
