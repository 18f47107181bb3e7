//! The workloads: what each does to a target, and what it reports.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::accounts::{self, Account};
use crate::ask::{self, Course, Inquiry, PATIENCE, Step};
use crate::carrier::Stream;
use crate::context::Context;
use crate::level2;
use crate::limits::need_descriptors;
use crate::phase::Phase;
use crate::player::Pace;
use crate::progress::Progress;
use crate::relay::Relay;
use crate::rooms::{self, Plan, Room};
use crate::talk;
use crate::tally::{Outcome, Rates, What};
use crate::target::{Meter, Target, Usage};
use crate::wire::{self, Framing, need_lines};

/// Users who talk in pairs or in groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Talking {
    pub(crate) plan: Plan,
    pub(crate) pace: Pace,
    /// At the end, missing messages are given up when nothing has arrived for this time.
    pub(crate) patience: Duration,
    pub(crate) threads: usize,
    /// Whether the relay writes each frame in a write of its own.
    pub(crate) relay_splits: bool,
}

pub(crate) fn converse(talking: Talking, context: &Context) -> io::Result<Outcome> {
    let Talking { plan, pace, patience, threads, relay_splits } = talking;
    need_descriptors(plan.rooms * plan.members + plan.bystanders)?;
    let relay;
    let (mut rooms, pids) = match &context.target {
        Target::Server { addresses, pids } => {
            (rooms::on_server(plan, addresses, context.accounts.as_deref(), &context.progress)?, pids.clone())
        }
        Target::Relay(carrier) => {
            relay = Relay::start(plan.members, relay_splits.then(|| plan.framing.last_byte()), *carrier)?;
            (rooms::on_relay(plan, relay.address)?, vec![relay.pid()])
        }
    };
    let threads = threads.min(rooms.rooms.len());
    let mut shares: Vec<Vec<Room>> = (0..threads).map(|_| Vec::new()).collect();
    for (n, room) in rooms.rooms.into_iter().enumerate() {
        shares[n % threads].push(room);
    }
    let phase = Phase::default();
    let (measured, findings) = thread::scope(|scope| {
        let talkers: Vec<_> = shares
            .into_iter()
            .map(|rooms| {
                let pace = match pace {
                    Pace::Rate(per_second) => Pace::Rate(per_second * rooms.len() as f64 / plan.rooms as f64),
                    Pace::Window(window) => Pace::Window(window),
                };
                let phase = &phase;
                scope.spawn(move || talk::talk(rooms, pace, patience, plan.framing, phase))
            })
            .collect();
        let measured = context.measure(&pids, &phase);
        let findings =
            talkers.into_iter().map(|talker| talker.join().map_err(|_| io::Error::other("a thread panicked"))?);
        (measured, findings.collect::<io::Result<Vec<_>>>())
    });
    let findings = findings?;
    let delivered = findings.iter().map(|one| one.measured).sum();
    let reached = findings.iter().filter_map(|one| one.sent_rate).sum();
    let mut outcome = Outcome::of(findings, &["delivery"]);
    check_silence(&mut rooms.bystanders, &mut outcome)?;
    outcome.slices.end(measured.elapsed);
    outcome.push_rate(What::Deliveries, delivered, &measured);
    if let Pace::Rate(asked) = pace {
        outcome.push_rates(Rates { asked, reached }, measured.elapsed);
    }
    outcome.push_times();
    outcome.push_generator();
    Ok(outcome)
}

/// Checks that connections to which no user wrote are open and have received nothing. Counts those
/// that fail, and returns the number of the others.
fn check_silence(streams: &mut [Stream], outcome: &mut Outcome) -> io::Result<u64> {
    let mut silent = 0;
    for stream in streams {
        stream.socket().set_nonblocking(true)?;
        match stream.look() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => silent += 1,
            Ok(1..) => {
                outcome.counts.foreign += 1;
                outcome.trouble(|| "a user whom nobody wrote to got something".to_owned());
            }
            Ok(0) | Err(_) => {
                outcome.counts.closed += 1;
                outcome.trouble(|| "the server closed the connection of a user who said nothing".to_owned());
            }
        }
    }
    Ok(silent)
}

/// Users who log in again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoggingIn {
    pub(crate) connections: usize,
    pub(crate) users: usize,
    /// Each login uses a new connection. Otherwise a logout makes the connection free for the next
    /// login.
    pub(crate) reconnects: bool,
    pub(crate) framing: Framing,
    /// Each user logs in only once, so that the server has never verified its password before.
    pub(crate) once: bool,
}

pub(crate) fn log_in(logging_in: LoggingIn, context: &Context) -> io::Result<Outcome> {
    let LoggingIn { connections, users, reconnects, framing, once } = logging_in;
    need_descriptors(connections)?;
    let accounts = context.accounts(users)?;
    let (addresses, pids) = context.server()?;
    need_lines(addresses, framing)?;
    if !once {
        context.progress.stage("verifying each once", accounts.len());
        for (n, account) in accounts.iter().enumerate() {
            accounts::log_in(addresses[n % addresses.len()], account, framing)?;
            context.progress.step();
        }
    }
    let script = |connection: usize, turn: usize| {
        let n = connection + turn * connections;
        if once && n >= accounts.len() {
            return Vec::new();
        }
        let account = &accounts[n % accounts.len()];
        let login = Step::new(&wire::login(account.id, &account.password), ask::OK, framing).counted(0);
        if reconnects { vec![login] } else { vec![login, Step::new(&wire::logout(account.id), ask::OK, framing)] }
    };
    let course = if reconnects { Course::Reconnect } else { Course::Repeat };
    let inquiry = Inquiry { addresses, connections, course, kinds: 1, patience: PATIENCE };
    let phase = Phase::default();
    let (findings, measured) = if once {
        // The first logins are measured from the first one to the last.
        context.progress.stage("logging in for the first time", connections);
        let meter = Meter::start(pids, phase.begin_measured());
        let (findings, last) = ask::ask(inquiry, &phase, &context.progress, script)?;
        (findings, meter.stop(last))
    } else {
        thread::scope(|scope| {
            let hidden = Progress::new(true);
            let phase = &phase;
            let asker = scope.spawn(move || ask::ask(inquiry, phase, &hidden, script));
            let measured = context.measure(pids, phase);
            let asked = asker.join().map_err(|_| io::Error::other("a thread panicked"))?;
            asked.map(|(findings, _)| (findings, measured))
        })?
    };
    let logins = findings.measured;
    let mut outcome = Outcome::of(vec![findings], &["reply"]);
    outcome.slices.end(measured.elapsed);
    outcome.push_rate(What::Logins, logins, &measured);
    outcome.push_times();
    outcome.push_generator();
    Ok(outcome)
}

