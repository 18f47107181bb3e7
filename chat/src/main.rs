//! `chat`: a terminal client of level 2, and commands for scripts. Storage and protocol are in
//! `raybox-client`.

mod app;
mod commands;
mod failure;
mod input;
mod opening;
mod options;
mod password;
mod safe;
mod screen;
mod script;
mod terminal;
mod time;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use self::options::{Command, Options};

fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(why) = options.check() {
        let _ = writeln!(io::stderr(), "chat: {why}");
        return ExitCode::FAILURE;
    }
    let done = match &options.command {
        None => terminal::run(&options),
        Some(Command::Register { name }) => script::register(&options, name),
        Some(Command::Login { name }) => script::login(&options, name.as_deref()),
        Some(Command::Logout) => script::logout(&options),
        Some(Command::Send { to, text, timeout }) => script::send(&options, to, text.clone(), *timeout),
        Some(Command::Tail { name, json, once }) => script::tail(&options, name.as_deref(), *json, *once),
    };
    done.unwrap_or_else(|failure| {
        // The terminal may be gone.
        let _ = writeln!(io::stderr(), "chat: {}", safe::line(&failure.to_string()));
        ExitCode::FAILURE
    })
}
