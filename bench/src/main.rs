//! raybench measures chat servers, and checks every byte that comes back: there is no throughput without completeness.
//!
//! `raybench --help` names the workloads; `docs/performance.md` says how to read what they print.

mod accounts;
mod ask;
mod compare;
mod page;
mod progress;
mod relay;
mod report;
mod rooms;
mod talk;
mod tally;
mod target;
mod wire;
mod workload;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::progress::Progress;
use crate::report::Run;
use crate::rooms::Plan;
use crate::talk::Pace;
use crate::tally::Outcome;
use crate::target::Target;
use crate::wire::Framing;
use crate::workload::{Context, Idling, LoggingIn, Ramp, Talking, WritingToAbsent};

#[derive(Parser, Debug)]
#[command(version, about = "Measures chat servers, and checks that they lose nothing while they are fast.")]
struct Options {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Args, Clone, Debug)]
struct Common {
    /// Where the nodes are: HOST:PORT, with commas between them; connections are spread over them
    #[arg(long, global = true, value_delimiter = ',', value_parser = target::address, default_value = "127.0.0.1:6000")]
    address: Vec<SocketAddr>,
    /// The processes of the server, if it runs on this machine: their processor time and memory are measured
    #[arg(long, global = true, value_delimiter = ',')]
    pid: Vec<u32>,
    /// Measure the relay instead of a server: a program of system calls alone, which is started for the run
    #[arg(long, global = true)]
    relay: bool,
    /// Seconds that are measured
    #[arg(long, global = true, default_value = "5", value_parser = seconds)]
    seconds: Duration,
    /// Seconds before that which are not
    #[arg(long, global = true, default_value = "1", value_parser = seconds)]
    warm_up: Duration,
    /// Keep the registered users in this file, and take them from it the next time
    #[arg(long, global = true)]
    accounts: Option<PathBuf>,
    /// Write the result as JSON to this file; - is standard output
    #[arg(long, global = true)]
    json: Option<PathBuf>,
    /// Write the result as an HTML page with plots to this file
    #[arg(long, global = true)]
    report: Option<PathBuf>,
    /// Show no progress
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Subcommand, Debug)]
enum Mode {
    #[command(flatten)]
    Workload(Workload),
    /// Run a workload against two targets, in turns, and show the ratios
    Compare {
        /// The yardstick: relay, or ADDRESS[,ADDRESS...][@PID[,PID...]]
        #[arg(short)]
        a: Target,
        /// What is compared with it, written likewise
        #[arg(short)]
        b: Target,
        /// How often each is measured
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        #[command(subcommand)]
        workload: Workload,
    },
    /// Be the relay, until standard input ends
    Relay {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:6100", value_parser = target::address)]
        listen: SocketAddr,
        /// How many consecutive connections hear each other
        #[arg(long, default_value = "2", value_parser = clap::value_parser!(u16).range(2..))]
        room: u16,
        /// Write each frame by itself; frames end with this byte (10 is a newline, 125 a closing brace)
        #[arg(long)]
        split_at: Option<u8>,
    },
}

