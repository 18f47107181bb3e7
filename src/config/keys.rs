//! The table of settings, and the parsing of a value into a field of [`Config`].

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use log::LevelFilter;

use super::{
    AdminAddress, Auth, Config, Limit, LogLevels, Networks, Paced, PasswordCost, PerSecond, Rate, SettingsFile,
    VARIABLE_PREFIX,
};
use crate::base::memory;

/// One setting.
pub(super) struct Key {
    /// As in the file; the names of the option and of the environment variable are derived from it.
    pub(super) name: &'static str,
    /// The default, as text.
    pub(super) default: &'static str,
    /// The purpose, on one line; the bounds and the default are appended.
    pub(super) help: &'static str,
    kind: Kind,
}

/// The kinds of values, each with the function that sets its field.
enum Kind {
    /// A folder, which need not exist.
    Folder(fn(&mut Config, PathBuf)),
    /// A file, or `auto`.
    File(fn(&mut Config, SettingsFile)),
    /// One of [`AUTHS`].
    Auth(fn(&mut Config, Auth)),
    /// One of [`PACED`].
    Paced(fn(&mut Config, Paced)),
    /// One of [`SWITCHES`].
    Switch(fn(&mut Config, bool)),
    /// Addresses and networks.
    Networks(fn(&mut Config, Networks)),
    /// One of [`LEVELS`], and perhaps others for parts of the program.
    Levels(fn(&mut Config, LogLevels)),
    /// A number from the first to the second.
    Count(u32, u32, fn(&mut Config, u32)),
    /// A number from 1 to the first, or `auto`: the result of the second for the number of cores.
    Threads(u32, fn(u32) -> u32, fn(&mut Config, u32)),
    /// A number of bytes from the first to the second.
    Size(usize, usize, fn(&mut Config, usize)),
    /// The same, or `auto`: the result of the third.
    AutoSize(usize, usize, fn() -> usize, fn(&mut Config, usize)),
    /// A time from the first to the second.
    Time(Duration, Duration, fn(&mut Config, Duration)),
    /// A number from the first to the second, or `off`.
    Limit(u32, u32, fn(&mut Config, Limit)),
    /// A number per second from 1 to the first, optionally with a burst, or `off`.
    Rate(u32, fn(&mut Config, Rate)),
    /// The same in bytes.
    ByteRate(u32, fn(&mut Config, Rate)),
    /// An address to listen on, or `off`.
    Address(fn(&mut Config, AdminAddress)),
    /// The parameters of argon2.
    Cost(fn(&mut Config, PasswordCost)),
}

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
        help: "Proxies that must begin with a PROXY header; from others it is refused",
        kind: Kind::Networks(|config, networks| config.proxy_from = networks),
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
        help: "Pause after a frame to such a client, in milliseconds for each message in the frame",
        kind: Kind::Count(1, 1000, |config, n| config.pace = n * MILLISECOND),
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
        help: "Connections that are closed per second after that",
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
        help: "Wrong passwords for one account from one address after which each makes the next attempt wait longer",
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
        help: "HTTP port for /healthz, /readyz and /metrics, such as 9600, which is 127.0.0.1:9600",
        kind: Kind::Address(|config, address| config.admin = address),
    },
    Key {
        name: "log_dir",
        default: "../logs",
        help: "Folder of the log files, one for each day",
        kind: Kind::Folder(|config, folder| config.log_dir = folder),
    },
    Key {
        name: "log_level",
        default: "info",
        help: "Least important level that is logged, for parts of the program also as in info,net=debug",
        kind: Kind::Levels(|config, levels| config.log_level = levels),
    },
];

