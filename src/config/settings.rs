//! [`Config`]: the settings of one server, checked.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::cluster_settings::{AdminKey, AdminNodes, MysqlSettings, RedisSettings, Secret, SettingsFile};
use super::community::{FriendsBecome, GroupHistory, GroupJoin};
use super::hook::{HookKeyFile, HookNetworks, HookUrl};
use super::jwt::JwtSettings;
use super::limits::{Limit, Rate};
use super::networks::Networks;
use super::sites::{Hosts, Origins};
use crate::base::trace::Sampling;

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
    /// The settings that were given instead of left at their defaults, in the order in which they
    /// took effect.
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
    /// Whether connections from `proxy_from` begin with a PROXY header, which contains the client's
    /// address.
    pub proxy_protocol: bool,
    /// The trusted proxies.
    pub proxy_from: Networks,
    /// Whether browsers get the web client.
    pub web: bool,
    /// The origins, besides this server's own, whose pages may open WebSockets.
    pub ws_origins: Origins,
    /// The names under which HTTP clients may call this server; if empty, any name.
    pub http_hosts: Hosts,
    /// Whether clients use TLS. It needs certificates.
    pub tls: TlsUse,
    /// The certificates of the client port.
    pub tls_certificates: TlsPaths,
    /// The private keys of the certificates; if empty, each is in the file of its certificate.
    pub tls_keys: TlsPaths,
    /// High-water mark of one connection's output, in bytes.
    pub output_bytes_max: usize,
    /// The clients that get one frame at a time, with pauses.
    pub paced: Paced,
    /// The pause for each message that a frame shows.
    pub pace: Duration,
    /// The messages that are recorded in conversations.
    pub recorded: RecordingScope,
    /// The age in days at which recorded messages are deleted.
    pub history_days: Limit,
    /// The number of newest messages that a conversation keeps.
    pub history_per_conversation: Limit,
    /// The days for which a retry of a message is recognised, even if the message was deleted
    /// earlier.
    pub dedup_days: u32,
    /// The age up to which a message may be edited or recalled; zero: never.
    pub edit_window: Duration,
    /// The most conversations of two that a user has; strangers open only half as many with a user.
    pub conversations_max: usize,
    /// The most unanswered sends of a connection of level 2.
    pub inflight_max: usize,
    /// The most devices of a user; beyond that, the least recently seen one is forgotten.
    pub devices_max: usize,
    /// The days for which a token of a device is valid.
    pub token_days: u32,
    /// Logins with JSON web tokens.
    pub jwt: JwtSettings,
    /// The users who may see at level 2 which users are online.
    pub presence: PresenceShown,
    /// Whether users of level 2 see how far their partner has read.
    pub receipts: bool,
    /// The web server that gets messages which no device has received.
    pub hook_url: HookUrl,
    /// The file of the key that signs these messages.
    pub hook_key: HookKeyFile,
    /// The content of that file, if there is such a web server.
    pub hook_secret: Option<Secret>,
    /// How long a device may take to receive a message before it is posted.
    pub hook_delay: Duration,
    /// The addresses that are not public and that the web server may have.
    pub hook_private: HookNetworks,
    /// The most messages that wait for the web server; beyond that, the oldest are dropped.
    pub hook_waiting_max: u32,
    /// Whether a friendship needs the consent of both users.
    pub friends: FriendsBecome,
    /// The way in which users become members of groups.
    pub group_join: GroupJoin,
    /// The history shown to a new member that the creator adds.
    pub group_history: GroupHistory,
    /// How long the server keeps serving after a stop signal, while it reports that it is not
    /// ready.
    pub drain_delay: Duration,
    /// The number of connections that it then closes per second.
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
    /// The most groups that a user is in.
    pub groups_max: usize,
    /// The cost of hashing one password.
    pub password_cost: PasswordCost,
    /// The interval at which connected users' accounts are compared with the database; zero: never.
    pub account_check: Duration,
    /// How long a verified password is remembered; zero: not at all.
    pub password_memory: Duration,
    /// The address of the HTTP port for health and metrics.
    pub admin: AdminAddress,
    /// The key that gives access to the administration on that port; without one, there is none.
    pub admin_key: AdminKey,
    /// The names under which that port may be called, besides addresses and `localhost`.
    pub admin_hosts: Hosts,
    /// The admin ports that the status page queries.
    pub admin_nodes: AdminNodes,
    /// The share of the messages whose hops are remembered.
    pub trace: Sampling,
    /// The memory for these hops.
    pub trace_bytes: usize,
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
    /// The place of the setting: "option --loops", "server.cnf, line 3".
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
pub enum RecordingScope {
    /// Messages from and to users who have used level 2.
    OfLevel2,
    /// All messages.
    Everything,
    /// No messages: there is no level 2.
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

/// Whether clients use TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TlsUse {
    /// No client does.
    #[default]
    Off,
    /// A client may.
    On,
    /// Every client must, except those on this machine.
    Require,
}

