//! raybench measures chat servers, and checks every byte of the replies: a throughput counts only
//! if nothing is lost.
//!
//! `raybench --help` names the workloads; `docs/performance.md` explains their output.

mod accounts;
mod ask;
mod carrier;
mod check;
mod compare;
mod conduit;
mod context;
mod environment;
mod interrupt;
mod level2;
mod limits;
mod offline;
mod options;
mod page;
mod phase;
mod player;
mod progress;
mod relay;
mod report;
mod rooms;
mod talk;
mod tally;
mod target;
mod tls;
mod websocket;
mod wire;
mod workload;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};

use crate::check::check;
use crate::context::Context;
use crate::environment::Environment;
use crate::level2::{Acked, Surviving};
use crate::offline::WritingToAbsent;
use crate::options::{Common, Mode, Options, PairsOptions, TalkOptions, Workload, command_line, is_of_time, settings};
use crate::player::Pace;
use crate::progress::Progress;
use crate::report::{About, Run};
use crate::rooms::Plan;
use crate::tally::Outcome;
use crate::target::Target;
use crate::wire::Framing;
use crate::workload::{Idling, LoggingIn, Ramp, Talking};

impl Workload {
    fn name(&self) -> &'static str {
        match self {
            Workload::Pairs(_) => "pairs",
            Workload::Cross(_) => "cross",
            Workload::Group { .. } => "group",
            Workload::Acked { .. } => "acked",
            Workload::Devices { .. } => "devices",
            Workload::Resume { .. } => "resume",
            Workload::Survive { .. } => "survive",
            Workload::Idle { .. } => "idle",
            Workload::Login { .. } => "login",
            Workload::Offline { .. } => "offline",
            Workload::Ramp { .. } => "ramp",
        }
    }

    /// One round against the target of the context.
    fn run(&self, context: &Context) -> io::Result<Outcome> {
        let outcome = self.start(context);
        context.progress.clear();
        outcome.map(|mut outcome| {
            outcome.is_interrupted = interrupt::is_requested();
            outcome.warnings.extend(context.target.unmeasured());
            outcome
        })
    }

    fn start(&self, context: &Context) -> io::Result<Outcome> {
        match self {
            Workload::Pairs(pairs) | Workload::Cross(pairs) => workload::converse(pairs.talking(), context),
            Workload::Group { members, groups, senders, level, talk } => {
                talk.in_groups(*groups as usize, usize::from(*members), *senders as usize, *level, context)
            }
            Workload::Acked { conversations, senders, talk } => {
                let (conversations, senders) = (*conversations as usize, *senders as usize);
                level2::acked(conversations, senders, talk.acked(), context)
            }
            Workload::Devices { pairs, devices, talk } => {
                level2::devices(*pairs as usize, usize::from(*devices), talk.acked(), context)
            }
            Workload::Resume { users, conversations, grown, missed, connections } => {
                let returning = level2::Returning {
                    users: *users as usize,
                    conversations: usize::from(*conversations),
                    grown: usize::from(*grown),
                    missed: usize::from(*missed),
                    connections: usize::from(*connections),
                };
                level2::resume(returning, context)
            }
            Workload::Survive { pairs, window, size, kills, patience, start } => {
                let (pairs, window, kills) = (*pairs as usize, *window as usize, *kills);
                let surviving =
                    Surviving { pairs, window, size: *size, kills, start: start.clone(), patience: *patience };
                level2::survive(&surviving, context)
            }
            Workload::Idle { connections, users, level, conversations, framing } => {
                let (connections, users) = (*connections as usize, *users as usize);
                let conversations = (*level == 2).then_some(usize::from(*conversations));
                let idling = Idling { connections, users, framing: framing.framing(), conversations };
                workload::idle(idling, context)
            }
            Workload::Login { connections, users, reconnect, first, framing } => {
                let logging_in = LoggingIn {
                    connections: *connections as usize,
                    users: *users as usize,
                    reconnects: *reconnect,
                    framing: framing.framing(),
                    once: *first,
                };
                workload::log_in(logging_in, context)
            }
            Workload::Offline { senders, messages, size, framing } => {
                let (senders, messages, framing) = (*senders as usize, *messages as usize, framing.framing());
                offline::offline(WritingToAbsent { senders, messages, size: *size, framing }, context)
            }
            Workload::Ramp { connections, over, users, framing } => {
                let ramp = Ramp {
                    connections: *connections as usize,
                    over: *over,
                    users: *users as usize,
                    framing: framing.framing(),
                };
                workload::ramp(ramp, context)
            }
        }
    }
}

impl PairsOptions {
    fn talking(&self) -> Talking {
        self.talk.talking(self.pairs as usize, 2, 1, self.bystanders as usize)
    }
}

impl TalkOptions {
    fn in_groups(
        &self,
        groups: usize,
        members: usize,
        senders: usize,
        level: u8,
        context: &Context,
    ) -> io::Result<Outcome> {
        match level {
            1 => workload::converse(self.talking(groups, members, senders, 0), context),
            _ => level2::groups(groups, members, senders, self.acked(), context),
        }
    }