/// Many connections within a short time: each sends one request, then logs in and stays open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ramp {
    pub(crate) connections: usize,
    pub(crate) over: Duration,
    pub(crate) users: usize,
    pub(crate) framing: Framing,
}

pub(crate) fn ramp(ramp: Ramp, context: &Context) -> io::Result<Outcome> {
    const FIRST: usize = 0;
    const LOGIN: usize = 1;
    let Ramp { connections, over, users, framing } = ramp;
    need_descriptors(connections)?;
    let accounts = context.accounts(users)?;
    let (addresses, pids) = context.server()?;
    need_lines(addresses, framing)?;
    let script = |connection: usize, _: usize| {
        let Account { id, password } = &accounts[connection % accounts.len()];
        let hello = format!(r#"{{"FROMID":{id},"TOID":{id},"msg":"hello","msgType":100}}"#);
        vec![
            Step::new(&hello, ask::NO_SUCH, framing).counted(FIRST),
            Step::new(&wire::login(*id, password), ask::OK, framing).counted(LOGIN),
        ]
    };
    let phase = Phase::default();
    context.progress.stage("connecting", connections);
    let meter = Meter::start(pids, phase.begin_measured());
    let inquiry = Inquiry { addresses, connections, course: Course::Ramp(over), kinds: 2, patience: PATIENCE };
    let (findings, last) = ask::ask(inquiry, &phase, &context.progress, script)?;
    let measured = meter.stop(last);
    let replies = findings.measured;
    let mut outcome = Outcome::of(vec![findings], &["404 since it was due", "login after it"]);
    outcome.slices.end(measured.elapsed);
    outcome.push("replies", replies as f64, "");
    let counts = outcome.counts;
    outcome.push("errors", (counts.lost + counts.foreign + counts.closed) as f64, "");
    outcome.push("time", measured.elapsed.as_secs_f64(), "s");
    if let Some(used) = outcome.used(&measured) {
        outcome.push("CPU for each connection", used.cpu * 1e6 / connections as f64, "µs");
    }
    outcome.push_times();
    outcome.push_generator();
    Ok(outcome)
}

/// Users who are logged in and send nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idling {
    pub(crate) connections: usize,
    pub(crate) users: usize,
    pub(crate) framing: Framing,
    /// The number of conversations of each user at level 2; `None` at level 1.
    pub(crate) conversations: Option<usize>,
}

pub(crate) fn idle(idling: Idling, context: &Context) -> io::Result<Outcome> {
    let Idling { connections, users, framing, conversations } = idling;
    need_descriptors(connections)?;
    if conversations.is_some() && users < connections {
        return Err(io::Error::other(
            "at level 2 a second connection of a device ends the first: give --users as many",
        ));
    }
    let accounts = context.accounts(users)?;
    let (addresses, pids) = context.server()?;
    let devices = conversations.map(|conversations| level2::fill(&accounts, conversations, context)).transpose()?;
    let open = |n: usize| -> io::Result<Stream> {
        let (address, n) = (addresses[n % addresses.len()], n % accounts.len());
        let client = match &devices {
            Some(devices) => devices.come_back(address, n)?,
            None => accounts::log_in(address, &accounts[n], framing)?,
        };
        context.progress.step();
        client.into_stream()
    };
    // Memory that the server allocates only once must not count as a cost of connections.
    context.progress.stage("one round before", accounts.len());
    for n in 0..accounts.len() {
        open(n)?;
    }
    context.pass("warming up", context.warm_up);
    let before = Usage::of(pids);
    context.progress.stage("connecting", connections);
    let mut held = (0..connections).map(open).collect::<io::Result<Vec<_>>>()?;
    let connected = Usage::of(pids);
    let meter = Meter::start(pids, Instant::now());
    context.pass("waiting", context.measured);
    let measured = meter.stop(Instant::now());
    let mut outcome = Outcome::default();
    outcome.counts.sent = connections as u64;
    outcome.counts.delivered = check_silence(&mut held, &mut outcome)?;
    outcome.push("connections", connections as f64, "");
    if let Some(used) = outcome.used(&measured)
        && let (Ok(before), Ok(connected)) = (before, connected)
    {
        let grown = connected.own.saturating_sub(before.own);
        if grown > 0 {
            outcome.push("own memory for each", grown as f64 / connections as f64, "bytes");
        } else {
            outcome.warnings.push("the server's memory has not grown: it reuses what it had, start it anew".to_owned());
        }
        outcome.push("CPU while idle", used.cpu / measured.elapsed.as_secs_f64() * 100.0, "%");
    }
    Ok(outcome)
}