/// Files of TLS, in the order in which they were named.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct TlsPaths(pub Vec<PathBuf>);

/// A certificate and its private key, which may be in one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The file of the certificate, followed by those of its issuers.
    pub certificate: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
}

impl Config {
    /// The folder of the log files. A server on MySQL uses the reference server's folder. Any other
    /// one uses a folder beside its data, where no other server writes.
    pub fn log_dir(&self) -> PathBuf {
        match &self.log.dir {
            LogDir(Some(dir)) => dir.clone(),
            LogDir(None) if self.mysql.is_some() => PathBuf::from(SHARED_LOG_DIR),
            LogDir(None) => self.data_dir.join(OWN_LOG_DIR),
        }
    }

    /// The most bytes of all log files; `None` means no limit. By default the server deletes files
    /// only in its own folder beside its data: any other folder may contain the log of another
    /// server.
    pub fn log_bytes_max(&self) -> Option<u64> {
        let is_own = self.mysql.is_none() && self.log.dir == LogDir(None);
        let chosen = match self.log.bytes_max {
            LogBytes(Some(bytes)) => bytes,
            LogBytes(None) if is_own => LOG_BYTES_MAX,
            LogBytes(None) => 0,
        };
        Some(chosen as u64).filter(|bytes| *bytes > 0)
    }

    /// The certificates of the client port with their keys; empty if it does not use TLS.
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

/// The clients that get one frame at a time, with pauses, because they take the bytes of one read
/// for one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Paced {
    /// No clients.
    #[default]
    Off,
    /// Clients that do not end their frames with newlines.
    On,
    /// Of the same clients, those that the form of their password identifies as the usual client.
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

/// The settings of the log: its lines, their form, and their destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSettings {
    /// The destination of the lines.
    pub to: LogTarget,
    /// The form of the lines.
    pub format: LogFormat,
    /// The folder of the files.
    pub dir: LogDir,
    /// The days after which a file is deleted.
    pub days: Limit,
    /// The most bytes of all files.
    pub bytes_max: LogBytes,
    /// The levels of the lines that are logged.
    pub level: LogLevels,
}

impl Default for LogSettings {
    /// Logs nothing.
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

/// The destination of the log's lines.
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

/// The form of the log's lines.
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
    /// The levels of parts of the program, by the prefix of the log target.
    pub parts: Vec<(String, LevelFilter)>,
}

/// Formats it as in the setting.
impl fmt::Display for LogLevels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.everything.as_str().to_ascii_lowercase())?;
        self.parts.iter().try_for_each(|(part, level)| write!(f, ",{part}={}", level.as_str().to_ascii_lowercase()))
    }
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

/// The folder for the log of a server on MySQL, the same as the reference server's.
const SHARED_LOG_DIR: &str = "../logs";
/// The folder for the log of any other server, inside its data folder.
const OWN_LOG_DIR: &str = "logs";
/// The default limit of all log files, in bytes.
const LOG_BYTES_MAX: usize = 1024 * 1024 * 1024;
