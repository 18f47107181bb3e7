//! The workloads: what is done to a target, and what is found.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::accounts::{self, Account};
use crate::ask::{self, Course, Step};
use crate::progress::Progress;
use crate::relay::Relay;
use crate::rooms::{self, Plan, Room};
use crate::talk::{self, Pace, Phase};
use crate::tally::Outcome;
use crate::target::{Target, Usage};
use crate::wire::{self, Client, Framing};

/// What every workload is told.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) target: Target,
    pub(crate) accounts: Option<PathBuf>,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    pub(crate) progress: Progress,
}

impl Context {
    /// The server's addresses and processes; workloads that ask something cannot ask the relay.
    fn server(&self) -> io::Result<(&[SocketAddr], &[u32])> {
        match &self.target {
            Target::Server { addresses, pids } => Ok((addresses, pids)),
            Target::Relay => Err(io::Error::other("the relay knows pairs and groups only: give --address")),
        }
    }

    fn accounts(&self, count: usize) -> io::Result<Vec<Account>> {
        let (addresses, _) = self.server()?;
        accounts::provide(addresses[0], count, self.accounts.as_deref(), &self.progress)
    }

    /// Lets the measured time pass in other threads; what the target used in it, and how long it was.
    fn measure(&self, pids: &[u32], phase: &Phase) -> io::Result<(Usage, Usage, Duration)> {
        let steps = (self.warm_up + self.measured).as_millis() as usize;
        self.progress.stage("measuring", steps);
        let start = Instant::now();
        let pass = |until: Duration| {
            while start.elapsed() < until {
                thread::sleep(until.saturating_sub(start.elapsed()).min(Duration::from_millis(100)));
                self.progress.reach(start.elapsed().as_millis() as u64);
            }
        };
        pass(self.warm_up);
        // Whatever goes wrong here, the threads must be told to end.
        let before = Usage::of(pids);
        phase.enter(Phase::MEASURED);
        let since = Instant::now();
        pass(self.warm_up + self.measured);
        let elapsed = since.elapsed();
        phase.enter(Phase::LAST);
        let after = Usage::of(pids);
        self.progress.stage("waiting for the rest", 1);
        Ok((before.map_err(io::Error::other)?, after.map_err(io::Error::other)?, elapsed))
    }
}

/// Users who talk in pairs, or in groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Talking {
    pub(crate) plan: Plan,
    pub(crate) pace: Pace,
    pub(crate) threads: usize,
    /// The relay writes each frame by itself.
    pub(crate) relay_splits: bool,
}

pub(crate) fn talk(talking: Talking, context: &Context) -> io::Result<Outcome> {
    let Talking { plan, pace, threads, relay_splits } = talking;
    let relay;
    let (rooms, pids) = match &context.target {
        Target::Server { addresses, pids } => {
            (rooms::on_server(plan, addresses, context.accounts.as_deref(), &context.progress)?, pids.clone())
        }
        Target::Relay => {
            relay = Relay::start(plan.members, relay_splits.then(|| plan.framing.last_byte()))?;
            (rooms::on_relay(plan, relay.address)?, vec![relay.pid()])
        }
    };
    let threads = threads.min(rooms.rooms.len());
    let mut shares: Vec<Vec<Room>> = (0..threads).map(|_| Vec::new()).collect();
    for (n, room) in rooms.rooms.into_iter().enumerate() {
        shares[n % threads].push(room);
    }
    let phase = Phase::default();
    let (measured, talked) = thread::scope(|scope| {
        let talkers: Vec<_> = shares
            .into_iter()
            .map(|rooms| {
                let pace = match pace {
                    Pace::Rate(per_second) => Pace::Rate(per_second * rooms.len() as f64 / plan.rooms as f64),
                    Pace::Window(window) => Pace::Window(window),
                };
                let phase = &phase;
                scope.spawn(move || talk::talk(rooms, pace, plan.framing, phase))
            })
            .collect();
        let measured = context.measure(&pids, &phase);
        let talked =
            talkers.into_iter().map(|talker| talker.join().map_err(|_| io::Error::other("a thread panicked"))?);
        (measured, talked.collect::<io::Result<Vec<_>>>())
    });
    drop(rooms.bystanders);
    let (before, after, elapsed) = measured?;
    let mut outcome = Outcome::new("delivery");
    let mut delivered = 0;
    for one in talked? {
        outcome.counts.add(one.counts);
        delivered += one.measured;
        outcome.times.add(&one.times).map_err(io::Error::other)?;
        if outcome.slices.len() < one.slices.len() {
            outcome.slices.resize(one.slices.len(), 0);
        }
        outcome.slices.iter_mut().zip(&one.slices).for_each(|(sum, more)| *sum += more);
        outcome.first_trouble = outcome.first_trouble.or(one.first_trouble);
    }
    push_rate(&mut outcome, "deliveries", delivered, elapsed, &pids, before, after);
    outcome.push_times();
    Ok(outcome)
}

