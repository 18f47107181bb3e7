//! The settings of the services that the nodes of a cluster share, and the files that have them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The settings of the database.
#[derive(Clone, PartialEq, Debug)]
pub struct MysqlSettings {
    /// The file with these settings, as it was named.
    pub file: PathBuf,
    /// An address or a host name.
    pub host: String,
    /// The TCP port.
    pub port: u16,
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
    /// How long an answer may take.
    pub read_timeout: Duration,
    /// How long the system may take to accept what is sent.
    pub write_timeout: Duration,
    /// Whether connections are encrypted.
    pub tls: Tls,
    /// A file with certificates in PEM format of authorities to trust in addition to the public
    /// ones.
    pub ca: Option<PathBuf>,
}

/// The settings of Redis.
#[derive(Clone, PartialEq, Debug)]
pub struct RedisSettings {
    /// The file with these settings, as it was named.
    pub file: PathBuf,
    /// An address or a host name.
    pub host: String,
    /// The TCP port.
    pub port: u16,
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

/// Whether connections to the database are encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tls {
    /// Not encrypted.
    Off,
    /// Encrypted, without checking the other end.
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
            host: host.to_owned(),
            port,
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
