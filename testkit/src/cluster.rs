//! Several servers on one database and one Redis.

use std::net::SocketAddr;

use crate::TestServer;
use crate::server::Builder;
use crate::services::{Database, Redis};

/// A cluster of real servers with a database and a Redis of its own.
pub struct Cluster {
    // Dropped first: servers exit before the services they use.
    pub nodes: Vec<TestServer>,
    pub database: Database,
    pub redis: Redis,
}

impl Cluster {
    /// Starts this number of servers with the tests' usual options.
    pub fn start(nodes: usize) -> Cluster {
        Cluster::start_with(nodes, |builder| builder)
    }

    /// Like [`Cluster::start`], with further options.
    pub fn start_with(nodes: usize, options: impl Fn(Builder) -> Builder) -> Cluster {
        Cluster::start_on(Database::create(), Redis::start(), nodes, options)
    }

    /// Like [`Cluster::start_with`], on an existing database and Redis.
    pub fn start_on(database: Database, redis: Redis, nodes: usize, options: impl Fn(Builder) -> Builder) -> Cluster {
        let start = |_| options(TestServer::builder().mysql(&database).redis(&redis)).start();
        let nodes = (0..nodes).map(start).collect();
        Cluster { nodes, database, redis }
    }

    /// The address that clients of each node connect to.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(TestServer::address).collect()
    }
}
