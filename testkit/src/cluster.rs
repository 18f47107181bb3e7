//! Several servers on one database and one Redis.

use std::net::SocketAddr;

use crate::TestServer;
use crate::server::Builder;
use crate::services::{Database, Redis};

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
        let start = |_| options(TestServer::builder().mysql(&database).redis(&redis)).start();
        let nodes = (0..nodes).map(start).collect();
        Cluster { nodes, database, redis }
    }

    /// Where clients of each node connect to.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(TestServer::address).collect()
    }
}
