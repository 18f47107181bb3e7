//! `server admin`: administers a running server through its admin port, or a stopped one on its
//! database (`offline`).

mod client;
mod offline;
mod requests;
mod story;
mod table;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;

use clap::ArgMatches;
use serde_json::Value;

use self::client::ask;
use self::offline::OfflineOptions;
use self::requests::{AdminAction, commands, common, wanted};
use self::table::shown;
use super::health::DEFAULT_ADDRESS;
use super::{CommandError, say};
use crate::config::{Config, Secret};
use crate::operation::admin::api::Administrator;
use crate::store::Store;

/// Runs the command with its arguments, which begin with `admin`, or with `server` before a command
/// that is also one of the server: `server trace`. `assemble` makes an
/// administrator who works on a database without a server.
///
/// # Errors
/// [`CommandError`], one line for the operator.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    working_dir: &Path,
    assemble: impl FnOnce(&Config, Store) -> Result<Box<dyn Administrator>, String>,
) -> Result<(), CommandError> {
    let mut arguments = arguments.into_iter().peekable();
    let is_direct = arguments.peek().is_some_and(|name| name == DIRECT);
    let (called, usage) = if is_direct { (DIRECT, DIRECT_USAGE) } else { (ADMIN, USAGE) };
    let Some(matches) = super::arguments(command(called), usage, arguments)? else { return Ok(()) };
    let refused = |why: &dyn std::fmt::Display| CommandError::refused(format_args!("admin: {why}"));
    let Some((name, of_command)) = matches.subcommand() else { return Err(refused(&"name a command, see --help")) };
    let (name, of_command) = innermost(name, of_command);
    let Some(wanted) = wanted(&name, of_command) else { return Err(refused(&"name a command, see --help")) };
    if let Some(why) = wanted.lacks {
        return Err(refused(&why));
    }
    let env: Vec<_> = env.into_iter().collect();
    if let Some(offline) = OfflineOptions::of(of_command)? {
        confirm(&wanted, of_command.get_flag("yes"))?;
        let answer = offline.answer(&wanted.request, env, working_dir, assemble)?;
        print(&answer, of_command);
        return Ok(());
    }
    let named = of_command.get_one::<String>("address");
    let given = env.iter().find(|(name, _)| name == KEY_VARIABLE).and_then(|(_, value)| value.to_str());
    // If both are given, no settings are needed: their file may be what needs repair.
    let (address, key) = match (named, given.filter(|key| is_key(key))) {
        (Some(text), Some(key)) => (parsed(text)?, Secret::new(key)),
        _ => {
            let config = Config::without_cluster(env, working_dir).map_err(|error| refused(&error))?;
            let Some(key) = config.admin_key.0.clone() else {
                return Err(refused(
                    &"there is no key: set RAYBOX_ADMIN_KEY, or admin_key in server.cnf in this folder",
                ));
            };
            (address(named, &config)?, key)
        }
    };
    confirm(&wanted, of_command.get_flag("yes"))?;
    match ask(address, key.expose(), &wanted.request) {
        Ok(answer) => print(&answer, of_command),
        Err(error) => return Err(CommandError::unfinished(format_args!("admin: {error}"))),
    }
    Ok(())
}

fn print(answer: &Value, matches: &ArgMatches) {
    match matches.get_flag("json") {
        true => say(answer),
        false => say(story::told(answer).unwrap_or_else(|| shown(answer)).trim_end()),
    }
}

/// `users list` is one command in two words.
fn innermost<'m>(name: &str, matches: &'m ArgMatches) -> (String, &'m ArgMatches) {
    match matches.subcommand() {
        Some((inner, matches)) => (format!("{name} {inner}"), matches),
        None => (name.to_owned(), matches),
    }
}

/// The named address, otherwise the one in the settings, otherwise the default.
fn address(named: Option<&String>, config: &Config) -> Result<SocketAddr, CommandError> {
    if let Some(text) = named {
        return parsed(text);
    }
    let usual = || DEFAULT_ADDRESS.parse().ok();
    config.admin.0.or_else(usual).ok_or_else(|| CommandError::refused("admin: there is no address"))
}

/// Whether an HTTP header can carry the key.
fn is_key(text: &str) -> bool {
    text != "none" && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn parsed(text: &str) -> Result<SocketAddr, CommandError> {
    let parsed = text.parse().or_else(|_| format!("127.0.0.1:{text}").parse());
    parsed.map_err(|_| {
        CommandError::refused(format_args!("admin: {text:?} is not an address with a port, such as {DEFAULT_ADDRESS}"))
    })
}

/// Asks for confirmation before something is destroyed.
fn confirm(wanted: &AdminAction, is_sure: bool) -> Result<(), CommandError> {
    let Some(what) = wanted.destroys.as_ref().filter(|_| !is_sure) else { return Ok(()) };
    if !io::stdin().is_terminal() {
        return Err(CommandError::refused(format_args!("admin: this would {what}: give --yes if that is wanted")));
    }
    let _ = write!(io::stderr(), "This would {what}. Type yes to do it: ");
    let mut line = String::new();
    match io::stdin().read_line(&mut line) {
        Ok(_) if line.trim() == "yes" => Ok(()),
        _ => Err(CommandError::refused("admin: nothing was done")),
    }
}

fn command(called: &'static str) -> clap::Command {
    clap::Command::new(ADMIN)
        .bin_name(called)
        .about("Administers a running server, or with --offline the database of a stopped one.")
        .override_usage(USAGE)
        .after_help(AFTER_HELP)
        .subcommand_required(true)
        .subcommands(commands())
        .args(common())
}

const KEY_VARIABLE: &str = "RAYBOX_ADMIN_KEY";
const ADMIN: &str = "server admin";
const DIRECT: &str = "server";
const DIRECT_USAGE: &str = "server trace --user N WHICH, or server explain USER";
const USAGE: &str = "server admin [--address ADDRESS | --offline] [--json] [--yes] COMMAND";
const AFTER_HELP: &str = "\
ADDRESS is the one in the server's key admin; without it, the one in server.cnf
in this folder or in RAYBOX_ADMIN, else 127.0.0.1:9600. The key is the variable
RAYBOX_ADMIN_KEY, or admin_key in server.cnf; the server needs the same one. The
key is not an option, because everybody on the machine can read options.

--offline needs neither a server nor a key: the command works on the database
that the settings in this folder name. Run it as the service's user. A server
that uses raybox.db must be stopped. On MySQL, servers may run while something
is shown; --force allows a change nevertheless.

Exit code: 0 done, 1 not done or no answer, 2 refused and nothing asked.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_calls_a_command_as_it_was_called() {
        let help = |called, words: &[&str]| {
            let answer = command(called).try_get_matches_from(words);
            answer.expect_err("the help").to_string()
        };
        let direct = help(DIRECT, &["server", "trace", "--help"]);
        assert!(direct.contains("Usage: server trace "), "{direct}");
        let inner = help(ADMIN, &["admin", "trace", "--help"]);
        assert!(inner.contains("Usage: server admin trace "), "{inner}");
    }
}
