//! The command line.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Args, Command, Parser, Subcommand};

use crate::carrier::{Address, Carrier};
use crate::talk;
use crate::target::{self, Target};
use crate::wire::Framing;

const EXIT_CODES: &str = "Exit codes:
  0    all that was sent came back, once, whole and in order
  1    an error: the run could not be made, or not to its end
  2    the command line is wrong
  3    incomplete: something was lost, duplicated, reordered or altered, or a connection was closed
  130  interrupted by Ctrl-C; the results so far are printed";

#[derive(Parser, Debug)]
#[command(name = "raybench", version, about = "Measures chat servers, and checks that they lose nothing while they are fast.", after_help = EXIT_CODES)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) mode: Mode,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Addresses of the nodes, HOST:PORT, separated by commas; the connections are spread over
    /// them. tls://HOST:PORT speaks TLS, ws://HOST:PORT is a WebSocket (not for
    /// survive)
    #[arg(long, global = true, value_delimiter = ',', value_parser = str::parse::<Address>, default_value = "127.0.0.1:6000")]
    pub(crate) address: Vec<Address>,
    /// PIDs of the server's processes, if they run on this machine: their processor time and memory
    /// are measured
    #[arg(long, global = true, value_delimiter = ',', value_parser = target::pid)]
    pub(crate) pid: Vec<u32>,
    /// Measure the relay instead of a server: a program that only makes the necessary system calls;
    /// it is started for the run
    #[arg(long, global = true)]
    pub(crate) relay: bool,
    /// Measured time in seconds
    #[arg(long, global = true, default_value = "5", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Seconds of warm-up before that, not measured
    #[arg(long, global = true, default_value = "1", value_parser = seconds)]
    pub(crate) warm_up: Duration,
    /// Store the registered users in this file, and read them from it the next time
    #[arg(long, global = true)]
    pub(crate) accounts: Option<PathBuf>,
    /// Write the result as JSON to this file; - is standard output, and the text goes to standard
    /// error
    #[arg(long, global = true)]
    pub(crate) json: Option<PathBuf>,
    /// Write the result as an HTML page with plots to this file
    #[arg(long, global = true)]
    pub(crate) report: Option<PathBuf>,
    /// Show no progress
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Mode {
    #[command(flatten)]
    Workload(Workload),
    /// Run a workload against two targets, in turns, and show the ratios
    Compare {
        /// The baseline: relay, tls-relay (the same with TLS), or
        /// ADDRESS[,ADDRESS...][@PID[,PID...]]
        #[arg(short)]
        a: Target,
        /// The target to compare with it, in the same form
        #[arg(short)]
        b: Target,
        /// Number of rounds
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        #[command(subcommand)]
        workload: Workload,
    },
    /// Run as the relay, until standard input ends
    Relay {
        /// The address to listen on
        #[arg(long, default_value = "127.0.0.1:6100", value_parser = target::address)]
        listen: SocketAddr,
        /// Connections in a room, counted in the order of connecting: each gets what the others of
        /// its room send
        #[arg(long, default_value = "2", value_parser = clap::value_parser!(u16).range(2..))]
        room: u16,
        /// Write each frame in a write of its own; this byte ends a frame (10 is a newline, 125 a
        /// closing brace)
        #[arg(long)]
        split_at: Option<u8>,
        /// Speak TLS, with a certificate that is made for the run
        #[arg(long)]
        tls: bool,
    },
}

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Workload {
    /// Users who write to each other in pairs: one sends, the other receives
    Pairs(PairsOptions),
    /// The same across nodes: the two users of a pair are on different nodes
    Cross(PairsOptions),
    /// Groups, in which one member sends and all the others receive
    Group {
        /// Members of each group
        #[arg(long, default_value = "100", value_parser = clap::value_parser!(u16).range(3..=10_000))]
        members: u16,
        /// Number of groups
        #[arg(long, default_value = "1", value_parser = count())]
        groups: u32,
        /// Number of members of each group who send
        #[arg(long, default_value = "1", value_parser = count())]
        senders: u32,
        /// The protocol that all of them use; at level 2 each message is acknowledged once it is
        /// stored
        #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..=2))]
        level: u8,
        #[command(flatten)]
        talk: TalkOptions,
    },
    /// Users of level 2 who write to others: each message is acknowledged once it is stored, and
    /// has one number in its conversation
    Acked {
        /// Number of conversations, each with a recipient of its own
        #[arg(long, default_value = "50", value_parser = count())]
        conversations: u32,
        /// Number of users who write, in turns to the conversations of each
        #[arg(long, default_value = "50", value_parser = count())]
        senders: u32,
        #[command(flatten)]
        talk: TalkOptions,
    },
    /// Users of level 2 who write to users with several devices, which all receive the messages
    Devices {
        /// Number of pairs
        #[arg(long, default_value = "10", value_parser = count())]
        pairs: u32,
        /// Number of devices of each recipient
        #[arg(long, default_value = "8", value_parser = clap::value_parser!(u8).range(1..=16))]
        devices: u8,
        #[command(flatten)]
        talk: TalkOptions,
    },
    /// Users of level 2 who come back by token, with cursors, and receive the messages that they
    /// missed
    Resume {
        /// Number of users, each other's neighbours in a circle
        #[arg(long, default_value = "1000", value_parser = count())]
        users: u32,
        /// Number of conversations of each user, half of them with those before it
        #[arg(long, default_value = "50", value_parser = clap::value_parser!(u16).range(2..=1000))]
        conversations: u16,
        /// Number of conversations of each user in which the user missed messages
        #[arg(long, default_value = "3", value_parser = clap::value_parser!(u16).range(1..=500))]
        grown: u16,
        /// Number of missed messages in each of these
        #[arg(long, default_value = "5", value_parser = clap::value_parser!(u16).range(1..=100))]
        missed: u16,
        /// Number of connections that log in at the same time
        #[arg(long, default_value = "20", value_parser = clap::value_parser!(u16).range(1..=1000))]
        connections: u16,
    },
    /// Users of level 2 who write while the server is killed (kill -9) and started again: nothing
    /// may be lost. They are clients of the client library, which repeats unacknowledged messages
    Survive {
        /// The command that starts the server at --address, as a shell understands it. It must keep
        /// its data: do not give the server a new folder each time
        #[arg(long)]
        start: String,
        /// Number of times that the server is killed, in equal pauses of the measured time
        #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
        kills: u32,
        /// Number of pairs
        #[arg(long, default_value = "20", value_parser = count())]
        pairs: u32,
        /// Number of messages of each sender without an acknowledgement
        #[arg(long, default_value = "32", value_parser = count())]
        window: u32,
        /// Bytes of each text
        #[arg(long, default_value = "100", value_parser = size)]
        size: usize,
        /// At the end, give up missing messages after this many seconds
        #[arg(long, default_value = "60", value_parser = seconds)]
        patience: Duration,
    },
    /// Users who are logged in and send nothing: the cost of each connection
    Idle {
        /// Number of connections
        #[arg(long, default_value = "15000", value_parser = count())]
        connections: u32,
        /// Number of users on these connections
        #[arg(long, default_value = "1000", value_parser = count())]
        users: u32,
        /// The protocol that all of them use; at level 2 there must be as many users as connections
        #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..=2))]
        level: u8,
        /// Number of conversations of each user at level 2, half of them with those before it
        #[arg(long, default_value = "50", value_parser = clap::value_parser!(u16).range(2..=1000))]
        conversations: u16,
        #[command(flatten)]
        framing: Bare,
    },
    /// Users who log in again and again
    Login {
        /// Number of connections that log in at the same time
        #[arg(long, default_value = "50", value_parser = count())]
        connections: u32,
        /// Number of users
        #[arg(long, default_value = "1000", value_parser = count())]
        users: u32,
        /// Use a new connection for each login
        #[arg(long)]
        reconnect: bool,
        /// Log each user in once, and not during the warm-up: after a restart the server must hash
        /// each password
        #[arg(long)]
        first: bool,
        #[command(flatten)]
        framing: Bare,
    },
    /// Users who write to others who are offline and come back
    Offline {
        /// Number of senders, each with an offline recipient of its own
        #[arg(long, default_value = "10", value_parser = count())]
        senders: u32,
        /// Number of messages that each sender writes
        #[arg(long, default_value = "10000", value_parser = count())]
        messages: u32,
        /// Bytes of each frame, its newline included
        #[arg(long, default_value = "100", value_parser = size)]
        size: usize,
        #[command(flatten)]
        framing: Bare,
    },
    /// Many connections within a short time: each asks what the C++ server's author asked in his
    /// benchmark, then logs in
    ///
    /// Passwords cost a server far more than connections do. To measure connections, start it with
    /// `--argon2 m=8,t=1,p=1`, the least that it accepts.
    Ramp {
        /// Number of connections
        #[arg(long, default_value = "19000", value_parser = count())]
        connections: u32,
        /// Seconds over which the connections are spread
        #[arg(long, default_value = "10", value_parser = seconds)]
        over: Duration,
        /// Number of users who log in on them
        #[arg(long, default_value = "1000", value_parser = count())]
        users: u32,
        #[command(flatten)]
        framing: Bare,
    },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct PairsOptions {
    /// Number of pairs
    #[arg(long, default_value = "50", value_parser = count())]
    pub(crate) pairs: u32,
    /// Users who are also logged in and send nothing; the relay has none
    #[arg(long, default_value = "0", value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub(crate) bystanders: u32,
    #[command(flatten)]
    pub(crate) talk: TalkOptions,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct TalkOptions {
    /// Number of messages of each sender that are on their way at the same time
    #[arg(long, default_value = "1", value_parser = count(), conflicts_with = "rate")]
    pub(crate) window: u32,
    /// Messages to send each second, all senders together, independent of the deliveries; times
    /// count from when a message was due
    #[arg(long, value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Bytes of each frame, its newline included
    #[arg(long, default_value = "100", value_parser = size)]
    pub(crate) size: usize,
    /// At the end, give up missing messages when nothing has arrived for this many seconds
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub(crate) patience: Duration,
    /// Threads of this program, which share the pairs or groups
    #[arg(long, default_value = "1", value_parser = count())]
    pub(crate) threads: u32,
    #[command(flatten)]
    pub(crate) framing: Bare,
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Bare {
    /// Send frames without newlines, as the Qt client does; the relay then writes each frame by
    /// itself, as a server must
    #[arg(long)]
    pub(crate) bare: bool,
}

impl Common {
    pub(crate) fn target(&self) -> Target {
        if self.relay {
            return Target::Relay(Carrier::Tcp);
        }
        Target::Server { addresses: self.address.clone(), pids: self.pid.clone() }
    }
}

impl Workload {
    /// Whether the workload runs for a given time.
    pub(crate) fn is_timed(&self) -> bool {
        !matches!(
            self,
            Workload::Offline { .. }
                | Workload::Ramp { .. }
                | Workload::Resume { .. }
                | Workload::Login { first: true, .. }
        )
    }
}

/// Whether this option applies only to workloads that run for a given time.
pub(crate) fn is_of_time(name: &str) -> bool {
    matches!(name, "seconds" | "warm_up")
}

impl Bare {
    pub(crate) fn framing(self) -> Framing {
        if self.bare { Framing::Bare } else { Framing::Lines }
    }
}

fn count() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1_000_000)
}

fn size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| (1..=talk::FRAME_MAX).contains(size));
    size.ok_or_else(|| format!("`{text}` is no number of bytes from 1 to {}", talk::FRAME_MAX))
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