#[derive(Subcommand, Clone, Debug)]
enum Workload {
    /// Users who write to each other in pairs: one sends, the other receives
    Pairs(Pairs),
    /// The same through several nodes: the two of a pair are on different ones
    Cross(Pairs),
    /// Groups, in which one member sends and all the others receive
    Group {
        /// Members of each group
        #[arg(long, default_value = "100", value_parser = clap::value_parser!(u16).range(3..=10_000))]
        members: u16,
        /// How many groups
        #[arg(long, default_value = "1", value_parser = count())]
        groups: u32,
        /// How many members of each send
        #[arg(long, default_value = "1", value_parser = count())]
        senders: u32,
        #[command(flatten)]
        talk: Talk,
    },
    /// Users who are logged in and say nothing: what each costs
    Idle {
        /// How many connections
        #[arg(long, default_value = "15000", value_parser = count())]
        connections: u32,
        /// How many users they are
        #[arg(long, default_value = "1000", value_parser = count())]
        users: u32,
        #[command(flatten)]
        framing: Bare,
    },
    /// Users who log in again and again
    Login {
        /// How many log in at once
        #[arg(long, default_value = "50", value_parser = count())]
        connections: u32,
        /// How many users they are
        #[arg(long, default_value = "1000", value_parser = count())]
        users: u32,
        /// On a new connection each time
        #[arg(long)]
        reconnect: bool,
        /// Each user once, and not before the time is taken: after a restart the server must hash each password
        #[arg(long)]
        first: bool,
        #[command(flatten)]
        framing: Bare,
    },
    /// Users who write to others who are away and come back
    Offline {
        /// How many write, each to another who is away
        #[arg(long, default_value = "10", value_parser = count())]
        senders: u32,
        /// How many messages each writes
        #[arg(long, default_value = "10000", value_parser = count())]
        messages: u32,
        /// Bytes of each frame
        #[arg(long, default_value_t = 100)]
        size: usize,
        #[command(flatten)]
        framing: Bare,
    },
    /// Many connections within a short time: each asks what the reference's author asked, then logs in
    Ramp {
        /// How many connections
        #[arg(long, default_value = "19000", value_parser = count())]
        connections: u32,
        /// Within so many seconds
        #[arg(long, default_value = "10", value_parser = seconds)]
        over: Duration,
        /// How many users log in on them
        #[arg(long, default_value = "1000", value_parser = count())]
        users: u32,
        #[command(flatten)]
        framing: Bare,
    },
}

#[derive(Args, Clone, Debug)]
struct Pairs {
    /// How many pairs
    #[arg(long, default_value = "50", value_parser = count())]
    pairs: u32,
    /// Users who are logged in beside them and say nothing
    #[arg(long, default_value_t = 0)]
    bystanders: usize,
    #[command(flatten)]
    talk: Talk,
}

#[derive(Args, Clone, Debug)]
struct Talk {
    /// How many messages of each sender are on their way at once
    #[arg(long, default_value = "1", value_parser = count(), conflicts_with = "rate")]
    window: u32,
    /// Send so many each second, all senders together, whatever comes back; times count from when a message was due
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Bytes of each frame, its newline included
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Threads of this program, which share the pairs or groups
    #[arg(long, default_value = "1", value_parser = count())]
    threads: u32,
    #[command(flatten)]
    framing: Bare,
}

#[derive(Args, Clone, Copy, Debug)]
struct Bare {
    /// Frames without newlines, as the Qt client sends them; the relay then writes each by itself, as a server must
    #[arg(long)]
    bare: bool,
}

impl Bare {
    fn framing(self) -> Framing {
        if self.bare { Framing::Bare } else { Framing::Lines }
    }
}

fn count() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1_000_000)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no number of seconds from 0 to 86400");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    if (0.0..=86_400.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(wrong()) }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.001..=1e7).contains(rate));
    rate.ok_or_else(|| format!("`{text}` is no number of messages a second from 0.001 to 10000000"))
}