impl Key {
    /// Sets the field, or returns false if [`Key::allowed`] does not allow the value.
    pub(super) fn set(&self, config: &mut Config, text: &str) -> bool {
        let done = match self.kind {
            Kind::Folder(set) => path(text).map(|folder| set(config, folder)),
            Kind::File(set) => file(text).map(|file| set(config, file)),
            Kind::Auth(set) => one_of(&AUTHS, text).map(|auth| set(config, auth)),
            Kind::Paced(set) => one_of(&PACED, text).map(|paced| set(config, paced)),
            Kind::Switch(set) => one_of(&SWITCHES, text).map(|on| set(config, on)),
            Kind::Networks(set) => Networks::parse(text).map(|networks| set(config, networks)),
            Kind::Levels(set) => levels(text).map(|levels| set(config, levels)),
            Kind::Count(min, max, set) => count(text, min, max).map(|n| set(config, n)),
            Kind::Threads(max, auto, set) => threads(text, max, auto).map(|n| set(config, n)),
            Kind::Size(min, max, set) => size(text, min, max).map(|bytes| set(config, bytes)),
            Kind::AutoSize(min, max, auto, set) => {
                let bytes = if text == "auto" { Some(auto().clamp(min, max)) } else { size(text, min, max) };
                bytes.map(|bytes| set(config, bytes))
            }
            Kind::Time(min, max, set) => time(text, min, max).map(|time| set(config, time)),
            Kind::Limit(min, max, set) => limit(text, min, max).map(|limit| set(config, limit)),
            Kind::Rate(max, set) => rate(text, |text| count(text, 1, max)).map(|rate| set(config, rate)),
            Kind::ByteRate(max, set) => rate(text, |text| bytes(text, max)).map(|rate| set(config, rate)),
            Kind::Address(set) => address(text).map(|address| set(config, address)),
            Kind::Cost(set) => cost(text).map(|cost| set(config, cost)),
        };
        done.is_some()
    }

    /// The bounds, short enough for the help.
    pub(super) fn bounds(&self) -> String {
        match self.kind {
            Kind::Folder(_) => "a path".to_owned(),
            Kind::File(_) => "auto or a path".to_owned(),
            Kind::Auth(_) => names(&AUTHS),
            Kind::Paced(_) => names(&PACED),
            Kind::Switch(_) => names(&SWITCHES),
            Kind::Networks(_) => "addresses and CIDR networks with commas".to_owned(),
            Kind::Levels(_) => names(&LEVELS),
            Kind::Count(min, max, _) => format!("{min} to {max}"),
            Kind::Threads(max, ..) => format!("auto or 1 to {max}"),
            Kind::Size(min, max, _) => format!("{} to {}", shown_size(min), shown_size(max)),
            Kind::AutoSize(min, max, ..) => format!("auto or {} to {}", shown_size(min), shown_size(max)),
            Kind::Time(min, max, _) => format!("{} to {}", shown_time(min), shown_time(max)),
            Kind::Limit(min, max, _) => format!("off or {min} to {max}"),
            Kind::Rate(max, _) => format!("off or 1 to {max}"),
            Kind::ByteRate(max, _) => format!("off or 1k to {}", shown_size(max as usize)),
            Kind::Address(_) => "off, PORT or IP:PORT".to_owned(),
            Kind::Cost(_) => format!("m 8*p to {MEMORY_KIB_MAX}, t 1 to {PASSES_MAX}, p 1 to {LANES_MAX}"),
        }
    }

    /// The allowed values, for an error text: the bounds and an example.
    pub(super) fn allowed(&self) -> String {
        let look = match self.kind {
            Kind::Folder(_)
            | Kind::File(_)
            | Kind::Auth(_)
            | Kind::Paced(_)
            | Kind::Switch(_)
            | Kind::Count(..)
            | Kind::Threads(..)
            | Kind::Limit(..) => "",
            Kind::Rate(..) => ", optionally with a burst, such as 100/500",
            Kind::ByteRate(..) => ", in bytes or with k or m (KiB, MiB), optionally with a burst, such as 1m/4m",
            Kind::Networks(_) => ", such as 127.0.0.1,10.0.0.0/8,fd00::/8",
            Kind::Levels(_) => ", optionally with others for parts of the program, such as info,net=debug",
            Kind::Size(..) | Kind::AutoSize(..) => ", in bytes or with k or m (KiB, MiB)",
            Kind::Time(..) => ", such as 500ms, 10s, 20m or 24h",
            Kind::Address(_) => ", such as 9600 (on 127.0.0.1), 10.0.0.1:9600 or [::1]:9600",
            Kind::Cost(_) => ", such as m=19456,t=2,p=1",
        };
        self.bounds() + look
    }

    /// The placeholder of the value in the help.
    pub(super) fn value_name(&self) -> &'static str {
        match self.kind {
            Kind::Folder(_) => "DIR",
            Kind::File(_) => "FILE",
            Kind::Auth(_) | Kind::Paced(_) | Kind::Switch(_) => "MODE",
            Kind::Networks(_) => "NETWORKS",
            Kind::Levels(_) => "LEVEL",
            Kind::Count(..) | Kind::Threads(..) | Kind::Limit(..) => "N",
            Kind::Rate(..) | Kind::ByteRate(..) => "RATE",
            Kind::Size(..) | Kind::AutoSize(..) => "SIZE",
            Kind::Time(..) => "TIME",
            Kind::Address(_) => "ADDRESS",
            Kind::Cost(_) => "COST",
        }
    }

    /// The option's name without its dashes.
    pub(super) fn option(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The name of the environment variable.
    pub(super) fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.to_ascii_uppercase())
    }
}

