//! Users who write to users who are offline, and who then come back.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::accounts::{self, Account};
use crate::carrier::Address;
use crate::context::Context;
use crate::interrupt;
use crate::limits::need_descriptors;
use crate::tally::{Outcome, Received, What, record, times};
use crate::target::{Measured, Meter};
use crate::wire::{self, Client, Framing, Template, To};

#[derive(Clone, Copy, Debug)]
pub(crate) struct WritingToAbsent {
    pub(crate) senders: usize,
    /// The number of messages that each sender writes to its recipient.
    pub(crate) messages: usize,
    pub(crate) size: usize,
    pub(crate) framing: Framing,
}

/// Bytes that a sender collects before it writes them.
const PIECE: usize = 64 * 1024;

pub(crate) fn offline(workload: WritingToAbsent, context: &Context) -> io::Result<Outcome> {
    let WritingToAbsent { senders, messages, size, framing } = workload;
    need_descriptors(senders)?;
    let accounts = context.accounts(senders * 2)?;
    let (addresses, pids) = context.server()?;
    let (writers, absent) = accounts.split_at(senders);
    let templates = writers.iter().zip(absent).enumerate().map(|(n, (writer, absent))| {
        Template::new(writer.id, To::User(absent.id), n, size, framing).map_err(io::Error::other)
    });
    let templates = templates.collect::<io::Result<Vec<_>>>()?;
    let address = |n: usize| addresses[n % addresses.len()];
    let absent: Vec<_> =
        absent.iter().enumerate().map(|(n, account)| Absent { account, address: address(n) }).collect();
    context.progress.stage("emptying", senders);
    for absent in &absent {
        // Messages that an earlier run left must not be counted.
        absent.fetch_all(framing, |_, _| ())?;
        context.progress.step();
    }
    let log_in = |(n, account): (usize, &Account)| accounts::log_in(address(n), account, framing);
    let clients = writers.iter().enumerate().map(log_in).collect::<io::Result<Vec<_>>>()?;

    let mut outcome = Outcome { times: vec![("fetch", times())], ..Outcome::default() };
    let (sent, measured) = write_all(clients, &templates, messages as u64, pids, context, &mut outcome)?;
    let fetching = fetch_all(&absent, &templates, &sent, framing, context, &mut outcome);
    // Messages that were not stored were not written to disk either.
    let delivered = outcome.counts.delivered;
    outcome.push_rate(What::Messages, delivered, &measured);
    outcome.push("fetched", delivered as f64 / fetching.as_secs_f64(), What::Messages.per_second());
    outcome.push_times();
    Ok(outcome)
}

/// Writes to all recipients, each sender in a thread of its own. Returns how many messages each
/// sender has sent, and the cost.
fn write_all(
    clients: Vec<Client>,
    templates: &[Template],
    messages: u64,
    pids: &[u32],
    context: &Context,
    outcome: &mut Outcome,
) -> io::Result<(Vec<u64>, Measured)> {
    context.progress.stage("writing", clients.len());
    let meter = Meter::start(pids, Instant::now());
    let written = thread::scope(|scope| {
        let writers: Vec<_> = clients
            .into_iter()
            .zip(templates)
            .map(|(client, template)| {
                scope.spawn(move || {
                    let written = write(client, template, messages);
                    context.progress.step();
                    written
                })
            })
            .collect();
        let joined = writers.into_iter().map(|writer| writer.join().map_err(|_| io::Error::other("a thread panicked")));
        joined.collect::<io::Result<Vec<_>>>()
    })?;
    let measured = meter.stop(Instant::now());
    let mut sent = Vec::with_capacity(written.len());
    for (number, result) in written {
        sent.push(number);
        outcome.counts.sent += number;
        if let Err(error) = result {
            outcome.trouble(|| format!("while writing: {error}"));
        }
    }
    Ok((sent, measured))
}

/// Returns how many messages were sent, and whether all of them are stored.
fn write(mut client: Client, template: &Template, messages: u64) -> (u64, io::Result<()>) {
    let mut frames = Vec::with_capacity(PIECE + template.len());
    let mut sent = 0;
    let mut write_some = || {
        while sent < messages {
            interrupt::check()?;
            frames.clear();
            let mut next = sent;
            while next < messages && frames.len() < PIECE {
                template.write(next, &mut frames);
                next += 1;
            }
            client.send_raw(&frames)?;
            sent = next;
        }
        // The answer to this request confirms that all of them are stored.
        client.ask(&wire::barrier(template.from())).map(drop)
    };
    let result = write_some();
    (sent, result)
}

/// Logs the absent users in again, one after the other. Returns how long that took.
fn fetch_all(
    absent: &[Absent<'_>],
    templates: &[Template],
    sent: &[u64],
    framing: Framing,
    context: &Context,
    outcome: &mut Outcome,
) -> Duration {
    context.progress.stage("fetching", absent.len());
    let start = Instant::now();
    for ((absent, template), sent) in absent.iter().zip(templates).zip(sent) {
        if interrupt::is_requested() {
            break;
        }
        let mut received = Received::default();
        let result = absent.fetch_all(framing, |texts, took| {
            record(&mut outcome.times[0].1, took);
            let before = outcome.counts.delivered;
            for text in texts {
                let mut frame = text.into_bytes();
                if framing == Framing::Lines {
                    frame.push(b'\n');
                }
                match template.number_of(&frame).filter(|number| number < sent) {
                    Some(number) => outcome.counts.note(received.note(number)),
                    None => {
                        outcome.counts.foreign += 1;
                        outcome.trouble(|| format!("nobody sent this: {}", frame.escape_ascii()));
                    }
                }
            }
            outcome.slices.note(start.elapsed(), outcome.counts.delivered - before);
        });
        if let Err(error) = result {
            outcome.trouble(|| format!("while fetching: {error}"));
        }
        outcome.counts.lost += received.lost(*sent);
        context.progress.step();
    }
    let elapsed = start.elapsed();
    outcome.slices.end(elapsed);
    elapsed
}

/// A user who is written to while offline.
#[derive(Clone, Copy)]
struct Absent<'a> {
    account: &'a Account,
    address: Address,
}

impl Absent<'_> {
    /// Logs in, fetches until nothing is left, and logs out. `take` gets the result of each fetch
    /// and the time that it took.
    fn fetch_all(self, framing: Framing, mut take: impl FnMut(Vec<String>, Duration)) -> io::Result<()> {
        let mut client = accounts::log_in(self.address, self.account, framing)?;
        loop {
            let start = Instant::now();
            let mut reply = client.ask(&wire::fetch(self.account.id))?;
            let took = start.elapsed();
            let texts: Vec<String> = serde_json::from_value(reply["msgs"].take()).map_err(io::Error::other)?;
            if texts.is_empty() {
                // The logout waits until the fetched messages are deleted.
                return client.ask(&wire::logout(self.account.id)).map(drop);
            }
            take(texts, took);
        }
    }
}
