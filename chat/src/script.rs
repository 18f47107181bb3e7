//! The commands for scripts: register, login, logout, send, tail.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use raybox_client::{Client, Content, Conv, Error, Message, State};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::opening::open;
use crate::options::Options;
use crate::{password, safe, time};

/// The longest wait for a login.
const ONLINE_WITHIN: Duration = Duration::from_secs(30);

/// The most messages that are read at once.
const BATCH: usize = 200;

/// The most messages of a conversation that are read from the server because they were missed.
const BACK_MAX: usize = 10_000;

pub(crate) fn register(options: &Options, name: &str) -> Result<ExitCode, Failure> {
    let password = password::read(options.password_file.as_deref(), true)?;
    let id = options.client().register(name, &password).map_err(|error| unreachable(options, error))?;
    enter(options, name, password)?;
    println!("registered and logged in as {} (user {id})", safe::line(name));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn login(options: &Options, name: Option<&str>) -> Result<ExitCode, Failure> {
    let client = match (name, &options.jwt_file) {
        (Some(name), None) => enter(options, name, password::read(options.password_file.as_deref(), false)?)?,
        (None, Some(_)) if options.password_file.is_some() => {
            let why = "--password-file and a JSON web token exclude each other: give a name with --password-file, as in \
                chat login NAME, and leave --jwt-file and RAYBOX_JWT_FILE out; or leave --password-file out";
            return Err(why.to_owned().into());
        }
        (None, Some(file)) => {
            // A mistake in the file is said at once, and not only when the server wants the token.
            password::jwt(file)?;
            let client = open(options, None)?;
            wait_online(options, &client)?;
            client
        }
        (None, None) => {
            return Err("say who you are: chat login NAME, or chat login --jwt-file FILE".to_owned().into());
        }
        (Some(_), Some(_)) => {
            let why = "a name and a JSON web token exclude each other, because the token has the name: to log in with the \
                token, give no name; to log in with a password, leave --jwt-file out and unset RAYBOX_JWT_FILE";
            return Err(why.to_owned().into());
        }
    };
    let (id, name) = client.user()?.unwrap_or_default();
    println!("logged in as {} (user {id})", safe::line(&name));
    Ok(ExitCode::SUCCESS)
}

fn enter(options: &Options, name: &str, password: String) -> Result<Client, Failure> {
    let client = open(options, Some((name.to_owned(), password)))?;
    wait_online(options, &client)?;
    Ok(client)
}

pub(crate) fn logout(options: &Options) -> Result<ExitCode, Failure> {
    let client = open(options, None)?;
    wait_online(options, &client)?;
    client.log_out()?;
    println!("logged out");
    Ok(ExitCode::SUCCESS)
}

/// Puts the message into the outbox, and waits until it is committed.
pub(crate) fn send(options: &Options, to: &str, text: Option<String>, timeout: u64) -> Result<ExitCode, Failure> {
    let text = match text {
        Some(text) => text,
        None => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(|error| format!("cannot read the text: {error}"))?;
            text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)
        }
    };
    if text.is_empty() {
        return Err("there is no text to send".to_owned().into());
    }
    let client = open(options, None)?;
    let conv = find(options, &client, to)?;
    let ticket = client.send(conv, &text)?;
    match ticket.wait(Duration::from_secs(timeout)) {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(Error::NoAnswer) => {
            let why = why_offline(options, &client);
            eprintln!(
                "chat: not committed in {timeout} s ({why}); it waits in the data file, and chat sends it when it runs again"
            );
            Ok(ExitCode::from(3))
        }
        Err(error) => {
            // The script sees the error and nobody looks into its outbox, so the message goes.
            client.discard(ticket.cid())?;
            Err(error.into())
        }
    }
}

/// Prints messages of others as they come.
pub(crate) fn tail(options: &Options, name: Option<&str>, json: bool, once: bool) -> Result<ExitCode, Failure> {
    let client = open(options, None)?;
    let only = name.map(|name| find(options, &client, name)).transpose()?;
    if once {
        wait_online(options, &client)?;
    }
    let me = client.user()?.map_or(0, |(id, _)| id);
    loop {
        for conversation in client.conversations()? {
            if only.is_some_and(|only| only != conversation.conv) {
                continue;
            }
            match print_new(&client, me, conversation.conv, conversation.read, conversation.held, json) {
                Ok(()) => {}
                // The reader has closed the pipe, as `head` does.
                Err(Failure::Pipe) => return Ok(ExitCode::SUCCESS),
                Err(failure) => return Err(failure),
            }
        }
        if once {
            return Ok(ExitCode::SUCCESS);
        }
        if let State::Ended(end) = client.state() {
            return Err(end.to_string().into());
        }
        client.events().next_within(Duration::from_secs(5));
        // Events that are already queued need one look, not one each.
        while client.events().next_now().is_some() {}
    }
}