fn push_rate(
    outcome: &mut Outcome,
    what: &'static str,
    count: u64,
    elapsed: Duration,
    pids: &[u32],
    before: Usage,
    after: Usage,
) {
    outcome.push("rate", count as f64 / elapsed.as_secs_f64(), per_second(what));
    if !pids.is_empty() {
        let cpu = after.cpu - before.cpu;
        outcome.push("per CPU-second", count as f64 / cpu, what);
        outcome.push("CPU for each", cpu * 1e6 / count as f64, "µs");
        outcome.push("CPU used", cpu / elapsed.as_secs_f64() * 100.0, "%");
        outcome.push("memory", after.memory as f64 / 1024.0 / 1024.0, "MiB");
    }
}

fn per_second(what: &'static str) -> &'static str {
    match what {
        "deliveries" => "deliveries/s",
        "logins" => "logins/s",
        "messages" => "messages/s",
        _ => "1/s",
    }
}

/// Users who log in, again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoggingIn {
    pub(crate) connections: usize,
    pub(crate) users: usize,
    /// Each time on a new connection; otherwise a logout makes room.
    pub(crate) reconnects: bool,
    pub(crate) framing: Framing,
    /// Each user once, and not before: for users of whom the server has not verified the password yet.
    pub(crate) once: bool,
}

pub(crate) fn log_in(logging_in: LoggingIn, context: &Context) -> io::Result<Outcome> {
    let LoggingIn { connections, users, reconnects, framing, once } = logging_in;
    let accounts = context.accounts(users.max(connections))?;
    let (addresses, pids) = context.server()?;
    if !once {
        context.progress.stage("verifying each once", accounts.len());
        for (n, account) in accounts.iter().enumerate() {
            let mut client = Client::connect(addresses[n % addresses.len()], framing)?;
            client.ask(&wire::login(account.id, &account.password))?;
            context.progress.step();
        }
    }
    let script = |connection: usize, turn: usize| {
        let n = connection + turn * connections;
        if once && n >= accounts.len() {
            return Vec::new();
        }
        let account = &accounts[n % accounts.len()];
        let login = Step::new(&wire::login(account.id, &account.password), ask::OK, framing).counted();
        if reconnects { vec![login] } else { vec![login, Step::new(&wire::logout(account.id), ask::OK, framing)] }
    };
    let course = if reconnects { Course::Reconnect } else { Course::Repeat };
    let phase = Phase::default();
    if once {
        // From the first to the last of them.
        phase.enter(Phase::MEASURED);
        let before = Usage::of(pids).map_err(io::Error::other)?;
        let since = Instant::now();
        context.progress.stage("logging in for the first time", 1);
        let asked = ask::ask(addresses, connections, course, &phase, script)?;
        let after = Usage::of(pids).map_err(io::Error::other)?;
        return Ok(asked_outcome(asked, since.elapsed(), pids, before, after));
    }
    let (measured, asked) = thread::scope(|scope| {
        let asker = scope.spawn(|| ask::ask(addresses, connections, course, &phase, script));
        let measured = context.measure(pids, &phase);
        (measured, asker.join().map_err(|_| io::Error::other("a thread panicked")))
    });
    let (before, after, elapsed) = measured?;
    Ok(asked_outcome(asked??, elapsed, pids, before, after))
}

fn asked_outcome(asked: ask::Asked, elapsed: Duration, pids: &[u32], before: Usage, after: Usage) -> Outcome {
    let mut outcome = Outcome::new("reply");
    outcome.counts = asked.counts;
    outcome.times = asked.times;
    outcome.slices = asked.slices;
    outcome.first_trouble = asked.first_trouble;
    push_rate(&mut outcome, "logins", asked.measured, elapsed, pids, before, after);
    outcome.push_times();
    outcome
}

