//! The settings: read once at start, checked whole, immutable afterwards. `main.rs` reads them, and
//! any folder above uses them.
//!
//! A setting comes from an option, otherwise the environment, otherwise the file `server.cnf`,
//! otherwise its default. All four, the help text and the check of names are made from one table,
//! `keys`. Every given value is checked, even if another source overrides it: an error that
//! shows up only later is worse than one that shows up now.
//!
//! The settings of the database and of Redis in a cluster are in files of their own, `mysql.cnf`
//! and `redis.cnf` (`cluster.rs`), which have the reference server's format.

mod cluster;
mod cluster_settings;
mod community;
mod environment;
mod error;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod hook;
mod hook_check;
mod jwt;
mod key;
mod keys;
mod limits;
mod networks;
pub mod servers;
mod settings;
mod sites;
mod spelling;
mod values;

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::builder::Str;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches};

pub use cluster_settings::{
    AdminKey, AdminNodes, DatabaseTls, MysqlSettings, RedisPlace, RedisSettings, Secret, SentinelSettings, SettingsFile,
};
pub use community::{FriendsBecome, GroupHistory, GroupJoin};
use error::USAGE;
pub use error::{ConfigError, SettingSource};
use file::{Setting, settings_in};
pub use hook::{HookAddress, HookKeyFile, HookNetworks, HookUrl, is_public};
pub use jwt::{JwtAlgorithm, JwtSettings};
use key::{Key, apply};
pub use limits::{Limit, PerSecond, Rate};
pub use networks::Networks;
pub use servers::ServerAddress;
pub use settings::{
    AdminAddress, Auth, Config, GivenSetting, ListenAddress, LogBytes, LogDir, LogFormat, LogLevels, LogSettings,
    LogTarget, Paced, PasswordCost, PresenceShown, RecordingScope, TlsFiles, TlsPaths, TlsUse,
};
pub use sites::{HostName, Hosts, Origins, WebOrigin};
use spelling::nearest;

/// The action that the command line requests.
#[derive(Debug)]
pub enum Invocation {
    /// Run a server with these settings.
    Run(Box<Config>),
    /// Print this text on stdout and exit: the help or the version.
    Print(String),
}

impl Config {
    /// Reads and checks all settings. `args` begins with the program's name; `server.cnf` and the
    /// file that `--config` names are relative to `working_dir`.
    ///
    /// # Errors
    ///
    /// The first error found; its text is one line for the operator.
    pub fn load(
        args: impl IntoIterator<Item = OsString>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        working_dir: &Path,
    ) -> Result<Invocation, ConfigError> {
        let matches = match command().try_get_matches_from(args) {
            Ok(matches) => matches,
            Err(answer) if !answer.use_stderr() => return Ok(Invocation::Print(answer.to_string())),
            Err(error) => return Err(usage_error(&error)),
        };
        let mut config = Config::with_defaults(listen_address(&matches)?);
        apply_file(&mut config, matches.get_one::<String>(CONFIG).map(String::as_str), working_dir)?;
        environment::apply_all(&mut config, env)?;
        apply_options(&mut config, &matches)?;
        cluster::read(&mut config, working_dir)?;
        check_tls(&config)?;
        hook_check::read(&mut config, working_dir)?;
        if config.group_history == GroupHistory::All && config.group_join == GroupJoin::Open {
            config.notes.push("group_history=all has no effect without group_join=closed".to_owned());
        }
        Ok(Invocation::Run(Box::new(config)))
    }