/// Any path that is not empty; a replacement character shows that the original was not UTF-8, and
/// so was another path.
pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains(char::REPLACEMENT_CHARACTER)).then(|| PathBuf::from(text))
}

fn file(text: &str) -> Option<SettingsFile> {
    if text == "auto" { Some(SettingsFile::Auto) } else { path(text).map(SettingsFile::Named) }
}

pub(super) fn one_of<T: Copy>(choices: &[(&str, T)], text: &str) -> Option<T> {
    choices.iter().find(|(name, _)| *name == text).map(|&(_, value)| value)
}

pub(super) fn names<T>(choices: &[(&str, T)]) -> String {
    let names: Vec<&str> = choices.iter().map(|&(name, _)| name).collect();
    let (last, others) = names.split_last().expect("there is something to choose");
    format!("{} or {last}", others.join(", "))
}

fn cores() -> u32 {
    thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

/// Digits only: unlike the standard parser, it accepts no plus sign.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

pub(super) fn count(text: &str, min: u32, max: u32) -> Option<u32> {
    number(text).and_then(|n| u32::try_from(n).ok()).filter(|n| (min..=max).contains(n))
}

fn threads(text: &str, max: u32, auto: fn(u32) -> u32) -> Option<u32> {
    if text == "auto" { Some(auto(cores()).clamp(1, max)) } else { count(text, 1, max) }
}

/// A number and its unit: the letters at the end.
fn with_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    Some((number(digits)?, &text[digits.len()..]))
}

fn size(text: &str, min: usize, max: usize) -> Option<usize> {
    let (n, unit) = with_unit(text)?;
    let unit_bytes = match unit {
        "" => 1,
        "k" | "K" => KIB,
        "m" | "M" => MIB,
        _ => return None,
    };
    usize::try_from(n).ok()?.checked_mul(unit_bytes).filter(|bytes| (min..=max).contains(bytes))
}

fn time(text: &str, min: Duration, max: Duration) -> Option<Duration> {
    let (n, unit) = with_unit(text)?;
    let unit_millis = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => return None,
    };
    n.checked_mul(unit_millis).map(Duration::from_millis).filter(|time| (min..=max).contains(time))
}

fn address(text: &str) -> Option<AdminAddress> {
    if text == "off" {
        Some(AdminAddress(None))
    } else {
        // A port alone listens on this machine only: for other machines the operator has to give
        // the address.
        let alone = || Some(SocketAddr::from((Ipv4Addr::LOCALHOST, number(text)?.try_into().ok()?)));
        text.parse().ok().or_else(alone).map(|at| AdminAddress(Some(at)))
    }
}

fn limit(text: &str, min: u32, max: u32) -> Option<Limit> {
    if text == "off" { Some(Limit(None)) } else { count(text, min, max).map(|max| Limit(Some(max))) }
}

/// A rate and, after a slash, the size of a burst; without, a burst is a second's worth.
fn rate(text: &str, number: impl Fn(&str) -> Option<u32>) -> Option<Rate> {
    if text == "off" {
        return Some(Rate(None));
    }
    let (rate, burst) = text.split_once('/').unwrap_or((text, text));
    let (per_second, burst) = (number(rate)?, number(burst)?);
    Some(Rate(Some(PerSecond { per_second, burst })))
}

fn bytes(text: &str, max: u32) -> Option<u32> {
    size(text, KIB, max as usize).and_then(|bytes| u32::try_from(bytes).ok())
}

/// A level for everything, once, and levels for parts of the program:
/// `info,net=debug,raybox::router=trace`.
fn levels(text: &str) -> Option<LogLevels> {
    let (mut everything, mut parts) = (None, Vec::new());
    for directive in text.split(',').map(str::trim) {
        match directive.split_once('=') {
            Some((target, level)) if !target.is_empty() => parts.push((target.to_owned(), one_of(&LEVELS, level)?)),
            Some(_) => return None,
            None => {
                if everything.replace(one_of(&LEVELS, directive)?).is_some() {
                    return None;
                }
            }
        }
    }
    Some(LogLevels { everything: everything.unwrap_or(LevelFilter::Info), parts })
}

