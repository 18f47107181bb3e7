//! The workloads at level 2: which users log in, what each sends, and what is reported.

mod books;
mod drive;
mod enter;
mod frames;
mod resume;
mod survive;

use std::io;
use std::thread;
use std::time::Duration;

use self::books::{Books, Conversation};
use self::drive::{Crew, CrewSeat, Found, Orders, Turns, Until};
use self::enter::Seated;
use self::frames::SendTemplate;
pub(crate) use self::resume::{Returning, fill, resume};
pub(crate) use self::survive::{Surviving, survive};
use crate::accounts::Account;
use crate::carrier::Stream;
use crate::context::Context;
use crate::limits::need_descriptors;
use crate::phase::Phase;
use crate::player::Pace;
use crate::tally::{Outcome, Rates, What};
use crate::target::Measured;
use crate::wire::To;

/// The messages of a run: their size and their pace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acked {
    pub(crate) size: usize,
    pub(crate) pace: Pace,
    /// At the end, missing messages are given up when nothing has arrived for this time.
    pub(crate) patience: Duration,
    pub(crate) threads: usize,
}

/// Users who write to others. The senders' numbers of conversations differ by one at most.
pub(crate) fn acked(conversations: usize, senders: usize, acked: Acked, context: &Context) -> io::Result<Outcome> {
    need_descriptors(senders + conversations)?;
    let accounts = context.accounts(senders + conversations)?;
    let (writers, readers) = accounts.split_at(senders);
    // Senders first: a server assigns its connections to its loops in turn.
    let writers_in = enter::all(writers, context)?;
    let readers_in = enter::all(readers, context)?;
    let mut readers_in: Vec<Option<Seated>> = readers_in.into_iter().map(Some).collect();
    let mut crews = crews(acked.threads.min(senders));
    let count = crews.len();
    for (n, (account, writer)) in writers.iter().zip(writers_in).enumerate() {
        let crew = &mut crews[n % count];
        let seat = crew.sit(writer.stream, 0);
        let mut lines = 0..0;
        for number in (n..conversations).step_by(senders) {
            let reader = readers_in[number].take().expect("each conversation has one sender");
            let template = SendTemplate::new(account.id, To::User(readers[number].id), acked.size);
            let templates = vec![template.map_err(io::Error::other)?];
            let head = reader.head_of(&format!("u{}", account.id));
            let seats = vec![seat, crew.sit(reader.stream, 1)];
            let line = crew.books.add(Conversation { seats, templates, head });
            lines = if lines.is_empty() { line } else { lines.start..line.end };
        }
        crew.senders.push(Turns { seat, lines, next: 0 });
    }
    let (found, measured) = run(crews, senders, acked, Until::Acknowledged, context)?;
    let acknowledged = found.iter().map(|one| one.acknowledged).sum();
    let delivered: u64 = found.iter().map(|one| one.findings.measured).sum();
    report(found, &measured, acked.pace, |outcome| {
        outcome.push_rate(What::Acknowledgements, acknowledged, &measured);
        let seconds = measured.elapsed.as_secs_f64();
        outcome.push("delivered", delivered as f64 / seconds, What::Deliveries.per_second());
    })
}

/// Users who write to others with several devices, which all receive the messages.
pub(crate) fn devices(pairs: usize, devices: usize, acked: Acked, context: &Context) -> io::Result<Outcome> {
    need_descriptors(pairs * (devices + 1))?;
    let accounts = context.accounts(pairs * 2)?;
    let mut crews = crews(acked.threads.min(pairs));
    let count = crews.len();
    for (n, pair) in accounts.chunks(2).enumerate() {
        let [from, to] = pair else { break };
        let crew = &mut crews[n % count];
        let (writer, readers) = (enter::all(&pair[..1], context)?, enter::devices(to, devices, context)?);
        let head = readers[0].head_of(&format!("u{}", from.id));
        let seats = writer.into_iter().chain(readers).enumerate();
        let seats: Vec<usize> = seats.map(|(member, one)| crew.sit(one.stream, member)).collect();
        let template = SendTemplate::new(from.id, To::User(to.id), acked.size).map_err(io::Error::other)?;
        let seat = seats[0];
        let lines = crew.books.add(Conversation { seats, templates: vec![template], head });
        crew.senders.push(Turns { seat, lines, next: 0 });
    }
    let (found, measured) = run(crews, pairs, acked, Until::Everywhere, context)?;
    report_deliveries(found, &measured, acked.pace)
}

