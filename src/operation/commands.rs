//! The commands other than serving, each run as `server COMMAND`.

pub mod admin;
pub mod backup;
pub mod check;
pub mod compact;
pub mod copy;
pub mod health;
pub mod migrate;
mod progress;
mod states;

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};

use clap::ArgMatches;

use crate::store::StoreError;

/// The reason why a command has not completed. `Display` is one line for the operator.
#[derive(Debug)]
pub enum CommandError {
    /// It has not begun: a problem must be fixed first.
    Refused(String),
    /// It has begun but not completed. It can be run again.
    Unfinished(String),
}

impl CommandError {
    fn refused(why: impl fmt::Display) -> CommandError {
        CommandError::Refused(why.to_string())
    }

    fn unfinished(why: impl fmt::Display) -> CommandError {
        CommandError::Unfinished(why.to_string())
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Refused(text) | CommandError::Unfinished(text) => f.write_str(text),
        }
    }
}

impl Error for CommandError {}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> CommandError {
        CommandError::unfinished(error)
    }
}

/// Parses a command's arguments, which begin with its name. `None` if help was requested, which is
/// printed.
fn arguments(
    command: clap::Command,
    usage: &str,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Option<ArgMatches>, CommandError> {
    match command.next_line_help(true).term_width(80).try_get_matches_from(arguments) {
        Ok(matches) => Ok(Some(matches)),
        Err(answer) if !answer.use_stderr() => {
            say(answer.to_string().trim_end());
            Ok(None)
        }
        Err(error) => {
            let text = error.to_string();
            let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
            let line = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ").replace(" tip: ", ", ");
            let line = line.strip_prefix("error: ").unwrap_or(&line);
            Err(CommandError::Refused(format!("{line}; usage: {usage}, see --help")))
        }
    }
}

/// Prints a line of the report. A closed stdout is ignored, because the work itself may still be
/// wanted.
fn say(line: impl fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Formats a number like `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (123_456, "123,456"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
