//! [`Config`]: the settings of one server, checked.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::cluster_settings::{MysqlSettings, RedisSettings, SettingsFile};
use super::limits::{Limit, Rate};
use super::networks::Networks;
use super::sites::{Hosts, Origins};

/// Every setting of one server process.
///
/// `Debug` is safe for a log: a secret must be a type of its own that prints as `***`.
///
/// `Default` makes a blank one, in which sizes and times are zero. [`Config::with_defaults`] gives
/// every setting its default.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Config {
    /// The address to listen on.
    pub listen: ListenAddress,
    /// The folder of the database.
    pub data_dir: PathBuf,
    /// The file with the settings of the database.
    pub mysql_file: SettingsFile,
    /// The file with the settings of Redis.
    pub redis_file: SettingsFile,
    /// The database that the nodes of a cluster share; without it, the embedded store.
    pub mysql: Option<MysqlSettings>,
    /// The bus between nodes; without it, there is one node. Never set without `mysql`.
    pub redis: Option<RedisSettings>,
    /// Warnings for the operator that do not prevent the start, one line each.
    pub notes: Vec<String>,
    /// The settings that do not have their defaults because somebody has given them, in the order
    /// in which they took effect.
    pub given: Vec<GivenSetting>,
    /// Whether a connection must be logged in as the user it acts as.
    pub auth: Auth,
    /// Event loops, one thread each.
    pub loops: usize,
    /// Threads for store requests.
    pub workers: usize,
    /// Threads for password hashing.
    pub hashers: usize,
    /// Connections that the kernel holds until they are accepted.
    pub backlog: u32,
    /// The longest frame that is read, in bytes.
    pub frame_bytes_max: usize,
    /// How long a started frame may take to complete.
    pub frame_timeout: Duration,
    /// How long a connection may be silent.
    pub idle_timeout: Duration,
    /// How long a connection may be open without being logged in; zero: without a limit.
    pub login_timeout: Duration,
    /// How long a peer may leave sent data unacknowledged (`TCP_USER_TIMEOUT`, tcp(7)).
    pub user_timeout: Duration,
    /// Whether connections of `proxy_from` begin with a PROXY header, which contains the client's
    /// address.
    pub proxy_protocol: bool,
    /// The trusted proxies.
    pub proxy_from: Networks,
    /// Whether browsers get the web client.
    pub web: bool,
    /// Pages of other sites that may open WebSockets.
    pub ws_origins: Origins,
    /// The only names of this server for HTTP clients; without any, every name will do.
    pub http_hosts: Hosts,
    /// Whether clients speak TLS, where there are certificates.
    pub tls: TlsUse,
    /// The certificates of the port.
    pub tls_certificates: TlsPaths,
    /// Their private keys; none: each is in the file of its certificate.
    pub tls_keys: TlsPaths,
    /// High-water mark of one connection's output, in bytes.
    pub output_bytes_max: usize,
    /// The clients that get one frame at a time, with pauses.
    pub paced: Paced,
    /// The pause for each message that a frame shows.
    pub pace: Duration,
    /// The messages that are recorded in conversations.
    pub recorded: Recorded,
    /// The days after which recorded messages are deleted.
    pub history_days: Limit,
    /// The newest messages of a conversation that are kept.
    pub history_per_conversation: Limit,
    /// The days for which a repeat of a message is recognised, even where the message is deleted before.
    pub dedup_days: u32,
    /// How long after its time a message may be edited or recalled; zero: not at all.
    pub edit_window: Duration,
    /// The most sends of a connection of level 2 without an answer.
    pub inflight_max: usize,
    /// The most devices of a user; beyond that, the least recently seen one is forgotten.
    pub devices_max: usize,
    /// The days for which a token of a device is valid.
    pub token_days: u32,
    /// The users who may see at level 2 which users are online.
    pub presence: PresenceShown,
    /// Whether partners at level 2 are shown how far the other one has read.
    pub receipts: bool,
    /// Whether a user must have agreed to be a friend.
    pub friends: FriendsBecome,
    /// How users become members of groups.
    pub group_join: GroupJoin,
    /// What a new member that the creator adds is shown.
    pub group_history: GroupHistory,
    /// How long the server keeps serving after a stop signal, while it reports that it is not
    /// ready.
    pub drain_delay: Duration,
    /// The connections per second that it closes then.
    pub drain_rate: u32,
    /// How long shutdown may take after the last connection was told to close.
    pub drain_timeout: Duration,
    /// The most connections in all.
    pub connections_max: Limit,
    /// The most connections of one address.
    pub connections_per_address: Limit,
    /// Frames per second of one connection.
    pub frames_per_second: Rate,
    /// Bytes per second of one connection.
    pub bytes_per_second: Rate,
    /// Failed logins for one account from one address without a delay; after them the next attempt
    /// must wait.
    pub login_failures: Limit,
    /// Failed logins of one address within an hour.
    pub login_failures_per_address: Limit,
    /// New accounts of one address within an hour.
    pub registrations_per_address: Limit,
    /// Memory for unfinished frames and for replies on their way, in bytes.
    pub memory_bytes_max: usize,
    /// Requests that wait for a worker; beyond that, the 503 reply.
    pub requests_max: usize,
    /// Password checks that wait for a hasher; beyond that, the 503 reply.
    pub logins_max: usize,
    /// Bytes of messages on their way to the store; beyond that, the 503 reply.
    pub lane_bytes_max: usize,
    /// The most bytes stored for one user, counted as the text and 64 bytes for each message.
    pub mailbox_bytes_max: usize,
    /// The most bytes of messages that wait on the disk while the database of a cluster is
    /// unavailable; beyond that, the 503 reply. Zero: none wait.
    pub spool_bytes_max: usize,
    /// The most bytes of message text in one reply of type 14.
    pub fetch_bytes_max: usize,
    /// The most groups in one reply to a search.
    pub search_results_max: usize,
    /// The most members of a group.
    pub group_members_max: usize,
    /// The cost of hashing one password.
    pub password_cost: PasswordCost,
    /// How often connected users' accounts are compared with the database; zero: never.
    pub account_check: Duration,
    /// How long a verified password is remembered; zero: not at all.
    pub password_memory: Duration,
    /// The address of the HTTP port for health and metrics.
    pub admin: AdminAddress,
    /// The name of this node in the log and in metrics; empty: the name of the machine.
    pub node_name: String,
    /// The log.
    pub log: LogSettings,
}

