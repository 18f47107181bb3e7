//! Converts the values of settings from text, and back for the help.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use log::LevelFilter;

use super::cluster_settings::{AdminKey, AdminNodes, Secret, SettingsFile};
use super::limits::{Limit, PerSecond, Rate};
use super::settings::{AdminAddress, LogBytes, LogDir, LogLevels, PasswordCost, TlsPaths};

/// A path that is not empty and has no replacement character: with one, the original was not UTF-8,
/// and so was another path.
pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains(char::REPLACEMENT_CHARACTER)).then(|| PathBuf::from(text))
}

/// Paths separated by commas, or `none`.
pub(super) fn paths(text: &str) -> Option<TlsPaths> {
    if text == "none" {
        return Some(TlsPaths::default());
    }
    text.split(',').map(|part| path(part.trim())).collect::<Option<_>>().map(TlsPaths)
}

/// A path, or `none`.
pub(super) fn one_path(text: &str) -> Option<Option<PathBuf>> {
    if text == "none" { Some(None) } else { path(text).map(Some) }
}

/// A text of at most `max` characters, or `none`.
pub(super) fn text_or_none(text: &str, max: usize) -> Option<Option<String>> {
    let fits = (1..=max).contains(&text.chars().count()) && !text.contains(char::is_control);
    match text {
        "none" => Some(None),
        text => fits.then(|| Some(text.to_owned())),
    }
}

pub(super) fn file(text: &str) -> Option<SettingsFile> {
    if text == "auto" { Some(SettingsFile::Auto) } else { path(text).map(SettingsFile::Named) }
}

pub(super) fn log_dir(text: &str) -> Option<LogDir> {
    if text == "auto" { Some(LogDir(None)) } else { path(text).map(|dir| LogDir(Some(dir))) }
}

pub(super) fn log_bytes(text: &str, min: usize, max: usize) -> Option<LogBytes> {
    match text {
        "auto" => Some(LogBytes(None)),
        "0" => Some(LogBytes(Some(0))),
        _ => size(text, min, max).map(|bytes| LogBytes(Some(bytes))),
    }
}

/// A name that needs no quotes in a log, a label or a file's name; empty for `auto`.
pub(super) fn node_name(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    match text {
        "auto" => Some(String::new()),
        _ => ((1..=NODE_NAME_MAX).contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned()),
    }
}

pub(super) fn one_of<T: Copy>(choices: &[(&str, T)], text: &str) -> Option<T> {
    choices.iter().find(|(name, _)| *name == text).map(|&(_, value)| value)
}

pub(super) fn names<T>(choices: &[(&str, T)]) -> String {
    let names: Vec<&str> = choices.iter().map(|&(name, _)| name).collect();
    let (last, others) = names.split_last().expect("there is something to choose");
    format!("{} or {last}", others.join(", "))
}

pub(super) fn cores() -> u32 {
    thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

/// Digits only: unlike the standard parser, it accepts no plus sign.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

pub(super) fn count(text: &str, min: u32, max: u32) -> Option<u32> {
    number(text).and_then(|n| u32::try_from(n).ok()).filter(|n| (min..=max).contains(n))
}

pub(super) fn threads(text: &str, max: u32, auto: fn(u32) -> u32) -> Option<u32> {
    if text == "auto" { Some(auto(cores()).clamp(1, max)) } else { count(text, 1, max) }
}

/// A number and its unit: the letters at the end.
fn with_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    Some((number(digits)?, &text[digits.len()..]))
}

pub(super) fn size(text: &str, min: usize, max: usize) -> Option<usize> {
    let (n, unit) = with_unit(text)?;
    let unit_bytes = match unit {
        "" => 1,
        "k" | "K" => KIB,
        "m" | "M" => MIB,
        _ => return None,
    };
    usize::try_from(n).ok()?.checked_mul(unit_bytes).filter(|bytes| (min..=max).contains(bytes))
}