    /// The settings that a server started in `working_dir` would have, for a command that works on
    /// the same data. The command may name the files of the database and Redis itself.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn for_command(
        mysql: Option<&str>,
        redis: Option<&str>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        working_dir: &Path,
    ) -> Result<Config, ConfigError> {
        let mut config = Config::with_defaults(ListenAddress::default().0);
        apply_file(&mut config, None, working_dir)?;
        environment::apply_all(&mut config, env)?;
        for (name, value) in [("mysql", mysql), ("redis", redis)] {
            let key = keys::named(name).expect("both are settings");
            if let Some(value) = value {
                apply(&mut config, key, value, &format!("--{name}"), || SettingSource::Option)?;
            }
        }
        cluster::read(&mut config, working_dir)?;
        Ok(config)
    }

    /// The settings that a server started in `working_dir` would have, without those of the
    /// database and Redis.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn without_cluster(
        env: impl IntoIterator<Item = (OsString, OsString)>,
        working_dir: &Path,
    ) -> Result<Config, ConfigError> {
        let mut config = Config::with_defaults(ListenAddress::default().0);
        apply_file(&mut config, None, working_dir)?;
        environment::apply_all(&mut config, env)?;
        Ok(config)
    }

    /// The keys whose settings differ from those of `other`.
    pub fn differences(&self, other: &Config) -> Vec<&'static str> {
        let given = |config: &Config, key: &Key| {
            let last = config.given.iter().rev().find(|given| given.key == key.name);
            last.map_or_else(|| key.default.to_owned(), |given| given.value.clone())
        };
        // A secret is not shown, and a file's name does not reveal its contents, so these are
        // compared directly.
        let differs = |key: &Key| match key.name {
            "hook_key" if self.hook_secret != other.hook_secret => true,
            "admin_key" => self.admin_key != other.admin_key,
            "mysql" if self.mysql != other.mysql => true,
            "redis" if self.redis != other.redis => true,
            _ => given(self, key) != given(other, key),
        };
        keys::all().filter(|key| differs(key)).map(|key| key.name).collect()
    }

    /// The default settings of a server, with this address.
    pub fn with_defaults(listen: SocketAddr) -> Config {
        let mut config = Config { listen: ListenAddress(listen), ..Config::default() };
        for key in keys::all() {
            assert!(key.set(&mut config, key.default), "the default of {} must be allowed", key.name);
        }
        config
    }
}

impl LogLevels {
    /// Parses a value of the key `log_level`.
    pub fn parse(text: &str) -> Option<LogLevels> {
        values::levels(text)
    }

    /// The values that are allowed, for an error text.
    pub fn allowed() -> String {
        keys::named("log_level").map_or_else(String::new, Key::allowed)
    }
}

/// Checks that the three settings of TLS fit each other.
fn check_tls(config: &Config) -> Result<(), ConfigError> {
    let (certificates, keys) = (config.tls_certificates.0.len(), config.tls_keys.0.len());
    match (certificates, keys) {
        (0, 0) if config.tls == TlsUse::Require => Err(ConfigError::TlsWithoutCertificate),
        (_, keys) if keys > 0 && keys != certificates => Err(ConfigError::TlsKeys { certificates, keys }),
        _ => Ok(()),
    }
}

fn command() -> clap::Command {
    let options = keys::all().map(|key| {
        Arg::new(key.name).long(Str::from(key.option())).value_name(key.value_name()).help(format!(
            "{} [{}] [default: {}]",
            key.help,
            key.bounds(),
            key.default
        ))
    });
    clap::Command::new("raybox")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A chat server: JSON over TCP. Without any settings it stores everything in one SQLite file.")
        .override_usage(USAGE)
        .after_help(AFTER_HELP)
        .disable_help_subcommand(true)
        .next_line_help(true)
        .term_width(HELP_WIDTH)
        // "-1" then parses as a value, and is refused as out of bounds.
        .allow_negative_numbers(true)
        .arg(Arg::new("IP").required(true).help("Address to listen on, IPv4 or IPv6; 0.0.0.0 or :: for all"))
        .arg(Arg::new("PORT").required(true).help("Port to listen on, 0 to 65535; 0 lets the system choose"))
        .arg(Arg::new(CONFIG).long(CONFIG).value_name("FILE").help("Read settings from FILE, not from server.cnf"))
        .args(options)
}

