//! `server migrate`: brings the tables of a cluster's database up to date.
//!
//! It shows what is missing before it changes anything. Its changes cannot be undone, and reference
//! servers cannot work with the result, so it refuses while any are connected to Redis. Nodes of
//! this server may run meanwhile. They inspect the tables only at the start and keep working as
//! they began, which the new tables allow. While the database rewrites a table, writes to it fail,
//! and their senders get an error.
//!
//! If it is killed, nothing is lost: the next run does what is still missing.

use std::ffi::OsString;
use std::path::Path;

use clap::{Arg, ArgAction};

use super::progress::CommandProgress;
use super::{CommandError, grouped, say, states};
use crate::bus::redis::{Survey, survey};
use crate::config::Config;
use crate::operation::resources;
use crate::store::mysql::Maintenance;
use crate::store::mysql::maintenance::{MIGRATIONS, Migration, NAMES, NEW_TABLES, Nulls, TablesState};

/// Runs the command with its arguments, which begin with its name.
///
/// # Errors
/// [`CommandError`], one line for the operator.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    working_dir: &Path,
) -> Result<(), CommandError> {
    let Some(matches) = super::arguments(command(), USAGE, arguments)? else { return Ok(()) };
    resources::check_threads_of_command().map_err(CommandError::refused)?;
    let file = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let config = Config::for_command(file("mysql"), file("redis"), env, working_dir);
    let config = config.map_err(CommandError::refused)?;
    let options = Options { is_dry_run: matches.get_flag("dry-run"), is_forced: matches.get_flag("force") };
    let Some(settings) = &config.mysql else {
        return Err(CommandError::refused("migrate: there is no mysql.cnf here; name one with --mysql FILE"));
    };
    if matches.get_flag("reset-states") {
        return states::reset(settings, &config, options.is_dry_run);
    }
    let waits = || say("another server migrate or copy works on this database: waiting for its end");
    let mut database = Maintenance::begin(settings, waits).map_err(CommandError::refused)?;
    match database.state().map_err(CommandError::refused)? {
        TablesState::UpToDate => {
            say(format_args!("{}: nothing to do, all {} migrations are applied", database.name(), MIGRATIONS.len()));
            Ok(())
        }
        TablesState::Empty => create(&mut database, &options),
        TablesState::Behind(missing) => upgrade(&mut database, &missing, &config, &options),
        TablesState::Newer(version) => Err(CommandError::refused(format_args!(
            "migrate: {} has migration {version}, which this version of the server does not know; use a later one",
            database.name()
        ))),
        TablesState::Foreign(missing) => Err(CommandError::refused(format_args!(
            "migrate: {} lacks {}, but is not empty; name an empty database, or one of a chat server, by the key dbname",
            database.name(),
            missing.join(", ")
        ))),
    }
}

struct Options {
    is_dry_run: bool,
    is_forced: bool,
}

/// Creates the tables in an empty database.
fn create(database: &mut Maintenance, options: &Options) -> Result<(), CommandError> {
    say(format_args!("{}: empty, all tables are to be made\n\n{}", database.name(), indented(NEW_TABLES)));
    if options.is_dry_run {
        say("dry run: nothing was changed");
        return Ok(());
    }
    let progress = CommandProgress::of_unknown("making the tables");
    database.create().map_err(|error| CommandError::unfinished(format_args!("migrate: {error}; {AGAIN}")))?;
    progress.finish("all tables are made");
    Ok(())
}