/// Many connections within a short time, each of which asks one thing, then logs in, and stays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ramp {
    pub(crate) connections: usize,
    pub(crate) over: Duration,
    pub(crate) users: usize,
    pub(crate) framing: Framing,
}

pub(crate) fn ramp(ramp: Ramp, context: &Context) -> io::Result<Outcome> {
    let Ramp { connections, over, users, framing } = ramp;
    ask::need_descriptors(connections)?;
    let accounts = context.accounts(users)?;
    let (addresses, pids) = context.server()?;
    context.progress.stage("connecting", 1);
    let script = |connection: usize, _: usize| {
        let Account { id, password } = &accounts[connection % accounts.len()];
        vec![
            Step::new(&format!(r#"{{"FROMID":{id},"TOID":{id},"msg":"hello","msgType":100}}"#), ask::NO_SUCH, framing)
                .counted(),
            Step::new(&wire::login(*id, password), ask::OK, framing).counted(),
        ]
    };
    let phase = Phase::default();
    phase.enter(Phase::MEASURED);
    let before = Usage::of(pids).map_err(io::Error::other)?;
    let since = Instant::now();
    let asked = ask::ask(addresses, connections, Course::Ramp(over), &phase, script)?;
    let elapsed = since.elapsed();
    let after = Usage::of(pids).map_err(io::Error::other)?;
    let mut outcome = Outcome::new("reply since it was due");
    outcome.counts = asked.counts;
    outcome.times = asked.times;
    outcome.slices = asked.slices;
    outcome.first_trouble = asked.first_trouble;
    outcome.push("replies", asked.measured as f64, "");
    let counts = outcome.counts;
    outcome.push("errors", (counts.lost + counts.foreign + counts.closed) as f64, "");
    outcome.push("time", elapsed.as_secs_f64(), "s");
    if !pids.is_empty() {
        outcome.push("CPU for each connection", (after.cpu - before.cpu) * 1e6 / connections as f64, "µs");
    }
    outcome.push_times();
    Ok(outcome)
}

/// Users who are logged in and say nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idling {
    pub(crate) connections: usize,
    pub(crate) users: usize,
    pub(crate) framing: Framing,
}

pub(crate) fn idle(idling: Idling, context: &Context) -> io::Result<Outcome> {
    let Idling { connections, users, framing } = idling;
    ask::need_descriptors(connections)?;
    let accounts = context.accounts(users)?;
    let (addresses, pids) = context.server()?;
    let open = |n: usize| -> io::Result<TcpStream> {
        let account = &accounts[n % accounts.len()];
        let mut client = Client::connect(addresses[n % addresses.len()], framing)?;
        client.ask(&wire::login(account.id, &account.password))?;
        context.progress.step();
        client.into_stream()
    };
    // What the server makes once is none of the connections'.
    context.progress.stage("one round before", accounts.len());
    for n in 0..accounts.len() {
        open(n)?;
    }
    thread::sleep(context.warm_up);
    let before = Usage::of(pids).map_err(io::Error::other)?;
    context.progress.stage("connecting", connections);
    let held = (0..connections).map(open).collect::<io::Result<Vec<_>>>()?;
    let connected = Usage::of(pids).map_err(io::Error::other)?;
    context.progress.stage("waiting", 1);
    thread::sleep(context.measured);
    let after = Usage::of(pids).map_err(io::Error::other)?;
    let mut outcome = Outcome::new("reply");
    outcome.counts.sent = connections as u64;
    for stream in &held {
        stream.set_nonblocking(true)?;
        match stream.peek(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => outcome.counts.delivered += 1,
            Ok(0) | Err(_) => outcome.counts.closed += 1,
            Ok(_) => outcome.counts.foreign += 1,
        }
    }
    outcome.push("connections", connections as f64, "");
    if !pids.is_empty() {
        let grown = connected.memory.saturating_sub(before.memory);
        outcome.push("memory for each", grown as f64 / connections as f64, "bytes");
        outcome.push("CPU while idle", (after.cpu - connected.cpu) / context.measured.as_secs_f64() * 100.0, "%");
    }
    Ok(outcome)
}

/// Users who write to others who are away, and these come back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WritingToAbsent {
    pub(crate) senders: usize,
    /// To each sender one.
    pub(crate) messages: usize,
    pub(crate) size: usize,
    pub(crate) framing: Framing,
}