/// Reduces clap's text of several lines to one that names the culprit.
fn usage_error(error: &clap::Error) -> ConfigError {
    let culprits = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(one)) => vec![one.as_str()],
        Some(ContextValue::Strings(many)) => many.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    match (error.kind(), culprits.as_slice()) {
        (ErrorKind::UnknownArgument, [option]) if option.starts_with('-') => {
            let name = option.split_once('=').map_or(*option, |(name, _)| name);
            let known = keys::all().map(Key::option).chain([CONFIG, "help", "version"].map(String::from));
            let similar = nearest(name, known.map(|known| format!("--{known}")));
            ConfigError::UnknownName { place: SettingSource::Option, name: name.to_owned(), similar }
        }
        (ErrorKind::UnknownArgument, [extra]) => ConfigError::Usage(format!("argument {extra:?} is one too many")),
        (ErrorKind::MissingRequiredArgument, missing) => {
            ConfigError::Usage(format!("missing {}", missing.join(" and ").replace(['<', '>'], "")))
        }
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            ConfigError::Usage(line.strip_prefix("error: ").unwrap_or(line).to_owned())
        }
    }
}

fn listen_address(matches: &ArgMatches) -> Result<SocketAddr, ConfigError> {
    let argument = |name: &str| matches.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let refuse = |name: &str, allowed: &str| ConfigError::BadValue {
        place: SettingSource::Argument,
        name: name.to_owned(),
        value: argument(name).to_owned(),
        allowed: allowed.to_owned(),
    };
    let ip: IpAddr = argument("IP")
        .parse()
        .map_err(|_| refuse("IP", "an IPv4 address such as 0.0.0.0 or an IPv6 address such as ::"))?;
    let port: u16 = argument("PORT").parse().map_err(|_| refuse("PORT", "0 to 65535"))?;
    Ok(SocketAddr::new(ip, port))
}

fn apply_file(config: &mut Config, chosen: Option<&str>, working_dir: &Path) -> Result<(), ConfigError> {
    let path = PathBuf::from(chosen.unwrap_or(DEFAULT_FILE));
    match file::read(&working_dir.join(&path)) {
        Ok(text) => apply_lines(config, &path, &text),
        Err(cause) if chosen.is_none() && cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(ConfigError::UnreadableFile { path, cause }),
    }
}

fn apply_lines(config: &mut Config, path: &Path, text: &str) -> Result<(), ConfigError> {
    for Setting { line, name, value } in settings_in(path, text)? {
        let place = || SettingSource::Line(path.to_owned(), line);
        let Some(key) = keys::named(name) else {
            let similar = nearest(name, keys::all().map(|key| key.name.to_owned()));
            return Err(ConfigError::UnknownName { place: place(), name: name.to_owned(), similar });
        };
        apply(config, key, value, name, place)?;
    }
    Ok(())
}

fn apply_options(config: &mut Config, matches: &ArgMatches) -> Result<(), ConfigError> {
    for key in keys::all() {
        if let Some(value) = matches.get_one::<String>(key.name) {
            apply(config, key, value, &format!("--{}", key.option()), || SettingSource::Option)?;
        }
    }
    Ok(())
}

