//! The users a run needs. They are registered at the beginning of the run, or read from the file of
//! an earlier run.

use std::fs;
use std::io;
use std::path::Path;
use std::process;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::carrier::Address;
use crate::progress::Progress;
use crate::wire::{self, Client, Framing};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) id: i64,
    pub(crate) password: String,
}

/// Connections that register at the same time: a server hashes and commits several registrations
/// together.
const REGISTRARS: usize = 8;

/// Returns `count` accounts of the server at `address`. Accounts that `file` lacks are registered
/// and added to it.
pub(crate) fn provide(
    address: Address,
    count: usize,
    file: Option<&Path>,
    progress: &Progress,
) -> io::Result<Vec<Account>> {
    let mut accounts = match file {
        Some(path) if path.exists() => read(path)?,
        Some(_) | None => Vec::new(),
    };
    if accounts.len() < count {
        let missing = count - accounts.len();
        progress.stage("registering users", missing);
        accounts.extend(register(address, missing, progress)?);
        if let Some(path) = file {
            let text = serde_json::to_string(&accounts).map_err(io::Error::other)?;
            fs::write(path, text).map_err(|error| about(path, error))?;
        }
    }
    accounts.truncate(count);
    Ok(accounts)
}

/// A new connection on which this user is logged in.
pub(crate) fn log_in(address: Address, account: &Account, framing: Framing) -> io::Result<Client> {
    let mut client = Client::connect(address, framing)?;
    client.ask(&wire::login(account.id, &account.password))?;
    Ok(client)
}

fn read(path: &Path) -> io::Result<Vec<Account>> {
    if !path.is_file() {
        // A device file may never end, so only regular files are read.
        return Err(about(path, io::Error::other("this is no file of accounts")));
    }
    let text = fs::read_to_string(path).map_err(|error| about(path, error))?;
    serde_json::from_str(&text)
        .map_err(|error| about(path, io::Error::other(format!("no accounts of an earlier run: {error}"))))
}

fn about(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn register(address: Address, count: usize, progress: &Progress) -> io::Result<Vec<Account>> {
    // The names must differ from those of other runs.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let run = format!("raybench-{:x}-{:x}", process::id(), now.as_micros());
    let registrars = REGISTRARS.min(count);
    let some = |first: usize| -> io::Result<Vec<Account>> {
        let mut client = Client::connect(address, Framing::Lines)?;
        let numbers = (first..count).step_by(registrars);
        numbers
            .map(|n| {
                // As long as the password that the Qt client sends (a SHA-224), but not hexadecimal
                // digits only: a server paces that client, one frame at a time.
                let password = format!("raybench-{n:047x}");
                let reply = client.ask(&wire::register(&format!("{run}-{n}"), &password))?;
                let id = reply["USERID"].as_i64().ok_or_else(|| io::Error::other(format!("no USERID in {reply}")))?;
                progress.step();
                Ok(Account { id, password })
            })
            .collect()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..registrars).map(|first| scope.spawn(move || some(first))).collect();
        threads.into_iter().try_fold(Vec::with_capacity(count), |mut all, thread| {
            all.extend(thread.join().map_err(|_| io::Error::other("a registrar panicked"))??);
            Ok(all)
        })
    })
}