    /// The settings for level 2.
    fn acked(&self) -> Acked {
        let TalkOptions { size, patience, .. } = *self;
        let pace = self.rate.map_or(Pace::Window(self.window as usize), Pace::Rate);
        Acked { size, pace, patience, threads: self.threads as usize }
    }

    fn talking(&self, rooms: usize, members: usize, senders: usize, bystanders: usize) -> Talking {
        let framing = self.framing.framing();
        Talking {
            plan: Plan { rooms, members, senders, size: self.size, framing, bystanders },
            pace: self.rate.map_or(Pace::Window(self.window as usize), Pace::Rate),
            patience: self.patience,
            threads: self.threads as usize,
            relay_splits: framing == Framing::Bare,
        }
    }
}

fn main() -> ExitCode {
    let matches = Options::command().get_matches();
    let options = Options::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Err(text) = check(&options, &matches) {
        Options::command().error(ErrorKind::ArgumentConflict, text).exit();
    }
    let end = match run(&options, settings(&Options::command(), &matches)) {
        Ok(end) => end,
        Err(error) => {
            let _ = writeln!(io::stderr(), "raybench: {error}");
            End::Failed
        }
    };
    match end {
        _ if interrupt::is_requested() => ExitCode::from(interrupt::EXIT_CODE),
        End::Complete => ExitCode::SUCCESS,
        End::Failed => ExitCode::FAILURE,
        End::Incomplete => ExitCode::from(3),
    }
}

enum End {
    Complete,
    Incomplete,
    /// The run failed; its partial result was printed.
    Failed,
}

fn run(options: &Options, settings: Vec<(String, String)>) -> io::Result<End> {
    let common = &options.common;
    let workload = match &options.mode {
        Mode::Relay { listen, room, split_at, tls } => {
            let settings =
                relay::Settings { listen: *listen, room: usize::from(*room), split_at: *split_at, tls: *tls };
            return relay::run(settings).map(|()| End::Complete);
        }
        Mode::Workload(workload) | Mode::Compare { workload, .. } => workload,
    };
    for path in common.outputs() {
        check_writable(path)?;
    }
    interrupt::watch()?;
    let about = About {
        workload: workload.name(),
        command: command_line(std::env::args()),
        settings: settings.into_iter().filter(|(name, _)| workload.is_timed() || !is_of_time(name)).collect(),
        environment: Environment::here(),
    };
    let (runs, error) = match &options.mode {
        Mode::Compare { a, b, rounds, .. } => {
            let contexts = [a, b].map(|target| common.context(target.clone()));
            contexts.iter().try_for_each(Context::check)?;
            compare::compare(contexts, *rounds, |context| workload.run(context))
        }
        Mode::Workload(_) | Mode::Relay { .. } => {
            let context = common.context(common.target());
            context.check()?;
            let outcome = workload.run(&context)?;
            (vec![Run { name: context.target.to_string(), rounds: vec![outcome] }], None)
        }
    };
    if !runs.is_empty() {
        print(common, &about, &runs)?;
    }
    if let Some(error) = error {
        return Err(error);
    }
    Ok(if runs.iter().all(Run::is_complete) { End::Complete } else { End::Incomplete })
}

/// Writes the result to all its destinations, even if one of them fails. Returns the first error.
fn print(common: &Common, about: &About, runs: &[Run]) -> io::Result<()> {
    let text = if let [run] = runs { report::text(run) } else { compare::text(runs) };
    let json = format!("{}\n", report::json(about, runs));
    let told = match common.json.as_deref() {
        Some(path) if path == Path::new("-") => {
            let _ = io::stderr().write_all(text.as_bytes());
            say(&json)
        }
        Some(path) => {
            let said = say(&text);
            write(path, &json).and(said)
        }
        None => say(&text),
    };
    let page = common.report.as_ref().map_or(Ok(()), |path| write(path, &page::page(about, runs)?));
    told.and(page)
}

fn say(text: &str) -> io::Result<()> {
    let mut output = io::stdout();
    let said = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    said.map_err(|error| io::Error::new(error.kind(), format!("standard output: {error}")))
}

/// Checks that the result can be written to this file, before the measurement.
fn check_writable(path: &Path) -> io::Result<()> {
    let was_there = path.exists();
    OpenOptions::new().append(true).create(true).open(path).map_err(|error| about_file(path, &error))?;
    if was_there { Ok(()) } else { fs::remove_file(path) }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text).map_err(|error| about_file(path, &error))
}

fn about_file(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

impl Common {
    fn context(&self, target: Target) -> Context {
        Context {
            target,
            accounts: self.accounts.clone(),
            warm_up: self.warm_up,
            measured: self.seconds,
            progress: Progress::new(self.quiet),
        }
    }

    /// The files that the results are written to.
    fn outputs(&self) -> impl Iterator<Item = &Path> {
        let paths = [self.json.as_deref(), self.report.as_deref()].into_iter().flatten();
        paths.filter(|path| *path != Path::new("-"))
    }
}
