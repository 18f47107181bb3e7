//! The table of settings: the name and the meaning of each, and the field of
//! [`Config`](super::Config) for its value.

use std::time::Duration;

use super::community::{FriendsBecome, GroupHistory, GroupJoin};
use super::hook::HookKeyFile;
use super::key::{Key, Kind};
use super::values::{KIB, MIB};
use crate::base::memory;

/// Every setting, grouped as in the sample file.
pub(super) static KEYS: &[Key] = &[
    Key {
        name: "data",
        default: ".",
        help: "Folder of the database",
        kind: Kind::Folder(|config, folder| config.data_dir = folder),
    },
    Key {
        name: "mysql",
        default: "auto",
        help: "File with the settings of MySQL or MariaDB; auto is mysql.cnf in the working directory, if it is there",
        kind: Kind::File(|config, file| config.mysql_file = file),
    },
    Key {
        name: "redis",
        default: "auto",
        help: "File with the settings of Redis; auto is redis.cnf in the working directory, if it is there",
        kind: Kind::File(|config, file| config.redis_file = file),
    },
    Key {
        name: "auth",
        default: "strict",
        help: "Whether a connection may act only as the users it has logged in as",
        kind: Kind::Auth(|config, auth| config.auth = auth),
    },
    Key {
        name: "loops",
        default: "auto",
        help: "Event loops; auto is one for each core",
        kind: Kind::Threads(256, |cores| cores, |config, n| config.loops = n as usize),
    },
    Key {
        name: "workers",
        default: "4",
        help: "Threads for requests to the store",
        kind: Kind::Count(1, 1024, |config, n| config.workers = n as usize),
    },
    Key {
        name: "hashers",
        default: "auto",
        help: "Threads for password hashing; auto is one for two cores",
        kind: Kind::Threads(256, |cores| cores / 2, |config, n| config.hashers = n as usize),
    },
    Key {
        name: "backlog",
        default: "4096",
        help: "Connections the kernel holds until they are accepted",
        kind: Kind::Count(1, 65535, |config, n| config.backlog = n),
    },
    Key {
        name: "max_frame",
        default: "64k",
        help: "The longest frame in bytes; a longer one gets the 413 reply",
        kind: Kind::Size(KIB, 16 * MIB, |config, bytes| config.frame_bytes_max = bytes),
    },
    Key {
        name: "output_max",
        default: "1m",
        help: "Bytes of output at which a connection that does not read is closed",
        kind: Kind::Size(KIB, 1024 * MIB, |config, bytes| config.output_bytes_max = bytes),
    },
    Key {
        name: "frame_timeout",
        default: "10s",
        help: "Time a started frame may take to complete",
        kind: Kind::Time(MILLISECOND, DAY, |config, time| config.frame_timeout = time),
    },
    Key {
        name: "idle_timeout",
        default: "20m",
        help: "Time after which a silent connection is closed",
        kind: Kind::Time(MILLISECOND, YEAR, |config, time| config.idle_timeout = time),
    },
    Key {
        name: "login_timeout",
        default: "0",
        help: "Time after which a connection that is not logged in is closed; 0 is never",
        kind: Kind::Time(Duration::ZERO, DAY, |config, time| config.login_timeout = time),
    },
    Key {
        name: "user_timeout",
        default: "30s",
        help: "Time a client may leave data unacknowledged (TCP_USER_TIMEOUT)",
        kind: Kind::Time(MILLISECOND, DAY, |config, time| config.user_timeout = time),
    },
    Key {
        name: "proxy_protocol",
        default: "off",
        help: "Whether the proxies of --proxy-from send the client's address (PROXY protocol 1 or 2)",
        kind: Kind::Switch(|config, on| config.proxy_protocol = on),
    },
    Key {
        name: "proxy_from",
        default: "127.0.0.1,::1",
        help: "Proxies whose connections begin with a PROXY header; a header from another address is refused",
        kind: Kind::Networks(|config, networks| config.proxy_from = networks),
    },
    Key {
        name: "web",
        default: "on",
        help: "Whether browsers get the web client at /",
        kind: Kind::Either(SWITCHED, |config, is_off| config.web = !is_off),
    },
    Key {
        name: "ws_origins",
        default: "off",
        help: "Pages of other sites that may open WebSockets here",
        kind: Kind::Origins(|config, origins| config.ws_origins = origins),
    },
    Key {
        name: "http_hosts",
        default: "off",
        help: "The only names by which HTTP clients may call this server; off: any",
        kind: Kind::Hosts(|config, hosts| config.http_hosts = hosts),
    },
    Key {
        name: "tls_cert",
        default: "none",
        help: "Certificates for TLS, PEM files with the issuers' certificates behind; the first is for clients that ask for no name",
        kind: Kind::Files(|config, files| config.tls_certificates = files),
    },
    Key {
        name: "tls_key",
        default: "none",
        help: "Private keys of tls_cert, in the same order; none: each is in the file of its certificate",
        kind: Kind::Files(|config, files| config.tls_keys = files),
    },
    Key {
        name: "tls",
        default: "on",
        help: "Whether clients may speak TLS, where tls_cert names a certificate, or must (require), except on this machine",
        kind: Kind::TlsUse(|config, tls| config.tls = tls),
    },
    Key {
        name: "paced",
        default: "auto",
        help: "Which clients get one frame at a time, as the Qt client needs it; auto: those that log in as the Qt client does",
        kind: Kind::Paced(|config, paced| config.paced = paced),
    },
    Key {
        name: "pace_ms",
        default: "40",
        help: "Pause after a frame to a paced client, in milliseconds for each message in the frame",
        kind: Kind::Count(1, 1000, |config, n| config.pace = n * MILLISECOND),
    },
    Key {
        name: "history",
        default: "auto",
        help: "Which messages are recorded in conversations; auto: those of users of level 2; off: there is no level 2",
        kind: Kind::Recorded(|config, recorded| config.recorded = recorded),
    },
    Key {
        name: "history_days",
        default: "off",
        help: "Days after which messages of conversations are deleted; off is never",
        kind: Kind::Limit(1, 36_500, |config, days| config.history_days = days),
    },
    Key {
        name: "history_per_conversation",
        default: "off",
        help: "The newest messages of a conversation that are kept; off is all",
        kind: Kind::Limit(1, COUNT_MAX, |config, limit| config.history_per_conversation = limit),
    },
    Key {
        name: "dedup_days",
        default: "7",
        help: "Days for which a message that is sent again at level 2 is recognised, even where it is deleted before",
        kind: Kind::Count(1, 3650, |config, days| config.dedup_days = days),
    },
    Key {
        name: "edit_window",
        default: "24h",
        help: "Time within which a message may be edited or recalled at level 2; 0 is never",
        kind: Kind::Time(Duration::ZERO, YEAR, |config, time| config.edit_window = time),
    },
    Key {
        name: "conversations_max",
        default: "20000",
        help: "The most conversations of two of a user; strangers open only half as many with a user",
        kind: Kind::Count(2, 1_000_000, |config, n| config.conversations_max = n as usize),
    },
    Key {
        name: "inflight",
        default: "256",
        help: "Sends of a connection of level 2 without an answer; beyond that, the connection is not read",
        kind: Kind::Count(1, 4096, |config, n| config.inflight_max = n as usize),
    },
    Key {
        name: "devices_max",
        default: "16",
        help: "The most devices of a user at level 2; one more, and the least recently seen one is forgotten",
        kind: Kind::Count(1, 1000, |config, n| config.devices_max = n as usize),
    },
    Key {
        name: "token_days",
        default: "30",
        help: "Days for which a token of level 2 is valid",
        kind: Kind::Count(1, 3650, |config, days| config.token_days = days),
    },
    Key {
        name: "jwt_key",
        default: "none",
        help: "File with the keys that verify JSON web tokens (PEM or JWKS), with which users may log in at level 2",
        kind: Kind::OneFile(|config, file| config.jwt.key_file = file),
    },
    Key {
        name: "jwt_algorithm",
        default: "RS256",
        help: "The algorithm of JSON web tokens; a token with another one is refused",
        kind: Kind::JwtAlgorithm(|config, algorithm| config.jwt.algorithm = algorithm),
    },
    Key {
        name: "jwt_claim",
        default: "sub",
        help: "The claim of JSON web tokens that names the user: an integer is an id, a text is a name",
        kind: Kind::Text(100, |config, claim| config.jwt.claim = claim),
    },
    Key {
        name: "jwt_issuer",
        default: "none",
        help: "The issuer (iss) that JSON web tokens must name",
        kind: Kind::Text(1000, |config, issuer| config.jwt.issuer = issuer),
    },
    Key {
        name: "jwt_audience",
        default: "none",
        help: "The audience (aud) to which JSON web tokens must be addressed",
        kind: Kind::Text(1000, |config, audience| config.jwt.audience = audience),
    },
    Key {
        name: "jwt_register",
        default: "off",
        help: "Whether a JSON web token makes the account of a new user; then tokens open no other accounts",
        kind: Kind::Switch(|config, on| config.jwt.registers = on),
    },
    Key {
        name: "presence",
        default: "contacts",
        help: "Who may see at level 2 whether a user is online; contacts: friends and members of common groups",
        kind: Kind::Presence(|config, presence| config.presence = presence),
    },
    Key {
        name: "receipts",
        default: "on",
        help: "Whether partners at level 2 are shown how far the other one has read; each user may switch that off",
        kind: Kind::Either(SWITCHED, |config, is_off| config.receipts = !is_off),
    },
    Key {
        name: "hook_url",
        default: "off",
        help: "Web server that gets the messages which no device of a recipient at level 2 has received",
        kind: Kind::Url(|config, url| config.hook_url = url),
    },
    Key {
        name: "hook_key",
        default: "none",
        help: "File with the key that signs what is posted to hook_url",
        kind: Kind::OneFile(|config, file| config.hook_key = HookKeyFile(file)),
    },
    Key {
        name: "hook_delay",
        default: "10s",
        help: "Time within which a device may receive a message before it is posted to hook_url",
        kind: Kind::Time(Duration::ZERO, HOUR, |config, time| config.hook_delay = time),
    },
    Key {
        name: "hook_private",
        default: "off",
        help: "Addresses that are not public and that hook_url may lead to",
        kind: Kind::NetworksOrOff(|config, networks| config.hook_private = networks),
    },
    Key {
        name: "hook_waiting",
        default: "1000000",
        help: "Messages that may wait for hook_url; beyond that, the oldest are dropped",
        kind: Kind::Count(100, 100_000_000, |config, n| config.hook_waiting_max = n),
    },
    Key {
        name: "friends",
        default: "open",
        help: "Whether a request makes friends at once, or the other user must have sent one before (ask)",
        kind: Kind::Either(["open", "ask"], |config, asks| {
            config.friends = if asks { FriendsBecome::Ask } else { FriendsBecome::Open };
        }),
    },
    Key {
        name: "group_join",
        default: "open",
        help: "Whether users join groups by themselves, or the creator adds them (closed)",
        kind: Kind::Either(["open", "closed"], |config, is_closed| {
            config.group_join = if is_closed { GroupJoin::Closed } else { GroupJoin::Open };
        }),
    },
    Key {
        name: "group_history",
        default: "joined",
        help: "What a new member sees at level 2; all needs group_join=closed",
        kind: Kind::Either(["joined", "all"], |config, sees_all| {
            config.group_history = if sees_all { GroupHistory::All } else { GroupHistory::Joined };
        }),
    },
    Key {
        name: "drain_delay",
        default: "0",
        help: "Time after a stop signal for which the server keeps serving while /readyz returns 503",
        kind: Kind::Time(Duration::ZERO, DAY, |config, time| config.drain_delay = time),
    },
    Key {
        name: "drain_rate",
        default: "1000",
        help: "Connections that are closed per second after the drain delay",
        kind: Kind::Count(1, 1_000_000, |config, n| config.drain_rate = n),
    },
    Key {
        name: "drain_timeout",
        default: "10s",
        help: "Time that shutdown may take after the last connection was told to close",
        kind: Kind::Time(MILLISECOND, DAY, |config, time| config.drain_timeout = time),
    },
    Key {
        name: "max_connections",
        default: "off",
        help: "The most connections; one more gets the 429 reply and is closed",
        kind: Kind::Limit(1, COUNT_MAX, |config, limit| config.connections_max = limit),
    },
    Key {
        name: "connections_per_address",
        default: "50000",
        help: "The most connections of one address (IPv6: of one /64); one more gets the 429 reply and is closed",
        kind: Kind::Limit(1, COUNT_MAX, |config, limit| config.connections_per_address = limit),
    },
    Key {
        name: "frames_per_second",
        default: "1000000",
        help: "Frames per second of one connection, optionally with a burst (100/500); more get the 429 reply",
        kind: Kind::Rate(COUNT_MAX, |config, rate| config.frames_per_second = rate),
    },
    Key {
        name: "bytes_per_second",
        default: "256m",
        help: "Bytes per second of one connection, optionally with a burst (1m/4m); more get the 429 reply",
        kind: Kind::ByteRate(1 << 30, |config, rate| config.bytes_per_second = rate),
    },
    Key {
        name: "login_failures",
        default: "10",
        help: "Wrong passwords for one account from one address without a delay; each further one makes the next attempt wait longer",
        kind: Kind::Limit(0, COUNT_MAX, |config, limit| config.login_failures = limit),
    },
    Key {
        name: "login_failures_per_address",
        default: "10000",
        help: "Wrong passwords from one address within an hour, for all accounts together",
        kind: Kind::Limit(1, COUNT_MAX, |config, limit| config.login_failures_per_address = limit),
    },
    Key {
        name: "registrations_per_address",
        default: "100000",
        help: "New accounts from one address within an hour",
        kind: Kind::Limit(1, COUNT_MAX, |config, limit| config.registrations_per_address = limit),
    },
    Key {
        name: "memory_max",
        default: "auto",
        help: "Memory for incomplete frames and for offline messages on their way to clients; auto is an eighth of the machine's or container's, or of what a limit of the address space (ulimit -v) leaves, from 8m to 512m",
        kind: Kind::AutoSize(MIB, 1024 * 1024 * MIB, memory::for_clients, |config, bytes| {
            config.memory_bytes_max = bytes;
        }),
    },
    Key {
        name: "requests_max",
        default: "4096",
        help: "Requests that wait for a worker; more get the 503 reply",
        kind: Kind::Count(1, 1_000_000, |config, n| config.requests_max = n as usize),
    },
    Key {
        name: "logins_max",
        default: "256",
        help: "Password checks that wait for a hasher; more get the 503 reply",
        kind: Kind::Count(1, 1_000_000, |config, n| config.logins_max = n as usize),
    },
    Key {
        name: "lane_max",
        default: "64m",
        help: "Bytes of messages on their way to the store and to other nodes; an account beyond its share gets the 503 reply",
        kind: Kind::Size(KIB, 2048 * MIB, |config, bytes| config.lane_bytes_max = bytes),
    },
    Key {
        name: "mailbox_max",
        default: "16m",
        help: "Bytes of messages stored for one user; a sender beyond its share gets the 503 reply, a group leaves the user out",
        kind: Kind::Size(KIB, 1024 * 1024 * MIB, |config, bytes| config.mailbox_bytes_max = bytes),
    },
    Key {
        name: "spool_max",
        default: "256m",
        help: "Bytes of messages that wait on the disk while MySQL is unavailable; more get the 503 reply; 0 is none",
        kind: Kind::Size(0, 1024 * 1024 * MIB, |config, bytes| config.spool_bytes_max = bytes),
    },
    Key {
        name: "fetch_max",
        default: "1m",
        help: "The most bytes of text in one reply with offline messages",
        kind: Kind::Size(KIB, 1024 * MIB, |config, bytes| config.fetch_bytes_max = bytes),
    },
    Key {
        name: "group_members_max",
        default: "20000",
        help: "The most members of a group; a request to join a full one gets a 403",
        kind: Kind::Count(2, 1_000_000, |config, n| config.group_members_max = n as usize),
    },
    Key {
        name: "groups_max",
        default: "2000",
        help: "The most groups that a user is in; others add a user to half as many. Beyond that: 403",
        kind: Kind::Count(2, 1_000_000, |config, n| config.groups_max = n as usize),
    },
    Key {
        name: "search_max",
        default: "1000",
        help: "The most groups in one reply to a search",
        kind: Kind::Count(1, 1_000_000, |config, n| config.search_results_max = n as usize),
    },
    Key {
        name: "argon2",
        default: "m=19456,t=2,p=1",
        help: "Cost of one password hash: memory in KiB, passes, lanes",
        kind: Kind::Cost(|config, cost| config.password_cost = cost),
    },
    Key {
        name: "account_check",
        default: "5s",
        help: "How often the accounts of connected users are compared with the database; 0 is never",
        kind: Kind::Time(Duration::ZERO, DAY, |config, time| config.account_check = time),
    },
    Key {
        name: "password_memory",
        default: "24h",
        help: "Time a verified password is remembered; 0 is off",
        kind: Kind::Time(Duration::ZERO, YEAR, |config, time| config.password_memory = time),
    },
    Key {
        name: "admin",
        default: "off",
        help: "HTTP port for a status page, /healthz, /readyz and /metrics, such as 9600, which is 127.0.0.1:9600",
        kind: Kind::Address(|config, address| config.admin = address),
    },
    Key {
        name: "admin_key",
        default: "none",
        help: "Key that opens the administration (/v1) of the admin port; none closes it",
        kind: Kind::AdminKey(|config, key| config.admin_key = key),
    },
    Key {
        name: "admin_hosts",
        default: "off",
        help: "Names by which administration and status page may be called, beside addresses and localhost",
        kind: Kind::Hosts(|config, hosts| config.admin_hosts = hosts),
    },
    Key {
        name: "admin_nodes",
        default: "off",
        help: "Admin ports of the nodes of the cluster, which the status page shows",
        kind: Kind::Addresses(|config, nodes| config.admin_nodes = nodes),
    },
    Key {
        name: "trace",
        default: "off",
        help: "Messages whose hops are remembered for server trace: all, or of one conversation in N",
        kind: Kind::Trace(|config, sampling| config.trace = sampling),
    },
    Key {
        name: "trace_size",
        default: "6m",
        help: "Memory for these hops, about 90 bytes each; it is taken while trace is on",
        kind: Kind::Size(4 * KIB, 1024 * MIB, |config, bytes| config.trace_bytes = bytes),
    },
    Key {
        name: "node_name",
        default: "auto",
        help: "Name of this server in its log and its metrics; auto is the name of the machine",
        kind: Kind::NodeName(|config, name| config.node_name = name),
    },
    Key {
        name: "log",
        default: "file",
        help: "Where the log goes",
        kind: Kind::LogTarget(|config, to| config.log.to = to),
    },
    Key {
        name: "log_format",
        default: "text",
        help: "How lines of the log look: for people, or one JSON object each",
        kind: Kind::LogFormat(|config, format| config.log.format = format),
    },
    Key {
        name: "log_dir",
        default: "auto",
        help: "Folder of the log files, one for each day; auto is logs in the folder of the data, but ../logs with MySQL",
        kind: Kind::LogDir(|config, dir| config.log.dir = dir),
    },
    Key {
        name: "log_days",
        default: "off",
        help: "Days after which a log file is deleted; off is never",
        kind: Kind::Limit(1, 36500, |config, days| config.log.days = days),
    },
    Key {
        name: "log_size",
        default: "auto",
        help: "Bytes of all log files, beyond which the oldest are deleted; auto is 1024m in the folder that auto chooses beside the data, else off; 0 is off",
        kind: Kind::LogBytes(MIB, 1024 * 1024 * MIB, |config, bytes| config.log.bytes_max = bytes),
    },
    Key {
        name: "log_level",
        default: "info",
        help: "Least important level that is logged, for parts of the program also as in info,net=debug; audit=off ends the audit trail, which is logged otherwise",
        kind: Kind::Levels(|config, levels| config.log.level = levels),
    },
];

