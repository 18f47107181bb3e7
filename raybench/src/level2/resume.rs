//! Users who come back. Each logs in by token with its cursors, and must be sent exactly the
//! messages that it has missed.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::thread;
use std::time::Instant;

use serde_json::Value;

use super::enter;
use crate::accounts::Account;
use crate::carrier::Address;
use crate::context::Context;
use crate::interrupt;
use crate::tally::{Arrival, Findings, Outcome, What, record};
use crate::target::Meter;
use crate::wire::{Client, Framing};

/// The users who come back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Returning {
    pub(crate) users: usize,
    /// The number of conversations of each user.
    pub(crate) conversations: usize,
    /// The number of conversations of each user in which messages were missed.
    pub(crate) grown: usize,
    /// The number of missed messages in each of these.
    pub(crate) missed: usize,
    /// The number of connections that log in at the same time.
    pub(crate) connections: usize,
}

/// The state of a user's device.
#[derive(Debug, Default)]
struct Held {
    token: String,
    /// The cursor of each conversation, by partner: number and tag.
    cursors: HashMap<i64, (u64, String)>,
}

/// Measures how fast the users come back.
pub(crate) fn resume(returning: Returning, context: &Context) -> io::Result<Outcome> {
    let Returning { users, conversations, grown, missed, connections } = returning;
    let accounts = context.accounts(users)?;
    let (addresses, pids) = context.server()?;
    let Devices(mut held) = fill(&accounts, conversations, context)?;
    context.progress.stage("writing to those who are away", users);
    write(&accounts, grown, missed, addresses, context, &mut held, false)?;
    context.progress.stage("coming back", users);
    let phase = crate::phase::Phase::default();
    let meter = Meter::start(pids, phase.begin_measured());
    let findings = thread::scope(|scope| {
        let threads: Vec<_> = (0..connections.min(users))
            .map(|first| {
                let (accounts, held) = (&accounts, &held);
                scope.spawn(move || {
                    let mut findings = Findings::new(1);
                    for n in (first..users).step_by(connections) {
                        if interrupt::is_requested() {
                            break;
                        }
                        let begun = Instant::now();
                        let back = come_back(addresses[n % addresses.len()], &held[n], returning, &mut findings);
                        findings.counts.sent += 1;
                        match back {
                            Ok(()) => record(&mut findings.times[0], begun.elapsed()),
                            Err(error) => {
                                findings.counts.closed += 1;
                                findings.trouble(|| format!("user {}: {error}", accounts[n].id));
                            }
                        }
                        context.progress.step();
                    }
                    findings
                })
            })
            .collect();
        let joined = threads.into_iter().map(|one| one.join().map_err(|_| io::Error::other("a thread panicked")));
        joined.collect::<io::Result<Vec<_>>>()
    })?;
    let measured = meter.stop(phase.begin_last());
    let mut outcome = Outcome::of(findings, &["return"]);
    outcome.slices.end(measured.elapsed);
    outcome.push_rate(What::Logins, users as u64, &measured);
    outcome.push_times();
    Ok(outcome)
}

/// The devices of these users, which hold all of their conversations.
#[derive(Debug)]
pub(crate) struct Devices(Vec<Held>);

impl Devices {
    /// Logs the device of a user in by token with its cursors. It must have missed nothing.
    pub(crate) fn come_back(&self, address: Address, user: usize) -> io::Result<Client> {
        let mut client = Client::connect(address, Framing::Lines)?;
        client.ask(&login(&self.0[user]))?;
        loop {
            let frame = client.receive()?;
            match frame["msgType"].as_u64() {
                Some(43) => {}
                Some(45) => return Ok(client),
                _ => {
                    return Err(io::Error::other(format!("this may not come to one who has everything: {frame}")));
                }
            }
        }
    }
}

/// Each user writes to its neighbours, and as many write to it, until each has this number of
/// conversations.
pub(crate) fn fill(accounts: &[Account], conversations: usize, context: &Context) -> io::Result<Devices> {
    let (addresses, _) = context.server()?;
    let mut held: Vec<Held> = accounts.iter().map(|_| Held::default()).collect();
    context.progress.stage("filling", accounts.len());
    write(accounts, conversations / 2, 1, addresses, context, &mut held, true)?;
    Ok(Devices(held))
}

/// Each user writes `messages` to each of its next `partners` neighbours. With `all_hold`, the
/// recipients hold the messages too.
fn write(
    accounts: &[Account],
    partners: usize,
    messages: usize,
    addresses: &[Address],
    context: &Context,
    held: &mut [Held],
    all_hold: bool,
) -> io::Result<()> {
    let count = accounts.len();
    let of_user = &|n: usize| {
        let partners: Vec<i64> = (1..=partners).map(|step| accounts[(n + step) % count].id).collect();
        let written = write_as(&accounts[n], &partners, messages, addresses[n % addresses.len()])?;
        context.progress.step();
        io::Result::Ok(written)
    };
    let written = thread::scope(|scope| {
        let threads: Vec<_> = (0..WRITERS)
            .map(|first| scope.spawn(move || (first..count).step_by(WRITERS).map(|n| Ok((n, of_user(n)?))).collect()))
            .collect();
        let joined = threads.into_iter().map(|one| one.join().map_err(|_| io::Error::other("a thread panicked"))?);
        joined.collect::<io::Result<Vec<Vec<_>>>>()
    })?;
    for (n, (token, cursors)) in written.into_iter().flatten() {
        held[n].token = token;
        for (step, cursor) in (1..).zip(cursors) {
            let other = (n + step) % count;
            if all_hold {
                held[other].cursors.insert(accounts[n].id, cursor.clone());
            }
            held[n].cursors.insert(accounts[other].id, cursor);
        }
    }
    Ok(())
}

