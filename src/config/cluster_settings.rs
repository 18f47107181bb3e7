//! The settings of the services that the nodes of a cluster share, and the files that contain them.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::servers::{ServerAddress, in_words};

/// The settings of the database.
#[derive(Clone, PartialEq, Debug)]
pub struct MysqlSettings {
    /// The file with these settings, as the operator named it.
    pub file: PathBuf,
    /// The servers, of which the node uses one at a time. If there are several, it uses only one
    /// that accepts writes.
    pub servers: Vec<ServerAddress>,
    /// The user to log in as.
    pub username: String,
    /// The user's password, perhaps empty.
    pub password: Secret,
    /// The database that holds the tables.
    pub database: String,
    /// Connections opened at the start, which stay open.
    pub initial_size: u32,
    /// The most connections.
    pub max_size: u32,
    /// How long a connection beyond the initial ones may be idle before it is closed.
    pub idle_timeout: Duration,
    /// How long a call may wait for a free connection.
    pub wait_timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a reply may take.
    pub read_timeout: Duration,
    /// How long the system may take to accept sent data.
    pub write_timeout: Duration,
    /// Whether connections are encrypted.
    pub tls: DatabaseTls,
    /// A file with certificates in PEM format of authorities to trust in addition to the public
    /// ones.
    pub ca: Option<PathBuf>,
}

/// The settings of Redis.
#[derive(Clone, PartialEq, Debug)]
pub struct RedisSettings {
    /// The file with these settings, as it was named.
    pub file: PathBuf,
    /// The address of Redis, of its sentinels, or of the servers of a Redis Cluster.
    pub place: RedisPlace,
    /// The user to log in as; without it, the default user.
    pub username: Option<String>,
    /// The password; without it, the node does not log in.
    pub password: Option<Secret>,
    /// The number of the database, the same for all nodes, because they register in it.
    pub db: i64,
    /// Distinguishes the nodes of this installation from those of others in the same database of
    /// the same Redis.
    pub cluster_name: Option<String>,
    /// Whether nodes of the reference server on this Redis belong to this installation; `None`:
    /// they do if it has no name and `db` is 0.
    pub cpp_nodes: Option<bool>,
    /// Whether connections are encrypted, and Redis's certificate checked.
    pub tls: bool,
    /// A file with certificates in PEM format of authorities to trust; without it, the public ones.
    pub tls_ca: Option<PathBuf>,
    /// The most connections for commands.
    pub size: u32,
    /// How long a connection may be idle before it is closed.
    pub idle_timeout: Duration,
    /// How long a call may wait for a free connection.
    pub wait_timeout: Duration,
}

/// The place of Redis.
#[derive(Clone, PartialEq, Debug)]
pub enum RedisPlace {
    /// At this address, or behind this name.
    Server(ServerAddress),
    /// At the address that these sentinels return.
    Sentinels(SentinelSettings),
    /// In a Redis Cluster, of which these are some of the servers.
    Cluster(Vec<ServerAddress>),
}

/// The sentinels that know which Redis is the primary.
#[derive(Clone, PartialEq, Debug)]
pub struct SentinelSettings {
    /// The addresses of the sentinels.
    pub sentinels: Vec<ServerAddress>,
    /// The name under which they know the Redis.
    pub master: String,
    /// The password of the sentinels; without it, the node does not log in there.
    pub password: Option<Secret>,
}

impl fmt::Display for RedisPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedisPlace::Server(ServerAddress { host, port }) => write!(f, "{host}:{port}"),
            RedisPlace::Sentinels(SentinelSettings { sentinels, master, .. }) => {
                write!(f, "{master} of the sentinels {}", in_words(sentinels))
            }
            RedisPlace::Cluster(servers) => write!(f, "the Redis Cluster {}", in_words(servers)),
        }
    }
}

/// Whether connections to the database are encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DatabaseTls {
    /// Not encrypted.
    Off,
    /// Encrypted, without checking the server's certificate.
    On,
    /// Encrypted, and the database's certificate must be signed by a known authority and be issued
    /// for its host.
    Verify,
}

/// The file with the settings of the database or of Redis.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum SettingsFile {
    /// The file with the usual name in the working directory, if it exists.
    #[default]
    Auto,
    /// This file.
    Named(PathBuf),
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The key that gives access to the administration; without it, there is no administration.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct AdminKey(pub Option<Secret>);

/// The admin ports of nodes of this cluster.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct AdminNodes(pub Vec<SocketAddr>);

/// Formats it on one line, like every setting.
impl fmt::Debug for AdminNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(if nodes.is_empty() { "off" } else { "" })?;
        f.write_str(&nodes.join(","))
    }
}

impl Secret {
    /// Hides a text.
    pub fn new(text: &str) -> Secret {
        Secret(text.to_owned())
    }

    /// The text, for the code that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Formats it on one line, without the key.
impl fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "***" } else { "none" })
    }
}

impl fmt::Debug for SettingsFile {
    /// One line, even in a multi-line `Debug` of a struct.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingsFile::Auto => f.write_str("auto"),
            SettingsFile::Named(file) => write!(f, "{file:?}"),
        }
    }
}

impl RedisSettings {
    /// The Redis at this address, with the defaults of `redis.cnf`.
    pub fn at(host: &str, port: u16) -> RedisSettings {
        RedisSettings {
            file: PathBuf::from("redis.cnf"),
            place: RedisPlace::Server(ServerAddress::new(host, port)),
            username: None,
            password: None,
            db: 0,
            cluster_name: None,
            cpp_nodes: None,
            tls: false,
            tls_ca: None,
            size: 2,
            idle_timeout: Duration::from_secs(30),
            wait_timeout: Duration::from_millis(100),
        }
    }
}
