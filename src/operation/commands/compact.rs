//! `server compact`: shrinks the file of the embedded store to its content.

use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

use clap::Arg;

use super::{CommandError, grouped, say};
use crate::store::sqlite::{Compacted, compact};

/// Runs the command with its arguments, which begin with its name.
///
/// # Errors
/// [`CommandError`], one line for the operator.
pub fn run(arguments: impl IntoIterator<Item = OsString>, working_dir: &Path) -> Result<(), CommandError> {
    let Some(matches) = super::arguments(command(), USAGE, arguments)? else { return Ok(()) };
    let path = matches.get_one::<String>("file").map_or(".", String::as_str);
    let begun = Instant::now();
    let (file, Compacted { before, after }) = compact(&working_dir.join(path)).map_err(CommandError::refused)?;
    say(format_args!(
        "{}: {} bytes, and {} before ({:.1} s)",
        file.display(),
        grouped(after),
        grouped(before),
        begun.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn command() -> clap::Command {
    let file =
        Arg::new("file").value_name("FILE").help("The database, raybox.db, or its folder; the server must be stopped");
    clap::Command::new("server compact")
        .about("Shrinks raybox.db to its content.")
        .override_usage(USAGE)
        .after_help(AFTER_HELP)
        .arg(file)
}

const USAGE: &str = "server compact [FILE]";
const AFTER_HELP: &str = "\
The server does this by itself, a little at a time. Only if an earlier version
made the file, run this command once. Meanwhile the disk needs room for two
more files of its size. If it is interrupted, nothing is lost: run it again.

Exit code: 0 done, 2 refused and nothing changed.";