/// The address that the server listens on; port 0 lets the system choose.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

/// Every address of the machine, and a port that the system chooses.
impl Default for ListenAddress {
    fn default() -> ListenAddress {
        ListenAddress(SocketAddr::from(([0, 0, 0, 0], 0)))
    }
}

/// A setting that was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenSetting {
    /// Its key.
    pub key: &'static str,
    /// The value as given.
    pub value: String,
    /// Where: "option --loops", "server.cnf, line 3".
    pub place: String,
}

/// The users that a connection may act as.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Auth {
    /// A connection may act only as a user it has logged in as.
    #[default]
    Strict,
    /// Any connection may act as any user, as on the reference server.
    Compat,
}

/// The messages that are recorded in conversations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Recorded {
    /// Those from and to users who have used level 2.
    OfLevel2,
    /// All of them.
    Everything,
    /// None: there is no level 2.
    #[default]
    Nothing,
}

/// The users who may see at level 2 which users are online.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PresenceShown {
    /// Friends and members of common groups.
    Contacts,
    /// Everybody.
    All,
    /// Nobody.
    #[default]
    Off,
}

/// Whether clients speak TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TlsUse {
    /// None does.
    #[default]
    Off,
    /// They may.
    On,
    /// They must, except those of this machine.
    Require,
}

/// Files of TLS, in the order in which they were named.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct TlsPaths(pub Vec<PathBuf>);

/// A certificate and its private key, which may be in one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The file of the certificate, with those of its issuers behind it.
    pub certificate: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
}

impl Config {
    /// The folder of the log files. A server on MySQL has it where the reference server has it; any
    /// other one has it beside its data, where no other server writes.
    pub fn log_dir(&self) -> PathBuf {
        match &self.log.dir {
            LogDir(Some(dir)) => dir.clone(),
            LogDir(None) if self.mysql.is_some() => PathBuf::from(SHARED_LOG_DIR),
            LogDir(None) => self.data_dir.join(OWN_LOG_DIR),
        }
    }

    /// The most bytes of all log files; `None` is no limit. By itself the server deletes files only
    /// in the folder that it has chosen itself beside its data: any other one may contain the log of
    /// another server.
    pub fn log_bytes_max(&self) -> Option<u64> {
        let is_own = self.mysql.is_none() && self.log.dir == LogDir(None);
        let chosen = match self.log.bytes_max {
            LogBytes(Some(bytes)) => bytes,
            LogBytes(None) if is_own => LOG_BYTES_MAX,
            LogBytes(None) => 0,
        };
        Some(chosen as u64).filter(|bytes| *bytes > 0)
    }