/// The command line without the options that name the files for results.
pub(crate) fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let mut words = arguments.skip(1);
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

/// Every option that affects the result, with its value, given or default. The options that name
/// the files for results are left out.
pub(crate) fn settings(command: &Command, matches: &ArgMatches) -> Vec<(String, String)> {
    let mut settings: Vec<(String, String)> = Vec::new();
    let is_comparison = matches.subcommand_name() == Some("compare");
    let is_relay = matches.try_get_one::<bool>("relay").is_ok_and(|relay| relay.copied().unwrap_or(false));
    for argument in command.get_arguments() {
        let id = argument.get_id().as_str();
        if matches!(id, "json" | "report" | "accounts" | "quiet" | "help" | "version") {
            continue;
        }
        let is_unused = match id {
            "address" | "pid" => is_relay || is_comparison,
            "relay" => is_comparison,
            // Only some of the workloads with a window have a rate.
            "window" => matches.try_contains_id("rate").unwrap_or(false),
            _ => false,
        };
        if is_unused {
            continue;
        }
        let Ok(Some(values)) = matches.try_get_raw(id) else { continue };
        let values: Vec<_> = values.map(OsStr::to_string_lossy).collect();
        settings.push((id.to_owned(), values.join(",")));
    }
    if let Some((name, matches)) = matches.subcommand()
        && let Some(command) = command.find_subcommand(name)
    {
        settings.extend(self::settings(command, matches));
    }
    settings
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
        assert!(matches!(options.mode, Mode::Compare { a: Target::Relay(Carrier::Tcp), rounds: 3, .. }));
        assert_eq!(options.common.seconds, Duration::from_secs(2));
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for line in [
            "raybench pairs --size 0",
            "raybench pairs --size 131073",
            "raybench offline --size 18446744073709551615",
            "raybench pairs --bystanders 18446744073709551615",
        ] {
            assert!(Options::command().try_get_matches_from(line.split(' ')).is_err(), "{line}");
        }
        Options::command().try_get_matches_from("raybench pairs --size 131072".split(' ')).expect("the largest");
    }

    #[test]
    fn the_command_is_shown_without_the_files_for_results() {
        let line = "raybench pairs --json - --window 3 --report=x.html --quiet --accounts users --seconds 2";
        let kept = command_line(line.split(' ').map(str::to_owned));
        assert_eq!(kept, "raybench pairs --window 3 --seconds 2");
    }

    #[test]
    fn settings_are_listed_with_their_defaults() {
        let line = "raybench pairs --window 3 --bare --json -";
        let matches = Options::command().try_get_matches_from(line.split(' ')).expect("it is right");
        let settings = settings(&Options::command(), &matches);
        let value = |name: &str| settings.iter().find(|(id, _)| id == name).map(|(_, value)| value.as_str());
        assert_eq!(value("window"), Some("3"));
        assert_eq!(value("bare"), Some("true"));
        assert_eq!(value("pairs"), Some("50"));
        assert_eq!(value("seconds"), Some("5"));
        assert_eq!(value("address"), Some("127.0.0.1:6000"));
        assert_eq!(value("json"), None);
    }

    #[test]
    fn settings_that_do_not_apply_are_not_listed() {
        let told = |line: &str| {
            let matches = Options::command().try_get_matches_from(line.split(' ')).expect("it is right");
            settings(&Options::command(), &matches).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        let names = told("raybench compare -a relay -b 127.0.0.1:1 pairs --rate 5");
        assert!(!["address", "relay", "window"].iter().any(|name| names.iter().any(|told| told == name)), "{names:?}");
        assert!(names.contains(&"rate".to_owned()) && names.contains(&"a".to_owned()), "{names:?}");
        assert!(!told("raybench pairs --relay").contains(&"address".to_owned()));
        assert!(told("raybench survive --start server").contains(&"window".to_owned()));
    }
}
