//! A server that is killed and started again several times while users of level 2 write. At the end
//! the stores of both sides must hold every message, once, in order and under the number that was
//! acknowledged. The users are clients of the client library, whose outboxes retry every send that
//! is not answered.

use std::io;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use raybox_client::{Client, Content, Conv, Error, Message, Options, State, Ticket, register};

use crate::carrier::{Address, Carrier};
use crate::context::Context;
use crate::interrupt;
use crate::phase::Phase;
use crate::tally::{Findings, Outcome, Received, What};
use crate::target::Meter;

/// The kills to survive.
#[derive(Clone, Debug)]
pub(crate) struct Surviving {
    pub(crate) pairs: usize,
    /// The number of messages of each sender in flight.
    pub(crate) window: usize,
    /// The bytes of each text.
    pub(crate) size: usize,
    pub(crate) kills: u32,
    /// The command that starts the server.
    pub(crate) start: String,
    pub(crate) patience: Duration,
}

/// Kills the server `kills` times, with equal pauses.
pub(crate) fn survive(surviving: &Surviving, context: &Context) -> io::Result<Outcome> {
    let (addresses, _) = context.server()?;
    let address = addresses[0];
    if address.carrier != Carrier::Tcp {
        return Err(io::Error::other("this workload is for plain TCP: give an address without tls:// and ws://"));
    }
    let mut server = Server::start(&surviving.start, address)?;
    let pairs = enter(surviving, address, context)?;
    let (phase, stop) = (Phase::default(), AtomicBool::new(false));
    let (findings, measured) = thread::scope(|scope| {
        let writers: Vec<_> = pairs
            .into_iter()
            .map(|pair| {
                let (surviving, stop) = (&surviving, &stop);
                scope.spawn(move || pair.run(surviving, stop))
            })
            .collect();
        let meter = Meter::start(&[], phase.begin_measured());
        let killed = kill_often(&mut server, surviving, address, context);
        stop.store(true, Ordering::Relaxed);
        let measured = meter.stop(phase.begin_last());
        context.progress.stage("waiting for the rest", 1);
        let found: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        killed?;
        let found = found.into_iter().map(|one| one.map_err(|_| io::Error::other("a thread panicked"))?);
        io::Result::Ok((found.collect::<io::Result<Vec<_>>>()?, measured))
    })?;
    let acknowledged: u64 = findings.iter().map(|one| one.measured).sum();
    let sent: u64 = findings.iter().map(|one| one.counts.sent).sum();
    let mut outcome = Outcome::of(findings, &[]);
    outcome.push("kills", f64::from(surviving.kills), "");
    outcome.push("acknowledged at once", acknowledged as f64, What::Messages.name());
    outcome.push("repeated after the last kill", (sent - acknowledged) as f64, What::Messages.name());
    outcome.push("rate", acknowledged as f64 / measured.elapsed.as_secs_f64(), What::Acknowledgements.per_second());
    Ok(outcome)
}

fn kill_often(server: &mut Server, surviving: &Surviving, address: Address, context: &Context) -> io::Result<()> {
    let pause = context.measured / surviving.kills.max(1);
    context.progress.stage("killing the server", surviving.kills as usize);
    for _ in 0..surviving.kills {
        let begun = Instant::now();
        while begun.elapsed() < pause && !interrupt::is_requested() {
            thread::sleep(LOOK.min(pause));
        }
        server.kill()?;
        *server = Server::start(&surviving.start, address)?;
        context.progress.step();
    }
    Ok(())
}

/// A server that this program has started; it is killed at the end.
struct Server(Child);

impl Server {
    /// Starts the command, and waits until it accepts connections.
    fn start(command: &str, address: Address) -> io::Result<Server> {
        if TcpStream::connect(address.socket).is_ok() {
            return Err(io::Error::other(format!("something listens at {address} already: stop it first")));
        }
        let child = Command::new("sh").args(["-c", &format!("exec {command}")]).stdout(Stdio::null()).spawn()?;
        let mut server = Server(child);
        let late = Instant::now() + START_WITHIN;
        while TcpStream::connect(address.socket).is_err() {
            if let Some(end) = server.0.try_wait()? {
                return Err(io::Error::other(format!("`{command}` has ended with {end}")));
            }
            if Instant::now() > late {
                return Err(io::Error::other(format!("`{command}` does not listen at {address}")));
            }
            thread::sleep(LOOK);
        }
        Ok(server)
    }

