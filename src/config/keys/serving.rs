//! The settings of the process, of its connections and of TLS.

use std::time::Duration;

use crate::config::key::{Key, Kind};
use crate::config::values::{DAY, KIB, MIB, MILLISECOND, SWITCHED, YEAR};

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
        default: "8",
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
        help: "Certificates for TLS, PEM files, each with its issuers' certificates after its own; the first is for clients that ask for no name",
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
];
