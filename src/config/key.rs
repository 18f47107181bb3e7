//! One setting: its name, its kind of value, and how a text becomes the value. [`super::keys`] is
//! the table of all settings.

use std::path::PathBuf;
use std::time::Duration;

use super::cluster_settings::{AdminKey, AdminNodes, SettingsFile};
use super::error::{ConfigError, SettingSource};
use super::hook::{HookNetworks, HookUrl};
use super::jwt::JwtAlgorithm;
use super::limits::{Limit, Rate};
use super::networks::Networks;
use super::settings::{
    AdminAddress, Auth, Config, GivenSetting, LogBytes, LogDir, LogFormat, LogLevels, LogTarget, Paced, PasswordCost,
    PresenceShown, RecordingScope, TlsPaths, TlsUse,
};
use super::sites::{Hosts, Origins};
use super::values::{
    ADMIN_KEY_CHARS, LANES_MAX, LEVELS, MEMORY_KIB_MAX, PASSES_MAX, address, admin_key, bytes, cost, count, file,
    levels, limit, log_bytes, log_dir, names, node_addresses, node_name, one_of, one_path, path, paths, rate,
    shown_size, shown_time, size, text_or_none, threads, time,
};
use crate::base::trace::Sampling;

/// One setting.
pub(super) struct Key {
    /// The key in the file, from which the names of the option and of the environment variable are
    /// derived.
    pub(super) name: &'static str,
    /// The default, as text.
    pub(super) default: &'static str,
    /// The purpose, on one line; the bounds and the default are appended.
    pub(super) help: &'static str,
    pub(super) kind: Kind,
}

