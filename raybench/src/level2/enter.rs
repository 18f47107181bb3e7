//! Logging in at level 2, before the measurement.

use std::collections::HashMap;
use std::io;

use serde_json::Value;

use crate::accounts::{self, Account};
use crate::carrier::{Address, Stream};
use crate::context::Context;
use crate::wire::{self, Client, Framing};

/// A connection that is logged in, and the last numbers of its user's conversations.
#[derive(Debug)]
pub(crate) struct Seated {
    pub(crate) stream: Stream,
    heads: HashMap<String, u64>,
}

impl Seated {
    pub(crate) fn head_of(&self, conv: &str) -> u64 {
        self.heads.get(conv).copied().unwrap_or_default()
    }
}

/// Logs these users in, spread over the nodes.
pub(crate) fn all(accounts: &[Account], context: &Context) -> io::Result<Vec<Seated>> {
    let (addresses, _) = context.server()?;
    context.progress.stage("logging in", accounts.len());
    let enter = |(n, account)| {
        let seated = enter(addresses[n % addresses.len()], &login(account, "raybench"));
        context.progress.step();
        seated
    };
    accounts.iter().enumerate().map(enter).collect()
}

/// Logs a user in with this number of devices.
pub(crate) fn devices(account: &Account, count: usize, context: &Context) -> io::Result<Vec<Seated>> {
    let (addresses, _) = context.server()?;
    let enter = |n| enter(addresses[n % addresses.len()], &login(account, &format!("raybench-{n}")));
    (0..count).map(enter).collect()
}

fn enter(address: Address, login: &str) -> io::Result<Seated> {
    let mut client = Client::connect(address, Framing::Lines)?;
    client.ask(login)?;
    let mut heads = HashMap::new();
    loop {
        let frame = client.receive()?;
        match frame["msgType"].as_u64() {
            Some(43) => heads.extend(frame["convs"].as_array().into_iter().flatten().filter_map(head)),
            Some(45) => return Ok(Seated { stream: client.into_stream()?, heads }),
            _ => return Err(io::Error::other(format!("this may not come after a login: {frame}"))),
        }
    }
}

fn head(conv: &Value) -> Option<(String, u64)> {
    Some((conv["conv"].as_str()?.to_owned(), conv["head"].as_u64()?))
}

/// The login of a device that holds nothing.
pub(super) fn login(account: &Account, device: &str) -> String {
    let Account { id, password } = account;
    format!(r#"{{"USERID":{id},"device":"{device}","level":2,"msgType":1,"password":"{password}","ping":300}}"#)
}

/// Creates a group of all of these, and returns its id.
pub(crate) fn create_group(accounts: &[Account], context: &Context) -> io::Result<i64> {
    let (addresses, _) = context.server()?;
    // Created at level 1, so that no connection of the run is notified of the group.
    let mut client = accounts::log_in(addresses[0], &accounts[0], Framing::Lines)?;
    let reply = client.ask(&wire::create_group(accounts[0].id, &format!("raybench {}", accounts[0].id)))?;
    let group = reply["GROUPID"].as_i64().ok_or_else(|| io::Error::other(format!("no GROUPID in {reply}")))?;
    for account in &accounts[1..] {
        let mut client = accounts::log_in(addresses[0], account, Framing::Lines)?;
        client.ask(&wire::join_group(account.id, group))?;
    }
    Ok(group)
}