const CONFIG: &str = "config";
const DEFAULT_FILE: &str = "server.cnf";
const HELP_WIDTH: usize = 80;
const AFTER_HELP: &str = "\
A setting comes from its option, else from the environment (RAYBOX_IDLE_TIMEOUT
for --idle-timeout), else from the file server.cnf in the working directory
(idle_timeout=20m, # begins a comment), else it has its default.
TIME is 500ms, 10s, 20m or 24h, a bare number is seconds. SIZE is in bytes, or
in KiB or MiB with k or m. A file mysql.cnf in the working directory makes this
a server on MySQL or MariaDB, redis.cnf a node of a cluster.

Examples:
  server 0.0.0.0 6000
      listens on all IPv4 addresses
  server :: 6000 --data /var/lib/raybox
      listens on all addresses, with its database in a folder of its own
  server 127.0.0.1 0 --auth compat --log-level debug
      listens on any free port, for old load tests
  RAYBOX_LOOPS=2 server 0.0.0.0 6000 --config my.cnf
      has two event loops, and the rest from my.cnf

Commands, which explain themselves with --help:
  server check IP PORT [OPTIONS]
      shows which settings a start would have, and what would prevent it
  server health [ADDRESS]
      asks a running server whether it is ready
  server admin COMMAND
      administers a running server: users, groups, connections, log, settings
  server trace, server explain
      show where a message is, and what is known about a user
  server migrate [--dry-run]
      brings the tables of the database in mysql.cnf up to date
  server copy --from raybox.db --to mysql.cnf
      copies the data of a single server into that database
  server backup FILE
      copies the data of a single server, which may run, into one file
  server restore FILE
      puts such a copy in the place of the data of a stopped server
  server compact [FILE]
      shrinks raybox.db to its content, while its server is stopped
Their exit code is 0, 1 when not healthy or not finished, 2 when refused.";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use log::LevelFilter;

    use super::*;

    use std::fs;

    use crate::base::folder::Folder;

    fn load_in(dir: &Path, args: &str, env: &[(&str, &str)]) -> Result<Invocation, ConfigError> {
        let args = ["server"].into_iter().chain(args.split_whitespace()).map(OsString::from);
        let env = env.iter().map(|&(name, value)| (name.into(), value.into()));
        Config::load(args, env, dir)
    }

    /// A folder that does not exist holds no settings file either.
    fn load(args: &str, env: &[(&str, &str)]) -> Result<Invocation, ConfigError> {
        load_in(Path::new("/nonexistent"), args, env)
    }

    fn config(loaded: Result<Invocation, ConfigError>) -> Config {
        match loaded {
            Ok(Invocation::Run(config)) => *config,
            other => panic!("expected settings, got {other:?}"),
        }
    }

    fn refusal(loaded: Result<Invocation, ConfigError>) -> String {
        let text = loaded.expect_err("must be refused").to_string();
        assert!(!text.contains('\n'), "one line: {text}");
        text
    }

    #[test]
    fn a_setting_without_effect_gets_a_note() {
        let notes = |args| config(load(args, &[])).notes;
        let note = "group_history=all has no effect without group_join=closed";
        assert_eq!(notes("127.0.0.1 0 --group-history all"), [note]);
        assert_eq!(notes("127.0.0.1 0 --group-history all --group-join closed"), [""; 0]);
    }

    #[test]
    fn defaults() {
        let config = config(load(":: 6000", &[]));
        assert_eq!(config.listen.0, "[::]:6000".parse().unwrap());
        assert_eq!(config.data_dir, Path::new("."));
        assert_eq!(config.auth, Auth::Strict);
        assert!(config.loops >= 1 && config.hashers >= 1);
        assert_eq!((config.workers, config.backlog), (8, 4096));
        assert_eq!(config.frame_bytes_max, 64 << 10);
        assert_eq!(config.frame_timeout, Duration::from_secs(10));
        assert_eq!(config.idle_timeout, Duration::from_secs(20 * 60));
        assert_eq!(config.user_timeout, Duration::from_secs(30));
        assert_eq!(config.login_timeout, Duration::ZERO);
        assert!((8 << 20..=512 << 20).contains(&config.memory_bytes_max), "{}", config.memory_bytes_max);
        assert_eq!((config.proxy_protocol, config.proxy_from.to_string()), (false, "127.0.0.1,::1".to_owned()));
        assert_eq!(config.output_bytes_max, 1 << 20);
        assert_eq!(config.drain_timeout, Duration::from_secs(10));
        assert_eq!((config.connections_max, config.connections_per_address), (Limit(None), Limit(Some(50_000))));
        assert_eq!(config.frames_per_second.to_string(), "1000000/1000000");
        assert_eq!(config.bytes_per_second.to_string(), "268435456/268435456");
        assert_eq!((config.login_failures, config.login_failures_per_address), (Limit(Some(10)), Limit(Some(10_000))));
        assert_eq!(config.registrations_per_address, Limit(Some(100_000)));
        assert_eq!((config.requests_max, config.logins_max), (4096, 256));
        assert_eq!((config.lane_bytes_max, config.fetch_bytes_max), (64 << 20, 1 << 20));
        assert_eq!(config.search_results_max, 1000);
        assert_eq!(config.password_cost, PasswordCost { memory_kib: 19456, passes: 2, lanes: 1 });
        assert_eq!(config.password_memory, Duration::from_secs(24 * 60 * 60));
        assert_eq!(config.admin, AdminAddress(None));
        assert_eq!(config.log_dir(), Path::new("./logs"));
        assert_eq!(config.log.level, LogLevels { everything: LevelFilter::Info, parts: Vec::new() });
    }

    #[test]
    fn the_more_specific_place_wins() {
        let folder =
            Folder::with("precedence", &[("server.cnf", "\u{feff}# mine\n\n workers = 5 \r\nbacklog=7 # few\n")]);
        let workers = |args, env: &[_]| config(load_in(&folder.0, args, env)).workers;
        assert_eq!(workers("::1 1", &[]), 5);
        assert_eq!(workers("::1 1", &[("RAYBOX_WORKERS", "6")]), 6);
        assert_eq!(workers("::1 1 --workers 7", &[("RAYBOX_WORKERS", "6")]), 7);
        assert_eq!(config(load_in(&folder.0, "::1 1", &[])).backlog, 7);
    }

    #[test]
    fn a_named_file_replaces_the_usual_one_and_must_exist() {
        let folder = Folder::with("named", &[("server.cnf", "workers=5\n")]);
        fs::write(folder.0.join("my.cnf"), "backlog=9\nlog_dir=a#b").unwrap();
        let config = config(load_in(&folder.0, "::1 1 --config my.cnf", &[]));
        assert_eq!((config.workers, config.backlog), (8, 9));
        assert_eq!(config.log_dir(), Path::new("a#b"));
        let text = refusal(load_in(&folder.0, "::1 1 --config missing.cnf", &[]));
        assert!(text.starts_with("cannot read the settings file missing.cnf: "), "{text}");
    }

    #[test]
    fn a_mistake_in_the_file_is_named_with_its_line() {
        for (lines, expected) in [
            ("\nlops=1", "server.cnf, line 2: key lops is unknown, did you mean loops?"),
            ("colour=red", "server.cnf, line 1: key colour is unknown, --help lists them all"),
            ("Loops=1", "server.cnf, line 1: key Loops is unknown, did you mean loops?"),
            (
                "# a\nloops",
                "server.cnf, line 2: key expected, but found \"loops\"; write key=value, or # before a comment",
            ),
            ("loops=1\n\nloops=2", "server.cnf, line 3: key loops is already in line 1, remove one of them"),
            ("a\u{1b}b=1\na\u{1b}b=2", "server.cnf, line 2: key a\\u{1b}b is already in line 1, remove one of them"),
            ("loops=0", "server.cnf, line 1: key loops: \"0\" is not allowed, use auto or 1 to 256"),
            ("log_dir=", "server.cnf, line 1: key log_dir: \"\" is not allowed, use auto or a path"),
        ] {
            let folder = Folder::with("wrong", &[("server.cnf", lines)]);
            assert_eq!(refusal(load_in(&folder.0, "::1 1", &[])), expected);
        }
    }

    #[test]
    fn a_mistake_in_the_environment_is_named() {
        for (name, value, expected) in [
            ("RAYBOX_LOOP", "1", "environment variable RAYBOX_LOOP is unknown, did you mean RAYBOX_LOOPS?"),
            (
                "RAYBOX_IDLE_TIMEOUT",
                "0",
                "environment variable RAYBOX_IDLE_TIMEOUT: \"0\" is not allowed, use 1ms to 8760h, \
                 such as 500ms, 10s, 20m or 24h",
            ),
        ] {
            assert_eq!(refusal(load("::1 1", &[("PATH", "/"), (name, value)])), expected);
        }
    }

    #[test]
    fn a_mistake_on_the_command_line_is_named() {
        let usage = format!("; usage: {USAGE}, see --help");
        for (args, expected) in [
            ("", format!("missing IP and PORT{usage}")),
            ("::1", format!("missing PORT{usage}")),
            ("::1 1 2", format!("argument \"2\" is one too many{usage}")),
            (
                "localhost 1",
                "argument IP: \"localhost\" is not allowed, use an IPv4 address such as 0.0.0.0 or an IPv6 address \
                 such as ::"
                    .to_owned(),
            ),
            ("::1 65536", "argument PORT: \"65536\" is not allowed, use 0 to 65535".to_owned()),
            ("::1 -1", "argument PORT: \"-1\" is not allowed, use 0 to 65535".to_owned()),
            ("::1 1 --idle_timeout 5", "option --idle_timeout is unknown, did you mean --idle-timeout?".to_owned()),
            ("::1 1 --lops=5", "option --lops is unknown, did you mean --loops?".to_owned()),
            ("::1 1 -x", "option -x is unknown, --help lists them all".to_owned()),
            ("::1 1 --loops -1", "option --loops: \"-1\" is not allowed, use auto or 1 to 256".to_owned()),
            ("::1 1 --proxy-protocol yes", "option --proxy-protocol: \"yes\" is not allowed, use on or off".to_owned()),
            (
                "::1 1 --proxy-from 10.0.0.1/8",
                "option --proxy-from: \"10.0.0.1/8\" is not allowed, use addresses and CIDR networks with commas, such as \
                 127.0.0.1,10.0.0.0/8,fd00::/8"
                    .to_owned(),
            ),
            ("::1 1 --auth lax", "option --auth: \"lax\" is not allowed, use strict or compat".to_owned()),
            ("::1 1 --loops", format!("a value is required for '--loops <N>' but none was supplied{usage}")),
            ("::1 1 --loops 1 --loops 2", format!("the argument '--loops <N>' cannot be used multiple times{usage}")),
        ] {
            assert_eq!(refusal(load(args, &[])), expected, "{args}");
        }
    }

    #[test]
    fn a_bad_value_is_refused_even_where_another_one_wins() {
        let text = refusal(load("::1 1 --workers 7", &[("RAYBOX_WORKERS", "many")]));
        assert!(text.starts_with("environment variable RAYBOX_WORKERS: \"many\""), "{text}");
    }

    #[test]
    fn help_lists_every_key_with_its_default() {
        let Ok(Invocation::Print(help)) = load("--help", &[]) else { panic!("expected a text") };
        for key in keys::all() {
            let mut lines = help.lines().skip_while(|line| !line.contains(&format!("--{} <", key.option())));
            lines.next();
            let words: Vec<&str> =
                lines.take_while(|line| line.starts_with("          ")).flat_map(str::split_whitespace).collect();
            let text = words.join(" ");
            assert!(text.ends_with(&format!("[default: {}]", key.default)), "{}: {text}", key.name);
        }
        assert_eq!(help.lines().find(|line| line.chars().count() > HELP_WIDTH), None);
        let Ok(Invocation::Print(version)) = load("--version", &[]) else { panic!("expected a text") };
        assert_eq!(version, format!("raybox {}\n", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn the_sample_file_names_every_key_with_its_default() {
        let sample = include_str!("../conf/server.cnf");
        // A commented setting is "#key=value", a sentence is "# Text".
        let settings: Vec<&str> = sample.lines().filter_map(|line| line.strip_prefix('#')).collect();
        let settings: Vec<&str> =
            settings.into_iter().filter(|line| !line.starts_with(' ') && !line.is_empty()).collect();
        let expected: Vec<String> = keys::all().map(|key| format!("{}={}", key.name, key.default)).collect();
        assert_eq!(settings, expected);
        assert!(sample.lines().all(|line| line.is_empty() || line.starts_with('#')), "nothing is in force");

        let in_force: String = settings.join("\n");
        let folder = Folder::with("sample", &[("server.cnf", &in_force)]);
        let address = "[::1]:1".parse().unwrap();
        let mut loaded = config(load_in(&folder.0, "::1 1", &[]));
        assert_eq!(loaded.given.len(), keys::all().count());
        loaded.given.clear();
        assert_eq!(format!("{loaded:?}"), format!("{:?}", Config::with_defaults(address)));
    }
}