/// The user writes `messages` to each of `partners`, and waits for the answers. Returns the token
/// of the login, and the cursor of each conversation.
fn write_as(
    account: &Account,
    partners: &[i64],
    messages: usize,
    address: Address,
) -> io::Result<(String, Vec<(u64, String)>)> {
    let mut client = Client::connect(address, Framing::Lines)?;
    let welcome = client.ask(&enter::login(account, "raybench"))?;
    let token = welcome["token"].as_str().unwrap_or_default().to_owned();
    while client.receive()?["msgType"] != 45 {}
    let mut frames = String::new();
    let (from, run) = (account.id, token.get(token.len().saturating_sub(8)..).unwrap_or_default());
    for to in partners {
        for number in 0..messages {
            let _ = writeln!(
                frames,
                r#"{{"FROMID":{from},"TOID":{to},"cid":"{run}-{to}-{number}","msg":"how do you do?","msgType":4}}"#
            );
        }
    }
    client.send_raw(frames.as_bytes())?;
    let mut cursors = vec![(0, String::new()); partners.len()];
    let mut acknowledged = 0;
    while acknowledged < partners.len() * messages {
        let ack = client.receive()?;
        if ack["msgType"] == 42 {
            // This frame is about a message of another writer.
            continue;
        }
        let (Some(seq), Some(tag)) = (ack["seq"].as_u64(), ack["tag"].as_str()) else {
            return Err(io::Error::other(format!("not acknowledged: {ack}")));
        };
        acknowledged += 1;
        let to = ack["conv"].as_str().and_then(|conv| conv[1..].parse::<i64>().ok());
        let at = partners.iter().position(|partner| Some(*partner) == to);
        cursors[at.ok_or_else(|| io::Error::other("another conversation"))?] = (seq, tag.to_owned());
    }
    Ok((token, cursors))
}

/// Logs in, and checks every frame that comes.
fn come_back(address: Address, held: &Held, returning: Returning, findings: &mut Findings) -> io::Result<()> {
    let mut client = Client::connect(address, Framing::Lines)?;
    client.ask(&login(held))?;
    let (mut runs, mut came) = (0, 0);
    let mut next: HashMap<String, u64> =
        held.cursors.iter().map(|(user, (seq, _))| (format!("u{user}"), seq + 1)).collect();
    loop {
        let frame = client.receive()?;
        match frame["msgType"].as_u64() {
            Some(43) => {}
            Some(44) if frame["complete"] == true => runs += 1,
            Some(42) => {
                let expected = frame["conv"].as_str().and_then(|conv| next.get_mut(conv));
                findings.counts.note(arrival(&frame, expected));
                came += 1;
            }
            Some(45) => break,
            _ => {
                findings.counts.foreign += 1;
                findings.trouble(|| format!("this may not come: {frame}"));
            }
        }
    }
    let (expected_runs, expected) = (returning.grown, returning.grown * returning.missed);
    if runs != expected_runs || came < expected {
        findings.counts.lost += (expected.saturating_sub(came)).max(1) as u64;
        findings.trouble(|| format!("{runs} runs with {came} messages, not {expected_runs} with {expected}"));
    }
    Ok(())
}

/// The login by token, with all cursors.
fn login(held: &Held) -> String {
    let cursors: Vec<String> =
        held.cursors.iter().map(|(user, (seq, tag))| format!(r#""u{user}":"{seq}:{tag}""#)).collect();
    format!(
        r#"{{"device":"raybench","have":{{{}}},"level":2,"msgType":1,"ping":300,"token":"{}"}}"#,
        cursors.join(","),
        held.token
    )
}

/// The kind of arrival of a message whose number should be the next one.
fn arrival(frame: &Value, next: Option<&mut u64>) -> Arrival {
    match (frame["seq"].as_u64(), next) {
        (Some(seq), Some(next)) if seq == *next => {
            *next += 1;
            Arrival::InOrder
        }
        (Some(seq), Some(next)) if seq < *next => Arrival::Twice,
        _ => Arrival::Late,
    }
}

/// Users who write at the same time, before the measurement.
const WRITERS: usize = 16;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_that_are_missed_come_one_after_the_other() {
        let mut next = 5;
        let mut note = |seq: u64| arrival(&json!({"seq": seq}), Some(&mut next));
        assert_eq!(
            (note(5), note(6), note(6), note(8)),
            (Arrival::InOrder, Arrival::InOrder, Arrival::Twice, Arrival::Late)
        );
        assert_eq!(arrival(&json!({"seq": 1}), None), Arrival::Late, "of a conversation that it does not hold");
    }
}