/// The parameters in any order, each exactly once, as in the middle of a PHC string.
fn cost(text: &str) -> Option<PasswordCost> {
    let (mut memory_kib, mut passes, mut lanes) = (None, None, None);
    for part in text.split(',') {
        let (name, value) = part.trim().split_once('=')?;
        let (field, max) = match name {
            "m" => (&mut memory_kib, MEMORY_KIB_MAX),
            "t" => (&mut passes, PASSES_MAX),
            "p" => (&mut lanes, LANES_MAX),
            _ => return None,
        };
        if field.replace(count(value, 1, max)?).is_some() {
            return None;
        }
    }
    let cost = PasswordCost { memory_kib: memory_kib?, passes: passes?, lanes: lanes? };
    // RFC 9106, section 3.1: every lane needs eight blocks of one KiB.
    (cost.memory_kib >= 8 * cost.lanes).then_some(cost)
}

fn shown_size(bytes: usize) -> String {
    match bytes {
        _ if bytes.is_multiple_of(MIB) => format!("{}m", bytes / MIB),
        _ if bytes.is_multiple_of(KIB) => format!("{}k", bytes / KIB),
        _ => bytes.to_string(),
    }
}

fn shown_time(time: Duration) -> String {
    match time.as_millis() {
        0 => "0".to_owned(),
        ms if ms.is_multiple_of(60 * 60 * 1000) => format!("{}h", ms / (60 * 60 * 1000)),
        ms if ms.is_multiple_of(60 * 1000) => format!("{}m", ms / (60 * 1000)),
        ms if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

const AUTHS: [(&str, Auth); 2] = [("strict", Auth::Strict), ("compat", Auth::Compat)];

const PACED: [(&str, Paced); 3] = [("auto", Paced::Auto), ("on", Paced::On), ("off", Paced::Off)];

const SWITCHES: [(&str, bool); 2] = [("on", true), ("off", false)];

const LEVELS: [(&str, LevelFilter); 6] = [
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
    ("off", LevelFilter::Off),
];

const COUNT_MAX: u32 = 1_000_000_000;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_reaches_a_field_of_its_own() {
        // For every key, another value changes exactly one line of the settings, and no line is
        // left over.
        let address = "127.0.0.1:0".parse().unwrap();
        let plain = format!("{:#?}", Config::with_defaults(address));
        for key in KEYS {
            let other = match key.kind {
                Kind::Folder(_) | Kind::File(_) => "elsewhere",
                Kind::Auth(_) => "compat",
                Kind::Paced(_) => "on",
                Kind::Switch(_) => "on",
                Kind::Networks(_) => "10.0.0.0/8",
                Kind::Levels(_) => "trace",
                Kind::Count(..) | Kind::Threads(..) | Kind::Limit(..) | Kind::Rate(..) => "123",
                Kind::ByteRate(..) => "1m/2m",
                Kind::Size(..) => "5k",
                Kind::AutoSize(..) => "77m",
                Kind::Time(..) => "7s",
                Kind::Address(_) => "[::1]:9600",
                Kind::Cost(_) => "m=19456,t=3,p=1",
            };
            let mut config = Config::with_defaults(address);
            assert!(key.set(&mut config, other), "{}", key.name);
            let changed = format!("{config:#?}");
            let differing = plain.lines().zip(changed.lines()).filter(|(before, after)| before != after).count();
            assert_eq!(differing, 1, "{} changes one field", key.name);
        }
        // The address, the contents of the two files and the notes are not keys. The cost has a
        // line for each of its three fields, the levels for their two, and both have two for their
        // braces.
        assert_eq!(plain.lines().count(), 2 + 4 + (KEYS.len() - 2) + 5 + 4);
    }

    #[test]
    fn names_differ() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..i].iter().all(|other| other.name != key.name), "{}", key.name);
        }
    }

    #[test]
    fn counts() {
        assert_eq!(count("1", 1, 9), Some(1));
        assert_eq!(count("9", 1, 9), Some(9));
        for bad in ["", "0", "10", "+1", "-1", "1.0", "0x1", " 1", "one", "99999999999999999999999"] {
            assert_eq!(count(bad, 1, 9), None, "{bad}");
        }
    }

    #[test]
    fn log_levels() {
        let of = |everything, parts: &[(&str, LevelFilter)]| {
            let parts = parts.iter().map(|(part, level)| ((*part).to_owned(), *level)).collect();
            Some(LogLevels { everything, parts })
        };
        assert_eq!(levels("warn"), of(LevelFilter::Warn, &[]));
        assert_eq!(levels("net=debug"), of(LevelFilter::Info, &[("net", LevelFilter::Debug)]));
        let parts = [("net", LevelFilter::Debug), ("raybox::router", LevelFilter::Off)];
        assert_eq!(levels("net=debug, error,raybox::router=off"), of(LevelFilter::Error, &parts));
        for bad in ["", "loud", "info,debug", "info,", "=debug", "net=", "net=loud", "net=debug=info"] {
            assert_eq!(levels(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes() {
        let size = |text| size(text, KIB, 16 * MIB);
        assert_eq!(size("1024"), Some(1024));
        assert_eq!(size("64k"), Some(65536));
        assert_eq!(size("64K"), Some(65536));
        assert_eq!(size("16m"), Some(16 << 20));
        for bad in ["", "k", "1023", "16777217", "17m", "1g", "1kb", "1 k", "-1k", "99999999999999999m"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn times() {
        let time = |text| time(text, MILLISECOND, DAY);
        assert_eq!(time("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(time("10"), Some(Duration::from_secs(10)));
        assert_eq!(time("10s"), Some(Duration::from_secs(10)));
        assert_eq!(time("20m"), Some(Duration::from_secs(1200)));
        assert_eq!(time("24h"), Some(DAY));
        for bad in ["", "ms", "0", "0s", "0ms", "25h", "1d", "1.5s", "1 s", "-1s", "10M", "99999999999999999h"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(address("off"), Some(AdminAddress(None)));
        for good in ["127.0.0.1:9600", "0.0.0.0:0", "[::]:65535"] {
            assert_eq!(address(good), Some(AdminAddress(Some(good.parse().unwrap()))));
        }
        // A port alone listens on this machine only.
        assert_eq!(address("9600"), Some(AdminAddress(Some(([127, 0, 0, 1], 9600).into()))));
        for bad in
            ["", "on", ":9600", "+9600", "65536", "127.0.0.1", "localhost:9600", "::1:9600", "127.0.0.1:65536", "OFF"]
        {
            assert_eq!(address(bad), None, "{bad}");
        }
    }

    #[test]
    fn limits_and_rates() {
        assert_eq!((limit("off", 1, 9), limit("9", 1, 9)), (Some(Limit(None)), Some(Limit(Some(9)))));
        for bad in ["", "0", "10", "OFF", "-1", "1/2"] {
            assert_eq!(limit(bad, 1, 9), None, "{bad}");
        }
        let frames = |text| rate(text, |text| count(text, 1, 1000)).map(|rate| rate.to_string());
        assert_eq!(frames("100/500").as_deref(), Some("100/500"));
        assert_eq!((frames("100").as_deref(), frames("off").as_deref()), (Some("100/100"), Some("off")));
        for bad in ["", "0", "100/", "/5", "100/off", "1/2/3", "1001", "5/1001", "100 / 5"] {
            assert_eq!(frames(bad), None, "{bad}");
        }
        let bytes = |text| rate(text, |text| bytes(text, 1 << 30)).map(|rate| rate.to_string());
        assert_eq!(bytes("1k/1024m").as_deref(), Some("1024/1073741824"));
        assert_eq!((bytes("1023"), bytes("1k/1025m")), (None, None));
    }

    #[test]
    fn costs() {
        assert_eq!(cost("m=8,t=1,p=1"), Some(PasswordCost { memory_kib: 8, passes: 1, lanes: 1 }));
        assert_eq!(cost("p=16, t=16, m=1048576"), Some(PasswordCost { memory_kib: 1 << 20, passes: 16, lanes: 16 }));
        for bad in [
            "",
            "m=8",
            "m=8,t=1",
            "m=7,t=1,p=1",
            "m=15,t=1,p=2",
            "m=1048577,t=1,p=1",
            "m=8,t=0,p=1",
            "m=8,t=17,p=1",
            "m=8,t=1,p=0",
            "m=999,t=1,p=17",
            "m=8,m=8,t=1,p=1",
            "m=8,t=1,p=1,",
            "m=8,t=1,p=1,x=1",
            "m:8,t=1,p=1",
        ] {
            assert_eq!(cost(bad), None, "{bad}");
        }
    }

    #[test]
    fn bounds_are_shown_as_they_would_be_written() {
        assert_eq!(shown_size(16 * MIB), "16m");
        assert_eq!(shown_size(KIB), "1k");
        assert_eq!(shown_size(1025), "1025");
        for (text, shown) in [("0", "0"), ("60m", "1h"), ("90m", "90m"), ("90s", "90s"), ("1500ms", "1500ms")] {
            assert_eq!(shown_time(time(text, Duration::ZERO, YEAR).unwrap()), shown);
        }
        assert_eq!(names(&AUTHS), "strict or compat");
    }
}