/// Groups in which some members send and all the others receive.
pub(crate) fn groups(
    groups: usize,
    members: usize,
    senders: usize,
    acked: Acked,
    context: &Context,
) -> io::Result<Outcome> {
    need_descriptors(groups * members)?;
    let accounts = context.accounts(groups * members)?;
    let accounts: Vec<&[Account]> = accounts.chunks(members).collect();
    let mut crews = crews(acked.threads.min(groups));
    let count = crews.len();
    for (n, accounts) in accounts.into_iter().enumerate() {
        let group = enter::create_group(accounts, context)?;
        let seated = enter::all(accounts, context)?;
        let head = seated[0].head_of(&format!("g{group}"));
        let crew = &mut crews[n % count];
        let seated = seated.into_iter().enumerate();
        let seats: Vec<usize> = seated.map(|(member, one)| crew.sit(one.stream, member)).collect();
        let templates =
            accounts[..senders].iter().map(|account| SendTemplate::new(account.id, To::Group(group), acked.size));
        let templates = templates.collect::<Result<_, _>>().map_err(io::Error::other)?;
        let lines = crew.books.add(Conversation { seats: seats.clone(), templates, head });
        let turns = lines.zip(seats).map(|(line, seat)| Turns { seat, lines: line..line + 1, next: 0 });
        crew.senders.extend(turns);
    }
    let (found, measured) = run(crews, groups * senders, acked, Until::Everywhere, context)?;
    report_deliveries(found, &measured, acked.pace)
}

fn report_deliveries(found: Vec<Found>, measured: &Measured, pace: Pace) -> io::Result<Outcome> {
    let acknowledged: u64 = found.iter().map(|one| one.acknowledged).sum();
    let delivered = found.iter().map(|one| one.findings.measured).sum();
    report(found, measured, pace, |outcome| {
        outcome.push_rate(What::Deliveries, delivered, measured);
        let seconds = measured.elapsed.as_secs_f64();
        outcome.push("acknowledged", acknowledged as f64 / seconds, What::Acknowledgements.per_second());
    })
}

fn crews(count: usize) -> Vec<Crew> {
    // The salt tells the ids of this run from those that an earlier run made in the same
    // millisecond.
    let salt = std::process::id() as u16;
    (0..count).map(|_| Crew { seats: Vec::new(), books: Books::new(salt), senders: Vec::new() }).collect()
}

impl Crew {
    /// Adds a connection and returns its index.
    fn sit(&mut self, stream: Stream, member: usize) -> usize {
        self.seats.push(CrewSeat { stream, member });
        self.seats.len() - 1
    }
}

fn run(
    crews: Vec<Crew>,
    senders: usize,
    acked: Acked,
    until: Until,
    context: &Context,
) -> io::Result<(Vec<Found>, Measured)> {
    let (_, pids) = context.server()?;
    let phase = Phase::default();
    thread::scope(|scope| {
        let drivers: Vec<_> = crews
            .into_iter()
            .map(|crew| {
                let pace = match acked.pace {
                    Pace::Rate(all) => Pace::Rate(all * crew.senders.len() as f64 / senders as f64),
                    window => window,
                };
                let (phase, orders) = (&phase, Orders { pace, until, patience: acked.patience });
                scope.spawn(move || drive::drive(crew, orders, phase))
            })
            .collect();
        let measured = context.measure(pids, &phase);
        let found =
            drivers.into_iter().map(|driver| driver.join().map_err(|_| io::Error::other("a thread panicked"))?);
        Ok((found.collect::<io::Result<_>>()?, measured))
    })
}

fn report(found: Vec<Found>, measured: &Measured, pace: Pace, rates: impl FnOnce(&mut Outcome)) -> io::Result<Outcome> {
    let reached = found.iter().filter_map(|one| one.findings.sent_rate).sum();
    let resent: u64 = found.iter().map(|one| one.resent).sum();
    let findings = found.into_iter().map(|one| one.findings).collect();
    let mut outcome = Outcome::of(findings, &["acknowledgement", "delivery"]);
    outcome.slices.end(measured.elapsed);
    rates(&mut outcome);
    if let Pace::Rate(asked) = pace {
        outcome.push_rates(Rates { asked, reached }, measured.elapsed);
    }
    if resent > 0 {
        outcome.push("sent again", resent as f64, What::Messages.name());
    }
    outcome.push_times();
    outcome.push_generator();
    Ok(outcome)
}