    /// Kills the server with SIGKILL.
    fn kill(&mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// A user who writes to another one.
struct Pair {
    writer: Client,
    reader: Client,
    /// The conversation under the name that each of the two has for it.
    to: Conv,
    from: Conv,
    sent: u64,
    in_flight: Vec<(u64, Ticket)>,
    /// The number under which each message was acknowledged.
    acknowledged: Vec<Option<u64>>,
}

fn enter(surviving: &Surviving, address: Address, context: &Context) -> io::Result<Vec<Pair>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let run = format!("raybench-{:x}-{:x}", std::process::id(), now.as_micros());
    context.progress.stage("logging in", surviving.pairs);
    let user = |n: usize, side: &str| -> raybox_client::Result<(i64, Client)> {
        let (server, name) = (address.to_string(), format!("{run}-{side}{n}"));
        let id = register(&server, &name, &name)?;
        let client = Client::open(Options::new(server).password(&name, &name))?;
        client.wait_online(surviving.patience)?;
        Ok((id, client))
    };
    let pair = |n| -> raybox_client::Result<Pair> {
        let ((from, writer), (to, reader)) = (user(n, "w")?, user(n, "r")?);
        context.progress.step();
        let (to, from) = (Conv::User(to), Conv::User(from));
        Ok(Pair { writer, reader, to, from, sent: 0, in_flight: Vec::new(), acknowledged: Vec::new() })
    };
    (0..surviving.pairs).map(|n| pair(n).map_err(io::Error::other)).collect()
}

impl Pair {
    /// Writes until the end, and then waits until both sides have everything.
    fn run(mut self, surviving: &Surviving, stop: &AtomicBool) -> io::Result<Findings> {
        let mut findings = Findings::new(0);
        while !stop.load(Ordering::Relaxed) {
            while self.in_flight.len() < surviving.window {
                self.send(surviving.size).map_err(io::Error::other)?;
            }
            self.take_answers(&mut findings);
            self.hurry();
        }
        findings.measured = self.sent - self.in_flight.len() as u64;
        let late = Instant::now() + surviving.patience;
        while !self.has_all() && Instant::now() < late && !interrupt::is_requested() {
            self.take_answers(&mut findings);
            self.hurry();
        }
        self.check(&mut findings).map_err(io::Error::other)?;
        Ok(findings)
    }

    fn send(&mut self, size: usize) -> raybox_client::Result<()> {
        let text = format!("{:<1$}", self.sent, size);
        let ticket = self.writer.send(self.to, &text)?;
        self.in_flight.push((self.sent, ticket));
        self.acknowledged.push(None);
        self.sent += 1;
        Ok(())
    }

    /// Waits a moment for the first answer, and takes all that have come.
    fn take_answers(&mut self, findings: &mut Findings) {
        let mut patience = LOOK;
        self.in_flight.retain(|(number, ticket)| match ticket.wait(std::mem::take(&mut patience)) {
            Ok(seq) => {
                self.acknowledged[*number as usize] = Some(seq);
                false
            }
            Err(Error::NoAnswer) => true,
            Err(error) => {
                findings.counts.foreign += 1;
                findings.trouble(|| format!("message {number} was refused: {error}"));
                false
            }
        });
    }

    /// Makes both clients connect again without a backoff.
    fn hurry(&self) {
        for client in [&self.writer, &self.reader] {
            if matches!(client.state(), State::Waiting { .. }) {
                let _ = client.hurry();
            }
        }
    }

    fn has_all(&self) -> bool {
        let held = self.reader.conversation(self.from).ok().flatten().map_or(0, |line| line.held);
        self.in_flight.is_empty() && held >= self.sent
    }

    fn check(&self, findings: &mut Findings) -> raybox_client::Result<()> {
        findings.counts.sent = self.sent;
        // A message may be missing in both stores, but counts as lost only once.
        let mut own = Findings::new(0);
        check_store(&self.writer, self.to, self, &mut own)?;
        check_store(&self.reader, self.from, self, findings)?;
        findings.counts.lost = findings.counts.lost.max(own.counts.lost);
        findings.counts.duplicated = findings.counts.duplicated.max(own.counts.duplicated);
        findings.counts.reordered = findings.counts.reordered.max(own.counts.reordered);
        findings.counts.foreign += own.counts.foreign;
        findings.first_trouble = findings.first_trouble.take().or(own.first_trouble);
        Ok(())
    }
}

/// Checks everything that a client has of a conversation: numbers without a gap, and each message
/// once.
fn check_store(client: &Client, conv: Conv, pair: &Pair, findings: &mut Findings) -> raybox_client::Result<()> {
    let (mut received, mut last) = (Received::default(), 0);
    for message in all_of(client, conv)? {
        let number = match message.content() {
            Content::Text(text) => text.trim_end().parse().ok().filter(|number| *number < pair.sent),
            _ => None,
        };
        let is_next = message.seq == last + 1;
        last = message.seq;
        let Some(number) = number.filter(|_| is_next) else {
            findings.counts.foreign += 1;
            findings.trouble(|| format!("number {last} of {conv} is out of place, or not what was sent"));
            continue;
        };
        findings.counts.note(received.note(number));
        if pair.acknowledged[number as usize].is_some_and(|seq| seq != message.seq) {
            findings.counts.foreign += 1;
            findings.trouble(|| format!("message {number} of {conv} was acknowledged with another number"));
        }
    }
    findings.counts.lost = received.lost(pair.sent);
    Ok(())
}

/// All messages in ascending order. Those that a client knows to have missed are read from the
/// server.
fn all_of(client: &Client, conv: Conv) -> raybox_client::Result<Vec<Message>> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = client.older(conv, before, 1_000)?;
        before = page.messages.first().map(|first| first.seq);
        all.extend(page.messages.into_iter().rev());
        if page.is_start || before.is_none() {
            all.reverse();
            return Ok(all);
        }
    }
}

/// The longest time until the server listens.
const START_WITHIN: Duration = Duration::from_secs(30);

const LOOK: Duration = Duration::from_millis(10);