impl Workload {
    fn name(&self) -> &'static str {
        match self {
            Workload::Pairs(_) => "pairs",
            Workload::Cross(_) => "cross",
            Workload::Group { .. } => "group",
            Workload::Idle { .. } => "idle",
            Workload::Login { .. } => "login",
            Workload::Offline { .. } => "offline",
            Workload::Ramp { .. } => "ramp",
        }
    }

    fn run(&self, context: &Context) -> io::Result<Outcome> {
        match self {
            Workload::Pairs(pairs) => workload::talk(pairs.talking(), context),
            Workload::Cross(pairs) => {
                if !matches!(&context.target, Target::Server { addresses, .. } if addresses.len() > 1) {
                    return Err(io::Error::other("give --address the addresses of two nodes or more"));
                }
                workload::talk(pairs.talking(), context)
            }
            Workload::Group { members, groups, senders, talk } => {
                let senders = (*senders as usize).min(usize::from(*members));
                workload::talk(talk.talking(*groups as usize, usize::from(*members), senders, 0), context)
            }
            Workload::Idle { connections, users, framing } => {
                let (connections, users) = (*connections as usize, *users as usize);
                workload::idle(Idling { connections, users, framing: framing.framing() }, context)
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
                let (senders, messages) = (*senders as usize, *messages as usize);
                workload::offline(
                    WritingToAbsent { senders, messages, size: *size, framing: framing.framing() },
                    context,
                )
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

impl Pairs {
    fn talking(&self) -> Talking {
        self.talk.talking(self.pairs as usize, 2, 1, self.bystanders)
    }
}

impl Talk {
    fn talking(&self, rooms: usize, members: usize, senders: usize, bystanders: usize) -> Talking {
        let framing = self.framing.framing();
        Talking {
            plan: Plan { rooms, members, senders, size: self.size, framing, bystanders },
            pace: self.rate.map_or(Pace::Window(self.window as usize), Pace::Rate),
            threads: self.threads as usize,
            relay_splits: framing == Framing::Bare,
        }
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            eprintln!("raybench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all that was sent came back whole.
fn run(options: &Options) -> io::Result<bool> {
    let common = &options.common;
    let server = Target::Server { addresses: common.address.clone(), pids: common.pid.clone() };
    let runs = match &options.mode {
        Mode::Relay { listen, room, split_at } => {
            let settings = relay::Settings { listen: *listen, room: usize::from(*room), split_at: *split_at };
            return relay::run(settings).map(|()| true);
        }
        Mode::Workload(workload) => {
            let target = if common.relay { Target::Relay } else { server };
            let context = common.context(target, common.accounts.clone());
            let outcome = workload.run(&context)?;
            context.progress.clear();
            vec![Run { name: context.target.to_string(), outcome }]
        }
        Mode::Compare { a, b, rounds, workload } => {
            let accounts = common.accounts.as_deref();
            compare::compare([a, b], *rounds, accounts, |target, accounts| {
                let context = common.context(target.clone(), accounts);
                let outcome = workload.run(&context);
                context.progress.clear();
                outcome
            })?
        }
    };
    let settings = settings();
    let workload = match &options.mode {
        Mode::Workload(workload) | Mode::Compare { workload, .. } => workload.name(),
        Mode::Relay { .. } => "relay",
    };
    if let Mode::Workload(_) = options.mode {
        print!("{}", report::text(&runs[0]));
    } else {
        print!("{}", compare::text(&runs));
    }
    if let Some(path) = &common.json {
        let json = report::json(workload, &settings, &runs);
        if path == Path::new("-") { println!("{json}") } else { write(path, &format!("{json}\n"))? }
    }
    if let Some(path) = &common.report {
        write(path, &page::page(workload, &settings, &runs)?)?;
    }
    Ok(runs.iter().all(|run| run.outcome.counts.is_complete()))
}

/// The command line, without where the results go.
fn settings() -> String {
    let mut words = std::env::args().skip(1);
    let mut kept = vec!["raybench".to_owned()];
    while let Some(word) = words.next() {
        match word.split('=').next() {
            Some("--json" | "--report" | "--accounts") if word.contains('=') => {}
            Some("--json" | "--report" | "--accounts") => drop(words.next()),
            _ if word == "--quiet" => {}
            _ => kept.push(word),
        }
    }
    kept.join(" ")
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

impl Common {
    fn context(&self, target: Target, accounts: Option<PathBuf>) -> Context {
        Context { target, accounts, warm_up: self.warm_up, measured: self.seconds, progress: Progress::new(self.quiet) }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn a_comparison_takes_the_options_of_its_workload() {
        let line = "raybench compare -a relay -b 127.0.0.1:6000@1 --rounds 3 pairs --window 32 --seconds 2";
        let options = Options::try_parse_from(line.split(' ')).expect("it is right");
        assert!(matches!(options.mode, Mode::Compare { a: Target::Relay, rounds: 3, .. }));
        assert_eq!(options.common.seconds, Duration::from_secs(2));
    }
}