/// The kinds of values, each with the function that sets its field.
pub(super) enum Kind {
    /// A folder, which need not exist.
    Folder(fn(&mut Config, PathBuf)),
    /// A file, or `auto`.
    File(fn(&mut Config, SettingsFile)),
    /// One of [`AUTHS`].
    Auth(fn(&mut Config, Auth)),
    /// One of [`PACED`].
    Paced(fn(&mut Config, Paced)),
    /// One of [`PRESENCES`].
    Presence(fn(&mut Config, PresenceShown)),
    /// One of [`RECORDED`].
    Recorded(fn(&mut Config, RecordingScope)),
    /// One of [`TLS_USES`].
    TlsUse(fn(&mut Config, TlsUse)),
    /// Files separated by commas, or `none`.
    Files(fn(&mut Config, TlsPaths)),
    /// A file, or `none`.
    OneFile(fn(&mut Config, Option<PathBuf>)),
    /// A text of at most this number of characters, or `none`.
    Text(usize, fn(&mut Config, Option<String>)),
    /// One of [`JWT_ALGORITHMS`].
    JwtAlgorithm(fn(&mut Config, JwtAlgorithm)),
    /// One of these two words; true for the second.
    Either([&'static str; 2], fn(&mut Config, bool)),
    /// One of [`SWITCHES`].
    Switch(fn(&mut Config, bool)),
    /// Hosts, or `off`.
    Hosts(fn(&mut Config, Hosts)),
    /// Origins, or `off`.
    Origins(fn(&mut Config, Origins)),
    /// Addresses and networks.
    Networks(fn(&mut Config, Networks)),
    /// Addresses and networks, or `off`.
    NetworksOrOff(fn(&mut Config, HookNetworks)),
    /// The address of a web server, or `off`.
    Url(fn(&mut Config, HookUrl)),
    /// A name, or `auto`, which becomes an empty name.
    NodeName(fn(&mut Config, String)),
    /// One of [`LOG_TARGETS`].
    LogTarget(fn(&mut Config, LogTarget)),
    /// One of [`LOG_FORMATS`].
    LogFormat(fn(&mut Config, LogFormat)),
    /// A folder, or `auto`.
    LogDir(fn(&mut Config, LogDir)),
    /// A number of bytes within these bounds, `auto` or 0.
    LogBytes(usize, usize, fn(&mut Config, LogBytes)),
    /// One of [`LEVELS`], optionally with others for parts of the program.
    Levels(fn(&mut Config, LogLevels)),
    /// A number within these bounds.
    Count(u32, u32, fn(&mut Config, u32)),
    /// A number from 1 to the first, or `auto`: the second computes it from the number of cores.
    Threads(u32, fn(u32) -> u32, fn(&mut Config, u32)),
    /// A number of bytes within these bounds.
    Size(usize, usize, fn(&mut Config, usize)),
    /// A number of bytes within these bounds, or `auto`: the third computes it.
    AutoSize(usize, usize, fn() -> usize, fn(&mut Config, usize)),
    /// A time within these bounds.
    Time(Duration, Duration, fn(&mut Config, Duration)),
    /// A number within these bounds, or `off`.
    Limit(u32, u32, fn(&mut Config, Limit)),
    /// A number per second from 1 to the first, optionally with a burst, or `off`.
    Rate(u32, fn(&mut Config, Rate)),
    /// A number of bytes per second, in the same form.
    ByteRate(u32, fn(&mut Config, Rate)),
    /// An address to listen on, or `off`.
    Address(fn(&mut Config, AdminAddress)),
    /// Addresses with ports, or `off`.
    Addresses(fn(&mut Config, AdminNodes)),
    /// A secret, or `none`.
    AdminKey(fn(&mut Config, AdminKey)),
    /// `off`, `all` or `1/N`.
    Trace(fn(&mut Config, Sampling)),
    /// The parameters of argon2.
    Cost(fn(&mut Config, PasswordCost)),
}

impl Key {
    /// Sets the field, or returns false if [`Key::allowed`] does not allow the value.
    pub(super) fn set(&self, config: &mut Config, text: &str) -> bool {
        let done = match self.kind {
            Kind::Folder(set) => path(text).map(|folder| set(config, folder)),
            Kind::File(set) => file(text).map(|file| set(config, file)),
            Kind::Auth(set) => one_of(&AUTHS, text).map(|auth| set(config, auth)),
            Kind::Paced(set) => one_of(&PACED, text).map(|paced| set(config, paced)),
            Kind::Presence(set) => one_of(&PRESENCES, text).map(|presence| set(config, presence)),
            Kind::Recorded(set) => one_of(&RECORDED, text).map(|recorded| set(config, recorded)),
            Kind::TlsUse(set) => one_of(&TLS_USES, text).map(|tls| set(config, tls)),
            Kind::Files(set) => paths(text).map(|files| set(config, files)),
            Kind::OneFile(set) => one_path(text).map(|file| set(config, file)),
            Kind::Text(max, set) => text_or_none(text, max).map(|text| set(config, text)),
            Kind::JwtAlgorithm(set) => one_of(&JWT_ALGORITHMS, text).map(|algorithm| set(config, algorithm)),
            Kind::Either(names, set) => names.iter().position(|name| *name == text).map(|at| set(config, at == 1)),
            Kind::Switch(set) => one_of(&SWITCHES, text).map(|on| set(config, on)),
            Kind::Hosts(set) => Hosts::parse(text).map(|hosts| set(config, hosts)),
            Kind::Origins(set) => Origins::parse(text).map(|origins| set(config, origins)),
            Kind::Networks(set) => Networks::parse(text).map(|networks| set(config, networks)),
            Kind::NetworksOrOff(set) => {
                let networks = if text == "off" { Some(None) } else { Networks::parse(text).map(Some) };
                networks.map(|networks| set(config, HookNetworks(networks)))
            }
            Kind::Url(set) => HookUrl::parse(text).map(|url| set(config, url)),
            Kind::NodeName(set) => node_name(text).map(|name| set(config, name)),
            Kind::LogTarget(set) => one_of(&LOG_TARGETS, text).map(|to| set(config, to)),
            Kind::LogFormat(set) => one_of(&LOG_FORMATS, text).map(|format| set(config, format)),
            Kind::LogDir(set) => log_dir(text).map(|dir| set(config, dir)),
            Kind::LogBytes(min, max, set) => log_bytes(text, min, max).map(|bytes| set(config, bytes)),
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
            Kind::Addresses(set) => node_addresses(text).map(|nodes| set(config, nodes)),
            Kind::AdminKey(set) => admin_key(text).map(|key| set(config, key)),
            Kind::Trace(set) => Sampling::parse(text).map(|sampling| set(config, sampling)),
            Kind::Cost(set) => cost(text).map(|cost| set(config, cost)),
        };
        done.is_some()
    }

    /// The bounds, as the help shows them.
    pub(super) fn bounds(&self) -> String {
        match self.kind {
            Kind::Folder(_) => "a path".to_owned(),
            Kind::File(_) => "auto or a path".to_owned(),
            Kind::Auth(_) => names(&AUTHS),
            Kind::Paced(_) => names(&PACED),
            Kind::Presence(_) => names(&PRESENCES),
            Kind::Recorded(_) => names(&RECORDED),
            Kind::TlsUse(_) => names(&TLS_USES),
            Kind::Files(_) => "none, or paths with commas".to_owned(),
            Kind::OneFile(_) => "none or a path".to_owned(),
            Kind::Text(max, _) => format!("none or 1 to {max} characters"),
            Kind::JwtAlgorithm(_) => names(&JWT_ALGORITHMS),
            Kind::Either([first, second], _) => format!("{first} or {second}"),
            Kind::Switch(_) => names(&SWITCHES),
            Kind::Hosts(_) => "off or hosts with commas".to_owned(),
            Kind::Origins(_) => "off or origins with commas".to_owned(),
            Kind::Networks(_) => "addresses and CIDR networks with commas".to_owned(),
            Kind::NetworksOrOff(_) => "off, or addresses and CIDR networks with commas".to_owned(),
            Kind::Url(_) => "off or http(s)://HOST[:PORT][/PATH]".to_owned(),
            Kind::NodeName(_) => "auto or 1 to 64 letters, digits, dots, - and _".to_owned(),
            Kind::LogTarget(_) => names(&LOG_TARGETS),
            Kind::LogFormat(_) => names(&LOG_FORMATS),
            Kind::LogDir(_) => "auto or a path".to_owned(),
            Kind::LogBytes(min, max, _) => format!("auto, 0 or {} to {}", shown_size(min), shown_size(max)),
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
            Kind::Addresses(_) => "off or IP:PORT with commas".to_owned(),
            Kind::AdminKey(_) => {
                let (min, max) = (ADMIN_KEY_CHARS.start(), ADMIN_KEY_CHARS.end());
                format!("none or {min} to {max} letters, digits and -._~+/=")
            }
            Kind::Trace(_) => "off, all or 1/N, with N from 2 to 1000000".to_owned(),
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
            | Kind::Presence(_)
            | Kind::Recorded(_)
            | Kind::TlsUse(_)
            | Kind::Files(_)
            | Kind::OneFile(_)
            | Kind::Text(..)
            | Kind::JwtAlgorithm(_)
            | Kind::Either(..)
            | Kind::Switch(_)
            | Kind::NodeName(_)
            | Kind::LogTarget(_)
            | Kind::LogFormat(_)
            | Kind::LogDir(_)
            | Kind::Count(..)
            | Kind::Threads(..)
            | Kind::Trace(_)
            | Kind::Limit(..) => "",
            Kind::AdminKey(_) => ", such as the output of `openssl rand -hex 32`",
            Kind::Rate(..) => ", optionally with a burst, such as 100/500",
            Kind::ByteRate(..) => ", in bytes or with k or m (KiB, MiB), optionally with a burst, such as 1m/4m",
            Kind::Hosts(_) => ", such as chat.example.org,localhost:6000",
            Kind::Origins(_) => ", such as https://chat.example.org,http://localhost:8080",
            Kind::Url(_) => ", such as https://push.example.org/raybox",
            Kind::NetworksOrOff(_) => ", such as 10.0.0.7,192.168.0.0/16,fd00::/8",
            Kind::Networks(_) => ", such as 127.0.0.1,10.0.0.0/8,fd00::/8",
            Kind::Levels(_) => ", optionally with others for parts of the program, such as info,net=debug",
            Kind::Size(..) | Kind::AutoSize(..) | Kind::LogBytes(..) => ", in bytes or with k or m (KiB, MiB)",
            Kind::Time(..) => ", such as 500ms, 10s, 20m or 24h",
            Kind::Address(_) => ", such as 9600 (on 127.0.0.1), 10.0.0.1:9600 or [::1]:9600",
            Kind::Addresses(_) => ", such as 10.0.0.1:9600,10.0.0.2:9600, at most 32",
            Kind::Cost(_) => ", such as m=19456,t=2,p=1",
        };
        self.bounds() + look
    }

    /// The value, or `***` if it is secret.
    pub(super) fn shown(&self, value: &str) -> String {
        let is_secret = matches!(self.kind, Kind::AdminKey(_)) && value != "none";
        if is_secret { "***".to_owned() } else { value.to_owned() }
    }

    /// The placeholder of the value in the help.
    pub(super) fn value_name(&self) -> &'static str {
        match self.kind {
            Kind::Folder(_) | Kind::LogDir(_) => "DIR",
            Kind::File(_) | Kind::OneFile(_) => "FILE",
            Kind::Text(..) => "TEXT",
            Kind::Url(_) => "URL",
            Kind::Files(_) => "FILES",
            Kind::Auth(_)
            | Kind::Paced(_)
            | Kind::Presence(_)
            | Kind::TlsUse(_)
            | Kind::Recorded(_)
            | Kind::Either(..)
            | Kind::JwtAlgorithm(_)
            | Kind::LogTarget(_)
            | Kind::LogFormat(_)
            | Kind::Switch(_) => "MODE",
            Kind::NodeName(_) => "NAME",
            Kind::Hosts(_) => "HOSTS",
            Kind::Origins(_) => "ORIGINS",
            Kind::Networks(_) | Kind::NetworksOrOff(_) => "NETWORKS",
            Kind::Levels(_) => "LEVEL",
            Kind::Count(..) | Kind::Threads(..) | Kind::Limit(..) => "N",
            Kind::Rate(..) | Kind::ByteRate(..) => "RATE",
            Kind::Size(..) | Kind::AutoSize(..) | Kind::LogBytes(..) => "SIZE",
            Kind::Time(..) => "TIME",
            Kind::Address(_) => "ADDRESS",
            Kind::Addresses(_) => "ADDRESSES",
            Kind::AdminKey(_) => "KEY",
            Kind::Trace(_) => "MESSAGES",
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

/// Sets one setting. `name` and `place` are for the error.
pub(super) fn apply(
    config: &mut Config,
    key: &Key,
    value: &str,
    name: &str,
    place: impl FnOnce() -> SettingSource,
) -> Result<(), ConfigError> {
    let is_allowed = key.set(config, value);
    let value = key.shown(value);
    if is_allowed {
        let place = place().with(name);
        config.given.push(GivenSetting { key: key.name, value, place });
        return Ok(());
    }
    Err(ConfigError::BadValue { place: place(), name: name.to_owned(), value, allowed: key.allowed() })
}

/// The prefix of all variables.
pub(super) const VARIABLE_PREFIX: &str = "RAYBOX_";

const AUTHS: [(&str, Auth); 2] = [("strict", Auth::Strict), ("compat", Auth::Compat)];

const PACED: [(&str, Paced); 3] = [("auto", Paced::Auto), ("on", Paced::On), ("off", Paced::Off)];

const PRESENCES: [(&str, PresenceShown); 3] =
    [("contacts", PresenceShown::Contacts), ("all", PresenceShown::All), ("off", PresenceShown::Off)];

const RECORDED: [(&str, RecordingScope); 3] =
    [("auto", RecordingScope::OfLevel2), ("all", RecordingScope::Everything), ("off", RecordingScope::Nothing)];

const TLS_USES: [(&str, TlsUse); 3] = [("on", TlsUse::On), ("off", TlsUse::Off), ("require", TlsUse::Require)];

const JWT_ALGORITHMS: [(&str, JwtAlgorithm); 4] = [
    ("RS256", JwtAlgorithm::Rs256),
    ("ES256", JwtAlgorithm::Es256),
    ("EdDSA", JwtAlgorithm::EdDsa),
    ("HS256", JwtAlgorithm::Hs256),
];

const LOG_TARGETS: [(&str, LogTarget); 3] =
    [("file", LogTarget::File), ("stdout", LogTarget::Stdout), ("both", LogTarget::Both)];

const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

const SWITCHES: [(&str, bool); 2] = [("on", true), ("off", false)];