pub(crate) fn offline(workload: WritingToAbsent, context: &Context) -> io::Result<Outcome> {
    use crate::tally::{Received, SLICE};
    use crate::wire::{Template, To};

    let WritingToAbsent { senders, messages, size, framing } = workload;
    let accounts = context.accounts(senders * 2)?;
    let (addresses, pids) = context.server()?;
    let (writers, absent) = accounts.split_at(senders);
    let templates = writers.iter().zip(absent).enumerate().map(|(n, (writer, absent))| {
        Template::new(writer.id, To::User(absent.id), n, size, framing).map_err(io::Error::other)
    });
    let templates = templates.collect::<io::Result<Vec<_>>>()?;
    let mut clients = Vec::new();
    for (n, account) in absent.iter().enumerate() {
        // What an earlier run left must not be counted.
        drain(addresses[n % addresses.len()], account, framing, |_| Ok(()))?;
    }
    for (n, account) in writers.iter().enumerate() {
        let mut client = Client::connect(addresses[n % addresses.len()], framing)?;
        client.ask(&wire::login(account.id, &account.password))?;
        clients.push(client);
    }
    context.progress.stage("writing", senders);
    let before = Usage::of(pids).map_err(io::Error::other)?;
    let start = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .zip(&templates)
            .zip(writers)
            .map(|((client, template), writer)| {
                scope.spawn(move || -> io::Result<()> {
                    let mut frames = Vec::with_capacity(64 * 1024 + size);
                    for number in 0..messages as u64 {
                        template.write(number, &mut frames);
                        if frames.len() >= 64 * 1024 {
                            client.send_raw(&frames)?;
                            frames.clear();
                        }
                    }
                    client.send_raw(&frames)?;
                    // The answer means that all of it is stored.
                    client.ask(&wire::barrier(writer.id))?;
                    context.progress.step();
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| io::Error::other("a thread panicked"))?)
    })?;
    let elapsed = start.elapsed();
    let after = Usage::of(pids).map_err(io::Error::other)?;

    let mut outcome = Outcome::new("fetch");
    outcome.counts.sent = (senders * messages) as u64;
    context.progress.stage("fetching", senders);
    let fetching = Instant::now();
    for (n, (account, template)) in absent.iter().zip(&templates).enumerate() {
        let mut received = Received::default();
        let start = Instant::now();
        drain(addresses[n % addresses.len()], account, framing, |texts| {
            outcome.times.saturating_record(start.elapsed().as_nanos() as u64);
            for text in texts {
                let mut frame = text.into_bytes();
                if framing == Framing::Lines {
                    frame.push(b'\n');
                }
                match template.number_of(&frame).filter(|number| *number < messages as u64) {
                    Some(number) => outcome.counts.note(received.note(number)),
                    None => outcome.counts.foreign += 1,
                }
            }
            let slice = (fetching.elapsed().as_nanos() / SLICE.as_nanos()) as usize;
            outcome.slices.resize(slice + 1, 0);
            outcome.slices[slice] += messages as u64;
            Ok(())
        })?;
        outcome.counts.lost += received.lost(messages as u64);
        context.progress.step();
    }
    push_rate(&mut outcome, "messages", (senders * messages) as u64, elapsed, pids, before, after);
    outcome.push("fetched", (senders * messages) as f64 / fetching.elapsed().as_secs_f64(), "messages/s");
    outcome.push_times();
    Ok(outcome)
}

/// Logs in, fetches until nothing is left, and leaves.
fn drain(
    address: SocketAddr,
    account: &Account,
    framing: Framing,
    mut take: impl FnMut(Vec<String>) -> io::Result<()>,
) -> io::Result<()> {
    let mut client = Client::connect(address, framing)?;
    client.ask(&wire::login(account.id, &account.password))?;
    loop {
        let mut reply = client.ask(&wire::fetch(account.id))?;
        let texts: Vec<String> = serde_json::from_value(reply["msgs"].take()).map_err(io::Error::other)?;
        if texts.is_empty() {
            // The logout waits for what the fetch deletes.
            client.ask(&wire::logout(account.id))?;
            return Ok(());
        }
        take(texts)?;
    }
}
