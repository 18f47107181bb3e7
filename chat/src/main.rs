//! `chat`: a terminal client of level 2, and commands for scripts. Storage and protocol are in
//! `raybox-client`.

mod app;
mod commands;
mod input;
mod options;
mod password;
mod safe;
mod screen;
mod script;
mod terminal;
mod time;

use std::io::Write;
use std::process::ExitCode;
use std::{fmt, io};

use clap::Parser;
use raybox_client::{Client, Error};

use self::options::{Command, Options};

/// The reason why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The text to show to the user.
    Text(String),
    /// The reader of standard output has closed the pipe.
    Pipe,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Text(text) => f.write_str(text),
            Failure::Pipe => f.write_str("nobody reads the output"),
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::Text(text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Text(match error {
            Error::NoAccount => "nobody has logged in yet: chat login NAME, or chat register NAME".to_owned(),
            Error::InUse => {
                "another chat uses the data file: close it, or give another one with --data FILE".to_owned()
            }
            error => error.to_string(),
        })
    }
}

/// Opens the data file and begins to connect.
pub(crate) fn open(options: &Options, password: Option<(String, String)>) -> Result<Client, Failure> {
    let data = options.data()?;
    let mut client = options.client().file(&data);
    if let Some((name, password)) = password {
        client = client.password(name, password);
    } else if let Some(file) = options.jwt_file.clone() {
        client = client.jwt(move || password::jwt(&file));
    }
    Client::open(client).map_err(|error| match error {
        Error::Io(_) | Error::Store(_) => {
            format!("cannot use {}: {error}; give another data file with --data FILE", data.display()).into()
        }
        error => error.into(),
    })
}

fn main() -> ExitCode {
    let options = Options::parse();
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