/// Applies the missing migrations.
fn upgrade(
    database: &mut Maintenance,
    missing: &[&'static Migration],
    config: &Config,
    options: &Options,
) -> Result<(), CommandError> {
    let (name, count) = (database.name(), missing.len());
    say(format_args!("{name}: {count} of {} migrations are missing", MIGRATIONS.len()));
    for migration in missing {
        let Migration { version, file, sql, .. } = migration;
        say(format_args!("\n{version}. {} ({file})\n\n{}", migration.title(), indented(sql)));
    }
    say("");
    check_cluster(config, options)?;
    check_nulls(database)?;
    check_names(database, missing)?;
    let others = database.others().map_err(CommandError::refused)?;
    if others > 0 {
        say(format_args!("note: other connections to this database: {others}. {ABOUT_OTHERS}"));
    }
    if options.is_dry_run {
        say("dry run: nothing was changed");
        return Ok(());
    }
    for migration in missing {
        apply(database, migration)?;
    }
    say("done: all migrations are applied. Restart the nodes of this server, so that they use it.");
    Ok(())
}

fn apply(database: &mut Maintenance, migration: &Migration) -> Result<(), CommandError> {
    let Migration { version, file, tables, .. } = migration;
    let unfinished = |error| {
        CommandError::unfinished(format_args!("migrate: migration {version} ({file}) is not applied: {error}; {AGAIN}"))
    };
    let mut sizes = Vec::new();
    for table in *tables {
        sizes.push(format!("{table}: {} rows", grouped(database.rows(table).map_err(unfinished)?)));
    }
    let what = format!("migration {version} ({})", sizes.join(", "));
    let progress = CommandProgress::of_unknown(&what);
    database.apply(migration).map_err(unfinished)?;
    progress.finish(&format!("{what} is applied"));
    Ok(())
}

/// Refuses while nodes of the reference server run, because they cannot work with the new tables.
fn check_cluster(config: &Config, options: &Options) -> Result<(), CommandError> {
    let Some(settings) = &config.redis else {
        say("note: there is no redis.cnf, so it was not checked whether nodes of the reference server run; stop them");
        return Ok(());
    };
    match survey(settings) {
        Ok(Survey { has_reference_nodes: true, reference_nodes, .. }) => object(options, &reference(&reference_nodes)),
        Ok(Survey { nodes: 0, .. }) => Ok(()),
        Ok(Survey { nodes, .. }) => {
            say(format_args!("note: nodes of this server that are running: {nodes}. {ABOUT_OTHERS}"));
            Ok(())
        }
        Err(error) => object(options, &format!("nodes of the reference server may be running: {error}")),
    }
}

fn reference(nodes: &[String]) -> String {
    let (count, addresses) = match nodes {
        [] => ("nodes".to_owned(), String::new()),
        [one] => ("1 node".to_owned(), format!(" ({one})")),
        many => (format!("{} nodes", many.len()), format!(" ({})", many.join(", "))),
    };
    format!(
        "{count} of the reference server{addresses} on this Redis cannot check passwords afterwards; stop them first"
    )
}

/// Refuses for this reason, unless this is a dry run or `--force` was given.
fn object(options: &Options, why: &str) -> Result<(), CommandError> {
    if options.is_dry_run || options.is_forced {
        say(format_args!("warning: {why}"));
        return Ok(());
    }
    Err(CommandError::refused(format_args!("migrate: {why}, or go on nevertheless with --force")))
}

/// Refuses rows that lack values which this server's tables require, before the first migration has
/// begun.
fn check_nulls(database: &mut Maintenance) -> Result<(), CommandError> {
    let nulls = database.nulls().map_err(CommandError::refused)?;
    if nulls.is_empty() {
        return Ok(());
    }
    let describe = |nulls: &Nulls| {
        let Nulls { table, column, rows, ids } = nulls;
        let which = match (ids.is_empty(), *rows > 20) {
            (true, _) => String::new(),
            (false, false) => format!(" (id {ids})"),
            (false, true) => format!(" (id {ids} and others)"),
        };
        let advice = match (*table, *column) {
            // An empty one would let anybody log in.
            ("User", "password") => {
                "UPDATE User SET password = SHA2(CONCAT(UUID(), RAND(), id), 224) WHERE password IS NULL"
            }
            ("User", _) => "UPDATE User SET name = CONCAT('user ', id) WHERE name IS NULL",
            ("AllGroup", _) => "UPDATE AllGroup SET groupname = '' WHERE groupname IS NULL",
            _ => "DELETE FROM OfflineMessage WHERE message IS NULL",
        };
        format!("{} rows of {table}{which} have no {column} (NULL); delete them, or run {advice}", grouped(*rows))
    };
    let nulls: Vec<String> = nulls.iter().map(describe).collect();
    Err(CommandError::refused(format_args!("migrate: {}", nulls.join("; "))))
}

/// Refuses names on which the last migration would fail, before the first has begun.
fn check_names(database: &mut Maintenance, missing: &[&Migration]) -> Result<(), CommandError> {
    if !missing.iter().any(|migration| migration.version == NAMES) {
        return Ok(());
    }
    let same = database.same_names().map_err(CommandError::refused)?;
    if same.is_empty() {
        return Ok(());
    }
    Err(CommandError::refused(format_args!(
        "migrate: these names differ now and would be equal afterwards: {}; rename all but one of each",
        same.join("; ")
    )))
}

fn indented(sql: &str) -> String {
    let indent = |line: &str| if line.is_empty() { String::new() } else { format!("    {line}") };
    sql.lines().map(indent).collect::<Vec<_>>().join("\n")
}

fn command() -> clap::Command {
    let file = |name: &'static str, help: &'static str| Arg::new(name).long(name).value_name("FILE").help(help);
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    clap::Command::new("server migrate")
        .about("Brings the tables of the database in mysql.cnf up to date, and makes them in an empty one.")
        .override_usage(USAGE)
        .after_help(AFTER_HELP)
        .arg(file("mysql", "Settings of the database; without it those of a server started here, usually mysql.cnf"))
        .arg(file(
            "redis",
            "Settings of Redis; without it those of a server started here, usually redis.cnf if it exists",
        ))
        .arg(flag("reset-states", "Only set to offline the users that stopped reference servers have left online"))
        .arg(flag("dry-run", "Show what would be done, and do nothing"))
        .arg(flag("force", "Go on even though nodes of the reference server are connected to Redis"))
}

const USAGE: &str = "server migrate [OPTIONS]";
const AFTER_HELP: &str = "\
It shows all changes before it makes the first one; --dry-run stops there. Make
a backup: the changes cannot be undone. If it is interrupted, run it again. It
needs the rights SELECT, INSERT, CREATE and ALTER on the database. Nodes of the
reference server must be stopped: they cannot check hashed passwords. Nodes of
this server may keep running; while the database rewrites a table, messages
that must be stored are refused, and their senders get an error. Restart them
afterwards.

With --reset-states it changes no table. A reference server that stops leaves
its users online, and while another one runs, messages for them are lost. All
users who are online on no node of this server are set to offline. That
includes the users of reference servers that still run: messages for them are
stored until they log in again.

Exit code: 0 done or nothing to do, 1 not finished, 2 refused and nothing
changed.";

const ABOUT_OTHERS: &str = "Servers of this version may go on, though what they write is refused while a table is \
                            rewritten; restart them afterwards.";
const AGAIN: &str = "then run the same command again, which does what is still missing";