pub(super) fn time(text: &str, min: Duration, max: Duration) -> Option<Duration> {
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

pub(super) fn address(text: &str) -> Option<AdminAddress> {
    if text == "off" {
        Some(AdminAddress(None))
    } else {
        // A port alone means this machine only. To listen for other machines, the operator has to
        // give the address.
        let alone = || Some(SocketAddr::from((Ipv4Addr::LOCALHOST, number(text)?.try_into().ok()?)));
        text.parse().ok().or_else(alone).map(|at| AdminAddress(Some(at)))
    }
}

/// Addresses with ports, separated by commas, or `off`.
pub(super) fn node_addresses(text: &str) -> Option<AdminNodes> {
    if text == "off" {
        return Some(AdminNodes::default());
    }
    let one = |part: &str| part.trim().parse().ok().filter(|node: &SocketAddr| node.port() > 0);
    let nodes = text.split(',').map(one).collect::<Option<Vec<_>>>()?;
    (nodes.len() <= ADMIN_NODES_MAX).then_some(AdminNodes(nodes))
}

/// Accepts a key that an HTTP header can carry as a bearer token (RFC 6750, 2.1), and that nobody
/// can guess.
pub(super) fn admin_key(text: &str) -> Option<AdminKey> {
    if text == "none" {
        return Some(AdminKey(None));
    }
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    let is_good = ADMIN_KEY_CHARS.contains(&text.len()) && text.bytes().all(is_of_token);
    is_good.then(|| AdminKey(Some(Secret::new(text))))
}

pub(super) fn limit(text: &str, min: u32, max: u32) -> Option<Limit> {
    if text == "off" { Some(Limit(None)) } else { count(text, min, max).map(|max| Limit(Some(max))) }
}

/// A rate and, after a slash, the size of the burst; without it, the burst is one second's worth.
pub(super) fn rate(text: &str, number: impl Fn(&str) -> Option<u32>) -> Option<Rate> {
    if text == "off" {
        return Some(Rate(None));
    }
    let (rate, burst) = text.split_once('/').unwrap_or((text, text));
    let (per_second, burst) = (number(rate)?, number(burst)?);
    Some(Rate(Some(PerSecond { per_second, burst })))
}

pub(super) fn bytes(text: &str, max: u32) -> Option<u32> {
    size(text, KIB, max as usize).and_then(|bytes| u32::try_from(bytes).ok())
}

/// A level for the whole program, and levels for parts of it:
/// `info,net=debug,raybox::router=trace`.
pub(super) fn levels(text: &str) -> Option<LogLevels> {
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
pub(super) fn cost(text: &str) -> Option<PasswordCost> {
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

pub(super) fn shown_size(bytes: usize) -> String {
    match bytes {
        _ if bytes.is_multiple_of(MIB) => format!("{}m", bytes / MIB),
        _ if bytes.is_multiple_of(KIB) => format!("{}k", bytes / KIB),
        _ => bytes.to_string(),
    }
}

pub(super) fn shown_time(time: Duration) -> String {
    match time.as_millis() {
        0 => "0".to_owned(),
        ms if ms.is_multiple_of(60 * 60 * 1000) => format!("{}h", ms / (60 * 60 * 1000)),
        ms if ms.is_multiple_of(60 * 1000) => format!("{}m", ms / (60 * 1000)),
        ms if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

pub(super) const LEVELS: [(&str, LevelFilter); 6] = [
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
    ("off", LevelFilter::Off),
];

pub(super) const KIB: usize = 1 << 10;
pub(super) const MIB: usize = 1 << 20;
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(super) const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
pub(super) const COUNT_MAX: u32 = 1_000_000_000;
/// The words of a setting that is on by default.
pub(super) const SWITCHED: [&str; 2] = ["on", "off"];

const NODE_NAME_MAX: usize = 64;
/// The most admin ports: the status page queries each on its own thread.
const ADMIN_NODES_MAX: usize = 32;
/// The allowed lengths of a key: nobody guesses 32 random characters over a network.
pub(super) const ADMIN_KEY_CHARS: RangeInclusive<usize> = 32..=256;
pub(super) const MEMORY_KIB_MAX: u32 = 1 << 20;
pub(super) const PASSES_MAX: u32 = 16;
pub(super) const LANES_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

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
        let time = |text| time(text, Duration::from_millis(1), Duration::from_secs(24 * 60 * 60));
        assert_eq!(time("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(time("10"), Some(Duration::from_secs(10)));
        assert_eq!(time("10s"), Some(Duration::from_secs(10)));
        assert_eq!(time("20m"), Some(Duration::from_secs(1200)));
        assert_eq!(time("24h"), Some(Duration::from_secs(24 * 60 * 60)));
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
    fn lists_of_addresses() {
        assert_eq!(node_addresses("off"), Some(AdminNodes::default()));
        let two = ["10.0.0.1:9600", "[::1]:1"].map(|node| node.parse().unwrap());
        assert_eq!(node_addresses("10.0.0.1:9600, [::1]:1"), Some(AdminNodes(two.into())));
        assert!(node_addresses(&["1.2.3.4:5"; ADMIN_NODES_MAX].join(",")).is_some());
        assert_eq!(node_addresses(&["1.2.3.4:5"; ADMIN_NODES_MAX + 1].join(",")), None);
        for bad in
            ["", "9600", "10.0.0.1", "10.0.0.1:0", "server2:9600", "10.0.0.1:9600,", "10.0.0.1:9600 10.0.0.2:9600"]
        {
            assert_eq!(node_addresses(bad), None, "{bad}");
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
            assert_eq!(shown_time(time(text, Duration::ZERO, Duration::MAX).unwrap()), shown);
        }
        assert_eq!(names(&[("strict", 1), ("compat", 2)]), "strict or compat");
    }
}