/// Prints the messages after the place where the last call stopped.
fn print_new(client: &Client, me: i64, conv: Conv, read: u64, held: u64, json: bool) -> Result<(), Failure> {
    let key = format!("tail:{conv}");
    let noted = client.note(&key)?.and_then(|seq| seq.parse::<u64>().ok());
    let mut at = noted.unwrap_or(read);
    while at < held {
        let messages = client.after(conv, at, BATCH)?;
        let Some(last) = messages.last().map(|message| message.seq) else {
            // There is a gap: read the missing messages from the server, if it can be reached.
            let history = match client.older(conv, None, usize::try_from(held - at).unwrap_or(usize::MAX).min(BACK_MAX))
            {
                Ok(history) => history,
                Err(Error::Offline | Error::Interrupted | Error::NoAnswer) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if client.after(conv, at, 1)?.is_empty() {
                // The rest of the gap is edits and recalls, or is longer than `BACK_MAX`, or the
                // server no longer stores it.
                let next = history.messages.iter().map(|message| message.seq).find(|seq| *seq > at);
                if let Some(next) = next {
                    eprintln!("chat: {} older messages of {conv} are not printed", next - 1 - at);
                }
                at = next.map_or(held, |next| next - 1);
                client.set_note(&key, &at.to_string())?;
            }
            continue;
        };
        let mut out = io::stdout().lock();
        for message in messages.iter().filter(|message| message.from != me) {
            let line = if json { as_json(client, message)? } else { as_text(client, message)? };
            writeln!(out, "{line}").map_err(pipe)?;
        }
        out.flush().map_err(pipe)?;
        at = last;
        client.set_note(&key, &at.to_string())?;
    }
    Ok(())
}

fn pipe(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Pipe,
        _ => format!("cannot write: {error}").into(),
    }
}

fn as_json(client: &Client, message: &Message) -> Result<String, Failure> {
    let frame = message.frame.as_deref().and_then(|frame| serde_json::from_str(frame).ok()).unwrap_or(Value::Null);
    let text = match message.content() {
        Content::Text(text) => Value::from(text),
        _ => Value::Null,
    };
    let name = client.name_of(message.from)?;
    let (conv, from, seq, time) = (message.conv.to_string(), message.from, message.seq, message.time);
    let line = json!({"conv": conv, "from": from, "m": frame, "name": name, "seq": seq, "text": text, "time": time});
    Ok(safe::json(&line.to_string()))
}

fn as_text(client: &Client, message: &Message) -> Result<String, Failure> {
    let from = client.name_of(message.from)?.unwrap_or_else(|| format!("u{}", message.from));
    let group = match message.conv {
        Conv::Group(_) => {
            let name = client.conversation(message.conv)?.and_then(|group| group.name);
            format!("{}/", name.unwrap_or_else(|| message.conv.to_string()))
        }
        Conv::User(_) => String::new(),
    };
    let line = format!("{} {group}{from}: {}", time::short(message.time), describe(&message.content()));
    Ok(safe::line(&line))
}

/// A message in words.
pub(crate) fn describe(content: &Content) -> String {
    match content {
        Content::Text(text) => text.clone(),
        Content::FriendRequest => "asks to be your friend (/accept)".to_owned(),
        Content::MadeFriends => "has added you as a friend".to_owned(),
        Content::Recalled => "(taken back)".to_owned(),
        Content::GroupEvent { event, name, .. } => match event.as_str() {
            "renamed" => format!("(the group is called {name} now)"),
            "dissolved" => "(the group is dissolved)".to_owned(),
            "creator" => format!("({name} is the creator of the group now)"),
            _ => format!("({name}: {event})"),
        },
        _ => "(something that this version cannot show)".to_owned(),
    }
}

/// The conversation of this name. A name in the data file is found without the server.
fn find(options: &Options, client: &Client, name: &str) -> Result<Conv, Failure> {
    let found = match client.find(name) {
        Err(Error::Offline) => {
            wait_online(options, client)?;
            client.find(name)
        }
        found => found,
    };
    found?.ok_or_else(|| unknown(name).into())
}

/// The advice for a name that no user has.
pub(crate) fn unknown(name: &str) -> String {
    format!("nobody you know is called {}: name a user by number, as u9, which `chat login` prints", safe::line(name))
}

fn wait_online(options: &Options, client: &Client) -> Result<(), Failure> {
    match client.wait_online(ONLINE_WITHIN) {
        Ok(()) => Ok(()),
        Err(Error::Offline) => Err(format!(
            "cannot reach {} ({}): is the server running? --server HOST:PORT",
            options.server,
            why_offline(options, client)
        )
        .into()),
        Err(error) => Err(error.into()),
    }
}

fn why_offline(options: &Options, client: &Client) -> String {
    match client.state() {
        State::Waiting { reason, .. } => safe::line(&reason),
        State::Ended(end) => safe::line(&end.to_string()),
        _ => format!("{} has not answered", options.server),
    }
}

fn unreachable(options: &Options, error: Error) -> Failure {
    match error {
        Error::Io(error) => {
            format!("cannot reach {} ({error}): is the server running? --server HOST:PORT", options.server).into()
        }
        error => error.into(),
    }
}