    /// The certificates of the port with their keys: none if it does not speak TLS.
    pub fn tls_files(&self) -> Vec<TlsFiles> {
        if self.tls == TlsUse::Off {
            return Vec::new();
        }
        let certificates = self.tls_certificates.0.iter();
        let key = |nth: usize, certificate: &PathBuf| self.tls_keys.0.get(nth).unwrap_or(certificate).clone();
        let files = |(nth, certificate): (usize, &PathBuf)| TlsFiles {
            certificate: certificate.clone(),
            key: key(nth, certificate),
        };
        certificates.enumerate().map(files).collect()
    }
}

/// How users become friends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FriendsBecome {
    /// By a request of one of them.
    #[default]
    Open,
    /// By requests of both.
    Ask,
}

/// How users become members of groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum GroupJoin {
    /// By asking.
    #[default]
    Open,
    /// The creator adds them.
    Closed,
}

/// What a new member of a group is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum GroupHistory {
    /// What is sent from then on.
    #[default]
    Joined,
    /// Everything, if the creator has added the member to a closed group.
    All,
}

/// The clients that get one frame at a time, with pauses, because they take the bytes of one read
/// for one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Paced {
    /// No clients.
    #[default]
    Off,
    /// Clients that do not end their frames with newlines.
    On,
    /// Of these, the ones that the form of their password identifies as the usual client.
    Auto,
}

/// The address for health and metrics, if any; port 0 lets the system choose.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct AdminAddress(pub Option<SocketAddr>);

/// The cost of one argon2id hash (RFC 9106).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PasswordCost {
    /// Memory in KiB, at least 8 for each lane.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes, the parallelism.
    pub lanes: u32,
}

/// Which lines are logged, where they go, and how they look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSettings {
    /// Where they go.
    pub to: LogTarget,
    /// How they look.
    pub format: LogFormat,
    /// The folder of the files.
    pub dir: LogDir,
    /// The days after which a file is deleted.
    pub days: Limit,
    /// The most bytes of all files.
    pub bytes_max: LogBytes,
    /// Which are logged.
    pub level: LogLevels,
}

impl Default for LogSettings {
    /// Nothing is logged.
    fn default() -> LogSettings {
        LogSettings {
            to: LogTarget::File,
            format: LogFormat::Text,
            dir: LogDir(None),
            days: Limit(None),
            bytes_max: LogBytes(None),
            level: LogLevels { everything: LevelFilter::Off, parts: Vec::new() },
        }
    }
}

/// Where the lines of the log go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogTarget {
    /// To files, and errors to stderr as well.
    File,
    /// To stdout.
    Stdout,
    /// To both files and stdout.
    Both,
}

impl LogTarget {
    /// Whether there are files.
    pub fn has_files(self) -> bool {
        self != LogTarget::Stdout
    }

    /// Whether lines go to stdout.
    pub fn has_stdout(self) -> bool {
        self != LogTarget::File
    }
}

/// How the lines of the log look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The folder of the log files, if it is named.
#[derive(Clone, PartialEq, Eq)]
pub struct LogDir(pub Option<PathBuf>);

/// The most bytes of all log files, if the number is given; 0 is no limit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LogBytes(pub Option<usize>);

/// The lines that are logged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLevels {
    /// The least important level, for parts without a level of their own.
    pub everything: LevelFilter,
    /// Parts of the program, by the beginning of the log target, with levels of their own.
    pub parts: Vec<(String, LevelFilter)>,
}

impl fmt::Display for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Auth::Strict => "strict",
            Auth::Compat => "compat",
        })
    }
}

impl fmt::Debug for TlsPaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // On one line.
        let paths: Vec<_> = self.0.iter().map(|path| path.to_string_lossy()).collect();
        write!(f, "{:?}", paths.join(","))
    }
}

impl fmt::Debug for LogDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // On one line.
        match &self.0 {
            Some(dir) => dir.fmt(f),
            None => f.write_str("auto"),
        }
    }
}

impl fmt::Debug for LogBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // On one line.
        match self.0 {
            Some(bytes) => bytes.fmt(f),
            None => f.write_str("auto"),
        }
    }
}

impl fmt::Debug for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

/// The folder of the log of a server on MySQL, as the reference server has it.
const SHARED_LOG_DIR: &str = "../logs";
/// The folder of the log of any other server, in the folder of its data.
const OWN_LOG_DIR: &str = "logs";
/// The most bytes of all log files, unless another number is given.
const LOG_BYTES_MAX: usize = 1024 * 1024 * 1024;