const SWITCHED: [&str; 2] = ["on", "off"];
const COUNT_MAX: u32 = 1_000_000_000;
const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Config;

    #[test]
    fn every_default_reaches_a_field_of_its_own() {
        // For every key, another value changes exactly one line of the settings, and no line is
        // left over.
        let address = "127.0.0.1:0".parse().unwrap();
        let plain = format!("{:#?}", Config::with_defaults(address));
        for key in KEYS {
            let other = match key.kind {
                Kind::Folder(_) | Kind::File(_) | Kind::LogDir(_) | Kind::NodeName(_) => "elsewhere",
                Kind::LogTarget(_) => "both",
                Kind::LogFormat(_) => "json",
                Kind::Auth(_) => "compat",
                Kind::Paced(_) => "on",
                Kind::Presence(_) | Kind::Recorded(_) => "all",
                Kind::Either([_, second], _) => second,
                Kind::Switch(_) => "on",
                Kind::Hosts(_) => "chat.example.org",
                Kind::Origins(_) => "https://chat.example.org",
                Kind::Networks(_) => "10.0.0.0/8",
                Kind::TlsUse(_) => "require",
                Kind::Files(_) => "a.pem,b.pem",
                Kind::NetworksOrOff(_) => "10.0.0.0/8",
                Kind::Url(_) => "https://push.example.org/",
                Kind::Levels(_) => "trace",
                Kind::Count(..) | Kind::Threads(..) | Kind::Limit(..) | Kind::Rate(..) => "123",
                Kind::ByteRate(..) => "1m/2m",
                Kind::Size(..) => "5k",
                Kind::AutoSize(..) | Kind::LogBytes(..) => "77m",
                Kind::Time(..) => "7s",
                Kind::Address(_) => "[::1]:9600",
                Kind::Addresses(_) => "10.0.0.1:9600,[::1]:9600",
                Kind::AdminKey(_) => "0123456789abcdef0123456789abcdef",
                Kind::Trace(_) => "all",
                Kind::OneFile(_) => "/tmp/key.pem",
                Kind::Text(..) => "other",
                Kind::JwtAlgorithm(_) => "ES256",
                Kind::Cost(_) => "m=19456,t=3,p=1",
            };
            let mut config = Config::with_defaults(address);
            assert!(key.set(&mut config, other), "{}", key.name);
            let changed = format!("{config:#?}");
            let differing = plain.lines().zip(changed.lines()).filter(|(before, after)| before != after).count();
            assert_eq!(differing, 1, "{} changes one field", key.name);
        }
        // The address, the contents of three files, the notes and what was given are not keys. The cost has a
        // line for each of its three fields, the levels for their two, and these two, the log and the
        // tokens have two for their braces.
        assert_eq!(plain.lines().count(), 2 + 6 + (KEYS.len() - 2) + 5 + 4 + 2 + 2);
    }

    #[test]
    fn names_differ() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..i].iter().all(|other| other.name != key.name), "{}", key.name);
        }
    }
}
