//! `server backup` and `server restore`: copies of the embedded store.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Arg, ArgMatches};

use super::{CommandError, grouped, say};
use crate::config::Config;
use crate::store::sqlite::{self, BackupContent, BackupError};

/// Runs `server backup` with its arguments, which begin with its name.
///
/// # Errors
/// [`CommandError`], one line for the operator.
pub fn back_up(
    arguments: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    working_dir: &Path,
) -> Result<(), CommandError> {
    let command =
        command("server backup", "Copies the data of a running or stopped server into one file.", BACKUP_HELP)
            .override_usage(BACKUP_USAGE)
            .arg(Arg::new("file").value_name("FILE").required(true).help("The copy; no file may have this name yet"));
    let Some(matches) = super::arguments(command, BACKUP_USAGE, arguments)? else { return Ok(()) };
    let (file, data_dir) = places("backup", &matches, env, working_dir)?;
    let begun = Instant::now();
    let content = sqlite::back_up(&data_dir, &file).map_err(failed)?;
    say(format_args!("{}: {} ({:.1} s)", file.display(), shown(content), begun.elapsed().as_secs_f64()));
    Ok(())
}

/// Runs `server restore` in the same way.
///
/// # Errors
/// [`CommandError`], one line for the operator.
pub fn restore(
    arguments: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    working_dir: &Path,
) -> Result<(), CommandError> {
    let command =
        command("server restore", "Puts a backup in the place of the data of a stopped server.", RESTORE_HELP)
            .override_usage(RESTORE_USAGE)
            .arg(Arg::new("file").value_name("FILE").required(true).help("The backup, which is not changed"));
    let Some(matches) = super::arguments(command, RESTORE_USAGE, arguments)? else { return Ok(()) };
    let (file, data_dir) = places("restore", &matches, env, working_dir)?;
    let (content, old) = sqlite::restore(&file, &data_dir).map_err(failed)?;
    say(format_args!("{}: {}", data_dir.display(), shown(content)));
    if let Some(old) = old {
        say(format_args!("The old database is {}; delete it when all is well.", old.display()));
    }
    if !data_dir.join("raybox.ids").exists() {
        say(
            "raybox.ids is not here: copy it from the old folder, or ids that were assigned after the backup are assigned again.",
        );
    }
    Ok(())
}

fn command(name: &'static str, about: &'static str, after_help: &'static str) -> clap::Command {
    let data = Arg::new("data")
        .long("data")
        .value_name("DIR")
        .help("Folder of raybox.db; without it that of RAYBOX_DATA, else of server.cnf, else the working directory");
    clap::Command::new(name).about(about).after_help(after_help).arg(data)
}

/// The named file, and the folder of the data.
fn places(
    command: &str,
    matches: &ArgMatches,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    working_dir: &Path,
) -> Result<(PathBuf, PathBuf), CommandError> {
    let config = Config::for_command(None, None, env, working_dir).map_err(CommandError::refused)?;
    let given = |name: &str| matches.get_one::<String>(name).map(|path| working_dir.join(path));
    if given("data").is_none() && config.mysql.is_some() {
        return Err(CommandError::refused(format_args!(
            "{command}: the data are in MySQL, as mysql.cnf says; see \"Data, backup and restore\" in README.md"
        )));
    }
    let data_dir = given("data").unwrap_or_else(|| working_dir.join(&config.data_dir));
    Ok((given("file").expect("the file is required"), data_dir))
}

fn failed(error: BackupError) -> CommandError {
    match error {
        BackupError::Exists(_) | BackupError::Missing(_) | BackupError::Unfit(..) | BackupError::Open(_) => {
            CommandError::refused(error)
        }
        BackupError::Busy(_) | BackupError::System(..) | BackupError::Sqlite(..) | BackupError::Unsure(..) => {
            CommandError::unfinished(error)
        }
    }
}

fn shown(BackupContent { bytes, users, messages }: BackupContent) -> String {
    format!("{} bytes, {} users, {} messages", grouped(bytes), grouped(users), grouped(messages))
}

const BACKUP_USAGE: &str = "server backup [--data DIR] FILE";
const BACKUP_HELP: &str = "\
The copy is of one moment: everything that was confirmed before the command
began is in it. It is verified before it gets its name, so a file with this
name is a whole backup. Meanwhile the server goes on. Its log grows until the
copy is complete, so the disk of the data needs room for what is written in
that time.

Exit code: 0 done; 1 not finished, for example on a full disk; 2 refused. After
1 and 2 there is no FILE.";
const RESTORE_USAGE: &str = "server restore [--data DIR] FILE";
const RESTORE_HELP: &str = "\
The server must be stopped. The backup is verified before anything is changed.
What was in the folder stays beside it, as raybox.db.before-restore-N.

What came after the backup is gone: accounts, groups, messages. Clients of
level 2 notice that and drop what the server does not have; what they have not
sent yet is sent. As long as raybox.ids is in the folder, ids of accounts and
groups are not given again.

Exit code: 0 done; 1 not finished; 2 refused. After 1 and 2 the old database is
in its place.";
