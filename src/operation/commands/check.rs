//! `server check`: shows the settings of a start, and the problems that would prevent it. It starts
//! nothing, changes nothing, and works beside a running server.

use std::ffi::OsString;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use rustix::fs::{Access, access};

use super::{CommandError, grouped, say};
use crate::bus::redis::survey;
use crate::config::{Config, Invocation, JwtSettings, RedisSettings};
use crate::hooks::trust;
use crate::operation::certificates::CertificateFiles;
use crate::operation::jwt_key_file::JwtKeyFile;
use crate::operation::resources::{self, Descriptors};
use crate::session::jwt::keys::name;
use crate::store::Database;
use crate::store::mysql::MysqlStore;
use crate::store::sqlite;

/// Runs the command. The arguments are those of the program: its name, `check`, and those of a
/// start.
///
/// # Errors
/// [`CommandError`], one line for the operator.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    working_dir: &Path,
) -> Result<(), CommandError> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.len() > 1 {
        arguments.remove(1);
    }
    if arguments.iter().skip(1).any(|argument| argument == "--help" || argument == "-h") {
        say(HELP.trim_end());
        return Ok(());
    }
    let config = match Config::load(arguments, env, working_dir).map_err(CommandError::refused)? {
        Invocation::Run(config) => *config,
        Invocation::Print(text) => {
            say(text.trim_end());
            return Ok(());
        }
    };
    show_settings(&config);
    let problems = check_all(&config);
    match problems {
        0 => Ok(()),
        1 => Err(CommandError::unfinished("check: 1 problem, see above")),
        count => Err(CommandError::unfinished(format_args!("check: {count} problems, see above"))),
    }
}

/// Prints the given settings, and those of them without effect.
fn show_settings(config: &Config) {
    say("Settings");
    if config.given.is_empty() {
        say("  all have their defaults");
    }
    for (at, given) in config.given.iter().enumerate() {
        let overriding = config.given[at + 1..].iter().find(|later| later.key == given.key);
        let fate = overriding.map_or_else(String::new, |later| format!(", but {} takes precedence", later.place));
        say(format_args!("  {}={} ({}{fate})", given.key, given.value, given.place));
    }
    for note in &config.notes {
        say(format_args!("  note: {note}"));
    }
}

/// Shows the result of each check; returns the number of problems.
fn check_all(config: &Config) -> usize {
    say("Checks");
    let mut problems = 0;
    let mut show = |what: &str, result: Result<String, String>| {
        let (word, text) = match result {
            Ok(text) => ("ok", text),
            Err(text) => {
                problems += 1;
                ("PROBLEM", text)
            }
        };
        say(format_args!("  {word:<7} {what}: {text}"));
    };
    show("address", listen(config.listen.0));
    if let Some(address) = config.admin.0 {
        show("admin", listen(address));
    }
    show("descriptors", Ok(Descriptors::raise().now.to_string()));
    show("threads", resources::check_threads(config).map(|()| "as many as needed".to_owned()).map_err(text));
    show("data", data(config));
    if config.log.to.has_files() {
        show("log", folder(&config.log_dir()));
    }
    if let Some(settings) = &config.mysql {
        show("database", MysqlStore::open(settings).map(|store| store.describe()).map_err(text));
    }
    if let Some(settings) = &config.redis {
        show("redis", redis(settings));
    }
    let files = config.tls_files();
    if files.is_empty() {
        show("tls", Ok("off: passwords come in plaintext, which is for this machine and trusted networks".to_owned()));
    } else {
        let opened = CertificateFiles::open(&files).map(|_| format!("{} certificates", files.len()));
        show("tls", opened.map_err(text));
    }
    show("jwt", jwt(&config.jwt));
    show("hook", hook(config));
    problems
}

/// Checks the keys of JSON web tokens.
fn jwt(settings: &JwtSettings) -> Result<String, String> {
    match JwtKeyFile::open(settings).map_err(text)? {
        Some(file) => Ok(format!("keys for {}: {}", name(settings.algorithm), file.verifier().count())),
        None if settings.registers => Err("jwt_register=on has no effect without jwt_key".to_owned()),
        None => Ok("off: nobody logs in with JSON web tokens".to_owned()),
    }
}

/// Checks the web server of the hook. Its settings are sound, because they were read.
fn hook(config: &Config) -> Result<String, String> {
    let Some(address) = &config.hook_url.0 else { return Ok("off: messages are posted to no web server".to_owned()) };
    let delay = config.hook_delay.as_secs();
    let posted = format!("messages that no device has received after {delay} s are posted to {}", address.authority());
    if !address.is_secure {
        return Ok(posted);
    }
    let authorities = trust::authorities().map_err(|problem| format!("authorities of certificates: {problem}"))?;
    Ok(format!("{posted}; its certificate may be signed by one of {authorities} authorities"))
}

/// Whether a server could listen there now.
fn listen(address: SocketAddr) -> Result<String, String> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(format!("{address} is free")),
        Err(error) => Err(format!("{address} cannot be listened on: {error}")),
    }
}

/// Checks the folder of the data, and with SQLite the database in it.
fn data(config: &Config) -> Result<String, String> {
    let dir = &config.data_dir;
    if !dir.exists() {
        return Ok(format!("{} is made at the start, with an empty database", dir.display()));
    }
    if !dir.is_dir() {
        return Err(format!("{} is not a folder; name one with --data", dir.display()));
    }
    access(dir, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| format!("{} cannot be written to: {error}", dir.display()))?;
    if config.mysql.is_some() {
        return Ok(format!("{}, for messages while the database is unavailable", dir.display()));
    }
    Ok(match sqlite::look(dir).map_err(text)? {
        Some(bytes) => format!("raybox.db in {}, {} bytes", dir.display(), grouped(bytes)),
        None => format!("no raybox.db in {}: the start makes an empty one", dir.display()),
    })
}

/// Whether the log can be written in this folder, which the server creates if its parent exists.
fn folder(dir: &Path) -> Result<String, String> {
    let there = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    if !there.is_dir() {
        return Err(format!("{} is not a folder; lines would go to stderr", there.display()));
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK)
        .map(|()| dir.display().to_string())
        .map_err(|error| format!("{} cannot be written to: {error}; lines would go to stderr", there.display()))
}

fn redis(settings: &RedisSettings) -> Result<String, String> {
    let survey = survey(settings).map_err(text)?;
    let others = if survey.has_reference_nodes { ", and C++ servers" } else { "" };
    Ok(format!("{} answers; connected nodes: {}{others}", settings.place, survey.nodes))
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

const HELP: &str = "\
Shows which settings a start with these arguments would have, and what would
prevent it. It starts nothing, changes nothing, and works beside a running
server, whose address and database are then in use.

Usage: server check IP PORT [OPTIONS]

The arguments are those of the start, see server --help. Run it as the user and
in the folder of the server.

Exit code: 0 all is well, 1 there are problems, 2 the settings are invalid.";
